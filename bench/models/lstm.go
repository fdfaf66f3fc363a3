package models

import (
	"github.com/torchgo/torchgo/torch"
	"github.com/torchgo/torchgo/torch/nn"
)

// LSTM predicts the next token with two layers.
type LSTM struct {
	Embedding *nn.Embedding `torch:"embedding"` // (V, C)
	LSTM      *nn.LSTM      `torch:"lstm"`
	Head      *nn.Linear    `torch:"head"` // (V, C)
}

// NewLSTM makes one of (B, T) → (B, T, V).
func NewLSTM(vocabulary, hidden int) *LSTM {
	return &LSTM{
		Embedding: nn.NewEmbedding(vocabulary, hidden),
		LSTM:      nn.NewLSTM(hidden, hidden, nn.RNNOptions{NumLayers: torch.Some(2), BatchFirst: true}),
		Head:      nn.NewLinear(hidden, vocabulary),
	}
}

// Forward maps tokens (B, T) to logits (B, T, V).
func (m *LSTM) Forward(tokens *torch.Tensor) *torch.Tensor {
	y, _, _ := m.LSTM.Forward(m.Embedding.Forward(tokens), nil, nil)
	return m.Head.Forward(y)
}
