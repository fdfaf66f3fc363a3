package blocks

import (
	"sync"

	"github.com/torchgo/torchgo/pretrained"
	"github.com/torchgo/torchgo/torch"
	"github.com/torchgo/torchgo/torch/nn"
)

// RotaryEmbedding computes the cosines and sines that turn queries and keys by their positions.
//
// Source: Su et al., RoFormer: Enhanced Transformer with Rotary Position Embedding, https://arxiv.org/abs/2104.09864.
type RotaryEmbedding struct {
	InvFreq         *torch.Tensor `torch:"inv_freq,transient"`          // float32 (R/2)
	OriginalInvFreq *torch.Tensor `torch:"original_inv_freq,transient"` // the same; transformers has it twice

	rope RoPE

	mu      sync.Mutex
	longest int       // of rope type dynamic: the length that grown is for, 0 at the start
	grown   []float32 // its frequencies
}

// NewRotaryEmbedding makes the module of a model's rope settings.
func NewRotaryEmbedding(b nn.Builder, rope RoPE) *RotaryEmbedding {
	n := (rope.Dim() + 1) / 2
	r := &RotaryEmbedding{InvFreq: b.Empty(torch.Float32, n), OriginalInvFreq: b.Empty(torch.Float32, n), rope: rope}
	if b.Device != torch.Meta && !b.NoInit {
		torch.Scope(func() { r.fill(r.InvFreq); r.fill(r.OriginalInvFreq) })
	}
	return r
}

func (r *RotaryEmbedding) fill(t *torch.Tensor) { t.Copy_(r.rope.InvFreq(0)) }

// InitWeights implements pretrained.Initializer.
func (r *RotaryEmbedding) InitWeights(in *pretrained.Init) {
	in.Set(r.InvFreq, func() { r.fill(r.InvFreq) })
	in.Set(r.OriginalInvFreq, func() { r.fill(r.OriginalInvFreq) })
}

// Forward gives what Rotate takes, for positions int64 (B, T) or nil for 0, 1, … of x (B, T, C): cosines and signed
// sines (B, 1, T, R), or (1, 1, T, R), in the dtype of x. They are computed in float32.
//
// Types dynamic and longrope adapt to the longest position. A dynamic one that has seen a sequence longer than
// max_position_embeddings keeps that scale, as transformers does, until one comes that is shorter than
// max_position_embeddings.
func (r *RotaryEmbedding) Forward(x, positions *torch.Tensor) (cos, sin *torch.Tensor) {
	invFreq := r.InvFreq
	if r.rope.Type == "dynamic" || r.rope.Type == "longrope" {
		length := x.Size(1)
		if positions != nil {
			length = int(torch.Item[int64](positions.Max())) + 1
		}
		if f := r.adapt(length); f != nil {
			invFreq = torch.FromSlice(f)
		}
	}
	if positions == nil {
		positions = torch.Arange(x.Size(1), torch.TensorOptions{Device: x.Device()}).Unsqueeze(0)
	}
	angles := positions.To(x.Device()).ToDType(torch.Float32).Unsqueeze(-1).Mul(invFreq.To(x.Device()).ToDType(torch.Float32)).Unsqueeze(1) // (B, 1, T, R/2)
	c, s := angles.Cos(), angles.Sin()
	if f := r.rope.Attention(); f != 1 {
		c, s = c.MulScalar(f), s.MulScalar(f)
	}
	c, s = c.ToDType(x.DType()), s.ToDType(x.DType())
	last := torch.CatOptions{Dim: -1}
	return torch.Cat([]*torch.Tensor{c, c}, last), torch.Cat([]*torch.Tensor{s.Neg(), s}, last)
}

// adapt gives the frequencies for sequences of a length, nil for the model's own.
func (r *RotaryEmbedding) adapt(length int) []float32 {
	r.mu.Lock()
	defer r.mu.Unlock()
	limit := r.rope.Positions
	switch {
	case r.rope.Type == "longrope":
		if float64(length) <= r.rope.Original {
			return nil
		}
		if r.grown == nil {
			r.grown = r.frequencies(length)
		}
	case length > max(r.longest, limit):
		r.longest, r.grown = length, r.frequencies(length)
	case length < limit:
		r.longest, r.grown = 0, nil
	}
	return r.grown
}

func (r *RotaryEmbedding) frequencies(length int) (f []float32) {
	torch.Scope(func() { f = torch.ToSlice[float32](r.rope.InvFreq(length)) })
	return f
}

// Rotate turns the first R dimensions of each head of x (B, H, T, D) by the angles of RotaryEmbedding; dimension i
// is paired with i + R/2.
func Rotate(x, cos, sin *torch.Tensor) *torch.Tensor {
	d, r := x.Size(-1), cos.Size(-1)
	if r < d {
		turned := Rotate(x.Narrow(-1, 0, r), cos, sin)
		return torch.Cat([]*torch.Tensor{turned, x.Narrow(-1, r, d-r)}, torch.CatOptions{Dim: -1})
	}
	return x.Mul(cos).Add(x.Roll([]int{r / 2}, torch.RollOptions{Dims: []int{-1}}).Mul(sin))
}
