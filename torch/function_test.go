package torch

import (
	"fmt"
	"io"
	"runtime"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
)

// swish is x·sigmoid(βx).
type swish struct{ Beta float64 }

func (f swish) Forward(ctx *FunctionCtx, in ...*Tensor) []*Tensor {
	s := in[0].MulScalar(f.Beta).Sigmoid()
	ctx.Save(in[0], s)
	return []*Tensor{in[0].Mul(s)}
}

func (f swish) Backward(ctx *FunctionCtx, grads ...*Tensor) []*Tensor {
	x := ctx.Saved()[0]
	s := x.MulScalar(f.Beta).Sigmoid() // of x, so that it can be differentiated
	slope := s.Add(x.MulScalar(f.Beta).Mul(s).Mul(s.Neg().AddScalar(1)))
	return []*Tensor{grads[0].Mul(slope)}
}

// function is one of two funcs.
type function struct {
	forward  func(ctx *FunctionCtx, in ...*Tensor) []*Tensor
	backward func(ctx *FunctionCtx, grads ...*Tensor) []*Tensor
}

func (f function) Forward(ctx *FunctionCtx, in ...*Tensor) []*Tensor { return f.forward(ctx, in...) }
func (f function) Backward(ctx *FunctionCtx, grads ...*Tensor) []*Tensor {
	return f.backward(ctx, grads...)
}

func identity(ctx *FunctionCtx, in ...*Tensor) []*Tensor {
	out := make([]*Tensor, len(in))
	for i, x := range in {
		out[i] = x.Clone()
	}
	return out
}

func TestFunction(t *testing.T) {
	leakFree(t, func() {
		x := param(-2, -0.5, 0, 1, 3)
		y := Apply(swish{1}, x)[0]
		require.Equal(t, "swishBackward", y.GradFn())
		require.InDeltaSlice(t, values(Silu(x)), values(y), 1e-15, "silu is swish with β = 1")
		y.Sum().Backward()
		z := x.Detach().SetRequiresGrad(true)
		Silu(z).Sum().Backward()
		require.InDeltaSlice(t, values(z.Grad()), values(x.Grad()), 1e-15)

		fn := func(in []*Tensor) []*Tensor { return Apply(swish{1.7}, in...) }
		require.NoError(t, GradCheck(fn, []*Tensor{x}))
		require.NoError(t, GradGradCheck(fn, []*Tensor{x}))

		for _, off := range []func(func()){NoGrad, func(fn func()) { Inference(fn) }} {
			off(func() {
				y := Apply(swish{1}, x)[0]
				require.False(t, y.RequiresGrad())
				require.InDeltaSlice(t, values(Silu(x)), values(y), 1e-15)
			})
		}
		require.False(t, Apply(swish{1}, x.Detach())[0].RequiresGrad())
	})
}

func TestFunctionContext(t *testing.T) {
	leakFree(t, func() {
		a, b, c := param(1, 2), param(3, 4), FromSlice([]float64{5, 6})
		var wants [][]bool
		f := function{
			func(ctx *FunctionCtx, in ...*Tensor) []*Tensor {
				require.False(t, GradEnabled())
				require.Len(t, in, 4)
				require.Nil(t, in[3])
				wants = append(wants, []bool{ctx.NeedsInputGrad(0), ctx.NeedsInputGrad(1), ctx.NeedsInputGrad(2), ctx.NeedsInputGrad(3)})
				out := in[0].Mul(in[1])
				ctx.Save(in[0], nil, in[1], out)
				ctx.Value = "a value"
				index := out.Argmax()
				rounded := out.Round()
				ctx.MarkNonDifferentiable(rounded)
				return []*Tensor{out, nil, in[2].Mul(in[0]), index, rounded}
			},
			func(ctx *FunctionCtx, grads ...*Tensor) []*Tensor {
				require.Equal(t, "a value", ctx.Value)
				wants = append(wants, []bool{ctx.NeedsInputGrad(0), ctx.NeedsInputGrad(1), ctx.NeedsInputGrad(2), ctx.NeedsInputGrad(3)})
				saved := ctx.Saved()
				require.Len(t, saved, 4)
				require.Nil(t, saved[1])
				require.Equal(t, []float64{3, 8}, values(saved[3]))
				require.Equal(t, "functionBackward", saved[3].GradFn(), "an output that was saved has its history")
				require.Len(t, grads, 5)
				require.Equal(t, []float64{0, 0}, values(grads[2]), "not used: zeros")
				return []*Tensor{grads[0].Mul(saved[2]), grads[0].Mul(saved[0]), nil, nil, nil} // one nil too many
			},
		}
		out := Apply(f, a, b, c, nil)
		require.Nil(t, out[1])
		require.True(t, out[2].RequiresGrad())
		require.False(t, out[3].RequiresGrad(), "integers have no gradient")
		require.False(t, out[4].RequiresGrad())
		out[0].Sum().Backward(BackwardOptions{RetainGraph: true})
		require.Equal(t, []float64{3, 4}, values(a.Grad()))
		require.Equal(t, []float64{1, 2}, values(b.Grad()))
		Grad([]*Tensor{out[0].Sum()}, []*Tensor{b})
		require.Equal(t, [][]bool{{true, true, false, false}, {true, true, false, false}, {false, true, false, false}}, wants)
		require.ErrorContains(t, TryDo(func() { out[0].Sum().Backward() }), "Trying to backward through the graph a second time")
	})
}

func TestFunctionWithoutMaterializedGradients(t *testing.T) {
	leakFree(t, func() {
		x := param(2)
		f := function{
			func(ctx *FunctionCtx, in ...*Tensor) []*Tensor {
				ctx.SetMaterializeGrads(false)
				return []*Tensor{in[0].MulScalar(2), in[0].MulScalar(3)}
			},
			func(ctx *FunctionCtx, grads ...*Tensor) []*Tensor {
				require.Nil(t, grads[0])
				return []*Tensor{grads[1].MulScalar(3)}
			},
		}
		Apply(f, x)[1].Backward()
		require.Equal(t, []float64{3}, values(x.Grad()))
	})
}

func TestFunctionChangesItsInput(t *testing.T) {
	double := function{
		func(ctx *FunctionCtx, in ...*Tensor) []*Tensor {
			in[0].MulScalar_(2)
			ctx.MarkDirty(in[0])
			return []*Tensor{in[0]}
		},
		func(ctx *FunctionCtx, grads ...*Tensor) []*Tensor { return []*Tensor{grads[0].MulScalar(2)} },
	}
	leakFree(t, func() {
		x := param(1, 2)
		y := x.MulScalar(5)
		version := y.Version()
		out := Apply(double, y)[0]
		require.Greater(t, y.Version(), version)
		require.Equal(t, "functionBackward", y.GradFn(), "the input has a new history")
		require.Equal(t, []float64{10, 20}, values(y))
		out.Sum().Backward()
		require.Equal(t, []float64{10, 10}, values(x.Grad()))

		// A view: its base gets the gradient.
		x.SetGrad(nil)
		base := x.MulScalar(5)
		Apply(double, base.Narrow(0, 0, 1))
		require.Equal(t, []float64{10, 10}, values(base))
		base.Sum().Backward()
		require.Equal(t, []float64{10, 5}, values(x.Grad()))

		require.ErrorContains(t, TryDo(func() { Apply(double, param(1)) }), "a leaf Variable that requires grad")

		// Somebody else needed the value.
		z := x.Exp()
		loss := z.Mul(z)
		Apply(double, z)
		require.ErrorContains(t, TryDo(func() { loss.Sum().Backward() }), "modified by an inplace operation")
	})
}

func TestFunctionReturnsItsInput(t *testing.T) {
	leakFree(t, func() {
		x := param(1, 2)
		pass := function{
			func(ctx *FunctionCtx, in ...*Tensor) []*Tensor { return []*Tensor{in[0]} },
			func(ctx *FunctionCtx, grads ...*Tensor) []*Tensor { return []*Tensor{grads[0].MulScalar(7)} },
		}
		y := Apply(pass, x)[0]
		require.NotSame(t, x, y)
		require.Equal(t, x.StorageID(), y.StorageID())
		y.Sum().Backward()
		require.Equal(t, []float64{7, 7}, values(x.Grad()))
		require.True(t, x.IsLeaf())
	})
}

// What was saved is checked, and is not kept alive by a cycle: leakFree sees those.
func TestFunctionSavedTensorsAreChecked(t *testing.T) {
	leakFree(t, func() {
		x := param(1, 2)
		y := x.Exp()
		z := Apply(swish{1}, y)[0]
		y.Add_(y.Detach())
		err := TryDo(func() { z.Sum().Backward() })
		require.ErrorContains(t, err, "modified by an inplace operation")
		require.ErrorContains(t, err, "is at version 1; expected version 0 instead")
	})
}

func TestFunctionErrors(t *testing.T) {
	grads := func(fn func(g *Tensor) []*Tensor) function {
		return function{identity, func(ctx *FunctionCtx, g ...*Tensor) []*Tensor { return fn(g[0]) }}
	}
	for name, c := range map[string]struct {
		f    Function
		says string
		is   error
	}{
		"too few":   {grads(func(g *Tensor) []*Tensor { return []*Tensor{g} }), "function functionBackward returned an incorrect number of gradients (expected 2, got 1)", ErrRuntime},
		"too many":  {grads(func(g *Tensor) []*Tensor { return []*Tensor{g, g, g} }), "returned an incorrect number of gradients (expected 2, got 3)", ErrRuntime},
		"not asked": {grads(func(g *Tensor) []*Tensor { return []*Tensor{g, g} }), "a gradient different than nil at position 2, but the corresponding forward input was nil", ErrRuntime},
		"shape":     {grads(func(g *Tensor) []*Tensor { return []*Tensor{FromSlice([]float64{1, 2, 3}), nil} }), "Function functionBackward returned an invalid gradient at index 0 - got [3] but expected shape compatible with [2]", ErrRuntime},
		"panic":     {grads(func(g *Tensor) []*Tensor { panic(fmt.Errorf("disk: %w", io.EOF)) }), "in functionBackward: disk: EOF", io.EOF},
		"closed":    {grads(func(g *Tensor) []*Tensor { g.Close(); return []*Tensor{g, nil} }), "the tensor was closed", ErrClosed},
		"forward": {function{forward: func(ctx *FunctionCtx, in ...*Tensor) []*Tensor { return []*Tensor{in[0].MatMul(ones(3))} }},
			"matmul: ", ErrRuntime},
	} {
		t.Run(name, func(t *testing.T) {
			leakFree(t, func() {
				err := TryDo(func() {
					x := param(1, 2)
					out := Apply(function{func(ctx *FunctionCtx, in ...*Tensor) []*Tensor {
						if name == "forward" {
							return c.f.Forward(ctx, in...)
						}
						return []*Tensor{in[0].Clone()}
					}, c.f.Backward}, x, nil)
					out[0].Sum().Backward()
				})
				require.ErrorContains(t, err, c.says)
				require.ErrorIs(t, err, c.is)
			})
		})
	}
	require.ErrorIs(t, TryDo(func() { Apply(nil) }), ErrArgument)
}

// The same graph run backward by many goroutines.
func TestFunctionConcurrently(t *testing.T) {
	leakFree(t, func() {
		x := param(0.5)
		y := Apply(swish{1}, x)[0]
		want := values(Grad([]*Tensor{y}, []*Tensor{x}, GradOptions{RetainGraph: true})[0])
		var wg sync.WaitGroup
		for range 8 {
			wg.Add(1)
			go func() {
				defer wg.Done()
				for range 50 {
					g := Grad([]*Tensor{y}, []*Tensor{x}, GradOptions{RetainGraph: true})[0]
					if values(g)[0] != want[0] {
						t.Error("another gradient")
					}
					g.Close()
				}
			}()
		}
		wait(t, &wg)
	})
}

// A chain of functions that save their inputs: freeing it does not recurse.
func TestDeepGraphOfFunctions(t *testing.T) {
	n := 100_000
	if testing.Short() || instrumented {
		n = 5_000
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	leakFree(t, func() {
		negate := function{
			func(ctx *FunctionCtx, in ...*Tensor) []*Tensor {
				ctx.Save(in[0])
				return []*Tensor{in[0].Neg()}
			},
			func(ctx *FunctionCtx, grads ...*Tensor) []*Tensor { return []*Tensor{grads[0].Neg()} },
		}
		build := func(x *Tensor) *Tensor {
			y := x
			for range n {
				next := Apply(negate, y)[0]
				if y != x {
					y.Close()
				}
				y = next
			}
			return y
		}
		x := param(1)
		build(x).Backward()
		require.Equal(t, []float64{1}, values(x.Grad()))
		build(x).Close()
	})
}

func TestGradCheckFindsMistakes(t *testing.T) {
	leakFree(t, func() {
		x, y := param(0.3, -1.2), param(2, 0.7)
		in := []*Tensor{x, y}
		require.NoError(t, GradCheck(func(in []*Tensor) []*Tensor {
			return []*Tensor{in[0].Mul(in[1]), in[0].Detach(), in[1].Sin().Sum()}
		}, []*Tensor{x.Detach(), y}))
		wrong := func(scale float64) func(in []*Tensor) []*Tensor {
			return func(in []*Tensor) []*Tensor {
				return Apply(function{
					func(ctx *FunctionCtx, in ...*Tensor) []*Tensor { return []*Tensor{in[0].MulScalar(2)} },
					func(ctx *FunctionCtx, g ...*Tensor) []*Tensor { return []*Tensor{g[0].MulScalar(scale)} },
				}, in[0])
			}
		}
		require.NoError(t, GradCheck(wrong(2), in))
		require.ErrorContains(t, GradCheck(wrong(2.01), in), "Jacobian mismatch for output 0 with respect to input 0")
		require.NoError(t, GradCheck(wrong(2.01), in, GradCheckOptions{RTol: Some(0.1)}))
		require.ErrorContains(t, GradCheck(func(in []*Tensor) []*Tensor { return []*Tensor{in[0].Detach().Exp()} }, in),
			"Numerical gradient for function expected to be zero")
		require.ErrorContains(t, GradCheck(wrong(2), []*Tensor{x.Detach()}), "at least one input tensor to require gradient")
		constant := function{
			func(ctx *FunctionCtx, in ...*Tensor) []*Tensor { return []*Tensor{in[0].Sum()} },
			func(ctx *FunctionCtx, g ...*Tensor) []*Tensor { return []*Tensor{OnesLike(g[0]).Expand(2)} },
		}
		require.ErrorContains(t, GradCheck(func(in []*Tensor) []*Tensor { return Apply(constant, in[0]) }, in), "backward not multiplied by grad_output")
		runs := 0
		unsteady := function{
			func(ctx *FunctionCtx, in ...*Tensor) []*Tensor { return []*Tensor{in[0].Sum()} },
			func(ctx *FunctionCtx, g ...*Tensor) []*Tensor {
				runs++
				return []*Tensor{g[0].Expand(2).AddScalar(float64(runs) * 1e-7)}
			},
		}
		require.ErrorContains(t, GradCheck(func(in []*Tensor) []*Tensor { return Apply(unsteady, in[0]) }, in), "Backward is not reentrant")
		// First derivatives are right, second ones are not.
		frozen := func(in []*Tensor) []*Tensor {
			return Apply(function{
				func(ctx *FunctionCtx, in ...*Tensor) []*Tensor { ctx.Save(in[0]); return []*Tensor{in[0].Mul(in[0])} },
				func(ctx *FunctionCtx, g ...*Tensor) []*Tensor {
					return []*Tensor{g[0].Mul(ctx.Saved()[0].Detach()).MulScalar(2)}
				},
			}, in[0])
		}
		require.NoError(t, GradCheck(frozen, in))
		require.ErrorContains(t, GradGradCheck(frozen, in), "Jacobian mismatch")
	})
}
