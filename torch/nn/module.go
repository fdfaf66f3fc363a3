package nn

import (
	"fmt"
	"iter"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/torchgo/torchgo/torch"
)

// Kind says what role a tensor has in its module.
type Kind int

const (
	Parameter Kind = iota // trained and saved
	Buffer                // saved, not trained
	Transient             // a buffer that is not saved
)

// Slot is the place of one tensor in a module: its name, and the field that holds it.
type Slot struct {
	Name  string // path in the state dict: "encoder.layer.0.output.dense.weight"
	Kind  Kind
	Owner any // the module whose field it is

	field reflect.Value
}

// Tensor returns what the slot holds.
func (s Slot) Tensor() *torch.Tensor { return s.field.Interface().(*torch.Tensor) }

// Set puts t in the slot and takes it out of the scope it was made in. The former tensor is not closed:
// another slot may hold it too.
func (s Slot) Set(t *torch.Tensor) {
	torch.Keep(t)
	s.field.Set(reflect.ValueOf(t))
}

// Slots lists the tensors of m that are there, in PyTorch's order: of each module first the parameters,
// then the buffers, then the children. A tied tensor has a slot under each of its names.
// It panics when m is not a module.
func Slots(m any) []Slot {
	var slots []Slot
	walk("", moduleValue(m), func(path string, module reflect.Value) {
		owner := module.Addr().Interface()
		for _, group := range []struct {
			late  bool
			kinds []Kind
		}{{false, []Kind{Parameter}}, {true, []Kind{Parameter}}, {false, []Kind{Buffer, Transient}}} {
			for _, f := range members(module) {
				if f.tensor && f.late == group.late && slices.Contains(group.kinds, f.kind) && !f.value.IsNil() {
					slots = append(slots, Slot{join(path, f.name), f.kind, owner, f.value})
				}
			}
		}
	})
	return slots
}

// NamedModules yields m itself under the name "" and every module below it, parents first; one that is held in
// several places once, under its first name.
func NamedModules(m any) iter.Seq2[string, any] {
	return func(yield func(string, any) bool) {
		done, seen := false, map[any]bool{}
		walk("", moduleValue(m), func(path string, module reflect.Value) {
			child := module.Addr().Interface()
			if !done && !seen[child] {
				seen[child] = true
				done = !yield(path, child)
			}
		})
	}
}

// everyModule is NamedModules with those that are held in several places under each name.
func everyModule(m any) iter.Seq2[string, any] {
	return func(yield func(string, any) bool) {
		done := false
		walk("", moduleValue(m), func(path string, module reflect.Value) {
			done = done || !yield(path, module.Addr().Interface())
		})
	}
}

// NamedParameters yields the parameters of m; a tied one once, under its first name.
func NamedParameters(m any) iter.Seq2[string, *torch.Tensor] {
	return named(m, true, Parameter)
}

// NamedBuffers yields the buffers of m, saved or not.
func NamedBuffers(m any) iter.Seq2[string, *torch.Tensor] {
	return named(m, true, Buffer, Transient)
}

// StateDict yields what a checkpoint of m holds: parameters and saved buffers, tied ones under each name.
func StateDict(m any) iter.Seq2[string, *torch.Tensor] {
	return named(m, false, Parameter, Buffer)
}

// Parameters lists the parameters of m, tied ones once: what an optimizer takes.
func Parameters(m any) []*torch.Tensor {
	var ps []*torch.Tensor
	for _, p := range NamedParameters(m) {
		ps = append(ps, p)
	}
	return ps
}

func named(m any, once bool, kinds ...Kind) iter.Seq2[string, *torch.Tensor] {
	return func(yield func(string, *torch.Tensor) bool) {
		seen := map[*torch.Tensor]bool{}
		for _, s := range Slots(m) {
			t := s.Tensor()
			if !slices.Contains(kinds, s.Kind) || once && seen[t] {
				continue
			}
			seen[t] = true
			if !yield(s.Name, t) {
				return
			}
		}
	}
}

// member is a tagged field, inlined ones resolved.
type member struct {
	name   string
	kind   Kind
	late   bool
	tensor bool
	value  reflect.Value
}

var (
	tensorType = reflect.TypeFor[*torch.Tensor]()
	fieldCache sync.Map // reflect.Type → []field
)

// field is what a type's tag says.
type field struct {
	index  int
	name   string
	kind   Kind
	late   bool
	inline bool
}

// walk visits module and its children, parents first.
func walk(path string, module reflect.Value, visit func(string, reflect.Value)) {
	visit(path, module)
	for _, f := range members(module) {
		if f.tensor {
			continue
		}
		name := join(path, f.name)
		if f.value.Kind() == reflect.Slice {
			for i := range f.value.Len() {
				if child, ok := deref(f.value.Index(i)); ok {
					walk(name+"."+strconv.Itoa(i), child, visit)
				}
			}
		} else if child, ok := deref(f.value); ok {
			walk(name, child, visit)
		}
	}
}

// members lists the tagged fields of a module with those of inlined and embedded structs in their place.
func members(module reflect.Value) []member {
	var ms []member
	if l, ok := listed(module); ok {
		return l.members()
	}
	for _, f := range fields(module.Type()) {
		v := module.Field(f.index)
		if f.inline && v.Kind() == reflect.Slice {
			for i := range v.Len() {
				ms = append(ms, member{name: strconv.Itoa(i), value: v.Index(i)})
			}
			continue
		}
		if f.inline {
			if inner, ok := deref(v); ok {
				ms = append(ms, members(inner)...)
			}
			continue
		}
		ms = append(ms, member{f.name, f.kind, f.late, v.Type() == tensorType, v})
	}
	return ms
}

// lister is a module whose entries are not fields.
type lister interface {
	members() []member
	unshare() // so that members can be replaced without those that it was copied from
}

// listers are the types themselves: a struct that embeds one has fields as well.
var listers = []reflect.Type{reflect.TypeFor[ModuleDict](), reflect.TypeFor[ParameterDict](), reflect.TypeFor[ParameterList]()}

func listed(module reflect.Value) (lister, bool) {
	if !slices.Contains(listers, module.Type()) {
		return nil, false
	}
	return reflect.NewAt(module.Type(), module.Addr().UnsafePointer()).Interface().(lister), true
}

func fields(t reflect.Type) []field {
	if fs, ok := fieldCache.Load(t); ok {
		return fs.([]field)
	}
	var fs []field
	for i := range t.NumField() {
		sf := t.Field(i)
		tag, tagged := sf.Tag.Lookup("torch")
		switch {
		case !tagged && sf.Anonymous && isModule(sf.Type):
			fs = append(fs, field{index: i, inline: true})
		case tagged:
			fs = append(fs, parseTag(t, sf, i, tag))
		}
	}
	fieldCache.Store(t, fs)
	return fs
}

// parseTag panics on a tag that is wrong: a mistake in the program, not in its data.
func parseTag(t reflect.Type, sf reflect.StructField, i int, tag string) field {
	name, option, _ := strings.Cut(tag, ",")
	f := field{index: i, name: name, inline: option == "inline"}
	tensor := sf.Type == tensorType
	elem := sf.Type
	if elem.Kind() == reflect.Slice {
		elem = elem.Elem()
	}
	ok := sf.IsExported() && (name != "") == !f.inline
	switch {
	case tensor && option == "":
	case tensor && option == "late":
		f.late = true
	case tensor && option == "buffer":
		f.kind = Buffer
	case tensor && option == "transient":
		f.kind = Transient
	default:
		ok = ok && !tensor && isModule(elem) && (option == "" || f.inline)
	}
	if !ok {
		panic(fmt.Sprintf("nn: field %s.%s: bad tag `torch:%q` for a %s", t, sf.Name, tag, sf.Type))
	}
	return f
}

func isModule(t reflect.Type) bool {
	switch t.Kind() {
	case reflect.Interface, reflect.Struct:
		return true
	case reflect.Pointer:
		return t.Elem().Kind() == reflect.Struct && t != tensorType
	}
	return false
}

// deref follows interfaces and pointers to the struct; false for nil.
func deref(v reflect.Value) (reflect.Value, bool) {
	for v.Kind() == reflect.Interface || v.Kind() == reflect.Pointer {
		if v.IsNil() {
			return v, false
		}
		v = v.Elem()
	}
	return v, v.Kind() == reflect.Struct && v.CanAddr()
}

func moduleValue(m any) reflect.Value {
	v, ok := deref(reflect.ValueOf(m))
	if !ok {
		fail("module", "a value of type %T is not a module: expected a non-nil pointer to a struct", m)
	}
	return v
}

func join(path, name string) string {
	if path == "" {
		return name
	}
	return path + "." + name
}
