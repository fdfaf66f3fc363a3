package nn

import (
	"github.com/torchgo/torchgo/torch"
	"github.com/torchgo/torchgo/torch/nn/nninit"
)

// The activations below keep the shape unless they say otherwise.

func plain(name string, fn func(*torch.Tensor) *torch.Tensor) *Func { return function(name, "", fn) }

// NewReLU is max(0, x).
func NewReLU() *Func { return plain("ReLU", (*torch.Tensor).Relu) }

// NewReLU6 is min(max(0, x), 6).
func NewReLU6() *Func {
	return plain("ReLU6", func(x *torch.Tensor) *torch.Tensor { return clip(x, 0, 6) })
}

func clip(x *torch.Tensor, lo, hi float64) *torch.Tensor {
	return torch.Hardtanh(x, torch.HardtanhOptions{MinVal: lo, MaxVal: hi})
}

// NewSigmoid is σ(x) = 1 / (1 + e⁻ˣ).
func NewSigmoid() *Func { return plain("Sigmoid", (*torch.Tensor).Sigmoid) }

// NewTanh is tanh(x).
func NewTanh() *Func { return plain("Tanh", (*torch.Tensor).Tanh) }

// NewTanhshrink is x - tanh(x).
func NewTanhshrink() *Func {
	return plain("Tanhshrink", func(x *torch.Tensor) *torch.Tensor { return x.Sub(x.Tanh()) })
}

// NewSiLU is x·σ(x), also called swish.
func NewSiLU() *Func { return plain("SiLU", torch.Silu) }

// NewMish is x · tanh(softplus(x)).
func NewMish() *Func { return plain("Mish", torch.Mish) }

// NewHardswish is x · ReLU6(x + 3) / 6.
func NewHardswish() *Func { return plain("Hardswish", torch.Hardswish) }

// NewHardsigmoid is ReLU6(x + 3) / 6.
func NewHardsigmoid() *Func { return plain("Hardsigmoid", torch.Hardsigmoid) }

// NewLogSigmoid is log σ(x).
func NewLogSigmoid() *Func { return plain("LogSigmoid", torch.LogSigmoid) }

// NewSoftsign is x / (1 + |x|).
func NewSoftsign() *Func {
	return plain("Softsign", func(x *torch.Tensor) *torch.Tensor { return x.Div(x.Abs().AddScalar(1)) })
}

// NewSELU is 1.0507… · (max(0, x) + min(0, 1.6732…·(eˣ - 1))).
//
// Source: Klambauer et al., https://arxiv.org/abs/1706.02515.
func NewSELU() *Func { return plain("SELU", torch.Selu) }

// GELUOptions are the optional arguments of NewGELU.
type GELUOptions struct {
	Approximate string // "tanh": by a formula with tanh; default: exactly
}

// NewGELU is x·Φ(x), Φ the normal distribution function.
//
// Source: Hendrycks and Gimpel, https://arxiv.org/abs/1606.08415.
func NewGELU(opts ...GELUOptions) *Func {
	kind := first(opts).Approximate
	if kind == "" {
		kind = "none"
	}
	return function("GELU", "approximate='"+kind+"'", func(x *torch.Tensor) *torch.Tensor {
		return torch.Gelu(x, torch.GeluOptions{Approximate: torch.Some(kind)})
	})
}

// or is the first value, or def.
func or(values []float64, def float64) float64 {
	if len(values) > 0 {
		return values[0]
	}
	return def
}

// NewELU is x where it is positive, else alpha·(eˣ - 1); alpha is 1 unless given.
func NewELU(alpha ...float64) *Func {
	a := or(alpha, 1)
	return function("ELU", "alpha="+number(a), func(x *torch.Tensor) *torch.Tensor {
		return torch.Elu(x, torch.EluOptions{Alpha: a})
	})
}

// NewCELU is max(0, x) + min(0, alpha·(e^(x/alpha) - 1)); alpha is 1 unless given.
func NewCELU(alpha ...float64) *Func {
	a := or(alpha, 1)
	return function("CELU", "alpha="+number(a), func(x *torch.Tensor) *torch.Tensor {
		return torch.Celu(x, torch.CeluOptions{Alpha: a})
	})
}

// NewLeakyReLU is x where it is positive, else slope·x; slope is 0.01 unless given.
func NewLeakyReLU(slope ...float64) *Func {
	s := or(slope, 0.01)
	return function("LeakyReLU", "negative_slope="+number(s), func(x *torch.Tensor) *torch.Tensor {
		return torch.LeakyRelu(x, torch.LeakyReluOptions{NegativeSlope: s})
	})
}

// NewHardshrink is x where |x| > lambd, else 0; lambd is 0.5 unless given.
func NewHardshrink(lambd ...float64) *Func {
	l := or(lambd, 0.5)
	return function("Hardshrink", number(l), func(x *torch.Tensor) *torch.Tensor {
		return x.Hardshrink(torch.HardshrinkOptions{Lambd: l})
	})
}

// NewSoftshrink moves x towards 0 by lambd and stops there; lambd is 0.5 unless given.
func NewSoftshrink(lambd ...float64) *Func {
	l := or(lambd, 0.5)
	return function("Softshrink", number(l), func(x *torch.Tensor) *torch.Tensor {
		return torch.Softshrink(x, torch.SoftshrinkOptions{Lambd: l})
	})
}

// HardtanhOptions are the optional arguments of NewHardtanh.
type HardtanhOptions struct {
	MinVal torch.Opt[float64] // default: -1
	MaxVal torch.Opt[float64] // default: 1
}

// NewHardtanh limits x to [MinVal, MaxVal].
func NewHardtanh(opts ...HardtanhOptions) *Func {
	o := first(opts)
	lo, hi := o.MinVal.Or(-1), o.MaxVal.Or(1)
	if hi <= lo {
		fail("hardtanh", "max_val must be larger than min_val")
	}
	return function("Hardtanh", "min_val="+number(lo)+", max_val="+number(hi), func(x *torch.Tensor) *torch.Tensor { return clip(x, lo, hi) })
}

// SoftplusOptions are the optional arguments of NewSoftplus.
type SoftplusOptions struct {
	Beta      torch.Opt[float64] // default: 1
	Threshold torch.Opt[float64] // default: 20
}

// NewSoftplus is log(1 + e^(Beta·x)) / Beta, or x where Beta·x > Threshold.
func NewSoftplus(opts ...SoftplusOptions) *Func {
	o := first(opts)
	beta, threshold := o.Beta.Or(1), o.Threshold.Or(20)
	return function("Softplus", "beta="+number(beta)+", threshold="+number(threshold), func(x *torch.Tensor) *torch.Tensor {
		return torch.Softplus(x, torch.SoftplusOptions{Beta: beta, Threshold: threshold})
	})
}

// NewThreshold is x where x > threshold, else value.
func NewThreshold(threshold, value float64) *Func {
	return function("Threshold", "threshold="+number(threshold)+", value="+number(value), func(x *torch.Tensor) *torch.Tensor {
		return torch.Threshold(x, threshold, value)
	})
}

// RReLUOptions are the optional arguments of NewRReLU.
type RReLUOptions struct {
	Lower torch.Opt[float64] // default: 1/8
	Upper torch.Opt[float64] // default: 1/3
}

// NewRReLU is x where it is positive, else a·x, with a from U(Lower, Upper) for each element in training mode and
// (Lower+Upper)/2 in evaluation mode.
//
// Source: Xu et al., https://arxiv.org/abs/1505.00853.
func NewRReLU(opts ...RReLUOptions) *Func {
	o := first(opts)
	lower, upper := o.Lower.Or(1.0/8), o.Upper.Or(1.0/3)
	return &Func{name: "RReLU", args: "lower=" + number(lower) + ", upper=" + number(upper), fn: func(x *torch.Tensor, training bool) *torch.Tensor {
		return torch.Rrelu(x, torch.RreluOptions{Lower: lower, Upper: upper, Training: training})
	}}
}

// NewGLU halves the input along dim (-1 unless given) into a and b and is a·σ(b): (…, 2N) → (…, N).
//
// Source: Dauphin et al., https://arxiv.org/abs/1612.08083.
func NewGLU(dim ...int) *Func {
	d := -1
	if len(dim) > 0 {
		d = dim[0]
	}
	return function("GLU", "dim="+itoa(d), func(x *torch.Tensor) *torch.Tensor {
		return torch.Glu(x, torch.GluOptions{Dim: torch.Some(d)})
	})
}

// NewSoftmax is eˣ / Σ eˣ along dim.
func NewSoftmax(dim int) *Func {
	return function("Softmax", "dim="+itoa(dim), func(x *torch.Tensor) *torch.Tensor { return x.Softmax(dim) })
}

// NewSoftmin is e⁻ˣ / Σ e⁻ˣ along dim.
func NewSoftmin(dim int) *Func {
	return function("Softmin", "dim="+itoa(dim), func(x *torch.Tensor) *torch.Tensor { return x.Neg().Softmax(dim) })
}

// NewLogSoftmax is x - log Σ eˣ along dim.
func NewLogSoftmax(dim int) *Func {
	return function("LogSoftmax", "dim="+itoa(dim), func(x *torch.Tensor) *torch.Tensor { return x.LogSoftmax(dim) })
}

// NewSoftmax2d is the softmax over the channels of (B, C, H, W) or (C, H, W).
func NewSoftmax2d() *Func {
	return plain("Softmax2d", func(x *torch.Tensor) *torch.Tensor {
		if d := x.Dim(); d != 3 && d != 4 {
			fail("softmax2d", "Softmax2d: expected input to be 3D or 4D, got %dD instead", d)
		}
		return x.Softmax(-3)
	})
}

// PReLU is x where it is positive, else a·x; a is learned, one for all channels or one for each: (B, C, …), same
// shape.
//
// Source: He et al., Delving deep into rectifiers, https://arxiv.org/abs/1502.01852.
type PReLU struct {
	Hooks

	Weight *torch.Tensor `torch:"weight"` // a: (1) or (C)
}

// PReLUOptions are the optional arguments of NewPReLU.
type PReLUOptions struct {
	NumParameters torch.Opt[int]     // 1 or the number of channels; default: 1
	Init          torch.Opt[float64] // default: 0.25
}

// NewPReLU makes a float32 one on the CPU.
func NewPReLU(opts ...PReLUOptions) *PReLU { return Builder{}.PReLU(opts...) }

// PReLU makes a parametric ReLU.
func (b Builder) PReLU(opts ...PReLUOptions) *PReLU {
	o := first(opts)
	p := &PReLU{Weight: b.Parameter(o.NumParameters.Or(1))}
	b.init(func() { nninit.Constant_(p.Weight, o.Init.Or(0.25)) })
	return p
}

// Forward keeps the shape.
func (p *PReLU) Forward(x *torch.Tensor) *torch.Tensor { return p.Call(x, p.forward) }

func (p *PReLU) forward(x *torch.Tensor) *torch.Tensor { return x.Prelu(p.Weight) }

// ExtraRepr is what PyTorch prints in the parentheses.
func (p *PReLU) ExtraRepr() string { return "num_parameters=" + itoa(p.Weight.Numel()) }
