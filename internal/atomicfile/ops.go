package atomicfile

import (
	"errors"
	"io/fs"
	"os"
	"runtime"
	"sync/atomic"
	"syscall"
)

// Op is an operation that changes the file system.
type Op string

// The operations.
const (
	OpCreate  Op = "create"
	OpWrite   Op = "write"
	OpSync    Op = "sync"
	OpClose   Op = "close"
	OpRename  Op = "rename"
	OpLink    Op = "link"
	OpRemove  Op = "remove"
	OpSyncDir Op = "sync directory"
)

// ErrShort, returned by a function given to Intercept, makes a write end half-way.
var ErrShort = errors.New("short write")

var hook atomic.Pointer[func(Op, string) error]

// Intercept has fn called before every operation, with the path that is changed. If fn returns an error the
// operation fails with it and is not done (a file is closed all the same). It is for tests, which see the
// order of operations so, and what an error at each leaves behind; restore ends it.
func Intercept(fn func(op Op, path string) error) (restore func()) {
	old := hook.Swap(&fn)
	return func() { hook.Store(old) }
}

func before(op Op, path string) error {
	if fn := hook.Load(); fn != nil {
		if err := (*fn)(op, path); err != nil {
			if err == ErrShort {
				return err
			}
			return &fs.PathError{Op: string(op), Path: path, Err: err}
		}
	}
	return nil
}

func createFile(path string, perm fs.FileMode) (*os.File, error) {
	if err := before(OpCreate, path); err != nil {
		return nil, err
	}
	return openTemp(path, perm)
}

func writeFile(f *os.File, p []byte, write func([]byte) (int, error)) (int, error) {
	err := before(OpWrite, f.Name())
	if err == ErrShort {
		return write(p[:len(p)/2])
	}
	if err != nil {
		return 0, err
	}
	return write(p)
}

func syncFile(f *os.File) error {
	if err := before(OpSync, f.Name()); err != nil {
		return err
	}
	return f.Sync()
}

func closeFile(f *os.File) error {
	return errors.Join(before(OpClose, f.Name()), f.Close())
}

func rename(from, to string) error {
	if err := before(OpRename, to); err != nil {
		return err
	}
	return os.Rename(from, to)
}

func link(from, to string) error {
	if err := before(OpLink, to); err != nil {
		return err
	}
	return os.Link(from, to)
}

func remove(path string) error {
	if err := before(OpRemove, path); err != nil {
		return err
	}
	return os.Remove(path)
}

// SyncDir makes renames and removals in a directory durable, where the system can.
func SyncDir(dir string) error {
	if err := before(OpSyncDir, dir); err != nil {
		return err
	}
	if runtime.GOOS == "windows" {
		return nil // directories can't be synced there
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	err = d.Sync()
	if errors.Is(err, syscall.EINVAL) || errors.Is(err, syscall.ENOTSUP) {
		err = nil // some network and FUSE file systems
	}
	return errors.Join(err, d.Close())
}
