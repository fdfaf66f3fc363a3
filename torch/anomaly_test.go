package torch

import (
	"errors"
	"fmt"
	"runtime"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
)

// line is the place of the caller's caller's next line but n.
func line(plus int) string {
	_, file, n, _ := runtime.Caller(1)
	return fmt.Sprintf("%s:%d (", file, n+plus)
}

func TestAnomalyNamesTheLine(t *testing.T) {
	leakFree(t, func() {
		x := param(0, 1)
		DetectAnomaly(func() {
			y := x.MulScalar(1)
			where := line(1)
			root := y.Sqrt()
			loss := root.Mul(FromSlice([]float64{0, 1})).Sum()
			err := TryDo(func() { loss.Backward() }) // 0 · ∞
			require.ErrorContains(t, err, "Function 'SqrtBackward0' returned nan values in its 0th output.")
			require.ErrorContains(t, err, "; its forward call is at "+where)
			require.ErrorContains(t, err, "torch.TestAnomalyNamesTheLine")

			where = line(1)
			z := Apply(swish{1}, x)[0]
			z.RegisterHook(func(*Tensor) *Tensor { panic(errors.New("stop")) })
			err = TryDo(func() { z.Sum().Backward() })
			require.ErrorContains(t, err, "in a hook: stop; its forward call is at "+where)
			require.ErrorIs(t, err, ErrCallback)
		})
		// Off again, nothing is checked.
		x.Sqrt().Mul(FromSlice([]float64{0, 1})).Sum().Backward()
		require.True(t, Item[bool](x.Grad().Isnan().Any()))
		require.Empty(t, site())
		require.Zero(t, openCalls.Load())
	})
}

// A node that backward made: its line, and that of the forward call behind it.
func TestAnomalyInSecondOrder(t *testing.T) {
	leakFree(t, func() {
		x := param(0, 1)
		DetectAnomaly(func() {
			where := line(1)
			y := x.PowScalar(1.5)
			g := Grad([]*Tensor{y.Sum()}, []*Tensor{x}, GradOptions{CreateGraph: true})[0]
			err := TryDo(func() { g.Mul(FromSlice([]float64{0, 1})).Sum().Backward() })
			require.ErrorContains(t, err, "returned nan values")
			require.ErrorContains(t, err, "; it was made by the backward of PowBackward0; that one's forward call is at "+where)
		})
	})
}

func TestAnomalyWithoutNaNCheck(t *testing.T) {
	leakFree(t, func() {
		x := param(0, 1)
		DetectAnomaly(func() {
			x.Sqrt().Mul(FromSlice([]float64{0, 1})).Sum().Backward()
			DetectAnomaly(func() {
				require.ErrorContains(t, TryDo(func() { x.Sqrt().Mul(FromSlice([]float64{0, 1})).Sum().Backward() }), "returned nan values")
			})
			x.Sqrt().Mul(FromSlice([]float64{0, 1})).Sum().Backward()
			where := line(2)
			y := x.Exp()
			z := y.Square()
			y.Add_(y.Detach())
			err := TryDo(func() { z.Sum().Backward() })
			require.ErrorContains(t, err, "modified by an inplace operation")
			require.ErrorContains(t, err, "; its forward call is at "+where)
		}, AnomalyOptions{CheckNaN: Some(false)})
	})
}

// The mode is on as long as anybody wants it.
func TestAnomalyInManyGoroutines(t *testing.T) {
	var wg sync.WaitGroup
	for range 8 {
		wg.Add(1)
		go func() {
			defer wg.Done()
			for range 20 {
				DetectAnomaly(func() {
					Scope(func() {
						x := param(0)
						err := TryDo(func() { x.Sqrt().Mul(FromSlice([]float64{0})).Backward() })
						if err == nil {
							t.Error("NaN was not found")
						}
					})
				})
			}
		}()
	}
	wait(t, &wg)
	require.Empty(t, anomaly.settings)
	require.Zero(t, openCalls.Load())
}
