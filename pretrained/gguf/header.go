package gguf

import (
	"fmt"
	"math"
	"math/bits"
	"strings"

	"github.com/torchgo/torchgo/internal/weights"
)

// header is what a file says before the tensors' data.
type header struct {
	version  int
	metadata *Metadata
	tensors  []TensorInfo
	stored   []Stored // of each
}

const (
	alignmentKey = "general.alignment"
	minRecord    = 12 // bytes that a name and a type take at least
	maxDepth     = 64 // of nested arrays, before they are refused as unsupported
)

// readHeader reads and checks the header of a file. Errors lack the file's name.
func readHeader(f *weights.File) (*header, error) {
	c := &cursor{f: f, end: MaxHeaderBytes, class: ErrHeaderLimit}
	h := &header{metadata: &Metadata{file: f.Path(), index: map[string]int{}}}
	if err := checkMagic(f); err != nil {
		return nil, err
	}
	c.skip(int64(len(magic)))
	switch version := c.u32(); {
	case c.err != nil:
	case version&0xffff == 0 && version != 0:
		c.fail(&Error{Class: ErrUnsupported, Offset: 4, Detail: "big-endian file", Expected: "a little-endian one",
			Actual: fmt.Sprintf("version %d in the other byte order", bits.ReverseBytes32(version)), Remedy: "convert it with gguf's gguf_convert_endian.py"})
	case version != 2 && version != 3:
		c.fail(&Error{Class: ErrUnsupportedVersion, Offset: 4, Expected: "version 2 or 3", Actual: fmt.Sprint(version)})
	default:
		h.version = int(version)
	}
	tensors := c.count("number of tensors", MaxTensors)
	keys := c.count("number of keys", MaxKeys)
	for range keys {
		h.readKey(c)
		if c.err != nil {
			return nil, c.err
		}
	}
	if c.err != nil {
		return nil, c.err
	}
	return h, h.readTensors(c, tensors)
}

func checkMagic(f *weights.File) error {
	head := make([]byte, min(f.Size(), 512))
	if err := f.ReadFull(head, 0); err != nil {
		return err
	}
	if got := head[:min(len(head), len(magic))]; !strings.HasPrefix(magic, string(got)) {
		if err := weights.Sniff(head, "a GGUF file"); err != nil {
			return err
		}
		return &Error{Class: ErrBadMagic, Expected: fmt.Sprintf("%q", magic), Actual: fmt.Sprintf("%q", got)}
	}
	return nil
}

// count reads a number of things.
func (c *cursor) count(what string, limit uint64) int {
	at := c.off
	n := c.u64()
	if n > limit {
		c.fail(&Error{Class: ErrLimit, Offset: at, Detail: what, Expected: fmt.Sprintf("at most %d", limit), Actual: fmt.Sprint(n)})
		return 0
	}
	return int(n)
}

// readKey reads a key and its value.
func (h *header) readKey(c *cursor) {
	at := c.off
	if c.inPadding(h.metadata.alignment()) {
		c.fail(&Error{Class: ErrTruncated, Offset: at, Detail: "the header has fewer keys than it says", Actual: fmt.Sprint(h.metadata.Len())})
	}
	key := c.text("key", MaxKeyBytes)
	if key == "" {
		c.fail(&Error{Class: ErrBadHeader, Offset: at, Detail: "a key without a name"})
	}
	if _, ok := h.metadata.index[key]; ok {
		c.fail(&Error{Class: ErrDuplicate, Offset: at, Detail: "key " + quoted(key)})
	}
	if c.err != nil {
		return
	}
	at = c.off
	v := c.value(ValueType(c.u32()))
	if err := v.checkAlignment(); err != nil && key == alignmentKey {
		err.Offset = at
		c.fail(err)
	}
	c.err = h.metadata.at(key, c.err)
	if c.err == nil {
		h.metadata.put(key, v)
	}
}

// checkAlignment says what is wrong with the value of general.alignment.
func (v value) checkAlignment() *Error {
	if v.typ == Uint32 && v.bits != 0 && v.bits&(v.bits-1) == 0 && v.bits <= MaxAlignment {
		return nil
	}
	return &Error{Class: ErrBadHeader, Expected: fmt.Sprintf("a power of two as uint32, at most %d", MaxAlignment), Actual: fmt.Sprintf("%d as %v", v.bits, v.typ)}
}

// inPadding reports whether there are only zeros from here to where aligned data would begin. Neither a key nor a tensor
// begins like that: a header with fewer of them than it promises has ended.
func (c *cursor) inPadding(alignment int64) bool {
	n := min(padding(c.off, alignment), c.f.Size()-c.off, c.end-c.off)
	if n < minRecord {
		return false
	}
	return len(strings.Trim(string(c.peek(n)), "\x00")) == 0
}

func (c *cursor) value(t ValueType) value {
	at := c.off - 4
	v := value{typ: t}
	switch {
	case c.err != nil:
	case !t.valid():
		c.fail(&Error{Class: ErrBadHeader, Offset: at, Detail: "type of a value", Expected: "0 to 12", Actual: fmt.Sprint(uint32(t))})
	case t == String:
		v.text = c.text("string", unlimited)
	case t == Array:
		v.list = c.array()
	default:
		v.bits = littleEndian(c.take(int64(t.size())))
		if t == Bool && v.bits > 1 {
			c.fail(&Error{Class: ErrBadValue, Offset: at + 4, Detail: "bool", Expected: "0 or 1", Actual: fmt.Sprint(v.bits)})
		}
	}
	return v
}

// array walks through the elements of an array.
func (c *cursor) array() *list {
	at := c.off
	l := &list{elem: ValueType(c.u32()), file: c.f}
	if c.err == nil && !l.elem.valid() {
		c.fail(&Error{Class: ErrBadHeader, Offset: at, Detail: "type of an array's elements", Expected: "0 to 12", Actual: fmt.Sprint(uint32(l.elem))})
	}
	if c.err != nil {
		return nil
	}
	l.n = c.length("length of an array", unlimited, l.elem.size())
	l.off = c.off
	switch l.elem {
	case Array:
		c.nested(at)
	case String:
		for i := int64(0); i < l.n && c.err == nil; i++ {
			c.skip(c.length("length of a string", unlimited, 1))
		}
	default:
		c.skip(l.n * int64(l.elem.size()))
	}
	l.size = c.off - l.off
	return l
}

// nested refuses an array of arrays, as llama.cpp does.
func (c *cursor) nested(at int64) {
	for range maxDepth {
		if ValueType(c.u32()) != Array {
			c.fail(&Error{Class: ErrUnsupported, Offset: at, Detail: "an array of arrays"})
			return
		}
		c.u64()
	}
	c.fail(&Error{Class: ErrLimit, Offset: at, Detail: "arrays in arrays", Expected: fmt.Sprintf("at most %d deep", maxDepth)})
}

// readTensors reads and checks the list of tensors: each must begin where the one before it ends, rounded up to the alignment.
func (h *header) readTensors(c *cursor, count int) error {
	alignment := h.metadata.alignment()
	h.tensors = make([]TensorInfo, 0, min(int64(count), (c.f.Size()-c.off)/24))
	h.stored = make([]Stored, 0, cap(h.tensors))
	var dims []int // of many tensors, in one piece
	end := int64(0)
	for range count {
		at := c.off
		if c.inPadding(alignment) {
			return &Error{Class: ErrTruncated, Offset: at, Detail: "the header has fewer tensors than it says", Expected: fmt.Sprint(count), Actual: fmt.Sprint(len(h.tensors))}
		}
		t := TensorInfo{Name: c.text("tensor name", MaxNameBytes), DType: weights.F32}
		n := c.u32()
		if c.err != nil {
			return c.err
		}
		fail := func(class error, detail, expected string, actual any) error {
			return &Error{Class: class, Tensor: t.Name, Offset: at, Detail: detail, Expected: expected, Actual: fmt.Sprint(actual)}
		}
		if t.Name == "" {
			return fail(ErrBadHeader, "a tensor without a name", "", "")
		}
		if n > MaxDims {
			return fail(ErrBadShape, "", fmt.Sprintf("at most %d dimensions", MaxDims), n)
		}
		if cap(dims)-len(dims) < MaxDims {
			dims = make([]int, 0, 1024)
		}
		dims = dims[:len(dims)+int(n)]
		t.Shape = dims[len(dims)-int(n) : len(dims) : len(dims)]
		for i := range t.Shape {
			dim := c.u64()
			if dim > math.MaxInt64 {
				return fail(ErrBadShape, "", "dimensions of at least 0", int64(dim))
			}
			t.Shape[int(n)-1-i] = int(dim) // the file's first is the innermost
		}
		s := Stored{Type: Type(c.u32())}
		offset := c.u64()
		if c.err != nil {
			return c.err
		}
		if !s.Type.Known() {
			return fail(ErrBadDType, "", "a type of ggml", uint32(s.Type))
		}
		if dtype, ok := plain[s.Type]; ok {
			t.DType = dtype
		}
		var err error
		if s.Bytes, err = storedBytes(s.Type, t.Shape); err == nil {
			size, sizeErr := weights.ByteSize(t.DType, t.Shape)
			t.Bytes, err = int(size), sizeErr
		}
		if e, ok := err.(*Error); ok {
			e.Tensor, e.Offset = t.Name, at
			return e
		}
		if offset != uint64(end) {
			return fail(ErrBadOffset, "offset of the data", fmt.Sprint(end), offset)
		}
		if s.Bytes > math.MaxInt64-alignment-end {
			return fail(ErrBadShape, "the bytes of all tensors overflow", "", t.Shape)
		}
		s.Offset = end
		end += s.Bytes + padding(s.Bytes, alignment)
		h.tensors, h.stored = append(h.tensors, t), append(h.stored, s)
	}
	start := c.off + padding(c.off, alignment)
	for i := range h.stored {
		t, s := &h.tensors[i], &h.stored[i]
		if left := c.f.Size() - start - s.Offset; s.Bytes > left {
			return &Error{Class: ErrTruncated, Tensor: t.Name, Offset: c.f.Size(), Detail: "data cut", Expected: fmt.Sprintf("%d bytes more", s.Bytes-left),
				Remedy: redownload}
		}
		s.Offset += start
		if t.Offset = s.Offset; plain[s.Type] == 0 {
			t.Offset = weights.Made
		}
	}
	return nil
}

// storedBytes is the bytes of a tensor in the file. The error is ErrBadShape.
func storedBytes(t Type, shape []int) (int64, error) {
	inner, rows := int64(1), uint64(1)
	if len(shape) > 0 {
		inner = int64(shape[len(shape)-1])
	}
	if inner%int64(t.BlockLen()) != 0 {
		return 0, &Error{Class: ErrBadShape, Detail: fmt.Sprintf("rows of %v", t), Expected: fmt.Sprintf("a multiple of %d elements", t.BlockLen()), Actual: fmt.Sprint(shape)}
	}
	// The elements, too, must be countable, also where a dimension of 0 follows.
	row, ok := t.RowBytes(inner)
	for i := range len(shape) - 1 {
		hi, lo := bits.Mul64(rows, uint64(shape[i]))
		if rows = lo; hi != 0 || lo > math.MaxInt64 {
			ok = false
		}
	}
	hi, bytes := bits.Mul64(rows, uint64(max(row, inner)))
	if !ok || hi != 0 || bytes > math.MaxInt64 {
		return 0, &Error{Class: ErrBadShape, Detail: "the size overflows", Actual: fmt.Sprintf("%v of %v", shape, t)}
	}
	return int64(rows) * row, nil
}
