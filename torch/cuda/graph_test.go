package cuda

import (
	"math"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/torchgo/torchgo/torch"
)

// step is a chain of small operators, which a graph launches as one.
func step(x, w *torch.Tensor) *torch.Tensor {
	for range 20 {
		x = x.MatMul(w).Relu().Add(x).Mul(x).Tanh()
	}
	return x
}

func TestGraph(t *testing.T) {
	device := gpu(t)
	torch.Scope(func() {
		x := torch.Randn([]int{64, 64}, torch.TensorOptions{Device: device})
		w := torch.Randn([]int{64, 64}, torch.TensorOptions{Device: device})
		warm := NewStream(device)
		Synchronize(device)
		WithStream(warm, func() { step(x, w) })
		Synchronize(device)

		g := NewGraph()
		require.ErrorIs(t, torch.TryDo(func() { g.Replay() }), torch.ErrRuntime, "nothing captured")
		var y *torch.Tensor
		g.Capture(func() { y = step(x, w) }, CaptureOptions{Stream: torch.Some(warm)})
		for i := range 3 {
			x.Copy_(torch.Full([]int{64, 64}, 0.01*float64(i+1)))
			g.Replay()
			require.Equal(t, torch.ToSlice[float32](step(x, w)), torch.ToSlice[float32](y), "the same kernels, the same numbers")
		}

		Synchronize(device)
		const n = 1000
		begin := time.Now()
		for range n {
			g.Replay()
		}
		launch := time.Since(begin) / n
		Synchronize(device)
		short := shortGraph(device)
		fastest := time.Hour
		for range 20 {
			Synchronize(device)
			begin := time.Now()
			for range 10 {
				short.Replay()
			}
			fastest = min(fastest, time.Since(begin)/10)
		}
		t.Logf("a replay of 100 kernels takes %v with its work, a launch alone %v", launch, fastest)
		require.Less(t, fastest, 10*time.Microsecond)

		g.Reset()
		require.ErrorIs(t, torch.TryDo(func() { g.Replay() }), torch.ErrRuntime, "it is empty again")
		g.Capture(func() { y = x.AddScalar(1) })
		g.Replay()
		require.InDelta(t, 1.03, torch.Item[float32](y.At(0, 0)), 1e-6)
	})
}

// shortGraph has ten kernels.
func shortGraph(device torch.Device) *Graph {
	x := torch.Ones([]int{16}, torch.TensorOptions{Device: device})
	g := NewGraph()
	g.Capture(func() {
		for range 10 {
			x.AddScalar_(1)
		}
	})
	return g
}

// Graphs that share a pool use its memory together, and give the same numbers.
func TestGraphsShareAPool(t *testing.T) {
	device := gpu(t)
	torch.Scope(func() {
		x := torch.Ones([]int{1 << 20}, torch.TensorOptions{Device: device})
		first, second := NewGraph(), NewGraph()
		pool := GraphPool()
		require.NotEqual(t, pool, GraphPool())
		var y, z *torch.Tensor
		first.Capture(func() { y = x.MulScalar(2).AddScalar(1) }, CaptureOptions{Pool: pool})
		require.Equal(t, pool, first.Pool())
		second.Capture(func() { z = y.MulScalar(3) }, CaptureOptions{Pool: first.Pool(), ErrorMode: CaptureErrorThreadLocal})
		first.Replay()
		second.Replay()
		require.Equal(t, float32(9), torch.Item[float32](z.At(5)))
	})
}

// A capture that fails, or whose function panics, leaves the GPU usable and the graph empty.
func TestCaptureFails(t *testing.T) {
	device := gpu(t)
	torch.Scope(func() {
		x := torch.Ones([]int{16}, torch.TensorOptions{Device: device})
		g := NewGraph()
		err := torch.TryDo(func() { g.Capture(func() { torch.ToSlice[float32](x.AddScalar(1)) }) })
		require.Error(t, err, "it waits for the GPU")
		require.PanicsWithValue(t, "stop", func() { g.Capture(func() { x.AddScalar(1); panic("stop") }) })
		require.Equal(t, DefaultStream(device), CurrentStream(device))
		require.Equal(t, float32(2), torch.Item[float32](x.AddScalar(1).At(0)))
		var y *torch.Tensor
		g.Capture(func() { y = x.AddScalar(4) })
		g.Replay()
		require.Equal(t, slices.Repeat([]float32{5}, 16), torch.ToSlice[float32](y))
	})
}

// A training step under CUDA autocast, captured whole, follows the same one without a graph.
func TestGraphTrainsUnderAutocast(t *testing.T) {
	device := gpu(t)
	torch.Scope(func() {
		x := torch.Randn([]int{32, 16}, torch.TensorOptions{Device: device})
		train := func(graphed bool) []float32 {
			w := torch.Full([]int{4, 16}, 0.1, torch.TensorOptions{Device: device}).SetRequiresGrad(true)
			var losses []float32
			var loss *torch.Tensor
			one := func() {
				torch.Autocast(torch.DeviceCUDA, torch.AutocastOptions{DType: torch.BFloat16, CacheEnabled: torch.Some(false)}, func() {
					loss = torch.Linear(x, w).PowScalar(2).Mean()
				})
				g := torch.Grad([]*torch.Tensor{loss}, []*torch.Tensor{w})[0]
				torch.NoGrad(func() { w.Sub_(g.MulScalar(0.1)) })
			}
			run := one
			if graphed {
				warm := NewStream(device)
				Synchronize(device)
				WithStream(warm, one)
				Synchronize(device)
				torch.NoGrad(func() { w.Fill_(0.1) })
				g := NewGraph()
				g.Capture(one, CaptureOptions{Stream: torch.Some(warm)})
				run = g.Replay
			}
			for range 10 {
				run()
				losses = append(losses, torch.Item[float32](loss.Detach()))
			}
			return losses
		}
		eager, graphed := train(false), train(true)
		require.Less(t, eager[9], eager[0])
		for i := range eager {
			require.LessOrEqual(t, math.Abs(float64(eager[i]-graphed[i])), 1e-5*math.Abs(float64(eager[i])))
		}
	})
}
