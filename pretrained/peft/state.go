package peft

import (
	"fmt"
	"iter"
	"slices"
	"strings"

	"github.com/torchgo/torchgo/internal/fileerr"
	"github.com/torchgo/torchgo/torch"
	"github.com/torchgo/torchgo/torch/nn"
)

// entry is a tensor of an adapter under its name in a file, without the prefix base_model.model.
type entry struct {
	name   string
	tensor *torch.Tensor // of the model
	rank   int           // the dimension that is the rank; -1: none is
	r      int           // the rank
	groups int           // that the rank is divided by
	base   bool          // saved along: the model's own, or twice
}

// value is what a file has: of a tensor with room for a higher rank, what is used.
func (e entry) value() *torch.Tensor { return used(e.tensor, e.rank, e.r, e.groups) }

// entries are those of an adapter, in the model's order.
func (a *Adapters) entries(name string) (list []entry) {
	c := a.config[name]
	layers := map[string]layer{}
	for path, l := range a.layers() {
		layers[path] = l
	}
	biases := map[string]*torch.Tensor{}
	if b := c.biases(); b != BiasNone {
		own := a.own()
		for _, s := range nn.Slots(a.model) {
			if own[s.Name] && isBias(s.Name) && !a.inSaved(s.Name, name) {
				biases[s.Name] = s.Tensor()
			}
		}
	}
	for path := range nn.NamedModules(a.model) {
		if l := layers[path]; l != nil {
			set := l.of().settings[name]
			if set != nil && a.savesBase(path) {
				for _, s := range nn.Slots(l.base()) {
					list = append(list, entry{name: join(path, "base_layer."+s.Name), tensor: s.Tensor(), rank: -1, base: true})
				}
			}
			for _, p := range l.of().tensors(name) {
				e := entry{name: join(path, p.name), tensor: p.tensor, rank: p.rank, groups: 1}
				if p.rank >= 0 {
					e.r, e.groups = set.r, groupsOf(l)
				}
				list = append(list, e)
			}
		}
		bias := join(path, "bias")
		if t := biases[bias]; t != nil {
			switch {
			case layers[path] != nil:
				list = append(list, entry{name: join(path, "base_layer.bias"), tensor: t, rank: -1})
			case c.biases() == BiasAll:
				list = append(list, entry{name: bias, tensor: t, rank: -1})
			}
			delete(biases, bias)
		}
		if s := a.saved[path]; s != nil && s.copies[name] != nil {
			for i, n := range s.names {
				list = append(list, entry{name: join(path, n), tensor: a.copyOf(s, name, i), rank: -1})
				if c.biases() == BiasAll && isBias(n) { // peft saves them a second time, and the model's own
					list = append(list, entry{name: join(path, "original_module."+n), tensor: a.copyOf(s, "", i), rank: -1, base: true},
						entry{name: join(path, "modules_to_save."+n), tensor: a.copyOf(s, name, i), rank: -1, base: true})
				}
			}
		}
	}
	return list
}

// inSaved reports whether a tensor is of a module that an adapter has a copy of.
func (a *Adapters) inSaved(tensor, name string) bool {
	for path, s := range a.saved {
		if s.copies[name] != nil && strings.HasPrefix(tensor, path+".") {
			return true
		}
	}
	return false
}

// savesBase reports whether peft saves a module's own weight with an adapter on it: that of the tables of tokens, which
// may have been resized.
func (a *Adapters) savesBase(path string) bool {
	last := path[strings.LastIndexByte(path, '.')+1:]
	return (last == "embed_tokens" || last == "lm_head") && (path == a.info.InputEmbeddings || path == a.info.OutputEmbeddings)
}

// StateDict yields an adapter's tensors under the names of peft's files, without their prefix base_model.model. and
// without the adapter's name (get_adapter_state_dict). They share the data of those in the model.
func (a *Adapters) StateDict(name string) (iter.Seq2[string, *torch.Tensor], error) {
	if err := a.find(name); err != nil {
		return nil, err
	}
	return func(yield func(string, *torch.Tensor) bool) {
		for _, e := range a.entries(name) {
			if !yield(e.name, e.value()) {
				return
			}
		}
	}, nil
}

// LoadInfo tells what did not fit when an adapter's tensors were loaded.
type LoadInfo struct {
	Missing    []string // of the adapter: they keep the values that they have
	Unexpected []string // that the adapter does not have
}

// Load puts an adapter into the model as Add does, with the values of tensors under the names of StateDict. Those that
// it lacks are as in a new adapter, which strict makes an error, as it does others. An error leaves the model as it was.
func (a *Adapters) Load(c *Config, name string, state map[string]*torch.Tensor, strict bool) (info LoadInfo, err error) {
	trained := map[*torch.Tensor]bool{}
	for _, s := range nn.Slots(a.model) {
		trained[s.Tensor()] = s.Tensor().RequiresGrad()
	}
	active := slices.Clone(a.active)
	if err := a.insert(c, name, state); err != nil {
		return info, err
	}
	defer func() {
		if err == nil {
			return
		}
		_ = a.Delete(name) // it is there, and nothing is merged
		a.active = active
		a.apply(false)
		for t, on := range trained {
			if t.DType().IsFloatingPoint() {
				t.SetRequiresGrad(on)
			}
		}
	}()
	if info, err = a.LoadStateDict(name, state); err != nil || !strict {
		return info, err
	}
	switch {
	case len(info.Missing) > 0:
		err = &fileerr.Error{Class: fileerr.ErrMissingTensor, Tensor: info.Missing[0], Detail: fmt.Sprintf("one of %d that the adapter's file lacks", len(info.Missing))}
	case len(info.Unexpected) > 0:
		err = &fileerr.Error{Class: fileerr.ErrConflict, Err: fileerr.ErrUnexpected, Tensor: info.Unexpected[0], Detail: fmt.Sprintf("one of %d that the adapter does not have", len(info.Unexpected))}
	}
	return info, err
}

// LoadStateDict gives an adapter the values of tensors under the names of StateDict. One that has another shape is an
// error, and changes nothing.
func (a *Adapters) LoadStateDict(name string, state map[string]*torch.Tensor) (info LoadInfo, err error) {
	if err := a.find(name); err != nil {
		return info, err
	}
	if err := a.unmerged("loading an adapter"); err != nil {
		return info, err
	}
	var pairs []pair
	known := map[string]bool{}
	for _, e := range a.entries(name) {
		known[e.name] = true
		from := state[e.name]
		if from == nil {
			if !e.base {
				info.Missing = append(info.Missing, e.name)
			}
			continue
		}
		to := e.value()
		if !slices.Equal(from.Shape(), to.Shape()) {
			return info, shapeError(e.name, to.Shape(), from.Shape())
		}
		if e.base && to.Device() == torch.Meta && a.info.Device != torch.Meta {
			return info, &fileerr.Error{Class: fileerr.ErrUnsupported, Tensor: e.name, Detail: "an adapter with the model's own weight", Actual: "a weight that is offloaded"}
		}
		if !e.base || !a.holds(e, from) { // one that is mapped from a file stays so
			pairs = append(pairs, pair{e, from})
		}
	}
	for n := range state {
		if !known[n] {
			info.Unexpected = append(info.Unexpected, n)
		}
	}
	slices.Sort(info.Unexpected)
	return info, copyAll(pairs)
}

// holds reports whether the model has a value already.
func (a *Adapters) holds(e entry, from *torch.Tensor) bool {
	if a.info.Device == torch.Meta {
		return true // nothing is loaded
	}
	same, err := torch.Try(func() bool {
		return torch.ScopeOf(func() bool {
			return e.tensor.Equal(from.To(e.tensor.Device(), torch.ToOptions{DType: e.tensor.DType()}))
		})
	})
	return err == nil && same
}

type pair struct {
	to   entry
	from *torch.Tensor
}

// copyAll copies values. What can fail for lack of memory comes first.
func copyAll(pairs []pair) error {
	err := torch.TryDo(func() {
		torch.Scope(func() {
			torch.NoGrad(func() {
				values := make([]*torch.Tensor, len(pairs))
				for i, p := range pairs {
					values[i] = roomTo(p.from, p.to)
				}
				for i, p := range pairs {
					p.to.tensor.Copy_(values[i])
				}
			})
		})
	})
	if err != nil {
		return &fileerr.Error{Detail: "loading an adapter", Err: err}
	}
	return nil
}
