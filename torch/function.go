package torch

import (
	"fmt"
	"reflect"

	"github.com/torchgo/torchgo/cgo"
)

// Function is an operation with a gradient of its own (torch.autograd.Function). [Apply] runs it. Its
// fields are its parameters:
//
//	type Scale struct{ By float64 }
//
//	func (f Scale) Forward(ctx *torch.FunctionCtx, inputs ...*torch.Tensor) []*torch.Tensor {
//		return []*torch.Tensor{inputs[0].MulScalar(f.By)}
//	}
//
//	func (f Scale) Backward(ctx *torch.FunctionCtx, grads ...*torch.Tensor) []*torch.Tensor {
//		return []*torch.Tensor{grads[0].MulScalar(f.By)}
//	}
//
//	y := torch.Apply(Scale{By: 2}, x)[0]
//
// Each of the two runs in a scope of its own: what outlives it is returned, saved with
// [FunctionCtx.Save], or kept ([Keep]).
type Function interface {
	// Forward computes the outputs, with autograd off. A nil output is none.
	Forward(ctx *FunctionCtx, inputs ...*Tensor) []*Tensor
	// Backward gets the gradient of the loss with respect to each output and returns that with respect
	// to each input, of the input's shape, or nil where it is zero or not needed. With CreateGraph
	// autograd is on, so that a Backward of differentiable operators can be differentiated again. It may
	// run on another goroutine's thread, and for several backward passes at a time.
	Backward(ctx *FunctionCtx, grads ...*Tensor) []*Tensor
}

// FunctionCtx goes from a [Function]'s Forward to its Backward.
type FunctionCtx struct {
	// Value is for what Backward needs besides tensors. Tensors in it are freed unless kept, and escape
	// autograd's checks: save those with [FunctionCtx.Save].
	Value any

	needs           []bool
	saved           []*Tensor
	dirty, constant []*Tensor
	undefined       bool // gradients stay nil
}

// Save keeps inputs, outputs or other tensors (or nil) for Backward (ctx.save_for_backward). One that is
// changed in place afterwards is an error there; hooks of [SavedTensorHooks] apply. A second call replaces
// what the first has saved.
func (c *FunctionCtx) Save(tensors ...*Tensor) { c.saved = append([]*Tensor{}, tensors...) }

// Saved is what was saved, for Backward (ctx.saved_tensors).
func (c *FunctionCtx) Saved() []*Tensor { return c.saved }

// NeedsInputGrad tells whether the gradient of input i is wanted (ctx.needs_input_grad). Backward may
// return nil for the others. In Backward it knows which gradients this pass asks for.
func (c *FunctionCtx) NeedsInputGrad(i int) bool { return c.needs[i] }

// MarkDirty names inputs that Forward has changed in place (ctx.mark_dirty). They must be outputs, too.
func (c *FunctionCtx) MarkDirty(inputs ...*Tensor) { c.dirty = append([]*Tensor{}, inputs...) }

// MarkNonDifferentiable names outputs that have no gradient (ctx.mark_non_differentiable), as outputs of
// integer dtype never do.
func (c *FunctionCtx) MarkNonDifferentiable(outputs ...*Tensor) {
	c.constant = append([]*Tensor{}, outputs...)
}

// SetMaterializeGrads says whether Backward gets zeros for the gradient of an output that was not used
// (true, the default) or nil (ctx.set_materialize_grads).
func (c *FunctionCtx) SetMaterializeGrads(on bool) { c.undefined = !on }

// applied is a function in the graph.
type applied struct {
	Function
	name    string // of the node, "ScaleBackward"
	value   any
	inputs  []bool // which were tensors, not nil
	outputs int
}

func functionName(f Function) string {
	t := reflect.TypeOf(f)
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	if t.Name() == "" {
		return "Function"
	}
	return t.Name()
}

// Apply runs f and returns its outputs (Function.apply). An input may be nil. The node in the graph has
// the name of f's type, "ScaleBackward".
func Apply(f Function, inputs ...*Tensor) []*Tensor {
	if f == nil {
		invalid("apply", "the function is nil")
	}
	op := functionName(f)
	load(op)
	node := &applied{Function: f, name: op + "Backward", inputs: make([]bool, len(inputs))}
	ctx := &FunctionCtx{needs: make([]bool, len(inputs))}
	records := GradEnabled()
	for i, x := range inputs {
		node.inputs[i] = x != nil
		ctx.needs[i] = records && x != nil && x.RequiresGrad()
	}
	var found []uint64
	Scope(func() {
		var outputs []*Tensor
		NoGrad(func() { outputs = f.Forward(ctx, inputs...) })
		node.outputs, node.value = len(outputs), ctx.Value
		parts := cgo.FunctionParts{Inputs: len(inputs), Outputs: len(outputs), Saved: len(ctx.saved),
			Dirty: len(ctx.dirty), Constant: len(ctx.constant)}
		var all []*Tensor
		for _, list := range [][]*Tensor{inputs, outputs, ctx.saved, ctx.dirty, ctx.constant} {
			all = append(all, list...)
		}
		words, done := handles(op, all)
		defer done()
		found = make([]uint64, len(outputs))
		id := hold(node)
		if err := cgo.FunctionApply(id, node.name, words, parts, !ctx.undefined, site(), found); err != nil {
			unhold(id)
			e := wrap(op, err)
			for _, h := range words[:len(inputs)] {
				e.Shapes = append(e.Shapes, shapeOf(cgo.Tensor(h)))
			}
			panic(e)
		}
	})
	results := make([]*Tensor, len(found))
	for i, h := range found {
		results[i] = wrapHere(op, cgo.Tensor(h))
	}
	drainReleased() // if nothing was recorded, the node is gone
	return results
}

func (n *applied) what() string { return n.name }

// call runs Backward: its tensors are the gradients of the outputs and what was saved.
func (n *applied) call(_ *scope, in []*Tensor, out []uint64) {
	ctx := &FunctionCtx{Value: n.value, needs: make([]bool, len(out)), saved: in[n.outputs:]}
	for i, wanted := range out {
		ctx.needs[i] = wanted != 0
	}
	grads := n.Backward(ctx, in[:n.outputs:n.outputs]...)
	for len(grads) > len(out) && grads[len(grads)-1] == nil {
		grads = grads[:len(grads)-1]
	}
	fail := func(format string, args ...any) {
		panic(&Error{Kind: ErrRuntime, Message: "function " + n.name + " returned " + fmt.Sprintf(format, args...)})
	}
	if len(grads) != len(out) {
		fail("an incorrect number of gradients (expected %d, got %d)", len(out), len(grads))
	}
	for i, g := range grads {
		if g != nil && !n.inputs[i] {
			fail("a gradient different than nil at position %d, but the corresponding forward input was nil", i+1)
		}
	}
	give(n.name, grads, out)
}
