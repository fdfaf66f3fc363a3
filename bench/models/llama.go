package models

import (
	"math"

	"github.com/torchgo/torchgo/torch"
	"github.com/torchgo/torchgo/torch/nn"
)

// LlamaConfig has the sizes of a Llama.
type LlamaConfig struct {
	Vocabulary, Hidden, Inner, Layers, Heads, KVHeads int

	RopeTheta float64
}

// SmolLM2 has the sizes of HuggingFaceTB/SmolLM2-135M.
var SmolLM2 = LlamaConfig{Vocabulary: 49152, Hidden: 576, Inner: 1536, Layers: 30, Heads: 9, KVHeads: 3, RopeTheta: 1e5}

// Llama is a transformer of Llama's kind (Touvron et al., 2023, https://arxiv.org/abs/2302.13971), its
// embedding the head, too. Its names are transformers'.
type Llama struct {
	Embed  *nn.Embedding `torch:"embed_tokens"` // (V, C)
	Layers []*LlamaLayer `torch:"layers"`
	Norm   *nn.RMSNorm   `torch:"norm"`
	Head   *nn.Linear    `torch:"lm_head"` // tied to Embed

	cfg LlamaConfig
}

// LlamaLayer is a layer; D = C/heads.
type LlamaLayer struct {
	InputNorm *nn.RMSNorm     `torch:"input_layernorm"`
	Attention *LlamaAttention `torch:"self_attn"`
	PostNorm  *nn.RMSNorm     `torch:"post_attention_layernorm"`
	MLP       *LlamaMLP       `torch:"mlp"`
}

// LlamaAttention is causal attention in which several heads share keys and values.
type LlamaAttention struct {
	Q *nn.Linear `torch:"q_proj"` // (heads·D, C)
	K *nn.Linear `torch:"k_proj"` // (kvHeads·D, C)
	V *nn.Linear `torch:"v_proj"` // (kvHeads·D, C)
	O *nn.Linear `torch:"o_proj"` // (C, heads·D)

	headSize int
}

// LlamaMLP computes down(silu(gate(x)) · up(x)).
type LlamaMLP struct {
	Gate *nn.Linear `torch:"gate_proj"` // (inner, C)
	Up   *nn.Linear `torch:"up_proj"`   // (inner, C)
	Down *nn.Linear `torch:"down_proj"` // (C, inner)
}

// NewLlama makes one of (B, T) → (B, T, V).
func NewLlama(cfg LlamaConfig) *Llama {
	linear := func(in, out int) *nn.Linear { return nn.NewLinear(in, out, nn.LinearOptions{Bias: torch.Some(false)}) }
	norm := func() *nn.RMSNorm { return nn.NewRMSNorm(cfg.Hidden, nn.RMSNormOptions{Eps: torch.Some(1e-5)}) }
	c, d := cfg.Hidden, cfg.Hidden/cfg.Heads
	m := &Llama{Embed: nn.NewEmbedding(cfg.Vocabulary, c), Norm: norm(), cfg: cfg}
	m.Head = tied(m.Embed)
	for range cfg.Layers {
		m.Layers = append(m.Layers, &LlamaLayer{
			InputNorm: norm(),
			Attention: &LlamaAttention{linear(c, c), linear(c, cfg.KVHeads*d), linear(c, cfg.KVHeads*d), linear(c, c), d},
			PostNorm:  norm(),
			MLP:       &LlamaMLP{linear(c, cfg.Inner), linear(c, cfg.Inner), linear(cfg.Inner, c)},
		})
	}
	return m
}

// Forward maps tokens (B, T) to logits (B, T, V).
func (m *Llama) Forward(tokens *torch.Tensor) *torch.Tensor {
	x := m.Embed.Forward(tokens)
	cos, sin := m.rotation(tokens.Size(1))
	for _, l := range m.Layers {
		x = x.Add(l.Attention.Forward(l.InputNorm.Forward(x), cos, sin))
		x = x.Add(l.MLP.Forward(l.PostNorm.Forward(x)))
	}
	return m.Head.Forward(m.Norm.Forward(x))
}

// rotation is the cosine and sine of t·θ^(-2i/D): (T, D) each, both halves alike.
func (m *Llama) rotation(length int) (cos, sin *torch.Tensor) {
	d := m.cfg.Hidden / m.cfg.Heads
	c, s := make([]float32, length*d), make([]float32, length*d)
	for t := range length {
		for i := range d {
			angle := float64(t) * math.Pow(m.cfg.RopeTheta, -2*float64(i%(d/2))/float64(d))
			c[t*d+i], s[t*d+i] = float32(math.Cos(angle)), float32(math.Sin(angle))
		}
	}
	return torch.FromSlice(c, length, d), torch.FromSlice(s, length, d)
}

// rotate turns each pair (xᵢ, xᵢ₊D/2) by its position's angle: (B, heads, T, D) → the same.
func rotate(x, cos, sin *torch.Tensor) *torch.Tensor {
	halves := x.Chunk(2, torch.ChunkOptions{Dim: -1})
	turned := torch.Cat([]*torch.Tensor{halves[1].Neg(), halves[0]}, torch.CatOptions{Dim: -1})
	return x.Mul(cos).Add(turned.Mul(sin))
}

// Forward maps (B, T, C) to (B, T, C).
func (a *LlamaAttention) Forward(x, cos, sin *torch.Tensor) *torch.Tensor {
	split := func(y *torch.Tensor) *torch.Tensor { return y.Unflatten(-1, -1, a.headSize).Transpose(1, 2) } // (B, heads, T, D)
	q, k, v := split(a.Q.Forward(x)), split(a.K.Forward(x)), split(a.V.Forward(x))
	y := torch.ScaledDotProductAttention(rotate(q, cos, sin), rotate(k, cos, sin), v,
		torch.ScaledDotProductAttentionOptions{IsCausal: true, EnableGqa: true})
	return a.O.Forward(y.Transpose(1, 2).Flatten(torch.FlattenOptions{StartDim: 2}))
}

// Forward maps (B, T, C) to (B, T, C).
func (m *LlamaMLP) Forward(x *torch.Tensor) *torch.Tensor {
	return m.Down.Forward(torch.Silu(m.Gate.Forward(x)).Mul(m.Up.Forward(x)))
}
