package cuda

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/torchgo/torchgo/torch"
)

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
