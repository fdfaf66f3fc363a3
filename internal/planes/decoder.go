package planes

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io"
	"math"
	"sync"

	"github.com/klauspost/compress/huff0"
	"github.com/torchgo/torchgo/internal/fileerr"
	"golang.org/x/sync/errgroup"
)

// Decoder gives any bytes of a frame. Its method may be called concurrently.
type Decoder struct {
	r      io.ReaderAt
	l      layout
	table  []byte
	starts []int64 // of the chunks' blocks in the frame
	cache  *Cache
}

// Options are the optional arguments of Open.
type Options struct {
	Cache *Cache // where chunks are kept of which only a part was asked for; nil: none are kept
}

// CheckSize is an error if no frame of the given size can hold so many bytes, in elements of so many.
func CheckSize(size int64, element int, length int64) error {
	l := layout{element, length}
	if err := l.check(); err != nil {
		return err
	}
	least := max(l.tailBytes(), length/maxGrowth)
	if most := MaxFrameBytes(element, length); size < least || size > most {
		return &Error{Class: fileerr.ErrSizeMismatch, Detail: "compressed", Expected: fmt.Sprintf("%d to %d bytes for %d", least, most, length), Actual: fmt.Sprint(size)}
	}
	return nil
}

// Open reads and checks the table of a frame of the given size, which must hold so many bytes, in elements of so many.
func Open(r io.ReaderAt, size int64, element int, length int64, opts Options) (*Decoder, error) {
	d := &Decoder{r: r, l: layout{element, length}, cache: opts.Cache}
	if err := CheckSize(size, element, length); err != nil {
		return nil, err
	}
	tail := d.l.tailBytes()
	if tail > math.MaxInt {
		return nil, &Error{Class: fileerr.ErrUnsupported, Detail: "compressed tensor is larger than this host can address"}
	}
	buf := make([]byte, tail)
	if err := readFull(r, buf, size-tail); err != nil {
		return nil, err
	}
	table, foot := buf[:tail-footBytes], buf[tail-footBytes:]
	if string(foot[:len(magic)]) != magic {
		class := fileerr.ErrBadHeader
		if string(foot[:3]) == magic[:3] {
			class = fileerr.ErrUnsupportedVersion
		}
		return nil, &Error{Class: class, Detail: "compressed", Expected: fmt.Sprintf("%q", magic), Actual: fmt.Sprintf("%q", foot[:len(magic)])}
	}
	if want := putFoot(nil, d.l, crc32.Checksum(table, castagnoli)); !bytes.Equal(foot, want) {
		if !bytes.Equal(foot[:16], want[:16]) {
			return nil, &Error{Class: fileerr.ErrSizeMismatch, Detail: "compressed", Expected: fmt.Sprintf("%d bytes in elements of %d", length, element),
				Actual: fmt.Sprintf("%d in elements of %d", binary.LittleEndian.Uint64(foot[8:]), foot[4])}
		}
		return nil, &Error{Class: fileerr.ErrChecksum, Detail: "table of a compressed tensor"}
	}
	return d, d.readTable(table, size-tail)
}

// readTable checks the table of a frame whose blocks have so many bytes.
func (d *Decoder) readTable(table []byte, blocks int64) error {
	d.table, d.starts = table, make([]int64, d.l.chunks())
	at, end := int64(0), d.l.bytes
	for c := range d.starts {
		d.starts[c] = at
		n := int(min(d.l.chunkBytes(), end-int64(c)*d.l.chunkBytes())) / d.l.element
		for k := range d.l.element {
			kind, stored := d.block(c, k)
			ok := false
			switch kind {
			case rawBlock:
				ok = stored == n
			case constantBlock:
				ok = stored == constBytes && n >= minHuffman
			case huffmanBlock:
				ok = stored > 0 && stored < n && n >= minHuffman
			}
			if !ok {
				return &Error{Class: fileerr.ErrBadHeader, Detail: fmt.Sprintf("compressed: chunk %d, plane %d, of %d bytes: kind %d, stored in %d", c, k, n, kind, stored)}
			}
			at += int64(stored)
		}
	}
	if at != blocks {
		return &Error{Class: fileerr.ErrSizeMismatch, Detail: "blocks of a compressed tensor", Expected: fmt.Sprintf("%d bytes", at), Actual: fmt.Sprint(blocks)}
	}
	return nil
}

func (d *Decoder) entry(chunk int) []byte {
	n := int(d.l.entryBytes())
	return d.table[chunk*n : (chunk+1)*n]
}

func (d *Decoder) block(chunk, plane int) (kind, stored int) {
	v := binary.LittleEndian.Uint32(d.entry(chunk)[4*plane:])
	return int(v >> lengthBits), int(v & (1<<lengthBits - 1))
}

func readFull(r io.ReaderAt, p []byte, off int64) error {
	n, err := r.ReadAt(p, off)
	if n == len(p) {
		return nil
	}
	if err == io.EOF || err == nil {
		return &Error{Class: fileerr.ErrTruncated, Detail: "compressed", Offset: off + int64(n), Expected: fmt.Sprintf("%d bytes", len(p)), Actual: fmt.Sprint(n)}
	}
	return err
}

// ReadPart gives len(dst) of the original bytes, from off on. Chunks are decoded at once, one for each CPU. After an
// error dst may have any content.
func (d *Decoder) ReadPart(dst []byte, off int64) error {
	if off < 0 || off > d.l.bytes || int64(len(dst)) > d.l.bytes-off {
		return &Error{Class: fileerr.ErrBounds, Detail: "part", Expected: fmt.Sprintf("within %d bytes", d.l.bytes), Actual: fmt.Sprintf("%d bytes from %d", len(dst), off)}
	}
	if len(dst) == 0 {
		return nil
	}
	full := d.l.chunkBytes()
	first, last := off/full, (off+int64(len(dst))-1)/full
	piece := func(c int64) error {
		from, to := max(c*full, off), min((c+1)*full, off+int64(len(dst)))
		return d.read(int(c), dst[from-off:to-off], int(from-c*full))
	}
	if first == last {
		return piece(first)
	}
	var g errgroup.Group
	g.SetLimit(workers(last - first + 1))
	for c := first; c <= last; c++ {
		g.Go(func() error { return piece(c) })
	}
	return g.Wait()
}

// read gives bytes of one chunk.
func (d *Decoder) read(c int, dst []byte, off int) error {
	n := int(min(d.l.chunkBytes(), d.l.bytes-int64(c)*d.l.chunkBytes()))
	w := works.Get().(*work)
	defer works.Put(w)
	if len(dst) == n {
		return d.decode(w, c, dst)
	}
	if d.cache.get(d, c, dst, off) {
		return nil
	}
	w.chunk = sized(w.chunk, n)
	if err := d.decode(w, c, w.chunk); err != nil {
		return err
	}
	copy(dst, w.chunk[off:])
	w.chunk = d.cache.put(d, c, w.chunk)
	return nil
}

// decode makes the elements of a chunk.
func (d *Decoder) decode(w *work, c int, dst []byte) error {
	n := len(dst) / d.l.element
	total := 0
	for k := range d.l.element {
		_, stored := d.block(c, k)
		total += stored
	}
	w.stored, w.planes = sized(w.stored, total), sized(w.planes, len(dst))
	if err := readFull(d.r, w.stored, d.starts[c]); err != nil {
		return err
	}
	rest := w.stored
	for k := range d.l.element {
		kind, stored := d.block(c, k)
		if err := w.decodeBlock(w.planes[k*n:(k+1)*n:(k+1)*n], kind, rest[:stored]); err != nil {
			return &Error{Class: fileerr.ErrChecksum, Detail: fmt.Sprintf("compressed: chunk %d, plane %d", c, k), Err: err}
		}
		rest = rest[stored:]
	}
	join(dst, w.planes, d.l.element)
	if want := binary.LittleEndian.Uint32(d.entry(c)[4*d.l.element:]); crc32.Checksum(dst, castagnoli) != want {
		return &Error{Class: fileerr.ErrChecksum, Detail: fmt.Sprintf("compressed: chunk %d", c), Expected: fmt.Sprintf("CRC-32C %08x", want), Actual: fmt.Sprintf("%08x", crc32.Checksum(dst, castagnoli))}
	}
	return nil
}

func (w *work) decodeBlock(plane []byte, kind int, stored []byte) error {
	switch kind {
	case rawBlock:
		copy(plane, stored)
		return nil
	case constantBlock:
		if bytes.Count(stored, stored[:1]) != len(stored) {
			return fmt.Errorf("several values in a block of one")
		}
		for i := range plane {
			plane[i] = stored[0]
		}
		return nil
	}
	s, streams, err := huff0.ReadTable(stored, &w.decoder)
	if err != nil {
		return err
	}
	out, err := s.Decoder().Decompress4X(plane[:0], streams)
	if err == nil && len(out) != len(plane) {
		err = fmt.Errorf("expected %d bytes, got %d", len(plane), len(out))
	}
	return err
}

// Cache keeps the chunks that were decoded last, for readers of parts of them. It may be shared; nil keeps none.
type Cache struct {
	mu   sync.Mutex
	kept [4]cached
	next int
}

type cached struct {
	of    *Decoder
	chunk int
	bytes []byte
}

func (c *Cache) get(of *Decoder, chunk int, dst []byte, off int) bool {
	if c == nil {
		return false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for i := range c.kept {
		if k := &c.kept[i]; k.of == of && k.chunk == chunk {
			copy(dst, k.bytes[off:])
			return true
		}
	}
	return false
}

// put keeps a chunk in place of the oldest, whose memory it returns.
func (c *Cache) put(of *Decoder, chunk int, bytes []byte) []byte {
	if c == nil {
		return bytes
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	k := &c.kept[c.next]
	c.next = (c.next + 1) % len(c.kept)
	old := k.bytes
	*k = cached{of, chunk, bytes}
	return old
}
