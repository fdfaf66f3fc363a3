package setup

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/torchgo/torchgo/internal/wheel"
	"golang.org/x/sys/unix"
)

const tempPrefix = wheel.TempPrefix

// lock takes the file's lock, which ends with the process. waiting is called once if another
// process has it.
func lock(ctx context.Context, path string, waiting func()) (unlock func(), err error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return nil, fmt.Errorf("cache folder: %w", err)
	}
	for first := true; ; first = false {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return func() { _ = f.Close() }, nil
		}
		if !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, unix.EINTR) {
			_ = f.Close()
			return nil, fmt.Errorf("%s: lock: %w", path, err)
		}
		if first {
			waiting()
		}
		select {
		case <-ctx.Done():
			_ = f.Close()
			return nil, ctx.Err()
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// removeTemporaries clears what killed runs left. The lock is held, so nobody is using it.
func removeTemporaries(cache string) error {
	for _, pattern := range []string{"", "*"} {
		paths, err := filepath.Glob(filepath.Join(cache, pattern, tempPrefix+"*"))
		if err != nil {
			return err
		}
		for _, p := range paths {
			if err := os.RemoveAll(p); err != nil {
				return err
			}
		}
	}
	return nil
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// size formats bytes for people.
func size(n int64) string {
	switch {
	case n >= 1e9:
		return strconv.FormatFloat(float64(n)/1e9, 'f', 1, 64) + " GB"
	case n >= 1e6:
		return strconv.FormatInt(n/1e6, 10) + " MB"
	}
	return strconv.FormatInt(n, 10) + " bytes"
}

func noSpace(what string) error { return fmt.Errorf("%s: %w", what, syscall.ENOSPC) }

// spare is kept free beside what setup needs: the shim and its object files.
const spare = 200e6

func (o *Options) needSpace(bytes int64) error {
	free, err := o.freeBytes(o.Cache)
	if err != nil {
		return nil // a file system that does not tell; the writes will
	}
	if need := bytes + spare; free < need {
		return fmt.Errorf("%s needs %s, but %s are free: %w", o.Cache, size(need), size(free), syscall.ENOSPC)
	}
	return nil
}

func freeBytes(dir string) (int64, error) {
	var s unix.Statfs_t
	if err := unix.Statfs(dir, &s); err != nil {
		return 0, err
	}
	return int64(s.Bavail) * int64(s.Bsize), nil
}

// availableMemory is what programs can still take, 0 where the system does not tell.
func availableMemory() int64 {
	f, err := os.Open("/proc/meminfo")
	if err != nil {
		return 0
	}
	defer f.Close()
	for s := bufio.NewScanner(f); s.Scan(); {
		if rest, ok := strings.CutPrefix(s.Text(), "MemAvailable:"); ok {
			kib, _ := strconv.ParseInt(strings.TrimSpace(strings.TrimSuffix(rest, "kB")), 10, 64)
			return kib << 10
		}
	}
	return 0
}
