package cuda

import (
	"math"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/torchgo/torchgo/cgo"
	"github.com/torchgo/torchgo/torch"
)

// gpu skips a test that needs a GPU where there is none.
func gpu(t *testing.T) torch.Device {
	if !IsAvailable() {
		t.Skip("needs a GPU that libtorch can use")
	}
	return torch.CUDA(0)
}

// Without a GPU everything says so, in one line, and nothing ends the process.
func TestWithoutAGPU(t *testing.T) {
	if IsAvailable() {
		t.Skip("there is a GPU here")
	}
	require.Zero(t, DeviceCount())
	device := torch.CUDA(0)
	for name, fn := range map[string]func(){
		"CurrentDevice":               func() { CurrentDevice() },
		"WithDevice":                  func() { WithDevice(device, func() { t.Error("ran") }) },
		"Synchronize":                 func() { Synchronize(device) },
		"Synchronize current":         func() { Synchronize(torch.Device{}) },
		"DeviceProperties":            func() { DeviceProperties(device) },
		"NewStream":                   func() { NewStream(device) },
		"CurrentStream":               func() { CurrentStream(device) },
		"DefaultStream":               func() { DefaultStream(torch.Device{}) },
		"NewEvent":                    func() { NewEvent() },
		"MemoryStats":                 func() { MemoryStats(device) },
		"MemoryAllocated":             func() { MemoryAllocated(device) },
		"ResetPeakMemoryStats":        func() { ResetPeakMemoryStats(device) },
		"ResetAccumulatedMemoryStats": func() { ResetAccumulatedMemoryStats(device) },
		"MemGetInfo":                  func() { MemGetInfo(device) },
		"SetPerProcessMemoryFraction": func() { SetPerProcessMemoryFraction(0.5, device) },
		"RNGState":                    func() { RNGState(device) },
		"SetRNGState":                 func() { SetRNGState(nil, device) },
		"ManualSeed":                  func() { ManualSeed(1, device) },
		"NewGraph":                    func() { NewGraph() },
		"GraphPool":                   func() { GraphPool() },
	} {
		err := torch.TryDo(fn)
		require.ErrorIs(t, err, torch.ErrNoDevice, name)
		require.Regexp(t, `^[a-z_]+: cuda(:0)? was asked for, but (libtorch runs without cuda here|there is no cuda device that libtorch can use)$`, err.Error(), name)
	}
	require.Empty(t, RNGStates())
	EmptyCache()
	ManualSeedAll(3)
	torch.Scope(func() {
		x := torch.Ones([]int{2})
		require.False(t, x.IsPinned())
		require.ErrorIs(t, torch.TryDo(func() { x.PinMemory() }), torch.ErrRuntime)
		require.ErrorIs(t, torch.TryDo(func() { x.To(device) }), torch.ErrNotImplemented)
	})
}

// These functions are for GPUs; what serves both devices is in package torch.
func TestRefusesOtherDevices(t *testing.T) {
	for name, fn := range map[string]func(){
		"NewStream":        func() { NewStream(torch.CPU) },
		"WithStream":       func() { WithStream(torch.CurrentStream(torch.CPU), func() { t.Error("ran") }) },
		"WithDevice":       func() { WithDevice(torch.CPU, func() { t.Error("ran") }) },
		"Synchronize":      func() { Synchronize(torch.CPU) },
		"DeviceProperties": func() { DeviceProperties(torch.Meta) },
		"MemoryStats":      func() { MemoryStats(torch.CPU) },
		"RNGState":         func() { RNGState(torch.CPU) },
	} {
		err := torch.TryDo(fn)
		require.ErrorIs(t, err, torch.ErrArgument, name)
		require.ErrorContains(t, err, "expected a CUDA device, got ", name)
	}
}

// The words are read in the order that torchgo.h gives.
func TestStatisticsReadEveryWord(t *testing.T) {
	w := make([]int, cgo.MemoryWords)
	for i := range w {
		w[i] = i + 1
	}
	s := statistics(w)
	require.Equal(t, PoolStat{All: Stat{1, 4, 7, 10}, Small: Stat{2, 5, 8, 11}, Large: Stat{3, 6, 9, 12}}, s.Allocation)
	require.Equal(t, Stat{49, 52, 55, 58}, s.AllocatedBytes.All, "the fifth of nine")
	require.Equal(t, Stat{99, 102, 105, 108}, s.RequestedBytes.Large)
	require.Equal(t, Stat{109, 110, 111, 112}, s.OversizeAllocations)
	require.Equal(t, Stat{113, 114, 115, 116}, s.OversizeSegments)
	require.Equal(t, []int{117, 118, 119, 120, 121, 122}, []int{s.AllocRetries, s.OOMs, s.SyncAllStreams, s.DeviceAllocs, s.DeviceFrees, s.MaxSplitSizeBytes})
}

func TestDevice(t *testing.T) {
	device := gpu(t)
	p := DeviceProperties(device)
	t.Logf("%+v", p)
	require.NotEmpty(t, p.Name)
	require.Equal(t, 32, p.WarpSize)
	require.GreaterOrEqual(t, p.Major, 5)
	free, total := MemGetInfo(device)
	require.InEpsilon(t, p.TotalMemory, total, 0.05)
	require.Less(t, free, total)
	require.Equal(t, device, CurrentDevice())
	last := torch.CUDA(DeviceCount() - 1)
	WithDevice(last, func() {
		require.Equal(t, last, CurrentDevice())
		done := make(chan torch.Device)
		torch.Go(func() { done <- CurrentDevice() })
		require.Equal(t, last, <-done)
	})
	require.Equal(t, device, CurrentDevice())
}

func TestStreams(t *testing.T) {
	device := gpu(t)
	side, high := NewStream(device), NewStream(device, StreamOptions{Priority: -1})
	require.NotEqual(t, side, high)
	require.Equal(t, DefaultStream(device), CurrentStream(device))
	require.NotEqual(t, side, DefaultStream(device))
	WithStream(side, func() {
		require.Equal(t, side, CurrentStream(device))
		WithStream(high, func() {
			require.Equal(t, high, CurrentStream(device))
			done := make(chan Stream)
			torch.Go(func() { done <- CurrentStream(device) })
			require.Equal(t, high, <-done, "Go hands it on")
			go func() { done <- CurrentStream(device) }()
			require.Equal(t, DefaultStream(device), <-done, "go doesn't")
		})
		require.Equal(t, side, CurrentStream(device))
	})
	require.Equal(t, DefaultStream(device), CurrentStream(device))

	torch.Scope(func() {
		a := torch.Randn([]int{2048, 2048}, torch.TensorOptions{Device: device})
		start, end := NewEvent(EventOptions{Timing: true}), NewEvent(EventOptions{Timing: true})
		Synchronize(device)
		s := CurrentStream(device)
		start.Record(s)
		b := a
		for range 50 {
			b = b.MatMul(a)
		}
		end.Record(s)
		require.False(t, end.Query(), "50 products of 2048 x 2048 are not done at once")
		require.False(t, s.Query())
		require.ErrorIs(t, torch.TryDo(func() { start.ElapsedTime(end) }), torch.ErrRuntime, "not yet reached")
		end.Synchronize()
		require.True(t, end.Query())
		require.Positive(t, start.ElapsedTime(end))
		require.ErrorIs(t, torch.TryDo(func() { start.ElapsedTime(s.Record()) }), torch.ErrValue, "without Timing")
		s.Synchronize()
		require.True(t, s.Query())
	})
}

// A copy on one stream and a computation on another take less time than one after the other.
func TestStreamsOverlapCopyAndCompute(t *testing.T) {
	device := gpu(t)
	torch.Scope(func() {
		host := torch.Ones([]int{64 << 20}).PinMemory() // 256 MiB: about 10 ms over PCIe
		a := torch.Randn([]int{4096, 4096}, torch.TensorOptions{Device: device})
		side := NewStream(device)
		compute := func() {
			torch.Scope(func() {
				for range 20 {
					a.MatMul(a)
				}
			})
		}
		copying := func() { torch.Scope(func() { host.To(device, torch.NonBlocking()) }) }
		measure := func(fn func()) time.Duration {
			best := time.Hour
			for range 5 {
				Synchronize(device)
				begin := time.Now()
				fn()
				Synchronize(device)
				best = min(best, time.Since(begin))
			}
			return best
		}
		compute()
		WithStream(side, copying)
		first := measure(compute)
		second := measure(func() { WithStream(side, copying) })
		both := measure(func() {
			WithStream(side, copying)
			compute()
		})
		t.Logf("compute %v, copy %v, both at once %v", first, second, both)
		require.Less(t, both, first+second-min(first, second)/2, "at least half of the shorter is hidden")
	})
}

// What a side stream copied is there for the stream that waits for its event.
func TestWaitOrdersStreams(t *testing.T) {
	device := gpu(t)
	side := NewStream(device)
	for i := range 50 {
		torch.Scope(func() {
			host := torch.Full([]int{4 << 20}, float64(i)).PinMemory()
			require.True(t, host.IsPinned())
			var next *torch.Tensor
			WithStream(side, func() { next = host.To(device, torch.NonBlocking()) })
			CurrentStream(device).Wait(side.Record())
			next.RecordStream(CurrentStream(device))
			require.Equal(t, float64(i)*(4<<20), torch.Item[float64](next.ToDType(torch.Float64).Sum()))
		})
	}
}

func TestMemoryStats(t *testing.T) {
	device := gpu(t)
	torch.Collect()
	Synchronize(device)
	ResetPeakMemoryStats(device)
	ResetAccumulatedMemoryStats(device)
	before := MemoryStats(device)
	const size = 64 << 20
	torch.Scope(func() {
		x := torch.Empty([]int{size}, torch.EmptyOptions{DType: torch.Uint8, Device: device})
		now := MemoryStats(device)
		require.Equal(t, size, now.AllocatedBytes.All.Current-before.AllocatedBytes.All.Current)
		require.Equal(t, size, now.AllocatedBytes.Large.Current-before.AllocatedBytes.Large.Current)
		require.Equal(t, size, now.RequestedBytes.All.Allocated)
		require.Equal(t, before.Allocation.All.Current+1, now.Allocation.All.Current)
		require.GreaterOrEqual(t, MemoryReserved(device), MemoryAllocated(device))
		small := torch.Empty([]int{1}, torch.EmptyOptions{DType: torch.Uint8, Device: device})
		require.Equal(t, 512, MemoryAllocated(device)-now.AllocatedBytes.All.Current, "rounded up to 512 bytes")
		small.Close()
		x.Close()
		require.Equal(t, before.AllocatedBytes.All.Current, MemoryAllocated(device))
		require.Equal(t, before.AllocatedBytes.All.Current+size+512, MaxMemoryAllocated(device))
		require.GreaterOrEqual(t, MemoryReserved(device), size, "kept for later")
		EmptyCache()
		require.Less(t, MemoryReserved(device), MaxMemoryReserved(device))
	})
}

func TestOutOfMemory(t *testing.T) {
	device := gpu(t)
	torch.Scope(func() {
		_, total := MemGetInfo(device)
		err := torch.TryDo(func() { torch.Empty([]int{2 * total}, torch.EmptyOptions{DType: torch.Uint8, Device: device}) })
		require.ErrorIs(t, err, torch.ErrOutOfMemory)
		x := torch.Ones([]int{2}, torch.TensorOptions{Device: device})
		require.Equal(t, []float32{2, 2}, torch.ToSlice[float32](x.Add(x)), "a small operator afterwards")

		SetPerProcessMemoryFraction(0.05, device)
		err = torch.TryDo(func() { torch.Empty([]int{total / 10}, torch.EmptyOptions{DType: torch.Uint8, Device: device}) })
		SetPerProcessMemoryFraction(1, device)
		require.ErrorIs(t, err, torch.ErrOutOfMemory)
		require.Equal(t, []float32{2, 2}, torch.ToSlice[float32](x.Add(x)))
	})
	require.ErrorIs(t, torch.TryDo(func() { SetPerProcessMemoryFraction(1.5, device) }), torch.ErrArgument)
}

func TestRNGState(t *testing.T) {
	device := gpu(t)
	draw := func() []float32 {
		return torch.ScopeOf(func() []float32 {
			return torch.ToSlice[float32](torch.Randn([]int{100}, torch.TensorOptions{Device: device}))
		})
	}
	torch.Scope(func() {
		ManualSeed(7, device)
		first := draw()
		state, all := RNGState(device), RNGStates()
		second := draw()
		require.NotEqual(t, first, second)
		SetRNGState(state, device)
		require.Equal(t, second, draw())
		SetRNGStates(all)
		require.Equal(t, second, draw())
		ManualSeedAll(7)
		require.Equal(t, first, draw())
		torch.ManualSeed(7)
		require.Equal(t, first, draw())
	})
}

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
