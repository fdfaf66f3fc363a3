package nn

import (
	"reflect"
	"slices"

	"github.com/torchgo/torchgo/torch"
)

// Clone copies a module with its tensors; what is tied or shared in m is so in the copy. Fields without a tag are
// copied as Go assigns them, hooks too, which are called with the copies (copy.deepcopy). A copied module that has a method Cloned(self any) is told what
// it is now, parents first: for fields that refer to the module that it was copied from.
func Clone[M any](m M) M {
	moduleValue(m)
	c := cloner{tensors: map[*torch.Tensor]*torch.Tensor{}, modules: map[any]reflect.Value{}}
	v := reflect.New(reflect.TypeFor[M]()).Elem()
	v.Set(reflect.ValueOf(m))
	c.replace(v)
	for _, module := range NamedModules(v.Interface()) {
		if h, ok := module.(hooked); ok {
			h.hooks().copied(c.copyOf)
		}
		if m, ok := module.(interface{ Cloned(self any) }); ok {
			m.Cloned(module)
		}
	}
	return v.Interface().(M)
}

// copyOf is the copy of a module; one that was not copied itself.
func (c cloner) copyOf(module any) any {
	if made, ok := c.modules[module]; ok {
		return made.Interface()
	}
	return module
}

type cloner struct {
	tensors map[*torch.Tensor]*torch.Tensor
	modules map[any]reflect.Value // pointer → copy
}

// replace puts a copy in the place of a module, a pointer or interface.
func (c cloner) replace(v reflect.Value) {
	if v.Kind() == reflect.Interface {
		if !v.IsNil() {
			inner := reflect.New(v.Elem().Type()).Elem()
			inner.Set(v.Elem())
			c.replace(inner)
			v.Set(inner)
		}
		return
	}
	if v.Kind() == reflect.Struct {
		c.fill(v)
		return
	}
	if v.IsNil() {
		return
	}
	key := v.Interface()
	made, ok := c.modules[key]
	if !ok {
		made = reflect.New(v.Type().Elem())
		made.Elem().Set(v.Elem())
		c.modules[key] = made
		c.fill(made.Elem())
	}
	v.Set(made)
}

// fill replaces what a module that was assigned from another shares with it.
func (c cloner) fill(module reflect.Value) {
	if l, ok := listed(module); ok {
		l.unshare()
		for _, m := range l.members() {
			c.member(m.value, m.tensor)
		}
		return
	}
	for _, f := range fields(module.Type()) {
		v := module.Field(f.index)
		if v.Kind() == reflect.Slice {
			items := reflect.MakeSlice(v.Type(), v.Len(), v.Len())
			reflect.Copy(items, v)
			v.Set(items)
			for i := range v.Len() {
				c.replace(v.Index(i))
			}
			continue
		}
		c.member(v, v.Type() == tensorType)
	}
}

func (c cloner) member(v reflect.Value, tensor bool) {
	if !tensor {
		c.replace(v)
		return
	}
	if v.IsNil() {
		return
	}
	old := v.Interface().(*torch.Tensor)
	t, ok := c.tensors[old]
	if !ok {
		t = copyOf(old)
		c.tensors[old] = t
	}
	v.Set(reflect.ValueOf(t))
}

// copyOf copies a leaf, its gradient apart.
func copyOf(old *torch.Tensor) (t *torch.Tensor) {
	torch.NoGrad(func() { t = old.Clone() })
	torch.Keep(t)
	return t.SetRequiresGrad(old.RequiresGrad())
}

func (o *ordered[V]) unshare() {
	o.keys, o.values = slices.Clone(o.keys), slices.Clone(o.values)
}

func (l *ParameterList) unshare() { l.Params = slices.Clone(l.Params) }
