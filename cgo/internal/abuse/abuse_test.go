//go:build cgo

package abuse

import (
	"os"
	"os/exec"
	"regexp"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/torchgo/torchgo/cgo"
	"github.com/torchgo/torchgo/internal/libtorch"
)

// Every function of the header is called.
func TestDriverIsComplete(t *testing.T) {
	header, err := os.ReadFile("../../shim/torchgo.h")
	require.NoError(t, err)
	var want []string
	for _, m := range regexp.MustCompile(`(?m)^  F\((\w+),`).FindAllStringSubmatch(string(header), -1) {
		want = append(want, m[1])
	}
	require.Greater(t, len(want), 30)
	require.Equal(t, want, Functions(), "run `go generate ./cgo/internal/abuse`")
}

// The driver runs in a process of its own, so that one that is killed is a failure of this test
// alone, and says in which function it was.
func TestBadArguments(t *testing.T) {
	if os.Getenv("TORCHGO_ABUSE_CHILD") != "" {
		install, err := libtorch.Find(cgo.ShimHash())
		require.NoError(t, err)
		limit := 20_000
		if testing.Short() {
			limit = 8_000
		}
		start := time.Now()
		calls, err := Run(install.Lib, limit)
		require.NoError(t, err)
		t.Logf("%d calls of %d functions in %.1f s", calls, len(Functions()), time.Since(start).Seconds())
		return
	}
	args := []string{"-test.run=^TestBadArguments$", "-test.v"}
	if testing.Short() {
		args = append(args, "-test.short")
	}
	child := exec.Command(os.Args[0], args...)
	child.Env = append(os.Environ(), "TORCHGO_ABUSE_CHILD=1")
	out, err := child.CombinedOutput()
	require.NoError(t, err, string(out))
	t.Log(regexp.MustCompile(`\d+ calls.*`).FindString(string(out)))
}
