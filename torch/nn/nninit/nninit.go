// Package nninit fills tensors the way torch.nn.init does: the same formulas and the same draws, so that one
// seed gives Python's numbers.
//
// Each function works in place, without autograd, and returns its tensor. On the meta device it does nothing.
// Letters: fanIn is the number of inputs that a unit sees, size(1) · receptive field; fanOut is size(0) ·
// receptive field; the receptive field is the product of the dimensions from the third on.
package nninit

import (
	"math"

	"github.com/torchgo/torchgo/torch"
)

// fail panics as operators do.
func fail(op, message string) {
	panic(&torch.Error{Op: op, Kind: torch.ErrArgument, Message: message})
}

func one(gen []*torch.Generator) *torch.Generator {
	if len(gen) > 0 {
		return gen[0]
	}
	return nil
}

func meta(t *torch.Tensor) bool { return t.Device() == torch.Meta }

// quietly runs fn without autograd and frees what it makes.
func quietly(t *torch.Tensor, fn func()) *torch.Tensor {
	torch.Scope(func() { torch.NoGrad(fn) })
	return t
}

func uniform(t *torch.Tensor, a, b float64, gen *torch.Generator) {
	t.Uniform_(torch.UniformOptions{From: a, To: torch.Some(b), Generator: gen})
}

func normal(t *torch.Tensor, mean, std float64, gen *torch.Generator) {
	t.Normal_(torch.NormalInPlaceOptions{Mean: mean, Std: torch.Some(std), Generator: gen})
}

// Uniform_ draws from U(a, b); PyTorch's defaults are 0 and 1.
func Uniform_(t *torch.Tensor, a, b float64, gen ...*torch.Generator) *torch.Tensor {
	return quietly(t, func() { uniform(t, a, b, one(gen)) })
}

// Normal_ draws from N(mean, std²); PyTorch's defaults are 0 and 1.
func Normal_(t *torch.Tensor, mean, std float64, gen ...*torch.Generator) *torch.Tensor {
	return quietly(t, func() { normal(t, mean, std, one(gen)) })
}

// Constant_ sets every element to value.
func Constant_(t *torch.Tensor, value float64) *torch.Tensor {
	return quietly(t, func() { t.Fill_(value) })
}

// Ones_ sets every element to 1.
func Ones_(t *torch.Tensor) *torch.Tensor { return Constant_(t, 1) }

// Zeros_ sets every element to 0.
func Zeros_(t *torch.Tensor) *torch.Tensor { return quietly(t, func() { t.Zero_() }) }

// Eye_ makes a matrix the identity, cut or padded with zeros to its shape.
func Eye_(t *torch.Tensor) *torch.Tensor {
	if t.Dim() != 2 {
		fail("eye_", "Only tensors with 2 dimensions are supported")
	}
	return quietly(t, func() { torch.EyeMOut(t, t.Size(0), t.Size(1)) })
}

// DiracOptions are the optional arguments of [Dirac_].
type DiracOptions struct {
	Groups torch.Opt[int] // the kernel's groups; default: 1
}

// Dirac_ makes a convolution's kernel (O, I, K…) pass its input channels through, as many as there are in
// each group: w[g·O/groups + d, d, K/2, …] = 1, else 0.
func Dirac_(t *torch.Tensor, opts ...DiracOptions) *torch.Tensor {
	var o DiracOptions
	if len(opts) > 0 {
		o = opts[0]
	}
	groups, shape := o.Groups.Or(1), t.Shape()
	switch {
	case len(shape) < 3 || len(shape) > 5:
		fail("dirac_", "Only tensors with 3, 4, or 5 dimensions are supported")
	case groups < 1 || shape[0]%groups != 0:
		fail("dirac_", "dim 0 must be divisible by groups")
	case meta(t):
		return t
	}
	per := shape[0] / groups
	return quietly(t, func() {
		t.Zero_()
		for g := range groups {
			for d := range min(per, shape[1]) {
				at := t.Select(0, g*per+d).Select(0, d)
				for _, k := range shape[2:] {
					at = at.Select(0, k/2)
				}
				at.Fill_(1)
			}
		}
	})
}

// Fans are fanIn and fanOut of a tensor of at least two dimensions.
func Fans(t *torch.Tensor) (fanIn, fanOut int) {
	shape := t.Shape()
	if len(shape) < 2 {
		fail("fan", "Fan in and fan out can not be computed for tensor with fewer than 2 dimensions")
	}
	field := 1
	for _, n := range shape[2:] {
		field *= n
	}
	return shape[1] * field, shape[0] * field
}

// GainOptions are the optional arguments of [XavierUniform_], [XavierNormal_] and [Orthogonal_].
type GainOptions struct {
	Gain      torch.Opt[float64] // default: 1
	Generator *torch.Generator
}

func gainOf(opts []GainOptions) (float64, *torch.Generator) {
	if len(opts) > 0 {
		return opts[0].Gain.Or(1), opts[0].Generator
	}
	return 1, nil
}

func xavier(t *torch.Tensor, gain float64) (std float64) {
	in, out := Fans(t)
	return gain * math.Sqrt(2/float64(in+out))
}

// XavierUniform_ draws from U(-a, a), a = gain · √(6 / (fanIn + fanOut)).
//
// Source: Glorot and Bengio, Understanding the difficulty of training deep feedforward neural networks, 2010.
func XavierUniform_(t *torch.Tensor, opts ...GainOptions) *torch.Tensor {
	gain, gen := gainOf(opts)
	a := math.Sqrt(3) * xavier(t, gain)
	return Uniform_(t, -a, a, gen)
}

// XavierNormal_ draws from N(0, std²), std = gain · √(2 / (fanIn + fanOut)).
func XavierNormal_(t *torch.Tensor, opts ...GainOptions) *torch.Tensor {
	gain, gen := gainOf(opts)
	return Normal_(t, 0, xavier(t, gain), gen)
}

// KaimingOptions are the optional arguments of [KaimingUniform_] and [KaimingNormal_].
type KaimingOptions struct {
	A            float64 // the negative slope of a leaky ReLU that follows
	FanOut       bool    // keep the variance in the backward pass (PyTorch's mode="fan_out")
	Nonlinearity string  // a name that [CalculateGain] knows; default: "leaky_relu"
	Generator    *torch.Generator
}

// kaiming is the standard deviation; ok is false for a tensor without elements.
func kaiming(t *torch.Tensor, o KaimingOptions) (std float64, ok bool) {
	if t.Numel() == 0 {
		return 0, false
	}
	fan, out := Fans(t)
	if o.FanOut {
		fan = out
	}
	name := o.Nonlinearity
	if name == "" {
		name = "leaky_relu"
	}
	return CalculateGain(name, o.A) / math.Sqrt(float64(fan)), true
}

// KaimingUniform_ draws from U(-a, a), a = gain · √(3 / fan), gain that of the nonlinearity.
//
// Source: He et al., Delving deep into rectifiers, https://arxiv.org/abs/1502.01852.
func KaimingUniform_(t *torch.Tensor, opts ...KaimingOptions) *torch.Tensor {
	o := kaimingOptions(opts)
	std, ok := kaiming(t, o)
	if !ok {
		return t
	}
	bound := math.Sqrt(3) * std
	return Uniform_(t, -bound, bound, o.Generator)
}

// KaimingNormal_ draws from N(0, std²), std = gain / √fan.
func KaimingNormal_(t *torch.Tensor, opts ...KaimingOptions) *torch.Tensor {
	o := kaimingOptions(opts)
	std, ok := kaiming(t, o)
	if !ok {
		return t
	}
	return Normal_(t, 0, std, o.Generator)
}

func kaimingOptions(opts []KaimingOptions) KaimingOptions {
	if len(opts) > 0 {
		return opts[0]
	}
	return KaimingOptions{}
}

// CalculateGain is the factor by which a nonlinearity's weights should be larger than a linear layer's: 1 for
// linear layers and "sigmoid", 5/3 for "tanh", √2 for "relu", √(2 / (1 + slope²)) for "leaky_relu" (the slope is
// param, 0.01 unless given), 3/4 for "selu".
func CalculateGain(nonlinearity string, param ...float64) float64 {
	switch nonlinearity {
	case "linear", "conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d", "conv_transpose3d", "sigmoid":
		return 1
	case "tanh":
		return 5.0 / 3
	case "relu":
		return math.Sqrt2
	case "leaky_relu":
		slope := 0.01
		if len(param) > 0 {
			slope = param[0]
		}
		return math.Sqrt(2 / (1 + float64(slope*slope)))
	case "selu":
		return 3.0 / 4
	}
	fail("calculate_gain", "Unsupported nonlinearity "+nonlinearity)
	return 0
}

// Orthogonal_ makes a tensor, seen as (size(0), rest), a matrix with orthonormal rows or columns, times gain: the
// Q of a random normal matrix, with the signs of R's diagonal.
//
// Source: Saxe et al., Exact solutions to the nonlinear dynamics of learning, https://arxiv.org/abs/1312.6120.
func Orthogonal_(t *torch.Tensor, opts ...GainOptions) *torch.Tensor {
	gain, gen := gainOf(opts)
	if t.Dim() < 2 {
		fail("orthogonal_", "Only tensors with 2 or more dimensions are supported")
	}
	if t.Numel() == 0 || meta(t) {
		return t
	}
	rows := t.Size(0)
	cols := t.Numel() / rows
	return quietly(t, func() {
		flat := torch.Empty([]int{rows, cols}, torch.EmptyOptions{DType: t.DType(), Device: t.Device()})
		normal(flat, 0, 1, gen)
		if rows < cols {
			flat = flat.T()
		}
		q, r := torch.LinalgQr(flat)
		q = q.Mul(r.Diag().Sign())
		if rows < cols {
			q = q.T()
		}
		t.Copy_(q.Reshape(t.Shape()...))
		t.MulScalar_(gain)
	})
}

// SparseOptions are the optional arguments of [Sparse_].
type SparseOptions struct {
	Std       torch.Opt[float64] // default: 0.01
	Generator *torch.Generator   // of the values; the places of the zeros come from the default generator
}

// Sparse_ draws a matrix from N(0, std²) and sets ⌈sparsity · rows⌉ elements of each column to 0.
//
// Source: Martens, Deep learning via Hessian-free optimization, 2010.
func Sparse_(t *torch.Tensor, sparsity float64, opts ...SparseOptions) *torch.Tensor {
	var o SparseOptions
	if len(opts) > 0 {
		o = opts[0]
	}
	if t.Dim() != 2 {
		fail("sparse_", "Only tensors with 2 dimensions are supported")
	}
	if meta(t) {
		return t
	}
	rows, cols := t.Size(0), t.Size(1)
	zeros := int(math.Ceil(sparsity * float64(rows)))
	return quietly(t, func() {
		normal(t, 0, o.Std.Or(0.01), o.Generator)
		for c := range cols {
			at := torch.Randperm(rows).Narrow(0, 0, min(zeros, rows)).To(t.Device())
			t.Select(1, c).IndexFill_(0, at, 0)
		}
	})
}
