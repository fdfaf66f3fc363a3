//go:build asan

package torch

import (
	"os"
	"os/exec"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/torchgo/torchgo/cgo"
)

// The leak check of `make asan` works: tensors whose handles are lost are reported. Without this,
// a silent pass of the other tests would show nothing.
func TestLeakIsReported(t *testing.T) {
	if os.Getenv("TORCHGO_LEAK_CHILD") != "" {
		x := ones(16)
		for range 50 {
			_, err := cgo.TensorRetain(x.handle)
			require.NoError(t, err)
			y, err := cgo.TensorRetain(ones(1000).handle)
			require.NoError(t, err)
			_ = y
		}
		x.Close()
		Collect()
		Collect()
		return
	}
	child := exec.Command(os.Args[0], "-test.run=^TestLeakIsReported$")
	child.Env = append(os.Environ(), "TORCHGO_LEAK_CHILD=1")
	out, err := child.CombinedOutput()
	require.Error(t, err, "50 lost tensors were not reported:\n%s", out)
	require.Contains(t, string(out), "LeakSanitizer")
	require.Contains(t, string(out), "TensorImpl")
}
