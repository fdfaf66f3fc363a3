package main

import (
	"fmt"

	"github.com/spf13/cobra"
	"github.com/torchgo/torchgo/cmd/torchgo/internal/cli"
	"github.com/torchgo/torchgo/pretrained"
	"github.com/torchgo/torchgo/pretrained/peft"
	"github.com/torchgo/torchgo/pretrained/safetensors"
)

func init() { cli.Register(newMerge) }

func newMerge(app *cli.App) *cobra.Command {
	var model *modelFlags
	var shard string
	cmd := &cobra.Command{
		Use:   "merge BASE ADAPTER DST",
		Short: "Fold a PEFT adapter into its base model and save that (merge_and_unload)",
		Long: `merge loads the model BASE and the PEFT adapter ADAPTER over it, adds what the adapter changes to the weights,
W + s·BA, and saves the result in the folder DST as a model without adapters, with the tokenizer's and other
small files that are beside BASE. An adapter that would make a weight infinite or not a number is an error. DST gets
the new checkpoint whole or stays as it was.`,
		Args: cobra.ExactArgs(3),
		RunE: func(cmd *cobra.Command, args []string) error {
			if model.adapter != "" {
				return cli.Usagef("--adapter: the adapter is the second argument of merge")
			}
			o := pretrained.SaveOptions{MaxShardSize: shard}
			if shard != "" {
				if _, err := safetensors.ParseSize(shard); err != nil {
					return cli.Usagef("--max-shard-size: %v", err)
				}
			}
			if bars := app.Progress(); bars != nil {
				o.Progress = func(done, total int64) { bars.Bytes("saving", done, total) }
			}
			model.adapter = args[1]
			c, report, err := model.convert(cmd.Context(), app, args[0], args[2], o, func(m pretrained.Model) error {
				return m.MergeAndUnload(peft.MergeOptions{Safe: true})
			})
			if err != nil {
				return err
			}
			c.Adapter = args[1]
			if app.JSON {
				return app.PrintJSON(c)
			}
			_, err = fmt.Fprintf(app.Stdout, "%s%s: %s in %s%s\n", report, c.Destination, plural(c.Bytes, "byte"),
				plural(int64(len(c.Files)), "file"), alongWith(c.Copied))
			return err
		},
	}
	model = addModelFlags(cmd)
	cmd.Flags().StringVar(&shard, "max-shard-size", "", "the largest shard, as 5GB, in powers of 1000 (default: 50GB)")
	return cmd
}
