package nn

import "github.com/torchgo/torchgo/torch"

// Linear computes y = x Wᵀ + b: (…, in) → (…, out). How W is stored and multiplied is up to Weight, so
// that a model does not care whether a layer is dense, quantized, adapted or sharded.
type Linear struct {
	Weight LinearWeight  `torch:",inline"`
	Bias   *torch.Tensor `torch:"bias"` // (out), nil: none
}

// LinearWeight is the matrix of a Linear. It is a module: its tags name its own state-dict entries.
type LinearWeight interface {
	// Forward computes x Wᵀ, plus bias where it is not nil: (…, in) → (…, out).
	Forward(x, bias *torch.Tensor) *torch.Tensor
	// Features are the sizes in and out.
	Features() (in, out int)
}

// Dense is a LinearWeight stored as it is.
type Dense struct {
	W *torch.Tensor `torch:"weight"` // (out, in)
}

// Forward implements LinearWeight.
func (d *Dense) Forward(x, bias *torch.Tensor) *torch.Tensor {
	return torch.Linear(x, d.W, torch.LinearOptions{Bias: bias})
}

// Features implements LinearWeight.
func (d *Dense) Features() (in, out int) { return d.W.Size(1), d.W.Size(0) }

// LinearOptions are the optional arguments of NewLinear.
type LinearOptions struct {
	Bias torch.Opt[bool] // default: true
}

// NewLinear makes a dense float32 layer on the CPU, initialised as PyTorch's nn.Linear. (Use a Builder for
// another dtype or device.)
func NewLinear(in, out int, opts ...LinearOptions) *Linear { return Builder{}.Linear(in, out, opts...) }

// Linear makes a dense layer.
func (b Builder) Linear(in, out int, opts ...LinearOptions) *Linear {
	w := b.Parameter(out, in)
	b.init(func() { kaimingUniform(w, in) })
	l := &Linear{Weight: &Dense{w}}
	if len(opts) == 0 || opts[0].Bias.Or(true) {
		l.Bias = b.Parameter(out)
		b.init(func() { kaimingUniform(l.Bias, in) })
	}
	return l
}

// Forward maps (…, in) to (…, out).
func (l *Linear) Forward(x *torch.Tensor) *torch.Tensor { return l.Weight.Forward(x, l.Bias) }
