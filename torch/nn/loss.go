package nn

import (
	"math"

	"github.com/torchgo/torchgo/torch"
)

// Losses are modules whose fields are their options:
//
//	loss := &nn.CrossEntropyLoss{LabelSmoothing: 0.1}
//	loss.Forward(logits, target).Backward()
//
// The functions CrossEntropy, MSE and BCEWithLogits are short for the three that are used most.

// Reduction says what becomes of the losses of the elements.
type Reduction int

// The reductions. Zero is the mean.
const (
	ReductionMean      Reduction = iota // their mean is the result
	ReductionSum                        // their sum is
	ReductionNone                       // they are
	ReductionBatchMean                  // their sum divided by the batch size is (KLDivLoss only)
)

// String is Python's name.
func (r Reduction) String() string {
	return [...]string{"mean", "sum", "none", "batchmean"}[r]
}

// code is libtorch's number.
func (r Reduction) code() torch.Opt[int] {
	switch r {
	case ReductionMean:
		return torch.Some(torch.ReductionMean)
	case ReductionSum:
		return torch.Some(torch.ReductionSum)
	case ReductionNone:
		return torch.Some(torch.ReductionNone)
	}
	fail("reduction", "%d is not a valid value for reduction", int(r))
	return torch.Opt[int]{}
}

// apply reduces losses.
func (r Reduction) apply(losses *torch.Tensor) *torch.Tensor {
	switch code := r.code(); code {
	case torch.Some(torch.ReductionMean):
		return losses.Mean()
	case torch.Some(torch.ReductionSum):
		return losses.Sum()
	}
	return losses
}

// CrossEntropyOptions are the optional arguments of CrossEntropy.
type CrossEntropyOptions struct {
	IgnoreIndex    torch.Opt[int] // targets of this value don't count; default: -100
	Weight         *torch.Tensor  // (C) of the classes; nil: 1
	LabelSmoothing float64        // this much of the target is spread over all classes
	Reduction      Reduction      // default: ReductionMean
}

// CrossEntropy is the mean of -log softmax(logits)[target] over the targets that count:
// logits (N, C), target int64 (N) → scalar. See CrossEntropyLoss for other shapes.
func CrossEntropy(logits, target *torch.Tensor, opts ...CrossEntropyOptions) *torch.Tensor {
	o := first(opts)
	return torch.CrossEntropyLoss(logits, target, torch.CrossEntropyLossOptions{Weight: o.Weight, Reduction: o.Reduction.code(),
		IgnoreIndex: torch.Some(o.IgnoreIndex.Or(-100)), LabelSmoothing: o.LabelSmoothing})
}

// CrossEntropyLoss is -Σ t · log softmax(x), t the target's distribution over the classes, smoothed by
// t ← (1-s)·t + s/C:
//
//	x (C), (N, C) or (N, C, d…); target int64 without C, or probabilities of x's shape
//
// Its mean is weighted: Σ loss / Σ weight[target] for classes, Σ loss / N for probabilities.
type CrossEntropyLoss struct {
	Hooks

	Weight         *torch.Tensor  `torch:"weight,buffer"` // (C) of the classes; nil: 1
	IgnoreIndex    torch.Opt[int] // class targets of this value don't count; default: -100
	LabelSmoothing float64        // s
	Reduction      Reduction
}

// Forward compares scores with the target.
func (l *CrossEntropyLoss) Forward(x, target *torch.Tensor) *torch.Tensor {
	return l.call2(x, target, l.forward)
}

func (l *CrossEntropyLoss) forward(x, target *torch.Tensor) *torch.Tensor {
	return CrossEntropy(x, target, CrossEntropyOptions{l.IgnoreIndex, l.Weight, l.LabelSmoothing, l.Reduction})
}

// NLLLoss is -weight[t]·x[t] for log-probabilities x (C), (N, C) or (N, C, d…) and class targets t without C; its
// mean is weighted: Σ loss / Σ weight[t].
type NLLLoss struct {
	Hooks

	Weight      *torch.Tensor  `torch:"weight,buffer"` // (C) of the classes; nil: 1
	IgnoreIndex torch.Opt[int] // targets of this value don't count; default: -100
	Reduction   Reduction
}

// Forward compares log-probabilities with the target.
func (l *NLLLoss) Forward(x, target *torch.Tensor) *torch.Tensor {
	return l.call2(x, target, l.forward)
}

func (l *NLLLoss) forward(x, target *torch.Tensor) *torch.Tensor {
	return torch.NllLossNd(x, target, torch.NllLossNdOptions{Weight: l.Weight, Reduction: l.Reduction.code(),
		IgnoreIndex: torch.Some(l.IgnoreIndex.Or(-100))})
}

// L1Loss is |x - target|, of one shape.
type L1Loss struct {
	Hooks

	Reduction Reduction
}

// Forward compares x with the target.
func (l *L1Loss) Forward(x, target *torch.Tensor) *torch.Tensor { return l.call2(x, target, l.forward) }

func (l *L1Loss) forward(x, target *torch.Tensor) *torch.Tensor {
	return torch.L1Loss(x, target, torch.L1LossOptions{Reduction: l.Reduction.code()})
}

// MSE is the mean of (input - target)² → scalar.
func MSE(input, target *torch.Tensor) *torch.Tensor { return torch.MseLoss(input, target) }

// MSELoss is (x - target)², of one shape.
type MSELoss struct {
	Hooks

	Reduction Reduction
}

// Forward compares x with the target.
func (l *MSELoss) Forward(x, target *torch.Tensor) *torch.Tensor {
	return l.call2(x, target, l.forward)
}

func (l *MSELoss) forward(x, target *torch.Tensor) *torch.Tensor {
	return torch.MseLoss(x, target, torch.MseLossOptions{Reduction: l.Reduction.code()})
}

// SmoothL1Loss is ½d²/β where |d| < β, else |d| - β/2, with d = x - target.
type SmoothL1Loss struct {
	Hooks

	Beta      torch.Opt[float64] // β; default: 1
	Reduction Reduction
}

// Forward compares x with the target.
func (l *SmoothL1Loss) Forward(x, target *torch.Tensor) *torch.Tensor {
	return l.call2(x, target, l.forward)
}

func (l *SmoothL1Loss) forward(x, target *torch.Tensor) *torch.Tensor {
	if l.Beta.Or(1) == 0 { // the quotient's gradient would be NaN where x is the target
		return torch.L1Loss(x, target, torch.L1LossOptions{Reduction: l.Reduction.code()})
	}
	return torch.SmoothL1Loss(x, target, torch.SmoothL1LossOptions{Reduction: l.Reduction.code(), Beta: l.Beta})
}

// HuberLoss is ½d² where |d| ≤ δ, else δ·(|d| - δ/2), with d = x - target.
type HuberLoss struct {
	Hooks

	Delta     torch.Opt[float64] // δ; default: 1
	Reduction Reduction
}

// Forward compares x with the target.
func (l *HuberLoss) Forward(x, target *torch.Tensor) *torch.Tensor {
	return l.call2(x, target, l.forward)
}

func (l *HuberLoss) forward(x, target *torch.Tensor) *torch.Tensor {
	return torch.HuberLoss(x, target, torch.HuberLossOptions{Reduction: l.Reduction.code(), Delta: l.Delta})
}

// KLDivLoss is t · (log t - x), for log-probabilities x and probabilities t, or log t where LogTarget is set.
// ReductionBatchMean is the mathematical divergence.
type KLDivLoss struct {
	Hooks

	LogTarget bool
	Reduction Reduction
}

// Forward compares x with the target.
func (l *KLDivLoss) Forward(x, target *torch.Tensor) *torch.Tensor {
	return l.call2(x, target, l.forward)
}

func (l *KLDivLoss) forward(x, target *torch.Tensor) *torch.Tensor {
	r := l.Reduction
	if r == ReductionBatchMean {
		r = ReductionSum
	}
	y := torch.KlDiv(x, target, torch.KlDivOptions{Reduction: r.code(), LogTarget: l.LogTarget})
	if shape := x.Shape(); l.Reduction == ReductionBatchMean && len(shape) > 0 {
		return y.DivScalar(shape[0])
	}
	return y
}

// BCELoss is -w·(t·log x + (1-t)·log(1-x)), for probabilities x and targets t in [0, 1] of one shape. The
// logarithms are limited to -100.
type BCELoss struct {
	Hooks

	Weight    *torch.Tensor `torch:"weight,buffer"` // w, broadcast to x; nil: 1
	Reduction Reduction
}

// Forward compares x with the target.
func (l *BCELoss) Forward(x, target *torch.Tensor) *torch.Tensor {
	return l.call2(x, target, l.forward)
}

func (l *BCELoss) forward(x, target *torch.Tensor) *torch.Tensor {
	w := l.Weight
	if w != nil {
		w = w.Expand(target.Shape()...)
	}
	return torch.BinaryCrossEntropy(x, target, torch.BinaryCrossEntropyOptions{Weight: w, Reduction: l.Reduction.code()})
}

// BCEWithLogits is the mean binary cross entropy between σ(logits) and targets of the same shape and
// floating dtype → scalar.
func BCEWithLogits(logits, target *torch.Tensor) *torch.Tensor {
	return torch.BinaryCrossEntropyWithLogits(logits, target)
}

// BCEWithLogitsLoss is -w·(p·t·log σ(x) + (1-t)·log(1 - σ(x))), of one shape.
type BCEWithLogitsLoss struct {
	Hooks

	Weight    *torch.Tensor `torch:"weight,buffer"`     // w, broadcast to x; nil: 1
	PosWeight *torch.Tensor `torch:"pos_weight,buffer"` // p, broadcast to x; nil: 1
	Reduction Reduction
}

// Forward compares scores with the target.
func (l *BCEWithLogitsLoss) Forward(x, target *torch.Tensor) *torch.Tensor {
	return l.call2(x, target, l.forward)
}

func (l *BCEWithLogitsLoss) forward(x, target *torch.Tensor) *torch.Tensor {
	return torch.BinaryCrossEntropyWithLogits(x, target, torch.BinaryCrossEntropyWithLogitsOptions{
		Weight: l.Weight, PosWeight: l.PosWeight, Reduction: l.Reduction.code()})
}

// PoissonNLLLoss is eˣ - t·x, or x - t·log(x + ε) where LogInput is false, of one shape. With Full, Stirling's
// approximation of log t! is added where t > 1.
type PoissonNLLLoss struct {
	Hooks

	LogInput  torch.Opt[bool] // x is the logarithm of the rate; default: true
	Full      bool
	Eps       torch.Opt[float64] // ε; default: 1e-8
	Reduction Reduction
}

// Forward compares rates with the target.
func (l *PoissonNLLLoss) Forward(x, target *torch.Tensor) *torch.Tensor {
	return l.call2(x, target, l.forward)
}

func (l *PoissonNLLLoss) forward(x, target *torch.Tensor) *torch.Tensor {
	code, _ := l.Reduction.code().Get()
	return torch.PoissonNllLoss(x, target, l.LogInput.Or(true), l.Full, l.Eps.Or(1e-8), code)
}

// GaussianNLLLoss is ½·(log v + (x - t)²/v), v the variance, at least Eps: of x's shape, or without, or with 1 in
// place of, its last dimension. With Full, ½·log 2π is added.
type GaussianNLLLoss struct {
	Hooks

	Full      bool
	Eps       torch.Opt[float64] // default: 1e-6
	Reduction Reduction
}

// Forward compares means and variances with the target.
func (l *GaussianNLLLoss) Forward(x, target, variance *torch.Tensor) *torch.Tensor {
	return l.call3(x, target, variance, l.forward)
}

func (l *GaussianNLLLoss) forward(x, target, v *torch.Tensor) *torch.Tensor {
	if torch.Item[bool](v.LtScalar(0).Any()) {
		fail("gaussian_nll_loss", "var has negative entry/entries")
	}
	xs, vs := x.Shape(), v.Shape()
	if len(vs) == len(xs)-1 {
		v = v.Unsqueeze(-1)
		vs = append(vs, 1)
	}
	different := 0
	for i := range xs {
		if i >= len(vs) || vs[i] != xs[i] {
			different++
		}
	}
	if len(vs) != len(xs) || different > 1 {
		fail("gaussian_nll_loss", "var is of incorrect size")
	}
	// The limit does not stop the gradient.
	v = v.Clone()
	torch.NoGrad(func() { v.ClampMin_(l.Eps.Or(1e-6)) })
	loss := v.Log().Add(x.Sub(target).Square().Div(v)).MulScalar(0.5)
	if l.Full {
		loss = loss.AddScalar(0.5 * math.Log(2*math.Pi))
	}
	return l.Reduction.apply(loss)
}

// CTCLoss is the negative log-likelihood of a labelling without alignment, summed over all alignments:
//
//	log-probabilities (T, B, C) or (T, C), targets int64 (B, S) or all in one (ΣS), lengths int64 (B)
//
// The mean is that of each loss divided by its target's length.
//
// Source: Graves et al., Connectionist Temporal Classification, 2006.
type CTCLoss struct {
	Hooks

	Blank        int  // the class between labels
	ZeroInfinity bool // losses of targets that don't fit are 0, and so are their gradients
	Reduction    Reduction
}

// Forward compares log-probabilities with the targets.
func (l *CTCLoss) Forward(logProbs, targets, inputLengths, targetLengths *torch.Tensor) *torch.Tensor {
	return l.CallAll([]*torch.Tensor{logProbs, targets, inputLengths, targetLengths}, func(in []*torch.Tensor) []*torch.Tensor {
		return []*torch.Tensor{torch.CtcLoss(in[0], in[1], in[2], in[3], torch.CtcLossOptions{
			Blank: l.Blank, Reduction: l.Reduction.code(), ZeroInfinity: l.ZeroInfinity})}
	})[0]
}
