package gguf

import (
	"encoding/binary"
	"fmt"
	"math"
	"unicode/utf8"

	"github.com/torchgo/torchgo/internal/weights"
)

const redownload = "download the file again"

// cursor reads a file front to back, never beyond its size at Open nor beyond end, and takes no more memory than the file
// has bytes for it. The first error stays: what is read after it is zero.
type cursor struct {
	f      *weights.File
	off    int64  // of the next byte
	end    int64  // no byte from here on is read
	class  error  // of the error if it would be
	window []byte // reused
	buf    []byte // bytes of the file from off on
	err    error
}

const windowBytes = 64 << 10

func (c *cursor) fail(e *Error) {
	if c.err == nil {
		c.err = e
	}
}

// has reports whether n more bytes may be read.
func (c *cursor) has(n int64) bool {
	switch {
	case c.err != nil:
	case n > c.end-c.off:
		c.fail(&Error{Class: c.class, Offset: c.off, Expected: fmt.Sprintf("at most %d bytes", c.end), Actual: fmt.Sprint(uint64(c.off) + uint64(n))})
	case n > c.f.Size()-c.off:
		c.fail(&Error{Class: ErrTruncated, Offset: c.off, Detail: "header cut", Expected: fmt.Sprintf("at least %d bytes", uint64(c.off)+uint64(n)),
			Actual: fmt.Sprint(c.f.Size()), Remedy: redownload})
	}
	return c.err == nil
}

// peek gives the next n bytes, which are valid until the next call; nil after an error.
func (c *cursor) peek(n int64) []byte {
	if !c.has(n) {
		return nil
	}
	if int64(len(c.buf)) < n {
		size := min(max(n, windowBytes), c.f.Size()-c.off, c.end-c.off)
		if int64(cap(c.window)) < size {
			c.window = make([]byte, size)
		}
		c.buf = c.window[:size]
		if err := c.f.ReadFull(c.buf, c.off); err != nil {
			c.buf, c.err = nil, err
			return nil
		}
	}
	return c.buf[:n]
}

// take is peek, and goes on behind them.
func (c *cursor) take(n int64) []byte {
	p := c.peek(n)
	if p != nil {
		c.buf, c.off = c.buf[n:], c.off+n
	}
	return p
}

// skip goes n bytes on.
func (c *cursor) skip(n int64) {
	if c.has(n) {
		c.buf, c.off = c.buf[min(n, int64(len(c.buf))):], c.off+n
	}
}

func (c *cursor) u32() uint32 {
	if p := c.take(4); p != nil {
		return binary.LittleEndian.Uint32(p)
	}
	return 0
}

func (c *cursor) u64() uint64 {
	if p := c.take(8); p != nil {
		return binary.LittleEndian.Uint64(p)
	}
	return 0
}

// length reads the length of what, in units of so many bytes at least.
func (c *cursor) length(what string, limit, unit uint64) int64 {
	at := c.off
	n := c.u64()
	if limit = min(limit, MaxHeaderBytes/unit); n > limit {
		c.fail(&Error{Class: ErrLimit, Offset: at, Detail: what, Expected: fmt.Sprintf("at most %d", limit), Actual: fmt.Sprint(n)})
	}
	if c.err != nil {
		return 0
	}
	c.has(int64(n * unit)) // says that the file is cut before what the length stands for is walked through
	return int64(n)
}

// text reads a string of UTF-8.
func (c *cursor) text(what string, limit uint64) string {
	n := c.length("length of "+what, limit, 1)
	at := c.off
	p := c.take(n)
	if !utf8.Valid(p) {
		c.fail(&Error{Class: ErrBadHeader, Offset: at, Detail: fmt.Sprintf("%s is not UTF-8: %.40q", what, p)})
		return ""
	}
	return string(p)
}

const unlimited = math.MaxUint64
