package peft

import (
	"fmt"
	"slices"

	"github.com/torchgo/torchgo/internal/fileerr"
	"github.com/torchgo/torchgo/torch"
	"github.com/torchgo/torchgo/torch/nn"
)

// MergeOptions are the optional arguments of Merge and MergeAndUnload.
type MergeOptions struct {
	Adapters []string // which; default: the active ones
	Safe     bool     // refuse a result with an infinity or a nan, which leaves the model as it was (safe_merge)
}

// Merged are the adapters that are merged into the weights.
func (a *Adapters) Merged() (names []string) {
	for _, l := range a.layers() {
		for _, name := range l.of().merged {
			if !slices.Contains(names, name) {
				names = append(names, name)
			}
		}
	}
	return names
}

// Merge folds adapters into the weights, one after the other: W + s·BA; with DoRA that times m / ‖W + s·BA‖; with IA³ W
// with its rows or columns scaled. Layers then cost what they cost without adapters. The former weights are kept, so that
// Unmerge gives them back to the last bit; those that are mapped from a file take no memory meanwhile.
// Copies of modules (modules_to_save) are in place as long as their adapter is active. An error leaves the model as it
// was. (merge_adapter)
func (a *Adapters) Merge(opts ...MergeOptions) error { return a.merge(false, opts...) }

// MergeAndUnload is Merge for good: the adapters and the former weights are freed, layer by layer, and copies of modules
// of the active adapter take the place of the model's own. After an error of memory the model is merged in part.
// (merge_and_unload)
func (a *Adapters) MergeAndUnload(opts ...MergeOptions) error {
	if err := a.merge(true, opts...); err != nil {
		return err
	}
	a.clear()
	return nil
}

// result is a layer's weight and bias after merging; nil: it stays.
type result struct {
	site         site
	weight, bias *torch.Tensor
}

func (a *Adapters) merge(drop bool, opts ...MergeOptions) error {
	var o MergeOptions
	if len(opts) > 0 {
		o = opts[0]
	}
	names := o.Adapters
	if names == nil {
		names = a.active
	}
	if err := a.find(names...); err != nil {
		return err
	}
	if a.off {
		return badArgument("merging", "adapters that are enabled", "disabled ones")
	}
	sites := map[string]site{}
	var order []string
	for path, s := range a.sites() {
		if l := s.layer(); l != nil {
			if err := s.mayMerge(l.of().unmergedOf(names)); err != nil {
				return named(err, path)
			}
			order = append(order, path)
			sites[path] = s
		}
	}
	var results []result
	compute := func(path string) (r result, err error) {
		s := sites[path]
		r, err = s.merged(s.layer().of().unmergedOf(names), o.Safe)
		return r, named(err, path)
	}
	for _, path := range order {
		if drop && !o.Safe {
			break
		}
		r, err := compute(path)
		if err != nil {
			for _, r := range results {
				r.close()
			}
			return err
		}
		if drop {
			r.close() // it was but a trial
		} else {
			results = append(results, r)
		}
	}
	for i, path := range order {
		if drop {
			r, err := compute(path)
			if err != nil {
				return err
			}
			r.install(names)
			a.dropUnmerged(r.site.layer().of())
		} else {
			results[i].install(names)
		}
	}
	return nil
}

// unmergedOf are those of some adapters that this layer has and that are not merged yet.
func (f *factors) unmergedOf(names []string) (of []*setting) {
	for _, name := range names {
		if s := f.settings[name]; s != nil && !slices.Contains(f.merged, name) {
			of = append(of, s)
		}
	}
	return of
}

// mayMerge refuses what can't be merged.
func (s site) mayMerge(settings []*setting) error {
	unsupported := func(detail, actual, remedy string) error {
		return &fileerr.Error{Class: fileerr.ErrUnsupported, Detail: detail, Actual: actual, Remedy: remedy}
	}
	if len(settings) == 0 {
		return nil
	}
	slot, ok := stored(s.weight)
	f := s.layer().of()
	c := convOf(s.module)
	switch {
	case !ok:
		return unsupported("merging into a weight that is not one tensor", fmt.Sprintf("a %T", s.layer().base()), "")
	case slot.Tensor().Device() == torch.Meta:
		return unsupported("merging into a weight that is offloaded", "", "load the model without offloading")
	case c != nil && c.Geometry.Groups > 1 && f.IA3.Get(settings[0].name) == nil:
		return unsupported("merging LoRA into a convolution with groups", fmt.Sprint(c.Geometry.Groups), "")
	}
	for _, set := range settings {
		if b, ok := f.B.Get(set.name).(*factor); ok && b.Bias != nil && s.bias == nil {
			return unsupported("merging an adapter with a bias (lora_bias)", "a layer without one", "")
		}
	}
	return nil
}

// merged computes what a weight and a bias become.
func (s site) merged(settings []*setting, safe bool) (r result, err error) {
	r.site = s
	if len(settings) == 0 {
		return r, nil
	}
	l := s.layer()
	f := l.of()
	var bad error
	err = torch.TryDo(func() {
		torch.Scope(func() {
			torch.NoGrad(func() {
				now := matrix(l)
				unmerged := f.Weight
				if unmerged == nil {
					unmerged = now
				}
				dtype := now.DType()
				w, bias := now, s.bias
				for _, set := range settings {
					if v := f.IA3.Get(set.name); v != nil {
						if set.feedforward {
							w = w.Mul(l.perInput(v)).ToDType(dtype)
							continue
						}
						w = w.Mul(l.perOutput(v)).ToDType(dtype)
						if bias != nil {
							bias = bias.Mul(v.Reshape(-1)).ToDType(bias.DType())
						}
						continue
					}
					delta := f.delta(l, set)
					sum := wide(w).Add(delta)
					if m := f.Magnitude.Get(set.name); m != nil {
						norm := l.norm(wide(unmerged).Add(delta))
						sum = sum.Mul(l.perOutput(wide(m).Div(norm)))
					}
					w = sum.ToDType(dtype)
					if b, ok := f.B.Get(set.name).(*factor); ok && b.Bias != nil {
						bias = bias.Add(b.Bias.MulScalar(torch.Scalar(set.scaling))).ToDType(bias.DType())
					}
				}
				for _, t := range []*torch.Tensor{w, bias} {
					if safe && t != nil && !torch.Item[bool](t.Isfinite().All()) {
						bad = &fileerr.Error{Class: fileerr.ErrBadValue, Detail: "merging " + settings[0].name,
							Actual: "a weight with an infinity or a nan", Remedy: "the adapter seems to be broken"}
						return
					}
				}
				r.weight = kept(w, now)
				if bias != s.bias {
					r.bias = kept(bias, s.bias)
				}
			})
		})
	})
	if err == nil {
		err = bad
	}
	return r, err
}

// kept takes a new tensor out of its scope; it is trained if the former one is.
func kept(t, former *torch.Tensor) *torch.Tensor {
	t = t.Contiguous()
	torch.Keep(t)
	return t.SetRequiresGrad(former.RequiresGrad())
}

func (r result) close() {
	for _, t := range []*torch.Tensor{r.weight, r.bias} {
		if t != nil {
			t.Close()
		}
	}
}

// install puts merged weights in place, and the former ones aside.
func (r result) install(names []string) {
	if r.weight == nil {
		return
	}
	f := r.site.layer().of()
	for _, s := range f.unmergedOf(names) {
		f.merged = append(slices.Clone(f.merged), s.name)
	}
	f.on = nil
	slot, _ := stored(r.site.weight)
	f.Weight = exchange(slot.Tensor(), f.Weight)
	slot.Set(r.weight)
	if r.bias != nil {
		f.Bias = exchange(r.site.bias, f.Bias)
		r.site.setBias(r.bias)
	}
}

// exchange is the tensor to keep: the one that was kept before, if there is one, in whose place another was merged.
func exchange(now, kept *torch.Tensor) *torch.Tensor {
	if kept == nil {
		return now
	}
	now.Close()
	return kept
}

func (s site) setBias(t *torch.Tensor) {
	if m, ok := s.module.(*nn.Linear); ok {
		m.Bias = t
		return
	}
	convOf(s.module).Bias = t
}

// dropUnmerged frees what a merged layer kept, unless something else is tied to it.
func (a *Adapters) dropUnmerged(f *factors) {
	for _, t := range []**torch.Tensor{&f.Weight, &f.Bias} {
		old := *t
		if *t = nil; old == nil {
			continue
		}
		if !slices.ContainsFunc(nn.Slots(a.model), func(s nn.Slot) bool { return s.Tensor() == old }) {
			old.Close()
		}
	}
}

// Unmerge gives the weights back that were there before Merge, to the last bit. (unmerge_adapter)
func (a *Adapters) Unmerge() {
	for _, s := range a.sites() {
		l := s.layer()
		if l == nil || len(l.of().merged) == 0 {
			continue
		}
		f := l.of()
		slot, _ := stored(l)
		slot.Tensor().Close()
		slot.Set(f.Weight)
		if f.Bias != nil {
			s.bias.Close()
			s.setBias(f.Bias)
		}
		f.Weight, f.Bias, f.merged = nil, nil, nil
	}
	a.activate()
}

// named fills in the tensor of an error.
func named(err error, path string) error {
	if e, ok := err.(*fileerr.Error); ok && e.Tensor == "" {
		e.Tensor = path
		return e
	}
	if err != nil {
		return &fileerr.Error{Tensor: path, Detail: "merging", Err: err}
	}
	return nil
}
