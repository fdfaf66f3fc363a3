package nn

import (
	"slices"
	"sync"

	"github.com/torchgo/torchgo/torch"
)

// BackwardHook is called with a module and the gradients of its inputs and its outputs when those of the inputs
// have been computed; what it returns, if not nil, takes the place of the inputs' gradients in what follows. The
// gradient of an input that requires none is zero, that of an absent one nil. The gradients belong to the hook's
// scope.
type BackwardHook func(m any, gradIn, gradOut []*torch.Tensor) []*torch.Tensor

// BackwardPreHook is called with a module and the gradients of its outputs before the module's own gradients are
// computed; what it returns, if not nil, takes their place.
type BackwardPreHook func(m any, gradOut []*torch.Tensor) []*torch.Tensor

type backwardHook struct {
	module any
	fn     BackwardHook
}

type backwardPreHook struct {
	module any
	fn     BackwardPreHook
}

// RegisterFullBackwardHook has fn called in each backward pass through m (register_full_backward_hook). m is a
// module that embeds Hooks, as all of this package do. Where no input requires a gradient, fn is called when the
// gradients of the outputs are known, and must return nil. Inputs and outputs are not to be changed in place
// while such hooks are there. remove takes the hook off again.
func RegisterFullBackwardHook(m any, fn BackwardHook, opts ...HookOptions) (remove func()) {
	var o HookOptions
	if len(opts) > 0 {
		o = opts[0]
	}
	return add(hooksOf(m), func(s *hookSet) *[]*backwardHook { return &s.back }, &backwardHook{m, fn}, o.Prepend)
}

// RegisterFullBackwardPreHook has fn called before each backward pass through m
// (register_full_backward_pre_hook). The rest is as in [RegisterFullBackwardHook].
func RegisterFullBackwardPreHook(m any, fn BackwardPreHook, opts ...HookOptions) (remove func()) {
	var o HookOptions
	if len(opts) > 0 {
		o = opts[0]
	}
	return add(hooksOf(m), func(s *hookSet) *[]*backwardPreHook { return &s.backPre }, &backwardPreHook{m, fn}, o.Prepend)
}

// backward is one forward pass's hooks of the backward pass. Its nodes in the graph, which change nothing else,
// stand before and after what the module computes.
type backward struct {
	pre    []*backwardPreHook
	post   []*backwardHook
	inputs int  // of the module
	inside bool // an input requires a gradient, so there is a node before

	mutex   sync.Mutex
	gradOut []*torch.Tensor // between the two nodes
}

// passes is a node of the graph that hands on what it gets, and the gradients through fn.
type passes struct {
	fn func(grads []*torch.Tensor) []*torch.Tensor
}

func (passes) Forward(ctx *torch.FunctionCtx, in ...*torch.Tensor) []*torch.Tensor {
	var constant []*torch.Tensor
	for i, x := range in {
		if x != nil && !ctx.NeedsInputGrad(i) {
			constant = append(constant, x)
		}
	}
	ctx.MarkNonDifferentiable(constant...)
	return in
}

func (p passes) Backward(ctx *torch.FunctionCtx, grads ...*torch.Tensor) []*torch.Tensor {
	return p.fn(grads)
}

// apply puts a node on the tensors, if one of them requires a gradient.
func apply(ts []*torch.Tensor, fn func(grads []*torch.Tensor) []*torch.Tensor) (out []*torch.Tensor, done bool) {
	needs := func(t *torch.Tensor) bool { return t != nil && t.RequiresGrad() }
	if !torch.GradEnabled() || !slices.ContainsFunc(ts, needs) {
		return ts, false
	}
	return torch.Apply(passes{fn}, ts...), true
}

func (b *backward) enter(in []*torch.Tensor) []*torch.Tensor {
	in, b.inside = apply(in, func(gradIn []*torch.Tensor) []*torch.Tensor {
		gradOut := b.take()
		if gradOut == nil { // the gradient came some other way than through the outputs
			return gradIn
		}
		for _, h := range b.post {
			if changed := h.fn(h.module, gradIn, gradOut); changed != nil {
				gradIn = replace("gradients of inputs", h.module, gradIn, changed)
			}
		}
		return gradIn
	})
	return in
}

func (b *backward) leave(out []*torch.Tensor) []*torch.Tensor {
	out, _ = apply(out, func(gradOut []*torch.Tensor) []*torch.Tensor {
		for _, h := range b.pre {
			if changed := h.fn(h.module, gradOut); changed != nil {
				gradOut = replace("gradients of outputs", h.module, gradOut, changed)
			}
		}
		if b.inside {
			b.put(gradOut)
			return gradOut
		}
		for _, h := range b.post {
			for _, g := range h.fn(h.module, make([]*torch.Tensor, b.inputs), gradOut) {
				if g != nil {
					fail("backward_hook", "a backward hook of a %T, where no input requires a gradient, should return nil or nil for all gradients", h.module)
				}
			}
		}
		return gradOut
	})
	return out
}

// put keeps the outputs' gradients for the hooks, beyond the scope of the node's own callback.
func (b *backward) put(grads []*torch.Tensor) {
	kept := aliases(grads)
	torch.Keep(kept...)
	b.mutex.Lock()
	old := b.gradOut
	b.gradOut = kept
	b.mutex.Unlock()
	for _, g := range old { // of a pass that didn't get to the inputs
		g.Close()
	}
}

// take moves them to the scope of the caller.
func (b *backward) take() []*torch.Tensor {
	b.mutex.Lock()
	kept := b.gradOut
	b.gradOut = nil
	b.mutex.Unlock()
	if kept == nil {
		return nil
	}
	grads := aliases(kept)
	for _, g := range kept {
		g.Close()
	}
	return grads
}

func aliases(ts []*torch.Tensor) []*torch.Tensor {
	out := make([]*torch.Tensor, len(ts))
	for i, t := range ts {
		if t != nil {
			out[i] = t.Alias()
		}
	}
	return out
}
