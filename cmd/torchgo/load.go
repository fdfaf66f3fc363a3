package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"

	"github.com/spf13/cobra"
	"github.com/torchgo/torchgo/cmd/torchgo/internal/cli"
	"github.com/torchgo/torchgo/pretrained"
	"github.com/torchgo/torchgo/torch"
	"github.com/torchgo/torchgo/torch/nn"
)

func init() {
	cli.Register(newLoad)
	cli.Register(newPlan)
}

func newLoad(app *cli.App) *cobra.Command {
	var digest bool
	var model *modelFlags
	cmd := &cobra.Command{
		Use:   "load MODEL",
		Short: "Load a model (from_pretrained) and print the loading report",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			m, report, err := model.load(cmd.Context(), app, args[0])
			if err != nil {
				return err
			}
			defer m.Close()
			if !app.JSON && !digest {
				_, err := fmt.Fprint(app.Stdout, report)
				return err
			}
			out := struct {
				*pretrained.Report
				StateDict map[string]digestEntry `json:"state_dict,omitempty"`
			}{Report: report.Complete()}
			if digest {
				if out.StateDict, err = digests(cmd.Context(), m); err != nil {
					return err
				}
			}
			return app.PrintJSON(out)
		},
	}
	model = addModelFlags(cmd)
	cmd.Flags().BoolVar(&digest, "digest", false, "add dtype, shape and SHA-256 of each entry of the state dict (implies --json)")
	return cmd
}

// digestEntry is an entry of the state dict under --digest.
type digestEntry struct {
	DType  string `json:"dtype"`
	Shape  []int  `json:"shape"`
	SHA256 string `json:"sha256"` // of the contiguous little-endian bytes
}

func digests(ctx context.Context, m pretrained.Model) (map[string]digestEntry, error) {
	entries := map[string]digestEntry{}
	for name := range nn.StateDict(m) {
		t, err := m.Weight(ctx, name)
		if err != nil {
			return nil, err
		}
		err = torch.TryDo(func() {
			torch.Inference(func() {
				sum := sha256.Sum256(t.To(torch.CPU).Contiguous().Bytes())
				entries[name] = digestEntry{t.DType().String(), t.Shape(), hex.EncodeToString(sum[:])}
			})
		})
		t.Close()
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
	}
	return entries, nil
}

func newPlan(app *cli.App) *cobra.Command {
	var model *modelFlags
	cmd := &cobra.Command{
		Use:   "plan MODEL",
		Short: "Show what a load would do: placement, memory, missing weights; reads headers alone",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			o, err := model.options(app, "planning")
			if err != nil {
				return err
			}
			if err := model.start(); err != nil {
				return err
			}
			plan, err := pretrained.Plan(cmd.Context(), args[0], o)
			if err != nil {
				return inFlags(err)
			}
			if app.JSON {
				return app.PrintJSON(json.RawMessage(plan.JSON()))
			}
			_, err = fmt.Fprint(app.Stdout, plan)
			return err
		},
	}
	model = addModelFlags(cmd)
	return cmd
}
