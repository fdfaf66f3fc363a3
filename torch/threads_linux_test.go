package torch

import (
	"runtime"
	"sync"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestLockedCallers(t *testing.T) {
	var wg sync.WaitGroup
	before := LiveTensors()
	for range 4 {
		wg.Add(1)
		go func() {
			defer wg.Done()
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			thread := syscall.Gettid()
			for range 50 {
				Inference(func() { Scope(func() { ones(4).Add(ones(4)) }) })
				ones(1).Close()
			}
			if syscall.Gettid() != thread {
				t.Error("the caller's own lock was undone")
			}
		}()
	}
	wait(t, &wg)
	require.Equal(t, before, LiveTensors())
}
