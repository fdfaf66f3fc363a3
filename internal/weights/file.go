// Package weights has what the readers of all formats of weights share: the list of a file's tensors, bounded reads
// of their elements, and mapping them.
//
// Elements are little-endian, and no byte is swapped: on a big-endian host Open returns ErrUnsupported.
package weights

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/torchgo/torchgo/internal/fileerr"
	"github.com/torchgo/torchgo/internal/regular"
)

// Error says what is wrong with a file.
type Error = fileerr.Error

// TensorInfo describes a tensor in a file, as it is read: its elements contiguous, in C order.
type TensorInfo struct {
	Name   string
	DType  DType
	Shape  []int // not to be changed; empty for a scalar
	Offset int64 // of its first byte in the file; negative: it isn't there as it is read, but has to be made of what is
	Bytes  int
}

// Made is the Offset of tensors whose elements are put in order, or computed, when they are read.
const Made = -1

// Plain reports whether the tensor's bytes are in the file as they are read.
func (t TensorInfo) Plain() bool { return t.Offset >= 0 }

// Numel is the number of elements.
func (t TensorInfo) Numel() int {
	n := 1
	for _, d := range t.Shape {
		n *= d
	}
	return n
}

// Aligned reports whether the elements of the tensor lie at multiples of their size in the file, and so in
// a mapping of it. Readers must accept files where they don't.
func (t TensorInfo) Aligned() bool { return t.Plain() && t.Offset%int64(t.DType.Align()) == 0 }

// File is an open file of weights. Its methods may be called concurrently, but for Close.
type File struct {
	path     string
	r        io.ReaderAt
	f        *os.File // nil if it was made by New
	size     int64    // at open; nothing beyond is ever read
	modified time.Time
	tensors  []TensorInfo
	index    map[string]int
	made     Maker

	mu      sync.Mutex
	mapping *Mapping
}

// Maker gives bytes of a tensor that is not plain: len(dst) of them, from byte offset off. The range is checked. It
// may be called concurrently.
type Maker func(t TensorInfo, dst []byte, off int) error

// CheckHost is an error where elements would have to be swapped.
func CheckHost(path string) error {
	if binary.NativeEndian.Uint16([]byte{0, 1}) == 1 {
		return &Error{Class: fileerr.ErrUnsupported, File: path, Detail: "files of weights are little-endian, this host is big-endian"}
	}
	return nil
}

// Open opens a file; SetTensors then says what is in it. Only regular files are opened, through links too: a FIFO does
// not block it, a device is not touched. One that is not there is ErrMissingShard.
func Open(path string) (*File, error) {
	if err := CheckHost(path); err != nil {
		return nil, err
	}
	f, st, err := regular.Open(path)
	if e := (*Error)(nil); errors.Is(err, fs.ErrNotExist) && errors.As(err, &e) {
		e.Class = fileerr.ErrMissingShard
		if link, linkErr := os.Readlink(path); linkErr == nil {
			e.Detail = "symbolic link to " + fileerr.Plain(link)
		}
	}
	if err != nil {
		return nil, err
	}
	return &File{path: path, r: f, f: f, size: st.Size(), modified: st.ModTime()}, nil
}

// OpenAs opens a file as read makes it of what Open gives. What read refuses is closed.
func OpenAs[T any](path string, read func(*File) (T, error)) (file T, err error) {
	f, err := Open(path)
	if err != nil {
		return file, err
	}
	if file, err = read(f); err != nil {
		return file, errors.Join(err, f.Close())
	}
	return file, nil
}

// New is a file of the given size that r reads; name is for errors. It can't be mapped.
func New(r io.ReaderAt, size int64, name string) (*File, error) {
	if err := CheckHost(name); err != nil {
		return nil, err
	}
	return &File{path: name, r: r, size: size}, nil
}

// SetTensors says what is in the file. Names must be unique, plain tensors inside the file. makes gives those that
// aren't plain; nil if all are.
func (f *File) SetTensors(list []TensorInfo, makes Maker) {
	f.tensors, f.made = list, makes
	f.index = make(map[string]int, len(list))
	for i, t := range list {
		f.index[t.Name] = i
	}
}

// View is the same open file with another list of tensors, as SetTensors takes it. Closing one closes the other.
func (f *File) View(list []TensorInfo, makes Maker) *File {
	v := &File{path: f.path, r: f.r, f: f.f, size: f.size, modified: f.modified}
	v.SetTensors(list, makes)
	return v
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

// Len is the number of tensors.
func (f *File) Len() int { return len(f.tensors) }

// Tensors lists the tensors in the order of the file.
func (f *File) Tensors() []TensorInfo { return slices.Clone(f.tensors) }

// Tensor finds a tensor by its name.
func (f *File) Tensor(name string) (TensorInfo, bool) {
	i, ok := f.index[name]
	if !ok {
		return TensorInfo{}, false
	}
	return f.tensors[i], true
}

// Index is the place of a tensor in Tensors.
func (f *File) Index(name string) (int, bool) {
	i, ok := f.index[name]
	return i, ok
}

func (f *File) find(name string) (TensorInfo, error) {
	t, ok := f.Tensor(name)
	if !ok {
		return t, &Error{Class: fileerr.ErrMissingTensor, File: f.path, Tensor: name}
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
		return &Error{Class: fileerr.ErrSizeMismatch, File: f.path, Tensor: name, Detail: "buffer", Expected: fmt.Sprintf("%d bytes", t.Bytes), Actual: fmt.Sprint(len(dst))}
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
	at := t.Offset + int64(off)
	if t.Plain() {
		err = f.ReadFull(dst, at)
	} else {
		err, at = f.made(t, dst, off), 0
	}
	if err == nil && t.DType == BOOL {
		err = CheckBools(dst, at)
	}
	return named(err, f.path, name)
}

// ReadFull fills p from offset off of the file; a short read means that it was truncated.
func (f *File) ReadFull(p []byte, off int64) error {
	if off < 0 || off > f.size || int64(len(p)) > f.size-off {
		return &Error{Class: fileerr.ErrTruncated, File: f.path, Offset: off, Expected: fmt.Sprintf("%d bytes", len(p)), Actual: fmt.Sprintf("%d in all", f.size)}
	}
	n, err := f.r.ReadAt(p, off)
	if n == len(p) {
		return nil
	}
	if err == io.EOF || err == nil {
		return &Error{Class: fileerr.ErrTruncated, File: f.path, Detail: "the file shrank while it was read", Offset: off + int64(n),
			Expected: fmt.Sprintf("%d bytes", f.size), Actual: fmt.Sprint(off + int64(n))}
	}
	return &Error{File: f.path, Offset: off, Detail: "read", Err: err}
}

func named(err error, path, tensor string) error {
	var e *Error
	if errors.As(err, &e) {
		e.File, e.Tensor = path, tensor
	}
	return err
}

// CheckBools refuses bytes that a C++ bool must not have.
func CheckBools(p []byte, off int64) error {
	for i, b := range p {
		if b > 1 {
			return &Error{Class: fileerr.ErrBadValue, Offset: off + int64(i), Detail: "BOOL", Expected: "0 or 1", Actual: fmt.Sprint(b)}
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
		return &Error{Class: fileerr.ErrTruncated, File: f.path, Detail: "the file shrank since it was opened", Expected: fmt.Sprintf("%d bytes", f.size), Actual: fmt.Sprint(st.Size())}
	case st.Size() > f.size:
		return &Error{Class: fileerr.ErrChanged, File: f.path, Expected: fmt.Sprintf("%d bytes", f.size), Actual: fmt.Sprint(st.Size())}
	case !st.ModTime().Equal(f.modified):
		return &Error{Class: fileerr.ErrChanged, File: f.path, Expected: "time of modification " + f.modified.Format(time.RFC3339Nano), Actual: st.ModTime().Format(time.RFC3339Nano)}
	}
	return nil
}

// cause drops operation and path, which the Error has already.
func cause(err error) error {
	var p *fs.PathError
	if errors.As(err, &p) {
		return p.Err
	}
	return err
}
