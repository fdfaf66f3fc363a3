package ggml

import (
	"bytes"
	"testing"

	"github.com/stretchr/testify/require"
)

// inputs are tools/ggmlref's blocks().
func inputs(t Type) [][]byte {
	size := t.BlockBytes()
	var ones, halves []byte
	for b := range 256 {
		ones = append(ones, bytes.Repeat([]byte{byte(b)}, size)...)
	}
	for _, h := range []uint16{0x0000, 0x8000, 0x0001, 0x8001, 0x03ff, 0x0400, 0x7bff, 0xfbff, 0x7c00, 0xfc00, 0x7c01, 0x7e00, 0xfe00, 0xffff, 0x3c00, 0xbc00} {
		pattern := bytes.Repeat([]byte{byte(h), byte(h >> 8)}, size)
		halves = append(halves, pattern[:size]...)
		halves = append(halves, pattern[1:size+1]...)
	}
	return [][]byte{stream(t.String(), 1024*size), ones, halves}
}

func TestDequantize(t *testing.T) {
	want := readVectors(t).Dequantize
	for _, typ := range Types() {
		t.Run(typ.String(), func(t *testing.T) {
			rows := want[typ.String()]
			if !typ.CanDequantize() {
				require.EqualError(t, Dequantize(typ, nil, nil), typ.String()+" cannot be dequantized")
				return
			}
			for kind, src := range inputs(typ) {
				require.Equal(t, rows[kind][0], digest(src), "the test's input %d is not gguf's", kind)
				dst := make([]float32, len(src)/typ.BlockBytes()*typ.BlockLen())
				require.NoError(t, Dequantize(typ, dst, src))
				require.Equal(t, rows[kind][1], digest(floatBytes(dst)), "input %d", kind)
				require.Zero(t, testing.AllocsPerRun(1, func() { _ = Dequantize(typ, dst, src) }))
			}
			one := make([]byte, typ.BlockBytes())
			require.Error(t, Dequantize(typ, make([]float32, typ.BlockLen()+1), one))
			require.Error(t, Dequantize(typ, make([]float32, 2*typ.BlockLen()), one))
			require.Error(t, Dequantize(typ, make([]float32, typ.BlockLen()), make([]byte, typ.BlockBytes()+1)))
		})
	}
}
