package main

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/torchgo/torchgo/torch"
)

func TestCustomFunction(t *testing.T) {
	var out strings.Builder
	require.NoError(t, run(&out, 3, 5))
	require.Contains(t, out.String(), "first and second derivatives agree")
	require.Contains(t, out.String(), "with weights of 3 bits")
}

func TestTrainingReachesTheWeights(t *testing.T) {
	first := train(3, 1)
	require.Less(t, train(3, 300), first/5, "rounded weights learn: without a gradient they would not")
	require.Less(t, train(0, 300), 0.01)
}

func TestQuantize(t *testing.T) {
	torch.Scope(func() {
		x := torch.FromSlice([]float32{-3, -1.4, 0.2, 1.6, 3}).SetRequiresGrad(true)
		y := torch.Apply(quantize{3}, x)[0] // 7 values: -3 … 3
		require.Equal(t, []float32{-3, -1, 0, 2, 3}, torch.ToSlice[float32](y.Detach()))
		y.Sum().Backward()
		require.Equal(t, []float32{1, 1, 1, 1, 1}, torch.ToSlice[float32](x.Grad()))
	})
}
