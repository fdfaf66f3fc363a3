package torch

import (
	"runtime"
	"testing"

	"github.com/stretchr/testify/require"
)

// Packed weights: made by an operator, taken by others, unpacked again.
func TestObjects(t *testing.T) {
	require.NoError(t, Load())
	const qint8 = 12 // of c10::ScalarType
	Scope(func() {
		x := FromSlice([]float32{1, 2, 3, -1, 0.5, 0}, 2, 3)
		w := FromSlice([]float32{0.5, -1, 0.25, 1, 0.75, -0.5}, 2, 3)
		b := FromSlice([]float32{1, -1})
		q := Call("aten::quantize_per_tensor", w, 0.25, 0, qint8)[0].(*Tensor) // exact: multiples of 1/4
		packed := Quantized.LinearPrepack(q, QuantizedLinearPrepackOptions{B: b})
		runtime.GC() // must not free it

		y := Quantized.LinearDynamic(x, packed)
		want := Linear(x, w, LinearOptions{Bias: b})
		require.InDeltaSlice(t, ToSlice[float32](want.Flatten()), ToSlice[float32](y.Flatten()), 0.05, "x is quantized to 8 bits")

		parts := Call("quantized::linear_unpack", packed)
		require.Equal(t, ToSlice[float32](w.Flatten()), ToSlice[float32](parts[0].(*Tensor).Dequantize().Flatten()))
		require.Equal(t, []float32{1, -1}, ToSlice[float32](parts[1].(*Tensor)))

		// Another class than the schema's, and none.
		_, err := Try(func() []any { return Call("quantized::conv2d_dynamic", x, packed, false) })
		require.ErrorIs(t, err, ErrArgument)
		require.ErrorContains(t, err, "Conv2dPackedParamsBase")
		_, err = Try(func() *Tensor { return Quantized.LinearDynamic(x, nil) })
		require.ErrorIs(t, err, ErrArgument)
		_, err = Try(func() []any { return Call("aten::relu", packed) })
		require.ErrorIs(t, err, ErrArgument)
	})
}

// Where a schema has a Storage, a tensor stands for its own.
func TestStorageOfTensor(t *testing.T) {
	Scope(func() {
		x, y := FromSlice([]float32{1, 2, 3}), Empty([]int{0})
		Call("aten::set_.source_Storage", y, x)
		require.Equal(t, []float32{1, 2, 3}, ToSlice[float32](y))
		require.Equal(t, x.StorageID(), y.StorageID())
	})
}
