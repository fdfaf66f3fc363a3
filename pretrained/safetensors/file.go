package safetensors

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/torchgo/torchgo/internal/fileerr"
	"github.com/torchgo/torchgo/internal/regular"
)

// File is an open, checked file. Its methods may be called concurrently, but for Close.
type File struct {
	path     string
	r        io.ReaderAt
	f        *os.File // nil if it was made by NewFile
	size     int64    // at open; nothing beyond is ever read
	modified time.Time
	header   *header
	index    map[string]int

	mu      sync.Mutex
	mapping *Mapping
}

// Open opens and checks a file. Only regular files are opened, through links too: a FIFO does not block it,
// a device is not touched.
func Open(path string) (*File, error) {
	f, st, err := openRegular(path)
	if err != nil {
		return nil, err
	}
	file, err := newFile(f, st.Size(), path)
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	file.f, file.modified = f, st.ModTime()
	return file, nil
}

// NewFile checks a file of the given size that r reads; name is for errors. It can't be mapped.
func NewFile(r io.ReaderAt, size int64, name string) (*File, error) { return newFile(r, size, name) }

func newFile(r io.ReaderAt, size int64, path string) (*File, error) {
	if bigEndian {
		return nil, &Error{Class: ErrUnsupported, File: path, Detail: "safetensors files are little-endian, this host is big-endian"}
	}
	h, err := readHeader(r, size)
	if err != nil {
		return nil, inFile(err, path)
	}
	index := make(map[string]int, len(h.tensors))
	for i, t := range h.tensors {
		index[t.Name] = i
	}
	return &File{path: path, r: r, size: size, header: h, index: index}, nil
}

// inFile names the file in an error of this package.
func inFile(err error, path string) error {
	var e *Error
	if errors.As(err, &e) && e.File == "" {
		e.File = path
	}
	return err
}

// openRegular opens a regular file; one that is not there is a missing shard.
func openRegular(path string) (*os.File, fs.FileInfo, error) {
	f, st, err := regular.Open(path)
	if e := (*Error)(nil); errors.Is(err, fs.ErrNotExist) && errors.As(err, &e) {
		e.Class = ErrMissingShard
		if link, linkErr := os.Readlink(path); linkErr == nil {
			e.Detail = "symbolic link to " + fileerr.Plain(link)
		}
	}
	return f, st, err
}

// cause drops operation and path, which the Error has already.
func cause(err error) error {
	var p *fs.PathError
	if errors.As(err, &p) {
		return p.Err
	}
	return err
}

// Close closes the file. Mappings of it stay.
func (f *File) Close() error {
	if f.f == nil {
		return nil
	}
	return f.f.Close()
}

// Path is the name it was opened with.
func (f *File) Path() string { return f.path }

// Size is the size in bytes.
func (f *File) Size() int64 { return f.size }

// Metadata is the strings under __metadata__; nil if there are none.
func (f *File) Metadata() map[string]string { return maps.Clone(f.header.metadata) }

// Tensors lists the tensors in the order of their bytes.
func (f *File) Tensors() []TensorInfo { return slices.Clone(f.header.tensors) }

// Tensor finds a tensor by its name.
func (f *File) Tensor(name string) (TensorInfo, bool) {
	i, ok := f.index[name]
	if !ok {
		return TensorInfo{}, false
	}
	return f.header.tensors[i], true
}

func (f *File) find(name string) (TensorInfo, error) {
	t, ok := f.Tensor(name)
	if !ok {
		return t, &Error{Class: ErrMissingTensor, File: f.path, Tensor: name}
	}
	return t, nil
}

// ReadTensor copies the bytes of a tensor to dst, which must have their number. ErrTruncated means that the
// file shrank since Open.
func (f *File) ReadTensor(name string, dst []byte) error {
	t, err := f.find(name)
	if err != nil {
		return err
	}
	if len(dst) != t.Bytes {
		return &Error{Class: ErrSizeMismatch, File: f.path, Tensor: name, Detail: "buffer", Expected: fmt.Sprintf("%d bytes", t.Bytes), Actual: fmt.Sprint(len(dst))}
	}
	return f.ReadPart(name, dst, 0)
}

// ReadPart copies len(dst) bytes of a tensor, from byte offset off of it.
func (f *File) ReadPart(name string, dst []byte, off int) error {
	t, err := f.find(name)
	if err != nil {
		return err
	}
	if off < 0 || off > t.Bytes || len(dst) > t.Bytes-off {
		return &Error{Class: fileerr.ErrBounds, File: f.path, Tensor: name, Detail: "part",
			Expected: fmt.Sprintf("within %d bytes", t.Bytes), Actual: fmt.Sprintf("%d bytes from %d", len(dst), off)}
	}
	if err := readFull(f.r, dst, t.Offset+int64(off), f.size); err != nil {
		return named(err, f.path, name)
	}
	if t.DType == BOOL {
		return named(checkBools(dst, t.Offset+int64(off)), f.path, name)
	}
	return nil
}

func named(err error, path, tensor string) error {
	var e *Error
	if errors.As(err, &e) {
		e.File, e.Tensor = path, tensor
	}
	return err
}

// checkBools refuses bytes that a C++ bool must not have.
func checkBools(p []byte, off int64) error {
	for i, b := range p {
		if b > 1 {
			return &Error{Class: ErrBadValue, Offset: off + int64(i), Detail: "BOOL", Expected: "0 or 1", Actual: fmt.Sprint(b)}
		}
	}
	return nil
}

// checkAllBools reads the BOOL tensor t in pieces and checks it.
func (f *File) checkAllBools(t TensorInfo) error {
	buf := make([]byte, min(t.Bytes, 1<<20))
	for off := 0; off < t.Bytes; off += len(buf) {
		if err := f.ReadPart(t.Name, buf[:min(len(buf), t.Bytes-off)], off); err != nil {
			return err
		}
	}
	return nil
}

// Unchanged checks that the file still has the size and the time of modification that it had at Open:
// ErrTruncated or ErrChanged if not. It can't see what happens after it returns.
func (f *File) Unchanged() error {
	if f.f == nil {
		return nil
	}
	st, err := f.f.Stat()
	switch {
	case err != nil:
		return &Error{File: f.path, Detail: "stat", Err: cause(err)}
	case st.Size() < f.size:
		return &Error{Class: ErrTruncated, File: f.path, Detail: "the file shrank since it was opened", Expected: fmt.Sprintf("%d bytes", f.size), Actual: fmt.Sprint(st.Size())}
	case st.Size() > f.size:
		return &Error{Class: ErrChanged, File: f.path, Expected: fmt.Sprintf("%d bytes", f.size), Actual: fmt.Sprint(st.Size())}
	case !st.ModTime().Equal(f.modified):
		return &Error{Class: ErrChanged, File: f.path, Expected: "time of modification " + f.modified.Format(time.RFC3339Nano), Actual: st.ModTime().Format(time.RFC3339Nano)}
	}
	return nil
}
