package peft

import (
	"fmt"
	"iter"
	"slices"

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
			if own[s.Name] && isBias(s.Name) {
				biases[s.Name] = s.Tensor()
			}
		}
	}
	for path := range nn.NamedModules(a.model) {
		if l := layers[path]; l != nil {
			set := l.of().settings[name]
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
			}
		}
	}
	return list
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
			info.Missing = append(info.Missing, e.name)
			continue
		}
		to := e.value()
		if !slices.Equal(from.Shape(), to.Shape()) {
			return info, &fileerr.Error{Class: fileerr.ErrSizeMismatch, Tensor: e.name, Detail: "shape",
				Expected: fmt.Sprint(to.Shape()), Actual: fmt.Sprint(from.Shape())}
		}
		pairs = append(pairs, pair{e, from})
	}
	for n := range state {
		if !known[n] {
			info.Unexpected = append(info.Unexpected, n)
		}
	}
	slices.Sort(info.Unexpected)
	return info, copyAll(pairs)
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
