package cuda

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/torchgo/torchgo/cgo"
	"github.com/torchgo/torchgo/torch"
)

// The words are read in the order that torchgo.h gives.
func TestStatisticsReadEveryWord(t *testing.T) {
	w := make([]int, cgo.MemoryWords)
	for i := range w {
		w[i] = i + 1
	}
	s := statistics(w)
	require.Equal(t, PoolStat{All: Stat{1, 4, 7, 10}, Small: Stat{2, 5, 8, 11}, Large: Stat{3, 6, 9, 12}}, s.Allocation)
	require.Equal(t, Stat{49, 52, 55, 58}, s.AllocatedBytes.All, "the fifth of nine")
	require.Equal(t, Stat{99, 102, 105, 108}, s.RequestedBytes.Large)
	require.Equal(t, Stat{109, 110, 111, 112}, s.OversizeAllocations)
	require.Equal(t, Stat{113, 114, 115, 116}, s.OversizeSegments)
	require.Equal(t, []int{117, 118, 119, 120, 121, 122}, []int{s.AllocRetries, s.OOMs, s.SyncAllStreams, s.DeviceAllocs, s.DeviceFrees, s.MaxSplitSizeBytes})
}

func TestMemoryStats(t *testing.T) {
	device := gpu(t)
	torch.Collect()
	Synchronize(device)
	ResetPeakMemoryStats(device)
	ResetAccumulatedMemoryStats(device)
	before := MemoryStats(device)
	const size = 64 << 20
	torch.Scope(func() {
		x := torch.Empty([]int{size}, torch.EmptyOptions{DType: torch.Uint8, Device: device})
		now := MemoryStats(device)
		require.Equal(t, size, now.AllocatedBytes.All.Current-before.AllocatedBytes.All.Current)
		require.Equal(t, size, now.AllocatedBytes.Large.Current-before.AllocatedBytes.Large.Current)
		require.Equal(t, size, now.RequestedBytes.All.Allocated)
		require.Equal(t, before.Allocation.All.Current+1, now.Allocation.All.Current)
		require.GreaterOrEqual(t, MemoryReserved(device), MemoryAllocated(device))
		small := torch.Empty([]int{1}, torch.EmptyOptions{DType: torch.Uint8, Device: device})
		require.Equal(t, 512, MemoryAllocated(device)-now.AllocatedBytes.All.Current, "rounded up to 512 bytes")
		small.Close()
		x.Close()
		require.Equal(t, before.AllocatedBytes.All.Current, MemoryAllocated(device))
		require.Equal(t, before.AllocatedBytes.All.Current+size+512, MaxMemoryAllocated(device))
		require.GreaterOrEqual(t, MemoryReserved(device), size, "kept for later")
		EmptyCache()
		require.Less(t, MemoryReserved(device), MaxMemoryReserved(device))
	})
}

func TestOutOfMemory(t *testing.T) {
	device := gpu(t)
	torch.Scope(func() {
		_, total := MemGetInfo(device)
		err := torch.TryDo(func() { torch.Empty([]int{2 * total}, torch.EmptyOptions{DType: torch.Uint8, Device: device}) })
		require.ErrorIs(t, err, torch.ErrOutOfMemory)
		x := torch.Ones([]int{2}, torch.TensorOptions{Device: device})
		require.Equal(t, []float32{2, 2}, torch.ToSlice[float32](x.Add(x)), "a small operator afterwards")

		SetPerProcessMemoryFraction(0.05, device)
		err = torch.TryDo(func() { torch.Empty([]int{total / 10}, torch.EmptyOptions{DType: torch.Uint8, Device: device}) })
		SetPerProcessMemoryFraction(1, device)
		require.ErrorIs(t, err, torch.ErrOutOfMemory)
		require.Equal(t, []float32{2, 2}, torch.ToSlice[float32](x.Add(x)))
	})
	require.ErrorIs(t, torch.TryDo(func() { SetPerProcessMemoryFraction(1.5, device) }), torch.ErrArgument)
}
