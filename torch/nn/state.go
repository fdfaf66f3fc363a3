package nn

import (
	"fmt"
	"iter"
	"slices"
	"strings"

	"github.com/torchgo/torchgo/torch"
)

// LoadStateDict copies values into the parameters and saved buffers of m by name, converting dtype and
// device. Every name must be on both sides with one shape, unless opts says otherwise; nothing is copied
// when an error is returned. (See package pretrained for loading checkpoint files.)
func LoadStateDict(m any, state iter.Seq2[string, *torch.Tensor], opts ...LoadStateDictOptions) error {
	var opt LoadStateDictOptions
	if len(opts) > 0 {
		opt = opts[0]
	}
	want := map[string]*torch.Tensor{}
	for name, t := range StateDict(m) {
		want[name] = t
	}
	var unexpected, mismatched []string
	pairs, seen := map[string]*torch.Tensor{}, map[string]bool{}
	for name, t := range state {
		seen[name] = true
		switch to := want[name]; {
		case to == nil:
			unexpected = append(unexpected, name)
		case !slices.Equal(to.Shape(), t.Shape()):
			mismatched = append(mismatched, fmt.Sprintf("%s %v, want %v", name, torch.Shape(t.Shape()), torch.Shape(to.Shape())))
		default:
			pairs[name] = t
		}
	}
	var missing []string
	for name := range want {
		if !seen[name] {
			missing = append(missing, name)
		}
	}
	var wrong []string
	add := func(what string, names []string) {
		if len(names) > 0 {
			slices.Sort(names)
			wrong = append(wrong, what+" "+strings.Join(names, ", "))
		}
	}
	if !opt.AllowPartial {
		add("missing", missing)
		add("unexpected", unexpected)
	}
	add("wrong shape", mismatched)
	if len(wrong) > 0 {
		return fmt.Errorf("load state dict: %s", strings.Join(wrong, "; "))
	}
	err := torch.TryDo(func() {
		torch.Scope(func() {
			torch.NoGrad(func() {
				// What can fail comes first.
				for name, t := range pairs {
					to := want[name]
					pairs[name] = t.To(to.Device(), torch.ToOptions{DType: to.DType()})
				}
				for name, t := range pairs {
					want[name].Copy_(t)
				}
			})
		})
	})
	if err != nil {
		return fmt.Errorf("load state dict: %w", err)
	}
	return nil
}

// LoadStateDictOptions are the optional arguments of LoadStateDict.
type LoadStateDictOptions struct {
	AllowPartial bool // names on one side only are skipped (PyTorch's strict=False)
}

// Apply replaces each tensor of m by what fn makes of it; tied tensors are replaced once and stay tied.
// A result that is another tensor takes the place of the former, which is closed.
func Apply(m any, fn func(name string, kind Kind, t *torch.Tensor) *torch.Tensor) {
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

// To moves m to a device and converts its floating-point tensors to a dtype; unset ones stay. Ties stay
// ties and trained parameters stay trained; gradients are dropped.
func To(m any, device torch.Device, dtype torch.DType) {
	Apply(m, func(_ string, _ Kind, t *torch.Tensor) *torch.Tensor {
		to, opt := device, torch.ToOptions{DType: dtype}
		if (to == torch.Device{}) {
			to = t.Device()
		}
		if !t.DType().IsFloatingPoint() || dtype == 0 {
			opt.DType = t.DType()
		}
		if to == t.Device() && opt.DType == t.DType() {
			return t
		}
		var moved *torch.Tensor
		torch.NoGrad(func() { moved = t.To(to, opt) })
		return moved.SetRequiresGrad(t.RequiresGrad())
	})
}

// Close frees the tensors of m. The module must not be used afterwards.
func Close(m any) {
	for _, s := range Slots(m) {
		s.Tensor().Close()
	}
}
