package pretrained

import (
	"fmt"
	"iter"
	"reflect"
	"strings"

	"github.com/torchgo/torchgo/torch"
)

// Inputs are the arguments of a forward pass under transformers' names; nil is an argument left out, for
// which the model's default holds.
type Inputs struct {
	InputIDs          *torch.Tensor `torch:"input_ids"`           // int64 (B, T)
	AttentionMask     *torch.Tensor `torch:"attention_mask"`      // (B, T), 0: padding; default: all ones
	TokenTypeIDs      *torch.Tensor `torch:"token_type_ids"`      // int64 (B, T); default: zeros
	PositionIDs       *torch.Tensor `torch:"position_ids"`        // int64 (B, T) or (1, T); default: 0, 1, …; without a mask, a causal model keeps sequences packed into a row apart
	InputsEmbeds      *torch.Tensor `torch:"inputs_embeds"`       // (B, T, C), instead of InputIDs
	Labels            *torch.Tensor `torch:"labels"`              // asks for a loss; the shape is the head's
	NextSentenceLabel *torch.Tensor `torch:"next_sentence_label"` // int64 (B)
	StartPositions    *torch.Tensor `torch:"start_positions"`     // int64 (B)
	EndPositions      *torch.Tensor `torch:"end_positions"`       // int64 (B)
	ShiftLabels       *torch.Tensor `torch:"shift_labels"`        // int64 (B, T), see LossOptions; beside Labels, of causal LMs

	NumItemsInBatch int // see LossOptions; of heads that predict tokens or spans
	LogitsToKeep    int // a causal LM computes the logits of the last positions only; 0: of all

	OutputHiddenStates bool // fill Output.HiddenStates
	OutputAttentions   bool // fill Output.Attentions; eager attention only
}

// Output is what a forward pass gives, under transformers' names; nil is what the model does not have.
type Output struct {
	Loss                  *torch.Tensor   `torch:"loss"`                    // scalar
	Logits                *torch.Tensor   `torch:"logits"`                  // (B, T, V) or (B, labels)
	PredictionLogits      *torch.Tensor   `torch:"prediction_logits"`       // (B, T, V)
	SeqRelationshipLogits *torch.Tensor   `torch:"seq_relationship_logits"` // (B, 2)
	StartLogits           *torch.Tensor   `torch:"start_logits"`            // (B, T)
	EndLogits             *torch.Tensor   `torch:"end_logits"`              // (B, T)
	LastHiddenState       *torch.Tensor   `torch:"last_hidden_state"`       // (B, T, C)
	PoolerOutput          *torch.Tensor   `torch:"pooler_output"`           // (B, C)
	HiddenStates          []*torch.Tensor `torch:"hidden_states"`           // (B, T, C): embeddings, then each layer
	Attentions            []*torch.Tensor `torch:"attentions"`              // (B, H, T, T) of each layer, after dropout
}

// fields are the tensors, to be exchanged.
func (in *Inputs) fields() []**torch.Tensor { return tensorFields(in) }

func (o *Output) fields() []**torch.Tensor { return tensorFields(o) }

func tensorFields(s any) (fields []**torch.Tensor) {
	v := reflect.ValueOf(s).Elem()
	for i := range v.NumField() {
		switch f := v.Field(i).Addr().Interface().(type) {
		case **torch.Tensor:
			fields = append(fields, f)
		case *[]*torch.Tensor:
			for i := range *f {
				fields = append(fields, &(*f)[i])
			}
		}
	}
	return fields
}

// Named yields the tensors that are there under transformers' names, hidden states as hidden_states.0, ….
func (o *Output) Named() iter.Seq2[string, *torch.Tensor] {
	return func(yield func(string, *torch.Tensor) bool) {
		v := reflect.ValueOf(o).Elem()
		for i := range v.NumField() {
			name := v.Type().Field(i).Tag.Get("torch")
			switch t := v.Field(i).Interface().(type) {
			case *torch.Tensor:
				if t != nil && !yield(name, t) {
					return
				}
			case []*torch.Tensor:
				for n, h := range t {
					if !yield(fmt.Sprintf("%s.%d", name, n), h) {
						return
					}
				}
			}
		}
	}
}

// Tensors lists the tensors that are there, which a scope that the output is returned from keeps.
func (o *Output) Tensors() []*torch.Tensor {
	var ts []*torch.Tensor
	for _, t := range o.Named() {
		ts = append(ts, t)
	}
	return ts
}

// NewInputs makes Inputs of tensors by name. A name that no model takes is an error.
func NewInputs(named map[string]*torch.Tensor) (Inputs, error) {
	var in Inputs
	v := reflect.ValueOf(&in).Elem()
	var names []string
	fields := map[string]reflect.Value{}
	for i := range v.NumField() {
		if name := v.Type().Field(i).Tag.Get("torch"); name != "" {
			fields[name] = v.Field(i)
			names = append(names, name)
		}
	}
	for name, t := range named {
		f, ok := fields[name]
		if !ok {
			return Inputs{}, &Error{Class: ErrArgument, Detail: "input", Actual: fmt.Sprintf("%q", shorten(name)),
				Expected: "one of " + strings.Join(names, ", ")}
		}
		f.Set(reflect.ValueOf(t))
	}
	return in, nil
}
