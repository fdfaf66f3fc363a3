// Package llama is the Llama decoder with the heads that transformers has for it.
//
//   - Papers: LLaMA, https://arxiv.org/abs/2302.13971; Llama 2, https://arxiv.org/abs/2307.09288; Llama 3,
//     https://arxiv.org/abs/2407.21783
//   - Checkpoints: https://huggingface.co/models?other=llama, among them meta-llama/Llama-3.2-1B and
//     HuggingFaceTB/SmolLM2-135M-Instruct
//   - Reference: https://github.com/huggingface/transformers/tree/main/src/transformers/models/llama
//
// Pre-norm layers with RMSNorm, grouped-query attention with rotary positions of every type, SwiGLU, no biases
// unless the config asks for them.
//
// Letters in shape comments: B batch, T sequence, H heads, D size of a head, C hidden size, V vocabulary.
package llama

import (
	"github.com/torchgo/torchgo/pretrained"
	"github.com/torchgo/torchgo/pretrained/blocks"
	"github.com/torchgo/torchgo/torch"
	"github.com/torchgo/torchgo/torch/nn"
)

// DecoderLayer is attention and a feed-forward network, each after a norm and beside a residual: (B, T, C) →
// (B, T, C).
type DecoderLayer struct {
	SelfAttn               *blocks.SelfAttention `torch:"self_attn"`
	MLP                    *blocks.GatedMLP      `torch:"mlp"`
	InputLayernorm         *blocks.RMSNorm       `torch:"input_layernorm"`
	PostAttentionLayernorm *blocks.RMSNorm       `torch:"post_attention_layernorm"`
}

func newDecoderLayer(b nn.Builder, c *Config) *DecoderLayer {
	return &DecoderLayer{
		SelfAttn: blocks.NewSelfAttention(b, c.Base(), blocks.SelfAttentionOptions{Hidden: c.HiddenSize,
			Heads: c.NumAttentionHeads, KVHeads: c.kvHeads(), HeadDim: c.headDim(), Bidirectional: !c.causal(),
			Bias: c.AttentionBias, OutBias: c.AttentionBias, Dropout: c.attentionDropout()}),
		MLP:                    blocks.NewGatedMLP(b, c.HiddenSize, c.IntermediateSize, c.HiddenAct, c.MLPBias),
		InputLayernorm:         blocks.NewRMSNorm(b, c.HiddenSize, c.RMSNormEps),
		PostAttentionLayernorm: blocks.NewRMSNorm(b, c.HiddenSize, c.RMSNormEps),
	}
}

// Forward takes mask, cos and sin as blocks.SelfAttention does, and gives its weights too.
func (l *DecoderLayer) Forward(x, mask, cos, sin *torch.Tensor) (y, weights *torch.Tensor) {
	h, weights := l.SelfAttn.Forward(l.InputLayernorm.Forward(x), mask, cos, sin)
	x = x.Add(h)
	return x.Add(l.MLP.Forward(l.PostAttentionLayernorm.Forward(x))), weights
}

// Model is LlamaModel: the decoder without a head.
type Model struct {
	pretrained.PreTrainedModel

	EmbedTokens *nn.Embedding           `torch:"embed_tokens"` // (V, C)
	Layers      []*DecoderLayer         `torch:"layers"`
	Norm        *blocks.RMSNorm         `torch:"norm"`
	RotaryEmb   *blocks.RotaryEmbedding `torch:"rotary_emb"`

	config *Config
}

// NewModel builds a LlamaModel. It panics when the config is one that Validate refuses.
func NewModel(b nn.Builder, c *Config) *Model {
	var opt nn.EmbeddingOptions
	if c.PadTokenID != nil {
		opt.PaddingIdx = torch.Some(*c.PadTokenID)
	}
	m := &Model{EmbedTokens: b.Embedding(c.VocabSize, c.HiddenSize, opt), config: c}
	for range c.NumHiddenLayers {
		m.Layers = append(m.Layers, newDecoderLayer(b, c))
	}
	m.Norm = blocks.NewRMSNorm(b, c.HiddenSize, c.RMSNormEps)
	rope, err := c.RoPE()
	if err != nil {
		panic(&torch.Error{Op: "llama", Kind: torch.ErrArgument, Message: err.Error()})
	}
	m.RotaryEmb = blocks.NewRotaryEmbedding(b, rope)
	return m
}

// Forward maps (B, T) ids to LastHiddenState (B, T, C).
func (m *Model) Forward(in pretrained.Inputs) *pretrained.Output { return m.Dispatch(in, m.forward) }

func (m *Model) forward(in pretrained.Inputs) *pretrained.Output {
	in.MustHaveText(0)
	x := in.InputsEmbeds
	if x == nil {
		x = m.EmbedTokens.Forward(in.InputIDs)
	}
	cos, sin := m.RotaryEmb.Forward(x, in.PositionIDs)
	mask := pretrained.AttentionMask(in.AttentionMask, x, pretrained.MaskOptions{Kind: m.config.Attn, Causal: m.config.causal(), Positions: in.PositionIDs})
	rec := in.Record(m.config.Base())
	rec.HiddenState(x)
	for _, layer := range m.Layers {
		x = rec.Block(m.Block(layer, func(in []*torch.Tensor) []*torch.Tensor {
			return rec.Keep(layer.Forward(in[0], in[1], in[2], in[3]))
		}, x, mask, cos, sin))
	}
	return rec.Output(m.Norm.Forward(x))
}
