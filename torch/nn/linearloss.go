package nn

import (
	"fmt"

	"github.com/torchgo/torchgo/torch"
)

// LinearCrossEntropyLoss is a Linear without bias, unless asked for, and the CrossEntropyLoss of what it makes:
// x (N, in) or (in), target as CrossEntropyLoss has it for scores (N, C) or (C), or (N, C, OutFeatures…). (PyTorch can
// compute it in chunks to save memory; this computes it at once.)
type LinearCrossEntropyLoss struct {
	Hooks

	Weight *torch.Tensor `torch:"weight,buffer"` // (C) of the classes; nil: 1
	Linear *Linear       `torch:"linear"`        // (C·OutFeatures, in)

	NumClasses  int
	OutFeatures []int

	loss CrossEntropyOptions
}

// LinearCrossEntropyOptions are the optional arguments of NewLinearCrossEntropyLoss.
type LinearCrossEntropyOptions struct {
	CrossEntropyOptions

	OutFeatures []int // further dimensions of the scores
	Bias        bool
}

// NewLinearCrossEntropyLoss makes a float32 one on the CPU, initialised as PyTorch's.
func NewLinearCrossEntropyLoss(in, classes int, opts ...LinearCrossEntropyOptions) *LinearCrossEntropyLoss {
	return Builder{}.LinearCrossEntropyLoss(in, classes, opts...)
}

// LinearCrossEntropyLoss makes a linear layer with its loss.
func (b Builder) LinearCrossEntropyLoss(in, classes int, opts ...LinearCrossEntropyOptions) *LinearCrossEntropyLoss {
	o := first(opts)
	out := classes
	for _, n := range o.OutFeatures {
		out *= n
	}
	return &LinearCrossEntropyLoss{Weight: o.Weight, Linear: b.Linear(in, out, LinearOptions{Bias: torch.Some(o.Bias)}),
		NumClasses: classes, OutFeatures: o.OutFeatures, loss: o.CrossEntropyOptions}
}

// Forward compares the scores of x with the target.
func (l *LinearCrossEntropyLoss) Forward(x, target *torch.Tensor) *torch.Tensor {
	return l.call2(x, target, l.forward)
}

func (l *LinearCrossEntropyLoss) forward(x, target *torch.Tensor) *torch.Tensor {
	const op = "linear_cross_entropy"
	d := x.Dim()
	if d != 1 && d != 2 {
		fail(op, "expected input with dimensionality 1 or 2, got %d", d)
	}
	if d == 1 && len(l.OutFeatures) > 0 {
		fail(op, "a K-dimensional loss requires batched input, got unbatched input with shape %s", tuple(x.Shape()))
	}
	scores := l.Linear.Forward(x)
	if len(l.OutFeatures) > 0 {
		scores = scores.Reshape(append([]int{x.Size(0), l.NumClasses}, l.OutFeatures...)...)
	}
	o := l.loss
	o.Weight = l.Weight
	return CrossEntropy(scores, target, o)
}

// ExtraRepr is what PyTorch prints in the parentheses.
func (l *LinearCrossEntropyLoss) ExtraRepr() string {
	out, ignore := "()", "None"
	if len(l.OutFeatures) > 0 {
		out = tuple(l.OutFeatures)
	}
	if i, ok := l.loss.IgnoreIndex.Get(); ok {
		ignore = itoa(i)
	}
	in := 0
	if l.Linear.Weight != nil {
		in, _ = l.Linear.Weight.Features()
	}
	return fmt.Sprintf("in_features=%d, num_classes=%d, out_features=%s, bias=%s, reduction=%s, ignore_index=%s, label_smoothing=%s, options=None",
		in, l.NumClasses, out, boolean(l.Linear.Bias != nil), l.loss.Reduction, ignore, number(l.loss.LabelSmoothing))
}
