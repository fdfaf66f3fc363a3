package ggml

import (
	"encoding/binary"

	"github.com/torchgo/torchgo/internal/half"
)

// The types with one scale for 32 values, and some with a minimum. The low nibbles of 16 bytes are the
// first half of a block, the high ones the second.
//
// In all of the package the products of decoding are exact: a half has 11 significant bits, the integers that it is
// multiplied with have at most 11 in all. So it doesn't matter whether the compiler fuses a product and a sum, or which of
// two factors comes first.

// f16 is the half at the start of b.
func f16(b []byte) float32 { return half.Float16(binary.LittleEndian.Uint16(b)).Float32() }

// whole and centered are the values of 4 bits, which a table gives sooner than the processor converts them.
var (
	whole    = [16]float32{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15}
	centered = [16]float32{-8, -7, -6, -5, -4, -3, -2, -1, 0, 1, 2, 3, 4, 5, 6, 7}
)

// nibbles writes scale times the levels that the low nibbles choose, then those of the high ones.
func nibbles(out *[32]float32, q *[16]byte, scale float32, levels *[16]float32) {
	for i, q := range q {
		out[i] = scale * levels[q&15]
		out[i+16] = scale * levels[q>>4]
	}
}

func dequantizeQ4_0(dst []float32, src []byte) {
	for ; len(src) >= 18 && len(dst) >= 32; src, dst = src[18:], dst[32:] {
		b := (*[18]byte)(src)
		nibbles((*[32]float32)(dst), (*[16]byte)(b[2:]), f16(b[:]), &centered)
	}
}

func dequantizeQ4_1(dst []float32, src []byte) {
	for ; len(src) >= 20 && len(dst) >= 32; src, dst = src[20:], dst[32:] {
		b, out := (*[20]byte)(src), (*[32]float32)(dst)
		d, m := f16(b[:]), f16(b[2:])
		for i := range 16 {
			q := b[4+i]
			out[i] = d*whole[q&15] + m
			out[i+16] = d*whole[q>>4] + m
		}
	}
}

func dequantizeQ5_0(dst []float32, src []byte) {
	for ; len(src) >= 22 && len(dst) >= 32; src, dst = src[22:], dst[32:] {
		b, out := (*[22]byte)(src), (*[32]float32)(dst)
		d, high := f16(b[:]), binary.LittleEndian.Uint32(b[2:])
		for i := range 16 {
			q := uint32(b[6+i])
			out[i] = d * float32(int(q&15|high>>i&1<<4)-16)
			out[i+16] = d * float32(int(q>>4|high>>(i+16)&1<<4)-16)
		}
	}
}

func dequantizeQ5_1(dst []float32, src []byte) {
	for ; len(src) >= 24 && len(dst) >= 32; src, dst = src[24:], dst[32:] {
		b, out := (*[24]byte)(src), (*[32]float32)(dst)
		d, m, high := f16(b[:]), f16(b[2:]), binary.LittleEndian.Uint32(b[4:])
		for i := range 16 {
			q := uint32(b[8+i])
			out[i] = d*float32(q&15|high>>i&1<<4) + m
			out[i+16] = d*float32(q>>4|high>>(i+16)&1<<4) + m
		}
	}
}

func dequantizeQ8_0(dst []float32, src []byte) {
	for ; len(src) >= 34 && len(dst) >= 32; src, dst = src[34:], dst[32:] {
		b, out := (*[34]byte)(src), (*[32]float32)(dst)
		d := f16(b[:])
		for i := range out {
			out[i] = float32(int8(b[2+i])) * d
		}
	}
}
