package torch

import (
	"fmt"
	"runtime/debug"

	"github.com/torchgo/torchgo/cgo"
)

// callback is what libtorch calls by the number that [hold] gave it.
type callback interface {
	// call gets its tensors in a scope of its own. It writes results that libtorch takes over into out,
	// which on entry says which are wanted; see tg_hook_fn of torchgo.h.
	call(s *scope, in []*Tensor, out []uint64)
	// what is its name in errors.
	what() string
}

// failure is an error of a callback, held until the error of the call to libtorch arrives in Go.
type failure struct {
	err   error
	stack string
}

// runCallback is called by libtorch, possibly on a thread of its own. A panic becomes the error of
// what called libtorch.
func runCallback(id uint64, in, out []uint64) (cause uint64, err error) {
	v, _ := holds.values.Load(id)
	c, ok := v.(callback)
	if !ok {
		_ = cgo.TensorsFree(in)
		return 0, fmt.Errorf("hook %d is gone", id)
	}
	defer func() {
		p := recover()
		if p == nil {
			return
		}
		f := &failure{}
		switch p := p.(type) {
		case *Error:
			f.err, f.stack = p, p.backtrace
		case error:
			f.err, f.stack = p, string(debug.Stack())
		default:
			f.err, f.stack = fmt.Errorf("%v", p), string(debug.Stack())
		}
		cause, err = hold(f), fmt.Errorf("in %s: %w", c.what(), f.err)
	}()
	Scope(func() {
		state, err := cgo.State()
		must("hook", err)
		args := make([]*Tensor, len(in))
		for i, h := range in {
			if h != 0 {
				args[i] = newTensor(cgo.Tensor(h), 0, state.Scope)
			}
		}
		c.call(scopeOf(state.Scope), args, out)
	})
	return 0, nil
}

// takeFailure is the error that a callback failed with; nil if there is none.
func takeFailure(cause uint64) *failure {
	v, ok := holds.values.LoadAndDelete(cause)
	if !ok {
		return nil
	}
	holds.count.Add(-1)
	f, _ := v.(*failure)
	return f
}

// give hands references to results to libtorch; nil is the undefined tensor.
func give(op string, results []*Tensor, out []uint64) {
	words, done := handles(op, results)
	defer done()
	given := make([]uint64, len(words))
	for i, w := range words {
		if w == 0 {
			continue
		}
		h, err := cgo.TensorRetain(cgo.Tensor(w))
		if err != nil {
			_ = cgo.TensorsFree(given[:i])
			panic(wrap(op, err))
		}
		given[i] = uint64(h)
	}
	copy(out, given)
}

// hook is a hook of a tensor's gradient.
type hook func(grad *Tensor) *Tensor

func (fn hook) what() string { return "a hook" }

func (fn hook) call(_ *scope, in []*Tensor, out []uint64) { give("hook", []*Tensor{fn(in[0])}, out) }

// accumulatedHook is a hook that runs when a gradient has been accumulated.
type accumulatedHook func(t *Tensor)

func (fn accumulatedHook) what() string { return "a hook" }

func (fn accumulatedHook) call(_ *scope, in []*Tensor, out []uint64) { fn(in[0]) }
