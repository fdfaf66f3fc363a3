package nn

import (
	"fmt"
	"reflect"
	"slices"
	"strconv"

	"github.com/torchgo/torchgo/torch"
)

// Sequential chains layers; they are its children 0, 1, ….
type Sequential struct {
	Hooks
	Mode

	Layers []Layer `torch:",inline"`
}

// NewSequential chains layers.
func NewSequential(layers ...Layer) *Sequential { return &Sequential{Layers: layers} }

// Append adds layers at the end.
func (s *Sequential) Append(layers ...Layer) { s.Layers = append(s.Layers, layers...) }

// Forward gives x to the first layer, and what each makes to the next.
func (s *Sequential) Forward(x *torch.Tensor) *torch.Tensor { return s.Call(x, s.forward) }

func (s *Sequential) forward(x *torch.Tensor) *torch.Tensor {
	for _, l := range s.Layers {
		x = l.Forward(x)
	}
	return x
}

// ModuleList holds modules as its children 0, 1, …. A plain slice with a tag does the same inside a struct; this
// is for where a module is asked for.
type ModuleList struct {
	Hooks
	Mode

	Modules []any `torch:",inline"`
}

// NewModuleList makes a list.
func NewModuleList(modules ...any) *ModuleList { return &ModuleList{Modules: modules} }

// ordered is a map that keeps the order of insertion.
type ordered[V any] struct {
	keys   []string
	values []V
}

func (o *ordered[V]) at(key string) int { return slices.Index(o.keys, key) }

// Len is the number of entries.
func (o *ordered[V]) Len() int { return len(o.keys) }

// Keys are the names, in the order of insertion.
func (o *ordered[V]) Keys() []string { return slices.Clone(o.keys) }

// Get returns the entry of that name; the zero value if there is none.
func (o *ordered[V]) Get(key string) (v V) {
	if i := o.at(key); i >= 0 {
		return o.values[i]
	}
	return v
}

func (o *ordered[V]) set(key string, v V) {
	if i := o.at(key); i >= 0 {
		o.values[i] = v
		return
	}
	o.keys, o.values = append(o.keys, key), append(o.values, v)
}

// Delete takes an entry out; it is not closed.
func (o *ordered[V]) Delete(key string) {
	if i := o.at(key); i >= 0 {
		o.keys, o.values = slices.Delete(o.keys, i, i+1), slices.Delete(o.values, i, i+1)
	}
}

func (o *ordered[V]) members() []member {
	ms := make([]member, len(o.keys))
	for i, key := range o.keys {
		v := reflect.ValueOf(&o.values[i]).Elem()
		ms[i] = member{name: key, tensor: v.Type() == tensorType, value: v}
	}
	return ms
}

// ModuleDict holds modules by name, in the order of insertion.
type ModuleDict struct {
	Hooks
	Mode
	ordered[any]
}

// NewModuleDict makes an empty one.
func NewModuleDict() *ModuleDict { return &ModuleDict{} }

// Set adds a module, or puts it in the place of the one of that name.
func (d *ModuleDict) Set(name string, module any) {
	moduleValue(module)
	checkName(name)
	d.set(name, module)
}

// ParameterDict holds parameters by name, in the order of insertion.
type ParameterDict struct{ ordered[*torch.Tensor] }

// NewParameterDict makes an empty one.
func NewParameterDict() *ParameterDict { return &ParameterDict{} }

// Set adds a parameter, or puts it in the place of the one of that name, which is not closed.
func (d *ParameterDict) Set(name string, t *torch.Tensor) {
	checkName(name)
	torch.Keep(t)
	d.set(name, t)
}

func checkName(name string) {
	if name == "" || slices.Contains([]byte(name), '.') {
		panic(fmt.Sprintf("nn: a name must be something without dots, got %q", name))
	}
}

// ParameterList holds parameters as 0, 1, ….
type ParameterList struct{ Params []*torch.Tensor }

// NewParameterList makes a list.
func NewParameterList(ts ...*torch.Tensor) *ParameterList {
	torch.Keep(ts...)
	return &ParameterList{ts}
}

func (l *ParameterList) members() []member {
	ms := make([]member, len(l.Params))
	for i := range l.Params {
		ms[i] = member{name: strconv.Itoa(i), tensor: true, value: reflect.ValueOf(&l.Params[i]).Elem()}
	}
	return ms
}
