package torch

import (
	"bytes"
	"log/slog"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/torchgo/torchgo/internal/xlog"
)

// Scopes that wait for a goroutine which needs a permit stand still; the log says so, once.
func TestAWaitForAPermitIsLogged(t *testing.T) {
	var log bytes.Buffer
	xlog.SetHandler(slog.NewTextHandler(&log, nil))
	defer xlog.SetHandler(nil)
	defer func(d time.Duration) { patience = d }(patience)
	patience = 20 * time.Millisecond
	warned.Store(false)

	var inside, all sync.WaitGroup
	leave := make(chan struct{})
	for range cap(permits) {
		inside.Add(1)
		all.Go(func() {
			Scope(func() {
				inside.Done()
				<-leave
			})
		})
	}
	inside.Wait()
	for range 2 {
		all.Go(func() { Scope(func() {}) })
	}
	require.Eventually(t, warned.Load, 10*time.Second, time.Millisecond)
	time.Sleep(3 * patience) // the other one's patience ends, too
	close(leave)
	all.Wait()
	require.Equal(t, 1, bytes.Count(log.Bytes(), []byte("\n")), log.String())
	require.Contains(t, log.String(), "does code in one wait for a goroutine that enters a scope?")
}
