package nn

import "github.com/torchgo/torchgo/torch"

// LayerNorm computes y = (x - E[x]) / √(Var[x] + ε) · γ + β over the last dimension: (…, C) → (…, C).
type LayerNorm struct {
	Weight *torch.Tensor `torch:"weight"` // γ: (C)
	Bias   *torch.Tensor `torch:"bias"`   // β: (C)

	Eps float64
}

// NewLayerNorm makes a float32 one on the CPU with γ = 1 and β = 0. PyTorch's default of eps is 1e-5.
func NewLayerNorm(size int, eps float64) *LayerNorm { return Builder{}.LayerNorm(size, eps) }

// LayerNorm makes a layer norm over size channels.
func (b Builder) LayerNorm(size int, eps float64) *LayerNorm {
	n := &LayerNorm{Weight: b.Parameter(size), Bias: b.Parameter(size), Eps: eps}
	b.init(func() {
		n.Weight.Fill_(1)
		n.Bias.Zero_()
	})
	return n
}

// Forward maps (…, C) to (…, C).
func (n *LayerNorm) Forward(x *torch.Tensor) *torch.Tensor {
	return torch.LayerNorm(x, n.Weight.Shape(), torch.LayerNormOptions{
		Weight: n.Weight, Bias: n.Bias, Eps: torch.Some(n.Eps)})
}
