package checkpoint

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/torchgo/torchgo/internal/fileerr"
	"github.com/torchgo/torchgo/internal/testdata"
)

// The reference is a file that the Python package wrote, and what it says about it.
func TestListsReferenceFile(t *testing.T) {
	dir := testdata.Open(t, "safetensors")
	var want map[string][3]any
	readJSON(t, filepath.Join(dir, "all.json"), &want)
	l, err := List(t.Context(), filepath.Join(dir, "all.safetensors"), true)
	require.NoError(t, err)
	require.Equal(t, map[string]string{"format": "pt"}, l.Metadata)
	require.Len(t, l.Tensors, len(want))
	for _, got := range l.Tensors {
		w := want[got.Name]
		require.Equal(t, w[0], got.DType, got.Name)
		require.Equal(t, fmt.Sprint(w[1]), fmt.Sprint(got.Shape), got.Name)
		require.Equal(t, w[2], got.SHA256, got.Name)
		require.Equal(t, "all.safetensors", got.File)
	}
	text, err := json.Marshal(l)
	require.NoError(t, err)
	var generic struct {
		Tensors  []map[string]any
		Metadata map[string]any
	}
	require.NoError(t, json.Unmarshal(text, &generic))
	for _, m := range generic.Tensors {
		require.Len(t, m, 6)
		require.NotNil(t, m["shape"], "a scalar's shape is [], not null")
	}

	l, err = List(t.Context(), filepath.Join(dir, "empty.safetensors"), false)
	require.NoError(t, err)
	text, err = json.Marshal(l)
	require.NoError(t, err)
	require.JSONEq(t, `{"tensors":[],"metadata":null}`, string(text))
}

func TestGitLFSPointer(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "model.safetensors")
	pointer := "version https://git-lfs.github.com/spec/v1\noid sha256:" + strings.Repeat("0a", 32) + "\nsize 90868376\n"
	require.NoError(t, os.WriteFile(path, []byte(pointer), 0o644))
	_, err := Open(dir)
	require.ErrorIs(t, err, fileerr.ErrBadMagic)
	require.ErrorContains(t, err, "git-lfs pointer to 90868376 bytes")
	require.ErrorContains(t, err, "git lfs pull")
	require.NoError(t, os.Rename(path, filepath.Join(dir, "model.safetensors.index.json")))
	_, err = Open(dir)
	require.ErrorIs(t, err, fileerr.ErrBadMagic)
}

func TestListStopsWithContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := List(ctx, filepath.Join(testdata.Open(t, "safetensors"), "all.safetensors"), true)
	require.ErrorIs(t, err, context.Canceled)
}

func readJSON(t *testing.T, path string, v any) {
	data, err := os.ReadFile(path)
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal(data, v))
}
