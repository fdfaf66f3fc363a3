// Package bert is the BERT encoder with the heads that transformers has for it.
//
//   - Paper: BERT: Pre-training of Deep Bidirectional Transformers, https://arxiv.org/abs/1810.04805
//   - Checkpoints: https://huggingface.co/models?other=bert, among them sentence-transformers/all-MiniLM-L6-v2
//   - Reference: https://github.com/huggingface/transformers/tree/main/src/transformers/models/bert
//
// Post-norm layers, learned absolute positions, segment embeddings, GELU. The masked-language-model head
// shares its matrix with the word embeddings.
//
// Letters in shape comments: B batch, T sequence, H heads, D size of a head, C hidden size (H·D),
// V vocabulary.
package bert

import (
	"fmt"

	"github.com/torchgo/torchgo/pretrained"
	"github.com/torchgo/torchgo/torch"
	"github.com/torchgo/torchgo/torch/nn"
)

// Config is config.json of model type "bert".
type Config struct {
	pretrained.ConfigBase

	VocabSize                 int      `json:"vocab_size"`
	HiddenSize                int      `json:"hidden_size"`
	NumHiddenLayers           int      `json:"num_hidden_layers"`
	NumAttentionHeads         int      `json:"num_attention_heads"`
	IntermediateSize          int      `json:"intermediate_size"`
	HiddenAct                 string   `json:"hidden_act"`
	HiddenDropoutProb         float64  `json:"hidden_dropout_prob"`
	AttentionProbsDropoutProb float64  `json:"attention_probs_dropout_prob"`
	MaxPositionEmbeddings     int      `json:"max_position_embeddings"`
	TypeVocabSize             int      `json:"type_vocab_size"`
	InitializerRange          float64  `json:"initializer_range"`
	LayerNormEps              float64  `json:"layer_norm_eps"`
	PadTokenID                *int     `json:"pad_token_id"`
	UseCache                  bool     `json:"use_cache"`
	ClassifierDropout         *float64 `json:"classifier_dropout"`
	IsDecoder                 bool     `json:"is_decoder"`
	AddCrossAttention         bool     `json:"add_cross_attention"`
	BosTokenID                *int     `json:"bos_token_id"`
	EosTokenID                any      `json:"eos_token_id"`
	TieWordEmbeddings         bool     `json:"tie_word_embeddings"`
}

// NewConfig returns the sizes of bert-base-uncased.
func NewConfig() *Config {
	pad := 0
	return &Config{
		ConfigBase: pretrained.NewConfigBase("bert"),
		VocabSize:  30522, HiddenSize: 768, NumHiddenLayers: 12, NumAttentionHeads: 12, IntermediateSize: 3072,
		HiddenAct: "gelu", HiddenDropoutProb: 0.1, AttentionProbsDropoutProb: 0.1, MaxPositionEmbeddings: 512,
		TypeVocabSize: 2, InitializerRange: 0.02, LayerNormEps: 1e-12, PadTokenID: &pad, UseCache: true,
		TieWordEmbeddings: true,
	}
}

// Validate implements pretrained.Config.
func (c *Config) Validate() error {
	const size = pretrained.MaxSize
	pad := 0
	if c.PadTokenID != nil {
		pad = *c.PadTokenID
	}
	if err := pretrained.CheckBounds([]pretrained.Bound{
		{Key: "vocab_size", Value: c.VocabSize, Min: 1, Max: size},
		{Key: "hidden_size", Value: c.HiddenSize, Min: 1, Max: size},
		{Key: "num_hidden_layers", Value: c.NumHiddenLayers, Min: 0, Max: pretrained.MaxLayers},
		{Key: "num_attention_heads", Value: c.NumAttentionHeads, Min: 1, Max: c.HiddenSize},
		{Key: "intermediate_size", Value: c.IntermediateSize, Min: 1, Max: size},
		{Key: "max_position_embeddings", Value: c.MaxPositionEmbeddings, Min: 1, Max: size},
		{Key: "type_vocab_size", Value: c.TypeVocabSize, Min: 1, Max: size},
		{Key: "pad_token_id", Value: pad, Min: 0, Max: c.VocabSize - 1},
	}...); err != nil {
		return err
	}
	if _, err := nn.ActivationByName(c.HiddenAct); err != nil {
		return &pretrained.Error{Detail: "hidden_act", Actual: err.Error(), Class: pretrained.ErrBadConfig}
	}
	for _, p := range []struct {
		key   string
		value float64
	}{
		{"hidden_dropout_prob", c.HiddenDropoutProb}, {"attention_probs_dropout_prob", c.AttentionProbsDropoutProb},
		{"classifier_dropout", c.classifierDropout()},
	} {
		if err := pretrained.Probability(p.key, p.value); err != nil {
			return err
		}
	}
	if c.HiddenSize%c.NumAttentionHeads != 0 {
		return &pretrained.Error{Detail: "hidden_size", Class: pretrained.ErrBadConfig,
			Expected: fmt.Sprintf("a multiple of the %d heads", c.NumAttentionHeads), Actual: fmt.Sprint(c.HiddenSize)}
	}
	if c.AddCrossAttention {
		return &pretrained.Error{Detail: "add_cross_attention", Actual: "true", Class: pretrained.ErrUnsupported}
	}
	return nil
}

// MaxPositions is the longest sequence that the model takes.
func (c *Config) MaxPositions() int { return c.MaxPositionEmbeddings }

func (c *Config) classifierDropout() float64 {
	if c.ClassifierDropout != nil {
		return *c.ClassifierDropout
	}
	return c.HiddenDropoutProb
}

// Embeddings sums word, position and segment embeddings: ids (B, T) → (B, T, C).
type Embeddings struct {
	WordEmbeddings      *nn.Embedding `torch:"word_embeddings"`       // (V, C)
	PositionEmbeddings  *nn.Embedding `torch:"position_embeddings"`   // (positions, C)
	TokenTypeEmbeddings *nn.Embedding `torch:"token_type_embeddings"` // (segments, C)
	LayerNorm           *nn.LayerNorm `torch:"LayerNorm"`
	Dropout             *nn.Dropout   `torch:"dropout"`

	PositionIDs  *torch.Tensor `torch:"position_ids,transient"`   // (1, positions): 0, 1, …
	TokenTypeIDs *torch.Tensor `torch:"token_type_ids,transient"` // (1, positions): zeros
}

func newEmbeddings(b nn.Builder, c *Config) *Embeddings {
	e := &Embeddings{
		PositionEmbeddings:  b.Embedding(c.MaxPositionEmbeddings, c.HiddenSize),
		TokenTypeEmbeddings: b.Embedding(c.TypeVocabSize, c.HiddenSize),
		LayerNorm:           b.LayerNorm(c.HiddenSize, nn.LayerNormOptions{Eps: torch.Some(c.LayerNormEps)}),
		Dropout:             nn.NewDropout(c.HiddenDropoutProb),
		PositionIDs:         b.Empty(torch.Int64, 1, c.MaxPositionEmbeddings),
		TokenTypeIDs:        b.Empty(torch.Int64, 1, c.MaxPositionEmbeddings),
	}
	var opt nn.EmbeddingOptions
	if c.PadTokenID != nil {
		opt.PaddingIdx = torch.Some(*c.PadTokenID)
	}
	e.WordEmbeddings = b.Embedding(c.VocabSize, c.HiddenSize, opt)
	return e
}

// InitWeights implements pretrained.Initializer.
func (e *Embeddings) InitWeights(in *pretrained.Init) {
	in.Set(e.PositionIDs, func() { e.PositionIDs.Copy_(torch.Arange(e.PositionIDs.Size(1))) })
	in.Fill(e.TokenTypeIDs, 0)
}

// Forward embeds (B, T) ids, or takes (B, T, C) embeddings of words as they are.
func (e *Embeddings) Forward(in pretrained.Inputs) *torch.Tensor {
	x := in.InputsEmbeds
	if x == nil {
		x = e.WordEmbeddings.Forward(in.InputIDs)
	}
	t := x.Size(1)
	positions, segments := in.PositionIDs, in.TokenTypeIDs
	if positions == nil {
		positions = e.PositionIDs.Narrow(1, 0, t)
	}
	if segments == nil {
		segments = e.TokenTypeIDs.Narrow(1, 0, t)
	}
	x = x.Add(e.TokenTypeEmbeddings.Forward(segments)).Add(e.PositionEmbeddings.Forward(positions))
	return e.Dropout.Forward(e.LayerNorm.Forward(x))
}

// SelfAttention is multi-head attention without its output projection: (B, T, C) → (B, T, C).
type SelfAttention struct {
	Query   *nn.Linear  `torch:"query"` // (C, C)
	Key     *nn.Linear  `torch:"key"`   // (C, C)
	Value   *nn.Linear  `torch:"value"` // (C, C)
	Dropout *nn.Dropout `torch:"dropout"`

	config *Config
}

func newSelfAttention(b nn.Builder, c *Config) *SelfAttention {
	return &SelfAttention{
		Query:   b.Linear(c.HiddenSize, c.HiddenSize),
		Key:     b.Linear(c.HiddenSize, c.HiddenSize),
		Value:   b.Linear(c.HiddenSize, c.HiddenSize),
		Dropout: nn.NewDropout(c.AttentionProbsDropoutProb),
		config:  c,
	}
}

// Forward attends within each sequence; mask is broadcast to (B, H, T, T). weights (B, H, T, T) is nil under SDPA.
func (a *SelfAttention) Forward(x, mask *torch.Tensor) (y, weights *torch.Tensor) {
	heads := func(l *nn.Linear) *torch.Tensor { // (B, T, C) → (B, H, T, D)
		y := l.Forward(x)
		return y.View(y.Size(0), y.Size(1), a.config.NumAttentionHeads, -1).Transpose(1, 2)
	}
	return nn.AttentionWithWeights(heads(a.Query), heads(a.Key), heads(a.Value), mask, nn.AttentionOptions{
		Kind: a.config.Attn, Dropout: a.Dropout.Rate(), Causal: a.config.IsDecoder})
}

// Residual projects, adds the input and normalises: LayerNorm(W h + b + x).
type Residual struct {
	Dense     *nn.Linear    `torch:"dense"`
	LayerNorm *nn.LayerNorm `torch:"LayerNorm"`
	Dropout   *nn.Dropout   `torch:"dropout"`
}

func newResidual(b nn.Builder, c *Config, in int) *Residual {
	return &Residual{
		Dense:     b.Linear(in, c.HiddenSize),
		LayerNorm: b.LayerNorm(c.HiddenSize, nn.LayerNormOptions{Eps: torch.Some(c.LayerNormEps)}),
		Dropout:   nn.NewDropout(c.HiddenDropoutProb),
	}
}

// Forward maps h (B, T, in) and x (B, T, C) to (B, T, C).
func (r *Residual) Forward(h, x *torch.Tensor) *torch.Tensor {
	return r.LayerNorm.Forward(r.Dropout.Forward(r.Dense.Forward(h)).Add(x))
}

// Attention is self-attention with its output projection.
type Attention struct {
	Self   *SelfAttention `torch:"self"`
	Output *Residual      `torch:"output"`
}

// Intermediate is the widening half of the feed-forward network: (B, T, C) → (B, T, inner).
type Intermediate struct {
	Dense *nn.Linear `torch:"dense"`

	act nn.Activation
}

// Layer is attention and a feed-forward network.
type Layer struct {
	Attention    *Attention    `torch:"attention"`
	Intermediate *Intermediate `torch:"intermediate"`
	Output       *Residual     `torch:"output"`
}

func newLayer(b nn.Builder, c *Config) *Layer {
	return &Layer{
		Attention:    &Attention{Self: newSelfAttention(b, c), Output: newResidual(b, c, c.HiddenSize)},
		Intermediate: &Intermediate{Dense: b.Linear(c.HiddenSize, c.IntermediateSize), act: activation(c)},
		Output:       newResidual(b, c, c.IntermediateSize),
	}
}

// Forward maps (B, T, C) to (B, T, C), and gives the attention weights, see SelfAttention.
func (l *Layer) Forward(x, mask *torch.Tensor) (y, weights *torch.Tensor) {
	h, weights := l.Attention.Self.Forward(x, mask)
	x = l.Attention.Output.Forward(h, x)
	return l.Output.Forward(l.Intermediate.act(l.Intermediate.Dense.Forward(x)), x), weights
}

func activation(c *Config) nn.Activation {
	f, err := nn.ActivationByName(c.HiddenAct)
	if err != nil {
		panic(err) // Validate has checked it
	}
	return f
}

// Encoder is the stack of layers.
type Encoder struct {
	Layer []*Layer `torch:"layer"`
}

// Pooler summarises a sequence by its first token: (B, T, C) → (B, C).
type Pooler struct {
	Dense *nn.Linear `torch:"dense"` // (C, C)
}

// Forward computes tanh(W x₀ + b).
func (p *Pooler) Forward(x *torch.Tensor) *torch.Tensor {
	return p.Dense.Forward(x.Select(1, 0)).Tanh()
}

// Model is BertModel: the encoder, with a pooler on top unless a head needs none.
type Model struct {
	pretrained.PreTrainedModel

	Embeddings *Embeddings `torch:"embeddings"`
	Encoder    *Encoder    `torch:"encoder"`
	Pooler     *Pooler     `torch:"pooler"`

	config *Config
}

// NewModel builds a BertModel with its pooler.
func NewModel(b nn.Builder, c *Config) *Model { return newModel(b, c, true) }

func newModel(b nn.Builder, c *Config, pooler bool) *Model {
	m := &Model{Embeddings: newEmbeddings(b, c), Encoder: &Encoder{}, config: c}
	for range c.NumHiddenLayers {
		m.Encoder.Layer = append(m.Encoder.Layer, newLayer(b, c))
	}
	if pooler {
		m.Pooler = &Pooler{Dense: b.Linear(c.HiddenSize, c.HiddenSize)}
	}
	return m
}

// Forward maps (B, T) ids to LastHiddenState (B, T, C) and PoolerOutput (B, C).
func (m *Model) Forward(in pretrained.Inputs) *pretrained.Output { return m.Dispatch(in, m.forward) }

func (m *Model) forward(in pretrained.Inputs) *pretrained.Output {
	in.MustHaveText(m.config.MaxPositionEmbeddings)
	x := m.Block(m.Embeddings, func(given []*torch.Tensor) []*torch.Tensor {
		in := pretrained.Inputs{InputIDs: given[0], InputsEmbeds: given[1], TokenTypeIDs: given[2], PositionIDs: given[3]}
		return []*torch.Tensor{m.Embeddings.Forward(in)}
	}, in.InputIDs, in.InputsEmbeds, in.TokenTypeIDs, in.PositionIDs)[0]
	mask := pretrained.AttentionMask(in.AttentionMask, x, pretrained.MaskOptions{Kind: m.config.Attn, Causal: m.config.IsDecoder})
	rec := in.Record(m.config.Base())
	rec.HiddenState(x)
	for _, layer := range m.Encoder.Layer {
		x = rec.Block(m.Block(layer, func(in []*torch.Tensor) []*torch.Tensor {
			y, weights := layer.Forward(in[0], in[1])
			return rec.Keep(y, weights)
		}, x, mask))
	}
	out := rec.Output(x)
	if m.Pooler != nil {
		out.PoolerOutput = m.Pooler.Forward(x)
	}
	return out
}
