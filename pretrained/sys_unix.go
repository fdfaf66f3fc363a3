//go:build unix

package pretrained

import (
	"runtime"

	"golang.org/x/sys/unix"
)

// peakRSS is the largest resident memory that the process has had, in bytes.
func peakRSS() int64 {
	var u unix.Rusage
	if unix.Getrusage(unix.RUSAGE_SELF, &u) != nil {
		return 0
	}
	if runtime.GOOS == "darwin" {
		return int64(u.Maxrss)
	}
	return int64(u.Maxrss) * 1024
}
