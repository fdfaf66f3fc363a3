package main

import (
	"context"
	"math"

	"github.com/spf13/cobra"
	"github.com/torchgo/torchgo/cmd/torchgo/internal/cli"
	"github.com/torchgo/torchgo/pretrained"
	"github.com/torchgo/torchgo/torch"
	"github.com/torchgo/torchgo/torch/nn"
)

func init() { cli.Register(newEval) }

type evalFlags struct {
	inputs, outputs                           string
	hiddenStates, attentions, grad, keepDType bool
}

func newEval(app *cli.App) *cobra.Command {
	var e evalFlags
	var model *modelFlags
	cmd := &cobra.Command{
		Use:   "eval MODEL --inputs IN.safetensors --outputs OUT.safetensors",
		Short: "Run one forward pass (and backward, with --grad) on tensors of a file",
		Long: `Run one forward pass on tensors of a file, which are named as the model's forward arguments
(input_ids, attention_mask, labels, …), and write every output under transformers' name, in float32.
Scalars (loss, grad_norm) are written with shape [1]. --json prints the shapes.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if e.inputs == "" || e.outputs == "" {
				return cli.Usagef("--inputs and --outputs are required")
			}
			return e.run(cmd.Context(), app, model, args[0])
		},
	}
	model = addModelFlags(cmd)
	f := cmd.Flags()
	f.StringVar(&e.inputs, "inputs", "", "safetensors `file` of inputs")
	f.StringVar(&e.outputs, "outputs", "", "safetensors `file` to write")
	f.BoolVar(&e.hiddenStates, "hidden-states", false, "write hidden_states.N, too")
	f.BoolVar(&e.attentions, "attentions", false, "write attentions.N, too (of models loaded with --attn eager)")
	f.BoolVar(&e.grad, "grad", false, "run backward from loss; write grad_norm and grad.<parameter>, too")
	f.BoolVar(&e.keepDType, "keep-dtype", false, "write outputs in the dtype they have")
	return cmd
}

func (e *evalFlags) run(ctx context.Context, app *cli.App, model *modelFlags, path string) error {
	o, err := model.options(app, "loading")
	if err != nil {
		return err
	}
	if err := model.start(); err != nil {
		return err
	}
	named, err := pretrained.LoadFile(ctx, e.inputs) // first: it is small, and its name may be wrong
	if err != nil {
		return err
	}
	o.AdapterOptions.IsTrainable = e.grad // or nothing has a gradient
	m, _, err := pretrained.Load(ctx, path, o)
	if err != nil {
		return inFlags(err)
	}
	defer m.Close()
	results, err := e.forward(m, named)
	if err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := pretrained.SaveFile(ctx, e.outputs, results, nil); err != nil || !app.JSON {
		return err
	}
	shapes := map[string][]int{}
	for name, t := range results {
		shapes[name] = t.Shape()
	}
	return app.PrintJSON(map[string]any{"file": e.outputs, "outputs": shapes})
}

// forward runs the model and names its outputs.
func (e *evalFlags) forward(m pretrained.Model, named map[string]*torch.Tensor) (map[string]*torch.Tensor, error) {
	err := torch.TryDo(func() {
		for name, t := range named {
			named[name] = t.To(m.InputDevice())
		}
	})
	if err != nil {
		return nil, err
	}
	in, err := pretrained.NewInputs(named)
	if err != nil {
		return nil, err
	}
	in.OutputHiddenStates, in.OutputAttentions = e.hiddenStates, e.attentions
	pass := func() map[string]*torch.Tensor {
		results := map[string]*torch.Tensor{}
		out := m.Forward(in)
		if e.grad {
			if out.Loss == nil {
				panic(&torch.Error{Op: "--grad", Kind: torch.ErrArgument, Message: "there is no loss; the inputs need labels"})
			}
			out.Loss.Backward()
			gradients(m, results)
		}
		for name, t := range out.Named() {
			results[name] = t.Detach()
		}
		for name, t := range results {
			if !e.keepDType && t.DType().IsFloatingPoint() {
				t = t.ToDType(torch.Float32)
			}
			if t.Dim() == 0 {
				t = t.View(1)
			}
			results[name] = t
		}
		return results
	}
	return torch.Try(func() map[string]*torch.Tensor {
		if e.grad {
			return torch.ScopeOf(pass)
		}
		return torch.InferenceOf(pass)
	})
}

// gradients adds the gradient of each parameter, and their norm.
func gradients(m pretrained.Model, results map[string]*torch.Tensor) {
	sum := 0.0
	for name, p := range nn.NamedParameters(m) {
		if g := p.Grad(); g != nil {
			results["grad."+name] = g
			sum += torch.Item[float64](g.ToDType(torch.Float64).Square().Sum())
		}
	}
	results["grad_norm"] = torch.FromSlice([]float64{math.Sqrt(sum)})
}
