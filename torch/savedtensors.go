package torch

import (
	"reflect"

	"github.com/torchgo/torchgo/cgo"
)

// savedHooks pack the tensors that autograd saves, and unpack them.
type savedHooks struct {
	pack   func(*Tensor) any
	unpack func(any) *Tensor
}

// packed is a saved tensor that was packed. Its own are the tensors that packing made.
type packed struct {
	value any
	hooks *savedHooks
	own   []*Tensor
}

func (h *savedHooks) what() string { return "the pack hook of a saved tensor" }

func (h *savedHooks) call(s *scope, in []*Tensor, out []uint64) {
	p := &packed{value: h.pack(in[0]), hooks: h}
	eachTensor(reflect.ValueOf(&p.value).Elem(), map[visit]bool{}, func(t *Tensor) {
		if t != nil && t.scope == s {
			s.tensors[t.index], t.scope = nil, nil
			p.own = append(p.own, t)
		}
	})
	out[0] = hold(p)
}

func (p *packed) what() string { return "the unpack hook of a saved tensor" }

func (p *packed) call(_ *scope, _ []*Tensor, out []uint64) {
	t := p.hooks.unpack(p.value)
	if t == nil {
		invalid("unpack", "the hook returned nil in place of the tensor")
	}
	give("unpack", []*Tensor{t}, out)
}

// release is called when autograd has let the tensor go.
func (p *packed) release() {
	if r, ok := p.value.(interface{ release() }); ok {
		r.release()
	}
	for _, t := range p.own {
		t.Close()
	}
}

// SavedTensorHooks runs fn, in which whatever operators save for backward is packed, and unpacked when
// backward needs it (torch.autograd.graph.saved_tensors_hooks). unpack must return a tensor of the same
// values, shape, dtype and device. Of nested hooks the innermost are used. They are those of this goroutine,
// of backward passes that it starts inside, and of goroutines that it starts with [Go].
//
// pack runs with autograd off, inside the operator; it must not change t. Both hooks run in scopes of their
// own; tensors that pack returns (found as [ScopeOf] finds them) live as long as the graph needs them. A
// panic in pack becomes the operator's error, one in unpack that of Backward.
func SavedTensorHooks[P any](pack func(t *Tensor) P, unpack func(p P) *Tensor, fn func()) {
	withSavedHooks(&savedHooks{
		func(t *Tensor) any { return pack(t) },
		func(v any) *Tensor {
			p, _ := v.(P) // a nil interface is not a P
			return unpack(p)
		},
	}, fn)
}

func withSavedHooks(hooks *savedHooks, fn func()) {
	openCalls.Add(1)
	defer openCalls.Add(-1)
	defer drainReleased()
	guarded(func(token uint64) (cgo.Guard, error) {
		id := hold(hooks)
		g, err := cgo.SavedHooksEnter(token, id, "")
		if err != nil {
			unhold(id)
		}
		return g, err
	}, false, fn, nil)
}

// DisableSavedTensorHooks runs fn, in which [SavedTensorHooks] and what is built on it fail with the message
// (torch.autograd.graph.disable_saved_tensors_hooks). It fails itself where hooks are in force.
func DisableSavedTensorHooks(message string, fn func()) {
	guarded(func(token uint64) (cgo.Guard, error) { return cgo.SavedHooksEnter(token, 0, message) }, false, fn, nil)
}

// SaveOnCPUOptions are the options of [SaveOnCPU].
type SaveOnCPUOptions struct {
	PinMemory bool // keep them in page-locked memory and copy without waiting, if there is a CUDA device
}

// onCPU is a saved tensor that was moved to the CPU.
type onCPU struct {
	Device Device
	Tensor *Tensor
}

// SaveOnCPU runs fn; what it saves for backward is kept on the CPU and copied back to its device when
// backward needs it (torch.autograd.graph.save_on_cpu): device memory for time. Tensors of the CPU are not
// copied.
func SaveOnCPU(fn func(), opts ...SaveOnCPUOptions) {
	pin := one(opts).PinMemory && CUDADeviceCount() > 0
	SavedTensorHooks(
		func(t *Tensor) onCPU {
			if !pin || t.Layout() != Strided {
				return onCPU{t.Device(), t.To(CPU)}
			}
			host := Empty(t.Shape(), EmptyOptions{DType: t.DType(), PinMemory: true})
			return onCPU{t.Device(), host.Copy_(t, CopyOptions{NonBlocking: true})}
		},
		func(p onCPU) *Tensor { return p.Tensor.To(p.Device, ToOptions{NonBlocking: pin}) },
		fn)
}
