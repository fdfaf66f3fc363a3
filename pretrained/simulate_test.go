package pretrained

import (
	"sync"
	"testing"

	"github.com/torchgo/torchgo/torch"
)

// Simulation stands for GPUs: "cuda:0", "cuda:1", … are names for other memory. On the CPU, values can be compared.
// On the meta device there are none, but libtorch itself then refuses an operation on tensors of two devices.
type Simulation struct {
	memories []torch.Device
	where    sync.Map // *torch.Tensor → torch.Device, of what was moved

	mu    sync.Mutex
	Moves []SimulatedMove
	Runs  []SimulatedRun

	Reserved map[torch.Device]int // bytes
}

// SimulatedMove is a copy of a tensor to another device.
type SimulatedMove struct {
	From, To torch.Device
	Shape    torch.Shape
}

// SimulatedRun is a module that ran.
type SimulatedRun struct {
	Module string
	On     torch.Device
	Given  []torch.Device // where its inputs were; an absent one is left out
	In     []torch.Device // and where when it ran
}

// Simulate has GPUs with these memories until the test ends.
func Simulate(t *testing.T, memories ...torch.Device) *Simulation {
	s := &Simulation{memories: memories, Reserved: map[torch.Device]int{}}
	before := devices
	devices = s
	t.Cleanup(func() { devices = before })
	return s
}

// Take gives what was recorded since the last time.
func (s *Simulation) Take() (moves []SimulatedMove, runs []SimulatedRun) {
	s.mu.Lock()
	defer s.mu.Unlock()
	moves, runs, s.Moves, s.Runs = s.Moves, s.Runs, nil, nil
	return moves, runs
}

// Where is the device of a tensor.
func (s *Simulation) Where(t *torch.Tensor) torch.Device { return s.of(t) }

func (s *Simulation) reserve(d torch.Device, bytes int) { s.Reserved[d] += bytes }

func (s *Simulation) count() int { return len(s.memories) }

func (s *Simulation) of(t *torch.Tensor) torch.Device {
	if d, ok := s.where.Load(t); ok {
		return d.(torch.Device)
	}
	for i, m := range s.memories {
		if m == torch.Meta && t.Device() == torch.Meta {
			return torch.CUDA(i)
		}
	}
	return t.Device()
}

func (s *Simulation) move(t *torch.Tensor, to torch.Device) *torch.Tensor {
	s.mu.Lock()
	s.Moves = append(s.Moves, SimulatedMove{s.of(t), to, t.Shape()})
	s.mu.Unlock()
	memory := s.memory(to)
	var out *torch.Tensor
	switch {
	case t.Device() == memory:
		out = t.Clone()
	case t.Device() == torch.Meta:
		out = torch.Zeros(t.Shape(), torch.TensorOptions{DType: t.DType(), Device: memory})
	default:
		out = t.To(memory)
	}
	s.where.Store(out, to)
	return out
}

func (s *Simulation) memory(d torch.Device) torch.Device {
	if d.Type == torch.DeviceCUDA {
		return s.memories[d.Index]
	}
	return d
}

func (s *Simulation) ran(m *module, given, in, out []*torch.Tensor) {
	s.mu.Lock()
	defer s.mu.Unlock()
	where := func(ts []*torch.Tensor) (ds []torch.Device) {
		for _, t := range ts {
			if t != nil {
				ds = append(ds, s.of(t))
			}
		}
		return ds
	}
	s.Runs = append(s.Runs, SimulatedRun{m.name, m.device, where(given), where(in)})
	for _, t := range out {
		s.where.Store(t, m.device)
	}
}

// Places is where a device map for two GPUs puts the tensors of a checkpoint's model, before ties are considered.
func Places(t *testing.T, path string, m DeviceMap) (map[string]string, error) {
	Simulate(t, torch.CPU, torch.CPU)
	l, err := prepare(t.Context(), path, Options{DeviceMap: DeviceMap{"": "cpu"}}, false)
	if err != nil {
		return nil, err
	}
	defer l.close()
	defer l.model.Close()
	placed := map[string]string{}
	entries, err := l.entries(m)
	for name := range l.slots {
		if p, ok := longest(entries, name); ok {
			placed[name] = p.String()
		}
	}
	return placed, err
}

// Ahead are the weights that are being brought in before they are asked for.
func Ahead(m Model) (names []string) {
	defer m.base().lock()()
	for _, w := range m.base().dispatch.weights {
		if w.ahead {
			names = append(names, w.name)
		}
	}
	return names
}
