package nn

import "github.com/torchgo/torchgo/torch"

// CrossEntropyOptions are the optional arguments of CrossEntropy.
type CrossEntropyOptions struct {
	IgnoreIndex torch.Opt[int] // targets of this value don't count; default: -100
}

// CrossEntropy is the mean of -log softmax(logits)[target] over the targets that count:
// logits (N, C), target int64 (N) → scalar.
func CrossEntropy(logits, target *torch.Tensor, opts ...CrossEntropyOptions) *torch.Tensor {
	ignore := -100
	if len(opts) > 0 {
		ignore = opts[0].IgnoreIndex.Or(ignore)
	}
	return torch.CrossEntropyLoss(logits, target, torch.CrossEntropyLossOptions{IgnoreIndex: torch.Some(ignore)})
}

// MSE is the mean of (input - target)² → scalar.
func MSE(input, target *torch.Tensor) *torch.Tensor { return torch.MseLoss(input, target) }

// BCEWithLogits is the mean binary cross entropy between σ(logits) and targets of the same shape and
// floating dtype → scalar.
func BCEWithLogits(logits, target *torch.Tensor) *torch.Tensor {
	return torch.BinaryCrossEntropyWithLogits(logits, target)
}
