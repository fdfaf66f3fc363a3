package torch

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// gpu skips a test that needs a GPU where there is none.
func gpu(t *testing.T) Device {
	if CUDADeviceCount() == 0 {
		t.Skip("needs a GPU that libtorch can use")
	}
	return CUDA(0)
}

func TestCUDAAgreesWithCPU(t *testing.T) {
	device := gpu(t)
	Scope(func() {
		a := Arange(12, TensorOptions{DType: Float32}).View(3, 4)
		b := a.To(device)
		require.Equal(t, device, b.Device())
		require.Equal(t, ToSlice[float32](a.MatMul(a.T())), ToSlice[float32](b.MatMul(b.T())))
		require.Equal(t, device, b.Sum().Device())
		_, err := Try(func() *Tensor { return a.Add(b) })
		require.ErrorIs(t, err, ErrRuntime, "two devices")
	})
}

func TestCUDAOutOfMemory(t *testing.T) {
	device := gpu(t)
	Scope(func() {
		_, err := Try(func() *Tensor { return Zeros([]int{1 << 40}, TensorOptions{Device: device}) })
		require.ErrorIs(t, err, ErrOutOfMemory)
		x := Ones([]int{2}, TensorOptions{Device: device})
		require.Equal(t, []float32{2, 2}, ToSlice[float32](x.Add(x)), "an operator after running out of memory")
	})
}
