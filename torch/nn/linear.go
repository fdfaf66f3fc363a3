package nn

import (
	"math"

	"github.com/torchgo/torchgo/torch"
	"github.com/torchgo/torchgo/torch/nn/nninit"
)

// Linear computes y = x Wᵀ + b: (…, in) → (…, out). How W is stored and multiplied is up to Weight, so
// that a model does not care whether a layer is dense, quantized, adapted or sharded.
type Linear struct {
	Hooks

	Weight LinearWeight  `torch:",inline"`
	Bias   *torch.Tensor `torch:"bias"` // (out), nil: none

	class string // of PyTorch, where it isn't Linear
	lazy  lazy
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

// Dense is W, for weights that are computed from it.
func (d *Dense) Dense() *torch.Tensor { return d.W }

// Transposed is a LinearWeight stored as (in, out): that of transformers' Conv1D, which GPT-2 has.
type Transposed struct {
	W *torch.Tensor `torch:"weight"` // (in, out)
}

// Forward implements LinearWeight.
func (t *Transposed) Forward(x, bias *torch.Tensor) *torch.Tensor {
	return torch.Linear(x, t.W.T(), torch.LinearOptions{Bias: bias})
}

// Features implements LinearWeight.
func (t *Transposed) Features() (in, out int) { return t.W.Size(0), t.W.Size(1) }

// LinearOptions are the optional arguments of NewLinear.
type LinearOptions struct {
	Bias torch.Opt[bool] // default: true
}

// NewLinear makes a dense float32 layer on the CPU, initialised as PyTorch's nn.Linear. (Use a Builder for
// another dtype or device.)
func NewLinear(in, out int, opts ...LinearOptions) *Linear { return Builder{}.Linear(in, out, opts...) }

// Linear makes a dense layer.
func (b Builder) Linear(in, out int, opts ...LinearOptions) *Linear {
	l := &Linear{}
	b.linear(l, in, out, first(opts).Bias.Or(true))
	return l
}

// linear makes the tensors of a layer.
func (b Builder) linear(l *Linear, in, out int, bias bool) {
	w := b.Parameter(out, in)
	l.Weight = &Dense{w}
	if bias {
		l.Bias = b.Parameter(out)
	}
	b.init(func() { resetAffine(w, l.Bias) })
}

// resetAffine is the start of linear and convolutional layers: weight and bias from U(-a, a), a = 1/√fanIn.
func resetAffine(w, bias *torch.Tensor) {
	nninit.KaimingUniform_(w, nninit.KaimingOptions{A: math.Sqrt(5)})
	if bias == nil {
		return
	}
	bound := 0.0
	if in, _ := nninit.Fans(w); in > 0 {
		bound = 1 / math.Sqrt(float64(in))
	}
	nninit.Uniform_(bias, -bound, bound)
}

// Forward maps (…, in) to (…, out).
func (l *Linear) Forward(x *torch.Tensor) *torch.Tensor { return l.Call(x, l.forward) }

func (l *Linear) forward(x *torch.Tensor) *torch.Tensor {
	if l.lazy.builder != nil {
		l.materialise(x)
	}
	return l.Weight.Forward(x, l.Bias)
}

// ModuleName is the name of PyTorch's class.
func (l *Linear) ModuleName() string {
	if l.class != "" {
		return l.class
	}
	return "Linear"
}

// ExtraRepr is what PyTorch prints in the parentheses.
func (l *Linear) ExtraRepr() string {
	in, out, bias := 0, l.lazy.out, l.lazy.bias
	if l.Weight != nil {
		in, out = l.Weight.Features()
		bias = l.Bias != nil
	}
	return "in_features=" + itoa(in) + ", out_features=" + itoa(out) + ", bias=" + boolean(bias)
}

// Bilinear computes y[o] = x1ᵀ W[o] x2 + b[o]: (…, in1) and (…, in2) → (…, out).
type Bilinear struct {
	Hooks

	Weight *torch.Tensor `torch:"weight"` // (out, in1, in2)
	Bias   *torch.Tensor `torch:"bias"`   // (out), nil: none
}

// NewBilinear makes a float32 layer on the CPU, initialised as PyTorch's nn.Bilinear.
func NewBilinear(in1, in2, out int, opts ...LinearOptions) *Bilinear {
	return Builder{}.Bilinear(in1, in2, out, opts...)
}

// Bilinear makes a bilinear layer with values from U(-1/√in1, 1/√in1).
func (b Builder) Bilinear(in1, in2, out int, opts ...LinearOptions) *Bilinear {
	if in1 <= 0 {
		fail("bilinear", "in1_features must be > 0, but got (in1_features=%d)", in1)
	}
	l := &Bilinear{Weight: b.Parameter(out, in1, in2)}
	if first(opts).Bias.Or(true) {
		l.Bias = b.Parameter(out)
	}
	b.init(func() { uniformAll(1/math.Sqrt(float64(in1)), l.Weight, l.Bias) })
	return l
}

// uniformAll draws each tensor that is there from U(-bound, bound).
func uniformAll(bound float64, ts ...*torch.Tensor) {
	for _, t := range ts {
		if t != nil {
			nninit.Uniform_(t, -bound, bound)
		}
	}
}

// Forward maps (…, in1) and (…, in2) to (…, out).
func (l *Bilinear) Forward(x1, x2 *torch.Tensor) *torch.Tensor { return l.call2(x1, x2, l.forward) }

func (l *Bilinear) forward(x1, x2 *torch.Tensor) *torch.Tensor {
	return torch.Bilinear(x1, x2, l.Weight, torch.BilinearOptions{Bias: l.Bias})
}

// ExtraRepr is what PyTorch prints in the parentheses.
func (l *Bilinear) ExtraRepr() string {
	s := l.Weight.Shape()
	return "in1_features=" + itoa(s[1]) + ", in2_features=" + itoa(s[2]) + ", out_features=" + itoa(s[0]) + ", bias=" + boolean(l.Bias != nil)
}
