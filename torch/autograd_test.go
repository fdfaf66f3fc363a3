package torch

import (
	"errors"
	"fmt"
	"io"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// param is a leaf that requires a gradient.
func param(values ...float64) *Tensor { return FromSlice(values).SetRequiresGrad(true) }

func values(t *Tensor) []float64 { return ToSlice[float64](t.Contiguous()) }

// leakFree runs fn in a scope and checks that nothing is left of it.
func leakFree(t *testing.T, fn func()) {
	t.Helper()
	before, held := LiveTensors(), holds.count.Load()
	Scope(fn)
	// What was kept is the collector's; a thread of the engine may let go a little later.
	for end := time.Now().Add(5 * time.Second); (LiveTensors() > before || holds.count.Load() > held) && time.Now().Before(end); {
		Collect()
		drainReleased()
	}
	require.LessOrEqual(t, LiveTensors(), before, "tensors are left")
	require.LessOrEqual(t, holds.count.Load(), held, "callbacks are left")
}

// The texts are libtorch's.
func TestRulesOfLeavesAndChangesInPlace(t *testing.T) {
	for name, c := range map[string]struct {
		fn   func()
		says string
	}{
		"in place on a leaf": {func() { param(1, 2).Add_(ones(2)) },
			"a leaf Variable that requires grad is being used in an in-place operation."},
		"in place on a view of a leaf": {func() { param(1, 2).View(1, 2).Add_(ones(2)) },
			"a view of a leaf Variable that requires grad is being used in an in-place operation."},
		"changed after it was saved": {func() {
			y := param(1, 2).Exp()
			z := y.Mul(y)
			y.Add_(y.Detach())
			z.Sum().Backward()
		}, "one of the variables needed for gradient computation has been modified by an inplace operation"},
		"backward twice": {func() {
			y := param(1, 2).Exp().Sum()
			y.Backward()
			y.Backward()
		}, "Trying to backward through the graph a second time"},
		"no scalar":        {func() { param(1, 2).Exp().Backward() }, "grad can be implicitly created only for scalar outputs"},
		"nothing recorded": {func() { ones(1).Sum().Backward() }, "does not require grad and does not have a grad_fn"},
		"integers": {func() { FromSlice([]int64{1}).SetRequiresGrad(true) },
			"Only Tensors of floating point and complex dtype can require gradients"},
		"not a leaf": {func() { param(1).Exp().SetRequiresGrad(false) }, "you can only change requires_grad flags of leaf variables"},
		"unused input": {func() {
			x, y := param(1), param(2)
			Grad([]*Tensor{x.Exp()}, []*Tensor{x, y})
		}, "One of the differentiated Tensors appears to not have been used in the graph."},
		"inference tensor": {func() {
			x := InferenceOf(func() *Tensor { return ones(2) })
			x.SetRequiresGrad(true)
		}, "Setting requires_grad=True on inference tensor outside InferenceMode is not allowed."},
		"hook without gradient": {func() { ones(1).RegisterHook(func(*Tensor) *Tensor { return nil }) },
			"cannot register a hook on a tensor that doesn't require gradient"},
		"hook after accumulation, without gradient": {func() { ones(1).RegisterPostAccumulateGradHook(func(*Tensor) {}) },
			"cannot register a hook on a tensor that doesn't require gradient"},
		"hook after accumulation, no leaf": {func() { param(1).Exp().RegisterPostAccumulateGradHook(func(*Tensor) {}) },
			"post accumulate grad hooks cannot be registered on non-leaf tensors"},
		"version of an inference tensor": {func() { InferenceOf(func() *Tensor { return ones(2) }).Version() },
			"Inference tensors do not track version counter."},
	} {
		t.Run(name, func(t *testing.T) {
			leakFree(t, func() {
				err := TryDo(c.fn)
				require.ErrorContains(t, err, c.says)
				require.ErrorIs(t, err, ErrRuntime)
			})
		})
	}
}

func TestVersionsAndDetach(t *testing.T) {
	leakFree(t, func() {
		x := param(1, 2, 3)
		require.Zero(t, x.Version())
		d := x.Detach()
		require.False(t, d.RequiresGrad())
		require.True(t, d.IsLeaf())
		require.Equal(t, x.StorageID(), d.StorageID())
		d.Add_(ones(3))
		require.Equal(t, 1, x.Version(), "detached tensors share the version")
		require.Equal(t, []float64{2, 3, 4}, values(d))
		NoGrad(func() { x.Select(0, 0).Mul_(FromSlice([]float64{10}).Squeeze()) })
		require.Equal(t, 2, x.Version(), "views share it, too")
		y := x.Exp()
		y.Detach_()
		require.True(t, y.IsLeaf())
		require.Empty(t, y.GradFn())
	})
}

func TestRetainGrad(t *testing.T) {
	leakFree(t, func() {
		x := param(1, 2)
		y := x.Mul(x)
		require.False(t, y.RetainsGrad())
		y.RetainGrad()
		require.True(t, y.RetainsGrad())
		y.RegisterHook(func(g *Tensor) *Tensor { return g.MulScalar(3) })
		y.Sum().Backward()
		require.Equal(t, []float64{3, 3}, values(y.Grad()), "what hooks made of it, though they came later")
		require.Equal(t, []float64{6, 12}, values(x.Grad()))
	})
}

func TestHooksRunInOrder(t *testing.T) {
	leakFree(t, func() {
		x := param(5)
		var order []string
		hook := func(name string, plus float64) func() {
			return x.RegisterHook(func(g *Tensor) *Tensor {
				order = append(order, fmt.Sprint(name, values(g)))
				return g.AddScalar(plus)
			})
		}
		hook("a", 1)
		remove := hook("b", 10)
		hook("c", 100)
		x.Mul(x).Sum().Backward()
		require.Equal(t, []string{"a[10]", "b[11]", "c[21]"}, order)
		require.Equal(t, []float64{121}, values(x.Grad()))
		remove()
		order = nil
		x.Mul(x).Sum().Backward()
		require.Equal(t, []string{"a[10]", "c[11]"}, order)
	})
}

func TestPostAccumulateGradHooks(t *testing.T) {
	leakFree(t, func() {
		x := param(3)
		var order []string
		var seen []float64
		x.RegisterHook(func(g *Tensor) *Tensor { order = append(order, "gradient"); return nil })
		x.RegisterPostAccumulateGradHook(func(p *Tensor) {
			order = append(order, "first")
			seen = append(seen, Item[float64](p.Grad()))
			require.False(t, GradEnabled())
		})
		remove := x.RegisterPostAccumulateGradHook(func(p *Tensor) { order = append(order, "second") })
		x.Mul(x).Sum().Backward()
		x.Mul(x).Sum().Backward()
		require.Equal(t, []string{"gradient", "first", "second", "gradient", "first", "second"}, order)
		require.Equal(t, []float64{6, 12}, seen, "after accumulating")
		remove()
		order = nil
		require.Len(t, Grad([]*Tensor{x.Mul(x)}, []*Tensor{x}), 1)
		require.Equal(t, []string{"gradient"}, order, "Grad accumulates nothing")
		remove() // of one that is off already does nothing

		// An optimizer step in the backward pass.
		w := param(1)
		w.RegisterPostAccumulateGradHook(func(p *Tensor) {
			p.Sub_(p.Grad().MulScalar(0.1))
			p.SetGrad(nil)
		})
		for range 3 {
			w.Mul(w).Sum().Backward()
		}
		require.Nil(t, w.Grad())
		require.InDelta(t, 0.8*0.8*0.8, Item[float64](w), 1e-15)

		w.RegisterPostAccumulateGradHook(func(p *Tensor) { panic(io.ErrUnexpectedEOF) })
		require.ErrorIs(t, TryDo(func() { w.Mul(w).Sum().Backward() }), io.ErrUnexpectedEOF)
	})
}

func TestHooksRemovedWhileTheyRun(t *testing.T) {
	leakFree(t, func() {
		x := param(1)
		calls := 0
		var remove func()
		remove = x.RegisterPostAccumulateGradHook(func(*Tensor) { calls++; remove() })
		x.RegisterPostAccumulateGradHook(func(*Tensor) { calls += 10 })
		x.Mul(x).Sum().Backward()
		x.Mul(x).Sum().Backward()
		require.Equal(t, 21, calls)
	})
}

// d^n/dx^n sin(x)
func TestHigherOrder(t *testing.T) {
	leakFree(t, func() {
		x := param(0.5, 1.5)
		y := x.Sin()
		for n, want := range []func(*Tensor) *Tensor{
			(*Tensor).Cos,
			func(t *Tensor) *Tensor { return t.Sin().Neg() },
			func(t *Tensor) *Tensor { return t.Cos().Neg() },
			(*Tensor).Sin,
		} {
			y = Grad([]*Tensor{y}, []*Tensor{x}, GradOptions{GradOutputs: []*Tensor{Ones([]int{2}, TensorOptions{DType: Float64})}, CreateGraph: true})[0]
			require.InDeltaSlice(t, values(want(x)), values(y), 1e-15, "derivative %d", n+1)
		}
	})
}

func TestGradAndBackwardOptions(t *testing.T) {
	leakFree(t, func() {
		x, y, unused := param(2), param(3), param(4)
		z := x.Mul(x).Mul(y)
		grads := Grad([]*Tensor{z}, []*Tensor{x, unused, y}, GradOptions{AllowUnused: true, RetainGraph: true})
		require.Equal(t, []float64{12}, values(grads[0]))
		require.Nil(t, grads[1])
		require.Equal(t, []float64{4}, values(grads[2]))
		z.Backward(BackwardOptions{Inputs: []*Tensor{y}, RetainGraph: true, Gradients: []*Tensor{FromSlice([]float64{10})}})
		require.Nil(t, x.Grad())
		require.Equal(t, []float64{40}, values(y.Grad()))
		Backward([]*Tensor{z, x.Exp()}, BackwardOptions{Gradients: []*Tensor{nil, FromSlice([]float64{0})}})
		require.Equal(t, []float64{12}, values(x.Grad()))
		require.Equal(t, []float64{44}, values(y.Grad()))
	})
}

type hookError struct{ code int }

func (e *hookError) Error() string { return fmt.Sprint("code ", e.code) }

// The error a hook panicked with is the error of Backward, itself.
func TestErrorsOfHooksKeepTheirIdentity(t *testing.T) {
	fail := func(p any) *Error {
		var found *Error
		leakFree(t, func() {
			x := param(1)
			x.RegisterHook(func(*Tensor) *Tensor { panic(p) })
			err := TryDo(func() { x.Mul(x).Sum().Backward() })
			require.ErrorIs(t, err, ErrCallback)
			require.ErrorAs(t, err, &found)
			require.Equal(t, "backward", found.Op)
		})
		return found
	}
	require.ErrorIs(t, fail(fmt.Errorf("reading: %w", io.EOF)), io.EOF)
	require.ErrorContains(t, fail(io.EOF), "in a hook: EOF")
	var mine *hookError
	require.ErrorAs(t, fail(&hookError{7}), &mine)
	require.Equal(t, 7, mine.code)
	e := fail("a text")
	require.ErrorContains(t, e, "in a hook: a text")
	require.Contains(t, e.Backtrace(), "autograd_test.go", "Go's stack at the panic")

	var runtimeError runtime.Error
	leakFree(t, func() {
		x := param(1)
		var table map[string]int
		x.RegisterHook(func(*Tensor) *Tensor { table["x"] = 1; return nil })
		require.ErrorAs(t, TryDo(func() { x.Mul(x).Sum().Backward() }), &runtimeError)

		// An operator's error stays what it was.
		y := param(1, 2)
		y.RegisterHook(func(g *Tensor) *Tensor { return g.MatMul(FromSlice([]float32{1})) })
		err := TryDo(func() { y.Mul(y).Sum().Backward() })
		require.ErrorIs(t, err, ErrRuntime)
		require.ErrorContains(t, err, "in a hook: matmul: ")
		closed := ones(1)
		closed.Close()
		z := param(1)
		z.RegisterHook(func(g *Tensor) *Tensor { return closed })
		require.ErrorIs(t, TryDo(func() { z.Mul(z).Sum().Backward() }), ErrClosed)
	})
}

// Backward passes within hooks go 100 deep; libtorch moves to threads of its own after 60.
func TestErrorFromADeepHook(t *testing.T) {
	var depth, deepest int
	var descend func(x *Tensor)
	descend = func(x *Tensor) {
		x.RegisterHook(func(g *Tensor) *Tensor {
			depth++
			defer func() { depth-- }()
			deepest = max(deepest, depth)
			if depth == 100 {
				panic(&hookError{42})
			}
			EnableGrad(func() {
				y := param(2)
				descend(y)
				y.Mul(y).Sum().Backward()
			})
			return nil
		})
	}
	leakFree(t, func() {
		x := param(1)
		descend(x)
		err := TryDo(func() { x.Mul(x).Sum().Backward() })
		var mine *hookError
		require.ErrorAs(t, err, &mine)
		require.Equal(t, 42, mine.code)
		require.Equal(t, 100, deepest)
		require.Equal(t, 100, strings.Count(err.Error(), "in a hook: "))
		require.False(t, errors.Is(err, ErrClosed))
	})
}

func TestNilHooksAreRefused(t *testing.T) {
	x := ones(2).SetRequiresGrad(true)
	require.ErrorContains(t, TryDo(func() { x.RegisterHook(nil) }), "register_hook: the hook is nil")
	require.ErrorContains(t, TryDo(func() { x.RegisterPostAccumulateGradHook(nil) }), "the hook is nil")
}
