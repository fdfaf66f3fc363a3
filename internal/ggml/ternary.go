package ggml

// The ternary types: 256 values of -1, 0 and 1 and one half a block.

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
