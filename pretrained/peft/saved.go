package peft

import (
	"maps"
	"slices"

	"github.com/torchgo/torchgo/torch"
	"github.com/torchgo/torchgo/torch/nn"
)

// savedModule is a module that adapters have copies of (modules_to_save). The tensors of one of them are in its slots,
// those of the others, the model's own under the name "" included, in Adapters.Aside.
type savedModule struct {
	module any
	path   string
	names  []string // of its slots
	kinds  []nn.Kind
	copies map[string][]int // by adapter: places in Aside
	now    string           // whose tensors are in the slots
}

func (s *savedModule) clone() *savedModule {
	c := *s
	c.copies, c.module = maps.Clone(s.copies), nil
	return &c
}

// among are those of some adapters that have a copy.
func (s *savedModule) among(names []string) (have []string) {
	for _, name := range names {
		if s.copies[name] != nil {
			have = append(have, name)
		}
	}
	return have
}

// slotsOf are those of a module that its copies have their own tensors for.
func slotsOf(module any) []nn.Slot {
	return slices.DeleteFunc(nn.Slots(module), func(s nn.Slot) bool { return s.Kind == nn.Transient })
}

// copyOf is a tensor of one copy.
func (a *Adapters) copyOf(s *savedModule, name string, i int) *torch.Tensor {
	if s.now == name {
		return slotsOf(a.at(s))[i].Tensor()
	}
	return a.Aside.Params[s.copies[name][i]]
}

// at is the module itself, which in a copy of the model is another.
func (a *Adapters) at(s *savedModule) any {
	if s.module == nil {
		for path, m := range nn.NamedModules(a.model) {
			if path == s.path {
				s.module = m
			}
		}
	}
	return s.module
}

// save gives an adapter a copy of a module.
func (a *Adapters) save(path string, module any, name string) {
	s := a.saved[path]
	if s == nil {
		s = &savedModule{module: module, path: path, copies: map[string][]int{}}
		for _, slot := range slotsOf(module) {
			s.names, s.kinds = append(s.names, slot.Name), append(s.kinds, slot.Kind)
		}
		s.copies[""] = a.room(len(s.names))
		a.saved[path] = s
	}
	s.copies[name] = a.room(len(s.names))
	for i := range s.names {
		own := a.copyOf(s, "", i)
		torch.NoGrad(func() {
			t := own.Clone()
			torch.Keep(t)
			a.Aside.Params[s.copies[name][i]] = t
		})
	}
}

// room are places in Aside that are free.
func (a *Adapters) room(n int) []int {
	places := make([]int, n)
	for i := range places {
		places[i] = len(a.Aside.Params)
		a.Aside.Params = append(a.Aside.Params, nil)
	}
	return places
}

// place puts the tensors of the active copy in the module.
func (a *Adapters) place(s *savedModule, active []string) {
	want := ""
	if have := s.among(active); len(have) > 0 {
		want = have[0]
	}
	if want == s.now {
		return
	}
	for i, slot := range slotsOf(a.at(s)) {
		a.Aside.Params[s.copies[s.now][i]] = slot.Tensor()
		slot.Set(a.Aside.Params[s.copies[want][i]])
		a.Aside.Params[s.copies[want][i]] = nil
	}
	s.now = want
}

// dropCopy frees the copy of an adapter, which is not in place.
func (a *Adapters) dropCopy(s *savedModule, name string) {
	for _, i := range s.copies[name] {
		a.Aside.Params[i].Close()
		a.Aside.Params[i] = nil
	}
	delete(s.copies, name)
}

// forget frees all copies but the one in place.
func (a *Adapters) forget(path string) {
	s := a.saved[path]
	inUse := map[*torch.Tensor]bool{} // the model's own may be tied to others
	for _, slot := range nn.Slots(a.model) {
		if slot.Owner != any(a.Aside) {
			inUse[slot.Tensor()] = true
		}
	}
	for name, places := range s.copies {
		for _, i := range places {
			if t := a.Aside.Params[i]; t != nil && name != s.now && !inUse[t] {
				t.Close()
			}
			a.Aside.Params[i] = nil
		}
	}
	delete(a.saved, path)
}
