package nn

import "github.com/torchgo/torchgo/torch"

// HingeEmbeddingLoss is x where the target is 1, and max(0, Margin - x) where it is -1.
type HingeEmbeddingLoss struct {
	Hooks

	Margin    torch.Opt[float64] // default: 1
	Reduction Reduction
}

// Forward compares distances with the target.
func (l *HingeEmbeddingLoss) Forward(x, target *torch.Tensor) *torch.Tensor {
	return l.call2(x, target, l.forward)
}

func (l *HingeEmbeddingLoss) forward(x, target *torch.Tensor) *torch.Tensor {
	return torch.HingeEmbeddingLoss(x, target, torch.HingeEmbeddingLossOptions{Margin: l.Margin, Reduction: l.Reduction.code()})
}

// MultiLabelMarginLoss is Σ max(0, 1 - (x[y] - x[i])) / C over the target's classes y, and the classes i that are
// none: x (C) or (N, C), target int64 of that shape, the classes before the first -1.
type MultiLabelMarginLoss struct {
	Hooks

	Reduction Reduction
}

// Forward compares scores with the target.
func (l *MultiLabelMarginLoss) Forward(x, target *torch.Tensor) *torch.Tensor {
	return l.call2(x, target, l.forward)
}

func (l *MultiLabelMarginLoss) forward(x, target *torch.Tensor) *torch.Tensor {
	return torch.MultilabelMarginLoss(x, target, torch.MultilabelMarginLossOptions{Reduction: l.Reduction.code()})
}

// SoftMarginLoss is log(1 + e^(-t·x)), for targets t of 1 and -1.
type SoftMarginLoss struct {
	Hooks

	Reduction Reduction
}

// Forward compares scores with the target.
func (l *SoftMarginLoss) Forward(x, target *torch.Tensor) *torch.Tensor {
	return l.call2(x, target, l.forward)
}

func (l *SoftMarginLoss) forward(x, target *torch.Tensor) *torch.Tensor {
	return torch.SoftMarginLoss(x, target, torch.SoftMarginLossOptions{Reduction: l.Reduction.code()})
}

// MultiLabelSoftMarginLoss is the mean over the classes of -w·(t·log σ(x) + (1-t)·log σ(-x)): x and t (C) or (N, C).
type MultiLabelSoftMarginLoss struct {
	Hooks

	Weight    *torch.Tensor `torch:"weight,buffer"` // w: (C); nil: 1
	Reduction Reduction
}

// Forward compares scores with the target.
func (l *MultiLabelSoftMarginLoss) Forward(x, target *torch.Tensor) *torch.Tensor {
	return l.call2(x, target, l.forward)
}

func (l *MultiLabelSoftMarginLoss) forward(x, target *torch.Tensor) *torch.Tensor {
	loss := target.Mul(torch.LogSigmoid(x)).Add(target.Neg().AddScalar(1).Mul(torch.LogSigmoid(x.Neg()))).Neg()
	if l.Weight != nil {
		loss = loss.Mul(l.Weight)
	}
	return l.Reduction.apply(loss.SumDim([]int{-1}).DivScalar(x.Size(-1)))
}

// MultiMarginLoss is Σ w[y]·max(0, Margin - x[y] + x[i])ᴾ / C over the classes i other than y: x (C) or (N, C),
// target y int64 () or (N).
type MultiMarginLoss struct {
	Hooks

	Weight    *torch.Tensor      `torch:"weight,buffer"` // w: (C); nil: 1
	P         torch.Opt[int]     // 1 (the default) or 2
	Margin    torch.Opt[float64] // default: 1
	Reduction Reduction
}

// Forward compares scores with the target.
func (l *MultiMarginLoss) Forward(x, target *torch.Tensor) *torch.Tensor {
	return l.call2(x, target, l.forward)
}

func (l *MultiMarginLoss) forward(x, target *torch.Tensor) *torch.Tensor {
	return torch.MultiMarginLoss(x, target, torch.MultiMarginLossOptions{P: l.P.Or(1), Margin: l.Margin.Or(1), Weight: l.Weight, Reduction: l.Reduction.code()})
}

// CosineEmbeddingLoss is 1 - cos(x1, x2) where the target is 1, and max(0, cos(x1, x2) - Margin) where it is -1:
// x1, x2 (N, D), target (N), or (D) and ().
type CosineEmbeddingLoss struct {
	Hooks

	Margin    float64
	Reduction Reduction
}

// Forward compares two vectors' angle with the target.
func (l *CosineEmbeddingLoss) Forward(x1, x2, target *torch.Tensor) *torch.Tensor {
	return l.call3(x1, x2, target, l.forward)
}

func (l *CosineEmbeddingLoss) forward(x1, x2, target *torch.Tensor) *torch.Tensor {
	return torch.CosineEmbeddingLoss(x1, x2, target, torch.CosineEmbeddingLossOptions{Margin: l.Margin, Reduction: l.Reduction.code()})
}

// MarginRankingLoss is max(0, -t·(x1 - x2) + Margin), for targets t of 1 (x1 should be larger) and -1.
type MarginRankingLoss struct {
	Hooks

	Margin    float64
	Reduction Reduction
}

// Forward compares the order of two scores with the target.
func (l *MarginRankingLoss) Forward(x1, x2, target *torch.Tensor) *torch.Tensor {
	return l.call3(x1, x2, target, l.forward)
}

func (l *MarginRankingLoss) forward(x1, x2, target *torch.Tensor) *torch.Tensor {
	return torch.MarginRankingLoss(x1, x2, target, torch.MarginRankingLossOptions{Margin: l.Margin, Reduction: l.Reduction.code()})
}

// TripletMarginLoss is max(0, d(a, p) - d(a, n) + Margin), d the P-norm of the difference + Eps: each (N, D) or (D).
// With Swap, d(p, n) counts in place of d(a, n) where it is smaller.
//
// Source: Balntas et al., Learning shallow convolutional feature descriptors with triplet losses, 2016.
type TripletMarginLoss struct {
	Hooks

	Margin    torch.Opt[float64] // default: 1
	P         torch.Opt[float64] // default: 2
	Eps       torch.Opt[float64] // default: 1e-6
	Swap      bool
	Reduction Reduction
}

// Forward compares the distances of an anchor to a positive and a negative sample.
func (l *TripletMarginLoss) Forward(anchor, positive, negative *torch.Tensor) *torch.Tensor {
	return l.call3(anchor, positive, negative, l.forward)
}

func (l *TripletMarginLoss) forward(a, p, n *torch.Tensor) *torch.Tensor {
	return torch.TripletMarginLoss(a, p, n, torch.TripletMarginLossOptions{Margin: l.Margin, P: l.P, Eps: l.Eps, Swap: l.Swap, Reduction: l.Reduction.code()})
}

// TripletMarginWithDistanceLoss is TripletMarginLoss with any distance.
type TripletMarginWithDistanceLoss struct {
	Hooks

	Distance  func(x, y *torch.Tensor) *torch.Tensor // default: the Euclidean one of PairwiseDistance
	Margin    torch.Opt[float64]                     // default: 1
	Swap      bool
	Reduction Reduction
}

// Forward compares the distances of an anchor to a positive and a negative sample.
func (l *TripletMarginWithDistanceLoss) Forward(anchor, positive, negative *torch.Tensor) *torch.Tensor {
	return l.call3(anchor, positive, negative, l.forward)
}

func (l *TripletMarginWithDistanceLoss) forward(a, p, n *torch.Tensor) *torch.Tensor {
	d := l.Distance
	if d == nil {
		d = func(x, y *torch.Tensor) *torch.Tensor { return torch.PairwiseDistance(x, y) }
	}
	near, far := d(a, p), d(a, n)
	if l.Swap {
		far = far.Minimum(d(p, n))
	}
	return l.Reduction.apply(near.Sub(far).AddScalar(l.Margin.Or(1)).ClampMin(0))
}

// CosineSimilarity is x1·x2 / max(‖x1‖·‖x2‖, Eps) along Dim, which disappears.
type CosineSimilarity struct {
	Hooks

	Dim torch.Opt[int]     // default: 1
	Eps torch.Opt[float64] // default: 1e-8
}

// Forward compares two vectors.
func (c *CosineSimilarity) Forward(x1, x2 *torch.Tensor) *torch.Tensor {
	return c.call2(x1, x2, c.forward)
}

func (c *CosineSimilarity) forward(x1, x2 *torch.Tensor) *torch.Tensor {
	return torch.CosineSimilarity(x1, x2, torch.CosineSimilarityOptions{Dim: c.Dim, Eps: c.Eps})
}

// PairwiseDistance is the P-norm of x1 - x2 + Eps along the last dimension: (N, D) → (N).
type PairwiseDistance struct {
	Hooks

	P       torch.Opt[float64] // default: 2
	Eps     torch.Opt[float64] // default: 1e-6
	KeepDim bool               // (N, D) → (N, 1)
}

// Forward compares two vectors.
func (d *PairwiseDistance) Forward(x1, x2 *torch.Tensor) *torch.Tensor {
	return d.call2(x1, x2, d.forward)
}

func (d *PairwiseDistance) forward(x1, x2 *torch.Tensor) *torch.Tensor {
	return torch.PairwiseDistance(x1, x2, torch.PairwiseDistanceOptions{P: d.P, Eps: d.Eps, KeepDim: d.KeepDim})
}
