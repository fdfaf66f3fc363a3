package ggml

// The K types: 256 values a block, with one half for the whole of it and small integers that scale the
// 16 or 32 values of each part.

// Q2_K: 16 scales with minima, then 64 bytes of four values, 32 apart in each half of the block.
func dequantizeQ2_K(dst []float32, src []byte) {
	for ; len(src) >= 84 && len(dst) >= 256; src, dst = src[84:], dst[256:] {
		b, out := (*[84]byte)(src), (*[256]float32)(dst)
		d, dmin := f16(b[80:]), f16(b[82:])
		for part := range 16 {
			scale := d * float32(b[part]&15)
			minimum := dmin * float32(b[part]>>4)
			q := (*[16]byte)(b[16+part/8*32+part%2*16:])
			shift := part / 2 % 4 * 2
			to := (*[16]float32)(out[16*part:])
			for i := range to {
				to[i] = scale*float32(q[i]>>shift&3) - minimum
			}
		}
	}
}

// Q3_K: 32 bytes with the third bit of the values, 64 with the lower two, 16 scales of 6 bits.
func dequantizeQ3_K(dst []float32, src []byte) {
	for ; len(src) >= 110 && len(dst) >= 256; src, dst = src[110:], dst[256:] {
		b, out := (*[110]byte)(src), (*[256]float32)(dst)
		d := f16(b[108:])
		for part := range 16 {
			low := b[96+part%8] >> (part / 8 * 4) & 15
			high := b[104+part%4] >> (part / 4 * 2) & 3
			scale := d * float32(int(low|high<<4)-32)
			h := (*[16]byte)(b[part%2*16:])
			q := (*[16]byte)(b[32+part/8*32+part%2*16:])
			bit, shift := part/2, part/2%4*2
			to := (*[16]float32)(out[16*part:])
			for i := range to {
				to[i] = scale * float32(int(q[i]>>shift&3|h[i]>>bit&1<<2)-4)
			}
		}
	}
}

// scaleMin is the scale and the minimum of part i of 8, of the 12 bytes that Q4_K and Q5_K keep them in.
func scaleMin(b *[12]byte, i int) (scale, minimum float32) {
	if i < 4 {
		return float32(b[i] & 63), float32(b[i+4] & 63)
	}
	return float32(b[i+4]&15 | b[i-4]>>6<<4), float32(b[i+4]>>4 | b[i]>>6<<4)
}

// Q4_K: the low nibbles of 32 bytes are one part, the high ones the next.
func dequantizeQ4_K(dst []float32, src []byte) {
	for ; len(src) >= 144 && len(dst) >= 256; src, dst = src[144:], dst[256:] {
		b, out := (*[144]byte)(src), (*[256]float32)(dst)
		d, dmin := f16(b[:]), f16(b[2:])
		for pair := range 4 {
			s0, m0 := scaleMin((*[12]byte)(b[4:]), 2*pair)
			s1, m1 := scaleMin((*[12]byte)(b[4:]), 2*pair+1)
			s0, m0, s1, m1 = d*s0, dmin*m0, d*s1, dmin*m1
			q := (*[32]byte)(b[16+32*pair:])
			to := (*[64]float32)(out[64*pair:])
			for i, q := range q {
				to[i] = s0*whole[q&15] - m0
				to[i+32] = s1*whole[q>>4] - m1
			}
		}
	}
}

// Q5_K: Q4_K with 32 bytes of fifth bits, one bit of each byte for each part.
func dequantizeQ5_K(dst []float32, src []byte) {
	for ; len(src) >= 176 && len(dst) >= 256; src, dst = src[176:], dst[256:] {
		b, out := (*[176]byte)(src), (*[256]float32)(dst)
		d, dmin := f16(b[:]), f16(b[2:])
		high := (*[32]byte)(b[16:])
		for pair := range 4 {
			s0, m0 := scaleMin((*[12]byte)(b[4:]), 2*pair)
			s1, m1 := scaleMin((*[12]byte)(b[4:]), 2*pair+1)
			s0, m0, s1, m1 = d*s0, dmin*m0, d*s1, dmin*m1
			q := (*[32]byte)(b[48+32*pair:])
			to := (*[64]float32)(out[64*pair:])
			for i, q := range q {
				h := high[i] >> (2 * pair)
				to[i] = s0*float32(q&15|h&1<<4) - m0
				to[i+32] = s1*float32(q>>4|h&2<<3) - m1
			}
		}
	}
}

// Q6_K: in each half of the block the low nibbles of 64 bytes, then their high ones, with two more bits from
// 32 bytes for each 32 values; a signed scale for 16 values.
func dequantizeQ6_K(dst []float32, src []byte) {
	for ; len(src) >= 210 && len(dst) >= 256; src, dst = src[210:], dst[256:] {
		b, out := (*[210]byte)(src), (*[256]float32)(dst)
		d := f16(b[208:])
		for n := range 2 {
			low := (*[64]byte)(b[64*n:])
			high := (*[32]byte)(b[128+32*n:])
			scales := (*[8]byte)(b[192+8*n:])
			to := (*[128]float32)(out[128*n:])
			for k := range 2 { // 16 values of each 32
				s0, s1 := d*float32(int8(scales[k])), d*float32(int8(scales[2+k]))
				s2, s3 := d*float32(int8(scales[4+k])), d*float32(int8(scales[6+k]))
				low0, low1 := (*[16]byte)(low[16*k:]), (*[16]byte)(low[32+16*k:])
				high := (*[16]byte)(high[16*k:])
				to := (*[112]float32)(to[16*k:])
				for i, h := range high {
					to[i] = s0 * float32(int(low0[i]&15|h&3<<4)-32)
					to[i+32] = s1 * float32(int(low1[i]&15|h&12<<2)-32)
					to[i+64] = s2 * float32(int(low0[i]>>4|h&48)-32)
					to[i+96] = s3 * float32(int(low1[i]>>4|h&192>>2)-32)
				}
			}
		}
	}
}
