package atomicfile

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
)

// names lists a directory, temporary files included.
func names(t *testing.T, dir string) []string {
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	var list []string
	for _, e := range entries {
		list = append(list, e.Name())
	}
	return list
}

func content(t *testing.T, path string) string {
	data, err := os.ReadFile(path)
	require.NoError(t, err)
	return string(data)
}

func TestWriteNewAndReplace(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "x")
	require.NoError(t, WriteFile(path, []byte("one"), 0o640))
	st, err := os.Stat(path)
	require.NoError(t, err)
	require.Equal(t, fs.FileMode(0), st.Mode().Perm()&0o137, "more than 0640: %v", st.Mode())

	require.NoError(t, os.Chmod(path, 0o606))
	require.NoError(t, Write(path, 0o644, func(w io.Writer) error {
		for _, s := range []string{"t", "w", "o"} {
			if _, err := io.WriteString(w, s); err != nil {
				return err
			}
			require.Equal(t, "one", content(t, path), "visible before it is complete")
		}
		return nil
	}))
	require.Equal(t, "two", content(t, path))
	st, err = os.Stat(path)
	require.NoError(t, err)
	require.Equal(t, fs.FileMode(0o606), st.Mode().Perm(), "a replaced file keeps its permissions")
	require.Equal(t, []string{"x"}, names(t, dir))
}

func TestErrorLeavesOldFile(t *testing.T) {
	boom := errors.New("boom")
	for name, write := range map[string]func(io.Writer) error{
		"writer fails": func(w io.Writer) error {
			_, err := w.Write([]byte("half"))
			require.NoError(t, err)
			return boom
		},
		"error is swallowed": func(w io.Writer) error {
			f := w.(*File)
			require.NoError(t, f.temp.Close()) // so that the next write fails
			_, err := f.Write([]byte("x"))
			require.Error(t, err)
			return nil
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			path := filepath.Join(dir, "x")
			require.NoError(t, WriteFile(path, []byte("old"), 0o644))
			require.Error(t, Write(path, 0o644, write))
			require.Equal(t, "old", content(t, path))
			require.Equal(t, []string{"x"}, names(t, dir))
		})
	}
	t.Run("panic", func(t *testing.T) {
		dir := t.TempDir()
		require.Panics(t, func() { _ = Write(filepath.Join(dir, "x"), 0o644, func(io.Writer) error { panic("x") }) })
		require.Empty(t, names(t, dir))
	})
	t.Run("no directory", func(t *testing.T) {
		require.ErrorIs(t, WriteFile(filepath.Join(t.TempDir(), "no", "x"), nil, 0o644), fs.ErrNotExist)
	})
	t.Run("a directory is in the way", func(t *testing.T) {
		dir := t.TempDir()
		require.NoError(t, os.Mkdir(filepath.Join(dir, "x"), 0o755))
		require.ErrorIs(t, WriteFile(filepath.Join(dir, "x"), nil, 0o644), syscall.EISDIR)
		require.Equal(t, []string{"x"}, names(t, dir))
	})
	t.Run("a device is in the way", func(t *testing.T) {
		dir := t.TempDir()
		null := filepath.Join(dir, "null") // a link, so that a failure of the test costs nobody /dev/null
		require.NoError(t, os.Symlink(os.DevNull, null))
		require.ErrorIs(t, WriteFile(null, nil, 0o644), ErrSpecial)
		st, err := os.Lstat(null)
		require.NoError(t, err)
		require.Equal(t, fs.ModeSymlink, st.Mode().Type())
		require.Equal(t, []string{"null"}, names(t, dir))
	})
	t.Run("rename fails", func(t *testing.T) {
		dir := t.TempDir()
		path := filepath.Join(dir, "x")
		f, err := Create(path, 0o644)
		require.NoError(t, err)
		require.NoError(t, os.Mkdir(path, 0o755)) // made meanwhile
		require.Error(t, f.Commit())
		require.Equal(t, []string{"x"}, names(t, dir))
	})
}

func TestDiskFull(t *testing.T) {
	if _, err := os.Stat("/dev/full"); err != nil {
		t.Skip("no /dev/full on this system")
	}
	dir := t.TempDir()
	path := filepath.Join(dir, "x")
	require.NoError(t, WriteFile(path, []byte("old"), 0o644))
	defer func(f func(string, fs.FileMode) (*os.File, error)) { openTemp = f }(openTemp)
	openTemp = func(name string, _ fs.FileMode) (*os.File, error) {
		if err := os.Symlink("/dev/full", name); err != nil {
			return nil, err
		}
		f, err := os.OpenFile(name, os.O_WRONLY, 0)
		return f, err
	}
	err := Write(path, 0o644, func(w io.Writer) error {
		_, err := w.Write(bytes.Repeat([]byte("x"), 1<<16))
		return err
	})
	require.ErrorIs(t, err, syscall.ENOSPC)
	require.Contains(t, err.Error(), path)
	require.NotContains(t, err.Error(), "tmp-")
	require.Equal(t, "old", content(t, path))
	require.Equal(t, []string{"x"}, names(t, dir))
}

// TestFileSizeLimit writes past RLIMIT_FSIZE in a process of its own: the kernel makes a short write first,
// then refuses.
func TestFileSizeLimit(t *testing.T) {
	if dir := os.Getenv("TORCHGO_TEST_FSIZE"); dir != "" {
		require.NoError(t, syscall.Setrlimit(syscall.RLIMIT_FSIZE, &syscall.Rlimit{Cur: 10_000, Max: 10_000}))
		err := WriteFile(filepath.Join(dir, "x"), bytes.Repeat([]byte("x"), 20_000), 0o644)
		require.ErrorIs(t, err, syscall.EFBIG)
		return
	}
	if runtime.GOOS != "linux" {
		t.Skip("file size limits are tested on Linux only")
	}
	dir := t.TempDir()
	require.NoError(t, WriteFile(filepath.Join(dir, "x"), []byte("old"), 0o644))
	cmd := exec.Command(os.Args[0], "-test.run=^TestFileSizeLimit$")
	cmd.Env = append(os.Environ(), "TORCHGO_TEST_FSIZE="+dir)
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", out)
	require.Equal(t, "old", content(t, filepath.Join(dir, "x")))
	require.Equal(t, []string{"x"}, names(t, dir))
}

func TestSymlinkIsReplacedNotFollowed(t *testing.T) {
	dir := t.TempDir()
	blob, link := filepath.Join(dir, "blob"), filepath.Join(dir, "link")
	require.NoError(t, os.WriteFile(blob, []byte("shared"), 0o644))
	require.NoError(t, os.Symlink("blob", link))
	require.NoError(t, WriteFile(link, []byte("new"), 0o644))
	require.Equal(t, "shared", content(t, blob))
	require.Equal(t, "new", content(t, link))
}

func TestFinishThenCommitOrAbort(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "x")
	f, err := Create(path, 0o644)
	require.NoError(t, err)
	_, err = f.Write([]byte("new"))
	require.NoError(t, err)
	require.NoError(t, f.Finish())
	require.NoFileExists(t, path)
	_, err = f.Write([]byte("late"))
	require.ErrorIs(t, err, fs.ErrClosed)
	require.NoError(t, f.Commit())
	f.Abort()
	require.Equal(t, "new", content(t, path))
	require.Error(t, f.Commit())

	f, err = Create(path, 0o644)
	require.NoError(t, err)
	require.NoError(t, f.Finish())
	f.Abort()
	require.Error(t, f.Commit())
	require.Equal(t, "new", content(t, path))
	require.Equal(t, []string{"x"}, names(t, dir))
}

func TestConcurrentWritersLeaveOneWholeFile(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "x")
	var wg sync.WaitGroup
	for i := range 16 {
		wg.Go(func() {
			if err := WriteFile(path, bytes.Repeat([]byte{byte('a' + i)}, 50_000), 0o644); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	got := content(t, path)
	require.Equal(t, strings.Repeat(got[:1], 50_000), got)
	require.Equal(t, []string{"x"}, names(t, dir))
}

// The content is on the disk before the name, and the name before WriteFile returns.
func TestOrderOfOperations(t *testing.T) {
	dir := t.TempDir()
	var ops []Op
	restore := Intercept(func(op Op, _ string) error { ops = append(ops, op); return nil })
	defer restore()
	require.NoError(t, WriteFile(filepath.Join(dir, "x"), []byte("one"), 0o600))
	require.Equal(t, []Op{OpCreate, OpWrite, OpSync, OpClose, OpRename, OpSyncDir}, ops)
}

func TestWriteAt(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x")
	f, err := Create(path, 0o644)
	require.NoError(t, err)
	_, err = f.Write([]byte("0123456789"))
	require.NoError(t, err)
	n, err := f.WriteAt([]byte("ab"), 3)
	require.NoError(t, err)
	require.Equal(t, 2, n)
	_, err = f.Write([]byte("!")) // goes on at the end
	require.NoError(t, err)
	require.NoError(t, f.Commit())
	require.Equal(t, "012ab56789!", content(t, path))
	_, err = f.WriteAt([]byte("ab"), 3)
	require.ErrorIs(t, err, fs.ErrClosed)

	f, err = Create(path, 0o644)
	require.NoError(t, err)
	defer Intercept(func(op Op, _ string) error {
		if op == OpWrite {
			return ErrShort
		}
		return nil
	})()
	_, err = f.WriteAt([]byte("ab"), 0)
	require.ErrorIs(t, err, io.ErrShortWrite)
	require.ErrorIs(t, f.Commit(), io.ErrShortWrite)
	require.Equal(t, "012ab56789!", content(t, path), "the old file is lost")
}
