package pretrained

import (
	"slices"
	"testing"

	"github.com/torchgo/torchgo/torch"
	"github.com/torchgo/torchgo/torch/nn"
)

// Lying sums up the bytes of a model's tensors where they lie, each tensor once; those that are made where they lie,
// and not moved there, are left out: simulated devices don't know them.
func Lying(m Model) map[string]int64 {
	sums, seen := map[string]int64{}, map[*torch.Tensor]bool{}
	for _, s := range nn.Slots(m) {
		t := s.Tensor()
		if seen[t] || s.Kind == nn.Transient {
			continue
		}
		seen[t] = true
		where := devices.of(t).String()
		if d := m.base().dispatch; d != nil {
			if w := d.away[t]; w != nil {
				where = "disk"
				if w.kept != nil {
					where = "cpu"
				}
			}
		}
		sums[where] += int64(t.Numel()) * int64(t.DType().ItemSize())
	}
	return sums
}

// Visits measures what offloaded weights take, in the model's dtype, whenever a module of a simulation has run.
type Visits struct {
	*Simulation
	Running int64 // the most that one module had brought in, with what stays for the whole pass
	Reading int64 // the most that had come from disk, for that and the next
}

// MeasureVisits begins with the next pass.
func MeasureVisits(t *testing.T, s *Simulation) *Visits {
	v := &Visits{Simulation: s}
	devices = v
	t.Cleanup(func() { devices = s })
	return v
}

func (v *Visits) ran(m *module, given, in, out []*torch.Tensor) {
	v.Simulation.ran(m, given, in, out)
	size := func(w *offloaded) int64 {
		return int64(w.placeholder.Numel()) * int64(w.placeholder.DType().ItemSize())
	}
	var running, reading int64
	for _, w := range slices.Concat(m.weights, m.d.rest.weights) {
		running += size(w)
	}
	m.d.mu.Lock()
	defer m.d.mu.Unlock()
	for _, w := range m.d.weights {
		if w.visit != nil && w.kept == nil {
			reading += size(w)
		}
	}
	v.Running, v.Reading = max(v.Running, running), max(v.Reading, reading)
}
