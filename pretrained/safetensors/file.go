package safetensors

import (
	"errors"
	"io"
	"maps"
	"strings"

	"github.com/torchgo/torchgo/internal/weights"
)

// File is an open, checked file. It has the methods Path, Size, Len, Tensors, Tensor, ReadTensor, ReadPart, Map,
// Unchanged and Close, which may be called concurrently, but for Close.
type File struct {
	*weights.File
	metadata map[string]string
}

// Open opens and checks a file. Only regular files are opened, through links too: a FIFO does not block it,
// a device is not touched.
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
		return nil, inFile(err, f.Path())
	}
	var made weights.Maker
	if strings.HasPrefix(h.metadata[formatKey], planesFormat) {
		if h, made, err = readPlanes(f, h); err != nil {
			return nil, inFile(err, f.Path())
		}
	}
	f.SetTensors(h.tensors, made)
	return &File{f, h.metadata}, nil
}

// inFile names the file in an error of this package.
func inFile(err error, path string) error {
	var e *Error
	if errors.As(err, &e) && e.File == "" {
		e.File = path
	}
	return err
}

// Metadata is the strings under __metadata__; nil if there are none.
func (f *File) Metadata() map[string]string { return maps.Clone(f.metadata) }
