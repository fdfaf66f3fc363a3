package main

import (
	"bytes"
	"context"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/torchgo/torchgo/torch"
)

// A fraction of a second of each soak, so that they work when somebody has an hour for them.
func TestSoaks(t *testing.T) {
	for _, s := range soaks {
		t.Run(s.name, func(t *testing.T) {
			var out bytes.Buffer
			ok := s.start(context.Background(), 300*time.Millisecond).print(&out)
			t.Log(out.String())
			require.True(t, ok, out.String())
		})
	}
}

// What a soak is there for is reported.
func TestFaultsAreFound(t *testing.T) {
	require.InDelta(t, 2.5, slope([]float64{1, 2, 3, 5}, []float64{5, 7.5, 10, 15}), 1e-12)
	require.Zero(t, slope(nil, nil))
	var out bytes.Buffer
	grows := soak{name: "grows", run: func(r *run) {
		r.slopeMin, r.timeMin = 100, 0
		var leak []*torch.Tensor
		for r.more() {
			leak = append(leak, torch.Ones([]int{1 << 14}))
			r.did(1)
			time.Sleep(500 * time.Microsecond)
		}
		for _, x := range leak {
			x.Close()
		}
	}}
	require.False(t, grows.start(context.Background(), 600*time.Millisecond).print(&out))
	require.Contains(t, out.String(), "memory grows by")

	defer func(d time.Duration) { settling = d }(settling)
	settling = 50 * time.Millisecond
	var lost *torch.Tensor
	var in, end *os.File
	stop := make(chan struct{})
	out.Reset()
	loses := soak{name: "loses", run: func(r *run) {
		lost = torch.Ones([]int{3})
		go func() { <-stop }()
		in, end, _ = os.Pipe()
		r.failf("said so")
	}}
	require.False(t, loses.start(context.Background(), time.Millisecond).print(&out))
	close(stop)
	for _, want := range []string{"1 tensors are alive, 0 were before", "goroutines", "descriptors", "said so"} {
		require.Contains(t, out.String(), want)
	}
	lost.Close()
	_, _ = in.Close(), end.Close()
}
