package llama

import (
	"github.com/torchgo/torchgo/pretrained"
	"github.com/torchgo/torchgo/torch"
	"github.com/torchgo/torchgo/torch/nn"
)

// ForCausalLM predicts the next token: Logits (B, T, V). Labels int64 (B, T), -100 where none is asked for, are
// shifted inside.
type ForCausalLM struct {
	pretrained.PreTrainedModel

	Model  *Model     `torch:"model"`
	LMHead *nn.Linear `torch:"lm_head"` // (V, C), tied to the embeddings if the config says so
}

var noBias = nn.LinearOptions{Bias: torch.Some(false)}

// NewForCausalLM builds a LlamaForCausalLM.
func NewForCausalLM(b nn.Builder, c *Config) *ForCausalLM {
	return &ForCausalLM{Model: NewModel(b, c), LMHead: b.Linear(c.HiddenSize, c.VocabSize, noBias)}
}

// Forward implements pretrained.Model.
func (m *ForCausalLM) Forward(in pretrained.Inputs) *pretrained.Output {
	return m.Dispatch(in, m.forward)
}

func (m *ForCausalLM) forward(in pretrained.Inputs) *pretrained.Output {
	out := m.Model.Forward(in)
	out.Logits = m.LMHead.Forward(in.Kept(out.TakeLastHiddenState()))
	if in.Labels != nil {
		out.Loss = pretrained.CausalLMLoss(out.Logits, in.Labels, in.Loss())
	}
	return out
}

// ForSequenceClassification classifies or scores a sequence by its last token that isn't padding: Logits (B, labels).
// Several sequences need a pad_token_id in the config. The loss follows its problem_type, see pretrained.SequenceLoss.
type ForSequenceClassification struct {
	pretrained.PreTrainedModel

	Model *Model     `torch:"model"`
	Score *nn.Linear `torch:"score"` // (labels, C)

	config *Config
}

// NewForSequenceClassification builds a LlamaForSequenceClassification.
func NewForSequenceClassification(b nn.Builder, c *Config) *ForSequenceClassification {
	return &ForSequenceClassification{Model: NewModel(b, c), Score: b.Linear(c.HiddenSize, c.NumLabels(), noBias), config: c}
}

// Forward implements pretrained.Model.
func (m *ForSequenceClassification) Forward(in pretrained.Inputs) *pretrained.Output {
	return m.Dispatch(in, m.forward)
}

func (m *ForSequenceClassification) forward(in pretrained.Inputs) *pretrained.Output {
	out := m.Model.Forward(in)
	out.Logits = pretrained.LastToken(in, m.Score.Forward(out.TakeLastHiddenState()), m.config.PadTokenID)
	if in.Labels != nil {
		out.Loss = pretrained.SequenceLoss(out.Logits, in.Labels, m.config.ProblemType)
	}
	return out
}

// ForTokenClassification labels each token: Logits (B, T, labels). Labels int64 (B, T), -100: none.
type ForTokenClassification struct {
	pretrained.PreTrainedModel

	Model   *Model      `torch:"model"`
	Dropout *nn.Dropout `torch:"dropout"`
	Score   *nn.Linear  `torch:"score"` // (labels, C)
}

// NewForTokenClassification builds a LlamaForTokenClassification. Its dropout is classifier_dropout or
// hidden_dropout of the config, 0.1 without. With token_classification_bias false, the head has no bias.
func NewForTokenClassification(b nn.Builder, c *Config) *ForTokenClassification {
	p, err := c.classifierDropout()
	if err != nil {
		panic(&torch.Error{Op: "llama", Kind: torch.ErrArgument, Message: err.Error()})
	}
	bias, _ := c.Extra("token_classification_bias")
	return &ForTokenClassification{Model: NewModel(b, c), Dropout: nn.NewDropout(p),
		Score: b.Linear(c.HiddenSize, c.NumLabels(), nn.LinearOptions{Bias: torch.Some(bias != false)})}
}

// Forward implements pretrained.Model.
func (m *ForTokenClassification) Forward(in pretrained.Inputs) *pretrained.Output {
	return m.Dispatch(in, m.forward)
}

func (m *ForTokenClassification) forward(in pretrained.Inputs) *pretrained.Output {
	out := m.Model.Forward(in)
	out.Logits = m.Score.Forward(m.Dropout.Forward(out.TakeLastHiddenState()))
	if in.Labels != nil {
		out.Loss = pretrained.TokenLoss(out.Logits, in.Labels)
	}
	return out
}

// ForQuestionAnswering finds the answer's span: StartLogits and EndLogits (B, T). The loss needs
// StartPositions and EndPositions.
type ForQuestionAnswering struct {
	pretrained.PreTrainedModel

	Transformer *Model     `torch:"transformer"`
	QAOutputs   *nn.Linear `torch:"qa_outputs"` // (2, C)
}

// NewForQuestionAnswering builds a LlamaForQuestionAnswering.
func NewForQuestionAnswering(b nn.Builder, c *Config) *ForQuestionAnswering {
	return &ForQuestionAnswering{Transformer: NewModel(b, c), QAOutputs: b.Linear(c.HiddenSize, 2)}
}

// Forward implements pretrained.Model.
func (m *ForQuestionAnswering) Forward(in pretrained.Inputs) *pretrained.Output {
	return m.Dispatch(in, m.forward)
}

func (m *ForQuestionAnswering) forward(in pretrained.Inputs) *pretrained.Output {
	out := m.Transformer.Forward(in)
	logits := m.QAOutputs.Forward(out.TakeLastHiddenState()) // (B, T, 2)
	out.StartLogits = logits.Select(-1, 0).Contiguous()
	out.EndLogits = logits.Select(-1, 1).Contiguous()
	if in.StartPositions != nil && in.EndPositions != nil {
		out.Loss = pretrained.SpanLoss(out.StartLogits, out.EndLogits, in.StartPositions, in.EndPositions, in.Loss())
	}
	return out
}

func init() {
	pretrained.Register(pretrained.Architecture{
		ModelType: "llama",
		Prefix:    "model",
		NewConfig: func() pretrained.Config { return NewConfig() },

		InputEmbeddings: "embed_tokens",
		NoSplit:         []any{(*DecoderLayer)(nil)},
		Layers:          []any{(*DecoderLayer)(nil)},
		Classes: []pretrained.Class{
			{Name: "LlamaModel", New: pretrained.Build(NewModel),
				Auto: []*pretrained.AutoClass{pretrained.AutoModel}},
			{Name: "LlamaForCausalLM", New: pretrained.Build(NewForCausalLM), OutputEmbeddings: "lm_head", Generates: true,
				Ties: map[string]string{"lm_head.weight": "model.embed_tokens.weight"},
				Auto: []*pretrained.AutoClass{pretrained.AutoModelForCausalLM}},
			{Name: "LlamaForSequenceClassification", New: pretrained.Build(NewForSequenceClassification),
				Auto: []*pretrained.AutoClass{pretrained.AutoModelForSequenceClassification}},
			{Name: "LlamaForTokenClassification", New: pretrained.Build(NewForTokenClassification),
				Auto: []*pretrained.AutoClass{pretrained.AutoModelForTokenClassification}},
			{Name: "LlamaForQuestionAnswering", New: pretrained.Build(NewForQuestionAnswering), Prefix: "transformer",
				Auto: []*pretrained.AutoClass{pretrained.AutoModelForQuestionAnswering}},
		},
		GGUF: pretrained.GGUFDecoder(pretrained.GGUF{
			Architectures: []string{"llama"},
			Class:         "LlamaForCausalLM",
			Optional:      map[string]string{"rope.dimension_count": "head_dim"}, // whole heads are turned
			Converters: []pretrained.Converter{ // the pairs that are turned lie side by side in the file
				{Sources: []string{"self_attn.q_proj"}, Targets: []string{"self_attn.q_proj"}, Ops: []pretrained.Op{pretrained.PermuteForRope{}}},
				{Sources: []string{"self_attn.k_proj"}, Targets: []string{"self_attn.k_proj"}, Ops: []pretrained.Op{pretrained.PermuteForRope{Heads: "num_key_value_heads"}}},
			},
			Unused: []string{"rope_freqs", "blk.*.attn_rot_embd"},
		}),
	})
}
