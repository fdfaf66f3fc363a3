package ggml

import (
	"encoding/binary"
	"math"
	"testing"

	"github.com/stretchr/testify/require"
)

var special = []float32{0, 1e-45, float32(math.Copysign(0, -1)), -1e-45, 1e-44, 3e-39, -6e-39, 2e-38, 1e-8, 6e-8, 0.5, 1, -1, 2.5,
	65504, 65520, -1e6, 1e38, 3.4e38, -3.4e38}

// floats are tools/ggmlref's.
func floats(t Type) [][]float32 {
	name, block := t.String(), t.BlockLen()
	n := 512 * block
	kinds := make([][]float32, 8)
	for k := range kinds {
		kinds[k] = make([]float32, n)
	}
	steps, ok := map[Type]int{Q4_0: -8, Q4_1: 15, Q5_0: -16, Q5_1: 31, Q8_0: 127}[t]
	if !ok {
		steps = 8
	}
	near := stream(name+" near", n)
	bits, ints, small, random := stream(name+" bits", 4*n), stream(name+" int16", 2*n), stream(name+" int8", n), stream(name+" special", n)
	for i := range n {
		b := i / block
		kinds[0][i] = math.Float32frombits(binary.LittleEndian.Uint32(bits[4*i:]))
		kinds[1][i] = float32(math.Ldexp(float64(int16(binary.LittleEndian.Uint16(ints[2*i:]))), b%64-40))
		kinds[2][i] = float32(int8(small[i])>>3) / 2
		width := []int{1, 2, len(special)}[b%3]
		kinds[3][i] = special[(int(random[i])%width+b)%len(special)]
		for k, worst := range []float64{math.Inf(1), math.Inf(-1), math.NaN()} {
			kinds[4+k][i] = kinds[3][i]
			if random[i] > 250 {
				kinds[4+k][i] = float32(worst)
			}
		}
		k, greatest := i%block, 1+float64(near[b*block])/256
		switch {
		case i%block == 0:
			kinds[7][i] = float32(greatest)
			continue
		case i%block == 1:
			continue
		case steps < 0:
			k = k%(-2*steps-1) + steps + 1
		default:
			k %= steps
		}
		kinds[7][i] = float32((float64(k) + 0.5 + (float64(near[i]%17)-8)/(1<<22)) * greatest / float64(steps))
	}
	return kinds
}

func TestQuantize(t *testing.T) {
	want := readVectors(t).Quantize
	halves := map[Type]int{Q4_0: 1, Q4_1: 2, Q5_0: 1, Q5_1: 2, Q8_0: 1} // with which a block begins
	for _, typ := range Types() {
		t.Run(typ.String(), func(t *testing.T) {
			rows, known := want[typ.String()]
			require.Equal(t, known, typ.CanQuantize())
			if !known {
				require.EqualError(t, Quantize(typ, nil, nil), "nothing quantizes to "+typ.String())
				return
			}
			for kind, src := range floats(typ) {
				require.Equal(t, rows[kind][0], digest(floatBytes(src)), "the test's input %d is not gguf's", kind)
				dst := make([]byte, len(src)/typ.BlockLen()*typ.BlockBytes())
				require.NoError(t, Quantize(typ, dst, src))
				for block := dst; len(block) > 0; block = block[typ.BlockBytes():] {
					for i := range halves[typ] {
						if binary.LittleEndian.Uint16(block[2*i:])&0x7fff > 0x7c00 {
							binary.LittleEndian.PutUint16(block[2*i:], 0x7e00)
						}
					}
				}
				require.Equal(t, rows[kind][1], digest(dst), "input %d", kind)
				require.Zero(t, testing.AllocsPerRun(1, func() { _ = Quantize(typ, dst, src) }))
			}
			require.Error(t, Quantize(typ, make([]byte, typ.BlockBytes()), make([]float32, typ.BlockLen()+1)))
			require.Error(t, Quantize(typ, make([]byte, typ.BlockBytes()+1), make([]float32, typ.BlockLen())))
		})
	}
}

// BenchmarkQuantize counts bytes of float32.
func BenchmarkQuantize(b *testing.B) {
	for _, typ := range Types() {
		if !typ.CanQuantize() {
			continue
		}
		b.Run(typ.String(), func(b *testing.B) {
			src := make([]float32, 1<<18)
			for i, c := range stream("", len(src)) {
				src[i] = float32(int8(c))
			}
			dst := make([]byte, len(src)/typ.BlockLen()*typ.BlockBytes())
			b.SetBytes(int64(4 * len(src)))
			for b.Loop() {
				_ = Quantize(typ, dst, src)
			}
		})
	}
}
