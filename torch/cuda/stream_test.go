package cuda

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/torchgo/torchgo/torch"
)

func TestStreams(t *testing.T) {
	device := gpu(t)
	side, high := NewStream(device), NewStream(device, StreamOptions{Priority: -1})
	require.NotEqual(t, side, high)
	require.Equal(t, DefaultStream(device), CurrentStream(device))
	require.NotEqual(t, side, DefaultStream(device))
	WithStream(side, func() {
		require.Equal(t, side, CurrentStream(device))
		WithStream(high, func() {
			require.Equal(t, high, CurrentStream(device))
			done := make(chan Stream)
			torch.Go(func() { done <- CurrentStream(device) })
			require.Equal(t, high, <-done, "Go hands it on")
			go func() { done <- CurrentStream(device) }()
			require.Equal(t, DefaultStream(device), <-done, "go doesn't")
		})
		require.Equal(t, side, CurrentStream(device))
	})
	require.Equal(t, DefaultStream(device), CurrentStream(device))

	torch.Scope(func() {
		a := torch.Randn([]int{2048, 2048}, torch.TensorOptions{Device: device})
		start, end := NewEvent(EventOptions{Timing: true}), NewEvent(EventOptions{Timing: true})
		Synchronize(device)
		s := CurrentStream(device)
		start.Record(s)
		b := a
		for range 50 {
			b = b.MatMul(a)
		}
		end.Record(s)
		require.False(t, end.Query(), "50 products of 2048 x 2048 are not done at once")
		require.False(t, s.Query())
		require.ErrorIs(t, torch.TryDo(func() { start.ElapsedTime(end) }), torch.ErrRuntime, "not yet reached")
		end.Synchronize()
		require.True(t, end.Query())
		require.Positive(t, start.ElapsedTime(end))
		require.ErrorIs(t, torch.TryDo(func() { start.ElapsedTime(s.Record()) }), torch.ErrValue, "without Timing")
		s.Synchronize()
		require.True(t, s.Query())
	})
}

// A copy on one stream and a computation on another take less time than one after the other.
func TestStreamsOverlapCopyAndCompute(t *testing.T) {
	device := gpu(t)
	torch.Scope(func() {
		host := torch.Ones([]int{64 << 20}).PinMemory() // 256 MiB: about 10 ms over PCIe
		a := torch.Randn([]int{4096, 4096}, torch.TensorOptions{Device: device})
		side := NewStream(device)
		compute := func() {
			torch.Scope(func() {
				for range 20 {
					a.MatMul(a)
				}
			})
		}
		copying := func() { torch.Scope(func() { host.To(device, torch.NonBlocking()) }) }
		measure := func(fn func()) time.Duration {
			best := time.Hour
			for range 5 {
				Synchronize(device)
				begin := time.Now()
				fn()
				Synchronize(device)
				best = min(best, time.Since(begin))
			}
			return best
		}
		compute()
		WithStream(side, copying)
		first := measure(compute)
		second := measure(func() { WithStream(side, copying) })
		both := measure(func() {
			WithStream(side, copying)
			compute()
		})
		t.Logf("compute %v, copy %v, both at once %v", first, second, both)
		require.Less(t, both, first+second-min(first, second)/2, "at least half of the shorter is hidden")
	})
}

// What a side stream copied is there for the stream that waits for its event.
func TestWaitOrdersStreams(t *testing.T) {
	device := gpu(t)
	side := NewStream(device)
	for i := range 50 {
		torch.Scope(func() {
			host := torch.Full([]int{4 << 20}, float64(i)).PinMemory()
			require.True(t, host.IsPinned())
			var next *torch.Tensor
			WithStream(side, func() { next = host.To(device, torch.NonBlocking()) })
			CurrentStream(device).Wait(side.Record())
			next.RecordStream(CurrentStream(device))
			require.Equal(t, float64(i)*(4<<20), torch.Item[float64](next.ToDType(torch.Float64).Sum()))
		})
	}
}
