package safetensors

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"github.com/klauspost/compress/zstd"
	"github.com/stretchr/testify/require"
	"github.com/torchgo/torchgo/internal/half"
	"github.com/torchgo/torchgo/internal/planes"
)

// BenchmarkCompression gives ratio and speed on one core: GB/s of the bytes as they are without. The weights are those
// of all-MiniLM-L6-v2 if `make model` has fetched it, and N(0, 0.02).
func BenchmarkCompression(b *testing.B) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	const n = 8 << 20
	rnd := rand.New(rand.NewPCG(1, 1))
	normal := make([]float32, n)
	for i := range normal {
		normal[i] = float32(rnd.NormFloat64() * 0.02)
	}
	weights := map[string][]float32{"normal": normal}
	if f, err := Open(filepath.Join("..", "..", "build", "models", "all-MiniLM-L6-v2", "model.safetensors")); err == nil {
		defer f.Close()
		var real []float32
		for _, t := range f.Tensors() {
			if t.DType == F32 && len(real) < n {
				p := make([]byte, t.Bytes)
				require.NoError(b, f.ReadTensor(t.Name, p))
				for i := 0; i < len(p); i += 4 {
					real = append(real, math.Float32frombits(binary.LittleEndian.Uint32(p[i:])))
				}
			}
		}
		weights["MiniLM"] = real
	} else {
		require.ErrorIs(b, err, os.ErrNotExist)
	}
	for _, of := range []string{"normal", "MiniLM"} {
		for _, d := range []DType{F32, F16, BF16} {
			var data []byte
			for _, x := range weights[of] {
				switch d {
				case F32:
					data = binary.LittleEndian.AppendUint32(data, math.Float32bits(x))
				case F16:
					data = binary.LittleEndian.AppendUint16(data, uint16(half.ToFloat16(x)))
				case BF16:
					data = binary.LittleEndian.AppendUint16(data, uint16(half.ToBFloat16(x)))
				}
			}
			if len(data) > 0 {
				name := fmt.Sprint(of, "/", d)
				b.Run(name+"/planes", func(b *testing.B) { benchmarkPlanes(b, data, d) })
				b.Run(name+"/zstd-fastest", func(b *testing.B) { benchmarkZstd(b, data, zstd.SpeedFastest) })
				b.Run(name+"/zstd", func(b *testing.B) { benchmarkZstd(b, data, zstd.SpeedDefault) })
				b.Run(name+"/copy", func(b *testing.B) {
					to := make([]byte, len(data))
					b.SetBytes(int64(len(data)))
					for b.Loop() {
						copy(to, data)
					}
				})
			}
		}
	}
}

func benchmarkPlanes(b *testing.B, data []byte, d DType) {
	var small bytes.Buffer
	b.Run("encode", func(b *testing.B) {
		b.SetBytes(int64(len(data)))
		for b.Loop() {
			small.Reset()
			e, err := planes.NewEncoder(&small, element(d))
			require.NoError(b, err)
			_, err = e.Write(data)
			require.NoError(b, err)
			require.NoError(b, e.Close())
		}
		b.ReportMetric(float64(small.Len())/float64(len(data)), "ratio")
	})
	b.Run("decode", func(b *testing.B) {
		b.SetBytes(int64(len(data)))
		out := make([]byte, len(data))
		for b.Loop() {
			dec, err := planes.Open(bytes.NewReader(small.Bytes()), int64(small.Len()), element(d), int64(len(data)), planes.Options{})
			require.NoError(b, err)
			require.NoError(b, dec.ReadPart(out, 0))
		}
		require.True(b, bytes.Equal(data, out))
	})
}

func benchmarkZstd(b *testing.B, data []byte, level zstd.EncoderLevel) {
	e, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1), zstd.WithEncoderLevel(level))
	require.NoError(b, err)
	dec, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1))
	require.NoError(b, err)
	defer dec.Close()
	var small []byte
	b.Run("encode", func(b *testing.B) {
		b.SetBytes(int64(len(data)))
		for b.Loop() {
			small = e.EncodeAll(data, small[:0])
		}
		b.ReportMetric(float64(len(small))/float64(len(data)), "ratio")
	})
	b.Run("decode", func(b *testing.B) {
		b.SetBytes(int64(len(data)))
		var out []byte
		for b.Loop() {
			out, err = dec.DecodeAll(small, out[:0])
			require.NoError(b, err)
		}
		require.True(b, bytes.Equal(data, out))
	})
}
