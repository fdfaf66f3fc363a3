package safetensors

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/torchgo/torchgo/internal/strictjson"
	"github.com/torchgo/torchgo/internal/weights"
)

// header is what the first part of a file says.
type header struct {
	tensors  []TensorInfo // in the order of their bytes
	metadata map[string]string
	dims     []int // where the next shapes go
}

const redownload = "download the file again"

// readHeader reads and checks the header of a file. Errors lack the file's name.
//
// The order of the checks is the reference implementation's: length, JSON, dtypes and shapes as they are
// parsed, then over the tensors by offset: continuity, overflow of the shape, size; then the file's size.
func readHeader(f *weights.File) (*header, error) {
	size := f.Size()
	head := make([]byte, min(size, 512))
	if err := f.ReadFull(head, 0); err != nil {
		return nil, err
	}
	if size < 8 {
		return nil, &Error{Class: ErrTruncated, Detail: "no header length", Expected: "at least 8 bytes", Actual: fmt.Sprint(size), Remedy: redownload}
	}
	n := binary.LittleEndian.Uint64(head)
	if n > MaxHeaderBytes || size > 8 && !strings.ContainsRune("{ \t\r\n", rune(head[8])) {
		if err := weights.Sniff(head, "a safetensors file"); err != nil {
			return nil, err
		}
	}
	switch {
	case n > MaxHeaderBytes:
		return nil, &Error{Class: ErrHeaderLimit, Detail: "header length", Expected: fmt.Sprintf("at most %d bytes", MaxHeaderBytes), Actual: fmt.Sprint(n)}
	case int64(n) > size-8:
		return nil, &Error{Class: ErrTruncated, Detail: "header cut", Expected: fmt.Sprintf("at least %d bytes", 8+n), Actual: fmt.Sprint(size), Remedy: redownload}
	}
	data := make([]byte, n)
	if err := f.ReadFull(data, 8); err != nil {
		return nil, err
	}
	h, err := parseHeader(data)
	if err != nil {
		return nil, err
	}
	return h, h.validate(8+int64(n), size)
}

// parseHeader reads the JSON. Offsets of the tensors are still those of the header, relative to the data.
func parseHeader(data []byte) (*header, error) {
	if text := bytes.TrimLeft(data, " \t\r\n"); len(text) == 0 || text[0] != '{' {
		return nil, &Error{Class: ErrBadHeader, Offset: 8, Expected: "a JSON object", Actual: fmt.Sprintf("%.20q", text)}
	}
	// One allocation for the list, and no spare room when it is large: the count is exact unless names are
	// escaped or contain the word.
	n := min(bytes.Count(data, []byte(`"data_offsets"`)), MaxTensors)
	h := &header{tensors: make([]TensorInfo, 0, n)}
	d := strictjson.NewDecoder(data, strictjson.Options{MaxMembers: MaxTensors + 1<<16})
	err := d.Object(func(name string) error {
		if name == metadataKey {
			return h.readMetadata(d)
		}
		if len(h.tensors) == MaxTensors {
			return &Error{Class: ErrLimit, Detail: "number of tensors", Expected: fmt.Sprintf("at most %d", MaxTensors), Actual: "more"}
		}
		t, err := h.readEntry(d, name)
		if errors.Is(err, strictjson.ErrType) { // if that value isn't even JSON, say so
			if skipErr := d.Skip(); skipErr != nil {
				err = skipErr
			}
		}
		if err != nil {
			return at(err, name, d)
		}
		h.tensors = append(h.tensors, t)
		return nil
	})
	if err == nil {
		err = d.End()
	}
	if err != nil {
		return nil, at(err, "", d)
	}
	return h, nil
}

// at makes err, from the JSON decoder or this package, an *Error that names the tensor and the offset.
func at(err error, tensor string, d *strictjson.Decoder) error {
	var e *Error
	if !errors.As(err, &e) {
		e = &Error{Class: ErrBadHeader, Offset: 8 + int64(d.Offset())}
		if jsonErr := (*strictjson.Error)(nil); errors.As(err, &jsonErr) {
			e.Detail = jsonErr.Message
			if jsonErr.Offset >= 0 {
				e.Offset = 8 + int64(jsonErr.Offset)
			}
			switch jsonErr.Class {
			case strictjson.ErrDuplicate:
				e.Class = ErrDuplicate
			case strictjson.ErrLimit:
				e.Class = ErrLimit
			}
		} else {
			e.Err = err
		}
	}
	if e.Tensor == "" {
		e.Tensor = tensor
	}
	if e.Offset == 0 {
		e.Offset = 8 + int64(d.Offset())
	}
	return e
}

func (h *header) readMetadata(d *strictjson.Decoder) error {
	if k, err := d.Peek(); err != nil {
		return err
	} else if k == strictjson.KindNull { // the reference takes it for none
		return d.Null()
	}
	h.metadata = map[string]string{}
	return d.Object(func(key string) error {
		value, err := d.Text()
		if err != nil && errors.Is(err, strictjson.ErrType) {
			err = &Error{Class: ErrBadHeader, Detail: fmt.Sprintf("%s: value of %.40q is not a string", metadataKey, key)}
		}
		h.metadata[key] = value
		return err
	})
}

func (h *header) readEntry(d *strictjson.Decoder, name string) (TensorInfo, error) {
	t := TensorInfo{Name: name}
	if cap(h.dims)-len(h.dims) < MaxDims {
		h.dims = make([]int, 0, 8*MaxDims)
	}
	start := len(h.dims)
	var hasShape, hasOffsets bool
	var offsets [2]int64
	err := d.Object(func(field string) (err error) {
		switch field {
		case "dtype":
			var code string
			if code, err = d.Text(); err == nil {
				t.DType, err = ParseDType(code)
			}
		case "shape":
			hasShape = true
			err = d.Array(func(i int) error {
				if i == MaxDims {
					return &Error{Class: ErrBadShape, Expected: fmt.Sprintf("at most %d dimensions", MaxDims), Actual: "more"}
				}
				dim, err := natural(d, "dimension", ErrBadShape)
				h.dims = append(h.dims, int(dim))
				return err
			})
			t.Shape = h.dims[start:len(h.dims):len(h.dims)]
		case "data_offsets":
			hasOffsets = true
			n := 0
			err = d.Array(func(i int) error {
				o, err := natural(d, "data offset", ErrBadOffset)
				if i < 2 {
					offsets[i] = o
				}
				n = i + 1
				return err
			})
			if err == nil && n != 2 {
				err = &Error{Class: ErrBadHeader, Detail: "data_offsets", Expected: "2 numbers", Actual: fmt.Sprint(n)}
			}
		default: // the reference ignores fields that it does not know
			err = d.Skip()
		}
		return err
	})
	if err != nil {
		return t, err
	}
	for _, f := range []struct {
		name string
		ok   bool
	}{{"dtype", valid(t.DType)}, {"shape", hasShape}, {"data_offsets", hasOffsets}} {
		if !f.ok {
			return t, &Error{Class: ErrBadHeader, Detail: "field " + f.name + " is missing"}
		}
	}
	if offsets[0] > offsets[1] {
		return t, &Error{Class: ErrBadOffset, Detail: "begin after end", Actual: fmt.Sprint(offsets)}
	}
	if offsets[1]-offsets[0] > math.MaxInt {
		return t, &Error{Class: ErrUnsupported, Detail: "tensor is larger than this host can address"}
	}
	t.Offset, t.Bytes = offsets[0], int(offsets[1]-offsets[0])
	return t, nil
}

// natural reads an integer from 0 to the largest int; outside of that the error is of the given class.
func natural(d *strictjson.Decoder, what string, class error) (int64, error) {
	n, err := d.Number()
	if err != nil {
		return 0, err
	}
	if !n.IsInteger() {
		return 0, &Error{Class: ErrBadHeader, Detail: what, Expected: "an integer", Actual: fmt.Sprintf("%.40s", n)}
	}
	i, err := n.Int64()
	if err != nil || i < 0 || i > math.MaxInt || n[0] == '-' {
		return 0, &Error{Class: class, Detail: what, Expected: fmt.Sprintf("0 to %d", math.MaxInt), Actual: fmt.Sprintf("%.40s", n)}
	}
	return i, nil
}

// validate sorts the tensors by their bytes and checks that these cover the rest of the file exactly.
// It makes the offsets those of the file.
func (h *header) validate(start, size int64) error {
	slices.SortFunc(h.tensors, func(a, b TensorInfo) int {
		if c := cmp.Or(cmp.Compare(a.Offset, b.Offset), cmp.Compare(a.Bytes, b.Bytes)); c != 0 {
			return c
		}
		return strings.Compare(a.Name, b.Name)
	})
	end := int64(0)
	for i := range h.tensors {
		t := &h.tensors[i]
		if t.Offset != end {
			what := "hole before the tensor"
			if t.Offset < end {
				what = "overlaps another tensor"
			}
			return &Error{Class: ErrBadOffset, Tensor: t.Name, Detail: what, Expected: fmt.Sprintf("begin %d", end), Actual: fmt.Sprint(t.Offset)}
		}
		want, err := weights.ByteSize(t.DType, t.Shape)
		if err != nil {
			err.(*Error).Tensor = t.Name
			return err
		}
		if int64(t.Bytes) != want {
			return &Error{Class: ErrSizeMismatch, Tensor: t.Name, Offset: start + t.Offset, Detail: fmt.Sprintf("%v of %v", t.Shape, t.DType),
				Expected: fmt.Sprintf("%d bytes", want), Actual: fmt.Sprint(t.Bytes)}
		}
		if end += want; end > math.MaxInt64-start {
			return &Error{Class: ErrTruncated, Tensor: t.Name, Detail: "data ends beyond any file", Actual: fmt.Sprintf("%d bytes", size)}
		}
		t.Offset += start
		if start+end > size {
			return &Error{Class: ErrTruncated, Tensor: t.Name, Offset: t.Offset, Detail: "data cut",
				Expected: fmt.Sprintf("at least %d bytes in the file", start+end), Actual: fmt.Sprint(size), Remedy: redownload}
		}
	}
	if start+end < size {
		return &Error{Class: ErrBadOffset, Offset: start + end, Detail: "bytes after the last tensor",
			Expected: fmt.Sprintf("a file of %d bytes", start+end), Actual: fmt.Sprint(size)}
	}
	return nil
}
