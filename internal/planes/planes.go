// Package planes compresses the elements of tensors without loss: the n-th bytes of all elements go into a plane of
// their own, and each plane is Huffman-coded in blocks. The exponents of weights are few and so get short codes; their
// mantissas are noise, which is stored as it is.
//
// A frame is one tensor. It is written front to back and read from any place:
//
//	blocks  chunk by chunk, of a chunk plane by plane
//	table   per chunk: for each plane a uint32, its block's kind in bits 30 and 31 and its stored length below; then
//	        the CRC-32C of the chunk's original bytes
//	foot    "tgp1", the bytes in an element (uint8), three zeros, the original length (uint64),
//	        the CRC-32C of the table and of the foot so far
//
// Numbers are little-endian. A chunk has BlockElements elements, the last one the rest.
//
// What a frame becomes is at most 1000 times as large as it is.
package planes

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"math"
	"runtime"
	"sync"

	"github.com/klauspost/compress/huff0"
	"github.com/torchgo/torchgo/internal/fileerr"
)

// Error says what is wrong with a frame.
type Error = fileerr.Error

const (
	// BlockElements is the number of elements in a chunk, and so of bytes in a block.
	BlockElements = 128 << 10

	// MaxElement is the largest number of bytes in an element.
	MaxElement = 8

	magic     = "tgp1"
	footBytes = 20
	maxGrowth = 1000 // of a frame when it is read

	minHuffman   = 1024 // bytes of a block from which on coding is worth its table
	constBytes   = 160  // stored of a block of one value; what bounds how much a frame can grow
	lengthBits   = 30
	savesAtLeast = 6 // a coded block is shorter by a 64th, or it is not worth its decoding
)

// Kinds of blocks.
const (
	rawBlock      = iota // as it is
	constantBlock        // one value, constBytes times
	huffmanBlock         // huff0's table and four streams
	kinds
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// layout is how the bytes of a tensor fall into chunks.
type layout struct {
	element int
	bytes   int64
}

func (l layout) chunkBytes() int64 { return int64(l.element) * BlockElements }

func (l layout) chunks() int64 { return l.bytes/l.chunkBytes() + min(1, l.bytes%l.chunkBytes()) }

func (l layout) entryBytes() int64 { return 4 * int64(l.element+1) }

// tailBytes are those of table and foot. There is no overflow: an entry is smaller than its chunk.
func (l layout) tailBytes() int64 { return l.chunks()*l.entryBytes() + footBytes }

func (l layout) check() error {
	if l.element < 1 || l.element > MaxElement {
		return &Error{Class: fileerr.ErrBadHeader, Detail: "bytes in an element", Expected: fmt.Sprintf("1 to %d", MaxElement), Actual: fmt.Sprint(l.element)}
	}
	if l.bytes < 0 || l.bytes%int64(l.element) != 0 {
		return &Error{Class: fileerr.ErrSizeMismatch, Detail: "length", Expected: fmt.Sprintf("a multiple of %d", l.element), Actual: fmt.Sprint(l.bytes)}
	}
	return nil
}

// MaxFrameBytes is the most that a frame of so many bytes can need.
func MaxFrameBytes(element int, bytes int64) int64 {
	l := layout{element, bytes}
	if bytes > math.MaxInt64-l.tailBytes() {
		return math.MaxInt64
	}
	return bytes + l.tailBytes()
}

// work is what one goroutine needs to code or decode a chunk. It is used again.
type work struct {
	coder, decoder huff0.Scratch
	planes         []byte // of one chunk
	stored         []byte // its blocks
	chunk          []byte // its elements, where only part of them is wanted
	entry          []byte // of the table
}

var works = sync.Pool{New: func() any {
	return &work{coder: huff0.Scratch{Reuse: huff0.ReusePolicyNone, WantLogLess: savesAtLeast}}
}}

// sized is p with n bytes, made anew if it is too small.
func sized(p []byte, n int) []byte {
	if cap(p) < n {
		return make([]byte, n)
	}
	return p[:n]
}

// workers is how many chunks are worked on at once.
func workers(chunks int64) int { return int(min(chunks, int64(runtime.GOMAXPROCS(0)))) }

func putFoot(dst []byte, l layout, table uint32) []byte {
	start := len(dst)
	dst = append(dst, magic...)
	dst = append(dst, byte(l.element), 0, 0, 0)
	dst = binary.LittleEndian.AppendUint64(dst, uint64(l.bytes))
	return binary.LittleEndian.AppendUint32(dst, crc32.Update(table, castagnoli, dst[start:]))
}
