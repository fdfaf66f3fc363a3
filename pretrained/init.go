package pretrained

import (
	"fmt"
	"math"

	"github.com/torchgo/torchgo/torch"
	"github.com/torchgo/torchgo/torch/nn"
)

// Init gives the tensors of a model that the checkpoint lacks their first values. Its methods pass over
// tensors that have theirs, so that a rule can be written for a whole module.
type Init struct {
	Std float64 // initializer_range of the config

	fresh map[*torch.Tensor]bool
}

// Initializer is a module with parameters or buffers of its own whose first values no general rule gives:
// transformers' _init_weights of one model. Buffers that are not saved must be filled here.
type Initializer interface {
	InitWeights(*Init)
}

// ParameterInitializer is a Model that has parameters or buffers of its own, beside its modules'.
type ParameterInitializer interface {
	InitParameters(*Init)
}

// Fresh reports whether t wants a value.
func (in *Init) Fresh(t *torch.Tensor) bool { return t != nil && in.fresh[t] }

// Set has fill give t its value, if it wants one.
func (in *Init) Set(t *torch.Tensor, fill func()) {
	if in.Fresh(t) {
		fill()
		delete(in.fresh, t)
	}
}

// Normal draws t from N(0, Std²).
func (in *Init) Normal(t *torch.Tensor) {
	in.Set(t, func() { t.Normal_(torch.NormalInPlaceOptions{Std: torch.Some(in.Std)}) })
}

// Fill sets all of t to one value.
func (in *Init) Fill(t *torch.Tensor, value float64) {
	in.Set(t, func() { t.Fill_(value) })
}

// initStd is the standard deviation of new weights.
func initStd(c Config) float64 {
	if f, ok := configFields(c)["initializer_range"]; ok && f.Float() != 0 {
		return math.Abs(f.Float())
	}
	return 0.02
}

// initialise moves the tensors of m that are on the meta device to another and gives them their first values;
// not those that will be tied to others.
func initialise(m Model, device torch.Device, ties map[string]string) {
	in := &Init{Std: initStd(m.Config()), fresh: map[*torch.Tensor]bool{}}
	for _, s := range nn.Slots(m) {
		if _, tied := ties[s.Name]; tied {
			continue // takes its source's
		}
		if old := s.Tensor(); old.Device() == torch.Meta {
			replace(s, torch.Empty(old.Shape(), torch.EmptyOptions{DType: old.DType(), Device: device}))
			in.fresh[s.Tensor()] = true
		}
	}
	in.initialise(m)
	for _, s := range nn.Slots(m) {
		if in.Fresh(s.Tensor()) {
			panic(&torch.Error{Op: "init", Kind: torch.ErrArgument, Message: fmt.Sprintf("%s has no rule for the first value of %s", m.Class(), s.Name)})
		}
	}
}

// initialise fills the fresh tensors of m: matrices of linear layers and embeddings from N(0, Std²), biases
// with zeros, norms with one and zero, then whatever the model's own modules say.
func (in *Init) initialise(m any) {
	torch.Scope(func() { torch.NoGrad(func() { in.modules(m) }) })
}

func (in *Init) modules(m any) {
	for _, module := range nn.NamedModules(m) {
		switch l := module.(type) {
		case *nn.Linear:
			for _, s := range nn.Slots(l.Weight) {
				in.Normal(s.Tensor())
			}
			in.Fill(l.Bias, 0)
		case *nn.Embedding:
			for _, s := range nn.Slots(l.Weight) {
				t := s.Tensor()
				in.Set(t, func() {
					t.Normal_(torch.NormalInPlaceOptions{Std: torch.Some(in.Std)})
					if l.PaddingIdx >= 0 {
						t.Select(0, l.PaddingIdx).Zero_()
					}
				})
			}
		case *nn.LayerNorm:
			in.Fill(l.Weight, 1)
			in.Fill(l.Bias, 0)
		case Initializer:
			l.InitWeights(in)
		case ParameterInitializer:
			l.InitParameters(in)
		}
	}
}
