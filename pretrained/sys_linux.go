package pretrained

import (
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

// useHugePages asks that the whole huge pages in fresh memory be that, so that filling it takes one page fault in
// place of 512: half of the time of a conversion went there.
func useHugePages(p []byte) {
	at := uintptr(unsafe.Pointer(unsafe.SliceData(p)))
	skip := int(-at & (hugePage - 1))
	if whole := (len(p) - skip) &^ (hugePage - 1); whole > 0 {
		_ = unix.Madvise(p[skip:skip+whole], unix.MADV_HUGEPAGE) // a kernel without them says so
	}
}
