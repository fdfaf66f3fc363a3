package ggml

import (
	"encoding/binary"
	"math"

	"github.com/torchgo/torchgo/internal/half"
)

// Coding floats, with the steps of gguf and their roundings. A product that a sum follows is written float32(a*b): that
// rounds it, where the compiler could otherwise fuse the two, which gguf does not do.

// putF16 stores x as a half. A NaN keeps the upper bits of its payload, as in numpy.
func putF16(b []byte, x float32) {
	h := half.ToFloat16(x)
	if x != x {
		h = h&0xfc00 | max(1, half.Float16(math.Float32bits(x)>>13&0x3ff))
	}
	binary.LittleEndian.PutUint16(b, uint16(h))
}

// inverse is 1/d, or 0 where d is zero.
func inverse(d float32) float32 {
	if d == 0 {
		return 0
	}
	return 1 / d
}

// toByte is the low byte of x without its fraction; NaN and what no int32 holds give 0, as in numpy on amd64.
func toByte(x float32) byte {
	if x > -0x1p31 && x < 0x1p31 {
		return byte(int32(x))
	}
	return 0
}

// furthest is the first of the values furthest from zero, or the first NaN.
func furthest(values []float32) float32 {
	best := values[0]
	for _, x := range values {
		if x != x {
			return x
		}
		if abs(x) > abs(best) {
			best = x
		}
	}
	return best
}

func abs(x float32) float32 { return math.Float32frombits(math.Float32bits(x) &^ (1 << 31)) }

var nan = float32(math.NaN())

// extremes are the least and the greatest value, or NaN if there is one. Of zeros the first counts; which one numpy
// takes depends on the processor, as does its NaN.
func extremes(values []float32) (least, greatest float32) {
	least, greatest = values[0], values[0]
	for _, x := range values {
		switch {
		case x != x:
			return nan, nan
		case x < least:
			least = x
		case x > greatest:
			greatest = x
		}
	}
	return least, greatest
}

func quantizeF16(dst []byte, src []float32) {
	for i, x := range src {
		putF16(dst[2*i:], x)
	}
}

func quantizeBF16(dst []byte, src []float32) {
	for i, x := range src {
		h := half.ToBFloat16(x)
		if x != x {
			h = half.BFloat16(math.Float32bits(x)>>16 | 0x40)
		}
		binary.LittleEndian.PutUint16(dst[2*i:], uint16(h))
	}
}

// symmetric codes 32 values as multiples of d, which puts the furthest at -zero: 0 to 2*zero-1.
func symmetric(q *[32]byte, src *[32]float32, zero float32) (d float32) {
	d = furthest(src[:]) / -zero
	id := inverse(d)
	for i, x := range src {
		q[i] = min(toByte(float32(x*id)+(zero+0.5)), byte(2*zero-1))
	}
	return d
}

// affine codes 32 values as multiples of d above the least: 0 to top.
func affine(q *[32]byte, src *[32]float32, top float32) (d, least float32) {
	least, greatest := extremes(src[:])
	d = (greatest - least) / top
	id := inverse(d)
	for i, x := range src {
		q[i] = min(toByte(float32((x-least)*id)+0.5), byte(top))
	}
	return d, least
}

// putNibbles is what nibbles reads.
func putNibbles(b *[16]byte, q *[32]byte) {
	for i := range b {
		b[i] = q[i]&15 | q[i+16]<<4
	}
}

// fifthBits has bit i where value i has its fifth bit.
func fifthBits(q *[32]byte) (high uint32) {
	for i, q := range q {
		high |= uint32(q>>4) << i
	}
	return high
}

func quantizeQ4_0(dst []byte, src []float32) {
	var q [32]byte
	for ; len(src) >= 32 && len(dst) >= 18; src, dst = src[32:], dst[18:] {
		putF16(dst, symmetric(&q, (*[32]float32)(src), 8))
		putNibbles((*[16]byte)(dst[2:]), &q)
	}
}

func quantizeQ4_1(dst []byte, src []float32) {
	var q [32]byte
	for ; len(src) >= 32 && len(dst) >= 20; src, dst = src[32:], dst[20:] {
		d, least := affine(&q, (*[32]float32)(src), 15)
		putF16(dst, d)
		putF16(dst[2:], least)
		putNibbles((*[16]byte)(dst[4:]), &q)
	}
}

func quantizeQ5_0(dst []byte, src []float32) {
	var q [32]byte
	for ; len(src) >= 32 && len(dst) >= 22; src, dst = src[32:], dst[22:] {
		putF16(dst, symmetric(&q, (*[32]float32)(src), 16))
		binary.LittleEndian.PutUint32(dst[2:], fifthBits(&q))
		putNibbles((*[16]byte)(dst[6:]), &q)
	}
}

func quantizeQ5_1(dst []byte, src []float32) {
	var q [32]byte
	for ; len(src) >= 32 && len(dst) >= 24; src, dst = src[32:], dst[24:] {
		d, least := affine(&q, (*[32]float32)(src), 31)
		putF16(dst, d)
		putF16(dst[2:], least)
		binary.LittleEndian.PutUint32(dst[4:], fifthBits(&q))
		putNibbles((*[16]byte)(dst[8:]), &q)
	}
}

func quantizeQ8_0(dst []byte, src []float32) {
	for ; len(src) >= 32 && len(dst) >= 34; src, dst = src[32:], dst[34:] {
		least, greatest := extremes(src[:32])
		d := max(abs(least), abs(greatest)) / 127
		id := inverse(d)
		putF16(dst, d)
		for i, x := range src[:32] {
			dst[2+i] = toByte(roundAway(x * id))
		}
	}
}

// roundAway rounds to the nearest integer, ties away from zero.
func roundAway(x float32) float32 {
	floor := float32(math.Floor(float64(abs(x))))
	rounded := floor + float32(math.Floor(float64(2*(abs(x)-floor))))
	return float32(math.Copysign(float64(rounded), float64(x)))
}
