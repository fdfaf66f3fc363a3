package nn

import (
	"errors"
	"fmt"
	"reflect"
	"strings"

	"github.com/torchgo/torchgo/torch"
)

// Apply calls fn with every module of m, children before their parents and m last (Module.apply). It is how
// weights are initialised by type:
//
//	nn.Apply(model, func(m any) {
//		if l, ok := m.(*nn.Linear); ok { nninit.Zeros_(l.Bias) }
//	})
func Apply(m any, fn func(m any)) {
	var modules []any
	under := map[string][]int{} // path → places in modules of those directly below
	var paths []string
	for path, module := range NamedModules(m) {
		paths, modules = append(paths, path), append(modules, module)
	}
	at := map[string]bool{}
	for _, p := range paths {
		at[p] = true
	}
	for i, p := range paths[1:] {
		parent := p
		for {
			cut := strings.LastIndexByte(parent, '.')
			if cut < 0 {
				parent = ""
				break
			}
			if parent = parent[:cut]; at[parent] {
				break
			}
		}
		under[parent] = append(under[parent], i+1)
	}
	var visit func(i int)
	visit = func(i int) {
		for _, c := range under[paths[i]] {
			visit(c)
		}
		fn(modules[i])
	}
	visit(0)
}

// MapTensors replaces each tensor of m by what fn makes of it; tied tensors are replaced once and stay tied.
// A result that is another tensor takes the place of the former, which is closed.
func MapTensors(m any, fn func(name string, kind Kind, t *torch.Tensor) *torch.Tensor) {
	made := map[*torch.Tensor]*torch.Tensor{}
	for _, s := range Slots(m) {
		old := s.Tensor()
		t, ok := made[old]
		if !ok {
			t = fn(s.Name, s.Kind, old)
			made[old] = t
		}
		if t != old {
			s.Set(t)
		}
	}
	for old, t := range made {
		if old != t {
			old.Close()
		}
	}
}

// To moves m to a device and converts its floating-point tensors to a dtype; unset ones stay. The tensors stay
// themselves: ties, gradients and an optimizer's references hold. A move that fails, for lack of memory say,
// leaves m where it was; a conversion that fails leaves it converted in part.
func To(m any, device torch.Device, dtype torch.DType) {
	done := map[*torch.Tensor]bool{}
	torch.Scope(func() {
		torch.NoGrad(func() {
			var moved []func() // back
			completed := false
			defer func() {
				for i := len(moved) - 1; i >= 0 && !completed; i-- {
					moved[i]()
				}
			}()
			for _, s := range Slots(m) {
				t := s.Tensor()
				if done[t] {
					continue
				}
				done[t] = true
				to, opt := device, torch.ToOptions{DType: dtype}
				if (to == torch.Device{}) {
					to = t.Device()
				}
				if !t.DType().IsFloatingPoint() || dtype == 0 {
					opt.DType = t.DType()
				}
				if to == t.Device() && opt.DType == t.DType() {
					continue
				}
				data, grad := t.To(to, opt), t.Grad()
				var gradData *torch.Tensor
				if grad != nil {
					gradData = grad.To(to, opt)
				}
				if opt.DType == t.DType() { // converted ones are freed one by one
					old := t.Detach()
					moved = append(moved, func() { swap(t, old, grad) })
				}
				swap(t, data, gradData)
			}
			completed = true
		})
	})
}

// swap gives t other data and their gradient.
func swap(t, data, grad *torch.Tensor) {
	t.SetGrad(nil) // it must fit the data
	t.SetData(data)
	t.SetGrad(grad)
}

// ToEmpty gives m uninitialised tensors on a device: the way from the meta device to one where values can be filled in
// (Module.to_empty).
func ToEmpty(m any, device torch.Device) {
	MapTensors(m, func(_ string, _ Kind, t *torch.Tensor) *torch.Tensor {
		e := torch.Empty(t.Shape(), torch.EmptyOptions{DType: t.DType(), Device: device})
		torch.Keep(e)
		return e.SetRequiresGrad(t.RequiresGrad())
	})
}

// RequiresGrad_ says whether autograd records what is done with the parameters of m (Module.requires_grad_).
func RequiresGrad_(m any, on bool) {
	for _, p := range NamedParameters(m) {
		p.SetRequiresGrad(on)
	}
}

// ZeroGrad removes the gradients of the parameters of m (Module.zero_grad).
func ZeroGrad(m any) {
	for _, p := range NamedParameters(m) {
		p.SetGrad(nil)
	}
}

// GetSubmodule finds a module by its path, "encoder.layer.0"; "" is m itself.
func GetSubmodule(m any, path string) (any, error) {
	for name, module := range everyModule(m) {
		if name == path {
			return module, nil
		}
	}
	// Python's error is that of the first step that fails.
	at, rest := m, path
	for prefix := ""; ; {
		step, more, _ := strings.Cut(rest, ".")
		prefix = join(prefix, step)
		found := false
		for name, module := range everyModule(m) {
			if name == prefix {
				at, found = module, true
			} else if strings.HasPrefix(name, prefix+".") {
				found = true
			}
		}
		if !found || more == "" {
			return nil, fmt.Errorf("%s has no attribute `%s`", class(at), step)
		}
		rest = more
	}
}

// SetSubmodule puts a module in the place of the one at a path (Module.set_submodule with strict=True). The former
// one is not closed.
func SetSubmodule(m any, path string, module any) error {
	if path == "" {
		return errors.New("cannot set the submodule without a target name")
	}
	if _, err := GetSubmodule(m, path); err != nil {
		return err
	}
	moduleValue(module)
	v := submoduleAt(moduleValue(m), "", path)
	if t := reflect.TypeOf(module); !t.AssignableTo(v.Type()) {
		return fmt.Errorf("%s is a %s: a %s can't take its place", path, v.Type(), t)
	}
	v.Set(reflect.ValueOf(module))
	return nil
}

// submoduleAt is the field, or element, that holds the module at a path.
func submoduleAt(module reflect.Value, prefix, path string) (found reflect.Value) {
	look := func(name string, v reflect.Value) {
		child, ok := deref(v)
		switch {
		case !ok || found.IsValid():
		case name == path:
			found = v
		case strings.HasPrefix(path, name+"."):
			found = submoduleAt(child, name, path)
		}
	}
	for _, f := range members(module) {
		name := join(prefix, f.name)
		switch {
		case f.tensor:
		case f.value.Kind() == reflect.Slice:
			for i := range f.value.Len() {
				look(join(name, itoa(i)), f.value.Index(i))
			}
		default:
			look(name, f.value)
		}
	}
	return found
}

// GetParameter finds a parameter by its name in the state dict.
func GetParameter(m any, name string) (*torch.Tensor, error) {
	return get(m, name, "Parameter", Parameter)
}

// GetBuffer finds a buffer, saved or not, by its name.
func GetBuffer(m any, name string) (*torch.Tensor, error) {
	return get(m, name, "buffer", Buffer, Transient)
}

func get(m any, name, what string, kinds ...Kind) (*torch.Tensor, error) {
	for n, t := range named(m, false, kinds...) {
		if n == name {
			return t, nil
		}
	}
	path, last := "", name
	if cut := strings.LastIndexByte(name, '.'); cut >= 0 {
		path, last = name[:cut], name[cut+1:]
	}
	owner, err := GetSubmodule(m, path)
	if err != nil {
		return nil, err
	}
	return nil, fmt.Errorf("%s has no %s `%s`", class(owner), what, last)
}

// Close frees the tensors of m. The module must not be used afterwards.
func Close(m any) {
	for _, s := range Slots(m) {
		s.Tensor().Close()
	}
}
