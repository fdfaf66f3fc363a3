package peft

import (
	"fmt"
	"slices"

	"github.com/torchgo/torchgo/internal/fileerr"
	"github.com/torchgo/torchgo/torch"
)

// EnableHotswap makes room in the tensors of adapters that are added from now on for a rank of up to target, so that
// others can take their place (Hotswap). The room is filled with zeros, which change nothing and stay zeros in training.
// It comes before the first adapter. (enable_peft_hotswap)
func (a *Adapters) EnableHotswap(target int) error {
	switch {
	case len(a.names) > 0:
		return badArgument("Call `enable_peft_hotswap` before loading the first adapter.", "", "")
	case target <= 0:
		return badArgument("target rank", "a positive integer", fmt.Sprint(target))
	}
	a.target = target
	return nil
}

// HotswapEnabled reports whether EnableHotswap was called.
func (a *Adapters) HotswapEnabled() bool { return a.target > 0 }

// Hotswap puts another LoRA adapter in the place of one, under its name: the tensors of the model stay themselves, their
// values, the ranks and the scalings become those of the new one. It must be for the same modules or some of them (where
// it has none, the old one is zeroed), and of no higher rank than the tensors have room for. An error changes nothing.
func (a *Adapters) Hotswap(name string, c *Config, state map[string]*torch.Tensor) error {
	if err := a.find(name); err != nil {
		return err
	}
	if err := a.unmerged("hot-swapping an adapter"); err != nil {
		return err
	}
	if err := c.Validate(); err != nil {
		return err
	}
	old := a.config[name]
	differ := func(what string, was, is any) error {
		return badArgument("hot-swapping: "+what, fmt.Sprint(was), fmt.Sprint(is))
	}
	switch {
	case old.PeftType != LoRA || c.PeftType != LoRA:
		return &fileerr.Error{Class: fileerr.ErrUnsupported, Detail: "hot-swapping adapters that are not LoRA", Actual: string(c.PeftType)}
	case old.UseDoRA != c.UseDoRA:
		return differ("use_dora", old.UseDoRA, c.UseDoRA)
	case old.LoraBias != c.LoraBias:
		return differ("lora_bias", old.LoraBias, c.LoraBias)
	case old.LoraDropout != c.LoraDropout:
		return differ("lora_dropout", old.LoraDropout, c.LoraDropout)
	case old.biases() != c.biases():
		return differ("bias", old.biases(), c.biases())
	}
	targets, err := Resolve(a.model, c, a.info)
	if err != nil {
		return err
	}
	layers := map[string]layer{}
	for path, l := range a.layers() {
		if l.of().settings[name] != nil {
			layers[path] = l
		}
	}
	next := map[string]*setting{}
	for _, t := range targets.Layers {
		l := layers[t.Path]
		if l == nil {
			return &fileerr.Error{Class: fileerr.ErrUnsupported, Tensor: t.Path, Detail: "hot-swapping an adapter for a module that the one in place has none for"}
		}
		if g := groupsOf(l); t.R%g != 0 {
			return badArgument("r of "+t.Path, fmt.Sprintf("a multiple of its %d groups", g), fmt.Sprint(t.R))
		}
		was := *l.of().settings[name]
		was.r, was.scaling = t.R, scaling(c, t)
		next[t.Path] = &was
	}
	var pairs []pair
	known := map[string]bool{}
	for path, l := range layers {
		s := next[path]
		for _, p := range l.of().tensors(name) {
			e := entry{name: join(path, p.name), tensor: p.tensor, rank: -1, groups: 1}
			if s == nil {
				pairs = append(pairs, pair{e, nil})
				continue
			}
			if p.rank >= 0 {
				e.rank, e.r, e.groups = p.rank, s.r, groupsOf(l)
			}
			if room := p.tensor.Size(max(p.rank, 0)); p.rank == 0 && s.r > room {
				return &fileerr.Error{Class: fileerr.ErrSizeMismatch, Tensor: e.name, Detail: "rank", Expected: fmt.Sprintf("at most %d", room),
					Actual: fmt.Sprint(s.r), Remedy: "enable hot-swapping for the highest rank before the first adapter is loaded"}
			}
			from := state[e.name]
			known[e.name] = true
			switch {
			case from == nil:
				return &fileerr.Error{Class: fileerr.ErrMissingTensor, Tensor: e.name}
			case !slices.Equal(from.Shape(), e.value().Shape()):
				return &fileerr.Error{Class: fileerr.ErrSizeMismatch, Tensor: e.name, Detail: "shape",
					Expected: fmt.Sprint(e.value().Shape()), Actual: fmt.Sprint(from.Shape())}
			}
			pairs = append(pairs, pair{e, from})
		}
	}
	for _, e := range a.entries(name) { // biases and copies of modules
		if from := state[e.name]; from != nil && !known[e.name] && e.rank < 0 {
			if !slices.Equal(from.Shape(), e.tensor.Shape()) {
				return &fileerr.Error{Class: fileerr.ErrSizeMismatch, Tensor: e.name, Detail: "shape",
					Expected: fmt.Sprint(e.tensor.Shape()), Actual: fmt.Sprint(from.Shape())}
			}
			known[e.name] = true
			pairs = append(pairs, pair{e, from})
		}
	}
	for n := range state {
		if !known[n] {
			return &fileerr.Error{Class: fileerr.ErrUnexpected, Tensor: n, Detail: "hot-swapping"}
		}
	}
	if err := copyAll(pairs); err != nil {
		return err
	}
	for path, s := range next {
		layers[path].of().add(s)
	}
	own := c.Clone()
	own.TargetModules = targets.TargetModules
	own.RankPattern, own.AlphaPattern = targets.RankPattern, targets.AlphaPattern
	own.Warnings = slices.Concat(own.Warnings, targets.Warnings)
	a.config[name] = own
	a.apply(!c.InferenceMode && !a.off)
	return nil
}

// groupsOf is what the rank of a layer's tensors is divided by.
func groupsOf(l layer) int {
	if c, ok := l.(*conv); ok {
		return c.geometry.Groups
	}
	return 1
}

// roomy is A or B with zeros up to a rank; dim is that of the rank. In A of a convolution with groups each group has its
// part of the rank.
func roomy(t *torch.Tensor, dim, target int, l layer) *torch.Tensor {
	if target == 0 {
		return t
	}
	g := groupsOf(l)
	shape := t.Shape()
	e := entry{rank: dim, r: shape[dim], groups: g}
	if dim == 1 {
		e.r *= g
		shape[1] = target / g
	} else {
		shape[0] = target
	}
	e.tensor = torch.Empty(shape)
	return roomTo(t, e)
}

// roomTo is a value in the form of the tensor of an entry: zeros beyond its rank; nil is all zeros.
func roomTo(from *torch.Tensor, e entry) *torch.Tensor {
	to := e.tensor
	if from != nil {
		from = from.To(to.Device(), torch.ToOptions{DType: to.DType()})
		if slices.Equal(from.Shape(), to.Shape()) {
			return from
		}
	}
	t := torch.Zeros(to.Shape(), torch.TensorOptions{DType: to.DType(), Device: to.Device()})
	if from != nil {
		view := window(t, e.rank, e.r, e.groups)
		view.Copy_(from.Reshape(view.Shape()...))
	}
	return t
}

// used is the part of a tensor that a rank takes.
func used(t *torch.Tensor, dim, r, groups int) *torch.Tensor {
	w := window(t, dim, r, groups)
	if w.Dim() == t.Dim() {
		return w
	}
	return w.Reshape(append([]int{r}, t.Shape()[1:]...)...) // a copy: the parts of groups don't lie in a row
}

// window is a view of it, of A of a convolution with groups (groups, r/groups, …).
func window(t *torch.Tensor, dim, r, groups int) *torch.Tensor {
	switch {
	case dim < 0, t.Size(dim) == r && dim == 0, dim == 1 && t.Size(1) == r/groups:
		return t
	case dim == 1:
		return t.Narrow(1, 0, r/groups)
	case groups == 1:
		return t.Narrow(0, 0, r)
	}
	shape := t.Shape()
	return t.View(append([]int{groups, shape[0] / groups}, shape[1:]...)...).Narrow(1, 0, r/groups)
}
