package regular

import (
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/torchgo/torchgo/internal/fileerr"
)

func TestRead(t *testing.T) {
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	require.NoError(t, os.WriteFile(at("file"), []byte("12345"), 0o600))
	require.NoError(t, os.Symlink("file", at("link")))
	for _, name := range []string{"file", "link"} {
		data, err := Read(at(name), 5)
		require.NoError(t, err)
		require.Equal(t, "12345", string(data))
	}
	_, err := Read(at("file"), 4)
	require.ErrorIs(t, err, fileerr.ErrLimit)
	require.EqualError(t, err, at("file")+": resource limit exceeded: expected at most 4 bytes, got 5")
	_, err = Read(at("absent"), 5)
	require.ErrorIs(t, err, fs.ErrNotExist)
	require.EqualError(t, err, at("absent")+": no such file or directory")
}

func TestRefusesSpecialFiles(t *testing.T) {
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	require.NoError(t, syscall.Mkfifo(at("fifo"), 0o600))
	l, err := net.Listen("unix", at("s"))
	require.NoError(t, err)
	defer l.Close()
	require.NoError(t, os.Symlink("loop", at("loop")))
	require.NoError(t, os.Symlink("fifo", at("link")))
	for name, want := range map[string]string{
		dir: "got a folder", at("fifo"): "got a FIFO", at("link"): "got a FIFO", at("s"): "got a socket",
		os.DevNull: "got a device", at("loop"): "the symbolic links don't end",
	} {
		_, err := Read(name, 1<<20)
		require.ErrorIs(t, err, fileerr.ErrNotRegular, name)
		require.ErrorContains(t, err, name+": not a regular file: "+want)
	}
}
