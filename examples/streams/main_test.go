package main

import (
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/torchgo/torchgo/torch"
	"github.com/torchgo/torchgo/torch/cuda"
)

func TestRun(t *testing.T) {
	before := torch.LiveTensors()
	var out strings.Builder
	run(&out, 32, 5)
	require.Equal(t, before, torch.LiveTensors())
	if !cuda.IsAvailable() {
		require.Contains(t, out.String(), "there is no GPU")
	}
	require.Regexp(t, regexp.MustCompile(`one after the other: +[0-9.]+`), out.String())
	require.Contains(t, out.String(), "5 results, the largest difference is 0\n", "streams don't change results")
}

// The two ways give what the definition gives.
func TestResults(t *testing.T) {
	torch.Scope(func() {
		j := newJob(torch.CPU, 8, 3)
		want, _ := timed(j, func(j *job) (sums []*torch.Tensor) {
			for _, h := range j.host {
				sums = append(sums, j.compute(h))
			}
			return sums
		})
		for _, fn := range []func(*job) []*torch.Tensor{inTurn, overlapped} {
			got, took := timed(j, fn)
			require.Equal(t, want, got)
			require.Positive(t, took)
		}
		require.NotEqual(t, want[0], want[1])
	})
}
