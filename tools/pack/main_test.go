package main

import (
	"archive/tar"
	"bytes"
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"
	"github.com/stretchr/testify/require"
)

func TestPackIsDeterministicAndComplete(t *testing.T) {
	files := map[string]string{"b/2.txt": "two", "a.txt": "one", "b/1.bin": "\x00\xff", "empty": ""}
	write := func(when time.Time) string {
		dir := t.TempDir()
		for name, data := range files { // map order: made in another order each time
			p := filepath.Join(dir, name)
			require.NoError(t, os.MkdirAll(filepath.Dir(p), 0o755))
			require.NoError(t, os.WriteFile(p, []byte(data), 0o600))
			require.NoError(t, os.Chtimes(p, when, when))
		}
		require.NoError(t, os.Mkdir(filepath.Join(dir, "hollow"), 0o700))
		out := filepath.Join(t.TempDir(), "x.tar.zst")
		require.NoError(t, run(dir, out))
		return out
	}
	one, err := os.ReadFile(write(time.Unix(1, 0)))
	require.NoError(t, err)
	two, err := os.ReadFile(write(time.Unix(2e9, 0)))
	require.NoError(t, err)
	require.True(t, bytes.Equal(one, two), "same files, other bytes")

	zr, err := zstd.NewReader(bytes.NewReader(one))
	require.NoError(t, err)
	defer zr.Close()
	tr := tar.NewReader(zr)
	var names []string
	for {
		h, err := tr.Next()
		if err == io.EOF {
			break
		}
		require.NoError(t, err)
		names = append(names, h.Name)
		require.True(t, h.ModTime.Unix() == 0, "%s has a time: %v", h.Name, h.ModTime)
		data, err := io.ReadAll(tr)
		require.NoError(t, err)
		require.Equal(t, files[h.Name], string(data))
	}
	require.Equal(t, []string{"a.txt", "b/1.bin", "b/2.txt", "empty", "hollow/"}, names)
}

func TestPackRefusesLinksAndLeavesNothing(t *testing.T) {
	dir, outDir := t.TempDir(), t.TempDir()
	require.NoError(t, os.Symlink("nowhere", filepath.Join(dir, "link")))
	require.ErrorContains(t, run(dir, filepath.Join(outDir, "x.tar.zst")), "link is not a regular file")
	left, err := os.ReadDir(outDir)
	require.NoError(t, err)
	require.Empty(t, left)
}
