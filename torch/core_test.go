package torch

import (
	"errors"
	"fmt"
	"runtime"
	"sync"
	"testing"
	"time"
	"unsafe"

	"github.com/stretchr/testify/require"
)

// add is aten::add.Tensor without the generated API, which these tests do not need.
func add(a, b *Tensor) *Tensor { return Call("aten::add.Tensor", a, b, 1)[0].(*Tensor) }

func ones(shape ...int) *Tensor {
	return Call("aten::ones", shape, nil, nil, nil, nil)[0].(*Tensor)
}

func TestAdd(t *testing.T) {
	Scope(func() {
		a := FromSlice([]float32{1, 2, 3, 4}, 2, 2)
		sum := add(a, ones(2, 2))
		require.Equal(t, []int{2, 2}, sum.Shape())
		require.Equal(t, []float32{2, 3, 4, 5}, ToSlice[float32](sum))
		require.Equal(t, Float32, sum.DType())
		require.Equal(t, CPU, sum.Device())
	})
}

func TestErrorsAreTyped(t *testing.T) {
	Scope(func() {
		_, err := Try(func() *Tensor {
			return Call("aten::matmul", ones(2, 3), ones(4, 5))[0].(*Tensor)
		})
		require.ErrorIs(t, err, ErrRuntime)
		require.Regexp(t, `^matmul: (mm: )?mat1 and mat2 shapes cannot be multiplied \(2x3 and 4x5\): \(2, 3\) x \(4, 5\)$`, err.Error())
		var e *Error
		require.ErrorAs(t, err, &e)
		require.Equal(t, []Shape{{2, 3}, {4, 5}}, e.Shapes)

		_, err = Try(func() []any { return Call("aten::nosuchthing") })
		require.ErrorIs(t, err, ErrNoOperator)
		_, err = Try(func() *Tensor { return ones(1<<40, 1<<10) })
		require.ErrorIs(t, err, ErrOutOfMemory)
		require.Equal(t, float32(2), Item[float32](add(ones(), ones())), "an operator after running out of memory")
		_, err = Try(func() []any { return Call("aten::add.Tensor", ones(1), nil, 1) })
		require.ErrorIs(t, err, ErrArgument)
		_, err = Try(func() []any { return Call("aten::add.Tensor", ones(1)) })
		require.ErrorIs(t, err, ErrArgument)
		_, err = Try(func() []any { return Call("aten::add.Tensor", ones(1), "x", 1) })
		require.ErrorIs(t, err, ErrArgument)
		other := op{name: "aten::add", overload: "Tensor", schema: "aten::add.Tensor(Tensor self) -> Tensor"}
		_, err = Try(func() any { other.find(); return nil })
		require.ErrorIs(t, err, ErrSchema)
		require.ErrorContains(t, err, "Tensor other")
		require.ErrorContains(t, err, "add.Tensor(Tensor self) -> Tensor")
	})
	require.Panics(t, func() { _, _ = Try(func() int { panic("not ours") }) })
}

func TestScopeFreesWhatIsNotKept(t *testing.T) {
	before := LiveTensors()
	var inner, kept *Tensor
	result := ScopeOf(func() []*Tensor {
		a := ones(3)
		r := ScopeOf(func() *Tensor {
			inner = ones(2)
			return add(a, a)
		})
		require.Equal(t, []float32{2, 2, 2}, ToSlice[float32](r), "a result belongs to the scope around")
		require.True(t, inner.Closed())
		kept = ones(1)
		Keep(kept)
		return []*Tensor{add(r, r)}
	})
	require.Equal(t, before+2, LiveTensors())
	require.Equal(t, []float32{4, 4, 4}, ToSlice[float32](result[0]))
	_, err := Try(func() *Tensor { return add(inner, inner) })
	require.ErrorIs(t, err, ErrClosed)
	require.EqualError(t, err, "add: the tensor was closed, or its scope has ended")
	result[0].Close()
	result[0].Close()
	kept.Close()
	require.Equal(t, before, LiveTensors())
	_, err = Try(func() []int { return kept.Shape() })
	require.ErrorIs(t, err, ErrClosed)
}

func TestScopeEndsOnPanic(t *testing.T) {
	before := LiveTensors()
	require.Panics(t, func() { Scope(func() { ones(1); panic("stop") }) })
	require.Equal(t, before, LiveTensors())
	require.True(t, GradEnabled())
	require.Panics(t, func() { Inference(func() { panic("stop") }) })
	require.False(t, InferenceEnabled())
	require.True(t, GradEnabled())
}

func TestManyArgumentsAndResults(t *testing.T) {
	Scope(func() {
		var ts []*Tensor
		for i := range 100 {
			ts = append(ts, FromSlice([]int64{int64(i)}))
		}
		all := Call("aten::cat", ts, 0)[0].(*Tensor)
		require.Equal(t, []int{100}, all.Shape())
		parts := Call("aten::split.Tensor", all, 1, 0)[0].([]*Tensor)
		require.Len(t, parts, 100)
		for i, p := range parts {
			require.Equal(t, int64(i), Item[int64](p))
		}
	})
}

func TestInPlaceReturnsItsArgument(t *testing.T) {
	Scope(func() {
		a := ones(2)
		require.Same(t, a, Call("aten::add_.Tensor", a, a, 1)[0])
		require.Equal(t, []float32{2, 2}, ToSlice[float32](a))
		require.NotSame(t, a, Call("aten::contiguous", a, ContiguousFormat)[0], "only what is written to is the argument itself")
	})
}

func TestBackwardAndHooks(t *testing.T) {
	before := LiveTensors()
	Scope(func() {
		x := FromSlice([]float64{1, 2, 3}).SetRequiresGrad(true)
		calls := 0
		remove := x.RegisterHook(func(g *Tensor) *Tensor {
			calls++
			return add(g, g)
		})
		square := func() *Tensor { return Call("aten::sum", Call("aten::mul.Tensor", x, x)[0], nil)[0].(*Tensor) }
		y := square()
		require.Equal(t, "SumBackward0", y.GradFn())
		y.Backward()
		require.Equal(t, 1, calls)
		require.Equal(t, []float64{4, 8, 12}, ToSlice[float64](x.Grad()))
		remove()
		x.SetGrad(nil)
		require.Nil(t, x.Grad())
		square().Backward()
		require.Equal(t, []float64{2, 4, 6}, ToSlice[float64](x.Grad()))
		require.Equal(t, 1, calls)
		g := Grad([]*Tensor{square()}, []*Tensor{x}, GradOptions{CreateGraph: true})[0]
		gg := Grad([]*Tensor{Call("aten::sum", g, nil)[0].(*Tensor)}, []*Tensor{x})[0]
		require.Equal(t, []float64{2, 2, 2}, ToSlice[float64](gg))

		x.RegisterHook(func(*Tensor) *Tensor { panic(errors.New("no gradient today")) })
		err := TryDo(func() { square().Backward() })
		require.ErrorIs(t, err, ErrCallback)
		require.ErrorContains(t, err, "no gradient today")
	})
	require.Equal(t, before, LiveTensors())
	require.Zero(t, holds.count.Load(), "hooks are let go")
}

func TestModesBelongToTheirFunction(t *testing.T) {
	require.True(t, GradEnabled())
	NoGrad(func() {
		require.False(t, GradEnabled())
		EnableGrad(func() { require.True(t, GradEnabled()) })
		done := make(chan bool, 2)
		go func() { done <- GradEnabled() }()
		require.True(t, <-done, "a goroutine has the defaults")
		Go(func() { done <- GradEnabled() })
		require.False(t, <-done)
	})
	Inference(func() {
		require.True(t, InferenceEnabled())
		require.True(t, ones(1).IsInference())
	})
	require.False(t, InferenceEnabled())
}

func TestFromBlobReleasesOnce(t *testing.T) {
	before := LiveTensors()
	data := []float32{1, 2, 3, 4, 5, 6}
	var pin runtime.Pinner
	pin.Pin(&data[0])
	released := 0
	Scope(func() {
		a := FromBlob(pointerTo(data), 24, []int{2, 3}, Float32, func() { released++ })
		view := Call("aten::select.int", a, 0, 1)[0].(*Tensor)
		a.Close()
		require.Zero(t, released, "a view still uses it")
		require.Equal(t, []float32{4, 5, 6}, ToSlice[float32](view))
		data[3] = 40
		require.Equal(t, []float32{40, 5, 6}, ToSlice[float32](view))
	})
	require.Equal(t, 1, released)
	pin.Unpin()
	_, err := Try(func() *Tensor { return FromBlob(pointerTo(data), 23, []int{2, 3}, Float32, nil) })
	require.ErrorIs(t, err, ErrArgument)
	require.Equal(t, before, LiveTensors())
}

func TestConversions(t *testing.T) {
	Scope(func() {
		b := FromSlice([]float32{1, 1.00390625, -3e38, 1e-40}).ToDType(BFloat16)
		require.Equal(t, []float32{1, 1, -2.9976e38, 9.918e-41}[0:2], ToSlice[float32](b)[:2])
		require.Equal(t, BF16(0x3f80), ToSlice[BF16](b)[0])
		require.Equal(t, []float64{1, 0}, ToSlice[float64](FromSlice([]bool{true, false})))
		_, err := Try(func() []int64 { return ToSlice[int64](b) })
		require.ErrorIs(t, err, ErrType)
		tr := Call("aten::t", FromSlice([]int32{1, 2, 3, 4, 5, 6}, 2, 3))[0].(*Tensor)
		require.False(t, tr.IsContiguous())
		require.Equal(t, []int{1, 3}, tr.Stride())
		require.Equal(t, []int32{1, 4, 2, 5, 3, 6}, ToSlice[int32](tr))
		require.Equal(t, 7, Item[int](FromValue(7)))
		c := Call("aten::conj", FromSlice([]complex64{1 + 2i}))[0].(*Tensor)
		require.Equal(t, []complex64{1 - 2i}, ToSlice[complex64](c))
	})
}

func TestManyGoroutines(t *testing.T) {
	w := ones(32, 32)
	defer w.Close()
	var wg sync.WaitGroup
	for g := range 64 {
		wg.Add(1)
		go func() {
			defer wg.Done()
			for i := range 200 {
				if (g+i)%2 == 0 {
					Inference(func() {
						if !InferenceEnabled() {
							t.Error("inference mode is lost")
						}
						add(w, w)
						runtime.Gosched()
						add(w, w)
					})
				} else {
					x := add(w, w)
					if x.IsInference() {
						t.Error("inference mode leaked")
					}
					x.Close()
				}
			}
		}()
	}
	wg.Wait()
}

func TestCloseRacesUse(t *testing.T) {
	before := LiveTensors()
	for range 200 {
		x := ones(64)
		var wg sync.WaitGroup
		for range 4 {
			wg.Add(1)
			go func() {
				defer wg.Done()
				for {
					y, err := Try(func() *Tensor { return add(x, x) })
					if err != nil {
						if !errors.Is(err, ErrClosed) {
							t.Error(err)
						}
						return
					}
					y.Close()
				}
			}()
		}
		time.Sleep(50 * time.Microsecond)
		x.Close()
		wg.Wait()
	}
	require.Equal(t, before, LiveTensors())
}

// The interesting bound, peak memory, is in TestCollectorKeepsUp's child process; see memory_test.go.
func ExampleScope() {
	Scope(func() {
		x := FromSlice([]float32{1, 2, 3})
		fmt.Println(ToSlice[float32](add(x, x)))
	})
	// Output: [2 4 6]
}

func BenchmarkAdd(b *testing.B) {
	SetNumThreads(1)
	x, y := ones(2, 2), ones(2, 2)
	add := func() *Tensor {
		var c call
		c.start(&opAddBench)
		c.tensor(x)
		c.tensor(y)
		c.int(1)
		c.run()
		return c.retTensor()
	}
	b.Run("scope", func(b *testing.B) {
		for i := 0; i < b.N; i += 100 {
			Scope(func() {
				for range 100 {
					add()
				}
			})
		}
	})
	b.Run("close", func(b *testing.B) {
		for range b.N {
			add().Close()
		}
	})
	b.Run("collector", func(b *testing.B) {
		for range b.N {
			add()
		}
	})
	b.Run("emptyscope", func(b *testing.B) {
		for range b.N {
			Scope(func() {})
		}
	})
}

var opAddBench = op{name: "aten::add", overload: "Tensor"}

func pointerTo[T any](s []T) unsafe.Pointer { return unsafe.Pointer(unsafe.SliceData(s)) }
