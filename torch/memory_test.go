package torch

import (
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// status is a figure of /proc/self/status: "VmHWM" in KiB, "Threads".
func status(t testing.TB, name string) int {
	data, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Skip("no /proc/self/status on this system")
	}
	for line := range strings.Lines(string(data)) {
		if rest, ok := strings.CutPrefix(line, name+":"); ok {
			n, err := strconv.Atoi(strings.Fields(rest)[0])
			require.NoError(t, err)
			return n
		}
	}
	t.Fatalf("/proc/self/status has no %s", name)
	return 0
}

// 20,000 tensors of 1 MiB that nothing frees: 20 GB, if the collector did not see them.
func TestCollectorKeepsUp(t *testing.T) {
	if instrumented {
		t.Skip("an instrumented build has other memory figures")
	}
	if !inChild(t) {
		return
	}
	n := 20_000
	if testing.Short() {
		n = 5_000
	}
	start := time.Now()
	for range n {
		Ones([]int{1 << 18})
	}
	peak := status(t, "VmHWM") >> 10
	t.Logf("%d tensors of 1 MiB left to the collector: peak %d MiB, %.1f s", n, peak, time.Since(start).Seconds())
	require.Less(t, peak, 1024)
	for deadline := time.Now().Add(20 * time.Second); LiveTensors() > 0 && time.Now().Before(deadline); {
		Collect()
		time.Sleep(10 * time.Millisecond)
	}
	require.Zero(t, LiveTensors())
}

// mixed runs about ten operators of different kinds, failures, gradients and hooks among them.
func mixed(i int, w *Tensor) (operations int) {
	Scope(func() {
		x := FromSlice([]float32{1, 2, 3, 4, 5, float32(i)}, 2, 3)
		y := x.MatMul(w).Relu()
		parts := y.Split(1)
		z := Cat(append(parts, y)).Sum()
		if z.Dim() != 0 {
			panic("sum is no scalar")
		}
		_ = ToSlice[float32](y.T())
		operations = 8
		switch i % 5 {
		case 0:
			if i%20 == 0 { // unwinding takes longer than all the rest
				_ = TryDo(func() { x.MatMul(x) })
				operations++
			}
			y.Add_(y)
			operations++
		case 1:
			p := w.Detach().SetRequiresGrad(true)
			p.RegisterHook(func(g *Tensor) *Tensor { return g.MulScalar(2) })
			x.MatMul(p).Sum().Backward()
			p.Grad().Close()
			operations += 6
		case 2:
			Inference(func() { y.Softmax(-1).Close(); y.Exp() })
			operations += 2
		case 3:
			kept := ScopeOf(func() []*Tensor { return x.Split(1) })
			Keep(kept[0])
			kept[0].Close()
			operations++
		case 4:
			b := make([]byte, 64)
			var pin runtime.Pinner
			pin.Pin(&b[0])
			FromBlob(pointerTo(b), 64, []int{16}, Float32, pin.Unpin).Add(y.Select(0, 0).Sum())
			operations += 4
		}
	})
	return operations
}

// slope is the slope of the line through the points (least squares).
func slope(x, y []float64) float64 {
	var mx, my, sxy, sxx float64
	for i := range x {
		mx += x[i] / float64(len(x))
		my += y[i] / float64(len(x))
	}
	for i := range x {
		sxy += (x[i] - mx) * (y[i] - my)
		sxx += (x[i] - mx) * (x[i] - mx)
	}
	return sxy / sxx
}

func TestMemoryStaysFlat(t *testing.T) {
	if instrumented {
		t.Skip("an instrumented build has other memory figures")
	}
	if !inChild(t, "GOMEMLIMIT=off") {
		return
	}
	const total = 3_000_000 // the first fifth still grows; enough that what a busy machine adds once is no slope
	w := Randn([]int{3, 4})
	defer w.Close()
	before := LiveTensors()
	start := time.Now()
	var at, rss []float64
	done, next := 0, 0
	for i := 0; done < total; i++ {
		done += mixed(i, w)
		if done >= next {
			next += total / 200
			data, err := os.ReadFile("/proc/self/statm")
			if err != nil {
				t.Skip("no /proc/self/statm on this system")
			}
			pages, err := strconv.Atoi(strings.Fields(string(data))[1])
			require.NoError(t, err)
			if done > total/5 { // warm
				at, rss = append(at, float64(done)/1000), append(rss, float64(pages*os.Getpagesize())/1024)
			}
		}
	}
	growth := slope(at, rss)
	t.Logf("%d operations in scopes: RSS %.0f MiB, slope %.3f KiB per 1,000 operations, %.1f s", done, rss[len(rss)-1]/1024, growth, time.Since(start).Seconds())
	require.LessOrEqual(t, growth, 1.0)
	require.Equal(t, before, LiveTensors())
	require.Zero(t, holds.count.Load())
}

func TestUseAfterEnd(t *testing.T) {
	var escaped, other *Tensor
	Scope(func() { escaped, other = ones(2), ones(2) })
	closed := ones(2)
	closed.Close()
	for _, x := range []*Tensor{escaped, closed} {
		for op, fn := range map[string]func(){
			"add": func() { x.Add(ones(2)) }, "mul": func() { ones(2).Mul(x) }, "cat": func() { Cat([]*Tensor{ones(2), x}) },
			"shape": func() { x.Shape() }, "to_slice": func() { ToSlice[float32](x) }, "data": func() { Data[float32](x) },
			"backward": func() { x.Backward() }, "grad": func() { x.Grad() }, "set_grad": func() { ones(2).SetGrad(x) },
			"requires_grad_": func() { x.SetRequiresGrad(true) }, "set_data": func() { ones(2).SetData(x) },
			"register_hook": func() { x.RegisterHook(func(*Tensor) *Tensor { return nil }) }, "dtype": func() { x.DType() },
		} {
			Scope(func() {
				err := TryDo(fn)
				require.ErrorIs(t, err, ErrClosed, op)
				require.EqualError(t, err, op+": the tensor was closed, or its scope has ended")
			})
		}
	}
	require.Zero(t, holds.count.Load(), "a hook that could not be registered is let go")
	other.Close() // after its scope: nothing happens
	escaped.Close()
}

type embedded struct{ Inner *Tensor }

type everything struct {
	Tensor   *Tensor
	Array    [2]*Tensor
	Slice    []any
	Map      map[string][]*Tensor
	Keys     map[*Tensor]bool
	Any      any
	Pointer  *everything
	First    *embedded
	Whole    *struct{ embedded }
	embedded          // its exported fields are this one's
	Func     func()   // no tensors in it
	Chan     chan int // nor in it
	hidden   *Tensor
}

func TestResultsLeaveTheirScope(t *testing.T) {
	before := LiveTensors()
	var lost *Tensor
	v := ScopeOf(func() *everything {
		e := &everything{
			Tensor: ones(1), Array: [2]*Tensor{ones(2), nil}, Slice: []any{ones(3), 1, nil, "x"},
			Map: map[string][]*Tensor{"a": {ones(4)}}, Keys: map[*Tensor]bool{ones(5): true},
			Any: []*Tensor{ones(6)}, embedded: embedded{ones(7)}, hidden: ones(8),
		}
		e.Pointer = e // a cycle
		e.Slice[1] = e.Slice
		e.Whole = &struct{ embedded }{embedded{ones(9)}}
		e.First = &e.Whole.embedded // the address of e.Whole, too
		e.Map["b"] = []*Tensor{e.Tensor, e.Tensor}
		lost = e.hidden
		return e
	})
	require.Equal(t, before+8, LiveTensors())
	require.True(t, lost.Closed(), "unexported fields are the function's own business")
	for i, x := range []*Tensor{v.Tensor, v.Array[0], v.Slice[0].(*Tensor), v.Map["a"][0], nil, v.Any.([]*Tensor)[0], v.Inner} {
		if x != nil {
			require.Equal(t, []int{i + 1}, x.Shape())
			x.Close()
		}
	}
	for k := range v.Keys {
		require.Equal(t, []int{5}, k.Shape())
		k.Close()
	}
	v.Whole.Inner.Close()
	require.Equal(t, before, LiveTensors())
}

func TestKeepAndReturn(t *testing.T) {
	before := LiveTensors()
	outer := ones(1)
	Scope(func() {
		argument := ones(2)
		got := ScopeOf(func() *Tensor { return argument })
		require.Same(t, argument, got)
		require.False(t, argument.Closed(), "an argument stays with its own scope")

		twice := ScopeOf(func() []*Tensor { x := ones(3); return []*Tensor{x, x} })
		require.False(t, twice[0].Closed())

		kept := ScopeOf(func() *Tensor {
			x := ones(4)
			Keep(x, x, nil)
			Keep(x)
			return x
		})
		require.False(t, kept.Closed())
		kept.Close()

		deep := ScopeOf(func() *Tensor {
			return ScopeOf(func() *Tensor { return ScopeOf(func() *Tensor { return ones(5) }) })
		})
		require.Equal(t, []int{5}, deep.Shape())
		require.Same(t, outer, ScopeOf(func() *Tensor { return outer }))

		var nothing *Tensor
		require.Nil(t, ScopeOf(func() *Tensor { return nothing }))
		require.Nil(t, ScopeOf(func() any { return nil }))
		closed := ScopeOf(func() *Tensor { x := ones(6); x.Close(); return x })
		require.True(t, closed.Closed())
		x := ones(7)
		x.Close()
		require.ErrorIs(t, TryDo(func() { Keep(x) }), ErrClosed)

		value, err := Try(func() *Tensor { return ScopeOf(func() *Tensor { x := ones(8); x.MatMul(ones(9)); return x }) })
		require.Error(t, err)
		require.Nil(t, value)
	})
	require.False(t, outer.Closed())
	require.Equal(t, before+1, LiveTensors())
	outer.Close()
	require.Equal(t, before, LiveTensors())
}

// A closed tensor that was kept is not freed a second time by the collector.
func TestKeepThenCloseThenCollect(t *testing.T) {
	for range 100 {
		Scope(func() {
			x := ones(16)
			Keep(x)
			x.Close()
			y := ones(16)
			y.Close()
			_ = TryDo(func() { Keep(y) })
		})
	}
	before := LiveTensors()
	Collect()
	Collect()
	require.LessOrEqual(t, LiveTensors(), before)
	Scope(func() { require.Equal(t, float32(2), Item[float32](add(ones(), ones()))) })
}

func TestBlobIsReleasedOnce(t *testing.T) {
	memory := func() (*[]float32, func()) {
		data := []float32{1, 2, 3, 4}
		var pin runtime.Pinner
		pin.Pin(&data[0])
		return &data, pin.Unpin
	}
	for name, use := range map[string]func(blob *Tensor) (last *Tensor){
		"alone":   func(x *Tensor) *Tensor { return x },
		"view":    func(x *Tensor) *Tensor { v := x.View(2, 2).T().Select(0, 1); x.Close(); return v },
		"detach":  func(x *Tensor) *Tensor { v := x.Detach(); x.Close(); return v },
		"of data": func(x *Tensor) *Tensor { y := ones(4); y.SetData(x); x.Close(); return y },
		"saved for backward": func(x *Tensor) *Tensor {
			w := ones(4).SetRequiresGrad(true)
			y := w.Mul(x).Sum()
			x.Close()
			w.Close()
			return y
		},
		"gradient": func(x *Tensor) *Tensor { w := ones(4).SetRequiresGrad(true); w.SetGrad(x); x.Close(); return w },
	} {
		t.Run(name, func(t *testing.T) {
			before := LiveTensors()
			data, unpin := memory()
			defer unpin()
			released := 0
			Scope(func() {
				x := FromBlob(pointerTo(*data), 16, []int{4}, Float32, func() { released++ })
				last := use(x)
				Keep(last)
				Scope(func() {})
				require.Zero(t, released)
				defer func() {
					require.Zero(t, released, "the last user is %s", name)
					last.Close()
				}()
			})
			Scope(func() {})
			require.Equal(t, 1, released)
			require.Equal(t, before, LiveTensors())
		})
	}
	t.Run("empty", func(t *testing.T) {
		released := 0
		FromBlob(nil, 0, []int{0, 3}, Float32, func() { released++ }).Close()
		require.Equal(t, 1, released)
	})
	t.Run("refused", func(t *testing.T) {
		data, unpin := memory()
		defer unpin()
		for _, shape := range [][]int{{5}, {-1}, {1 << 40, 1 << 40}, make([]int, 65)} {
			require.Error(t, TryDo(func() { FromBlob(pointerTo(*data), 16, shape, Float32, func() { t.Error("released") }) }))
		}
		require.ErrorIs(t, TryDo(func() { FromBlob(pointerTo(*data), 16, []int{4}, 99, nil) }), ErrArgument)
		require.ErrorIs(t, TryDo(func() { FromBlob(nil, 16, []int{4}, Float32, nil) }), ErrArgument)
		require.ErrorIs(t, TryDo(func() { FromBlob(pointerTo(*data), 16, []int{4}, Float32, nil, 1, 1) }), ErrArgument)
	})
	t.Run("by the collector", func(t *testing.T) {
		var released atomic.Int32
		func() {
			for range 10 {
				FromBlob(nil, 0, []int{0}, Float32, func() { released.Add(1) })
			}
		}()
		for deadline := time.Now().Add(20 * time.Second); released.Load() < 10 && time.Now().Before(deadline); {
			Collect()
		}
		require.EqualValues(t, 10, released.Load())
	})
	t.Run("in many goroutines", func(t *testing.T) {
		var released atomic.Int32
		var wg sync.WaitGroup
		for range 8 {
			wg.Add(1)
			go func() {
				defer wg.Done()
				for range 500 {
					Scope(func() { FromBlob(nil, 0, []int{0}, Float32, func() { released.Add(1) }) })
				}
			}()
		}
		wg.Wait()
		drainReleased()
		require.EqualValues(t, 4000, released.Load())
	})
	// The function may itself use a scope, although all permits are taken.
	t.Run("into a scope", func(t *testing.T) {
		var wg sync.WaitGroup
		for range 4 * cap(permits) {
			wg.Add(1)
			go func() {
				defer wg.Done()
				for range 20 {
					Scope(func() { FromBlob(nil, 0, []int{0}, Float32, func() { Scope(func() { ones(1) }) }) })
				}
			}()
		}
		wait(t, &wg)
	})
	require.Zero(t, holds.count.Load())
}

func TestOutOfMemoryIsAnError(t *testing.T) {
	before := LiveTensors()
	Scope(func() {
		for _, shape := range [][]int{{1 << 50}, {1 << 25, 1 << 25}} {
			x := ones(1).SetRequiresGrad(true)
			err := TryDo(func() { Empty(shape) })
			require.ErrorIs(t, err, ErrOutOfMemory)
			require.ErrorContains(t, err, "can't allocate memory")
			err = TryDo(func() { x.Mul(FromSlice([]float32{1, 2})).View(2, 1).Add(Ones([]int{1, 1}).Expand(1<<49, 2, 2)) })
			require.ErrorIs(t, err, ErrOutOfMemory)
			y := x.Mul(x)
			y.Backward()
			require.Equal(t, float32(2), Item[float32](x.Grad()), "the next operator works")
		}
	})
	require.Equal(t, before, LiveTensors())
}

// What the collector could free is freed before an allocation fails for good.
func TestOutOfMemoryCollectsAndRetries(t *testing.T) {
	if instrumented {
		t.Skip("an instrumented build has other memory figures")
	}
	if !inChild(t, "OMP_NUM_THREADS=1") {
		return
	}
	require.NoError(t, Load())
	const size = 15 << 20 // 60 MiB
	func() {
		for range 4 { // together less than starts a collection
			Ones([]int{size})
		}
	}()
	Ones([]int{8}).Close()
	used := uint64(status(t, "VmSize")) << 10
	limit := syscall.Rlimit{Cur: used + 384<<20, Max: used + 384<<20}
	require.NoError(t, syscall.Setrlimit(syscall.RLIMIT_AS, &limit))
	require.EqualValues(t, 4, LiveTensors(), "nothing has been collected yet")
	x := Empty([]int{100 << 20}) // 400 MiB
	require.Equal(t, 100<<20, x.Numel())
	err := TryDo(func() { Empty([]int{100 << 20}) })
	require.ErrorIs(t, err, ErrOutOfMemory)
	runtime.KeepAlive(x)
	Scope(func() { require.Equal(t, float32(2), Item[float32](add(ones(), ones()))) })
}

func TestDeepGraph(t *testing.T) {
	n := 1_000_000
	if testing.Short() {
		n = 50_000
	}
	before := LiveTensors()
	build := func(x *Tensor) *Tensor {
		y := x
		for range n {
			next := y.Add(x)
			if y != x {
				y.Close()
			}
			y = next
		}
		return y
	}
	done := make(chan float64)
	go func() { // a goroutine's thread has a small stack
		var g float64
		Scope(func() {
			x := FromSlice([]float64{1}).SetRequiresGrad(true)
			build(x).Sum().Backward()
			g = Item[float64](x.Grad())
			build(x).Close() // the graph goes with its head
			Scope(func() {
				y := x
				for range n / 4 {
					y = y.Add(x)
				}
			})
		})
		done <- g
	}()
	require.Equal(t, float64(n+1), <-done)
	require.Equal(t, before, LiveTensors())
}

// An operator whose lookup fails does not keep its arguments.
func TestFailedLookupKeepsNothing(t *testing.T) {
	before := LiveTensors()
	x := ones(1)
	missing := op{name: "aten::add", overload: "Tensor", schema: "aten::add.Tensor(Tensor self) -> Tensor"}
	require.ErrorIs(t, TryDo(func() {
		var c call
		c.start(&missing)
		c.tensor(x)
		c.run()
	}), ErrSchema)
	x.Close()
	require.Equal(t, before, LiveTensors())
}

// Arguments of a call that is given up halfway are let go.
func TestFailedCallKeepsNothing(t *testing.T) {
	before := LiveTensors()
	x := ones(1)
	for _, second := range []any{nil, "text", struct{}{}, uint64(1) << 63, DType(99), Device{Type: 77}} {
		require.ErrorIs(t, TryDo(func() { Call("aten::add.Tensor", x, second, 1) }), ErrArgument, fmt.Sprint(second))
	}
	closed := ones(1)
	closed.Close()
	require.ErrorIs(t, TryDo(func() { Call("aten::add.Tensor", x, closed, 1) }), ErrClosed)
	x.Close()
	require.True(t, x.Closed())
	require.Equal(t, before, LiveTensors())
}

// Go was promised that operators don't call back, save the one that runs backward.
func TestHookInsideAnOperator(t *testing.T) {
	Scope(func() {
		x := ones(2).SetRequiresGrad(true)
		x.RegisterHook(func(g *Tensor) *Tensor { return g.MulScalar(2) })
		Call("aten::_backward", x.Sum(), []*Tensor{}, nil, nil, false)
		require.Equal(t, []float32{2, 2}, ToSlice[float32](x.Grad()))
		require.ErrorIs(t, TryDo(func() { x.SetGrad(x) }), ErrArgument)
	})
	require.Zero(t, holds.count.Load())
}
