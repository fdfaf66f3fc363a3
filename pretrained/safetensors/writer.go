package safetensors

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/torchgo/torchgo/internal/atomicfile"
	"github.com/torchgo/torchgo/internal/fileerr"
	"github.com/torchgo/torchgo/internal/planes"
	"github.com/torchgo/torchgo/internal/strictjson"
	"github.com/torchgo/torchgo/internal/weights"
)

// Source is a tensor to be written.
type Source struct {
	Name  string
	DType DType
	Shape []int
	// Write writes the contiguous little-endian bytes, exactly as many as DType and Shape need. It is
	// called once, when it is the tensor's turn, so that no more than one needs to be in memory.
	Write func(io.Writer) error
}

// Data is the Write of a tensor whose bytes are at hand.
func Data(p []byte) func(io.Writer) error {
	return func(w io.Writer) error {
		_, err := w.Write(p)
		return err
	}
}

// WriteFile writes a file as the reference implementation does: tensors by dtype, then name, so that all are
// aligned. metadata may be nil. The file appears under its name when it is complete and on the disk;
// until then, and on an error, an old file stays. An old file is never written to, so tensors may be read
// from a mapping of it.
func WriteFile(ctx context.Context, path string, tensors []Source, metadata map[string]string) error {
	f, err := stage(ctx, path, tensors, metadata, false, func() (*atomicfile.File, error) { return atomicfile.Create(path, 0o666) })
	if err != nil {
		return err
	}
	defer f.Abort()
	return fileerr.Writing(path, f.Commit())
}

// stage writes the file under a temporary name, which create gives it, and brings it to the disk.
func stage(ctx context.Context, path string, tensors []Source, metadata map[string]string, compress bool,
	create func() (*atomicfile.File, error)) (_ *atomicfile.File, err error) {
	if err := weights.CheckHost(path); err != nil {
		return nil, err
	}
	tensors = slices.Clone(tensors)
	slices.SortFunc(tensors, func(a, b Source) int {
		return cmp.Or(cmp.Compare(b.DType, a.DType), strings.Compare(a.Name, b.Name))
	})
	head, sizes, err := encodeHeader(tensors, metadata)
	var frames []Source // in place of tensors
	if err == nil && compress {
		if frames, metadata, err = framed(tensors, metadata); err == nil {
			head, _, err = encodeHeader(frames, metadata)
		}
	}
	if err != nil {
		return nil, inFile(err, path)
	}
	f, err := create()
	if err != nil {
		return nil, fileerr.Writing(path, err)
	}
	defer func() {
		if err != nil {
			f.Abort()
		}
	}()
	w := bufio.NewWriterSize(f, 1<<20)
	if _, err := w.Write(head); err != nil {
		return nil, fileerr.Writing(path, err)
	}
	for i, t := range tensors {
		tw := &tensorWriter{ctx: ctx, w: w, left: sizes[i], bools: t.DType == BOOL}
		var e *planes.Encoder
		err := ctx.Err()
		if err == nil && compress {
			if e, err = planes.NewEncoder(w, element(t.DType)); err == nil {
				tw.w = e
			}
		}
		if err == nil {
			err = t.Write(tw)
		}
		if err == nil {
			err = tw.err // if the callback swallowed it
		}
		if err == nil && tw.left > 0 {
			err = &Error{Class: ErrSizeMismatch, Expected: fmt.Sprintf("%d bytes", sizes[i]), Actual: fmt.Sprint(sizes[i] - tw.left)}
		}
		if err == nil && compress {
			err = e.Close()
			frames[i].Shape = frameShape(e.Size())
		}
		if err != nil {
			if e := (*Error)(nil); errors.As(err, &e) && e.Tensor == "" {
				e.Tensor = t.Name
			}
			return nil, fileerr.Writing(path, err)
		}
	}
	if err := w.Flush(); err != nil {
		return nil, fileerr.Writing(path, err)
	}
	if compress { // sizes are known now; their numbers are not longer than before
		small, _, err := encodeHeader(frames, metadata)
		if err != nil {
			return nil, inFile(err, path)
		}
		if _, err := f.WriteAt(append(small[8:], bytes.Repeat([]byte(" "), len(head)-len(small))...), 8); err != nil {
			return nil, fileerr.Writing(path, err)
		}
	}
	return f, fileerr.Writing(path, f.Finish())
}

// encodeHeader gives the bytes before the data, and the size of each tensor.
func encodeHeader(tensors []Source, metadata map[string]string) ([]byte, []int64, error) {
	if len(tensors) > MaxTensors {
		return nil, nil, &Error{Class: ErrLimit, Detail: "number of tensors", Expected: fmt.Sprintf("at most %d", MaxTensors), Actual: fmt.Sprint(len(tensors))}
	}
	buf := append(make([]byte, 8, 8+100*len(tensors)), '{')
	comma := func() {
		if len(buf) > 9 {
			buf = append(buf, ',')
		}
	}
	if metadata != nil {
		buf = append(buf, `"`+metadataKey+`":{`...)
		for i, key := range slices.Sorted(maps.Keys(metadata)) {
			if !utf8.ValidString(key) || !utf8.ValidString(metadata[key]) {
				return nil, nil, &Error{Class: ErrBadHeader, Detail: fmt.Sprintf("%s: %.40q is not UTF-8", metadataKey, key)}
			}
			if i > 0 {
				buf = append(buf, ',')
			}
			buf = append(strictjson.AppendString(buf, key, false), ':')
			buf = strictjson.AppendString(buf, metadata[key], false)
		}
		buf = append(buf, '}')
	}
	sizes := make([]int64, len(tensors))
	seen := make(map[string]bool, len(tensors))
	end := int64(0)
	for i, t := range tensors {
		size, err := weights.ByteSize(t.DType, t.Shape)
		switch {
		case !valid(t.DType):
			err = &Error{Class: ErrBadDType, Actual: t.DType.String()}
		case t.Name == metadataKey || !utf8.ValidString(t.Name):
			err = &Error{Class: ErrBadHeader, Detail: "not a name for a tensor"}
		case seen[t.Name]:
			err = &Error{Class: ErrDuplicate}
		case end+size < 0:
			err = &Error{Class: ErrBadShape, Detail: "the file would be too large"}
		}
		if err != nil {
			err.(*Error).Tensor = t.Name
			return nil, nil, err
		}
		seen[t.Name], sizes[i] = true, size
		comma()
		buf = append(strictjson.AppendString(buf, t.Name, false), `:{"dtype":"`+t.DType.String()+`","shape":[`...)
		for d, dim := range t.Shape {
			if d > 0 {
				buf = append(buf, ',')
			}
			buf = strconv.AppendInt(buf, int64(dim), 10)
		}
		buf = append(buf, `],"data_offsets":[`...)
		buf = append(strconv.AppendInt(buf, end, 10), ',')
		end += size
		buf = append(strconv.AppendInt(buf, end, 10), `]}`...)
	}
	buf = append(buf, '}')
	for len(buf)%8 != 0 {
		buf = append(buf, ' ')
	}
	if len(buf)-8 > MaxHeaderBytes {
		return nil, nil, &Error{Class: ErrHeaderLimit, Expected: fmt.Sprintf("at most %d bytes", MaxHeaderBytes), Actual: fmt.Sprint(len(buf) - 8)}
	}
	binary.LittleEndian.PutUint64(buf, uint64(len(buf)-8))
	return buf, sizes, nil
}

// tensorWriter passes on what a Source writes, and holds it to its size.
type tensorWriter struct {
	ctx   context.Context
	w     io.Writer
	left  int64
	bools bool
	err   error
}

func (t *tensorWriter) Write(p []byte) (int, error) {
	if t.err == nil {
		t.err = t.ctx.Err()
	}
	if t.err == nil && int64(len(p)) > t.left {
		t.err = &Error{Class: ErrSizeMismatch, Detail: "more bytes than dtype and shape need", Expected: fmt.Sprintf("%d more", t.left), Actual: fmt.Sprint(len(p))}
	}
	if t.err == nil && t.bools {
		t.err = weights.CheckBools(p, 0)
	}
	if t.err != nil {
		return 0, t.err
	}
	written := 0
	for len(p) > 0 && t.err == nil { // in pieces, to stop soon
		n, err := t.w.Write(p[:min(len(p), 16<<20)])
		written, p = written+n, p[n:]
		if t.err = err; err == nil {
			t.err = t.ctx.Err()
		}
	}
	t.left -= int64(written)
	return written, t.err
}
