package ggml

import "math"

// The blocks of 4-bit floats with an 8-bit float as scale.

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
