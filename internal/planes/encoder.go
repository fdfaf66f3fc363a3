package planes

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"

	"github.com/klauspost/compress/huff0"
	"golang.org/x/sync/errgroup"
)

// Encoder writes a frame. It holds a chunk or two for each CPU.
type Encoder struct {
	w       io.Writer
	l       layout
	part    []byte // of a chunk that isn't full yet
	table   []byte
	written int64
	err     error
	closed  bool
}

// NewEncoder begins a frame of elements of so many bytes.
func NewEncoder(w io.Writer, element int) (*Encoder, error) {
	l := layout{element: element}
	return &Encoder{w: w, l: l}, l.check()
}

var errClosed = errors.New("write to a frame that is closed")

// Write adds elements, or parts of them.
func (e *Encoder) Write(p []byte) (n int, err error) {
	if e.closed {
		return 0, errClosed
	}
	full := int(e.l.chunkBytes())
	for len(p) > 0 && e.err == nil {
		if len(e.part) > 0 || len(p) < full {
			k := min(len(p), full-len(e.part))
			e.part = append(e.part, p[:k]...)
			p, n = p[k:], n+k
			if len(e.part) == full {
				e.chunks(e.part)
				e.part = e.part[:0]
			}
			continue
		}
		k := full * workers(int64(len(p)/full))
		e.chunks(p[:k])
		p, n = p[k:], n+k
	}
	return n, e.err
}

// chunks codes p, whole chunks or the last one, all at once.
func (e *Encoder) chunks(p []byte) {
	full := int(e.l.chunkBytes())
	var coded []*work
	var g errgroup.Group
	for len(p) > 0 {
		chunk := p[:min(full, len(p))]
		p = p[len(chunk):]
		e.l.bytes += int64(len(chunk))
		w := works.Get().(*work)
		coded = append(coded, w)
		g.Go(func() error { w.encode(chunk, e.l.element); return nil })
	}
	_ = g.Wait()
	for _, w := range coded {
		e.write(w.stored)
		e.table = append(e.table, w.entry...)
		works.Put(w)
	}
}

func (e *Encoder) write(p []byte) {
	if e.err == nil {
		var n int
		n, e.err = e.w.Write(p)
		e.written += int64(n)
	}
}

// Close ends the frame. The elements must be whole.
func (e *Encoder) Close() error {
	if e.closed {
		return e.err
	}
	e.closed = true
	if e.err == nil && len(e.part) > 0 {
		e.chunks(e.part)
	}
	e.part = nil
	if e.err == nil {
		e.err = e.l.check()
	}
	e.write(putFoot(e.table, e.l, crc32.Checksum(e.table, castagnoli)))
	return e.err
}

// Size is the number of bytes written so far; after Close, of the frame.
func (e *Encoder) Size() int64 { return e.written }

// encode makes the blocks of a chunk, and its entry in the table.
func (w *work) encode(chunk []byte, element int) {
	n := len(chunk) / element
	w.planes = sized(w.planes, len(chunk))
	split(w.planes, chunk, element)
	w.stored, w.entry = w.stored[:0], w.entry[:0]
	for k := range element {
		plane := w.planes[k*n : (k+1)*n]
		kind, block := w.block(plane)
		w.stored = append(w.stored, block...)
		w.entry = binary.LittleEndian.AppendUint32(w.entry, uint32(kind)<<lengthBits|uint32(len(block)))
	}
	w.entry = binary.LittleEndian.AppendUint32(w.entry, crc32.Checksum(chunk, castagnoli))
}

// block gives the form of a plane that is stored. It is valid until the next call.
func (w *work) block(plane []byte) (kind int, stored []byte) {
	if len(plane) < minHuffman {
		return rawBlock, plane
	}
	out, _, err := huff0.Compress4X(plane, &w.coder)
	switch {
	case err == nil && len(out) < len(plane):
		return huffmanBlock, out
	case errors.Is(err, huff0.ErrUseRLE) && bytes.Count(plane, plane[:1]) == len(plane):
		return constantBlock, plane[:constBytes]
	}
	return rawBlock, plane
}
