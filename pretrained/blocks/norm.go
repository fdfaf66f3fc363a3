package blocks

import (
	"strconv"

	"github.com/torchgo/torchgo/pretrained"
	"github.com/torchgo/torchgo/torch"
	"github.com/torchgo/torchgo/torch/nn"
)

// RMSNorm computes y = γ · x / √(E[x²] + ε) over the last dimension: (…, C) → (…, C). In half precision it
// rounds where transformers' models do (LlamaRMSNorm): the quotient is computed in float32, then cast, then
// scaled. nn.RMSNorm, which is PyTorch's, scales first.
//
// Source: Zhang and Sennrich, Root Mean Square Layer Normalization, https://arxiv.org/abs/1910.07467.
type RMSNorm struct {
	nn.Hooks

	Weight *torch.Tensor `torch:"weight"` // γ (C)

	Eps float64
}

// NewRMSNorm makes a norm of c features.
func NewRMSNorm(b nn.Builder, c int, eps float64) *RMSNorm {
	return &RMSNorm{Weight: b.RMSNorm(c).Weight, Eps: eps}
}

// InitWeights implements pretrained.Initializer.
func (n *RMSNorm) InitWeights(in *pretrained.Init) { in.Fill(n.Weight, 1) }

// Forward keeps the shape.
func (n *RMSNorm) Forward(x *torch.Tensor) *torch.Tensor { return n.Call(x, n.forward) }

func (n *RMSNorm) forward(x *torch.Tensor) *torch.Tensor {
	if x.DType() == torch.Float32 && n.Weight.DType() == torch.Float32 { // nothing is rounded between: one kernel
		return torch.RmsNorm(x, n.Weight.Shape(), torch.RmsNormOptions{Weight: n.Weight, Eps: torch.Some(n.Eps)})
	}
	y := x.ToDType(torch.Float32)
	y = y.Mul(y.Square().MeanDim([]int{-1}, torch.MeanDimOptions{KeepDim: true}).AddScalar(n.Eps).Rsqrt())
	return n.Weight.Mul(y.ToDType(x.DType()))
}

// ExtraRepr is what PyTorch prints in the parentheses.
func (n *RMSNorm) ExtraRepr() string {
	return "(" + strconv.Itoa(n.Weight.Size(0)) + ",), eps=" + strconv.FormatFloat(n.Eps, 'g', -1, 64)
}
