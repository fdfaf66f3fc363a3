package models

import (
	"github.com/torchgo/torchgo/torch"
	"github.com/torchgo/torchgo/torch/nn"
	"github.com/torchgo/torchgo/torch/optim"
)

// Case is a model with its data and its optimizer.
type Case struct {
	Build     func() nn.Layer
	Data      func(step int) (x, y *torch.Tensor)
	Optimizer func(params []*torch.Tensor) optim.Optimizer
}

// Cases are those of tools/trainref/trainref.py, whose losses are recorded. Their optimizers compute as
// Python's do by default on the CPU; the fused kernels round otherwise.
var Cases = map[string]Case{
	"mlp": {
		Build:     func() nn.Layer { return NewMLP(64, 128, 10) },
		Data:      func(step int) (x, y *torch.Tensor) { return Labelled(step, 10, 32, 64) },
		Optimizer: adamW,
	},
	"resnet18": {
		Build: func() nn.Layer { return NewResNet18(10) },
		Data:  func(step int) (x, y *torch.Tensor) { return Labelled(step, 10, 2, 3, 32, 32) },
		Optimizer: func(params []*torch.Tensor) optim.Optimizer {
			return optim.NewSGD(params, optim.SGDOptions{LR: 0.001, Momentum: 0.9, WeightDecay: 5e-4, Fused: torch.Some(false)})
		},
	},
	"lstm": {
		Build:     func() nn.Layer { return NewLSTM(64, 64) },
		Data:      func(step int) (x, y *torch.Tensor) { return Sequences(step, 64, 8, 24) },
		Optimizer: adamW,
	},
	"gpt": {
		Build:     func() nn.Layer { return NewGPT(64, 32, 64, 4, 4) },
		Data:      func(step int) (x, y *torch.Tensor) { return Sequences(step, 64, 8, 32) },
		Optimizer: adamW,
	},
}

func adamW(params []*torch.Tensor) optim.Optimizer {
	return optim.NewAdamW(params, optim.AdamWOptions{LR: 3e-3, Fused: torch.Some(false)})
}

// Step trains a model by one batch and gives the loss before that.
func Step(model nn.Layer, opt optim.Optimizer, x, y *torch.Tensor) (loss float64) {
	torch.Scope(func() {
		opt.ZeroGrad()
		out := model.Forward(x)
		l := nn.CrossEntropy(out.Reshape(-1, out.Size(-1)), y.Reshape(-1))
		l.Backward()
		opt.Step()
		loss = torch.Item[float64](l.ToDType(torch.Float64))
	})
	return loss
}
