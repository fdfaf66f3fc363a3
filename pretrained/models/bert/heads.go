package bert

import (
	"fmt"

	"github.com/torchgo/torchgo/pretrained"
	"github.com/torchgo/torchgo/torch"
	"github.com/torchgo/torchgo/torch/nn"
)

// PredictionHead scores the vocabulary at each position: (B, T, C) → (B, T, V).
type PredictionHead struct {
	Bias      *torch.Tensor        `torch:"bias"` // (V), tied to the decoder's
	Transform *PredictionTransform `torch:"transform"`
	Decoder   *nn.Linear           `torch:"decoder"` // (V, C), its matrix tied to the word embeddings
}

// PredictionTransform is LayerNorm(act(W x + b)): (B, T, C) → (B, T, C).
type PredictionTransform struct {
	Dense     *nn.Linear    `torch:"dense"` // (C, C)
	LayerNorm *nn.LayerNorm `torch:"LayerNorm"`

	act nn.Activation
}

func newPredictionHead(b nn.Builder, c *Config) *PredictionHead {
	return &PredictionHead{
		Bias: b.Parameter(c.VocabSize),
		Transform: &PredictionTransform{Dense: b.Linear(c.HiddenSize, c.HiddenSize),
			LayerNorm: b.LayerNorm(c.HiddenSize, nn.LayerNormOptions{Eps: torch.Some(c.LayerNormEps)}), act: activation(c)},
		Decoder: b.Linear(c.HiddenSize, c.VocabSize),
	}
}

// InitWeights implements pretrained.Initializer.
func (h *PredictionHead) InitWeights(in *pretrained.Init) { in.Fill(h.Bias, 0) }

// Forward maps (B, T, C) to (B, T, V).
func (h *PredictionHead) Forward(x *torch.Tensor) *torch.Tensor {
	x = h.Transform.LayerNorm.Forward(h.Transform.act(h.Transform.Dense.Forward(x)))
	return h.Decoder.Forward(x)
}

// Heads is what the checkpoint keeps under "cls"; a class has one of the two or both.
type Heads struct {
	Predictions     *PredictionHead `torch:"predictions"`
	SeqRelationship *nn.Linear      `torch:"seq_relationship"` // (2, C)
}

// headTies are the shared tensors of classes with a PredictionHead.
var headTies = map[string]string{
	"cls.predictions.decoder.weight": "bert.embeddings.word_embeddings.weight",
	"cls.predictions.decoder.bias":   "cls.predictions.bias",
}

// ForMaskedLM predicts masked tokens: Logits (B, T, V). Labels int64 (B, T), -100 where none is asked for.
type ForMaskedLM struct {
	pretrained.PreTrainedModel

	Bert *Model `torch:"bert"`
	Cls  *Heads `torch:"cls"`
}

// NewForMaskedLM builds a BertForMaskedLM.
func NewForMaskedLM(b nn.Builder, c *Config) *ForMaskedLM {
	return &ForMaskedLM{Bert: newModel(b, c, false), Cls: &Heads{Predictions: newPredictionHead(b, c)}}
}

// Forward implements pretrained.Model.
func (m *ForMaskedLM) Forward(in pretrained.Inputs) *pretrained.Output {
	return m.Dispatch(in, m.forward)
}

func (m *ForMaskedLM) forward(in pretrained.Inputs) *pretrained.Output {
	out := m.Bert.Forward(in)
	out.Logits = m.Cls.Predictions.Forward(out.TakeLastHiddenState())
	if in.Labels != nil {
		out.Loss = tokenLoss(out.Logits, in.Labels)
	}
	return out
}

// LMHeadModel predicts the next token: Logits (B, T, V). Labels int64 (B, T) are shifted inside.
type LMHeadModel struct {
	pretrained.PreTrainedModel

	Bert *Model `torch:"bert"`
	Cls  *Heads `torch:"cls"`
}

// NewLMHeadModel builds a BertLMHeadModel; it is causal where config's is_decoder is true.
func NewLMHeadModel(b nn.Builder, c *Config) *LMHeadModel {
	return &LMHeadModel{Bert: newModel(b, c, false), Cls: &Heads{Predictions: newPredictionHead(b, c)}}
}

// Forward implements pretrained.Model.
func (m *LMHeadModel) Forward(in pretrained.Inputs) *pretrained.Output {
	return m.Dispatch(in, m.forward)
}

func (m *LMHeadModel) forward(in pretrained.Inputs) *pretrained.Output {
	out := m.Bert.Forward(in)
	out.Logits = m.Cls.Predictions.Forward(out.TakeLastHiddenState())
	if in.Labels != nil {
		out.Loss = pretrained.CausalLMLoss(out.Logits, in.Labels, in.Loss())
	}
	return out
}

// ForPreTraining has both heads of the pretraining: PredictionLogits (B, T, V) and SeqRelationshipLogits
// (B, 2). The loss is the sum of both and needs Labels and NextSentenceLabel.
type ForPreTraining struct {
	pretrained.PreTrainedModel

	Bert *Model `torch:"bert"`
	Cls  *Heads `torch:"cls"`
}

// NewForPreTraining builds a BertForPreTraining.
func NewForPreTraining(b nn.Builder, c *Config) *ForPreTraining {
	return &ForPreTraining{Bert: NewModel(b, c),
		Cls: &Heads{Predictions: newPredictionHead(b, c), SeqRelationship: b.Linear(c.HiddenSize, 2)}}
}

// Forward implements pretrained.Model.
func (m *ForPreTraining) Forward(in pretrained.Inputs) *pretrained.Output {
	return m.Dispatch(in, m.forward)
}

func (m *ForPreTraining) forward(in pretrained.Inputs) *pretrained.Output {
	out := m.Bert.Forward(in)
	out.PredictionLogits = m.Cls.Predictions.Forward(out.TakeLastHiddenState())
	out.SeqRelationshipLogits = m.Cls.SeqRelationship.Forward(out.TakePoolerOutput())
	if in.Labels != nil && in.NextSentenceLabel != nil {
		out.Loss = tokenLoss(out.PredictionLogits, in.Labels).
			Add(tokenLoss(out.SeqRelationshipLogits, in.NextSentenceLabel))
	}
	return out
}

// ForNextSentencePrediction tells whether the second segment follows the first: Logits (B, 2), 0: it does.
// Labels int64 (B).
type ForNextSentencePrediction struct {
	pretrained.PreTrainedModel

	Bert *Model `torch:"bert"`
	Cls  *Heads `torch:"cls"`
}

// NewForNextSentencePrediction builds a BertForNextSentencePrediction.
func NewForNextSentencePrediction(b nn.Builder, c *Config) *ForNextSentencePrediction {
	return &ForNextSentencePrediction{Bert: NewModel(b, c), Cls: &Heads{SeqRelationship: b.Linear(c.HiddenSize, 2)}}
}

// Forward implements pretrained.Model.
func (m *ForNextSentencePrediction) Forward(in pretrained.Inputs) *pretrained.Output {
	return m.Dispatch(in, m.forward)
}

func (m *ForNextSentencePrediction) forward(in pretrained.Inputs) *pretrained.Output {
	out := m.Bert.Forward(in)
	out.TakeLastHiddenState()
	out.Logits = m.Cls.SeqRelationship.Forward(out.TakePoolerOutput())
	if in.Labels != nil {
		out.Loss = tokenLoss(out.Logits, in.Labels)
	}
	return out
}

// ForSequenceClassification classifies or scores whole sequences: Logits (B, labels). The loss follows
// config's problem_type, see pretrained.SequenceLoss.
type ForSequenceClassification struct {
	pretrained.PreTrainedModel

	Bert       *Model      `torch:"bert"`
	Dropout    *nn.Dropout `torch:"dropout"`
	Classifier *nn.Linear  `torch:"classifier"` // (labels, C)

	config *Config
}

// NewForSequenceClassification builds a BertForSequenceClassification.
func NewForSequenceClassification(b nn.Builder, c *Config) *ForSequenceClassification {
	return &ForSequenceClassification{Bert: NewModel(b, c), Dropout: nn.NewDropout(c.classifierDropout()),
		Classifier: b.Linear(c.HiddenSize, c.NumLabels()), config: c}
}

// Forward implements pretrained.Model.
func (m *ForSequenceClassification) Forward(in pretrained.Inputs) *pretrained.Output {
	return m.Dispatch(in, m.forward)
}

func (m *ForSequenceClassification) forward(in pretrained.Inputs) *pretrained.Output {
	out := m.Bert.Forward(in)
	out.TakeLastHiddenState()
	out.Logits = m.Classifier.Forward(m.Dropout.Forward(out.TakePoolerOutput()))
	if in.Labels != nil {
		out.Loss = pretrained.SequenceLoss(out.Logits, in.Labels, m.config.ProblemType)
	}
	return out
}

// ForMultipleChoice scores choices: inputs are (B, choices, T), Logits (B, choices). Labels int64 (B).
type ForMultipleChoice struct {
	pretrained.PreTrainedModel

	Bert       *Model      `torch:"bert"`
	Dropout    *nn.Dropout `torch:"dropout"`
	Classifier *nn.Linear  `torch:"classifier"` // (1, C)
}

// NewForMultipleChoice builds a BertForMultipleChoice.
func NewForMultipleChoice(b nn.Builder, c *Config) *ForMultipleChoice {
	return &ForMultipleChoice{Bert: NewModel(b, c), Dropout: nn.NewDropout(c.classifierDropout()),
		Classifier: b.Linear(c.HiddenSize, 1)}
}

// Forward implements pretrained.Model.
func (m *ForMultipleChoice) Forward(in pretrained.Inputs) *pretrained.Output {
	return m.Dispatch(in, m.forward)
}

func (m *ForMultipleChoice) forward(in pretrained.Inputs) *pretrained.Output {
	flat, choices := in.FlattenChoices()
	out := m.Bert.Forward(flat)
	out.TakeLastHiddenState()
	out.Logits = m.Classifier.Forward(m.Dropout.Forward(out.TakePoolerOutput())).View(-1, choices)
	if in.Labels != nil {
		out.Loss = nn.CrossEntropy(out.Logits, in.Labels)
	}
	return out
}

// ForTokenClassification labels each token: Logits (B, T, labels). Labels int64 (B, T), -100: none.
type ForTokenClassification struct {
	pretrained.PreTrainedModel

	Bert       *Model      `torch:"bert"`
	Dropout    *nn.Dropout `torch:"dropout"`
	Classifier *nn.Linear  `torch:"classifier"` // (labels, C)
}

// NewForTokenClassification builds a BertForTokenClassification.
func NewForTokenClassification(b nn.Builder, c *Config) *ForTokenClassification {
	return &ForTokenClassification{Bert: newModel(b, c, false), Dropout: nn.NewDropout(c.classifierDropout()),
		Classifier: b.Linear(c.HiddenSize, c.NumLabels())}
}

// Forward implements pretrained.Model.
func (m *ForTokenClassification) Forward(in pretrained.Inputs) *pretrained.Output {
	return m.Dispatch(in, m.forward)
}

func (m *ForTokenClassification) forward(in pretrained.Inputs) *pretrained.Output {
	out := m.Bert.Forward(in)
	out.Logits = m.Classifier.Forward(m.Dropout.Forward(out.TakeLastHiddenState()))
	if in.Labels != nil {
		out.Loss = tokenLoss(out.Logits, in.Labels)
	}
	return out
}

// ForQuestionAnswering finds the answer's span: StartLogits and EndLogits (B, T). The loss needs
// StartPositions and EndPositions.
type ForQuestionAnswering struct {
	pretrained.PreTrainedModel

	Bert      *Model     `torch:"bert"`
	QAOutputs *nn.Linear `torch:"qa_outputs"` // (2, C)
}

// NewForQuestionAnswering builds a BertForQuestionAnswering. It panics with a *torch.Error unless the
// config has two labels, start and end.
func NewForQuestionAnswering(b nn.Builder, c *Config) *ForQuestionAnswering {
	if c.NumLabels() != 2 {
		panic(&torch.Error{Kind: torch.ErrArgument, Message: fmt.Sprintf("num_labels: expected 2, got %d", c.NumLabels())})
	}
	return &ForQuestionAnswering{Bert: newModel(b, c, false), QAOutputs: b.Linear(c.HiddenSize, c.NumLabels())}
}

// Forward implements pretrained.Model.
func (m *ForQuestionAnswering) Forward(in pretrained.Inputs) *pretrained.Output {
	return m.Dispatch(in, m.forward)
}

func (m *ForQuestionAnswering) forward(in pretrained.Inputs) *pretrained.Output {
	out := m.Bert.Forward(in)
	logits := m.QAOutputs.Forward(out.TakeLastHiddenState()) // (B, T, 2)
	out.StartLogits = logits.Select(-1, 0).Contiguous()
	out.EndLogits = logits.Select(-1, 1).Contiguous()
	if in.StartPositions != nil && in.EndPositions != nil {
		out.Loss = pretrained.SpanLoss(out.StartLogits, out.EndLogits, in.StartPositions, in.EndPositions)
	}
	return out
}

// tokenLoss is the cross entropy of logits (…, N) and labels (…).
func tokenLoss(logits, labels *torch.Tensor) *torch.Tensor {
	return nn.CrossEntropy(logits.View(-1, logits.Size(-1)), labels.Reshape(-1))
}

func init() {
	pretrained.Register(pretrained.Architecture{
		ModelType: "bert",
		Prefix:    "bert",
		NewConfig: func() pretrained.Config { return NewConfig() },

		InputEmbeddings: "embeddings.word_embeddings",
		NoSplit:         []any{(*Embeddings)(nil), (*Layer)(nil)},
		Layers:          []any{(*Layer)(nil)},
		Classes: []pretrained.Class{
			{Name: "BertModel", New: pretrained.Build(NewModel),
				Auto: []*pretrained.AutoClass{pretrained.AutoModel, pretrained.AutoModelForTextEncoding}},
			{Name: "BertForPreTraining", New: pretrained.Build(NewForPreTraining), Ties: headTies, OutputEmbeddings: "cls.predictions.decoder",
				Auto: []*pretrained.AutoClass{pretrained.AutoModelForPreTraining}},
			{Name: "BertLMHeadModel", New: pretrained.Build(NewLMHeadModel), Ties: headTies, OutputEmbeddings: "cls.predictions.decoder", Generates: true,
				Auto: []*pretrained.AutoClass{pretrained.AutoModelForCausalLM}},
			{Name: "BertForMaskedLM", New: pretrained.Build(NewForMaskedLM), Ties: headTies, OutputEmbeddings: "cls.predictions.decoder",
				Auto: []*pretrained.AutoClass{pretrained.AutoModelForMaskedLM}},
			{Name: "BertForNextSentencePrediction", New: pretrained.Build(NewForNextSentencePrediction),
				Auto: []*pretrained.AutoClass{pretrained.AutoModelForNextSentencePrediction}},
			{Name: "BertForSequenceClassification", New: pretrained.Build(NewForSequenceClassification),
				Auto: []*pretrained.AutoClass{pretrained.AutoModelForSequenceClassification}},
			{Name: "BertForMultipleChoice", New: pretrained.Build(NewForMultipleChoice),
				Auto: []*pretrained.AutoClass{pretrained.AutoModelForMultipleChoice}},
			{Name: "BertForTokenClassification", New: pretrained.Build(NewForTokenClassification),
				Auto: []*pretrained.AutoClass{pretrained.AutoModelForTokenClassification}},
			{Name: "BertForQuestionAnswering", New: pretrained.Build(NewForQuestionAnswering),
				Auto: []*pretrained.AutoClass{pretrained.AutoModelForQuestionAnswering}},
		},
	})
}
