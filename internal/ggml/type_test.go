package ggml

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/torchgo/torchgo/internal/testdata"
)

// vectors is what tools/ggmlref recorded of gguf.
type vectors struct {
	Sizes                map[string][3]int // id, elements and bytes of a block
	Dequantize, Quantize map[string][][2]string
}

func readVectors(t testing.TB) vectors {
	data, err := os.ReadFile(filepath.Join(testdata.Open(t, "ggml"), "vectors.json"))
	require.NoError(t, err)
	var v vectors
	require.NoError(t, json.Unmarshal(data, &v))
	return v
}

// stream is tools/ggmlref's.
func stream(label string, n int) []byte {
	var out []byte
	for i := 0; len(out) < n; i++ {
		sum := sha256.Sum256(fmt.Appendf(nil, "%s %d", label, i))
		out = append(out, sum[:]...)
	}
	return out[:n]
}

func digest(data []byte) string {
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}

// floatBytes has one NaN.
func floatBytes(values []float32) []byte {
	var out []byte
	for _, x := range values {
		bits := math.Float32bits(x)
		if x != x {
			bits = 0x7fc00000
		}
		out = binary.LittleEndian.AppendUint32(out, bits)
	}
	return out
}

func TestTypes(t *testing.T) {
	want := readVectors(t).Sizes
	require.Len(t, Types(), len(want))
	for _, typ := range Types() {
		size, ok := want[typ.String()]
		require.True(t, ok, "%v", typ)
		require.Equal(t, size, [3]int{int(typ), typ.BlockLen(), typ.BlockBytes()}, "%v", typ)
		require.True(t, typ.Known())
		parsed, err := ParseType(typ.String())
		require.NoError(t, err)
		require.Equal(t, typ, parsed)
	}
	parsed, err := ParseType("q4_k")
	require.NoError(t, err)
	require.Equal(t, Q4_K, parsed)
	_, err = ParseType("")
	require.EqualError(t, err, `ggml has no type ""`)

	for _, unknown := range []Type{4, 5, 31, 33, 36, 38, 42, math.MaxUint32} {
		require.False(t, unknown.Known())
		require.Equal(t, fmt.Sprintf("type %d", uint32(unknown)), unknown.String())
		require.Zero(t, unknown.BlockLen()+unknown.BlockBytes())
		_, ok := unknown.RowBytes(0)
		require.False(t, ok)
		require.Error(t, Dequantize(unknown, nil, nil))
		require.Error(t, Quantize(unknown, nil, nil))
	}
}

func TestRowBytes(t *testing.T) {
	for _, c := range []struct {
		typ   Type
		n     int64
		bytes int64
		ok    bool
	}{
		{Q4_K, 512, 288, true},
		{Q4_K, 0, 0, true},
		{Q4_K, 255, 0, false},
		{Q4_K, -256, 0, false},
		{F64, math.MaxInt64 / 8, math.MaxInt64 - 7, true},
		{F64, math.MaxInt64/8 + 1, 0, false},
		{Q8_0, math.MaxInt64 - 31, 0, false},
	} {
		bytes, ok := c.typ.RowBytes(c.n)
		require.Equal(t, c.ok, ok, "%v", c)
		require.Equal(t, c.bytes, bytes, "%v", c)
	}
}
