package peft

import (
	"fmt"
	"maps"
	"slices"

	"github.com/torchgo/torchgo/internal/fileerr"
	"github.com/torchgo/torchgo/torch"
	"github.com/torchgo/torchgo/torch/nn"
)

// factors are the tensors of a layer's adapters under peft's names, and what else a layer knows of them. The rest
// of the fields is replaced, never changed: a copy of a layer (nn.Clone) shares it.
type factors struct {
	A         *nn.ModuleDict    `torch:"lora_A"`                // *factor: (r, in), of a convolution (r, in, K…)
	B         *nn.ModuleDict    `torch:"lora_B"`                // *factor: (out, r), of a convolution (out, r/groups, 1…)
	EmbedA    *nn.ParameterDict `torch:"lora_embedding_A"`      // (r, rows)
	EmbedB    *nn.ParameterDict `torch:"lora_embedding_B"`      // (dim, r)
	Magnitude *nn.ParameterDict `torch:"lora_magnitude_vector"` // (out), of a convolution (1, out, 1…)
	IA3       *nn.ParameterDict `torch:"ia3_l"`                 // (out, 1) or (1, in), of a convolution (1, out, 1…) or (1, in, 1…)

	Weight *torch.Tensor `torch:"unmerged_weight,late"` // the layer's own while adapters are merged; nil: none is
	Bias   *torch.Tensor `torch:"unmerged_bias,late"`

	settings map[string]*setting // by adapter
	on       []*setting          // those that take part in the forward pass
	merged   []string            // adapters
}

// factor is A or B of one adapter.
type factor struct {
	W    *torch.Tensor `torch:"weight"`
	Bias *torch.Tensor `torch:"bias"` // (out), of B with lora_bias; nil: none
}

// setting is what one adapter's config says about one layer.
type setting struct {
	name        string
	r           int     // of the adapter; its tensors may have room for more
	scaling     float64 // alpha/r or alpha/√r
	dropout     float64
	dora        bool
	feedforward bool // IA³: the input is scaled
}

func newFactors(training bool) factors {
	f := factors{A: nn.NewModuleDict(), B: nn.NewModuleDict(), EmbedA: nn.NewParameterDict(), EmbedB: nn.NewParameterDict(),
		Magnitude: nn.NewParameterDict(), IA3: nn.NewParameterDict()}
	f.A.SetTraining(training)
	f.B.SetTraining(training)
	return f
}

func (f *factors) of() *factors { return f }

func (f *factors) a(s *setting) *factor { return f.A.Get(s.name).(*factor) }
func (f *factors) b(s *setting) *factor { return f.B.Get(s.name).(*factor) }

// dropped is an input to A as dropout leaves it in training.
func (f *factors) dropped(s *setting, x *torch.Tensor) *torch.Tensor {
	if s.dropout == 0 || !f.A.Training() {
		return x
	}
	return torch.Dropout(x, s.dropout, true)
}

// add takes a setting in.
func (f *factors) add(s *setting) {
	f.settings = maps.Clone(f.settings)
	if f.settings == nil {
		f.settings = map[string]*setting{}
	}
	f.settings[s.name] = s
	f.on = slices.Clone(f.on)
	for i, old := range f.on {
		if old.name == s.name {
			f.on[i] = s
		}
	}
}

// remove drops an adapter, with its tensors.
func (f *factors) remove(name string) {
	for _, t := range f.tensors(name) {
		t.tensor.Close()
	}
	f.A.Delete(name)
	f.B.Delete(name)
	for _, d := range []*nn.ParameterDict{f.EmbedA, f.EmbedB, f.Magnitude, f.IA3} {
		d.Delete(name)
	}
	f.settings = maps.Clone(f.settings)
	delete(f.settings, name)
	f.on = slices.DeleteFunc(slices.Clone(f.on), func(s *setting) bool { return s.name == name })
}

// activate says which adapters take part.
func (f *factors) activate(names []string) {
	f.on = nil
	for _, name := range names {
		if s := f.settings[name]; s != nil {
			f.on = append(f.on, s)
		}
	}
}

// part is a tensor of one adapter in one layer.
type part struct {
	name   string // in a file, below the layer: lora_A.weight
	tensor *torch.Tensor
	rank   int // the dimension that is the rank; -1: none is
}

// tensors are those of an adapter, in the order of peft's files.
func (f *factors) tensors(name string) (parts []part) {
	for _, d := range []struct {
		what string
		dict *nn.ModuleDict
		rank int
	}{{"lora_A", f.A, 0}, {"lora_B", f.B, 1}} {
		if m, ok := d.dict.Get(name).(*factor); ok {
			parts = append(parts, part{d.what + ".weight", m.W, d.rank})
			if m.Bias != nil {
				parts = append(parts, part{d.what + ".bias", m.Bias, -1})
			}
		}
	}
	for _, d := range []struct {
		what string
		dict *nn.ParameterDict
		rank int
	}{{"lora_embedding_A", f.EmbedA, 0}, {"lora_embedding_B", f.EmbedB, 1}, {"lora_magnitude_vector", f.Magnitude, -1}, {"ia3_l", f.IA3, -1}} {
		if t := d.dict.Get(name); t != nil {
			parts = append(parts, part{d.what, t, d.rank})
		}
	}
	return parts
}

// layer is the weight of a module with adapters over it.
type layer interface {
	of() *factors
	base() any // the weight that was there

	// shapes are those of A and B.
	shapes(r int) (a, b []int)
	// product is B·A in the form of the weight.
	product(a, b *torch.Tensor) *torch.Tensor
	// norm is the norm of each output's weights, in the form of Magnitude.
	norm(w *torch.Tensor) *torch.Tensor
	// perOutput has one value an output, in the form of Magnitude or IA3, multiply a weight.
	perOutput(v *torch.Tensor) *torch.Tensor
	// perInput likewise has one of each input.
	perInput(v *torch.Tensor) *torch.Tensor
	// ia3Shape is that of ia3_l.
	ia3Shape(feedforward bool) []int
}

// site is where a module keeps its weight.
type site struct {
	module any
	weight any // nn.LinearWeight, nn.EmbeddingWeight or nn.ConvWeight
	bias   *torch.Tensor
}

// siteOf is that of a module that adapters know.
func siteOf(module any) (site, bool) {
	switch m := module.(type) {
	case *nn.Linear:
		return site{m, m.Weight, m.Bias}, m.Weight != nil
	case *nn.Embedding:
		return site{m, m.Weight, nil}, m.Weight != nil
	}
	if c := convOf(module); c != nil {
		return site{module, c.Weight, c.Bias}, c.Weight != nil
	}
	return site{}, false
}

func convOf(module any) *nn.Conv {
	switch m := module.(type) {
	case *nn.Conv1d:
		return &m.Conv
	case *nn.Conv2d:
		return &m.Conv
	case *nn.Conv3d:
		return &m.Conv
	}
	return nil
}

// layer is the module's, nil without adapters.
func (s site) layer() layer {
	l, _ := s.weight.(layer)
	return l
}

// over is a layer over the module's weight, which is not in place yet.
func (s site) over(training bool) layer {
	switch m := s.module.(type) {
	case *nn.Linear:
		return &linear{factors: newFactors(training), Base: m.Weight}
	case *nn.Embedding:
		return &embedding{factors: newFactors(training), Base: m.Weight}
	}
	c := convOf(s.module)
	return &conv{factors: newFactors(training), Base: c.Weight, geometry: &c.Geometry}
}

// wrap puts it in place.
func (s site) wrap(l layer) {
	switch m := s.module.(type) {
	case *nn.Linear:
		m.Weight = l.(*linear)
	case *nn.Embedding:
		m.Weight = l.(*embedding)
	default:
		convOf(s.module).Weight = l.(*conv)
	}
}

// unwrap takes it off.
func (s site) unwrap() {
	switch m := s.module.(type) {
	case *nn.Linear:
		m.Weight = m.Weight.(*linear).Base
	case *nn.Embedding:
		m.Weight = m.Weight.(*embedding).Base
	default:
		c := convOf(s.module)
		c.Weight = c.Weight.(*conv).Base
	}
}

// stored is the slot of a weight that is one tensor.
func stored(weight any) (nn.Slot, bool) {
	if l, ok := weight.(layer); ok {
		weight = l.base()
	}
	switch weight.(type) {
	case *nn.Dense, *nn.Transposed, *nn.Table, *nn.Kernel:
		return nn.Slots(weight)[0], true
	}
	return nn.Slot{}, false
}

// matrix is the tensor of a weight that must be one.
func matrix(weight any) *torch.Tensor {
	s, ok := stored(weight)
	if !ok {
		panic(&torch.Error{Op: "adapter", Kind: torch.ErrNotImplemented, Message: fmt.Sprintf("a weight that is a %T is not one tensor", weight)})
	}
	return s.Tensor()
}

// run is a forward pass: the base's, with what the active adapters change.
func (f *factors) run(x *torch.Tensor, base func(x *torch.Tensor) *torch.Tensor, lora func(s *setting, x, y *torch.Tensor) *torch.Tensor) *torch.Tensor {
	if len(f.on) == 0 {
		return base(x)
	}
	if f.IA3.Get(f.on[0].name) != nil {
		return f.scaled(x, base)
	}
	y := base(x)
	dtype := y.DType()
	for _, s := range f.on {
		x = x.ToDType(f.a(s).W.DType())
		y = lora(s, x, y)
	}
	return y.ToDType(dtype)
}

// scaled is a pass with IA³.
func (f *factors) scaled(x *torch.Tensor, base func(x *torch.Tensor) *torch.Tensor) *torch.Tensor {
	var scale *torch.Tensor
	for _, s := range f.on {
		v := f.IA3.Get(s.name)
		if v.Dim() == 2 {
			v = v.Flatten()
		}
		if scale == nil {
			scale = v
		} else {
			scale = scale.Mul(v)
		}
	}
	if f.on[0].feedforward {
		return base(x.ToDType(scale.DType()).Mul(scale).ToDType(x.DType()))
	}
	y := base(x)
	return y.Mul(scale).ToDType(y.DType())
}

// magnitude is DoRA's factor m / ‖W + s·BA‖ of each output. The norm counts as a constant: no gradient flows through it
// (section 4.3 of the paper).
func (f *factors) magnitude(l layer, s *setting, dtype torch.DType) *torch.Tensor {
	norm := torch.ScopeOf(func() (n *torch.Tensor) {
		torch.NoGrad(func() {
			n = l.norm(matrix(l.base()).ToDType(dtype).Add(f.delta(l, s).ToDType(dtype))).ToDType(dtype)
		})
		return n
	})
	return f.Magnitude.Get(s.name).Div(norm)
}

// delta is s·BA in the form of the weight, in at least float32.
func (f *factors) delta(l layer, s *setting) *torch.Tensor {
	a, b := f.EmbedA.Get(s.name), f.EmbedB.Get(s.name)
	if a == nil {
		a, b = f.a(s).W, f.b(s).W
	}
	return l.product(wide(a), wide(b)).MulScalar(torch.Scalar(s.scaling))
}

// wide is t in at least float32, in which products of small matrices are exact enough and fast on every CPU.
func wide(t *torch.Tensor) *torch.Tensor {
	if d := t.DType(); d == torch.Float16 || d == torch.BFloat16 {
		return t.ToDType(torch.Float32)
	}
	return t
}

func badArgument(detail, expected, actual string) error {
	return &fileerr.Error{Class: fileerr.ErrArgument, Detail: detail, Expected: expected, Actual: actual}
}
