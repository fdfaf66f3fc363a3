package main

import (
	"github.com/torchgo/torchgo/torch"
	"github.com/torchgo/torchgo/torch/nn"
)

// Transformer predicts each next character from up to context characters before it. In the comments B is
// batch, T length, C hidden size, V the number of different characters.
type Transformer struct {
	Characters *nn.Embedding `torch:"characters"` // (V, C)
	Positions  *nn.Embedding `torch:"positions"`  // (context, C)
	Blocks     []*Block      `torch:"blocks"`
	Norm       *nn.LayerNorm `torch:"norm"`
	Head       *nn.Linear    `torch:"head"` // (V, C)
}

// Block is attention and an MLP, each with a norm before and a sum after.
type Block struct {
	Norm1 *nn.LayerNorm `torch:"norm1"`
	QKV   *nn.Linear    `torch:"qkv"`  // (3C, C)
	Proj  *nn.Linear    `torch:"proj"` // (C, C)
	Norm2 *nn.LayerNorm `torch:"norm2"`
	Up    *nn.Linear    `torch:"up"`   // (4C, C)
	Down  *nn.Linear    `torch:"down"` // (C, 4C)
	Drop  *nn.Dropout   `torch:"drop"`

	heads int
}

func newTransformer(characters int, cfg config) *Transformer {
	c := cfg.hidden
	m := &Transformer{
		Characters: nn.NewEmbedding(characters, c),
		Positions:  nn.NewEmbedding(cfg.context, c),
		Norm:       nn.NewLayerNorm(c),
		Head:       nn.NewLinear(c, characters),
	}
	for range cfg.layers {
		m.Blocks = append(m.Blocks, &Block{
			Norm1: nn.NewLayerNorm(c), QKV: nn.NewLinear(c, 3*c), Proj: nn.NewLinear(c, c),
			Norm2: nn.NewLayerNorm(c), Up: nn.NewLinear(c, 4*c), Down: nn.NewLinear(4*c, c),
			Drop: nn.NewDropout(0.1), heads: cfg.heads,
		})
	}
	return m
}

// Forward maps (B, T, C) to (B, T, C).
func (b *Block) Forward(x *torch.Tensor) *torch.Tensor {
	qkv := b.QKV.Forward(b.Norm1.Forward(x)).Chunk(3, torch.ChunkOptions{Dim: -1})
	for i, part := range qkv {
		qkv[i] = part.Unflatten(-1, b.heads, -1).Transpose(1, 2) // (B, heads, T, C/heads)
	}
	y := nn.Attention(qkv[0], qkv[1], qkv[2], nil, nn.AttentionOptions{Causal: true})
	x = x.Add(b.Drop.Forward(b.Proj.Forward(y)))
	y = b.Down.Forward(torch.Gelu(b.Up.Forward(b.Norm2.Forward(x))))
	return x.Add(b.Drop.Forward(y))
}

// Forward maps characters (B, T) to the logits of those that follow, (B, T, V).
func (m *Transformer) Forward(characters *torch.Tensor) *torch.Tensor {
	x := m.Characters.Forward(characters).Add(m.Positions.Forward(torch.Arange(characters.Size(1))))
	for _, b := range m.Blocks {
		x = b.Forward(x)
	}
	return m.Head.Forward(m.Norm.Forward(x))
}
