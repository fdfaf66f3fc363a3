package gguf

import (
	"bytes"
	"io"
	"math"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// BenchmarkWrite quantizes a tensor of 16 Mi elements, in bytes of float32 a second, with the disk.
func BenchmarkWrite(b *testing.B) {
	values := make([]float32, 1<<24)
	for i := range values {
		values[i] = float32(math.Sin(float64(i)))
	}
	data := le(values)
	for _, t := range []Type{F32, F16, Q8_0, Q4_0, Q4_1} {
		b.Run(t.String(), func(b *testing.B) {
			b.SetBytes(int64(len(data)))
			path := filepath.Join(b.TempDir(), "x.gguf")
			for b.Loop() {
				require.NoError(b, WriteFile(b.Context(), path, nil, []Source{{Name: "a", Type: t, Shape: []int{1 << 12, 1 << 12}, Write: Data(data)}}))
			}
		})
	}
}

// BenchmarkRead decodes a tensor of 16 Mi elements, in bytes of float32 a second.
func BenchmarkRead(b *testing.B) {
	for _, t := range []Type{F32, Q8_0, Q4_0, Q4_1} {
		b.Run(t.String(), func(b *testing.B) {
			path := filepath.Join(b.TempDir(), "x.gguf")
			row := bytes.Repeat([]byte{1}, 1<<20)
			require.NoError(b, WriteFile(b.Context(), path, nil, []Source{{Name: "a", Type: t, Shape: []int{1 << 12, 1 << 12}, From: t, Write: func(w io.Writer) error {
				for left := 1 << 24 / t.BlockLen() * t.BlockBytes(); left > 0; left -= len(row) {
					if _, err := w.Write(row[:min(left, len(row))]); err != nil {
						return err
					}
				}
				return nil
			}}}))
			f := open(b, path)
			info, _ := f.Tensor("a")
			dst := make([]byte, info.Bytes)
			b.SetBytes(int64(len(dst)))
			for b.Loop() {
				require.NoError(b, f.ReadTensor("a", dst))
			}
		})
	}
}
