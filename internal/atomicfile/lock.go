package atomicfile

import (
	"context"
	"path/filepath"
	"sync"
	"time"
)

// locked are the directories that this process saves in.
var locked sync.Map

// lock waits until no other goroutine and, where the system has file locks, no other process saves in dir.
// A lock ends with its process. alone is false if other processes may save there all the same.
func lock(ctx context.Context, dir string) (unlock func(), alone bool, err error) {
	key, err := filepath.EvalSymlinks(dir)
	if err == nil {
		key, err = filepath.Abs(key)
	}
	if err != nil {
		return nil, false, err
	}
	pause := time.Millisecond
	wait := func() error {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(pause):
			pause = min(2*pause, 100*time.Millisecond)
			return nil
		}
	}
	for {
		if _, busy := locked.LoadOrStore(key, true); !busy {
			break
		}
		if err := wait(); err != nil {
			return nil, false, err
		}
	}
	for {
		if release, alone := lockDir(dir); release != nil {
			return func() { release(); locked.Delete(key) }, alone, nil
		}
		if err := wait(); err != nil {
			locked.Delete(key)
			return nil, false, err
		}
	}
}
