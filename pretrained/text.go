package pretrained

import (
	"fmt"

	"github.com/torchgo/torchgo/torch"
	"github.com/torchgo/torchgo/torch/nn"
)

// What text models share: checks of their inputs, masks and losses.

func badInput(format string, args ...any) {
	panic(&torch.Error{Op: "forward", Kind: torch.ErrArgument, Message: fmt.Sprintf(format, args...)})
}

// MustHaveText panics with a *torch.Error unless there is exactly one of InputIDs (B, T) and InputsEmbeds
// (B, T, C), with T up to the number of positions that the model has.
func (in *Inputs) MustHaveText(positions int) {
	x, dims := in.InputIDs, 2
	if x == nil {
		x, dims = in.InputsEmbeds, 3
	}
	switch {
	case (in.InputIDs == nil) == (in.InputsEmbeds == nil):
		badInput("exactly one of input_ids and inputs_embeds is needed")
	case x.Dim() != dims:
		badInput("expected %d dimensions, got shape %v", dims, x.Shape())
	case x.Size(1) > positions && in.PositionIDs == nil:
		badInput("a sequence of %d tokens is longer than the model's %d positions", x.Size(1), positions)
	}
}

// FlattenChoices merges the first two dimensions of inputs of shape (B, choices, …), and counts the choices.
func (in Inputs) FlattenChoices() (flat Inputs, choices int) {
	for _, t := range []**torch.Tensor{&in.InputIDs, &in.AttentionMask, &in.TokenTypeIDs, &in.PositionIDs, &in.InputsEmbeds} {
		if *t == nil {
			continue
		}
		if (*t).Dim() < 3 {
			badInput("multiple choice needs inputs of shape (batch, choices, …), got %v", (*t).Shape())
		}
		shape := (*t).Shape()
		if choices == 0 {
			choices = shape[1]
		}
		*t = (*t).Reshape(append([]int{shape[0] * shape[1]}, shape[2:]...)...)
	}
	return in, choices
}

// AttentionMask turns the mask of the inputs into the one that nn.Attention takes: boolean, true where a
// position is seen. mask is (B, T) with 0 for padding, or of four dimensions and then used as it is, or nil.
// x is (B, T, C). The result is nil where every position sees all.
func AttentionMask(mask, x *torch.Tensor, causal bool) *torch.Tensor {
	if mask != nil && mask.Dim() == 4 {
		return mask
	}
	b, t := x.Size(0), x.Size(1)
	var seen *torch.Tensor // broadcast to (B, 1, T, T)
	if mask != nil {
		if mask.Dim() != 2 || mask.Size(0) != b || mask.Size(1) != t {
			badInput("expected an attention_mask of shape [%d %d], got %v", b, t, mask.Shape())
		}
		seen = mask.ToDType(torch.Bool)
		if torch.Item[bool](seen.All()) {
			seen = nil
		} else {
			seen = seen.View(b, 1, 1, t)
		}
	}
	if causal {
		below := nn.CausalMask(t, t, x.Device()).View(1, 1, t, t)
		if seen == nil {
			return below
		}
		return seen.LogicalAnd(below)
	}
	return seen
}

// TakeLastHiddenState returns the last hidden state and removes it from the output, which a head's lacks.
func (o *Output) TakeLastHiddenState() *torch.Tensor {
	x := o.LastHiddenState
	o.LastHiddenState = nil
	return x
}

// TakePoolerOutput returns the pooler's output and removes it.
func (o *Output) TakePoolerOutput() *torch.Tensor {
	x := o.PoolerOutput
	o.PoolerOutput = nil
	return x
}

// CausalLMLoss is the cross entropy of predicting each next token: logits (B, T, V), labels int64 (B, T)
// with -100 where nothing is asked for → float32 scalar.
func CausalLMLoss(logits, labels *torch.Tensor) *torch.Tensor {
	t, v := logits.Size(1), logits.Size(2)
	shifted := logits.ToDType(torch.Float32).Narrow(1, 0, t-1).Reshape(-1, v)
	return nn.CrossEntropy(shifted, labels.Narrow(1, 1, t-1).Reshape(-1))
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
func SpanLoss(startLogits, endLogits, start, end *torch.Tensor) *torch.Tensor {
	loss := func(logits, at *torch.Tensor) *torch.Tensor {
		if at.Dim() > 1 {
			at = at.SqueezeDim(-1)
		}
		t := logits.Size(1)
		at = at.Clamp(torch.ClampOptions{Min: 0, Max: t})
		return nn.CrossEntropy(logits, at, nn.CrossEntropyOptions{IgnoreIndex: torch.Some(t)})
	}
	return loss(startLogits, start).Add(loss(endLogits, end)).DivScalar(2)
}
