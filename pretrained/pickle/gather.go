package pickle

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"io"
	"slices"

	"github.com/torchgo/torchgo/internal/weights"
)

// section is a storage's bytes in a file.
type section struct {
	file         *weights.File
	offset, size int64
}

// ReadAt reads from offset off of the section.
func (s *section) ReadAt(p []byte, off int64) (int, error) {
	if off < 0 || off > s.size {
		return 0, &Error{Class: ErrBounds, File: s.file.Path(), Detail: "storage", Expected: fmt.Sprintf("%d bytes", s.size), Actual: fmt.Sprint(off)}
	}
	n := int(min(int64(len(p)), s.size-off))
	if err := s.file.ReadFull(p[:n], s.offset+off); err != nil {
		return 0, err
	}
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

// swapper is a big-endian storage's bytes, little-endian.
type swapper struct {
	r    io.ReaderAt
	n    int64 // bytes of a number
	size int64
}

// ReadAt reads the numbers that p has a part of.
func (s *swapper) ReadAt(p []byte, off int64) (int, error) {
	first := off / s.n * s.n
	last := min((off+int64(len(p))+s.n-1)/s.n*s.n, s.size)
	if first == off && last-first == int64(len(p)) {
		n, err := s.r.ReadAt(p, off)
		reverse(p[:n], int(s.n))
		return n, err
	}
	buf := make([]byte, max(0, last-first))
	n, err := s.r.ReadAt(buf, first)
	reverse(buf[:n], int(s.n))
	if n = copy(p, buf[min(int64(len(buf)), off-first):]); n == len(p) {
		return n, nil
	}
	if err == nil {
		err = io.EOF
	}
	return n, err
}

// reverse reverses the bytes of each number of n.
func reverse(p []byte, n int) {
	switch n {
	case 2:
		for ; len(p) >= 2; p = p[2:] {
			p[0], p[1] = p[1], p[0]
		}
	case 4:
		for ; len(p) >= 4; p = p[4:] {
			le.PutUint32(p, binary.BigEndian.Uint32(p))
		}
	case 8:
		for ; len(p) >= 8; p = p[8:] {
			le.PutUint64(p, binary.BigEndian.Uint64(p))
		}
	}
}

// numel is the number of elements.
func (t *Tensor) numel() int {
	n := 1
	for _, d := range t.Shape {
		n *= d
	}
	return n
}

// contiguous reports whether the elements lie in the storage as they are read, one after the other.
func (t *Tensor) contiguous() bool {
	if t.numel() == 0 {
		return true
	}
	step := 1
	for i := len(t.Shape) - 1; i >= 0; i-- {
		if t.Shape[i] != 1 && t.Strides[i] != step {
			return false
		}
		step *= t.Shape[i]
	}
	return true
}

// gather puts bytes of a tensor in order, len(dst) of them from byte off of the contiguous tensor on.
func gather(t *Tensor, dst []byte, off int) error {
	size := dtypes[t.DType].bytes
	first, last := off/size, (off+len(dst)+size-1)/size
	out := dst
	if len(dst) != (last-first)*size { // it begins or ends inside an element
		out = make([]byte, (last-first)*size)
	}
	g := gatherer{t: t, size: size, dst: out, first: first, window: window{r: t.Storage.Data, size: t.Storage.Bytes}}
	if err := g.blocks(0, 0, t.Start, first, last); err != nil {
		return err
	}
	if t.Conj || t.Neg {
		negate(out, t.DType, t.Conj, t.Neg)
	}
	if len(out) != len(dst) {
		copy(dst, out[off-first*size:])
	}
	return nil
}

type gatherer struct {
	t      *Tensor
	size   int // of an element
	dst    []byte
	first  int // index of the element that dst begins with
	window window
	tile   []byte
}

// blocks splits elements lo to hi of the part of the tensor that the first dims indices have chosen into rectangles: index is that
// part's first element in the contiguous tensor, at in the storage.
func (g *gatherer) blocks(dims, index, at, lo, hi int) error {
	if lo >= hi {
		return nil
	}
	shape := g.t.Shape[dims:]
	if len(shape) == 0 {
		return g.copyBlock(nil, nil, index, at)
	}
	inner := 1
	for _, d := range shape[1:] {
		inner *= d
	}
	stride := g.t.Strides[dims]
	sub := func(i, lo, hi int) error { return g.blocks(dims+1, index+i*inner, at+i*stride, lo, hi) }
	a, b := lo/inner, hi/inner
	if a == b {
		return sub(a, lo%inner, hi%inner)
	}
	if lo%inner != 0 {
		if err := sub(a, lo%inner, inner); err != nil {
			return err
		}
		a++
	}
	if a < b {
		counts := slices.Clone(shape)
		counts[0] = b - a
		if err := g.copyBlock(counts, g.t.Strides[dims:], index+a*inner, at+a*stride); err != nil {
			return err
		}
	}
	if hi%inner == 0 {
		return nil
	}
	return sub(b, 0, hi%inner)
}

// axis is a dimension of a block: how often, and how far apart in the storage and in the contiguous tensor, in elements.
type axis struct{ count, from, to int }

// copyBlock copies a rectangle that is whole in all dimensions but the first. It goes through the storage from front to back as far
// as that is possible.
func (g *gatherer) copyBlock(counts, strides []int, index, at int) error {
	axes := make([]axis, 0, len(counts)+1)
	to := 1
	for i := len(counts) - 1; i >= 0; i-- {
		if counts[i] == 0 {
			return nil
		}
		if counts[i] > 1 {
			a := axis{counts[i], strides[i], to}
			if n := len(axes); n > 0 && axes[n-1].count*axes[n-1].from == a.from && axes[n-1].count*axes[n-1].to == a.to {
				axes[n-1].count *= a.count // continues the dimension inside it
			} else {
				axes = append(axes, a)
			}
		}
		to *= counts[i]
	}
	// Innermost is the smallest step in the storage; repetitions of the same elements are outermost.
	slices.SortStableFunc(axes, func(a, b axis) int { return cmp.Compare(uint(a.from-1), uint(b.from-1)) })
	if len(axes) == 0 {
		axes = append(axes, axis{1, 1, 1})
	}
	run, outer := axes[0], axes[1:]
	// A transposition: rows of the storage are columns of the tensor. Several rows at a time, for the caches' sake.
	tiles := axis{count: 1}
	if i := slices.IndexFunc(outer, func(a axis) bool { return a.to == 1 }); i >= 0 && run.from == 1 {
		tiles = outer[i]
		outer = slices.Delete(outer, i, i+1)
	}
	at, index = at*g.size, (index-g.first)*g.size
	for i := range outer {
		outer[i].from, outer[i].to = outer[i].from*g.size, outer[i].to*g.size
	}
	pos := make([]int, len(outer))
	for {
		var err error
		if tiles.count > 1 {
			err = g.copyTiles(run, tiles, int64(at), index)
		} else {
			err = g.copyRun(run, int64(at), index)
		}
		if err != nil {
			return err
		}
		i := 0
		for ; i < len(outer); i++ {
			at, index = at+outer[i].from, index+outer[i].to
			if pos[i]++; pos[i] < outer[i].count {
				break
			}
			at, index = at-outer[i].count*outer[i].from, index-outer[i].count*outer[i].to
			pos[i] = 0
		}
		if i == len(outer) {
			return nil
		}
	}
}

// copyRun copies elements that are equally far apart; at and index are bytes.
func (g *gatherer) copyRun(run axis, at int64, index int) error {
	if run.from == 1 && run.to == 1 {
		return g.window.read(g.dst[index:][:run.count*g.size], at)
	}
	from, to := int64(run.from*g.size), run.to*g.size
	for done := 0; done < run.count; {
		n := run.count - done
		if from > 0 {
			n = int(min(int64(n), max(1, windowBytes/from)))
		}
		p, err := g.window.bytes(at, int64(n-1)*from+int64(g.size), from > windowBytes)
		if err != nil {
			return err
		}
		for i := range n {
			src := p[int64(i)*from:][:g.size]
			dst := g.dst[index+i*to:][:g.size]
			switch g.size {
			case 1:
				dst[0] = src[0]
			case 2:
				le.PutUint16(dst, le.Uint16(src))
			case 4:
				le.PutUint32(dst, le.Uint32(src))
			default:
				copy(dst, src)
			}
		}
		done += n
		at, index = at+int64(n)*from, index+n*to
	}
	return nil
}

// tileRows is how many rows are transposed together: elements of 4 bytes fill a line of the cache.
const tileRows = 16

// copyTiles copies rows of elements that are next to each other in the storage, to columns.
func (g *gatherer) copyTiles(row, column axis, at int64, index int) error {
	size, to := g.size, row.to*g.size
	width := min(row.count, windowBytes/size)
	if n := min(tileRows, column.count) * width * size; len(g.tile) < n {
		g.tile = make([]byte, n)
	}
	for i := 0; i < row.count; i += width {
		n := min(width, row.count-i)
		for j := 0; j < column.count; j += tileRows {
			rows := min(tileRows, column.count-j)
			for k := range rows {
				from := at + (int64(j+k)*int64(column.from)+int64(i))*int64(size)
				if err := g.window.read(g.tile[k*n*size:][:n*size], from); err != nil {
					return err
				}
			}
			transpose(g.dst[index+i*to+j*size:], g.tile, rows, n, size, to)
		}
	}
	return nil
}

// transpose puts element i of row k of src, rows of n elements, at byte i*to+k*size of dst.
func transpose(dst, src []byte, rows, n, size, to int) {
	for i := range n {
		d, s := dst[i*to:][:rows*size], src[i*size:]
		switch size {
		case 1:
			for k := range rows {
				d[k] = s[k*n]
			}
		case 2:
			for k := range rows {
				le.PutUint16(d[2*k:], le.Uint16(s[2*k*n:]))
			}
		case 4:
			for k := range rows {
				le.PutUint32(d[4*k:], le.Uint32(s[4*k*n:]))
			}
		case 8:
			for k := range rows {
				le.PutUint64(d[8*k:], le.Uint64(s[8*k*n:]))
			}
		default:
			for k := range rows {
				copy(d[k*size:][:size], s[k*size*n:])
			}
		}
	}
}

// window reads a storage piece by piece and keeps the last piece.
type window struct {
	r    io.ReaderAt
	size int64
	buf  []byte
	at   int64
}

// directBytes is the length from which just the bytes that are asked for are read.
const directBytes = 512

func (w *window) read(dst []byte, at int64) error {
	if len(dst) >= directBytes {
		return readAt(w.r, dst, at)
	}
	p, err := w.bytes(at, int64(len(dst)), false)
	copy(dst, p)
	return err
}

// bytes is n bytes of the storage, valid until the next call; those after them come along unless the next call is far from here.
func (w *window) bytes(at, n int64, far bool) ([]byte, error) {
	if at < w.at || at+n > w.at+int64(len(w.buf)) {
		want := n
		if n < directBytes && !far {
			want = max(n, min(windowBytes, w.size-at))
		}
		if int64(cap(w.buf)) < want {
			w.buf = make([]byte, want)
		}
		w.buf, w.at = w.buf[:want], at
		if err := readAt(w.r, w.buf, at); err != nil {
			w.buf = nil
			return nil, err
		}
	}
	return w.buf[at-w.at:][:n], nil
}

// readAt fills p. The bytes are known to be there.
func readAt(r io.ReaderAt, p []byte, at int64) error {
	n, err := r.ReadAt(p, at)
	switch {
	case n == len(p):
		return nil
	case err == io.EOF:
		return io.ErrUnexpectedEOF
	}
	return err
}

// negate applies the conjugate and negative bits to elements.
func negate(p []byte, d DType, conj, neg bool) {
	size := d.swapBytes()
	for i := 0; i+size <= len(p); i += size {
		imag := d.isComplex() && i/size%2 == 1
		if neg != (conj && imag) {
			p[i+size-1] ^= 0x80 // the sign of a float
		}
	}
}
