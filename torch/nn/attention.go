package nn

import (
	"math"

	"github.com/torchgo/torchgo/torch"
)

// AttentionKind names an implementation of attention, as transformers' attn_implementation does.
type AttentionKind string

// The implementations.
const (
	SDPA  AttentionKind = "sdpa"  // PyTorch's fused scaled_dot_product_attention
	Eager AttentionKind = "eager" // matrix products and a softmax, each an operator of its own
)

// AttentionOptions are the optional arguments of Attention.
type AttentionOptions struct {
	Kind    AttentionKind // default: SDPA
	Scale   float64       // default: 1/√D
	Dropout float64       // probability of dropping an attention weight
	Causal  bool          // position t attends to positions up to t; not together with a mask
}

// Attention computes softmax(q kᵀ · scale + mask) v, with q (B, H, T, D), k and v (B, H, S, D), and gives
// (B, T, H·D). The mask is broadcast to (B, H, T, S): boolean (true: attend) or added to the scores; nil
// masks nothing.
func Attention(q, k, v, mask *torch.Tensor, opts ...AttentionOptions) *torch.Tensor {
	var opt AttentionOptions
	if len(opts) > 0 {
		opt = opts[0]
	}
	if opt.Scale == 0 {
		opt.Scale = 1 / math.Sqrt(float64(q.Size(-1)))
	}
	var y *torch.Tensor // (B, H, T, D)
	switch opt.Kind {
	case "", SDPA:
		y = torch.ScaledDotProductAttention(q, k, v, torch.ScaledDotProductAttentionOptions{
			AttnMask: mask, DropoutP: opt.Dropout, IsCausal: opt.Causal, Scale: torch.Some(opt.Scale)})
	case Eager:
		y = eagerAttention(q, k, v, mask, opt)
	default:
		fail("attention", "unknown kind %q: want %q or %q", opt.Kind, SDPA, Eager)
	}
	b, h, t, d := y.Size(0), y.Size(1), y.Size(2), y.Size(3)
	return y.Transpose(1, 2).Reshape(b, t, h*d)
}

func eagerAttention(q, k, v, mask *torch.Tensor, opt AttentionOptions) *torch.Tensor {
	scores := q.MatMul(k.Transpose(2, 3)).MulScalar(opt.Scale) // (B, H, T, S)
	if opt.Causal {
		mask = CausalMask(q.Size(2), k.Size(2), q.Device())
	}
	if mask != nil {
		scores = scores.Add(AdditiveMask(mask, scores.DType()))
	}
	weights := scores.Softmax(-1)
	if opt.Dropout > 0 {
		weights = torch.Dropout(weights, opt.Dropout, true)
	}
	return weights.MatMul(v)
}

// AdditiveMask turns a boolean mask (true: attend) into one to be added to scores: 0 where it is true,
// the smallest finite value of dtype elsewhere. Other masks are returned as they are.
func AdditiveMask(mask *torch.Tensor, dtype torch.DType) *torch.Tensor {
	if mask.DType() != torch.Bool {
		return mask
	}
	return torch.Zeros(mask.Shape(), torch.TensorOptions{DType: dtype, Device: mask.Device()}).
		MaskedFill(mask.LogicalNot(), lowest(dtype))
}

// CausalMask is the boolean (T, S) mask that lets query t, the last T of S positions, see keys up to itself.
func CausalMask(t, s int, device torch.Device) *torch.Tensor {
	return torch.Ones([]int{t, s}, torch.TensorOptions{DType: torch.Bool, Device: device}).
		Tril(torch.TrilOptions{Diagonal: s - t})
}

func lowest(dtype torch.DType) float64 {
	switch dtype {
	case torch.Float64:
		return -math.MaxFloat64
	case torch.Float16:
		return -65504
	case torch.BFloat16:
		return -0x1.FEp127
	}
	return -math.MaxFloat32
}
