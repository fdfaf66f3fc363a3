package torch

import (
	"math"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestDeterministicMode(t *testing.T) {
	defer UseDeterministicAlgorithms(false)
	put := func() error {
		return TryDo(func() {
			Scope(func() { Zeros([]int{3}).Put_(FromSlice([]int64{0}), FromSlice([]float32{1})) })
		})
	}
	require.False(t, AreDeterministicAlgorithmsEnabled())
	require.NoError(t, put())

	UseDeterministicAlgorithms(true)
	require.True(t, AreDeterministicAlgorithmsEnabled())
	require.False(t, IsDeterministicAlgorithmsWarnOnlyEnabled())
	err := put()
	require.ErrorIs(t, err, ErrRuntime)
	require.ErrorContains(t, err, "put_ does not have a deterministic implementation")

	UseDeterministicAlgorithms(true, DeterministicOptions{WarnOnly: true})
	require.True(t, AreDeterministicAlgorithmsEnabled())
	require.True(t, IsDeterministicAlgorithmsWarnOnlyEnabled())
	require.NoError(t, put())
}

// What Empty returns is filled in deterministic mode, as in Python.
func TestDeterministicModeFillsMemory(t *testing.T) {
	defer UseDeterministicAlgorithms(false)
	UseDeterministicAlgorithms(true)
	require.True(t, FillUninitializedMemory.On(), "the default")
	Scope(func() {
		for _, v := range ToSlice[float32](Empty([]int{100})) {
			require.True(t, math.IsNaN(float64(v)))
		}
		for _, v := range ToSlice[int32](Empty([]int{100}, EmptyOptions{DType: Int32})) {
			require.EqualValues(t, math.MaxInt32, v)
		}
	})
	defer FillUninitializedMemory.Set(true)
	FillUninitializedMemory.Set(false)
	require.False(t, FillUninitializedMemory.On())
	Scope(func() {
		// The memory of the block before: freed blocks of this size are used again at once.
		Scope(func() { Ones([]int{100}) })
		for _, v := range ToSlice[float32](Empty([]int{100})) {
			require.False(t, math.IsNaN(float64(v)))
		}
	})
}

func TestFlags(t *testing.T) {
	defaults := map[Flag]bool{
		FillUninitializedMemory: true, CUDNNEnabled: true, CUDNNBenchmark: false, CUDNNDeterministic: false, CUDNNAllowTF32: true,
		MatmulAllowTF32: false, MatmulFP16Reduction: true, MatmulBF16Reduction: true,
	}
	for f, on := range defaults {
		require.Equal(t, on, f.On(), f)
		f.Set(!on)
		require.Equal(t, !on, f.On(), f)
		f.Set(on)
		require.Equal(t, on, f.On(), f)
	}
	require.Equal(t, MatmulHighest, Float32MatmulPrecision())
	for _, p := range []MatmulPrecision{MatmulHigh, MatmulMedium, MatmulHighest} {
		SetFloat32MatmulPrecision(p)
		require.Equal(t, p, Float32MatmulPrecision())
		require.Equal(t, p != MatmulHighest, MatmulAllowTF32.On())
	}
	require.ErrorIs(t, TryDo(func() { SetFloat32MatmulPrecision(3) }), ErrArgument)
	require.Equal(t, 10, CUDNNBenchmarkLimit())
	SetCUDNNBenchmarkLimit(0)
	require.Equal(t, 0, CUDNNBenchmarkLimit())
	SetCUDNNBenchmarkLimit(10)
	require.ErrorIs(t, TryDo(func() { SetCUDNNBenchmarkLimit(-1) }), ErrArgument)
}
