// Package regular opens regular files and nothing else. A name in a folder from elsewhere may be a
// FIFO, a device or a loop of links: opening it would block, or have effects. Errors are
// *fileerr.Error.
package regular

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"syscall"

	"github.com/torchgo/torchgo/internal/fileerr"
)

// Open opens a regular file for reading, through links too (the hub's cache is made of them).
func Open(path string) (*os.File, fs.FileInfo, error) {
	// A look first: opening a device can have effects.
	st, err := os.Stat(path)
	if err == nil {
		err = Check(path, st)
	}
	if err != nil {
		return nil, nil, named(path, err)
	}
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0) // it may be a FIFO by now
	if err != nil {
		return nil, nil, named(path, err)
	}
	if st, err = f.Stat(); err == nil {
		err = Check(path, st)
	}
	if err != nil {
		return nil, nil, errors.Join(named(path, err), f.Close())
	}
	return f, st, nil
}

// Read reads a whole regular file of at most limit bytes.
func Read(path string, limit int64) ([]byte, error) {
	f, st, err := Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	tooLarge := func(size string) error {
		return &fileerr.Error{File: path, Class: fileerr.ErrLimit, Expected: fmt.Sprintf("at most %d bytes", limit), Actual: size}
	}
	if st.Size() > limit {
		return nil, tooLarge(fmt.Sprint(st.Size()))
	}
	data, err := io.ReadAll(io.LimitReader(f, limit+1)) // it may grow
	if err != nil {
		return nil, named(path, err)
	}
	if int64(len(data)) > limit {
		return nil, tooLarge("more")
	}
	return data, nil
}

// Check is an error unless st is a regular file's.
func Check(path string, st fs.FileInfo) error {
	if st.Mode().IsRegular() {
		return nil
	}
	kind := "special file"
	switch m := st.Mode(); {
	case m.IsDir():
		kind = "folder"
	case m&fs.ModeNamedPipe != 0:
		kind = "FIFO"
	case m&fs.ModeSocket != 0:
		kind = "socket"
	case m&fs.ModeDevice != 0:
		kind = "device"
	}
	return &fileerr.Error{File: path, Class: fileerr.ErrNotRegular, Actual: "a " + kind}
}

func named(path string, err error) error {
	if e := (*fileerr.Error)(nil); errors.As(err, &e) {
		return err
	}
	if p := (*fs.PathError)(nil); errors.As(err, &p) {
		err = p.Err // operation and path are in the Error already
	}
	if errors.Is(err, syscall.ELOOP) {
		return &fileerr.Error{File: path, Class: fileerr.ErrNotRegular, Detail: "the symbolic links don't end", Err: err}
	}
	return &fileerr.Error{File: path, Err: err}
}
