package pretrained

import (
	"os"
	"path/filepath"
	"strings"
	"sync"
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
// place of 512. Where the host takes free memory back they cost more than they save (docs/rationale.md), unless the
// process has filled memory before: what it freed is mostly there still.
func useHugePages(p []byte, again bool) {
	if again || !hostTakesFreeMemory() {
		adviseHugePages(p)
	}
}

func adviseHugePages(p []byte) {
	skip := int(-uintptr(unsafe.Pointer(unsafe.SliceData(p))) & (hugePage - 1))
	if whole := (len(p) - skip) &^ (hugePage - 1); whole > 0 {
		_ = unix.Madvise(p[skip:skip+whole], unix.MADV_HUGEPAGE) // a kernel without them says so
	}
}

var hostTakesFreeMemory = sync.OnceValue(func() bool { return reportsFreePages("/sys/bus/virtio/devices") })

// reportsFreePages reports whether one of the virtio devices is a balloon that tells the host of free blocks of
// memory.
func reportsFreePages(devices string) bool {
	const balloon, reporting = "0x0005", 5 // VIRTIO_ID_BALLOON, VIRTIO_BALLOON_F_REPORTING
	ids, _ := filepath.Glob(filepath.Join(devices, "*", "device"))
	for _, name := range ids {
		id, _ := os.ReadFile(name)
		features, _ := os.ReadFile(filepath.Join(filepath.Dir(name), "features")) // a digit a bit, bit 0 first
		if strings.TrimSpace(string(id)) == balloon && len(features) > reporting && features[reporting] == '1' {
			return true
		}
	}
	return false
}
