package cuda

import (
	"github.com/torchgo/torchgo/cgo"
	"github.com/torchgo/torchgo/torch"
	"github.com/torchgo/torchgo/torch/internal/bridge"
)

// Stat is one statistic of a device's allocator.
type Stat struct {
	Current   int
	Peak      int // since the start, or [ResetPeakMemoryStats]
	Allocated int // sum of what was added since the start, or [ResetAccumulatedMemoryStats]
	Freed     int // sum of what was taken away since then
}

// PoolStat is a statistic of all blocks, and of those from each of the allocator's pools.
type PoolStat struct {
	All   Stat
	Small Stat // blocks of up to 1 MiB
	Large Stat
}

// MemoryStatistics of a device (torch.cuda.memory_stats). libtorch takes memory from the device in segments,
// splits them into blocks, and keeps what is freed for later.
type MemoryStatistics struct {
	// Numbers.
	Allocation    PoolStat // blocks that tensors use
	Segment       PoolStat // segments taken from the device
	Active        PoolStat // blocks that tensors or streams use
	InactiveSplit PoolStat // free parts of segments in use

	// Bytes.
	AllocatedBytes     PoolStat // of Allocation
	ReservedBytes      PoolStat // of Segment
	ActiveBytes        PoolStat
	InactiveSplitBytes PoolStat
	RequestedBytes     PoolStat // what was asked for, before rounding up

	OversizeAllocations Stat
	OversizeSegments    Stat

	AllocRetries      int // allocations that first failed, until the cache was emptied
	OOMs              int // allocations that failed
	SyncAllStreams    int
	DeviceAllocs      int // calls to the driver for memory
	DeviceFrees       int
	MaxSplitSizeBytes int // larger blocks are not split; -1: no bound
}

// MemoryStats are the statistics of a device.
func MemoryStats(device torch.Device) MemoryStatistics {
	const op = "memory_stats"
	w, err := cgo.MemoryStats(c10CUDA, index(op, device))
	bridge.Must(op, err)
	return statistics(w[:])
}

// statistics reads what memory_stats of torchgo.h writes.
func statistics(w []int) (s MemoryStatistics) {
	take := func() int {
		n := w[0]
		w = w[1:]
		return n
	}
	for _, p := range []*PoolStat{
		&s.Allocation, &s.Segment, &s.Active, &s.InactiveSplit,
		&s.AllocatedBytes, &s.ReservedBytes, &s.ActiveBytes, &s.InactiveSplitBytes, &s.RequestedBytes,
	} {
		pools := []*Stat{&p.All, &p.Small, &p.Large}
		for _, x := range pools {
			x.Current = take()
		}
		for _, x := range pools {
			x.Peak = take()
		}
		for _, x := range pools {
			x.Allocated = take()
		}
		for _, x := range pools {
			x.Freed = take()
		}
	}
	for _, x := range []*Stat{&s.OversizeAllocations, &s.OversizeSegments} {
		*x = Stat{Current: take(), Peak: take(), Allocated: take(), Freed: take()}
	}
	for _, n := range []*int{&s.AllocRetries, &s.OOMs, &s.SyncAllStreams, &s.DeviceAllocs, &s.DeviceFrees, &s.MaxSplitSizeBytes} {
		*n = take()
	}
	return s
}

// MemoryAllocated is how many bytes tensors take on a device.
func MemoryAllocated(device torch.Device) int { return MemoryStats(device).AllocatedBytes.All.Current }

// MaxMemoryAllocated is the most bytes that tensors took.
func MaxMemoryAllocated(device torch.Device) int { return MemoryStats(device).AllocatedBytes.All.Peak }

// MemoryReserved is how many bytes libtorch holds of a device.
func MemoryReserved(device torch.Device) int { return MemoryStats(device).ReservedBytes.All.Current }

// MaxMemoryReserved is the most bytes that libtorch held.
func MaxMemoryReserved(device torch.Device) int { return MemoryStats(device).ReservedBytes.All.Peak }

// ResetPeakMemoryStats sets the peaks to the current values.
func ResetPeakMemoryStats(device torch.Device) {
	const op = "reset_peak_memory_stats"
	bridge.Must(op, cgo.MemoryReset(c10CUDA, index(op, device), false))
}

// ResetAccumulatedMemoryStats sets Allocated and Freed of all statistics, and the counters, to 0.
func ResetAccumulatedMemoryStats(device torch.Device) {
	const op = "reset_accumulated_memory_stats"
	bridge.Must(op, cgo.MemoryReset(c10CUDA, index(op, device), true))
}

// EmptyCache gives memory that no tensor uses back to the devices. Without a GPU it does nothing.
func EmptyCache() {
	const op = "empty_cache"
	bridge.Load(op)
	bridge.Must(op, cgo.EmptyCache())
}

// MemGetInfo is the free and the total memory of a device in bytes, of all processes together.
func MemGetInfo(device torch.Device) (free, total int) {
	const op = "mem_get_info"
	free, total, err := cgo.MemoryInfo(c10CUDA, index(op, device))
	bridge.Must(op, err)
	return free, total
}

// SetPerProcessMemoryFraction bounds what this process may take of a device's memory, between 0 and 1; more
// is [torch.ErrOutOfMemory].
func SetPerProcessMemoryFraction(fraction float64, device torch.Device) {
	const op = "set_per_process_memory_fraction"
	bridge.Must(op, cgo.MemoryFraction(c10CUDA, index(op, device), fraction))
}
