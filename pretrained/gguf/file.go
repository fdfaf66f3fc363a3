package gguf

import (
	"errors"
	"fmt"
	"io"
	"sync"
	"unsafe"

	"github.com/torchgo/torchgo/internal/ggml"
	"github.com/torchgo/torchgo/internal/weights"
)

// File is an open, checked file. It has the methods Path, Size, Len, Tensors, Tensor, ReadTensor, ReadPart, Map, Unchanged and
// Close; all may be called concurrently, but for Close.
type File struct {
	*weights.File
	header
}

// Stored says how a tensor lies in the file.
type Stored struct {
	Type   Type
	Offset int64 // of its first byte in the file
	Bytes  int64
}

// Open opens and checks a file. Only regular files are opened, through links too: a FIFO does not block it, a device is not
// touched.
func Open(path string) (*File, error) {
	return weights.OpenAs(path, Read)
}

// NewFile checks a file of the given size that r reads; name is for errors. It can't be mapped.
func NewFile(r io.ReaderAt, size int64, name string) (*File, error) {
	f, err := weights.New(r, size, name)
	if err != nil {
		return nil, err
	}
	return Read(f)
}

// Read checks an open file, which stays the caller's if it fails.
func Read(f *weights.File) (*File, error) {
	h, err := readHeader(f)
	if err != nil {
		if e := (*Error)(nil); errors.As(err, &e) {
			e.File = f.Path()
		}
		return nil, err
	}
	file := &File{f, *h}
	f.SetTensors(h.tensors, file.dequantize)
	for i, t := range h.tensors {
		if j, _ := f.Index(t.Name); j != i {
			return nil, &Error{Class: ErrDuplicate, File: f.Path(), Tensor: t.Name}
		}
	}
	return file, nil
}

// Version is the format's version, 2 or 3.
func (f *File) Version() int { return f.version }

// Metadata is the file's metadata; not to be changed.
func (f *File) Metadata() *Metadata { return f.metadata }

// Stored says how a tensor lies in the file; false if there is none of this name.
func (f *File) Stored(name string) (Stored, bool) {
	i, ok := f.Index(name)
	if !ok {
		return Stored{}, false
	}
	return f.stored[i], true
}

// ReadStored copies len(dst) bytes of a tensor as they are stored, from byte off of it.
func (f *File) ReadStored(name string, dst []byte, off int64) error {
	s, ok := f.Stored(name)
	if !ok {
		return &Error{Class: ErrMissingTensor, File: f.Path(), Tensor: name}
	}
	if off < 0 || off > s.Bytes || int64(len(dst)) > s.Bytes-off {
		return &Error{Class: ErrBounds, File: f.Path(), Tensor: name, Detail: "part", Expected: fmt.Sprintf("within %d bytes", s.Bytes),
			Actual: fmt.Sprintf("%d bytes from %d", len(dst), off)}
	}
	err := f.ReadFull(dst, s.Offset+off)
	if e := (*Error)(nil); errors.As(err, &e) {
		e.Tensor = name
	}
	return err
}

// plain has the types whose elements are read as they are stored.
var plain = map[Type]weights.DType{
	ggml.F32: weights.F32, ggml.F16: weights.F16, ggml.BF16: weights.BF16, ggml.F64: weights.F64,
	ggml.I8: weights.I8, ggml.I16: weights.I16, ggml.I32: weights.I32, ggml.I64: weights.I64,
}

// Blocks are read through buffers of at most so many bytes.
const stagingBytes = 128 << 10

var staging = sync.Pool{New: func() any { return new([stagingBytes]byte) }}

// dequantize gives bytes of a tensor of blocks as float32, from byte off on. It decodes the blocks that hold them.
func (f *File) dequantize(t TensorInfo, dst []byte, off int) error {
	s, _ := f.Stored(t.Name)
	if !s.Type.CanDequantize() {
		return &Error{Class: ErrUnsupported, Offset: s.Offset, Detail: fmt.Sprintf("tensors of type %v can't be decoded", s.Type),
			Remedy: "convert the file to another type with llama.cpp"}
	}
	in, out := s.Type.BlockBytes(), 4*s.Type.BlockLen()
	buf := staging.Get().(*[stagingBytes]byte)
	defer staging.Put(buf)
	for len(dst) > 0 {
		block, skip := off/out, off%out
		count := max(min(len(dst)/out, stagingBytes/in), 1)
		src := buf[:count*in]
		if err := f.ReadFull(src, s.Offset+int64(block)*int64(in)); err != nil {
			return err
		}
		n := count * out
		if floats := floats(dst); skip == 0 && len(dst) >= n && floats != nil {
			if err := ggml.Dequantize(s.Type, floats[:n/4], src); err != nil {
				return err
			}
		} else { // a part of a block, or dst is not aligned
			var one [256]float32
			if err := ggml.Dequantize(s.Type, one[:out/4], src[:in]); err != nil {
				return err
			}
			n = copy(dst, unsafe.Slice((*byte)(unsafe.Pointer(&one)), out)[skip:])
		}
		dst, off = dst[n:], off+n
	}
	return nil
}

// floats is p as float32, if it is aligned for that. (The host is little-endian, or there would be no File.)
func floats(p []byte) []float32 {
	if len(p) < 4 || uintptr(unsafe.Pointer(&p[0]))%4 != 0 {
		return nil
	}
	return unsafe.Slice((*float32)(unsafe.Pointer(&p[0])), len(p)/4)
}
