package pretrained_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/torchgo/torchgo/pretrained"
	"github.com/torchgo/torchgo/pretrained/safetensors"
	"github.com/torchgo/torchgo/torch/nn"
)

// wordsModel is an architecture of one's own, whose config may have fields for what resizing changes, or not.
type wordsModel struct {
	pretrained.PreTrainedModel
	Words *nn.Embedding `torch:"words"`
}

func (m *wordsModel) Forward(pretrained.Inputs) *pretrained.Output { panic("it computes nothing") }

type plainWords struct{ pretrained.ConfigBase }

func (*plainWords) Validate() error { return nil }

// fixedWords can't say that there is no padding.
type fixedWords struct {
	pretrained.ConfigBase
	VocabSize  int `json:"vocab_size"`
	PadTokenID int `json:"pad_token_id"`
}

func (*fixedWords) Validate() error { return nil }

func TestResizeOfOnesOwnArchitecture(t *testing.T) {
	pretrained.Register(pretrained.Architecture{ModelType: "plain words", InputEmbeddings: "words",
		NewConfig: func() pretrained.Config { return &plainWords{pretrained.ConfigBase{ModelType: "plain words"}} },
		Classes: []pretrained.Class{{Name: "PlainWords", New: pretrained.Build(func(b nn.Builder, _ *plainWords) *wordsModel {
			return &wordsModel{Words: b.Embedding(10, 4)}
		})}}})
	pretrained.Register(pretrained.Architecture{ModelType: "fixed words", InputEmbeddings: "words",
		NewConfig: func() pretrained.Config {
			return &fixedWords{pretrained.ConfigBase{ModelType: "fixed words"}, 10, 9}
		},
		Classes: []pretrained.Class{{Name: "FixedWords", New: pretrained.Build(func(b nn.Builder, _ *fixedWords) *wordsModel {
			return &wordsModel{Words: b.Embedding(10, 4)}
		})}}})
	dir := writeCheckpoint(t, `{"model_type": "plain words", "architectures": ["PlainWords"], "pad_token_id": 9}`, wordsOf(10))
	m, _ := load(t, dir, pretrained.Options{})
	_, err := m.ResizeTokenEmbeddings(9)
	require.NoError(t, err)
	require.Equal(t, []int{9, 4}, m.InputEmbeddings().Weight.(*nn.Table).W.Shape())
	_, there := m.Config().Base().Extra("pad_token_id")
	require.False(t, there)

	dir = writeCheckpoint(t, `{"model_type": "fixed words", "architectures": ["FixedWords"]}`, wordsOf(10))
	m, _ = load(t, dir, pretrained.Options{})
	_, err = m.ResizeTokenEmbeddings(9)
	require.ErrorIs(t, err, pretrained.ErrBadConfig)
	require.ErrorContains(t, err, "pad_token_id")
	require.Equal(t, []int{10, 4}, m.InputEmbeddings().Weight.(*nn.Table).W.Shape(), "nothing has changed")
	require.Equal(t, 10, m.Config().(*fixedWords).VocabSize)
	_, err = m.ResizeTokenEmbeddings(12)
	require.NoError(t, err)
	require.Equal(t, 12, m.Config().(*fixedWords).VocabSize)
}

func wordsOf(rows int) []safetensors.Source {
	return []safetensors.Source{{Name: "words.weight", DType: safetensors.F32, Shape: []int{rows, 4}, Write: safetensors.Data(make([]byte, 16*rows))}}
}
