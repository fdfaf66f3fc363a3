package pretrained

import (
	"bufio"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unsafe"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// vmFlags are the kernel's flags of the mapping that p is in.
func vmFlags(t *testing.T, p *byte) string {
	f, err := os.Open("/proc/self/smaps")
	require.NoError(t, err)
	defer f.Close()
	at, inside := uintptr(unsafe.Pointer(p)), false
	for lines := bufio.NewScanner(f); lines.Scan(); {
		var from, to uintptr
		if n, _ := fmt.Sscanf(lines.Text(), "%x-%x ", &from, &to); n == 2 {
			inside = from <= at && at < to
		}
		if flags, found := strings.CutPrefix(lines.Text(), "VmFlags:"); found && inside {
			return flags + " "
		}
	}
	t.Fatal("not mapped")
	return ""
}

func TestHugePages(t *testing.T) {
	if _, err := os.Stat("/sys/kernel/mm/transparent_hugepage"); err != nil {
		t.Skip("this kernel has no transparent huge pages")
	}
	room, err := unix.Mmap(-1, 0, 8*hugePage, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON)
	require.NoError(t, err)
	defer func() { require.NoError(t, unix.Munmap(room)) }()
	whole := hugePage - int(uintptr(unsafe.Pointer(&room[0]))%hugePage) // the first that begins in room

	adviseHugePages(nil)
	adviseHugePages(room[whole+1 : whole+2*hugePage-1]) // there is none in it
	require.NotContains(t, vmFlags(t, &room[0]), " hg ")
	adviseHugePages(room[whole-100 : whole+3*hugePage+100])
	require.Contains(t, vmFlags(t, &room[whole]), " hg ")
	require.NotContains(t, vmFlags(t, &room[whole+3*hugePage]), " hg ")
}

func TestReportsFreePages(t *testing.T) {
	require.False(t, reportsFreePages(filepath.Join(t.TempDir(), "none")))
	for _, c := range []struct {
		id, features string
		want         bool
	}{
		{"0x0005\n", "0110010100000000\n", true},
		{"0x0005\n", "0110000100000000\n", false},
		{"0x0002\n", "0110010100000000\n", false}, // a disk
		{"0x0005\n", "", false},
	} {
		dir := t.TempDir()
		for device, content := range map[string][2]string{"virtio0": {"0x0001\n", "1111111111\n"}, "virtio1": {c.id, c.features}} {
			require.NoError(t, os.Mkdir(filepath.Join(dir, device), 0o700))
			require.NoError(t, os.WriteFile(filepath.Join(dir, device, "device"), []byte(content[0]), 0o600))
			require.NoError(t, os.WriteFile(filepath.Join(dir, device, "features"), []byte(content[1]), 0o600))
		}
		require.Equal(t, c.want, reportsFreePages(dir), "%+v", c)
	}
}
