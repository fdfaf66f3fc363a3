package gguf

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/torchgo/torchgo/internal/testdata"
)

// all is a file with every type of value.
func all(t *testing.T) *Metadata {
	c := &craft{magic: magic, version: 3, align: 32, kv: [][]byte{
		kv("u8", Uint8, uint8(200)), kv("i8", Int8, int8(-3)), kv("u16", Uint16, uint16(60000)), kv("i16", Int16, int16(-300)),
		kv("u32", Uint32, uint32(4e9)), kv("i32", Int32, int32(-70000)), kv("f32", Float32, float32(0.1)), kv("true", Bool, true),
		kv("false", Bool, false), kv("s", String, "café\n"), kv("u64", Uint64, uint64(math.MaxUint64)), kv("i64", Int64, int64(math.MinInt64)),
		kv("f64", Float64, 0.1), kv("nan", Float32, float32(math.NaN())), kv("empty", String, ""),
		kv("a.u8", Array, le(Uint8, uint64(3), []uint8{1, 2, 255})), kv("a.i8", Array, le(Int8, uint64(1), int8(-1))),
		kv("a.i16", Array, le(Int16, uint64(1), int16(-1))), kv("a.i32", Array, le(Int32, uint64(2), []int32{-1, 1})),
		kv("a.u64", Array, le(Uint64, uint64(1), uint64(math.MaxUint64))), kv("a.f32", Array, le(Float32, uint64(3), []float32{0.1, float32(math.Inf(-1)), 2})),
		kv("a.f64", Array, le(Float64, uint64(1), 1e300)), kv("a.bool", Array, le(Bool, uint64(2), []bool{true, false})),
		kv("a.s", Array, le(String, uint64(3), "a", "", "ü\"")), kv("a.none", Array, le(Float32, uint64(0))),
	}}
	f, err := NewFile(bytes.NewReader(c.bytes()), int64(len(c.bytes())), "m.gguf")
	require.NoError(t, err)
	return f.Metadata()
}

func TestMetadataValues(t *testing.T) {
	m := all(t)
	for key, want := range map[string]any{
		"u8": uint8(200), "i8": int8(-3), "u16": uint16(60000), "i16": int16(-300), "u32": uint32(4e9), "i32": int32(-70000), "f32": float32(0.1),
		"true": true, "false": false, "s": "café\n", "u64": uint64(math.MaxUint64), "i64": int64(math.MinInt64), "f64": 0.1, "empty": "",
		"a.u8": []uint8{1, 2, 255}, "a.i8": []int8{-1}, "a.i16": []int16{-1}, "a.i32": []int32{-1, 1}, "a.u64": []uint64{math.MaxUint64},
		"a.f32": []float32{0.1, float32(math.Inf(-1)), 2}, "a.f64": []float64{1e300}, "a.bool": []bool{true, false}, "a.s": []string{"a", "", "ü\""}, "a.none": []float32{},
	} {
		got, err := m.Value(key)
		require.NoError(t, err)
		require.Equal(t, want, got)
	}
	require.Equal(t, 25, m.Len())
	require.Equal(t, []string{"u8", "i8", "u16"}, m.Keys()[:3])
	elem, n, ok := m.ArrayType("a.s")
	require.True(t, ok)
	require.Equal(t, "string 3", fmt.Sprint(elem, n))
	_, _, ok = m.ArrayType("s")
	require.False(t, ok)
	_, ok = m.Type("nothing")
	require.False(t, ok)
}

func TestMetadataGetters(t *testing.T) {
	m := all(t)
	result := func(x any, err error) any {
		if err != nil {
			require.ErrorIs(t, err, ErrBadConfig)
			return err.Error()
		}
		return x
	}
	for _, key := range []string{"u8", "u16", "u32"} {
		u, err := m.Uint(key)
		require.NoError(t, err)
		i, err := m.Int(key)
		require.NoError(t, err)
		require.Equal(t, u, uint64(i))
		require.Equal(t, result(m.Float(key)), float64(u))
	}
	require.Equal(t, int64(-3), result(m.Int("i8")))
	require.Equal(t, int64(-300), result(m.Int("i16")))
	require.Equal(t, int64(-70000), result(m.Int("i32")))
	require.Equal(t, float64(-70000), result(m.Float("i32")))
	require.Equal(t, int64(math.MinInt64), result(m.Int("i64")))
	require.Equal(t, uint64(math.MaxUint64), result(m.Uint("u64")))
	require.Equal(t, float64(math.MaxUint64), result(m.Float("u64")))
	require.Equal(t, float64(float32(0.1)), result(m.Float("f32")))
	require.Equal(t, 0.1, result(m.Float("f64")))
	require.Equal(t, []any{true, false}, []any{result(m.Bool("true")), result(m.Bool("false"))})
	require.Equal(t, "café\n", result(m.String("s")))
	require.Equal(t, []string{"a", "", "ü\""}, result(m.Strings("a.s")))
	require.Equal(t, []bool{true, false}, result(m.Bools("a.bool")))
	require.Equal(t, []int64{1, 2, 255}, result(m.Ints("a.u8")))
	require.Equal(t, []int64{-1}, result(m.Ints("a.i8")))
	require.Equal(t, []int64{-1}, result(m.Ints("a.i16")))
	require.Equal(t, []int64{-1, 1}, result(m.Ints("a.i32")))
	require.Equal(t, []float64{-1, 1}, result(m.Floats("a.i32")))
	require.Equal(t, []float64{float64(float32(0.1)), math.Inf(-1), 2}, result(m.Floats("a.f32")))
	require.Equal(t, []float64{}, result(m.Floats("a.none")))

	require.Equal(t, `m.gguf: bad config: metadata "a.u64": expected at most 2^63 - 1, got 18446744073709551615`, result(m.Ints("a.u64")))
	require.Equal(t, `m.gguf: bad config: metadata "u64": expected at most 2^63 - 1, got 18446744073709551615`, result(m.Int("u64")))
	require.Equal(t, `m.gguf: bad config: metadata "i8": expected at least 0, got -3`, result(m.Uint("i8")))
	require.Equal(t, `m.gguf: bad config: metadata lacks "x": expected integer`, result(m.Uint("x")))
	require.Equal(t, `m.gguf: bad config: metadata "f32": expected integer, got float32`, result(m.Uint("f32")))
	require.Equal(t, `m.gguf: bad config: metadata "true": expected integer, got bool`, result(m.Int("true")))
	require.Equal(t, `m.gguf: bad config: metadata "s": expected number, got string`, result(m.Float("s")))
	require.Equal(t, `m.gguf: bad config: metadata "u8": expected bool, got uint8`, result(m.Bool("u8")))
	require.Equal(t, `m.gguf: bad config: metadata "a.s": expected string, got array of string`, result(m.String("a.s")))
	require.Equal(t, `m.gguf: bad config: metadata "a.bool": expected array of numbers, got array of bool`, result(m.Floats("a.bool")))
	require.Equal(t, `m.gguf: bad config: metadata "a.f32": expected array of integers, got array of float32`, result(m.Ints("a.f32")))
	require.Equal(t, `m.gguf: bad config: metadata "a.u8": expected array of string, got array of uint8`, result(m.Strings("a.u8")))
	require.Equal(t, `m.gguf: bad config: metadata "s": expected array of bool, got string`, result(m.Bools("s")))
	require.Equal(t, `m.gguf: bad config: metadata lacks "x"`, result(m.Value("x")))
}

func TestMetadataJSON(t *testing.T) {
	data, err := json.Marshal(all(t))
	require.NoError(t, err)
	require.Equal(t, `{"u8":200,"i8":-3,"u16":60000,"i16":-300,"u32":4000000000,"i32":-70000,"f32":0.1,"true":true,"false":false,"s":"café\n",`+
		`"u64":18446744073709551615,"i64":-9223372036854775808,"f64":0.1,"nan":"NaN","empty":"","a.u8":[1,2,255],"a.i8":[-1],"a.i16":[-1],"a.i32":[-1,1],`+
		`"a.u64":[18446744073709551615],"a.f32":[0.1,"-Inf",2],"a.f64":[1e+300],"a.bool":[true,false],"a.s":["a","","ü\""],"a.none":[]}`, string(data))
}

func TestMetadataOfRealWriter(t *testing.T) {
	m := open(t, filepath.Join(testdata.Open(t, "gguf"), "llama-Q8_0.gguf")).Metadata()
	data, err := json.Marshal(m)
	require.NoError(t, err)
	tokens, err := m.Strings("tokenizer.ggml.tokens")
	require.NoError(t, err)
	require.Len(t, tokens, 96)
	require.Equal(t, "t95", tokens[95])
	var values map[string]any
	require.NoError(t, json.Unmarshal(data, &values))
	for key := range values {
		if strings.HasPrefix(key, "tokenizer") {
			delete(values, key)
		}
	}
	require.Equal(t, map[string]any{"general.architecture": "llama", "llama.block_count": 2., "llama.context_length": 64., "llama.embedding_length": 64.,
		"llama.feed_forward_length": 96., "llama.attention.head_count": 4., "llama.attention.head_count_kv": 2., "llama.attention.layer_norm_rms_epsilon": 1e-5,
		"llama.rope.freq_base": 10000., "llama.rope.dimension_count": 16., "llama.vocab_size": 96.}, values)
}

// TestBadArrays has what is wrong inside of arrays, which is seen when they are read.
func TestBadArrays(t *testing.T) {
	c := &craft{magic: magic, version: 3, align: 32, kv: [][]byte{
		kv("bools", Array, le(Bool, uint64(2), []byte{1, 2})), kv("strings", Array, le(String, uint64(2), "a", "\xff")),
	}}
	f, err := NewFile(bytes.NewReader(c.bytes()), int64(len(c.bytes())), "m.gguf")
	require.NoError(t, err)
	_, err = f.Metadata().Bools("bools")
	require.ErrorIs(t, err, ErrBadValue)
	require.EqualError(t, err, `m.gguf: bad value: metadata "bools": bool: expected 0 or 1, got 2`)
	_, err = f.Metadata().Strings("strings")
	require.ErrorIs(t, err, ErrBadHeader)
	require.EqualError(t, err, `m.gguf: bad header: metadata "strings": element 1 is not UTF-8: "\xff"`)
	_, err = f.Metadata().MarshalJSON()
	require.Error(t, err)
}

// TestChangedArrays has a file that somebody writes to between Open and the reading of an array.
func TestChangedArrays(t *testing.T) {
	c := &craft{magic: magic, version: 3, align: 32, kv: [][]byte{kv("strings", Array, le(String, uint64(2), "abcdefgh", "b"))}}
	for _, length := range []uint64{9, 100, 1 << 40, math.MaxUint64, math.MaxUint64 - 7} {
		path := filepath.Join(t.TempDir(), "x.gguf")
		require.NoError(t, os.WriteFile(path, c.bytes(), 0o600))
		f := open(t, path)
		changed := bytes.Replace(c.bytes(), le("abcdefgh"), le(length, []byte("abcdefgh")), 1)
		require.NoError(t, os.WriteFile(path, changed, 0o600))
		_, err := f.Metadata().Strings("strings")
		require.ErrorIs(t, err, ErrChanged, "%d", length)
	}
	path := filepath.Join(t.TempDir(), "x.gguf")
	require.NoError(t, os.WriteFile(path, c.bytes(), 0o600))
	f := open(t, path)
	require.NoError(t, os.Truncate(path, 40))
	_, err := f.Metadata().Strings("strings")
	require.ErrorIs(t, err, ErrTruncated)
}

// TestVocabularyStaysInFile opens a file with 150,000 tokens, and as many merges, scores and types: it takes no memory for them.
func TestVocabularyStaysInFile(t *testing.T) {
	tokens, merges := le(String, uint64(150_000)), le(String, uint64(150_000))
	for i := range 150_000 {
		tokens = append(tokens, le(fmt.Sprintf("token-%d", i))...)
		merges = append(merges, le(fmt.Sprintf("tok %d", i))...)
	}
	c := &craft{magic: magic, version: 3, align: 32, kv: [][]byte{
		kv("tokenizer.ggml.tokens", Array, tokens), kv("tokenizer.ggml.merges", Array, merges),
		kv("tokenizer.ggml.scores", Array, le(Float32, uint64(150_000), make([]float32, 150_000))),
		kv("tokenizer.ggml.token_type", Array, le(Int32, uint64(150_000), make([]int32, 150_000))),
	}}
	path := filepath.Join(t.TempDir(), "x.gguf")
	require.NoError(t, os.WriteFile(path, c.bytes(), 0o600))
	memory := func() (live, total uint64) {
		runtime.GC()
		var s runtime.MemStats
		runtime.ReadMemStats(&s)
		return s.HeapAlloc, s.TotalAlloc
	}
	live, total := memory()
	f := open(t, path)
	live2, total2 := memory()
	t.Logf("%d bytes of header: %d allocated, %d kept", f.Size(), total2-total, int64(live2-live))
	require.Less(t, total2-total, uint64(300_000))
	require.Less(t, int64(live2-live), int64(100_000))
	list, err := f.Metadata().Strings("tokenizer.ggml.tokens")
	require.NoError(t, err)
	require.Equal(t, "token-149999", list[149_999])
}

// TestLargestHeaders stays within the limits of the hostile corpus on the largest headers that are allowed.
func TestLargestHeaders(t *testing.T) {
	if testing.Short() {
		t.Skip("writes files of 100 MB")
	}
	tensors := func(n int) []byte {
		c := craft{magic: magic, version: 3, align: 32}
		for i := range n {
			c.infos = append(c.infos, craftInfo{fmt.Sprint(i), []uint64{32, 0}, uint32(Q4_0), 0})
		}
		return c.bytes()
	}
	keys := func(n int) []byte {
		c := craft{magic: magic, version: 3, align: 32}
		for i := range n {
			c.kv = append(c.kv, kv(fmt.Sprintf("%01400d", i), Uint8, uint8(0)))
		}
		return c.bytes()
	}
	strings := func(n int) []byte {
		c := craft{magic: magic, version: 3, align: 32, kv: [][]byte{kv("a", Array, le(String, uint64(n), make([]byte, 8*n)))}}
		return c.bytes()
	}
	for _, c := range []struct {
		name  string
		data  func() []byte
		class string // "" if it is valid
	}{
		{"all tensors that are allowed", func() []byte { return tensors(MaxTensors) }, ""},
		{"a tensor more", func() []byte { return tensors(MaxTensors + 1) }, "limit"},
		{"all keys that are allowed", func() []byte { return keys(MaxKeys) }, ""},
		{"a key more", func() []byte { return keys(MaxKeys + 1) }, "limit"},
		{"all strings that are allowed", func() []byte { return strings(MaxHeaderBytes/8 - 100) }, ""},
		{"a string more", func() []byte { return strings(MaxHeaderBytes/8 + 1) }, "limit"},
		{"a header too long", func() []byte { return strings(MaxHeaderBytes / 8) }, "header_limit"},
	} {
		t.Run(c.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "x.gguf")
			require.NoError(t, os.WriteFile(path, c.data(), 0o600))
			got := testdata.RunLimited(t, "open", path, 10)
			t.Logf("%d MB", got.ExtraMB)
			if c.class == "" {
				require.Empty(t, got.Error)
			} else {
				require.Equal(t, []string{c.class}, got.Classes, got.Error)
			}
			st, err := os.Stat(path)
			require.NoError(t, err)
			require.LessOrEqual(t, got.ExtraMB, 64+4*st.Size()>>20)
		})
	}
}
