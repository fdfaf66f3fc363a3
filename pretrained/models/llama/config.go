package llama

import (
	"fmt"

	"github.com/torchgo/torchgo/pretrained"
	"github.com/torchgo/torchgo/pretrained/blocks"
	"github.com/torchgo/torchgo/torch/nn"
)

// Config is config.json of model type "llama".
type Config struct {
	pretrained.ConfigBase

	VocabSize             int            `json:"vocab_size"`
	HiddenSize            int            `json:"hidden_size"`
	IntermediateSize      int            `json:"intermediate_size"`
	NumHiddenLayers       int            `json:"num_hidden_layers"`
	NumAttentionHeads     int            `json:"num_attention_heads"`
	NumKeyValueHeads      *int           `json:"num_key_value_heads"` // nil: as many as heads
	HeadDim               *int           `json:"head_dim"`            // nil: hidden size / heads
	HiddenAct             string         `json:"hidden_act"`
	MaxPositionEmbeddings int            `json:"max_position_embeddings"` // for some types of RoPE; no limit
	InitializerRange      float64        `json:"initializer_range"`
	RMSNormEps            float64        `json:"rms_norm_eps"`
	UseCache              bool           `json:"use_cache"`
	PadTokenID            *int           `json:"pad_token_id"`
	BosTokenID            *int           `json:"bos_token_id"`
	EosTokenID            any            `json:"eos_token_id"`   // an integer or a list of them
	PretrainingTP         *int           `json:"pretraining_tp"` // of the training; means nothing here or in transformers
	TieWordEmbeddings     bool           `json:"tie_word_embeddings"`
	RopeParameters        map[string]any `json:"rope_parameters"` // see blocks.ParseRoPE; older files have rope_scaling and rope_theta
	AttentionBias         bool           `json:"attention_bias"`
	AttentionDropout      *float64       `json:"attention_dropout"`
	MLPBias               bool           `json:"mlp_bias"`
}

// NewConfig returns the sizes of Llama-2-7b.
func NewConfig() *Config {
	one, zero := 1, 0.0
	return &Config{
		ConfigBase: pretrained.NewConfigBase("llama"),
		VocabSize:  32000, HiddenSize: 4096, IntermediateSize: 11008, NumHiddenLayers: 32, NumAttentionHeads: 32,
		HiddenAct: "silu", MaxPositionEmbeddings: 2048, InitializerRange: 0.02, RMSNormEps: 1e-6, UseCache: true,
		BosTokenID: &one, EosTokenID: int64(2), PretrainingTP: &one, AttentionDropout: &zero,
	}
}

// Complete implements pretrained.Completer.
func (c *Config) Complete() (err error) {
	if c.HeadDim == nil && c.NumAttentionHeads > 0 {
		d := c.HiddenSize / c.NumAttentionHeads
		c.HeadDim = &d
	}
	if c.NumKeyValueHeads == nil {
		h := c.NumAttentionHeads
		c.NumKeyValueHeads = &h
	}
	c.RopeParameters, err = blocks.StandardizeRoPE(c.Base(), c.RopeParameters, c.MaxPositionEmbeddings)
	return err
}

// Validate implements pretrained.Config.
func (c *Config) Validate() error {
	const size = pretrained.MaxSize
	bounds := []pretrained.Bound{
		{Key: "vocab_size", Value: c.VocabSize, Min: 1, Max: size},
		{Key: "hidden_size", Value: c.HiddenSize, Min: 1, Max: size},
		{Key: "intermediate_size", Value: c.IntermediateSize, Min: 1, Max: size},
		{Key: "num_hidden_layers", Value: c.NumHiddenLayers, Min: 0, Max: pretrained.MaxLayers},
		{Key: "num_attention_heads", Value: c.NumAttentionHeads, Min: 1, Max: c.HiddenSize},
		{Key: "max_position_embeddings", Value: c.MaxPositionEmbeddings, Min: 1, Max: 1 << 40},
	}
	if c.PadTokenID != nil { // negative ones count from the end of the vocabulary
		bounds = append(bounds, pretrained.Bound{Key: "pad_token_id", Value: *c.PadTokenID, Min: -c.VocabSize, Max: c.VocabSize - 1})
	}
	if err := pretrained.CheckBounds(bounds...); err != nil {
		return err
	}
	if err := pretrained.CheckBounds([]pretrained.Bound{
		{Key: "head_dim", Value: c.headDim(), Min: 1, Max: size / c.NumAttentionHeads},
		{Key: "num_key_value_heads", Value: c.kvHeads(), Min: 1, Max: c.NumAttentionHeads},
	}...); err != nil {
		return err
	}
	for _, m := range []struct {
		key         string
		value, unit int
		of          string
	}{
		{"hidden_size", c.HiddenSize, c.NumAttentionHeads, "attention"},
		{"num_attention_heads", c.NumAttentionHeads, c.kvHeads(), "key and value"},
	} {
		if m.value%m.unit != 0 {
			return &pretrained.Error{Detail: m.key, Class: pretrained.ErrBadConfig,
				Expected: fmt.Sprintf("a multiple of the %d %s heads", m.unit, m.of), Actual: fmt.Sprint(m.value)}
		}
	}
	if _, err := nn.ActivationByName(c.HiddenAct); err != nil {
		return &pretrained.Error{Detail: "hidden_act", Actual: err.Error(), Class: pretrained.ErrBadConfig}
	}
	dropout, err := c.classifierDropout()
	if err != nil {
		return err
	}
	for _, p := range []struct {
		key   string
		value float64
	}{{"attention_dropout", c.attentionDropout()}, {"classifier_dropout", dropout}, {"initializer_range", c.InitializerRange}} {
		if err := pretrained.Probability(p.key, p.value); err != nil {
			return err
		}
	}
	_, err = c.RoPE()
	return err
}

// RoPE are the settings of the rotary positions. Llama turns whole heads: as in transformers, type default has no
// regard to partial_rotary_factor; of the other types one below 1 is an error.
func (c *Config) RoPE() (blocks.RoPE, error) {
	params, err := blocks.StandardizeRoPE(c.Base(), c.RopeParameters, c.MaxPositionEmbeddings)
	if err != nil {
		return blocks.RoPE{}, err
	}
	r, err := blocks.ParseRoPE(c.Base(), params, c.headDim(), c.MaxPositionEmbeddings)
	switch {
	case err != nil:
		return r, err
	case r.Type == "default" && r.PartialRotary != 1:
		c.Warn("rope_parameters.partial_rotary_factor means nothing to a llama with rope_type default: whole heads are turned")
		r.PartialRotary = 1
	case r.Dim() != r.HeadDim:
		return r, &pretrained.Error{Class: pretrained.ErrUnsupported, Detail: "rope_parameters.partial_rotary_factor",
			Expected: "1 for a llama with rope_type " + r.Type, Actual: fmt.Sprint(r.PartialRotary)}
	}
	return r, nil
}

func (c *Config) headDim() int {
	if c.HeadDim != nil {
		return *c.HeadDim
	}
	return c.HiddenSize / c.NumAttentionHeads
}

func (c *Config) kvHeads() int {
	if c.NumKeyValueHeads != nil {
		return *c.NumKeyValueHeads
	}
	return c.NumAttentionHeads
}

// causal is false where is_causal says so: embedding models see whole texts.
func (c *Config) causal() bool {
	causal, _ := c.Extra("is_causal")
	return causal != false
}

func (c *Config) attentionDropout() float64 {
	if c.AttentionDropout != nil {
		return *c.AttentionDropout
	}
	return 0
}

// classifierDropout is the rate of the token classifier, of keys that a llama's config needn't have.
func (c *Config) classifierDropout() (float64, error) {
	for _, key := range []string{"classifier_dropout", "hidden_dropout"} {
		switch v, _ := c.Extra(key); v := v.(type) {
		case nil:
		case float64:
			return v, nil
		case int64:
			return float64(v), nil
		default:
			return 0, &pretrained.Error{Detail: key, Class: pretrained.ErrBadConfig, Expected: "a number", Actual: pretrained.Describe(v)}
		}
	}
	return 0.1, nil
}
