package blocks

import (
	"github.com/torchgo/torchgo/pretrained"
	"github.com/torchgo/torchgo/torch"
	"github.com/torchgo/torchgo/torch/nn"
)

// SelfAttentionOptions are the sizes of a SelfAttention and how models differ in it.
type SelfAttentionOptions struct {
	Hidden, Heads, KVHeads, HeadDim int

	Bidirectional bool // positions see later ones, too

	Bias    bool    // of the projections to queries, keys and values
	OutBias bool    // of the projection back
	Dropout float64 // of attention weights
}

// SelfAttention is attention with rotary positions, in which groups of query heads may share a head of keys
// and values: (B, T, C) → (B, T, C).
//
// Source: Ainslie et al., GQA: Training Generalized Multi-Query Transformer Models, https://arxiv.org/abs/2305.13245.
type SelfAttention struct {
	nn.Mode

	QProj *nn.Linear `torch:"q_proj"` // (H·D, C)
	KProj *nn.Linear `torch:"k_proj"` // (G·D, C)
	VProj *nn.Linear `torch:"v_proj"` // (G·D, C)
	OProj *nn.Linear `torch:"o_proj"` // (C, H·D)

	headDim int
	causal  bool
	dropout float64
	base    *pretrained.ConfigBase // says which implementation runs
}

// NewSelfAttention makes the attention of one layer of a model with this config.
func NewSelfAttention(b nn.Builder, base *pretrained.ConfigBase, o SelfAttentionOptions) *SelfAttention {
	proj := func(in, out int, bias bool) *nn.Linear {
		return b.Linear(in, out, nn.LinearOptions{Bias: torch.Some(bias)})
	}
	return &SelfAttention{
		QProj:   proj(o.Hidden, o.Heads*o.HeadDim, o.Bias),
		KProj:   proj(o.Hidden, o.KVHeads*o.HeadDim, o.Bias),
		VProj:   proj(o.Hidden, o.KVHeads*o.HeadDim, o.Bias),
		OProj:   proj(o.Heads*o.HeadDim, o.Hidden, o.OutBias),
		headDim: o.HeadDim, causal: !o.Bidirectional, dropout: o.Dropout, base: base,
	}
}

// Forward attends within each sequence. mask is broadcast to (B, H, T, T) or nil, which is
// causal unless the attention is bidirectional; cos and sin are
// RotaryEmbedding's. weights (B, H, T, T) is nil under SDPA.
func (a *SelfAttention) Forward(x, mask, cos, sin *torch.Tensor) (y, weights *torch.Tensor) {
	heads := func(l *nn.Linear) *torch.Tensor { // (B, T, C) → (B, H, T, D)
		y := l.Forward(x)
		return y.View(y.Size(0), y.Size(1), -1, a.headDim).Transpose(1, 2)
	}
	opt := nn.AttentionOptions{Kind: a.base.Attn, Causal: a.causal, Float32Softmax: true}
	if a.Training() {
		opt.Dropout = a.dropout
	}
	y, weights = nn.AttentionWithWeights(Rotate(heads(a.QProj), cos, sin), Rotate(heads(a.KProj), cos, sin), heads(a.VProj), mask, opt)
	return a.OProj.Forward(y), weights
}
