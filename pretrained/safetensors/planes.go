package safetensors

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/torchgo/torchgo/internal/planes"
	"github.com/torchgo/torchgo/internal/weights"
)

// A compressed file is a safetensors file, each tensor of which is the frame of internal/planes that the tensor of that
// name has become. Its metadata has the header of the file that it was made of, whose tensors are those that a reader
// sees. A reader that knows nothing of it finds U8 tensors of seven dimensions, more than any weight has.
const (
	formatKey    = "format"
	planesFormat = "torchgo.planes/"
	planesV1     = planesFormat + "1"
	planesHeader = "header"
	frameDims    = 7
)

// element is the number of bytes in an element as frames know it: pairs are two of their halves.
func element(d DType) int { return d.Align() }

// framed are tensors and metadata of the compressed form of a file, whose frames are as large as they can be.
func framed(tensors []Source, metadata map[string]string) ([]Source, map[string]string, error) {
	head, sizes, err := encodeHeader(tensors, metadata)
	if err != nil {
		return nil, nil, err
	}
	frames := slices.Clone(tensors)
	for i, t := range tensors {
		frames[i].DType, frames[i].Shape = U8, frameShape(planes.MaxFrameBytes(element(t.DType), sizes[i]))
	}
	return frames, map[string]string{formatKey: planesV1, planesHeader: strings.TrimRight(string(head[8:]), " ")}, nil
}

func frameShape(bytes int64) []int { return []int{1, 1, 1, 1, 1, 1, int(bytes)} }

// compressed is a file whose tensors are made of frames.
type compressed struct {
	file   *weights.File
	frames map[string]TensorInfo
	cache  planes.Cache

	mu   sync.Mutex
	open map[string]*planes.Decoder // the tables that were read
}

// readPlanes checks a compressed file and gives the header of what is in it.
func readPlanes(f *weights.File, outer *header) (*header, weights.Maker, error) {
	if v := outer.metadata[formatKey]; v != planesV1 {
		return nil, nil, &Error{Class: ErrUnsupportedVersion, Detail: "compressed", Expected: planesV1, Actual: fmt.Sprintf("%.40q", v), Remedy: "a later torchgo may read it"}
	}
	inner, err := parseHeader([]byte(outer.metadata[planesHeader]))
	if err == nil {
		size := int64(0)
		for _, t := range inner.tensors {
			size = max(size, t.Offset+int64(t.Bytes))
		}
		err = inner.validate(0, size)
	}
	if e := (*Error)(nil); errors.As(err, &e) {
		e.Offset, e.Detail = 0, strings.TrimSuffix("header of what is compressed: "+e.Detail, ": ")
		return nil, nil, e
	}
	made := make(map[string]TensorInfo, len(inner.tensors))
	for _, t := range inner.tensors {
		made[t.Name] = t
	}
	c := &compressed{file: f, frames: make(map[string]TensorInfo, len(made)), open: map[string]*planes.Decoder{}}
	for i, frame := range outer.tensors {
		t, ok := made[frame.Name]
		if !ok {
			return nil, nil, &Error{Class: ErrBadHeader, Tensor: frame.Name, Detail: "not in the header of what is compressed"}
		}
		if frame.DType != U8 || !slices.Equal(frame.Shape, frameShape(int64(frame.Bytes))) {
			return nil, nil, &Error{Class: ErrBadHeader, Tensor: frame.Name, Detail: "compressed", Expected: fmt.Sprintf("U8 of %v", frameShape(int64(frame.Bytes))), Actual: fmt.Sprintf("%v of %v", frame.DType, frame.Shape)}
		}
		if err := planes.CheckSize(int64(frame.Bytes), element(t.DType), int64(t.Bytes)); err != nil {
			return nil, nil, named(err, frame.Name)
		}
		c.frames[frame.Name] = frame
		t.Offset = weights.Made
		outer.tensors[i] = t
	}
	for _, t := range inner.tensors {
		if _, ok := c.frames[t.Name]; !ok {
			return nil, nil, &Error{Class: ErrMissingTensor, Tensor: t.Name, Detail: "promised by the header of what is compressed"}
		}
	}
	inner.tensors = outer.tensors // in the order of the file
	return inner, c.read, nil
}

func named(err error, tensor string) error {
	var e *Error
	if errors.As(err, &e) && e.Tensor == "" {
		e.Tensor = tensor
	}
	return err
}

// read is the weights.Maker.
func (c *compressed) read(t TensorInfo, dst []byte, off int) error {
	d, err := c.decoder(t)
	if err != nil {
		return err
	}
	return d.ReadPart(dst, int64(off))
}

func (c *compressed) decoder(t TensorInfo) (*planes.Decoder, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if d := c.open[t.Name]; d != nil {
		return d, nil
	}
	frame := c.frames[t.Name]
	d, err := planes.Open(section{c.file, frame.Offset}, int64(frame.Bytes), element(t.DType), int64(t.Bytes), planes.Options{Cache: &c.cache})
	if err == nil {
		c.open[t.Name] = d
	}
	return d, err
}

// section is the rest of a file from an offset on.
type section struct {
	f     *weights.File
	start int64
}

func (s section) ReadAt(p []byte, off int64) (int, error) {
	if err := s.f.ReadFull(p, s.start+off); err != nil {
		return 0, err
	}
	return len(p), nil
}
