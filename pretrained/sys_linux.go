package pretrained

import (
	"runtime"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// physicalMemory is the memory of the machine in bytes.
func physicalMemory() int64 {
	var info unix.Sysinfo_t
	if unix.Sysinfo(&info) != nil {
		return 0
	}
	return int64(info.Totalram+info.Totalswap) * int64(info.Unit)
}

const hugePage = 2 << 20

// hugePages asks that the whole huge pages in a load's fresh memory be that, so that filling it takes one page
// fault in place of 512. After some slow ones it stops: a virtual machine's host may have taken back all
// large blocks that were free (docs/rationale.md).
type hugePages struct{ slow atomic.Int32 }

const (
	slowHugePage  = time.Millisecond // of the processor; to clear 2 MiB takes a tenth
	slowHugePages = 8                // are enough
)

func (h *hugePages) use(p []byte) {
	skip := int(-uintptr(unsafe.Pointer(unsafe.SliceData(p))) & (hugePage - 1))
	if len(p) < skip+hugePage || h.slow.Load() >= slowHugePages {
		return
	}
	p = p[skip : len(p)-(len(p)-skip)%hugePage]
	if unix.Madvise(p, unix.MADV_HUGEPAGE) != nil {
		return // a kernel without them
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	start := threadTime()
	p[0] = 0
	if threadTime()-start > slowHugePage {
		h.slow.Add(1)
		_ = unix.Madvise(p, unix.MADV_NOHUGEPAGE)
	}
}

// threadTime is the processor time of the thread.
func threadTime() time.Duration {
	var t unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &t)
	return time.Duration(t.Nano())
}
