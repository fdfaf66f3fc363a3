package testdata

import (
	"archive/tar"
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"github.com/klauspost/compress/zstd"
	"github.com/stretchr/testify/require"
)

func archive(t *testing.T, headers ...tar.Header) *bytes.Buffer {
	var buf bytes.Buffer
	zw, err := zstd.NewWriter(&buf)
	require.NoError(t, err)
	tw := tar.NewWriter(zw)
	for _, h := range headers {
		require.NoError(t, tw.WriteHeader(&h))
		_, err := tw.Write(make([]byte, h.Size))
		require.NoError(t, err)
	}
	require.NoError(t, tw.Close())
	require.NoError(t, zw.Close())
	return &buf
}

func TestOpenSharesAndRemoves(t *testing.T) {
	var dir string
	t.Run("users", func(t *testing.T) {
		dir = Open(t, "models-bert")
		require.Equal(t, dir, Open(t, "models-bert"))
		require.FileExists(t, filepath.Join(dir, "bert-mlm", "config.json"))
		own := Copy(t, "models-bert")
		require.NotEqual(t, dir, own)
		require.FileExists(t, filepath.Join(own, "bert-mlm", "config.json"))
	})
	require.NoDirExists(t, dir)
	again := Open(t, "models-bert")
	require.FileExists(t, filepath.Join(again, "bert-mlm", "config.json"))
}

func TestUnpackRefuses(t *testing.T) {
	for name, h := range map[string]tar.Header{
		"parent":   {Name: "../x", Typeflag: tar.TypeReg, Size: 1},
		"absolute": {Name: "/x", Typeflag: tar.TypeReg, Size: 1},
		"symlink":  {Name: "x", Typeflag: tar.TypeSymlink, Linkname: "/etc"},
		"fifo":     {Name: "x", Typeflag: tar.TypeFifo},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			require.Error(t, unpack(archive(t, h), dir))
			left, err := os.ReadDir(dir)
			require.NoError(t, err)
			require.Empty(t, left)
		})
	}
	t.Run("twice", func(t *testing.T) {
		h := tar.Header{Name: "x", Typeflag: tar.TypeReg, Size: 1}
		require.ErrorIs(t, unpack(archive(t, h, h), t.TempDir()), os.ErrExist)
	})
	t.Run("truncated", func(t *testing.T) {
		b := archive(t, tar.Header{Name: "x", Typeflag: tar.TypeReg, Size: 5000}).Bytes()
		require.Error(t, unpack(bytes.NewReader(b[:len(b)-6]), t.TempDir()))
	})
}
