package torch

import (
	"errors"
	"io"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestSavedTensorHooks(t *testing.T) {
	leakFree(t, func() {
		x := param(1, 2, 3)
		var packs, unpacks int
		var y *Tensor
		SavedTensorHooks(
			func(s *Tensor) []float64 { // what is packed needs no tensor
				packs++
				require.False(t, GradEnabled())
				return values(s)
			},
			func(v []float64) *Tensor { unpacks++; return FromSlice(v) },
			func() { y = x.Exp().Mul(x) })
		require.Equal(t, 3, packs, "exp saves its result, mul both factors")
		require.Zero(t, unpacks)
		require.Equal(t, 2, int(x.Mul(x).Dim())+1, "hooks are off again")
		y.Sum().Backward()
		require.Equal(t, 3, unpacks)
		want := x.Detach().SetRequiresGrad(true)
		want.Exp().Mul(want).Sum().Backward()
		require.Equal(t, values(want.Grad()), values(x.Grad()))
	})
}

// Nested hooks, what unpack changes, and that hooks also see what functions in Go save.
func TestSavedTensorHooksNest(t *testing.T) {
	leakFree(t, func() {
		x := param(2)
		var by []string
		named := func(name string, fn func()) {
			SavedTensorHooks(
				func(s *Tensor) *Tensor { by = append(by, name); return s.MulScalar(10) },
				func(s *Tensor) *Tensor { return s }, fn)
		}
		var a, b *Tensor
		named("outer", func() {
			a = x.Mul(x)
			named("inner", func() { b = Apply(swish{1}, x)[0] })
			x.Mul(FromSlice([]float64{1}))
		})
		require.Equal(t, []string{"outer", "outer", "inner", "inner", "outer"}, by)
		a.Backward()
		require.Equal(t, []float64{40}, values(x.Grad()), "2x, of ten times x")
		x.SetGrad(nil)
		b.Backward()
		y := param(20)
		Silu(y).Backward()
		require.InDelta(t, values(y.Grad())[0], values(x.Grad())[0], 1e-12)
	})
}

// Tensors that pack makes live as long as the graph, and no longer.
func TestPackedTensorsAreFreed(t *testing.T) {
	before := LiveTensors()
	x := param(1, 2)
	var y *Tensor
	type pair struct{ A, B *Tensor }
	Scope(func() {
		SavedTensorHooks(
			func(s *Tensor) any { s.Exp(); return map[string]pair{"p": {s.Clone(), s}} },
			func(v any) *Tensor { return v.(map[string]pair)["p"].A },
			func() { y = x.Mul(x); Keep(y) })
	})
	require.Equal(t, before+2+4, LiveTensors(), "x, y and two pairs")
	y.Sum().Backward()
	require.Equal(t, []float64{2, 4}, values(x.Grad()))
	for i := 0; i < 50 && LiveTensors() > before+2; i++ {
		Collect()
	}
	require.Equal(t, before+2, LiveTensors())
	x.Close()
	y.Close()
	drainReleased()
	require.Zero(t, holds.count.Load())
}

func TestSavedTensorHookErrors(t *testing.T) {
	leakFree(t, func() {
		x := param(1, 2)
		mine := errors.New("no room")
		pack := func(p func(*Tensor) *Tensor, u func(*Tensor) *Tensor) func() *Tensor {
			return func() (y *Tensor) {
				SavedTensorHooks(p, u, func() { y = x.Mul(x) })
				return y
			}
		}
		same := func(s *Tensor) *Tensor { return s }
		_, err := Try(pack(func(*Tensor) *Tensor { panic(mine) }, same))
		require.ErrorIs(t, err, mine)
		require.ErrorIs(t, err, ErrCallback)
		require.ErrorContains(t, err, "mul: in the pack hook of a saved tensor: no room")
		_, err = Try(pack(func(s *Tensor) *Tensor { s.MulScalar_(2); return s }, same))
		require.ErrorContains(t, err, "A saved tensor pack hook is modifying its input in place.")
		y := pack(same, func(*Tensor) *Tensor { panic(io.EOF) })()
		require.ErrorIs(t, TryDo(func() { y.Sum().Backward() }), io.EOF)
		y = pack(same, func(*Tensor) *Tensor { return nil })()
		require.ErrorContains(t, TryDo(func() { y.Sum().Backward() }), "returned nil")
		require.Zero(t, openCalls.Load())

		DisableSavedTensorHooks("not here", func() {
			_, err := Try(pack(same, same))
			require.ErrorContains(t, err, "not here")
			x.Mul(x).Sum().Backward()
		})
		SavedTensorHooks(same, same, func() {
			require.ErrorContains(t, TryDo(func() { DisableSavedTensorHooks("nor here", func() {}) }), "nor here")
		})
	})
}

// Backward inside the hooks records under them, too.
func TestSavedTensorHooksInBackward(t *testing.T) {
	leakFree(t, func() {
		x := param(3)
		packs := 0
		SavedTensorHooks(
			func(s *Tensor) *Tensor { packs++; return s }, func(s *Tensor) *Tensor { return s },
			func() {
				y := x.Mul(x).Mul(x)
				n := packs
				g := Grad([]*Tensor{y}, []*Tensor{x}, GradOptions{CreateGraph: true})[0]
				require.Greater(t, packs, n)
				require.Equal(t, []float64{18}, values(Grad([]*Tensor{g}, []*Tensor{x})[0]))
			})
	})
}

func TestSavedTensorHooksInGoroutines(t *testing.T) {
	leakFree(t, func() {
		x := param(3)
		var packs atomic.Int32
		done := make(chan []float64)
		SavedTensorHooks(
			func(s *Tensor) *Tensor { packs.Add(1); return s.MulScalar(2) }, func(s *Tensor) *Tensor { return s },
			func() {
				Go(func() {
					done <- ScopeOf(func() []float64 { return values(Grad([]*Tensor{x.Mul(x)}, []*Tensor{x})[0]) })
				})
				go func() {
					done <- ScopeOf(func() []float64 { return values(Grad([]*Tensor{x.Mul(x)}, []*Tensor{x})[0]) })
				}()
			})
		require.ElementsMatch(t, [][]float64{{12}, {6}}, [][]float64{<-done, <-done})
		require.EqualValues(t, 2, packs.Load())
	})
}

func TestSaveOnCPU(t *testing.T) {
	leakFree(t, func() {
		x := param(1, 2, 3)
		for _, o := range []SaveOnCPUOptions{{}, {PinMemory: true}} {
			x.SetGrad(nil)
			SaveOnCPU(func() { x.Exp().Mul(x).Sum().Backward() }, o)
			y := x.Detach().SetRequiresGrad(true)
			y.Exp().Mul(y).Sum().Backward()
			require.Equal(t, values(y.Grad()), values(x.Grad()))
		}
	})
}
