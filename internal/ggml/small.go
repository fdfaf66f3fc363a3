package ggml

import "math"

// The ternary types and the 4-bit floats.

// powers3 shift a byte that holds five ternary digits, as a fraction of 243 in units of 1/256.
var powers3 = [5]byte{1, 3, 9, 27, 81}

// TQ1_0: the first 160 values in 32 bytes, 80 in 16, 16 in 4, in each of which a digit makes so many values.
func dequantizeTQ1_0(dst []float32, src []byte) {
	for ; len(src) >= 54 && len(dst) >= 256; src, dst = src[54:], dst[256:] {
		b, out := (*[54]byte)(src), (*[256]float32)(dst)
		d := f16(b[52:])
		for k, power := range powers3 {
			to := (*[32]float32)(out[32*k:])
			for i, q := range (*[32]byte)(b[:]) {
				to[i] = ternary(q*power, d)
			}
		}
		for k, power := range powers3 {
			to := (*[16]float32)(out[160+16*k:])
			for i, q := range (*[16]byte)(b[32:]) {
				to[i] = ternary(q*power, d)
			}
		}
		for k, power := range powers3[:4] {
			to := (*[4]float32)(out[240+4*k:])
			for i, q := range (*[4]byte)(b[48:]) {
				to[i] = ternary(q*power, d)
			}
		}
	}
}

// ternary is the first digit of q, less one, times d.
func ternary(q byte, d float32) float32 { return d * float32(int(q)*3>>8-1) }

// TQ2_0: 32 bytes for each half, of four values that are 32 apart.
func dequantizeTQ2_0(dst []float32, src []byte) {
	for ; len(src) >= 66 && len(dst) >= 256; src, dst = src[66:], dst[256:] {
		b, out := (*[66]byte)(src), (*[256]float32)(dst)
		d := f16(b[64:])
		for n := range 2 {
			to := (*[128]float32)(out[128*n:])
			for i, q := range (*[32]byte)(b[32*n:]) {
				to[i] = d * float32(int(q&3)-1)
				to[i+32] = d * float32(int(q>>2&3)-1)
				to[i+64] = d * float32(int(q>>4&3)-1)
				to[i+96] = d * float32(int(q>>6)-1)
			}
		}
	}
}

// e2m1 are the values of 4-bit floats, twice; the second zero has no sign here.
var e2m1 = [16]float32{0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12}

// MXFP4: a power of two as the scale; no code is NaN.
func dequantizeMXFP4(dst []float32, src []byte) {
	for ; len(src) >= 17 && len(dst) >= 32; src, dst = src[17:], dst[32:] {
		b := (*[17]byte)(src)
		nibbles((*[32]float32)(dst), (*[16]byte)(b[1:]), halfE8M0(b[0]), &e2m1)
	}
}

// halfE8M0 is half of 2^(e-127).
func halfE8M0(e byte) float32 {
	if e < 2 { // a subnormal
		return math.Float32frombits(0x00200000 << e)
	}
	return math.Float32frombits(uint32(e-1) << 23)
}

// NVFP4: 4 scales, then 8 bytes for each 16 values.
func dequantizeNVFP4(dst []float32, src []byte) {
	for ; len(src) >= 36 && len(dst) >= 64; src, dst = src[36:], dst[64:] {
		b, out := (*[36]byte)(src), (*[64]float32)(dst)
		for part := range 4 {
			scale := halfE4M3[b[part]]
			to := (*[16]float32)(out[16*part:])
			for i, q := range (*[8]byte)(b[4+8*part:]) {
				to[i] = scale * e2m1[q&15]
				to[i+8] = scale * e2m1[q>>4]
			}
		}
	}
}

// halfE4M3 are the halves of 8-bit floats with 4 bits of exponent, whose sign does not count; 0x7f, the
// positive NaN, is zero here.
var halfE4M3 = func() (t [256]float32) {
	for i := range t {
		exponent, fraction := i>>3&15, float64(i&7)
		if exponent == 0 {
			t[i] = float32(math.Ldexp(fraction, -10))
		} else {
			t[i] = float32(math.Ldexp(8+fraction, exponent-11))
		}
	}
	t[0x7f] = 0
	return t
}()
