package models

import (
	"github.com/torchgo/torchgo/torch"
	"github.com/torchgo/torchgo/torch/nn"
)

// GPT is a transformer of GPT-2's kind: learned positions, norms before attention and MLP, and the
// embedding as head, too.
type GPT struct {
	WTE    *nn.Embedding `torch:"wte"` // (V, C)
	WPE    *nn.Embedding `torch:"wpe"` // (context, C)
	Blocks []*GPTBlock   `torch:"h"`
	LNF    *nn.LayerNorm `torch:"ln_f"`
	Head   *nn.Linear    `torch:"head"` // tied to WTE
}

// GPTBlock is a layer.
type GPTBlock struct {
	LN1  *nn.LayerNorm `torch:"ln_1"`
	Attn *nn.Linear    `torch:"attn"` // q, k and v: (3C, C)
	Proj *nn.Linear    `torch:"proj"` // (C, C)
	LN2  *nn.LayerNorm `torch:"ln_2"`
	Up   *nn.Linear    `torch:"up"`   // (4C, C)
	Down *nn.Linear    `torch:"down"` // (C, 4C)

	heads int
}

// NewGPT makes one of (B, T) → (B, T, V), T up to the context.
func NewGPT(vocabulary, context, hidden, heads, layers int) *GPT {
	m := &GPT{
		WTE: nn.NewEmbedding(vocabulary, hidden),
		WPE: nn.NewEmbedding(context, hidden),
		LNF: nn.NewLayerNorm(hidden),
	}
	m.Head = tied(m.WTE)
	for range layers {
		m.Blocks = append(m.Blocks, &GPTBlock{
			LN1: nn.NewLayerNorm(hidden), Attn: nn.NewLinear(hidden, 3*hidden), Proj: nn.NewLinear(hidden, hidden),
			LN2: nn.NewLayerNorm(hidden), Up: nn.NewLinear(hidden, 4*hidden), Down: nn.NewLinear(4*hidden, hidden),
			heads: heads,
		})
	}
	return m
}

// tied is a head that multiplies with the rows of an embedding: (…, C) → (…, V).
func tied(e *nn.Embedding) *nn.Linear {
	return &nn.Linear{Weight: &nn.Dense{W: e.Weight.(*nn.Table).W}}
}

// Forward maps (B, T, C) to (B, T, C).
func (b *GPTBlock) Forward(x *torch.Tensor) *torch.Tensor {
	qkv := b.Attn.Forward(b.LN1.Forward(x)).Chunk(3, torch.ChunkOptions{Dim: -1})
	for i, part := range qkv {
		qkv[i] = part.Unflatten(-1, b.heads, -1).Transpose(1, 2) // (B, heads, T, C/heads)
	}
	x = x.Add(b.Proj.Forward(nn.Attention(qkv[0], qkv[1], qkv[2], nil, nn.AttentionOptions{Causal: true})))
	return x.Add(b.Down.Forward(torch.Gelu(b.Up.Forward(b.LN2.Forward(x)))))
}

// Forward maps tokens (B, T) to logits (B, T, V).
func (m *GPT) Forward(tokens *torch.Tensor) *torch.Tensor {
	x := m.WTE.Forward(tokens).Add(m.WPE.Forward(torch.Arange(tokens.Size(1))))
	for _, b := range m.Blocks {
		x = b.Forward(x)
	}
	return m.Head.Forward(m.LNF.Forward(x))
}
