package gguf

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"runtime"
	"unicode/utf8"

	"golang.org/x/sync/errgroup"

	"github.com/torchgo/torchgo/internal/atomicfile"
	"github.com/torchgo/torchgo/internal/ggml"
)

// Source is a tensor to be written.
type Source struct {
	Name  string
	Type  Type  // in the file
	Shape []int // in PyTorch's order

	// Write writes the contiguous little-endian elements, or blocks, of type From; F32 by default. If Type is another one they
	// are converted as gguf-py does. Write is called once, when it is the tensor's turn, so that no more than one needs to be
	// in memory.
	From  Type
	Write func(io.Writer) error
}

// Data is the Write of a tensor whose bytes are at hand.
func Data(p []byte) func(io.Writer) error {
	return func(w io.Writer) error {
		_, err := w.Write(p)
		return err
	}
}

// Sources are the file's tensors as they are stored. With another Type they are converted.
func (f *File) Sources() []Source {
	var all []Source
	for i, t := range f.Tensors() {
		s := f.stored[i]
		all = append(all, Source{t.Name, s.Type, t.Shape, s.Type, func(w io.Writer) error {
			buf := make([]byte, min(s.Bytes, 1<<20))
			for off := int64(0); off < s.Bytes; off += int64(len(buf)) {
				part := buf[:min(int64(len(buf)), s.Bytes-off)]
				if err := f.ReadStored(t.Name, part, off); err != nil {
					return err
				}
				if _, err := w.Write(part); err != nil {
					return err
				}
			}
			return nil
		}})
	}
	return all
}

// WriteFile writes a file of version 3 as gguf-py does: the keys and the tensors in the order given, tensors aligned to
// general.alignment, or 32 bytes. m may be nil, or another file's. The file appears under its name when it is complete and on
// the disk; until then, and on an error, an old file stays. An old file is never written to, so it may be the one that is read.
func WriteFile(ctx context.Context, path string, m *Metadata, tensors []Source) error {
	if m == nil {
		m = NewMetadata()
	}
	head, err := encodeHeader(m, tensors)
	if err != nil {
		return writeError(path, "", err)
	}
	file, err := atomicfile.Create(path, 0o666)
	if err != nil {
		return writeError(path, "", err)
	}
	defer file.Abort()
	w := bufio.NewWriterSize(file, 1<<20)
	if _, err := w.Write(head); err != nil {
		return writeError(path, "", err)
	}
	alignment := m.alignment()
	for _, t := range tensors {
		size, err := t.write(ctx, w)
		if err == nil {
			_, err = w.Write(make([]byte, padding(size, alignment)))
		}
		if err != nil {
			return writeError(path, t.Name, err)
		}
	}
	err = w.Flush()
	if err == nil {
		err = file.Commit()
	}
	return writeError(path, "", err)
}

// writeError names the file and the tensor in an error, but for that of a source that says them itself.
func writeError(path, tensor string, err error) error {
	e := (*Error)(nil)
	switch {
	case err == nil, errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return err
	case errors.As(err, &e):
		if e.File == "" {
			e.File = path
		}
		if e.Tensor == "" {
			e.Tensor = tensor
		}
		return err
	}
	if p := (*fs.PathError)(nil); errors.As(err, &p) {
		err = p.Err // the operation and the path are said
	}
	return &Error{File: path, Tensor: tensor, Detail: "write", Err: err}
}

func (m *Metadata) alignment() int64 {
	if n, err := m.Uint(alignmentKey); err == nil {
		return int64(n)
	}
	return defaultAlignment
}

// padding is the bytes from n to the next multiple of the alignment.
func padding(n, alignment int64) int64 { return -n & (alignment - 1) }

// encodeHeader gives the bytes before the first tensor's.
func encodeHeader(m *Metadata, tensors []Source) ([]byte, error) {
	switch {
	case m.err != nil:
		return nil, m.err
	case len(tensors) > MaxTensors:
		return nil, &Error{Class: ErrLimit, Detail: "number of tensors", Expected: fmt.Sprintf("at most %d", MaxTensors), Actual: fmt.Sprint(len(tensors))}
	case m.Len() > MaxKeys:
		return nil, &Error{Class: ErrLimit, Detail: "number of keys", Expected: fmt.Sprintf("at most %d", MaxKeys), Actual: fmt.Sprint(m.Len())}
	}
	b := []byte(magic)
	b = binary.LittleEndian.AppendUint32(b, DefaultVersion)
	b = binary.LittleEndian.AppendUint64(b, uint64(len(tensors)))
	b = binary.LittleEndian.AppendUint64(b, uint64(m.Len()))
	for i, key := range m.keys {
		b = appendString(b, key)
		v := m.values[i]
		if err := v.checkAlignment(); err != nil && key == alignmentKey {
			return nil, m.at(key, err)
		}
		var err error
		if b, err = v.append(b); err != nil {
			return nil, m.at(key, err)
		}
	}
	alignment, end := m.alignment(), int64(0)
	seen := make(map[string]bool, len(tensors))
	for _, t := range tensors {
		size, err := t.check()
		switch {
		case err != nil:
		case seen[t.Name]:
			err = &Error{Class: ErrDuplicate}
		case size > math.MaxInt64-alignment-end:
			err = &Error{Class: ErrBadShape, Detail: "the file would be too large", Actual: fmt.Sprint(t.Shape)}
		}
		if err != nil {
			return nil, inTensor(t.Name, err)
		}
		seen[t.Name] = true
		b = appendString(b, t.Name)
		b = binary.LittleEndian.AppendUint32(b, uint32(len(t.Shape)))
		for d := range t.Shape {
			b = binary.LittleEndian.AppendUint64(b, uint64(t.Shape[len(t.Shape)-1-d]))
		}
		b = binary.LittleEndian.AppendUint32(b, uint32(t.Type))
		b = binary.LittleEndian.AppendUint64(b, uint64(end))
		end += size + padding(size, alignment)
	}
	if len(b) > MaxHeaderBytes {
		return nil, &Error{Class: ErrHeaderLimit, Expected: fmt.Sprintf("at most %d bytes", MaxHeaderBytes), Actual: fmt.Sprint(len(b))}
	}
	return append(b, make([]byte, padding(int64(len(b)), alignment))...), nil
}

func appendString(b []byte, s string) []byte {
	return append(binary.LittleEndian.AppendUint64(b, uint64(len(s))), s...)
}

// append writes a value with its type, as in a file.
func (v value) append(b []byte) ([]byte, error) {
	b = binary.LittleEndian.AppendUint32(b, uint32(v.typ))
	switch v.typ {
	case String:
		return appendString(b, v.text), nil
	case Array:
		raw, err := v.list.bytes()
		b = binary.LittleEndian.AppendUint32(b, uint32(v.list.elem))
		b = binary.LittleEndian.AppendUint64(b, uint64(v.list.n))
		return append(b, raw...), err
	}
	return append(b, binary.LittleEndian.AppendUint64(nil, v.bits)[:v.typ.size()]...), nil
}

func inTensor(name string, err error) error {
	if e := (*Error)(nil); errors.As(err, &e) {
		e.Tensor = name
	}
	return err
}

// check gives the bytes of the tensor in the file.
func (t Source) check() (int64, error) {
	switch {
	case t.Name == "" || !utf8.ValidString(t.Name):
		return 0, &Error{Class: ErrBadHeader, Detail: "not a name for a tensor"}
	case len(t.Name) > MaxNameBytes:
		return 0, &Error{Class: ErrLimit, Detail: "name", Expected: fmt.Sprintf("at most %d bytes", MaxNameBytes), Actual: fmt.Sprint(len(t.Name))}
	case len(t.Shape) > MaxDims:
		return 0, &Error{Class: ErrBadShape, Expected: fmt.Sprintf("at most %d dimensions", MaxDims), Actual: fmt.Sprint(t.Shape)}
	case !t.Type.Known() || !t.From.Known():
		return 0, &Error{Class: ErrBadDType, Expected: "a type of ggml", Actual: fmt.Sprintf("%v from %v", t.Type, t.From)}
	case t.Type != t.From && !t.From.CanDequantize():
		return 0, &Error{Class: ErrUnsupported, Detail: fmt.Sprintf("tensors of type %v can't be decoded", t.From)}
	case t.Type != t.From && !t.Type.CanQuantize():
		return 0, &Error{Class: ErrUnsupported, Detail: fmt.Sprintf("tensors of type %v can't be made", t.Type)}
	}
	for _, d := range t.Shape {
		if d < 0 {
			return 0, &Error{Class: ErrBadShape, Expected: "dimensions of at least 0", Actual: fmt.Sprint(t.Shape)}
		}
	}
	if _, err := storedBytes(t.From, t.Shape); err != nil {
		return 0, err
	}
	return storedBytes(t.Type, t.Shape)
}

// write writes the tensor and gives its bytes.
func (t Source) write(ctx context.Context, w io.Writer) (int64, error) {
	size, err := storedBytes(t.From, t.Shape)
	if err != nil {
		return 0, err
	}
	tw := &tensorWriter{ctx: ctx, w: w, left: size, from: t.From, to: t.Type}
	err = ctx.Err()
	if err == nil {
		err = t.Write(tw)
	}
	if err == nil {
		err = tw.err // if the callback swallowed it
	}
	if err == nil && tw.left > 0 {
		err = &Error{Class: ErrSizeMismatch, Expected: fmt.Sprintf("%d bytes", size), Actual: fmt.Sprint(size - tw.left)}
	}
	if err != nil {
		return 0, err
	}
	return storedBytes(t.Type, t.Shape)
}

// tensorWriter passes on what a Source writes, converted, and holds it to its size.
type tensorWriter struct {
	ctx      context.Context
	w        io.Writer
	left     int64
	from, to Type
	pending  []byte // of type from; less than a piece
	values   []float32
	out      []byte
	err      error
}

// Tensors are converted in pieces of so many elements, of which each CPU takes a part at a time: multiples of every block.
const (
	pieceLen = 1 << 20
	partLen  = 64 << 10
)

func (t *tensorWriter) Write(p []byte) (int, error) {
	if t.err == nil && int64(len(p)) > t.left {
		t.err = &Error{Class: ErrSizeMismatch, Detail: "more bytes than type and shape need", Expected: fmt.Sprintf("%d more", t.left), Actual: fmt.Sprint(len(p))}
	}
	written := 0
	piece := bytesOf(t.from, pieceLen)
	for len(p) > 0 && t.err == nil {
		if t.err = t.ctx.Err(); t.err != nil {
			break
		}
		part := p[:min(len(p), piece-len(t.pending))]
		p, written, t.left = p[len(part):], written+len(part), t.left-int64(len(part))
		switch {
		case t.from == t.to:
			_, t.err = t.w.Write(part)
		case len(t.pending) == 0 && (len(part) == piece || t.left == 0): // no need to copy
			t.err = t.convert(part)
		default:
			t.pending = append(t.pending, part...)
			if len(t.pending) == piece || t.left == 0 {
				t.err = t.convert(t.pending)
				t.pending = t.pending[:0]
			}
		}
	}
	return written, t.err
}

// convert writes blocks of type from as blocks of type to.
func (t *tensorWriter) convert(src []byte) error {
	n := len(src) / t.from.BlockBytes() * t.from.BlockLen()
	if t.values == nil {
		t.values, t.out = make([]float32, n), make([]byte, bytesOf(t.to, n)) // the first piece is the largest
	}
	var g errgroup.Group
	g.SetLimit(runtime.GOMAXPROCS(0))
	for start := 0; start < n; start += partLen {
		end := min(start+partLen, n)
		g.Go(func() error {
			values := t.values[start:end]
			if err := ggml.Dequantize(t.from, values, src[bytesOf(t.from, start):bytesOf(t.from, end)]); err != nil {
				return err
			}
			return ggml.Quantize(t.to, t.out[bytesOf(t.to, start):bytesOf(t.to, end)], values)
		})
	}
	err := g.Wait()
	if err == nil {
		_, err = t.w.Write(t.out[:bytesOf(t.to, n)])
	}
	return err
}

// bytesOf is the bytes of n elements, which are whole blocks.
func bytesOf(t Type, n int) int { return n / t.BlockLen() * t.BlockBytes() }
