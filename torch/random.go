package torch

import (
	"runtime"

	"github.com/torchgo/torchgo/cgo"
)

// ManualSeed seeds the default generators of all devices (torch.manual_seed). The numbers that
// follow are PyTorch's for the same seed and operators.
func ManualSeed(seed uint64) {
	load("manual_seed")
	must("manual_seed", cgo.ManualSeed(seed))
}

// Generator is a source of random numbers. It must not be used by two operators at a time.
type Generator struct{ handle cgo.Generator }

// NewGenerator makes a generator for a device (torch.Generator).
func NewGenerator(device Device, seed uint64) *Generator {
	const op = "generator"
	load(op)
	if device == (Device{}) {
		device = CPU
	}
	kind, index := device.c10(op)
	handle, err := cgo.GeneratorNew(kind, index, seed)
	must(op, err)
	return ownGenerator(handle)
}

// DefaultGenerator is the generator that operators of a device use where none is given.
func DefaultGenerator(device Device) *Generator {
	const op = "default_generator"
	load(op)
	if device == (Device{}) {
		device = CPU
	}
	handle, err := cgo.GeneratorDefault(device.c10(op))
	must(op, err)
	return ownGenerator(handle)
}

func ownGenerator(handle cgo.Generator) *Generator {
	g := &Generator{handle: handle}
	runtime.AddCleanup(g, func(h cgo.Generator) { _ = cgo.GeneratorFree(h) }, handle)
	return g
}

func (g *Generator) check(op string) {
	if g == nil {
		invalid(op, "generator is nil")
	}
}

// ManualSeed seeds the generator.
func (g *Generator) ManualSeed(seed uint64) {
	g.check("manual_seed")
	defer runtime.KeepAlive(g)
	must("manual_seed", cgo.GeneratorSeed(g.handle, seed))
}

// State is the generator's state as a uint8 tensor, for [Generator.SetState].
func (g *Generator) State() *Tensor {
	g.check("get_state")
	defer runtime.KeepAlive(g)
	h, err := cgo.GeneratorState(g.handle)
	must("get_state", err)
	return wrapHere("get_state", h)
}

// SetState restores what [Generator.State] returned.
func (g *Generator) SetState(state *Tensor) {
	g.check("set_state")
	defer runtime.KeepAlive(g)
	state.borrow("set_state", func(h cgo.Tensor) error { return cgo.GeneratorSetState(g.handle, h) })
}

// RNGState is the state of the CPU's default generator (torch.get_rng_state).
func RNGState() *Tensor {
	load("get_rng_state")
	return (&Generator{}).State()
}

// SetRNGState restores what [RNGState] returned (torch.set_rng_state).
func SetRNGState(state *Tensor) {
	load("set_rng_state")
	(&Generator{}).SetState(state)
}
