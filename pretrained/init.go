package pretrained

import (
	"fmt"
	"math"

	"github.com/torchgo/torchgo/torch"
	"github.com/torchgo/torchgo/torch/nn"
	"github.com/torchgo/torchgo/torch/nn/nninit"
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

// Apply has a function of torch.nn.init by its name (TORCH_INIT_FUNCTIONS) give t its value, if it wants one.
func (in *Init) Apply(name string, t *torch.Tensor, opts nninit.Options) error {
	fn, err := nninit.ByName(name)
	if err == nil {
		in.Set(t, func() { fn(t, opts) })
	}
	return err
}

// initStd is the standard deviation of new weights: initializer_range, init_std or initializer_factor of the
// config.
func initStd(c Config) float64 {
	fields := configFields(c)
	for _, key := range []string{"initializer_range", "init_std", "initializer_factor"} {
		v, ok := c.Base().Extra(key)
		if f, known := fields[key]; known {
			v, ok = f.Interface(), true
		}
		if x, number := asFloat(v); ok && number && x != 0 {
			return math.Abs(x)
		} else if ok && key == "initializer_range" {
			break
		}
	}
	return 0.02
}

// initialise moves the tensors of m that are on the meta device to another and gives them their first values;
// not those to skip, which will be tied to others, say.
func initialise(m Model, device func(name string) torch.Device, skip map[string]string) {
	in := &Init{Std: initStd(m.Config()), fresh: map[*torch.Tensor]bool{}}
	for _, s := range nn.Slots(m) {
		if _, ok := skip[s.Name]; ok {
			continue
		}
		if old := s.Tensor(); old.Device() == torch.Meta {
			replace(s, torch.Empty(old.Shape(), torch.EmptyOptions{DType: old.DType(), Device: device(s.Name)}))
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

// initialise fills the fresh tensors of m: as its own modules say, or else by the rules for layers.
func (in *Init) initialise(m any) {
	torch.Scope(func() { torch.NoGrad(func() { in.modules(m) }) })
}

func (in *Init) modules(m any) {
	for _, module := range nn.NamedModules(m) {
		if l, ok := module.(Initializer); ok {
			l.InitWeights(in)
		} else if l, ok := module.(ParameterInitializer); ok {
			l.InitParameters(in)
		} else {
			in.layer(module)
		}
	}
}
