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
	Kind           AttentionKind // default: SDPA
	Scale          float64       // default: 1/√D
	Dropout        float64       // probability of dropping an attention weight
	Causal         bool          // position t attends to positions up to t; only where there is no mask
	Float32Softmax bool          // Eager computes the softmax in float32; SDPA's kernels do always
}

// Attention computes softmax(q kᵀ · scale + mask) v, with q (B, H, T, D), k and v (B, G, S, D), and gives
// (B, T, H·D). H is a multiple of G, and each H/G heads of q share a head of k and v (grouped-query attention).
// The mask is broadcast to (B, H, T, S): boolean (true: attend) or added to the scores; nil masks nothing.
func Attention(q, k, v, mask *torch.Tensor, opts ...AttentionOptions) *torch.Tensor {
	y, _ := AttentionWithWeights(q, k, v, mask, opts...)
	return y
}

// AttentionWithWeights is Attention that gives the weights (B, H, T, S) too, after dropout; from SDPA, whose
// kernels don't keep them, they are nil.
func AttentionWithWeights(q, k, v, mask *torch.Tensor, opts ...AttentionOptions) (y, weights *torch.Tensor) {
	opt := first(opts)
	if opt.Scale == 0 {
		opt.Scale = 1 / math.Sqrt(float64(q.Size(-1)))
	}
	if k.Size(1) == 0 || q.Size(1)%k.Size(1) != 0 {
		fail("attention", "%d heads of queries can't share %d heads of keys", q.Size(1), k.Size(1))
	}
	// Fused kernels take shared heads as they are, but not together with a mask.
	shared := q.Size(1) != k.Size(1)
	if shared && (mask != nil || opt.Kind == Eager) {
		k, v, shared = repeatHeads(k, q.Size(1)), repeatHeads(v, q.Size(1)), false
	}
	switch opt.Kind { // y: (B, H, T, D)
	case "", SDPA:
		y = torch.ScaledDotProductAttention(q, k, v, torch.ScaledDotProductAttentionOptions{AttnMask: mask,
			DropoutP: opt.Dropout, IsCausal: opt.Causal && mask == nil, Scale: torch.Some(opt.Scale), EnableGqa: shared})
	case Eager:
		y, weights = eagerAttention(q, k, v, mask, opt)
	default:
		fail("attention", "unknown kind %q: want %q or %q", opt.Kind, SDPA, Eager)
	}
	b, h, t, d := y.Size(0), y.Size(1), y.Size(2), y.Size(3)
	return y.Transpose(1, 2).Reshape(b, t, h*d), weights
}

// repeatHeads repeats each head of (B, G, S, D): (B, heads, S, D).
func repeatHeads(x *torch.Tensor, heads int) *torch.Tensor {
	b, g, s, d := x.Size(0), x.Size(1), x.Size(2), x.Size(3)
	return x.Unsqueeze(2).Expand(b, g, heads/g, s, d).Reshape(b, heads, s, d)
}

func eagerAttention(q, k, v, mask *torch.Tensor, opt AttentionOptions) (y, weights *torch.Tensor) {
	scores := q.MatMul(k.Transpose(2, 3)).MulScalar(opt.Scale) // (B, H, T, S)
	if opt.Causal && mask == nil {
		mask = CausalMask(q.Size(2), k.Size(2), q.Device())
	}
	if mask != nil {
		scores = scores.Add(AdditiveMask(mask, scores.DType()))
	}
	if opt.Float32Softmax {
		weights = scores.Softmax(-1, torch.SoftmaxOptions{DType: torch.Float32}).ToDType(q.DType())
	} else {
		weights = scores.Softmax(-1)
	}
	if opt.Dropout > 0 {
		weights = torch.Dropout(weights, opt.Dropout, true)
	}
	return weights.MatMul(v), weights
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
