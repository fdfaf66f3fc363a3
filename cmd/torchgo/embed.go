package main

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"github.com/torchgo/torchgo/cmd/torchgo/internal/cli"
	"github.com/torchgo/torchgo/pretrained/sentence"
	"github.com/torchgo/torchgo/torch"
)

func init() { cli.Register(newEmbed) }

func newEmbed(app *cli.App) *cobra.Command {
	var pooling string
	var normalize bool
	var batch int
	var model *modelFlags
	cmd := &cobra.Command{
		Use:   "embed MODEL",
		Short: "A line of text in, a JSON array of numbers out",
		Long: `Embed sentences, one a line; an empty line is the empty sentence. The model's modules.json and
1_Pooling say how tokens become one vector; a model without them is averaged. What has arrived on
standard input is computed together, in batches of similar length.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			o, err := model.options(app, "loading")
			if err != nil {
				return err
			}
			so := sentence.Options{Options: o}
			if pooling != "" {
				for name := range strings.SplitSeq(pooling, "+") {
					so.Pooling = append(so.Pooling, sentence.Pooling(name))
				}
			}
			if cmd.Flags().Changed("normalize") {
				so.Normalize = torch.Some(normalize)
			}
			if batch < 1 {
				return cli.Usagef("--batch-size: expected 1 or more, got %d", batch)
			}
			if err := model.start(); err != nil {
				return err
			}
			enc, err := sentence.Load(cmd.Context(), args[0], so)
			if err != nil {
				return err
			}
			defer enc.Close()
			return embedLines(cmd.Context(), app, enc, batch)
		},
	}
	model = addModelFlags(cmd)
	f := cmd.Flags()
	f.StringVar(&pooling, "pooling", "", "mean, cls, max, … (default: the model's); several joined by + are put side by side")
	f.BoolVar(&normalize, "normalize", false, "scale each vector to length 1 (default: if the model says so)")
	f.IntVar(&batch, "batch-size", 32, "sentences that are computed together")
	return cmd
}

// embedLines answers each line of stdin in order. It computes what is there and never waits for more
// input while a line is unanswered, so that a program can hold a conversation with it.
func embedLines(ctx context.Context, app *cli.App, enc *sentence.Encoder, batch int) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	in, out := newLines(ctx, app.Stdin), newRows(app)
	for n := 1; ; {
		chunk, err := in.take()
		if err == nil && len(chunk) == 0 {
			return out.end()
		}
		if err != nil {
			return err
		}
		vectors, err := enc.Encode(ctx, chunk, sentence.EncodeOptions{BatchSize: batch})
		if err != nil {
			return err
		}
		for _, v := range vectors {
			if slices.ContainsFunc(v, func(x float32) bool { return x-x != 0 }) {
				return fmt.Errorf("line %d: the embedding is not finite", n)
			}
			if err := out.row(appendVector(nil, v)); err != nil {
				return err
			}
			n++
		}
		if err := out.flush(); err != nil {
			return err
		}
	}
}

func appendVector(dst []byte, v []float32) []byte {
	dst = append(dst, '[')
	for i, x := range v {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = strconv.AppendFloat(dst, float64(x), 'g', -1, 32)
	}
	return append(dst, ']')
}
