package nn

import (
	"math"

	"github.com/torchgo/torchgo/torch"
	"github.com/torchgo/torchgo/torch/nn/nninit"
)

// MultiheadAttention projects queries, keys and values, lets each of H heads attend with its share of the channels,
// and projects what they found: softmax(q kᵀ/√D + mask) v. Letters: T queries, S keys, C embedding, D = C/H.
//
// Source: Vaswani et al., Attention Is All You Need, https://arxiv.org/abs/1706.03762.
type MultiheadAttention struct {
	Hooks
	Mode

	InProjWeight *torch.Tensor `torch:"in_proj_weight"` // (3·C, C): q, k, v; nil: apart
	QProjWeight  *torch.Tensor `torch:"q_proj_weight"`  // (C, C), where keys or values have other sizes
	KProjWeight  *torch.Tensor `torch:"k_proj_weight"`  // (C, kdim)
	VProjWeight  *torch.Tensor `torch:"v_proj_weight"`  // (C, vdim)
	InProjBias   *torch.Tensor `torch:"in_proj_bias"`   // (3·C), nil: none
	BiasK        *torch.Tensor `torch:"bias_k"`         // (1, 1, C): one more key
	BiasV        *torch.Tensor `torch:"bias_v"`         // (1, 1, C): its value
	OutProj      *Linear       `torch:"out_proj"`       // (C, C)

	EmbedDim, NumHeads int
	Dropout            float64 // of attention weights, in training mode
	AddZeroAttn        bool    // one more key and value of zeros
	BatchFirst         bool
}

// MultiheadAttentionOptions are the optional arguments of NewMultiheadAttention.
type MultiheadAttentionOptions struct {
	Dropout     float64         // of attention weights, in training mode
	Bias        torch.Opt[bool] // default: true
	AddBiasKV   bool            // one more key and value, learned
	AddZeroAttn bool            // one more key and value of zeros
	KDim, VDim  int             // sizes of keys and values; 0: that of queries
	BatchFirst  bool            // (B, T, C), not (T, B, C)
}

// NewMultiheadAttention makes a float32 layer on the CPU, initialised as PyTorch's nn.MultiheadAttention.
func NewMultiheadAttention(embedDim, numHeads int, opts ...MultiheadAttentionOptions) *MultiheadAttention {
	return Builder{}.MultiheadAttention(embedDim, numHeads, opts...)
}

// MultiheadAttention makes an attention layer. embedDim must be a multiple of numHeads.
func (b Builder) MultiheadAttention(embedDim, numHeads int, opts ...MultiheadAttentionOptions) *MultiheadAttention {
	o := first(opts)
	if embedDim <= 0 || numHeads <= 0 {
		fail("multihead_attention", "embed_dim and num_heads must be greater than 0, got embed_dim=%d and num_heads=%d instead", embedDim, numHeads)
	}
	if embedDim%numHeads != 0 {
		fail("multihead_attention", "embed_dim must be divisible by num_heads")
	}
	kdim, vdim := o.KDim, o.VDim
	if kdim == 0 {
		kdim = embedDim
	}
	if vdim == 0 {
		vdim = embedDim
	}
	m := &MultiheadAttention{EmbedDim: embedDim, NumHeads: numHeads, Dropout: o.Dropout, AddZeroAttn: o.AddZeroAttn, BatchFirst: o.BatchFirst}
	if kdim == embedDim && vdim == embedDim {
		m.InProjWeight = b.Parameter(3*embedDim, embedDim)
	} else {
		m.QProjWeight, m.KProjWeight, m.VProjWeight = b.Parameter(embedDim, embedDim), b.Parameter(embedDim, kdim), b.Parameter(embedDim, vdim)
	}
	bias := o.Bias.Or(true)
	if bias {
		m.InProjBias = b.Parameter(3 * embedDim)
	}
	m.OutProj = b.Linear(embedDim, embedDim, LinearOptions{Bias: torch.Some(bias)})
	m.OutProj.class = "NonDynamicallyQuantizableLinear"
	if o.AddBiasKV {
		m.BiasK, m.BiasV = b.Parameter(1, 1, embedDim), b.Parameter(1, 1, embedDim)
	}
	b.init(func() {
		for _, w := range []*torch.Tensor{m.InProjWeight, m.QProjWeight, m.KProjWeight, m.VProjWeight} {
			if w != nil {
				nninit.XavierUniform_(w)
			}
		}
		if bias {
			nninit.Zeros_(m.InProjBias)
			nninit.Zeros_(m.OutProj.Bias)
		}
		if o.AddBiasKV {
			nninit.XavierNormal_(m.BiasK)
			nninit.XavierNormal_(m.BiasV)
		}
	})
	return m
}

// AttendOptions are the optional arguments of MultiheadAttention.Forward.
type AttendOptions struct {
	// KeyPaddingMask is (B, S) or (S): boolean, true where a key is to be ignored, or added to the scores.
	KeyPaddingMask *torch.Tensor
	// AttnMask is (T, S) or (B·H, T, S): boolean, true where a query may not see a key, or added to the scores.
	AttnMask           *torch.Tensor
	IsCausal           bool            // AttnMask is the causal one; it may go unread
	NeedWeights        torch.Opt[bool] // false is faster; default: true
	AverageAttnWeights torch.Opt[bool] // the weights are the mean of the heads'; default: true
}

// Forward maps query (T, B, C), key (S, B, kdim) and value (S, B, vdim), with BatchFirst (B, T, C) and so on, or all
// without B, to the attended values, of query's shape, and the attention weights (B, T, S), or (B, H, T, S) unless
// they are averaged; nil if they are not needed.
func (m *MultiheadAttention) Forward(query, key, value *torch.Tensor, opts ...AttendOptions) (y, weights *torch.Tensor) {
	o := first(opts)
	out := m.CallAll([]*torch.Tensor{query, key, value, o.KeyPaddingMask, o.AttnMask}, func(in []*torch.Tensor) []*torch.Tensor {
		o.KeyPaddingMask, o.AttnMask = in[3], in[4]
		y, w := m.forward(in[0], in[1], in[2], o)
		return []*torch.Tensor{y, w}
	})
	return out[0], out[1]
}

func (m *MultiheadAttention) forward(query, key, value *torch.Tensor, o AttendOptions) (y, weights *torch.Tensor) {
	const op = "multihead_attention"
	d, same := query.Dim(), query == key && key == value
	if d != 2 && d != 3 || key.Dim() != d || value.Dim() != d {
		fail(op, "query, key and value should be unbatched 2D or batched 3D tensors, got %dD, %dD and %dD", d, key.Dim(), value.Dim())
	}
	arrange := func(x *torch.Tensor) *torch.Tensor { // to (T, B, C)
		switch {
		case d == 2:
			return x.Unsqueeze(1)
		case m.BatchFirst:
			return x.Transpose(0, 1)
		}
		return x
	}
	q, k, v := m.project(arrange(query), arrange(key), arrange(value), same)
	t, b, s := q.Size(0), q.Size(1), k.Size(0)
	h, dim := m.NumHeads, m.EmbedDim/m.NumHeads

	padding := scores(o.KeyPaddingMask, q.DType()) // (B, S)
	if padding != nil && d == 2 {
		padding = padding.Unsqueeze(0)
	}
	mask := scores(o.AttnMask, q.DType()) // (1 or B·H, T, S)
	switch {
	case mask == nil && o.IsCausal:
		fail(op, "Need attn_mask if specifying the is_causal hint.")
	case mask != nil && mask.Dim() == 2:
		mask = mask.Unsqueeze(0)
	}
	extra := 0
	if m.BiasK != nil {
		k = torch.Cat([]*torch.Tensor{k, m.BiasK.Expand(1, b, -1)})
		v = torch.Cat([]*torch.Tensor{v, m.BiasV.Expand(1, b, -1)})
		extra++
	}
	if m.AddZeroAttn {
		zeros := torch.Zeros([]int{1, b, m.EmbedDim}, torch.TensorOptions{DType: k.DType(), Device: k.Device()})
		k, v = torch.Cat([]*torch.Tensor{k, zeros}), torch.Cat([]*torch.Tensor{v, zeros})
		extra++
	}
	split := func(x *torch.Tensor) *torch.Tensor { // (L, B, C) → (B, H, L, D)
		return x.Reshape(x.Size(0), b, h, dim).Permute(1, 2, 0, 3)
	}
	q, k, v = split(q), split(k), split(v)
	s += extra
	if extra > 0 { // the additional keys are seen by all
		mask, padding = widen(mask, extra), widen(padding, extra)
	}
	if mask != nil && mask.Size(0) > 1 {
		mask = mask.Reshape(b, h, t, s)
	}
	if padding != nil {
		p := padding.Reshape(b, 1, 1, s)
		if mask == nil {
			mask = p
		} else {
			mask = mask.Add(p)
		}
	}
	dropout := 0.0
	if m.Training() {
		dropout = m.Dropout
	}
	if o.NeedWeights.Or(true) {
		weights = q.MulScalar(math.Sqrt(1 / float64(dim))).MatMul(k.Transpose(-2, -1)) // (B, H, T, S)
		if mask != nil {
			weights = weights.Add(mask)
		}
		weights = weights.Softmax(-1)
		if dropout > 0 {
			weights = torch.Dropout(weights, dropout, true)
		}
		y = weights.MatMul(v)
		if o.AverageAttnWeights.Or(true) {
			weights = weights.MeanDim([]int{1})
		}
		if d == 2 {
			weights = weights.SqueezeDim(0)
		}
	} else {
		causal := o.IsCausal && padding == nil && extra == 0
		if causal {
			mask = nil
		}
		y = torch.ScaledDotProductAttention(q, k, v, torch.ScaledDotProductAttentionOptions{AttnMask: mask, DropoutP: dropout, IsCausal: causal})
	}
	y = m.OutProj.Forward(y.Permute(2, 0, 1, 3).Reshape(t, b, m.EmbedDim))
	switch {
	case d == 2:
		y = y.SqueezeDim(1)
	case m.BatchFirst:
		y = y.Transpose(0, 1)
	}
	return y, weights
}

// project applies the input projections. same tells that the three are one.
func (m *MultiheadAttention) project(q, k, v *torch.Tensor, same bool) (pq, pk, pv *torch.Tensor) {
	linear := func(x, w, bias *torch.Tensor) *torch.Tensor {
		return torch.Linear(x, w, torch.LinearOptions{Bias: bias})
	}
	if m.InProjWeight != nil && same {
		p := linear(q, m.InProjWeight, m.InProjBias).Chunk(3, torch.ChunkOptions{Dim: -1})
		return p[0], p[1], p[2]
	}
	w := []*torch.Tensor{m.QProjWeight, m.KProjWeight, m.VProjWeight}
	if m.InProjWeight != nil {
		w = m.InProjWeight.Chunk(3)
	}
	bias := make([]*torch.Tensor, 3)
	if m.InProjBias != nil {
		bias = m.InProjBias.Chunk(3)
	}
	return linear(q, w[0], bias[0]), linear(k, w[1], bias[1]), linear(v, w[2], bias[2])
}

// scores turns a boolean mask (true: ignore) into one to be added: -∞ where it is true.
func scores(mask *torch.Tensor, dtype torch.DType) *torch.Tensor {
	if mask == nil || mask.DType() != torch.Bool {
		return mask
	}
	return torch.Zeros(mask.Shape(), torch.TensorOptions{DType: dtype, Device: mask.Device()}).MaskedFill(mask, math.Inf(-1))
}

// widen adds n zeros to the last dimension.
func widen(mask *torch.Tensor, n int) *torch.Tensor {
	if mask == nil {
		return nil
	}
	return torch.Pad(mask, []int{0, n})
}
