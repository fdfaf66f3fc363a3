// Package atomicfile replaces files so that a reader, or a machine that loses power, sees the old content
// or the new, never a part: unique temporary file in the same directory, write, fsync, rename, fsync of
// the directory. The old file is never opened for writing, so mappings of it stay valid.
package atomicfile

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"syscall"
)

// File is a file that is being written and does not have its name yet. [File.Commit] gives it the name,
// [File.Abort] removes it.
type File struct {
	path string // final
	temp *os.File
	err  error // of the first failed write
	done bool  // written, synced and closed
	gone bool  // renamed or removed
}

// openTemp is replaced by tests.
var openTemp = func(name string, perm fs.FileMode) (*os.File, error) {
	return os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, perm)
}

// ErrSpecial is what Create says of a device, pipe or socket: renaming would take its name away.
var ErrSpecial = errors.New("is a device, pipe or socket; expected a regular file")

// Create starts a file that will be path. Its permissions are those of the file that is there now, else
// perm less the umask. If path is a symbolic link, the link is what will be replaced.
func Create(path string, perm fs.FileMode) (*File, error) {
	dir, base := filepath.Split(path)
	for range 100 {
		// The leading dot keeps it out of globs such as model*.safetensors.
		f, err := create(path, filepath.Join(dir, fmt.Sprintf(".%.100s.tmp-%016x", base, rand.Uint64())), perm)
		if !errors.Is(err, fs.ErrExist) {
			return f, err
		}
	}
	return nil, &fs.PathError{Op: "create temporary file for", Path: path, Err: fs.ErrExist}
}

// create starts path under a temporary name.
func create(path, temp string, perm fs.FileMode) (*File, error) {
	old, err := os.Lstat(path)
	if target, err := os.Stat(path); err == nil && !target.IsDir() && !target.Mode().IsRegular() {
		return nil, &fs.PathError{Op: "write", Path: path, Err: ErrSpecial} // also through a link, like /dev/stdout
	}
	switch {
	case err == nil && old.IsDir():
		return nil, &fs.PathError{Op: "write", Path: path, Err: syscall.EISDIR}
	case err == nil && old.Mode().IsRegular():
		perm = old.Mode().Perm()
	}
	f, err := createFile(temp, perm)
	if err != nil {
		return nil, err
	}
	file := &File{path: path, temp: f}
	if old != nil && old.Mode().IsRegular() { // the umask may have taken bits away
		if err := f.Chmod(perm); err != nil {
			file.Abort()
			return nil, err
		}
	}
	return file, nil
}

// Write appends p. After a failed or short write the file can't be committed.
func (f *File) Write(p []byte) (int, error) {
	return f.write(p, func() (int, error) { return writeFile(f.temp, p, f.temp.Write) })
}

// WriteAt writes p over what is at off. It fails as Write does.
func (f *File) WriteAt(p []byte, off int64) (int, error) {
	return f.write(p, func() (int, error) {
		return writeFile(f.temp, p, func(p []byte) (int, error) { return f.temp.WriteAt(p, off) })
	})
}

func (f *File) write(p []byte, write func() (int, error)) (int, error) {
	if f.done || f.gone {
		return 0, &fs.PathError{Op: "write", Path: f.path, Err: fs.ErrClosed}
	}
	if f.err != nil {
		return 0, f.err
	}
	n, err := write()
	if err == nil && n < len(p) {
		err = io.ErrShortWrite
	}
	if err != nil {
		f.err = &fs.PathError{Op: "write", Path: f.path, Err: cause(err)}
	}
	return n, f.err
}

// cause drops the temporary name: the user asked for another one.
func cause(err error) error {
	var p *fs.PathError
	if errors.As(err, &p) {
		return p.Err
	}
	return err
}

// Finish brings the content to the disk and closes the file, which keeps its temporary name until Commit.
func (f *File) Finish() error {
	if f.done || f.gone {
		return f.err
	}
	f.done = true
	if f.err == nil {
		if err := syncFile(f.temp); err != nil {
			f.err = &fs.PathError{Op: "sync", Path: f.path, Err: cause(err)}
		}
	}
	if err := closeFile(f.temp); err != nil && f.err == nil {
		f.err = &fs.PathError{Op: "close", Path: f.path, Err: cause(err)}
	}
	return f.err
}

// Commit finishes the file if that is still to be done and gives it its name, in place of the old one. On
// an error the temporary file is removed and the old one is as it was.
func (f *File) Commit() error {
	if f.gone {
		return &fs.PathError{Op: "rename", Path: f.path, Err: fs.ErrClosed}
	}
	err := f.Finish()
	if err == nil {
		err = rename(f.temp.Name(), f.path)
	}
	if err != nil {
		f.Abort()
		return err
	}
	f.gone = true
	return SyncDir(filepath.Dir(f.path))
}

// Abort removes the temporary file. After Commit it does nothing, so it can be deferred.
func (f *File) Abort() {
	if f.gone {
		return
	}
	f.gone = true
	if !f.done {
		_ = closeFile(f.temp)
	}
	_ = remove(f.temp.Name())
}

// Write replaces path by what write writes.
func Write(path string, perm fs.FileMode, write func(io.Writer) error) error {
	f, err := Create(path, perm)
	if err != nil {
		return err
	}
	defer f.Abort()
	if err := write(f); err != nil {
		return err
	}
	return f.Commit()
}

// WriteFile replaces path by data.
func WriteFile(path string, data []byte, perm fs.FileMode) error {
	return Write(path, perm, func(w io.Writer) error {
		_, err := w.Write(data)
		return err
	})
}
