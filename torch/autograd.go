package torch

import "github.com/torchgo/torchgo/cgo"

// RequiresGrad tells whether autograd records what is done with t.
func (t *Tensor) RequiresGrad() bool { return t.info("requires_grad").has(cgo.FlagRequiresGrad) }

// SetRequiresGrad sets that, for a leaf of floating-point or complex dtype, and returns t
// (Tensor.requires_grad_).
func (t *Tensor) SetRequiresGrad(on bool) *Tensor {
	t.borrow("requires_grad_", func(h cgo.Tensor) error { return cgo.SetRequiresGrad(h, on) })
	return t
}

// IsLeaf tells whether t was not made by an operator that autograd recorded.
func (t *Tensor) IsLeaf() bool { return t.info("is_leaf").has(cgo.FlagLeaf) }

// IsInference tells whether t was made in [Inference].
func (t *Tensor) IsInference() bool { return t.info("is_inference").has(cgo.FlagInference) }

// GradFn is the name of the autograd node that made t, "AddBackward0"; empty for a leaf.
func (t *Tensor) GradFn() (name string) {
	t.borrow("grad_fn", func(h cgo.Tensor) (err error) {
		name, err = cgo.GradFn(h)
		return err
	})
	return name
}

// Grad is the gradient that [Tensor.Backward] accumulated; nil if there is none. It shares the
// gradient's data.
func (t *Tensor) Grad() *Tensor {
	var grad cgo.Tensor
	t.borrow("grad", func(h cgo.Tensor) (err error) {
		grad, err = cgo.GradGet(h)
		return err
	})
	return wrapHere("grad", grad)
}

// wrapHere makes a tensor of a handle that no operator returned, in the scope of this goroutine.
func wrapHere(op string, handle cgo.Tensor) *Tensor {
	if handle == 0 {
		return nil
	}
	state, err := cgo.State()
	must(op, err)
	return newTensor(handle, 0, state.Scope)
}

// SetGrad replaces the gradient, of t's dtype, device and shape; nil removes it.
func (t *Tensor) SetGrad(grad *Tensor) {
	t.borrow("set_grad", func(h cgo.Tensor) error {
		if grad == nil {
			return cgo.GradSet(h, 0)
		}
		if !grad.use() {
			panic(closedError("set_grad"))
		}
		defer grad.unuse()
		return cgo.GradSet(h, grad.handle)
	})
}

// SetData makes t use the data of another tensor, keeping its place in autograd and in modules
// (t.data = other in Python).
func (t *Tensor) SetData(data *Tensor) {
	t.borrow("set_data", func(h cgo.Tensor) (err error) {
		data.borrow("set_data", func(d cgo.Tensor) error {
			err = cgo.SetData(h, d)
			return nil
		})
		return err
	})
}

// handles keeps tensors in use and gives their handles; done ends it. A nil one is 0.
func handles(op string, ts []*Tensor) (words []uint64, done func()) {
	words = make([]uint64, len(ts))
	var used []*Tensor
	done = func() {
		for _, t := range used {
			t.unuse()
		}
	}
	for i, t := range ts {
		if t == nil {
			continue
		}
		if !t.use() {
			done()
			panic(closedError(op))
		}
		used = append(used, t)
		words[i] = uint64(t.handle) // alive: done has it
	}
	return words, done
}

// computing runs fn, a call that computes for long, under a permit like a scope does.
func computing(fn func() error) error {
	if enterBusy() {
		defer func() { <-permits }()
	}
	return fn()
}

// BackwardOptions are the arguments of [Tensor.Backward] and [Backward].
type BackwardOptions struct {
	Gradients   []*Tensor // of the tensors; needed where one is no scalar. nil: ones
	Inputs      []*Tensor // leaves to accumulate into; nil: all
	RetainGraph bool      // the graph can be used again
	CreateGraph bool      // the gradients can be differentiated, which implies RetainGraph
}

// Backward accumulates the gradients of t, a scalar unless a gradient is given, in the leaves that
// it was computed from (Tensor.backward).
func (t *Tensor) Backward(opts ...BackwardOptions) { Backward([]*Tensor{t}, opts...) }

// Backward is [Tensor.Backward] for the sum of several tensors (torch.autograd.backward).
func Backward(tensors []*Tensor, opts ...BackwardOptions) {
	const op = "backward"
	load(op)
	var o BackwardOptions
	if len(opts) > 0 {
		o = opts[0]
	}
	roots, done := handles(op, tensors)
	defer done()
	inputs, done := handles(op, o.Inputs)
	defer done()
	var grads []uint64
	if o.Gradients != nil {
		var done func()
		grads, done = handles(op, o.Gradients)
		defer done()
	}
	must(op, computing(func() error {
		return cgo.Backward(roots, grads, inputs, o.RetainGraph || o.CreateGraph, o.CreateGraph)
	}))
	drainReleased()
}

// GradOptions are the arguments of [Grad].
type GradOptions struct {
	GradOutputs []*Tensor // gradients of the outputs; nil: ones
	RetainGraph bool      // the graph can be used again
	CreateGraph bool      // the gradients can be differentiated, which implies RetainGraph
	AllowUnused bool      // an input that was not used gets nil in place of an error
}

// Grad returns the gradients of the sum of outputs with respect to inputs; it accumulates nothing
// (torch.autograd.grad).
func Grad(outputs, inputs []*Tensor, opts ...GradOptions) []*Tensor {
	const op = "grad"
	load(op)
	var o GradOptions
	if len(opts) > 0 {
		o = opts[0]
	}
	outs, done := handles(op, outputs)
	defer done()
	ins, done := handles(op, inputs)
	defer done()
	var grads []uint64
	if o.GradOutputs != nil {
		var done func()
		grads, done = handles(op, o.GradOutputs)
		defer done()
	}
	found := make([]uint64, len(ins))
	must(op, computing(func() error {
		return cgo.Grad(outs, grads, ins, o.RetainGraph || o.CreateGraph, o.CreateGraph, o.AllowUnused, found)
	}))
	results := make([]*Tensor, len(found))
	for i, h := range found {
		results[i] = wrapHere(op, cgo.Tensor(h))
	}
	drainReleased()
	return results
}

// RegisterHook has fn called with the gradient of t whenever one is computed; what fn returns, if
// not nil, replaces it. Hooks of one tensor run in the order of their registration. fn runs in a scope
// of its own (see [Keep]), possibly on another thread. A panic in it becomes the error of Backward; an
// error it panicked with can be found by errors.Is and errors.As. remove takes the hook off again.
func (t *Tensor) RegisterHook(fn func(grad *Tensor) *Tensor) (remove func()) {
	if fn == nil {
		invalid("register_hook", "the hook is nil")
	}
	return t.register("register_hook", hook(fn), cgo.HookAdd, cgo.HookRemove)
}

// RegisterPostAccumulateGradHook has fn called with t, a leaf, whenever [Tensor.Backward] has
// accumulated its gradient (Tensor.register_post_accumulate_grad_hook): an optimizer step may take the
// gradient and free it here, before the next one is computed. The rest is as in [Tensor.RegisterHook].
func (t *Tensor) RegisterPostAccumulateGradHook(fn func(t *Tensor)) (remove func()) {
	if fn == nil {
		invalid("register_post_accumulate_grad_hook", "the hook is nil")
	}
	return t.register("register_post_accumulate_grad_hook", accumulatedHook(fn), cgo.AccumulatedHookAdd, cgo.AccumulatedHookRemove)
}

func (t *Tensor) register(op string, fn callback, add func(cgo.Tensor, uint64) (int, error), take func(cgo.Tensor, int) error) (remove func()) {
	drainReleased()
	id := hold(fn)
	added := false
	defer func() {
		if !added {
			unhold(id)
		}
	}()
	var number int
	t.borrow(op, func(h cgo.Tensor) (err error) {
		number, err = add(h, id)
		added = err == nil
		return err
	})
	return func() {
		t.borrow("remove_hook", func(h cgo.Tensor) error { return take(h, number) })
		drainReleased()
	}
}

// Version counts the changes in place of t's data, its views' included (Tensor._version). Autograd
// compares it to find out that a tensor it saved was changed. Tensors of [Inference] have none.
func (t *Tensor) Version() int {
	v := t.info("version").get()[cgo.InfoVersion]
	if v < 0 {
		panic(&Error{Op: "version", Kind: ErrRuntime, Message: "Inference tensors do not track version counter."})
	}
	return v
}
