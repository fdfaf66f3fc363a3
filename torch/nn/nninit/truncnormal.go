package nninit

import (
	"math"

	"github.com/torchgo/torchgo/torch"
)

// TruncNormalOptions are the optional arguments of [TruncNormal_].
type TruncNormalOptions struct {
	Mean      float64
	Std       torch.Opt[float64] // default: 1
	A         torch.Opt[float64] // the least value; default: -2
	B         torch.Opt[float64] // the greatest value; default: 2
	Generator *torch.Generator
}

// TruncNormal_ draws from N(mean, std²) restricted to [a, b]. Where the interval holds more than 0.3 of the
// probability, values outside it are drawn again; else values are drawn from U(a, b) and accepted with the
// density's ratio to its greatest value there. (What torch 2.15 does; earlier versions inverted the
// distribution function.)
func TruncNormal_(t *torch.Tensor, opts ...TruncNormalOptions) *torch.Tensor {
	var o TruncNormalOptions
	if len(opts) > 0 {
		o = opts[0]
	}
	if meta(t) || t.Numel() == 0 {
		return t
	}
	mean, std, a, b := o.Mean, o.Std.Or(1), o.A.Or(-2), o.B.Or(2)
	cdf := func(x float64) float64 { return (1 + math.Erf(x/math.Sqrt2)) / 2 }
	return quietly(t, func() {
		if cdf((b-mean)/std)-cdf((a-mean)/std) > 0.3 {
			redraw(t, mean, std, a, b, o.Generator)
		} else {
			reject(t, mean, std, a, b, o.Generator)
		}
	})
}

// redraw draws all elements again for as long as one is outside, and takes those that are needed.
func redraw(t *torch.Tensor, mean, std, a, b float64, gen *torch.Generator) {
	lo, hi := representable(t, a), representable(t, b)
	normal(t, mean, std, gen)
	for {
		outside := t.LtScalar(lo).LogicalOr(t.GtScalar(hi))
		if !torch.Item[bool](outside.Any()) {
			return
		}
		again := torch.EmptyLike(t)
		normal(again, mean, std, gen)
		t.Copy_(again.Where(outside, t))
	}
}

// representable is x rounded to t's dtype.
func representable(t *torch.Tensor, x float64) float64 {
	return torch.Item[float64](torch.Full([]int{}, x, torch.TensorOptions{DType: t.DType()}).ToDType(torch.Float64))
}

func reject(t *torch.Tensor, mean, std, a, b float64, gen *torch.Generator) {
	mode := math.Max(a, math.Min(mean, b))
	z := (mode - mean) / std
	logPeak := -0.5 * float64(z*z)
	accepted := func(candidates *torch.Tensor) *torch.Tensor {
		logPDF := candidates.SubScalar(mean).DivScalar_(std).PowScalar_(2).MulScalar_(-0.5).SubScalar_(logPeak)
		u := torch.EmptyLike(t)
		uniform(u, 0, 1, gen)
		return u.Log_().Gt(logPDF)
	}
	uniform(t, a, b, gen)
	pending := accepted(t)
	for torch.Item[bool](pending.Any()) {
		candidates := torch.EmptyLike(t)
		uniform(candidates, a, b, gen)
		t.Copy_(candidates.Where(pending, t))
		pending = pending.LogicalAnd(accepted(candidates))
	}
}
