package pretrained

import (
	"fmt"

	"github.com/torchgo/torchgo/torch"
)

// What text models share: checks of their inputs.

func badInput(format string, args ...any) {
	panic(&torch.Error{Op: "forward", Kind: torch.ErrArgument, Message: fmt.Sprintf(format, args...)})
}

// MustHaveText panics with a *torch.Error unless there is exactly one of InputIDs (B, T) and InputsEmbeds
// (B, T, C), with T up to the number of positions that the model has (0: any).
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
	case in.PositionIDs != nil && (in.PositionIDs.Dim() != 2 || in.PositionIDs.Size(1) != x.Size(1) || in.PositionIDs.Size(0) != x.Size(0) && in.PositionIDs.Size(0) != 1):
		badInput("expected position_ids of shape [%d %d] or [1 %d], got %v", x.Size(0), x.Size(1), x.Size(1), in.PositionIDs.Shape())
	case positions > 0 && x.Size(1) > positions && in.PositionIDs == nil:
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

// Kept are the last positions of hidden states (B, T, C) that LogitsToKeep asks for.
func (in *Inputs) Kept(x *torch.Tensor) *torch.Tensor {
	if n, t := in.LogitsToKeep, x.Size(1); n > 0 && n < t {
		return x.Narrow(1, t-n, n)
	}
	return x
}

// LastToken picks from scores (B, T, N) those of each sequence's last token that isn't padding: (B, N). Padding is
// told by the id pad, which several sequences need; without ids, or without pad, the last position counts.
func LastToken(in Inputs, scores *torch.Tensor, pad *int) *torch.Tensor {
	b, t := scores.Size(0), scores.Size(1)
	if pad == nil && b != 1 {
		badInput("a batch of %d sequences needs a pad_token_id in the config", b)
	}
	if pad == nil || in.InputIDs == nil {
		return scores.Select(1, t-1)
	}
	options := torch.TensorOptions{Device: scores.Device()}
	real := in.InputIDs.To(scores.Device()).NeScalar(*pad).ToDType(torch.Int64)
	last := torch.Arange(t, options).Mul(real).Argmax(torch.ArgmaxOptions{Dim: torch.Some(-1)}) // (B)
	return scores.Index([]*torch.Tensor{torch.Arange(b, options), last})
}
