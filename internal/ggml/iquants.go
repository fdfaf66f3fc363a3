package ggml

import (
	"encoding/base64"
	"encoding/binary"
	"math/bits"
	"sync"
)

// The IQ types: 256 values a block, whose groups of 8 or 4 are rows of a table (the grid).

// grid unpacks a table of zz_grids_gen.go on first use.
func grid[R [8]float32 | [4]float32](packed string, levels ...float32) func() []R {
	return sync.OnceValue(func() []R {
		data, err := base64.StdEncoding.DecodeString(packed)
		if err != nil {
			panic(err) // a constant of this package
		}
		var row R
		width := 16 / len(row) // bits a value
		rows := make([]R, 8*len(data)/16)
		for i := range rows {
			code := binary.LittleEndian.Uint16(data[2*i:])
			for j := range len(row) {
				rows[i][j] = levels[code>>(j*width)&(1<<width-1)]
			}
		}
		return rows
	})
}

var (
	rowsIQ2_XXS = grid[[8]float32](gridIQ2_XXS, 8, 25, 43)
	rowsIQ2_XS  = grid[[8]float32](gridIQ2_XS, 8, 25, 43)
	rowsIQ2_S   = grid[[8]float32](gridIQ2_S, 8, 25, 43)
	rowsIQ3_XXS = grid[[4]float32](gridIQ3_XXS, 4, 12, 20, 28, 36, 44, 52, 62)
	rowsIQ3_S   = grid[[4]float32](gridIQ3_S, 1, 3, 5, 7, 9, 11, 13, 15)
	rowsIQ1_S   = grid[[8]float32](gridIQ1_S, -1, 0, 1)
)

// evenSigns completes 7 signs with the one that makes the number of minuses even.
var evenSigns = func() (t [128]byte) {
	for i := range t {
		t[i] = byte(i | bits.OnesCount(uint(i))&1<<7)
	}
	return t
}()

// signed8 writes scale times row, with a minus where signs has a bit.
func signed8(out, row *[8]float32, scale float32, signs byte) {
	scales := [2]float32{scale, -scale}
	for i := range out {
		out[i] = scales[signs>>i&1] * row[i]
	}
}

// signed4 is signed8 of the low four bits.
func signed4(out, row *[4]float32, scale float32, signs byte) {
	scales := [2]float32{scale, -scale}
	for i := range out {
		out[i] = scales[signs>>i&1] * row[i]
	}
}

// IQ2_XXS: for each 32 values 4 rows of the grid, then 4 times 7 signs and a scale in 32 bits.
func dequantizeIQ2_XXS(dst []float32, src []byte) {
	rows := (*[256][8]float32)(rowsIQ2_XXS())
	for ; len(src) >= 66 && len(dst) >= 256; src, dst = src[66:], dst[256:] {
		b, out := (*[66]byte)(src), (*[256]float32)(dst)
		d := f16(b[:])
		for part := range 8 {
			q := (*[8]byte)(b[2+8*part:])
			more := binary.LittleEndian.Uint32(q[4:])
			scale := d * (0.5 + float32(more>>28)) * 0.25
			to := (*[32]float32)(out[32*part:])
			for i := range 4 {
				signed8((*[8]float32)(to[8*i:]), &rows[q[i]], scale, evenSigns[more>>(7*i)&127])
			}
		}
	}
}

// IQ2_XS: for each 8 values 9 bits of row and 7 of signs, then a scale of 4 bits for each 16 values.
func dequantizeIQ2_XS(dst []float32, src []byte) {
	rows := (*[512][8]float32)(rowsIQ2_XS())
	for ; len(src) >= 74 && len(dst) >= 256; src, dst = src[74:], dst[256:] {
		b, out := (*[74]byte)(src), (*[256]float32)(dst)
		d := f16(b[:])
		for part := range 16 {
			scale := d * (0.5 + float32(b[66+part/2]>>(part%2*4)&15)) * 0.25
			to := (*[16]float32)(out[16*part:])
			for i := range 2 {
				q := binary.LittleEndian.Uint16(b[2+4*part+2*i:])
				signed8((*[8]float32)(to[8*i:]), &rows[q&511], scale, evenSigns[q>>9])
			}
		}
	}
}

// IQ2_S: the low 8 bits of 32 rows, 32 times 8 signs, the upper 2 bits of the rows, a scale of 4 bits for each
// 16 values.
func dequantizeIQ2_S(dst []float32, src []byte) {
	rows := (*[1024][8]float32)(rowsIQ2_S())
	for ; len(src) >= 82 && len(dst) >= 256; src, dst = src[82:], dst[256:] {
		b, out := (*[82]byte)(src), (*[256]float32)(dst)
		d := f16(b[:])
		for part := range 16 {
			scale := d * (0.5 + float32(b[74+part/2]>>(part%2*4)&15)) * 0.25
			to := (*[16]float32)(out[16*part:])
			for i := range 2 {
				high := int(b[66+part/2]) >> (part%2*4 + 2*i) & 3
				signed8((*[8]float32)(to[8*i:]), &rows[int(b[2+2*part+i])|high<<8], scale, b[34+2*part+i])
			}
		}
	}
}

// IQ3_XXS: 64 rows, then for each 32 values 4 times 7 signs and a scale in 32 bits.
func dequantizeIQ3_XXS(dst []float32, src []byte) {
	rows := (*[256][4]float32)(rowsIQ3_XXS())
	for ; len(src) >= 98 && len(dst) >= 256; src, dst = src[98:], dst[256:] {
		b, out := (*[98]byte)(src), (*[256]float32)(dst)
		d := f16(b[:])
		for part := range 8 {
			q := (*[8]byte)(b[2+8*part:])
			more := binary.LittleEndian.Uint32(b[66+4*part:])
			scale := d * (0.5 + float32(more>>28)) * 0.5
			to := (*[32]float32)(out[32*part:])
			for i := range 4 {
				signs := evenSigns[more>>(7*i)&127]
				signed4((*[4]float32)(to[8*i:]), &rows[q[2*i]], scale, signs)
				signed4((*[4]float32)(to[8*i+4:]), &rows[q[2*i+1]], scale, signs>>4)
			}
		}
	}
}

// IQ3_S: the low 8 bits of 64 rows, their ninth bits, 32 times 8 signs, a scale of 4 bits for each 32 values.
func dequantizeIQ3_S(dst []float32, src []byte) {
	rows := (*[512][4]float32)(rowsIQ3_S())
	for ; len(src) >= 110 && len(dst) >= 256; src, dst = src[110:], dst[256:] {
		b, out := (*[110]byte)(src), (*[256]float32)(dst)
		d := f16(b[:])
		for part := range 8 {
			q, signs := (*[8]byte)(b[2+8*part:]), (*[4]byte)(b[74+4*part:])
			high := int(b[66+part])
			scale := d * float32(1+2*(b[106+part/2]>>(part%2*4)&15))
			to := (*[32]float32)(out[32*part:])
			for i := range 4 {
				signed4((*[4]float32)(to[8*i:]), &rows[int(q[2*i])|high>>(2*i)&1<<8], scale, signs[i])
				signed4((*[4]float32)(to[8*i+4:]), &rows[int(q[2*i+1])|high>>(2*i+1)&1<<8], scale, signs[i]>>4)
			}
		}
	}
}

// shifted writes scale times the row moved by an eighth up or, where down is not zero, down.
func shifted(out, row *[8]float32, scale float32, down int) {
	delta := float32(0.125)
	if down != 0 {
		delta = -0.125
	}
	for i := range out {
		out[i] = scale * (row[i] + delta)
	}
}

// IQ1_S: the low 8 bits of 32 rows, then for each 32 values 4 times 3 more bits, a scale of 3 bits and one bit
// for all rows' shift.
func dequantizeIQ1_S(dst []float32, src []byte) {
	rows := (*[2048][8]float32)(rowsIQ1_S())
	for ; len(src) >= 50 && len(dst) >= 256; src, dst = src[50:], dst[256:] {
		b, out := (*[50]byte)(src), (*[256]float32)(dst)
		d := f16(b[:])
		for part := range 8 {
			high := int(binary.LittleEndian.Uint16(b[34+2*part:]))
			scale := d * float32(2*(high>>12&7)+1)
			to := (*[32]float32)(out[32*part:])
			for i := range 4 {
				row := &rows[int(b[2+4*part+i])|high>>(3*i)&7<<8]
				shifted((*[8]float32)(to[8*i:]), row, scale, high>>15)
			}
		}
	}
}

// IQ1_M: the low 8 bits of 32 rows, then 3 more and a shift for each; 4 times 4 scales of 3 bits with a quarter
// of the block's half.
func dequantizeIQ1_M(dst []float32, src []byte) {
	rows := (*[2048][8]float32)(rowsIQ1_S())
	for ; len(src) >= 56 && len(dst) >= 256; src, dst = src[56:], dst[256:] {
		b, out := (*[56]byte)(src), (*[256]float32)(dst)
		scales := binary.LittleEndian.Uint64(b[48:])
		d := f16([]byte{b[49]>>4 | b[51]&0xf0, b[53]>>4 | b[55]&0xf0})
		for part := range 16 {
			scale := d * float32(2*(scales>>(part/4*16+part%4*3)&7)+1)
			to := (*[16]float32)(out[16*part:])
			for i := range 2 {
				high := int(b[32+part]) >> (4 * i)
				shifted((*[8]float32)(to[8*i:]), &rows[int(b[2*part+i])|high&7<<8], scale, high&8)
			}
		}
	}
}

// levels4 are IQ4's values.
var levels4 = [16]float32{-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113}

// IQ4_NL: Q4_0 with other values.
func dequantizeIQ4_NL(dst []float32, src []byte) {
	for ; len(src) >= 18 && len(dst) >= 32; src, dst = src[18:], dst[32:] {
		b := (*[18]byte)(src)
		nibbles((*[32]float32)(dst), (*[16]byte)(b[2:]), f16(b[:]), &levels4)
	}
}

// IQ4_XS: scales of 6 bits, first the upper 2 bits of all.
func dequantizeIQ4_XS(dst []float32, src []byte) {
	for ; len(src) >= 136 && len(dst) >= 256; src, dst = src[136:], dst[256:] {
		b, out := (*[136]byte)(src), (*[256]float32)(dst)
		d, high := f16(b[:]), int(binary.LittleEndian.Uint16(b[2:]))
		for part := range 8 {
			scale := int(b[4+part/2])>>(part%2*4)&15 | high>>(2*part)&3<<4
			nibbles((*[32]float32)(out[32*part:]), (*[16]byte)(b[8+16*part:]), d*float32(scale-32), &levels4)
		}
	}
}
