package ggml

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/torchgo/torchgo/internal/testdata"
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
			rows, known := want[typ.String()]
			require.Equal(t, known, typ.CanDequantize())
			if !known {
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

// The blocks of testdata/gguf.tar.zst: random bytes, and others with scales of usual size.
func TestDequantizeFiles(t *testing.T) {
	dir := testdata.Open(t, "gguf")
	for _, file := range []struct {
		name, suffix string
		types        int
	}{
		{"blocks.safetensors", ".float32", 26},
		{"blocks-scaled/expected.safetensors", ".dequant", 23},
	} {
		t.Run(file.name, func(t *testing.T) {
			tensors := readSafetensors(t, filepath.Join(dir, file.name))
			n := 0
			for name, src := range tensors {
				name, ok := strings.CutSuffix(name, ".blocks")
				if !ok {
					continue
				}
				typ, err := ParseType(name)
				require.NoError(t, err)
				want := make([]float32, len(tensors[name+file.suffix])/4)
				require.NoError(t, Dequantize(F32, want, tensors[name+file.suffix]))
				got := make([]float32, len(want))
				require.NoError(t, Dequantize(typ, got, src))
				require.Equal(t, floatBytes(want), floatBytes(got), "%v", typ)
				n++
			}
			require.Equal(t, file.types, n)
		})
	}
}

// readSafetensors gives the bytes of a file's tensors, by name.
func readSafetensors(t *testing.T, path string) map[string][]byte {
	data, err := os.ReadFile(path)
	require.NoError(t, err)
	body := data[8+binary.LittleEndian.Uint64(data):]
	var header map[string]struct {
		Offsets [2]int `json:"data_offsets"`
	}
	require.NoError(t, json.Unmarshal(data[8:len(data)-len(body)], &header))
	tensors := map[string][]byte{}
	for name, tensor := range header {
		tensors[name] = body[tensor.Offsets[0]:tensor.Offsets[1]]
	}
	return tensors
}

// FuzzDequantize takes any bytes as any type: whole blocks give their values, each block by itself; all else
// is refused.
func FuzzDequantize(f *testing.F) {
	for _, typ := range Types() {
		f.Add(uint32(typ), stream(typ.String(), 2*typ.BlockBytes()))
	}
	f.Fuzz(func(t *testing.T, id uint32, src []byte) {
		typ := Type(id)
		if !typ.CanDequantize() {
			require.Error(t, Dequantize(typ, make([]float32, 1), src))
			return
		}
		whole := len(src)%typ.BlockBytes() == 0
		n := len(src) / typ.BlockBytes() * typ.BlockLen()
		dst := make([]float32, n)
		require.Equal(t, whole, Dequantize(typ, dst, src) == nil)
		require.Error(t, Dequantize(typ, make([]float32, n+1), src))
		if !whole || n == 0 {
			return
		}
		last := make([]float32, typ.BlockLen()) // alone, it is the same
		require.NoError(t, Dequantize(typ, last, src[len(src)-typ.BlockBytes():]))
		require.Equal(t, floatBytes(last), floatBytes(dst[n-len(last):]))
	})
}

// BenchmarkDequantize counts bytes of float32; 1 MiB of them at a time, as the loader does.
func BenchmarkDequantize(b *testing.B) {
	for _, typ := range Types() {
		if !typ.CanDequantize() {
			continue
		}
		b.Run(typ.String(), func(b *testing.B) {
			dst := make([]float32, 1<<18)
			src := stream("", len(dst)/typ.BlockLen()*typ.BlockBytes())
			b.SetBytes(int64(4 * len(dst)))
			for b.Loop() {
				_ = Dequantize(typ, dst, src)
			}
		})
	}
}
