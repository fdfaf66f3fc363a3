package blocks

import (
	"github.com/torchgo/torchgo/torch"
	"github.com/torchgo/torchgo/torch/nn"
)

// GatedMLP computes W₃(act(W₁x) · W₂x): (B, T, C) → (B, T, C). With SiLU it is SwiGLU.
//
// Source: Shazeer, GLU Variants Improve Transformer, https://arxiv.org/abs/2002.05202.
type GatedMLP struct {
	GateProj *nn.Linear `torch:"gate_proj"` // W₁ (inner, C)
	UpProj   *nn.Linear `torch:"up_proj"`   // W₂ (inner, C)
	DownProj *nn.Linear `torch:"down_proj"` // W₃ (C, inner)

	act nn.Activation
}

// NewGatedMLP makes one with an activation of nn.ActivationByName, which it panics without.
func NewGatedMLP(b nn.Builder, hidden, inner int, act string, bias bool) *GatedMLP {
	f, err := nn.ActivationByName(act)
	if err != nil {
		panic(&torch.Error{Op: "gated_mlp", Kind: torch.ErrArgument, Message: err.Error()})
	}
	o := nn.LinearOptions{Bias: torch.Some(bias)}
	return &GatedMLP{GateProj: b.Linear(hidden, inner, o), UpProj: b.Linear(hidden, inner, o), DownProj: b.Linear(inner, hidden, o), act: f}
}

// Forward keeps the shape.
func (m *GatedMLP) Forward(x *torch.Tensor) *torch.Tensor {
	return m.DownProj.Forward(m.act(m.GateProj.Forward(x)).Mul(m.UpProj.Forward(x)))
}
