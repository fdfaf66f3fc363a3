package ggml

import (
	"encoding/binary"
	"math"
)

// The float types without blocks.

// They go eight at a time, in arrays whose bounds the compiler knows.

func dequantizeF32(dst []float32, src []byte) {
	for ; len(src) >= 32 && len(dst) >= 8; src, dst = src[32:], dst[8:] {
		b, out := (*[32]byte)(src), (*[8]float32)(dst)
		for i := range out {
			out[i] = math.Float32frombits(binary.LittleEndian.Uint32(b[4*i : 4*i+4]))
		}
	}
	for i := range dst {
		dst[i] = math.Float32frombits(binary.LittleEndian.Uint32(src[4*i:]))
	}
}

func dequantizeF16(dst []float32, src []byte) {
	for ; len(src) >= 16 && len(dst) >= 8; src, dst = src[16:], dst[8:] {
		b, out := (*[16]byte)(src), (*[8]float32)(dst)
		for i := range out {
			out[i] = f16(b[2*i : 2*i+2])
		}
	}
	for i := range dst {
		dst[i] = f16(src[2*i:])
	}
}

func dequantizeBF16(dst []float32, src []byte) {
	for ; len(src) >= 16 && len(dst) >= 8; src, dst = src[16:], dst[8:] {
		b, out := (*[16]byte)(src), (*[8]float32)(dst)
		for i := range out {
			out[i] = math.Float32frombits(uint32(binary.LittleEndian.Uint16(b[2*i:2*i+2])) << 16)
		}
	}
	for i := range dst {
		dst[i] = math.Float32frombits(uint32(binary.LittleEndian.Uint16(src[2*i:])) << 16)
	}
}

func quantizeF32(dst []byte, src []float32) {
	for i, x := range src {
		binary.LittleEndian.PutUint32(dst[4*i:], math.Float32bits(x))
	}
}
