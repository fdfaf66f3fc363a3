package main

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/torchgo/torchgo/torch"
)

func TestEveryDTypeLearns(t *testing.T) {
	before := torch.LiveTensors()
	for _, dtype := range []torch.DType{torch.Float32, torch.BFloat16, torch.Float16} {
		r := torch.ScopeOf(func() result { return train(torch.CPU, dtype, 100) })
		require.InDelta(t, 1.1, r.first, 0.1, "the logarithm of 3, before training")
		require.Less(t, r.last, 0.2, dtype)
		require.Greater(t, r.accuracy, 0.95, dtype)
		require.Equal(t, dtype == torch.Float16, r.scale > 1, "only float16 has a scaler")
	}
	require.Equal(t, before, torch.LiveTensors())
}

func TestRun(t *testing.T) {
	var out strings.Builder
	run(&out, 2)
	require.Equal(t, 5, strings.Count(out.String(), "\n"), out.String())
}
