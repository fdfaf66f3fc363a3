package torch

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// roundTrip takes values through a tensor.
func roundTrip[T Element](t *testing.T, dtype DType, values ...T) {
	x := FromSlice(values)
	require.Equal(t, dtype, x.DType())
	require.Equal(t, dtype.ItemSize()*len(values), x.NumBytes())
	require.Equal(t, values, ToSlice[T](x))
	require.Equal(t, values, Data[T](x))
	require.Equal(t, values[0], Item[T](FromValue(values[0])))
	Data[T](x)[0] = values[1]
	require.Equal(t, values[1], ToSlice[T](x)[0], "a view writes to the tensor")
}

func TestEveryElementType(t *testing.T) {
	Scope(func() {
		roundTrip(t, Bool, true, false)
		roundTrip[int8](t, Int8, -128, 127)
		roundTrip[int16](t, Int16, -32768, 32767)
		roundTrip[int32](t, Int32, -1<<31, 1<<31-1)
		roundTrip[int64](t, Int64, -1<<63, 1<<63-1)
		roundTrip(t, Int64, -1<<63, 1<<63-1)
		roundTrip[uint8](t, Uint8, 0, 255)
		roundTrip[uint16](t, Uint16, 0, 65535)
		roundTrip[uint32](t, Uint32, 0, 1<<32-1)
		roundTrip[uint64](t, Uint64, 0, 1<<64-1)
		roundTrip[F16](t, Float16, 0x3c00, 0x7bff)
		roundTrip[BF16](t, BFloat16, 0x3f80, 0xff7f)
		roundTrip[float32](t, Float32, 1.5, -3e38)
		roundTrip(t, Float64, 1.5, -1e308)
		roundTrip[complex64](t, Complex64, 1+2i, -3i)
		roundTrip[complex128](t, Complex128, 1+2i, -3i)
	})
}

func TestShapesAreChecked(t *testing.T) {
	Scope(func() {
		for name, fn := range map[string]func(){
			"too few":       func() { FromSlice([]int32{1, 2}, 3) },
			"negative":      func() { FromSlice([]int32{1, 2}, -1, -2) },
			"overflow":      func() { FromSlice([]int32{}, 1<<40, 1<<40, 0, 1<<40) },
			"wrong dtype":   func() { Data[int32](FromSlice([]int64{1})) },
			"not on CPU":    func() { Data[float32](Empty([]int{2}, EmptyOptions{Device: Meta})) },
			"not one":       func() { Item[int](FromSlice([]int64{1, 2})) },
			"not a number":  func() { FromSlice([]int64{1}).AddScalar("x") },
			"no such dim":   func() { FromSlice([]int64{1}).Size(1) },
			"no data":       func() { ToSlice[float32](Empty([]int{2}, EmptyOptions{Device: Meta})) },
			"two options":   func() { FromSlice([]int64{1}).Add(FromSlice([]int64{1}), AddOptions{}, AddOptions{}) },
			"unsigned":      func() { FromSlice([]int64{1}).AddScalar(uint64(1) << 63) },
			"unknown dtype": func() { Zeros([]int{1}, TensorOptions{DType: 99}) },
		} {
			err := TryDo(fn)
			var e *Error
			require.ErrorAs(t, err, &e, name)
			require.NotEmpty(t, e.Error(), name)
		}
		require.Equal(t, []int{0}, FromSlice([]float32{}).Shape())
		require.Empty(t, ToSlice[float32](FromSlice([]float32{}, 0, 3)))
	})
}

// The numbers are Python's for the same seeds.
func TestSeedsGivePythonsNumbers(t *testing.T) {
	Scope(func() {
		ManualSeed(0)
		require.Equal(t, []float32{0.49625658988952637, 0.7682217955589294, 0.08847743272781372}, ToSlice[float32](Rand([]int{3})))
		require.InDeltaSlice(t, []float32{0.3643381893634796, 0.13439632952213287, 0.16421625018119812}, ToSlice[float32](Randn([]int{3})), 1e-7)
		require.Equal(t, []int64{66, 56, 99, 78}, ToSlice[int64](Randint(100, []int{4}, TensorOptions{DType: Int64})))
		state := RNGState()
		require.Equal(t, 5056, state.Numel())
		order := ToSlice[int64](Randperm(5, TensorOptions{DType: Int64}))
		require.Equal(t, []int64{1, 0, 2, 3, 4}, order)
		SetRNGState(state)
		require.Equal(t, order, ToSlice[int64](Randperm(5, TensorOptions{DType: Int64})))

		g := NewGenerator(CPU, 7)
		before := g.State()
		normal := func() []float64 {
			return ToSlice[float64](RandnGenerator([]int{3}, g, TensorOptions{DType: Float64}))
		}
		first := normal()
		require.InDeltaSlice(t, []float64{-0.1467950974849952, 0.7861412987235358, 0.9468216090039564}, first, 1e-15)
		g.SetState(before)
		require.Equal(t, first, normal())
		_, err := Try(func() any { g.SetState(Zeros([]int{3})); return nil })
		require.Error(t, err)
	})
}

func TestDeviceAndDTypeNames(t *testing.T) {
	for name, want := range map[string]Device{"cpu": CPU, "cuda": CUDA(0), "cuda:3": CUDA(3), "meta": Meta} {
		d, err := ParseDevice(name)
		require.NoError(t, err)
		require.Equal(t, want, d)
	}
	require.Equal(t, "cuda:3", CUDA(3).String())
	for _, bad := range []string{"", "gpu", "cuda:", "cuda:-1", "cuda:x", "cpu:1", "cuda:128"} {
		_, err := ParseDevice(bad)
		require.Error(t, err, bad)
	}
	for d := Uint8; d <= BComplex32; d++ {
		back, err := ParseDType("torch." + d.String())
		require.NoError(t, err)
		require.Equal(t, d, back)
		require.Positive(t, d.ItemSize())
	}
	for _, bad := range []string{"", "torch.", "float", "flot32", "Float32"} {
		_, err := ParseDType(bad)
		if bad == "float" {
			require.NoError(t, err)
			continue
		}
		require.Error(t, err, bad)
	}
}

// Zeros that autograd makes without memory read as zeros; there is nothing to look at in place.
func TestZerosWithoutMemory(t *testing.T) {
	Scope(func() {
		x := Internal.Efficientzerotensor([]int{2, 2})
		require.Equal(t, []float32{0, 0, 0, 0}, ToSlice[float32](x))
		require.Equal(t, []float64{0, 0, 0, 0}, ToSlice[float64](x))
		require.Equal(t, "tensor([[0., 0.],\n        [0., 0.]])", x.String())
		_, err := Try(func() []float32 { return Data[float32](x) })
		require.ErrorIs(t, err, ErrValue)
		_, err = Try(x.Bytes)
		require.ErrorIs(t, err, ErrValue)
	})
}
