package torch

import (
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/torchgo/torchgo/cgo"
)

// CheckpointOptions are the options of [Checkpoint].
type CheckpointOptions struct {
	// PreserveRNGState has the second run draw the same random numbers as the first; default true. The
	// state is that of the CPU's default generator and of the generators of the devices that the inputs
	// are on. It is the process's: what other goroutines draw meanwhile is not separate from it.
	PreserveRNGState Opt[bool]
}

// Checkpoint runs fn on x like fn(x), but saves nothing for backward except x: backward runs fn a second
// time to get what it needs (torch.utils.checkpoint with use_reentrant=False), which trades time for
// memory. The second run has the random numbers and the [Autocast] of the first, so the gradients are the
// same to the last bit, if fn does the same the second time. It nests.
//
// fn must not depend on tensors that a scope will have freed by then, except x.
func Checkpoint(fn func(x *Tensor) *Tensor, x *Tensor, opts ...CheckpointOptions) *Tensor {
	return CheckpointAll(func(in []*Tensor) []*Tensor { return []*Tensor{fn(in[0])} }, []*Tensor{x}, opts...)[0]
}

// CheckpointAll is [Checkpoint] for several inputs, of which some may be nil, and outputs.
func CheckpointAll(fn func(inputs []*Tensor) []*Tensor, inputs []*Tensor, opts ...CheckpointOptions) []*Tensor {
	const op = "checkpoint"
	if !GradEnabled() {
		return fn(inputs)
	}
	f := &checkpoint{fn: fn, passes: map[int]*recomputation{}, precision: precisions()}
	if one(opts).PreserveRNGState.Or(true) {
		f.random = captureRandom(inputs)
	}
	completed := false
	defer func() {
		if !completed {
			f.free()
		}
	}()
	for _, x := range inputs {
		var s cgo.Saved
		if x != nil {
			x.borrow(op, func(h cgo.Tensor) (err error) {
				s, err = cgo.SavedNew(h)
				return err
			})
		}
		f.inputs = append(f.inputs, s)
	}
	var outputs []*Tensor
	withSavedHooks(&savedHooks{f.pack, f.unpack}, func() { outputs = fn(inputs) })
	completed = true
	f.mutex.Lock()
	f.completed = true
	unused := f.holders == 0
	f.mutex.Unlock()
	if unused {
		f.free()
	}
	return outputs
}

// checkpoint is a function that backward will run again.
type checkpoint struct {
	fn     func([]*Tensor) []*Tensor
	inputs []cgo.Saved
	random []randomState
	// precision is autocast's state for the kinds of devices.
	precision map[DeviceType]AutocastOptions

	mutex     sync.Mutex
	completed bool       // the first run has
	saved     []metadata // of what the first run saved, in order
	holders   int        // of these, those that the graph still has
	passes    map[int]*recomputation
}

// metadata of a saved tensor is compared with that of the second run.
type metadata struct {
	shape  []int
	dtype  DType
	device Device
}

func metadataOf(t *Tensor) metadata { return metadata{t.Shape(), t.DType(), t.Device()} }

func (m metadata) equal(o metadata) bool {
	return slices.Equal(m.shape, o.shape) && m.dtype == o.dtype && m.device == o.device
}

func (m metadata) String() string {
	return fmt.Sprintf("{shape: %v, dtype: %v, device: %v}", Shape(m.shape), m.dtype, m.device)
}

// recomputation is a second run, for one backward pass.
type recomputation struct {
	once    sync.Mutex // held while it runs
	done    bool
	tensors map[int]*Tensor // what it saved, until it is unpacked; under the checkpoint's mutex
	count   int             // how many it saved
}

// holder stands in the graph for a tensor that was not saved.
type holder struct {
	*checkpoint
	index int
}

func (f *checkpoint) pack(t *Tensor) any {
	f.mutex.Lock()
	defer f.mutex.Unlock()
	f.saved = append(f.saved, metadataOf(t))
	f.holders++
	return holder{f, len(f.saved) - 1}
}

func (f *checkpoint) unpack(v any) *Tensor {
	h := v.(holder)
	pass, err := cgo.BackwardPass()
	must("checkpoint", err)
	f.mutex.Lock()
	r := f.passes[pass]
	if r == nil || pass < 0 {
		r = &recomputation{}
		f.passes[pass] = r
	}
	f.mutex.Unlock()
	r.once.Lock()
	defer r.once.Unlock()
	if !r.done {
		f.recompute(r)
		r.done = true
	}
	t := f.take(r, h.index)
	if t == nil {
		panic(&Error{Kind: ErrRuntime, Message: "torch.utils.checkpoint: Unpack is being triggered for a tensor that was already unpacked once."})
	}
	return t.adopt()
}

// take removes a tensor from what a second run saved; nil if it isn't there.
func (f *checkpoint) take(r *recomputation, index int) *Tensor {
	f.mutex.Lock()
	defer f.mutex.Unlock()
	t := r.tensors[index]
	delete(r.tensors, index)
	return t
}

// adopt moves a kept tensor to the scope of this goroutine.
func (t *Tensor) adopt() *Tensor {
	var h cgo.Tensor
	t.borrow("adopt", func(mine cgo.Tensor) (err error) {
		h, err = cgo.TensorRetain(mine)
		return err
	})
	t.Close()
	return wrapHere("adopt", h)
}

// recompute runs the function again and keeps what it saves.
func (f *checkpoint) recompute(r *recomputation) {
	r.count, r.tensors = 0, map[int]*Tensor{}
	pack := func(t *Tensor) any {
		f.mutex.Lock()
		defer f.mutex.Unlock()
		i := r.count
		r.count++
		if i >= len(f.saved) {
			if f.completed {
				panic(&Error{Kind: ErrRuntime, Message: "torch.utils.checkpoint: trying to save more tensors during recomputation than during the original forward pass."})
			}
			return t // backward runs inside the function
		}
		Keep(t)
		r.tensors[i] = t
		return i
	}
	unpack := func(v any) *Tensor {
		if t, ok := v.(*Tensor); ok {
			return t
		}
		f.mutex.Lock()
		defer f.mutex.Unlock()
		return r.tensors[v.(int)]
	}
	Scope(func() {
		inputs := make([]*Tensor, len(f.inputs))
		for i, s := range f.inputs {
			if s != 0 {
				h, err := cgo.SavedUnpack(s)
				must("checkpoint", err)
				inputs[i] = wrapHere("checkpoint", h)
			}
		}
		run := func() { withSavedHooks(&savedHooks{pack, unpack}, func() { f.fn(inputs) }) }
		for kind, o := range f.precision {
			inner := run
			run = func() { Autocast(kind, o, inner) }
		}
		withRandom(f.random, func() { EnableGrad(run) })
	})
	f.mutex.Lock()
	defer f.mutex.Unlock()
	if f.completed {
		f.check(r)
	}
}

// check compares the second run with the first.
func (f *checkpoint) check(r *recomputation) {
	if r.count != len(f.saved) {
		panic(&Error{Kind: ErrRuntime, Message: fmt.Sprintf("torch.utils.checkpoint: A different number of tensors was saved during the original forward and recomputation. "+
			"Number of tensors saved during forward: %d. Number of tensors saved during recomputation: %d.", len(f.saved), r.count)})
	}
	var differ error
	for i, want := range f.saved {
		if t := r.tensors[i]; t != nil {
			if have := metadataOf(t); !have.equal(want) {
				differ = errors.Join(differ, fmt.Errorf("tensor at position %d: saved metadata: %v, recomputed metadata: %v", i, want, have))
			}
		}
	}
	if differ != nil {
		panic(&Error{Kind: ErrRuntime, Message: "torch.utils.checkpoint: Recomputed values for the following tensors have different metadata than during the forward pass. " + differ.Error()})
	}
}

// release is called when the graph has let a holder go.
func (h holder) release() {
	f := h.checkpoint
	f.mutex.Lock()
	f.holders--
	last := f.holders == 0 && f.completed
	var gone []*Tensor
	for _, r := range f.passes {
		if t := r.tensors[h.index]; t != nil {
			gone = append(gone, t)
			delete(r.tensors, h.index)
		}
	}
	f.mutex.Unlock()
	for _, t := range gone {
		t.Close()
	}
	if last {
		f.free()
	}
}

func (f *checkpoint) free() {
	for _, s := range f.inputs {
		if s != 0 {
			_ = cgo.SavedFree(s) // fails for 0 only
		}
	}
	f.inputs = nil
	for _, s := range f.random {
		s.tensor.Close()
	}
	f.random = nil
}

// precisions is autocast's state in this thread.
func precisions() map[DeviceType]AutocastOptions {
	all := map[DeviceType]AutocastOptions{}
	for _, kind := range []DeviceType{DeviceCPU, DeviceCUDA} {
		on, dtype, cache := autocast(kind)
		all[kind] = AutocastOptions{Enabled: Some(on), DType: dtype, CacheEnabled: Some(cache)}
	}
	return all
}

// randomState is the state of a device's default generator.
type randomState struct {
	device Device
	tensor *Tensor
}

// captureRandom is the state of the CPU's generator and of those of the tensors' devices.
func captureRandom(tensors []*Tensor) []randomState {
	devices := []Device{CPU}
	for _, t := range tensors {
		if t != nil && t.Device().Type == DeviceCUDA && !slices.Contains(devices, t.Device()) {
			devices = append(devices, t.Device())
		}
	}
	states := make([]randomState, len(devices))
	for i, d := range devices {
		states[i] = randomState{d, DefaultGenerator(d).State()}
		Keep(states[i].tensor)
	}
	return states
}

func setRandom(states []randomState) {
	for _, s := range states {
		DefaultGenerator(s.device).SetState(s.tensor)
	}
}

// withRandom runs fn with generators in a state that they had before, and sets them back.
func withRandom(states []randomState, fn func()) {
	if len(states) == 0 {
		fn()
		return
	}
	now := make([]randomState, len(states))
	for i, s := range states {
		now[i] = randomState{s.device, DefaultGenerator(s.device).State()}
	}
	setRandom(states)
	defer setRandom(now)
	fn()
}
