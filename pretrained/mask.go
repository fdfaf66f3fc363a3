package pretrained

import (
	"github.com/torchgo/torchgo/torch"
	"github.com/torchgo/torchgo/torch/nn"
)

// MaskOptions say what AttentionMask is for.
type MaskOptions struct {
	Kind      nn.AttentionKind // the implementation that takes it
	Causal    bool             // position t sees positions up to t
	Positions *torch.Tensor    // position_ids of a causal model: without a mask, sequences packed into one row are kept apart
}

// AttentionMask turns the mask of the inputs into the one that nn.Attention takes. mask is (B, T) with 0 for
// padding, or of four dimensions and then used as it is, or nil. x is (B, T, C). For SDPA the result is boolean,
// true where a position is seen, or nil where every position sees all, or all up to itself, which its kernels do
// by themselves. For Eager it is what is added to the scores, in the dtype of x.
func AttentionMask(mask, x *torch.Tensor, o MaskOptions) *torch.Tensor {
	if mask != nil && mask.Dim() == 4 {
		return mask
	}
	b, t := x.Size(0), x.Size(1)
	var seen *torch.Tensor // broadcast to (B, 1, T, T)
	both := func(other *torch.Tensor) {
		if seen == nil {
			seen = other
		} else {
			seen = seen.LogicalAnd(other)
		}
	}
	if mask != nil {
		if mask.Dim() != 2 || mask.Size(0) != b || mask.Size(1) != t {
			badInput("expected an attention_mask of shape [%d %d], got %v", b, t, mask.Shape())
		}
		real := mask.To(x.Device()).ToDType(torch.Bool)
		if !torch.Item[bool](real.All()) {
			both(real.View(b, 1, 1, t))
		}
	}
	if o.Causal {
		packed := packedMask(mask, o.Positions)
		switch {
		case packed != nil:
			both(packed)
		case seen != nil || o.Kind == nn.Eager:
			both(nn.CausalMask(t, t, x.Device()).View(1, 1, t, t))
		}
	}
	if seen != nil && o.Kind == nn.Eager {
		return nn.AdditiveMask(seen, x.DType())
	}
	return seen
}

// packedMask lets each of the sequences packed into rows see itself, causally: (B, 1, T, T). A sequence begins
// where the next position isn't the last plus one. It is nil where each row is one sequence, or a mask is given.
func packedMask(mask, positions *torch.Tensor) *torch.Tensor {
	if mask != nil || positions == nil {
		return nil
	}
	before := positions.Narrow(1, 0, 1).SubScalar(1)
	sequence := positions.Diff(torch.DiffOptions{Prepend: before}).NeScalar(1).Cumsum(1) // (B, T)
	if torch.Item[int64](sequence.Max()) == 0 {
		return nil
	}
	pairs := func(x *torch.Tensor) (q, k *torch.Tensor) {
		return x.Unsqueeze(1).Unsqueeze(-1), x.Unsqueeze(1).Unsqueeze(1)
	}
	q, k := pairs(sequence)
	at, from := pairs(positions)
	return q.Eq(k).LogicalAnd(from.Le(at))
}
