// Package half converts between float32 and the two 16-bit floating-point formats, rounding to
// nearest, ties to even, as IEEE 754 and libtorch do.
package half

import "math"

// Float16 is an IEEE 754 binary16 number: 1 sign, 5 exponent, 10 fraction bits.
type Float16 uint16

// BFloat16 is the upper half of a binary32 number: 1 sign, 8 exponent, 7 fraction bits.
type BFloat16 uint16

// ToBFloat16 rounds f.
func ToBFloat16(f float32) BFloat16 {
	bits := math.Float32bits(f)
	if f != f {
		return 0x7fc0 // libtorch's one NaN
	}
	return BFloat16((bits + 0x7fff + bits>>16&1) >> 16)
}

// Float32 is exact.
func (b BFloat16) Float32() float32 { return math.Float32frombits(uint32(b) << 16) }

// ToFloat16 rounds f; what is too large becomes infinite.
func ToFloat16(f float32) Float16 {
	bits := math.Float32bits(f)
	sign := Float16(bits >> 16 & 0x8000)
	abs := bits & 0x7fffffff
	switch {
	case abs > 0x7f800000:
		return sign | 0x7e00
	case abs >= 0x47800000: // 65536 and more
		return sign | 0x7c00
	case abs < 0x38800000: // below 2^-14: a subnormal, in units of 2^-24
		// Adding 0.5 puts the unit of 2^-24 at float32's last bit, so the sum is the rounded result.
		sum := math.Float32frombits(abs) + 0.5
		return sign | Float16(math.Float32bits(sum)-math.Float32bits(0.5))
	}
	abs += 0xfff + abs>>13&1
	return sign | Float16(abs>>13-(127-15)<<10)
}

// Float32 is exact.
func (h Float16) Float32() float32 {
	sign, abs := uint32(h&0x8000)<<16, uint32(h&0x7fff)
	switch {
	case abs >= 0x7c00: // infinite or NaN
		abs += 0x7f800000>>13 - 0x7c00
	case abs < 0x400: // subnormal
		return math.Float32frombits(sign | math.Float32bits(float32(abs)*0x1p-24))
	default:
		abs += (127 - 15) << 10
	}
	return math.Float32frombits(sign | abs<<13)
}
