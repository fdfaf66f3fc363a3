package models

import (
	"github.com/torchgo/torchgo/torch"
	"github.com/torchgo/torchgo/torch/nn"
)

// MLP has three linear layers and ReLU between them.
type MLP struct {
	Layers *nn.Sequential `torch:"layers"`
}

// NewMLP makes one of (B, inputs) → (B, classes).
func NewMLP(inputs, hidden, classes int) *MLP {
	return &MLP{nn.NewSequential(
		nn.NewLinear(inputs, hidden), nn.NewReLU(),
		nn.NewLinear(hidden, hidden), nn.NewReLU(),
		nn.NewLinear(hidden, classes))}
}

// Forward maps (B, inputs) to (B, classes).
func (m *MLP) Forward(x *torch.Tensor) *torch.Tensor { return m.Layers.Forward(x) }
