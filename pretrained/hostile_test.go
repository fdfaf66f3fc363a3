package pretrained_test

import (
	"crypto/sha256"
	"encoding/hex"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/torchgo/torchgo/internal/fileerr"
	"github.com/torchgo/torchgo/internal/testdata"
	"github.com/torchgo/torchgo/pretrained"
	"github.com/torchgo/torchgo/torch"
)

func TestHostileFolders(t *testing.T) {
	require.NoError(t, torch.Load())
	torch.Collect() // what other tests have left
	live := torch.LiveTensors()
	fds, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Log("descriptors are not counted here:", err)
	}
	for _, c := range testdata.Hostile(t, "hf_dir") {
		for _, opts := range []pretrained.Options{{Strict: true}, {Strict: true, DisableMmap: true}} {
			start := time.Now()
			m, _, err := pretrained.Load(ctx, c.Path, opts)
			require.Less(t, time.Since(start), 2*time.Second, c.ID)
			switch {
			case c.Expected == "ok":
				require.NoError(t, err, c.ID)
				got := state(m)
				require.Len(t, got, len(c.Tensors), c.ID)
				for name, want := range c.Tensors {
					sum := sha256.Sum256(got[name].Bytes())
					require.Equal(t, want.SHA256, hex.EncodeToString(sum[:16]), "%s: %s", c.ID, name)
					require.Equal(t, want.Shape, got[name].Shape())
				}
				m.Close()
			default:
				require.ErrorIs(t, err, fileerr.Class(c.ErrorClass), "%s (%s)", c.ID, c.Wrong)
				require.Contains(t, err.Error(), filepath.Base(c.Path), c.ID)
				require.NotContains(t, strings.TrimSpace(err.Error()), "\n", c.ID)
			}
		}
	}
	require.Equal(t, live, torch.LiveTensors())
	after, err := os.ReadDir("/proc/self/fd")
	if err == nil {
		require.Len(t, after, len(fds))
	}
}

func TestSpecialFilesDontBlock(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"config.json", "model.safetensors"} {
		path := filepath.Join(dir, name)
		require.NoError(t, syscall.Mkfifo(path, 0o600))
		_, _, err := pretrained.Load(ctx, dir, pretrained.Options{})
		require.ErrorIs(t, err, pretrained.ErrNotRegular)
		require.ErrorContains(t, err, path)
		require.NoError(t, os.Remove(path))
		require.NoError(t, os.WriteFile(path, []byte(`{"architectures": ["BertModel"], "model_type": "bert"}`), 0o600))
	}
}
