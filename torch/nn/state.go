package nn

import (
	"fmt"
	"iter"
	"slices"
	"strings"

	"github.com/torchgo/torchgo/torch"
)

// LoadStateDictOptions are the optional arguments of LoadStateDict.
type LoadStateDictOptions struct {
	Strict torch.Opt[bool] // every name must be on both sides; default: true
	Assign bool            // m takes the tensors themselves, with their dtype and device, in place of their values
	// Incompatible, if not nil, gets the names that are on one side only.
	Incompatible *IncompatibleKeys
}

// IncompatibleKeys are names that are on one side only, in Python's order.
type IncompatibleKeys struct {
	Missing    []string // in the module, not in the state
	Unexpected []string // in the state, not in the module
}

// LoadStateDict copies values into the parameters and saved buffers of m by name, converting dtype and
// device. Shapes must agree; names, too, if it is strict. The error is Python's; nothing is copied when there
// is one. As in Python, a batch norm's num_batches_tracked may be missing. (See package pretrained for loading
// checkpoint files.)
func LoadStateDict(m any, state iter.Seq2[string, *torch.Tensor], opts ...LoadStateDictOptions) error {
	opt := first(opts)
	given := map[string]*torch.Tensor{}
	var order []string
	for name, t := range state {
		given[name] = t
		order = append(order, name)
	}
	var keys IncompatibleKeys
	var wrong []string
	type pair struct {
		slot Slot
		from *torch.Tensor
	}
	var pairs []pair
	known := map[string]bool{}
	for _, s := range Slots(m) {
		if s.Kind == Transient {
			continue
		}
		known[s.Name] = true
		from, to := given[s.Name], s.Tensor()
		if from == nil {
			if !s.mayBeMissing() {
				keys.Missing = append(keys.Missing, s.Name)
			}
			continue
		}
		have, want := from.Shape(), to.Shape()
		if len(want) == 0 && slices.Equal(have, []int{1}) {
			have, from = want, from.Select(0, 0) // of PyTorch before 0.4
		}
		if !slices.Equal(have, want) {
			wrong = append(wrong, fmt.Sprintf("size mismatch for %s: copying a param with shape %s from checkpoint, the shape in current model is %s.",
				s.Name, torchSize(have), torchSize(want)))
			continue
		}
		pairs = append(pairs, pair{s, from})
	}
	keys.Unexpected = unexpected(m, order, known)
	if opt.Incompatible != nil {
		*opt.Incompatible = keys
	}
	if opt.Strict.Or(true) {
		for _, part := range []struct {
			what  string
			names []string
		}{{"Unexpected", keys.Unexpected}, {"Missing", keys.Missing}} {
			if len(part.names) > 0 {
				wrong = slices.Insert(wrong, 0, fmt.Sprintf("%s key(s) in state_dict: \"%s\". ", part.what, strings.Join(part.names, "\", \"")))
			}
		}
	}
	failed := func() error {
		return fmt.Errorf("Error(s) in loading state_dict for %s:\n\t%s", class(m), strings.Join(wrong, "\n\t")) //nolint:staticcheck // PyTorch's text
	}
	if len(wrong) > 0 {
		return failed()
	}
	if opt.Assign {
		assigned := map[*torch.Tensor]bool{}
		for _, p := range pairs {
			if old := p.slot.Tensor(); old != p.from && !assigned[p.from] {
				assigned[p.from] = true
				p.from.SetRequiresGrad(old.RequiresGrad())
			}
			p.slot.Set(p.from)
		}
		return nil
	}
	torch.Scope(func() {
		torch.NoGrad(func() {
			values := make([]*torch.Tensor, len(pairs))
			for i, p := range pairs { // what can fail comes first
				to := p.slot.Tensor()
				err := torch.TryDo(func() { values[i] = p.from.To(to.Device(), torch.ToOptions{DType: to.DType()}) })
				if err != nil {
					wrong = append(wrong, fmt.Sprintf("While copying the parameter named %q, whose dimensions in the model are %s and whose dimensions in the checkpoint are %s, an exception occurred : (%q,).",
						p.slot.Name, torchSize(to.Shape()), torchSize(p.from.Shape()), err))
				}
			}
			if len(wrong) > 0 {
				return
			}
			for i, p := range pairs {
				p.slot.Tensor().Copy_(values[i])
			}
		})
	})
	if len(wrong) > 0 {
		return failed()
	}
	return nil
}

// mayBeMissing is for state dicts from before there was a batch counter.
func (s Slot) mayBeMissing() bool {
	_, ok := s.Owner.(interface{ tracks() bool })
	return ok && (s.Name == "num_batches_tracked" || strings.HasSuffix(s.Name, ".num_batches_tracked"))
}

// unexpected lists the names that m doesn't know as Python finds them: module after module, each looking at those
// names that begin with its own.
func unexpected(m any, names []string, known map[string]bool) []string {
	var list []string
	for _, name := range names {
		if !known[name] {
			list = append(list, name)
		}
	}
	if len(list) == 0 {
		return nil
	}
	at := map[string]int{} // prefixes of modules, and of the lists and dictionaries between them, numbered
	var add func(prefix string)
	add = func(prefix string) {
		if _, ok := at[prefix]; ok {
			return
		}
		if cut := strings.LastIndexByte(strings.TrimSuffix(prefix, "."), '.'); cut >= 0 {
			add(prefix[:cut+1])
		}
		at[prefix] = len(at)
	}
	add("")
	for name := range NamedModules(m) {
		if name != "" {
			add(name + ".")
		}
	}
	owner := func(name string) int {
		for i := len(name) - 1; i >= 0; i-- {
			if name[i] == '.' {
				if n, ok := at[name[:i+1]]; ok {
					return n
				}
			}
		}
		return 0
	}
	slices.SortStableFunc(list, func(a, b string) int { return owner(a) - owner(b) })
	return list
}
