package proc_test

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/torchgo/torchgo/internal/proc"
)

func TestGrandchildEndsWithContext(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	start := time.Now()
	// The grandchild holds stdout: Output returns when it is gone.
	_, err := proc.Command(ctx, "/bin/sh", "-c", "/bin/sleep 60; true").Output()
	require.Error(t, err)
	require.Less(t, time.Since(start), 20*time.Second)
}
