//go:build darwin || dragonfly || freebsd || linux || netbsd || openbsd

package atomicfile

import (
	"errors"
	"os"
	"syscall"
)

// lockDir takes the lock of a directory: release is nil if another process has it, alone false where there
// are no locks.
func lockDir(dir string) (release func(), alone bool) {
	f, err := os.Open(dir)
	if err != nil {
		return func() {}, false // what follows will say why
	}
	release = func() { _ = f.Close() } // which gives the lock back
	err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	if errors.Is(err, syscall.EWOULDBLOCK) || errors.Is(err, syscall.EINTR) {
		release()
		return nil, false
	}
	return release, err == nil
}
