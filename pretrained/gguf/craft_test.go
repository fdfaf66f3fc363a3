package gguf

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/torchgo/torchgo/internal/ggml"
)

// craft is a file in its parts, right or wrong.
type craft struct {
	magic         string
	version       uint32
	tensors, keys *uint64 // if other than the true numbers
	kv            [][]byte
	infos         []craftInfo
	align         uint64
	data          []byte
	cut           int // bytes that the end lacks
}

type craftInfo struct {
	name   string
	dims   []uint64
	typ    uint32
	offset uint64
}

func le(values ...any) []byte {
	var b []byte
	for _, v := range values {
		switch v := v.(type) {
		case string:
			b = append(binary.LittleEndian.AppendUint64(b, uint64(len(v))), v...)
		case []byte:
			b = append(b, v...)
		default:
			var err error
			if b, err = binary.Append(b, binary.LittleEndian, v); err != nil {
				panic(err)
			}
		}
	}
	return b
}

func kv(key string, t ValueType, value any) []byte { return le(key, t, value) }

func (c *craft) bytes() []byte {
	nt, nk := uint64(len(c.infos)), uint64(len(c.kv))
	if c.tensors != nil {
		nt = *c.tensors
	}
	if c.keys != nil {
		nk = *c.keys
	}
	b := append([]byte(c.magic), le(c.version, nt, nk)...)
	for _, k := range c.kv {
		b = append(b, k...)
	}
	for _, i := range c.infos {
		b = append(b, le(i.name, uint32(len(i.dims)), i.dims, i.typ, i.offset)...)
	}
	for uint64(len(b))%c.align != 0 {
		b = append(b, 0)
	}
	b = append(b, c.data...)
	return b[:len(b)-c.cut]
}

// layOut gives the tensors offsets and data.
func (c *craft) layOut(r *rand.Rand) {
	c.data = nil
	for i := range c.infos {
		info := &c.infos[i]
		info.offset = uint64(len(c.data))
		t := Type(info.typ)
		n := uint64(1)
		for _, d := range info.dims {
			n *= d
		}
		for range n / uint64(t.BlockLen()) * uint64(t.BlockBytes()) {
			c.data = append(c.data, byte(r.IntN(100))) // no NaN, so that what is decoded can be compared
		}
		for uint64(len(c.data))%c.align != 0 {
			c.data = append(c.data, 0)
		}
	}
}

// random is a valid file of 100 tensors of all types and as many keys.
func random(seed uint64) (*craft, *rand.Rand) {
	r := rand.New(rand.NewPCG(seed, 0))
	c := &craft{magic: magic, version: 2 + uint32(seed%2), align: 32}
	for i := range 100 {
		key := fmt.Sprintf("key.%d", i)
		t := ValueType(r.IntN(len(valueTypes)))
		element := func(t ValueType) []byte {
			switch t {
			case String:
				return le(fmt.Sprintf("%0*d", r.IntN(20), i))
			case Bool:
				return []byte{byte(r.IntN(2))}
			}
			return le(r.Uint64())[:t.size()]
		}
		if t != Array {
			c.kv = append(c.kv, kv(key, t, element(t)))
			continue
		}
		for t == Array {
			t = ValueType(r.IntN(len(valueTypes)))
		}
		n := r.IntN(30)
		value := le(uint32(t), uint64(n))
		for range n {
			value = append(value, element(t)...)
		}
		c.kv = append(c.kv, kv(key, Array, value))
	}
	types := ggml.Types()
	for i := range 100 {
		t := types[r.IntN(len(types))]
		dims := []uint64{uint64(t.BlockLen() * (1 + r.IntN(3)))}
		for range r.IntN(4) {
			dims = append(dims, uint64(1+r.IntN(4)))
		}
		if i == 50 {
			dims[0] = 0
		}
		c.infos = append(c.infos, craftInfo{fmt.Sprintf("tensor.%d", i), dims, uint32(t), 0})
	}
	c.layOut(r)
	return c, r
}

// callback is a reader that gives a few bytes at a time.
type callback func(p []byte, off int64) (int, error)

func (f callback) ReadAt(p []byte, off int64) (int, error) { return f(p, off) }

// TestCrafted has the cases of llama.cpp's test-gguf.cpp, under its names, each for several files and kinds of readers.
func TestCrafted(t *testing.T) {
	ptr := func(n uint64) *uint64 { return &n }
	align := func(n any) func(c *craft, _ *rand.Rand) {
		return func(c *craft, r *rand.Rand) {
			typ := Uint32
			if _, ok := n.(int32); ok {
				typ = Int32
			}
			c.kv = append(c.kv, kv("general.alignment", typ, n))
		}
	}
	customAlign := func(n uint32) func(c *craft, r *rand.Rand) {
		return func(c *craft, r *rand.Rand) {
			align(n)(c, r)
			c.align = uint64(n)
			c.layOut(r)
		}
	}
	for _, test := range []struct {
		name   string
		class  error // nil: success
		change func(c *craft, r *rand.Rand)
	}{
		{"HEADER_BAD_MAGIC", ErrBadMagic, func(c *craft, _ *rand.Rand) { c.magic = "\x07GUF" }},
		{"HEADER_BAD_VERSION_0", ErrUnsupportedVersion, func(c *craft, _ *rand.Rand) { c.version = 0 }},
		{"HEADER_BAD_VERSION_1", ErrUnsupportedVersion, func(c *craft, _ *rand.Rand) { c.version = 1 }},
		{"HEADER_BAD_VERSION_FUTURE", ErrUnsupportedVersion, func(c *craft, _ *rand.Rand) { c.version = 4 }},
		{"HEADER_BAD_VERSION_BIG_ENDIAN", ErrUnsupported, func(c *craft, _ *rand.Rand) { c.version = 3 << 24 }},
		{"HEADER_BAD_N_TENSORS", ErrLimit, func(c *craft, _ *rand.Rand) { c.tensors = ptr(1<<64 - 1) }},
		{"HEADER_BAD_N_TENSORS_WRAP", ErrLimit, func(c *craft, _ *rand.Rand) { c.tensors = ptr(1<<64/360 + 1) }}, // × sizeof wraps
		{"HEADER_BAD_N_KV", ErrLimit, func(c *craft, _ *rand.Rand) { c.keys = ptr(1<<64 - 1) }},
		{"HEADER_EMPTY", nil, func(c *craft, _ *rand.Rand) { c.kv, c.infos, c.data = nil, nil, nil }},

		{"KV_BAD_KEY_SIZE", ErrLimit, func(c *craft, _ *rand.Rand) { c.kv[7] = le(uint64(1<<64-1), Uint8, uint8(0)) }},
		{"KV_EMPTY_KEY", ErrBadHeader, func(c *craft, _ *rand.Rand) { c.kv[7] = kv("", Uint32, uint32(5)) }},
		{"KV_BAD_TYPE", ErrBadHeader, func(c *craft, _ *rand.Rand) { c.kv[7] = kv("k", 13, uint8(0)) }},
		{"KV_BAD_ARRAY_TYPE", ErrBadHeader, func(c *craft, _ *rand.Rand) { c.kv[7] = kv("k", Array, le(uint32(13), uint64(1), uint8(0))) }},
		{"KV_NESTED_ARRAY", ErrUnsupported, func(c *craft, _ *rand.Rand) {
			c.kv[7] = kv("k", Array, le(uint32(Array), uint64(1), uint32(Uint8), uint64(1), uint8(0)))
		}},
		{"KV_STRING_TOO_LONG", ErrTruncated, func(c *craft, _ *rand.Rand) { c.kv[7] = kv("k", String, uint64(1<<20)) }},
		{"KV_ARRAY_TOO_LONG", ErrTruncated, func(c *craft, _ *rand.Rand) {
			c.kv[7] = kv("k", Array, le(uint32(String), uint64(1<<20)))
		}},
		{"KV_STRING_SIZE_WRAP", ErrLimit, func(c *craft, _ *rand.Rand) {
			c.kv[7] = kv("k", Array, le(uint32(String), uint64(2), "a", uint64(1<<64-9)))
		}},
		{"KV_DUPLICATE_KEY", ErrDuplicate, func(c *craft, _ *rand.Rand) { c.kv[99] = kv("key.3", Uint8, uint8(0)) }},
		{"KV_BAD_ALIGN", ErrBadHeader, align(uint32(13))},
		{"KV_BAD_ALIGN_0", ErrBadHeader, align(uint32(0))},
		{"KV_BAD_ALIGN_LARGE", ErrBadHeader, align(uint32(2 << 20))},
		{"KV_BAD_ALIGN_TYPE", ErrBadHeader, align(int32(32))},
		{"KV_SUCCESS", nil, func(c *craft, _ *rand.Rand) { c.infos, c.data = nil, nil }},

		{"TENSORS_BAD_NAME_SIZE", ErrLimit, func(c *craft, _ *rand.Rand) { c.infos[9].name = fmt.Sprintf("%064d", 0) }},
		{"TENSORS_BAD_N_DIMS", ErrBadShape, func(c *craft, _ *rand.Rand) { c.infos[9].dims = []uint64{1, 1, 1, 1, 1} }},
		{"TENSORS_BAD_SHAPE", ErrBadShape, func(c *craft, _ *rand.Rand) { c.infos[9].dims = []uint64{1<<64 - 1} }},
		{"TENSORS_ZERO_DIM", nil, func(c *craft, r *rand.Rand) { c.infos[9].dims = []uint64{0, 2}; c.layOut(r) }},
		{"TENSORS_NE_TOO_BIG", ErrBadShape, func(c *craft, _ *rand.Rand) { c.infos[9].dims = []uint64{1 << 32, 1 << 31} }},
		{"TENSORS_NE_TOO_BIG_WRAP", ErrBadShape, func(c *craft, _ *rand.Rand) { c.infos[9].dims = []uint64{1 << 32, 1 << 32, 1 << 32} }},
		{"TENSORS_NBYTES_TOO_BIG", ErrBadShape, func(c *craft, _ *rand.Rand) { c.infos[9].dims, c.infos[9].typ = []uint64{1 << 62}, uint32(ggml.F64) }},
		{"TENSORS_BAD_TYPE", ErrBadDType, func(c *craft, _ *rand.Rand) { c.infos[9].typ = 1000 }},
		{"TENSORS_REMOVED_TYPE", ErrBadDType, func(c *craft, _ *rand.Rand) { c.infos[9].typ = 31 }},
		{"TENSORS_BAD_ROW", ErrBadShape, func(c *craft, _ *rand.Rand) { c.infos[9].dims, c.infos[9].typ = []uint64{16, 2}, uint32(Q4_0) }},
		{"TENSORS_BAD_OFFSET", ErrBadOffset, func(c *craft, _ *rand.Rand) { c.infos[9].offset++ }},
		{"TENSORS_DUPLICATE_NAME", ErrDuplicate, func(c *craft, _ *rand.Rand) { c.infos[9].name = "tensor.3" }},
		{"TENSORS_BAD_ALIGN", ErrBadHeader, align(uint32(48))},
		{"TENSORS_INCONSISTENT_ALIGN", ErrBadOffset, align(uint32(4096))},
		{"TENSORS_SUCCESS", nil, func(c *craft, _ *rand.Rand) { c.kv = nil }},
		{"TENSORS_CUSTOM_ALIGN", nil, customAlign(1)},

		{"DATA_NOT_ENOUGH_DATA", ErrTruncated, func(c *craft, r *rand.Rand) {
			c.infos = append(c.infos, craftInfo{"last", []uint64{32}, uint32(ggml.I8), 0})
			c.layOut(r)
			c.cut = 1
		}},
		{"DATA_INCONSISTENT_ALIGN", ErrBadOffset, align(uint32(1))},
		{"DATA_MEM_SIZE_OVERFLOW", ErrBadShape, func(c *craft, _ *rand.Rand) {
			c.infos = c.infos[:0]
			for i := range 4 { // each alone is small enough
				c.infos = append(c.infos, craftInfo{fmt.Sprint(i), []uint64{1 << 59}, uint32(ggml.F32), uint64(i) << 61})
			}
		}},
		{"DATA_PAD_OVERFLOW", ErrBadShape, func(c *craft, _ *rand.Rand) {
			c.infos[0] = craftInfo{"0", []uint64{1<<63 - 1}, uint32(ggml.I8), 0}
		}},
		{"DATA_SUCCESS", nil, func(*craft, *rand.Rand) {}},
		{"DATA_CUSTOM_ALIGN", nil, customAlign(4096)},
	} {
		t.Run(test.name, func(t *testing.T) {
			for seed := range uint64(6) {
				c, r := random(seed)
				test.change(c, r)
				data := c.bytes()
				var f *File
				var err error
				switch seed / 2 {
				case 0:
					path := filepath.Join(t.TempDir(), "x")
					require.NoError(t, os.WriteFile(path, data, 0o600))
					f, err = Open(path)
				case 1:
					f, err = NewFile(bytes.NewReader(data), int64(len(data)), "x")
				case 2:
					f, err = NewFile(callback(bytes.NewReader(data).ReadAt), int64(len(data)), "x")
				}
				if test.class != nil {
					require.ErrorIs(t, err, test.class)
					require.ErrorContains(t, err, "x: ")
					continue
				}
				require.NoError(t, err)
				c.check(t, f)
				require.NoError(t, f.Close())
			}
		})
	}
}

// check compares what was read with what was crafted.
func (c *craft) check(t *testing.T, f *File) {
	require.Equal(t, int(c.version), f.Version())
	require.Equal(t, len(c.kv), f.Metadata().Len())
	for i, key := range f.Metadata().Keys() {
		require.Equal(t, c.kv[i], le(key, f.Metadata().raw(t, key)))
	}
	require.Equal(t, len(c.infos), f.Len())
	for i, info := range f.Tensors() {
		want := c.infos[i]
		require.Equal(t, want.name, info.Name)
		require.Len(t, info.Shape, len(want.dims))
		for d, n := range info.Shape {
			require.Equal(t, int(want.dims[len(want.dims)-1-d]), n)
		}
		s, ok := f.Stored(info.Name)
		require.True(t, ok)
		require.Equal(t, want.typ, uint32(s.Type))
		stored := make([]byte, s.Bytes)
		require.NoError(t, f.ReadStored(info.Name, stored, 0))
		require.True(t, bytes.Equal(c.data[want.offset:][:s.Bytes], stored))

		values := make([]float32, info.Numel())
		data := make([]byte, info.Bytes)
		err := f.ReadTensor(info.Name, data)
		switch {
		case info.Plain():
			require.True(t, bytes.Equal(stored, data))
		case s.Type.CanDequantize():
			require.NoError(t, ggml.Dequantize(s.Type, values, stored))
			require.True(t, bytes.Equal(le(values), data))
		default:
			require.ErrorIs(t, err, ErrUnsupported)
			require.ErrorContains(t, err, s.Type.String())
			continue
		}
		require.NoError(t, err)
	}
}

// raw writes a value as files have it, from what the getters say.
func (m *Metadata) raw(t *testing.T, key string) []byte {
	typ, ok := m.Type(key)
	require.True(t, ok)
	x, err := m.Value(key)
	require.NoError(t, err)
	b := le(typ)
	if typ == Array {
		elem, n, ok := m.ArrayType(key)
		require.True(t, ok)
		b = append(b, le(elem, uint64(n))...)
	}
	if list, ok := x.([]string); ok {
		for _, s := range list {
			b = append(b, le(s)...)
		}
		return b
	}
	return append(b, le(x)...)
}

// TestReaderFails passes on what a reader says.
func TestReaderFails(t *testing.T) {
	c, _ := random(1)
	data := c.bytes()
	broken := errors.New("disk on fire")
	for _, at := range []int64{0, 100, int64(len(data) - 1)} {
		_, err := NewFile(callback(func(p []byte, off int64) (int, error) {
			if off+int64(len(p)) > at {
				return 0, broken
			}
			return bytes.NewReader(data).ReadAt(p, off)
		}), int64(len(data)), "x")
		if at < 200 {
			require.ErrorIs(t, err, broken)
		} else {
			require.NoError(t, err)
		}
	}
}
