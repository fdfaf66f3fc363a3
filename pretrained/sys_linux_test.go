package pretrained

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"unsafe"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// vmFlags are the kernel's flags of the mapping that begins at p.
func vmFlags(t *testing.T, p *byte) string {
	data, err := os.ReadFile("/proc/self/smaps")
	require.NoError(t, err)
	_, rest, found := strings.Cut(string(data), fmt.Sprintf("\n%x-", uintptr(unsafe.Pointer(p))))
	require.True(t, found)
	_, rest, found = strings.Cut(rest, "VmFlags:")
	require.True(t, found)
	flags, _, _ := strings.Cut(rest, "\n")
	return flags + " "
}

func TestHugePages(t *testing.T) {
	if _, err := os.Stat("/sys/kernel/mm/transparent_hugepage"); err != nil {
		t.Skip("this kernel has no transparent huge pages")
	}
	room, err := unix.Mmap(-1, 0, 8*hugePage, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON)
	require.NoError(t, err)
	defer func() { require.NoError(t, unix.Munmap(room)) }()
	whole := hugePage - int(uintptr(unsafe.Pointer(&room[0]))%hugePage) // the first that begins in room

	var h hugePages
	h.use(room[whole+1 : whole+2*hugePage-1]) // there is none in it
	h.use(nil)
	h.slow.Store(slowHugePages)
	h.use(room[whole-100 : whole+3*hugePage+100])
	for at := 0; at < len(room); at += os.Getpagesize() {
		require.False(t, resident(t, room[at:]), "nothing is asked for, nothing touched")
	}

	h.slow.Store(0)
	h.use(room[whole-100 : whole+3*hugePage+100])
	require.True(t, resident(t, room[whole:]), "the first is tried")
	require.False(t, resident(t, room[whole-os.Getpagesize():]))
	require.False(t, resident(t, room[whole+hugePage:]))
	if h.slow.Load() > 0 {
		require.Contains(t, vmFlags(t, &room[whole]), " nh ")
	} else {
		require.Contains(t, vmFlags(t, &room[whole]), " hg ")
	}
}

// resident reports whether p's first page is in memory.
func resident(t *testing.T, p []byte) bool {
	var page [1]byte
	_, _, errno := unix.Syscall(unix.SYS_MINCORE, uintptr(unsafe.Pointer(&p[0])), 1, uintptr(unsafe.Pointer(&page[0])))
	require.Zero(t, errno)
	return page[0]&1 == 1
}
