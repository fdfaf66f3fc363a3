package pretrained

import (
	"github.com/torchgo/torchgo/torch"
	"github.com/torchgo/torchgo/torch/nn"
)

// The losses are those of transformers' LOSS_MAPPING, by the name of the head: ForCausalLM, ForMaskedLM,
// ForSequenceClassification, ForTokenClassification and ForQuestionAnswering. Token losses are computed in
// float32, whatever the dtype of the logits.

// LossOptions are the optional arguments of the losses.
type LossOptions struct {
	// NumItemsInBatch divides the sum of the losses, instead of the number of labels that count here: the number
	// of labels of a whole batch that is gone through in parts, so that their losses add up to its mean.
	NumItemsInBatch int

	// ShiftLabels (B, T) are labels of CausalLMLoss that are shifted already: what the position predicts.
	ShiftLabels *torch.Tensor
}

// Loss are the options of the loss that the inputs ask for.
func (in *Inputs) Loss() LossOptions {
	return LossOptions{NumItemsInBatch: in.NumItemsInBatch, ShiftLabels: in.ShiftLabels}
}

// crossEntropy is the mean over the labels that count, or their sum divided by the caller's number.
func crossEntropy(logits, labels *torch.Tensor, ignore int, opts []LossOptions) *torch.Tensor {
	o := nn.CrossEntropyOptions{IgnoreIndex: torch.Some(ignore)}
	labels = labels.To(logits.Device())
	if len(opts) == 0 || opts[0].NumItemsInBatch == 0 {
		return nn.CrossEntropy(logits, labels, o)
	}
	o.Reduction = nn.ReductionSum
	return nn.CrossEntropy(logits, labels, o).DivScalar(opts[0].NumItemsInBatch)
}

// ignoredLabel marks positions of which nothing is asked.
const ignoredLabel = -100

// CausalLMLoss is the cross entropy of predicting each next token: logits (B, T, V), labels int64 (B, T)
// with -100 where nothing is asked for → float32 scalar.
func CausalLMLoss(logits, labels *torch.Tensor, opts ...LossOptions) *torch.Tensor {
	if len(opts) > 0 && opts[0].ShiftLabels != nil {
		return MaskedLMLoss(logits, opts[0].ShiftLabels, opts...)
	}
	// Labels move, not logits, of which this would be a copy.
	next := torch.Cat([]*torch.Tensor{labels.Narrow(1, 1, labels.Size(1)-1),
		torch.FullLike(labels.Narrow(1, 0, 1), ignoredLabel)}, torch.CatOptions{Dim: 1})
	return MaskedLMLoss(logits, next, opts...)
}

// MaskedLMLoss is the cross entropy of logits (…, V) and labels int64 (…), -100 where nothing is asked for
// → float32 scalar.
func MaskedLMLoss(logits, labels *torch.Tensor, opts ...LossOptions) *torch.Tensor {
	v := logits.Size(-1)
	return crossEntropy(logits.ToDType(torch.Float32).Reshape(-1, v), labels.Reshape(-1), ignoredLabel, opts)
}

// TokenLoss is MaskedLMLoss for the labels of tokens: logits (B, T, N), labels int64 (B, T).
func TokenLoss(logits, labels *torch.Tensor, opts ...LossOptions) *torch.Tensor {
	return MaskedLMLoss(logits, labels, opts...)
}

// The problem types of a sequence classifier (problem_type of config.json).
const (
	Regression                = "regression"
	SingleLabelClassification = "single_label_classification"
	MultiLabelClassification  = "multi_label_classification"
)

// SequenceLoss is the loss of logits (B, N) by problem type: squared error, cross entropy with labels
// int64 (B), or binary cross entropy with labels (B, N). An empty type is chosen as transformers does:
// regression for one label, else by whether the labels are integers.
func SequenceLoss(logits, labels *torch.Tensor, problem string) *torch.Tensor {
	n := logits.Size(-1)
	labels = labels.To(logits.Device())
	if problem == "" {
		switch labels.DType() {
		case torch.Int32, torch.Int64:
			problem = SingleLabelClassification
		default:
			problem = MultiLabelClassification
		}
		if n == 1 {
			problem = Regression
		}
	}
	switch {
	case problem == Regression && n == 1:
		return nn.MSE(logits.Squeeze(), labels.Squeeze())
	case problem == Regression:
		return nn.MSE(logits, labels)
	case problem == MultiLabelClassification:
		return nn.BCEWithLogits(logits, labels)
	}
	return nn.CrossEntropy(logits.View(-1, n), labels.Reshape(-1))
}

// SpanLoss is the mean cross entropy of start and end: logits (B, T), positions int64 (B) or (B, 1); a
// position outside the sequence does not count.
func SpanLoss(startLogits, endLogits, start, end *torch.Tensor, opts ...LossOptions) *torch.Tensor {
	loss := func(logits, at *torch.Tensor) *torch.Tensor {
		if at.Dim() > 1 {
			at = at.SqueezeDim(-1)
		}
		t := logits.Size(1)
		return crossEntropy(logits, at.Clamp(torch.ClampOptions{Min: 0, Max: t}), t, opts)
	}
	return loss(startLogits, start).Add(loss(endLogits, end)).DivScalar(2)
}
