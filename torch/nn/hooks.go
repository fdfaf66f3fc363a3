package nn

import (
	"fmt"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/torchgo/torchgo/torch"
)

// Hooks is embedded in every layer, and may be in any module: it holds what RegisterForwardHook and its kin
// add. A module's Forward gives its work to Call:
//
//	type Block struct {
//		nn.Hooks
//		Up *nn.Linear `torch:"up"`
//	}
//
//	func (b *Block) Forward(x *torch.Tensor) *torch.Tensor { return b.Call(x, b.forward) }
//
// Without hooks this costs a load and a call, and allocates nothing. A module that embeds another module which
// has Hooks shares them.
type Hooks struct {
	active atomic.Pointer[hookSet]
}

// hookSet is never changed: adding and removing replace it.
type hookSet struct {
	pre     []*preHook
	post    []*forwardHook
	backPre []*backwardPreHook
	back    []*backwardHook
	around  []*wrapper // the outermost last
}

type preHook struct {
	module any
	fn     PreHook
}

type wrapper struct {
	module any
	fn     Wrapper
}

type forwardHook struct {
	module any
	fn     ForwardHook
	always bool
}

// PreHook is called with a module and its inputs before it computes; what it returns, if not nil, takes the
// place of the inputs. An absent optional input is nil.
type PreHook func(m any, in []*torch.Tensor) []*torch.Tensor

// ForwardHook is called with a module, its inputs and its outputs; what it returns, if not nil, takes the place
// of the outputs.
type ForwardHook func(m any, in, out []*torch.Tensor) []*torch.Tensor

// Wrapper is called when a module's Forward begins, and what it returns when that ends: leave gets the outputs, or nil
// after a panic, and gives those that take their place. changed takes the place of the inputs.
type Wrapper func(m any, in []*torch.Tensor) (changed []*torch.Tensor, leave func(out []*torch.Tensor) []*torch.Tensor)

// HookOptions are the optional arguments of RegisterForwardHook and RegisterForwardPreHook.
type HookOptions struct {
	Prepend bool // before the hooks that are there
	// AlwaysCall has a forward hook called with nil outputs when Forward, or a hook before it, panics; a panic of
	// its own is then dropped.
	AlwaysCall bool
}

var hooksMutex sync.Mutex // one at a time changes hooks

type hooked interface{ hooks() *Hooks }

func (h *Hooks) hooks() *Hooks { return h }

// change replaces the hooks by what fn makes of a copy.
func (h *Hooks) change(fn func(*hookSet)) {
	hooksMutex.Lock()
	defer hooksMutex.Unlock()
	next := &hookSet{}
	if now := h.active.Load(); now != nil {
		*next = hookSet{slices.Clone(now.pre), slices.Clone(now.post), slices.Clone(now.backPre), slices.Clone(now.back), slices.Clone(now.around)}
	}
	fn(next)
	if len(next.pre)+len(next.post)+len(next.backPre)+len(next.back)+len(next.around) == 0 {
		next = nil
	}
	h.active.Store(next)
}

// copied makes the hooks of a module that was copied those of the copy, which they are called with.
func (h *Hooks) copied(to func(module any) any) {
	s := h.active.Load()
	if s == nil {
		return
	}
	h.active.Store(&hookSet{
		pre:     onto(s.pre, func(e *preHook) { e.module = to(e.module) }),
		post:    onto(s.post, func(e *forwardHook) { e.module = to(e.module) }),
		backPre: onto(s.backPre, func(e *backwardPreHook) { e.module = to(e.module) }),
		back:    onto(s.back, func(e *backwardHook) { e.module = to(e.module) }),
		around:  onto(s.around, func(e *wrapper) { e.module = to(e.module) }),
	})
}

// onto copies entries and changes the copies.
func onto[E any](entries []*E, change func(*E)) []*E {
	copies := make([]*E, len(entries))
	for i, e := range entries {
		c := *e
		change(&c)
		copies[i] = &c
	}
	return copies
}

func hooksOf(m any) *Hooks {
	h, ok := m.(hooked)
	if !ok {
		panic(fmt.Sprintf("nn: a %T takes no hooks: embed nn.Hooks in it", m))
	}
	return h.hooks()
}

// add puts entry in list, and returns a function that takes it out.
func add[E comparable](h *Hooks, list func(*hookSet) *[]E, entry E, prepend bool) (remove func()) {
	h.change(func(s *hookSet) {
		at := len(*list(s))
		if prepend {
			at = 0
		}
		*list(s) = slices.Insert(*list(s), at, entry)
	})
	return func() {
		h.change(func(s *hookSet) {
			*list(s) = slices.DeleteFunc(*list(s), func(e E) bool { return e == entry })
		})
	}
}

// RegisterForwardPreHook has fn called before each Forward of m (register_forward_pre_hook). m is a module that
// embeds Hooks, as all of this package do. remove takes the hook off again.
func RegisterForwardPreHook(m any, fn PreHook, opts ...HookOptions) (remove func()) {
	var o HookOptions
	if len(opts) > 0 {
		o = opts[0]
	}
	return add(hooksOf(m), func(s *hookSet) *[]*preHook { return &s.pre }, &preHook{m, fn}, o.Prepend)
}

// RegisterForwardHook has fn called after each Forward of m (register_forward_hook). m is a module that embeds
// Hooks, as all of this package do. remove takes the hook off again.
func RegisterForwardHook(m any, fn ForwardHook, opts ...HookOptions) (remove func()) {
	var o HookOptions
	if len(opts) > 0 {
		o = opts[0]
	}
	return add(hooksOf(m), func(s *hookSet) *[]*forwardHook { return &s.post }, &forwardHook{m, fn, o.AlwaysCall}, o.Prepend)
}

// WrapForward has fn around each Forward of m, which must be Wrappable, within its hooks and in a scope: what Python
// does by another forward in the instance. Unlike a pair of hooks, the two halves know each other, and the second is
// called if and only if the first was. A later one goes around the earlier ones. remove takes fn off again.
func WrapForward(m any, fn Wrapper) (remove func()) {
	return add(hooksOf(m), func(s *hookSet) *[]*wrapper { return &s.around }, &wrapper{m, fn}, false)
}

// Wrappable tells whether m embeds Hooks, as hooks and WrapForward need it.
func Wrappable(m any) bool {
	_, ok := m.(hooked)
	return ok
}

// Call runs forward with the hooks around it: what a module with one input and one output has for Forward.
func (h *Hooks) Call(x *torch.Tensor, forward func(*torch.Tensor) *torch.Tensor) *torch.Tensor {
	s := h.active.Load()
	if s == nil {
		return forward(x)
	}
	return s.run([]*torch.Tensor{x}, func(in []*torch.Tensor) []*torch.Tensor {
		return []*torch.Tensor{forward(in[0])}
	})[0]
}

// CallAll is Call for any number of inputs and outputs; an absent optional input is nil.
func (h *Hooks) CallAll(in []*torch.Tensor, forward func(in []*torch.Tensor) []*torch.Tensor) []*torch.Tensor {
	s := h.active.Load()
	if s == nil {
		return forward(in)
	}
	return s.run(in, forward)
}

// call2 is Call for two inputs.
func (h *Hooks) call2(x, y *torch.Tensor, forward func(x, y *torch.Tensor) *torch.Tensor) *torch.Tensor {
	s := h.active.Load()
	if s == nil {
		return forward(x, y)
	}
	return s.run([]*torch.Tensor{x, y}, func(in []*torch.Tensor) []*torch.Tensor {
		return []*torch.Tensor{forward(in[0], in[1])}
	})[0]
}

// call3 is Call for three inputs.
func (h *Hooks) call3(x, y, z *torch.Tensor, forward func(x, y, z *torch.Tensor) *torch.Tensor) *torch.Tensor {
	s := h.active.Load()
	if s == nil {
		return forward(x, y, z)
	}
	return s.run([]*torch.Tensor{x, y, z}, func(in []*torch.Tensor) []*torch.Tensor {
		return []*torch.Tensor{forward(in[0], in[1], in[2])}
	})[0]
}

// run is one forward pass with hooks.
func (s *hookSet) run(in []*torch.Tensor, forward func([]*torch.Tensor) []*torch.Tensor) []*torch.Tensor {
	next := 0 // of s.post
	defer func() {
		if next == len(s.post) {
			return
		}
		for _, h := range s.post[next:] { // there was a panic
			if h.always {
				h.afterPanic(in)
			}
		}
	}()
	for _, h := range s.pre {
		if changed := h.fn(h.module, in); changed != nil {
			in = replace("inputs", h.module, in, changed)
		}
	}
	var b *backward
	if len(s.backPre)+len(s.back) > 0 {
		b = &backward{pre: s.backPre, post: s.back, inputs: len(in)}
		in = b.enter(in)
	}
	var out []*torch.Tensor
	if len(s.around) == 0 {
		out = forward(in)
	} else {
		out = torch.ScopeOf(func() []*torch.Tensor { return s.wrapped(len(s.around), in, forward) })
	}
	for _, h := range s.post {
		next++
		if changed := h.fn(h.module, in, out); changed != nil {
			out = replace("outputs", h.module, out, changed)
		}
	}
	if b != nil {
		out = b.leave(out)
	}
	return out
}

// wrapped runs forward in the first n wrappers.
func (s *hookSet) wrapped(n int, in []*torch.Tensor, forward func([]*torch.Tensor) []*torch.Tensor) (out []*torch.Tensor) {
	if n == 0 {
		return forward(in)
	}
	w := s.around[n-1]
	changed, leave := w.fn(w.module, in)
	completed := false
	defer func() {
		if !completed {
			leave(nil)
		}
	}()
	out = s.wrapped(n-1, replace("inputs", w.module, in, changed), forward)
	completed = true
	return replace("outputs", w.module, out, leave(out))
}

func (h *forwardHook) afterPanic(in []*torch.Tensor) {
	defer func() { _ = recover() }()
	h.fn(h.module, in, nil)
}

func replace(what string, m any, old, changed []*torch.Tensor) []*torch.Tensor {
	if len(changed) != len(old) {
		fail("hook", "a hook of a %T returned %d %s, want %d", m, len(changed), what, len(old))
	}
	return changed
}
