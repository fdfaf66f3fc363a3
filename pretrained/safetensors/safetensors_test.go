package safetensors

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/torchgo/torchgo/internal/testdata"
)

func readJSON(t *testing.T, path string, v any) {
	data, err := os.ReadFile(path)
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal(data, v))
}

func open(t *testing.T, path string) *File {
	f, err := Open(path)
	require.NoError(t, err)
	t.Cleanup(func() { f.Close() })
	return f
}

func TestDTypes(t *testing.T) {
	// Codes and sizes as in the format's description.
	for code, bits := range map[string]int{
		"BOOL": 8, "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6, "U8": 8, "I8": 8, "F8_E5M2": 8, "F8_E4M3": 8, "F8_E8M0": 8,
		"F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8, "I16": 16, "U16": 16, "F16": 16, "BF16": 16, "I32": 32, "U32": 32, "F32": 32,
		"C64": 64, "F64": 64, "I64": 64, "U64": 64,
	} {
		d, err := ParseDType(code)
		require.NoError(t, err)
		require.Equal(t, code, d.String())
		require.Equal(t, bits, d.Bits())
	}
	_, err := ParseDType("C128") // PyTorch's alone
	require.ErrorIs(t, err, ErrBadDType)
	_, err = ParseDType("f32")
	require.ErrorIs(t, err, ErrBadDType)
	require.Equal(t, "DType(0)", DType(0).String())
	require.Zero(t, DType(200).Bits())
}

// The reference is a file that the Python package wrote, and what it says about it.
func TestReadsReferenceFile(t *testing.T) {
	dir := testdata.Open(t, "safetensors")
	var want map[string][3]any
	readJSON(t, filepath.Join(dir, "all.json"), &want)
	f := open(t, filepath.Join(dir, "all.safetensors"))
	require.Equal(t, map[string]string{"format": "pt"}, f.Metadata())
	require.Equal(t, len(want), f.Len())
	for _, got := range f.Tensors() {
		w := want[got.Name]
		require.Equal(t, w[0], got.DType.String(), got.Name)
		require.Equal(t, fmt.Sprint(w[1]), fmt.Sprint(got.Shape), got.Name)
		data := make([]byte, got.Bytes)
		require.NoError(t, f.ReadTensor(got.Name, data))
		require.Equal(t, w[2], fmt.Sprintf("%x", sha256.Sum256(data)), got.Name)
	}
}

func TestMapAndReadAgree(t *testing.T) {
	dir := testdata.Open(t, "safetensors")
	f := open(t, filepath.Join(dir, "all.safetensors"))
	m, err := f.Map()
	require.NoError(t, err)
	for _, info := range f.Tensors() {
		read := make([]byte, info.Bytes)
		require.NoError(t, f.ReadTensor(info.Name, read))
		mapped, err := m.Tensor(info.Name)
		require.NoError(t, err)
		require.Equal(t, read, mapped)
		require.Equal(t, len(mapped), cap(mapped))
		require.True(t, info.Aligned(), info.Name)
		if info.Bytes > 2 {
			part := make([]byte, 2)
			require.NoError(t, f.ReadPart(info.Name, part, 1))
			require.Equal(t, read[1:3], part)
		}
		require.ErrorIs(t, f.ReadTensor(info.Name, make([]byte, info.Bytes+1)), ErrSizeMismatch)
	}
	require.Error(t, f.ReadPart("t.int64", make([]byte, 8), 41))
	require.Error(t, f.ReadPart("t.int64", nil, -1))
	require.ErrorIs(t, f.ReadTensor("no", nil), ErrMissingTensor)
	_, err = m.Tensor("no")
	require.ErrorIs(t, err, ErrMissingTensor)
	require.NoError(t, m.Release())
}

func TestMappingCountsUsersAndOutlivesFile(t *testing.T) {
	dir := testdata.Copy(t, "safetensors")
	path := filepath.Join(dir, "all.safetensors")
	f := open(t, path)
	one, err := f.Map()
	require.NoError(t, err)
	two, err := f.Map()
	require.NoError(t, err)
	require.Same(t, one, two)
	require.True(t, mapped(t, path))
	require.NoError(t, f.Close())
	require.NoError(t, one.Release())
	require.True(t, mapped(t, path))
	view, err := two.Tensor("t.int64")
	require.NoError(t, err)
	before := view[0]
	view[0]++ // private: not in the file
	data, err := os.ReadFile(path)
	require.NoError(t, err)
	info, _ := f.Tensor("t.int64")
	require.Equal(t, before, data[info.Offset])

	two.Retain()
	require.NoError(t, two.Release())
	require.NoError(t, two.Release())
	require.False(t, mapped(t, path))
	_, err = two.Tensor("t.int64")
	require.ErrorIs(t, err, os.ErrClosed)
	require.Panics(t, two.Retain)
	require.Panics(t, func() { _ = two.Release() })

	again := open(t, path)
	m, err := again.Map()
	require.NoError(t, err)
	require.NoError(t, m.Release())
	m, err = again.Map() // a new one
	require.NoError(t, err)
	_, err = m.Tensor("t.int64")
	require.NoError(t, err)
	require.NoError(t, m.Release())
}

func mapped(t *testing.T, path string) bool {
	maps, err := os.ReadFile("/proc/self/maps")
	if err != nil {
		t.Skip("needs /proc")
	}
	return strings.Contains(string(maps), path)
}

func TestMappingUsersInParallel(t *testing.T) {
	f := open(t, filepath.Join(testdata.Open(t, "safetensors"), "all.safetensors"))
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 200 {
				m, err := f.Map()
				if err == nil {
					_, err = m.Tensor("t.float32")
				}
				if err == nil {
					err = m.Release()
				}
				if err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
}

func TestChangedWhileOpen(t *testing.T) {
	dir := testdata.Copy(t, "safetensors")
	path := filepath.Join(dir, "all.safetensors")
	data, err := os.ReadFile(path)
	require.NoError(t, err)

	t.Run("truncated", func(t *testing.T) {
		f := open(t, path)
		require.NoError(t, f.Unchanged())
		require.NoError(t, os.Truncate(path, int64(len(data))-1))
		tensors := f.Tensors()
		last := tensors[len(tensors)-1]
		err := f.ReadTensor(last.Name, make([]byte, last.Bytes))
		require.ErrorIs(t, err, ErrTruncated)
		require.ErrorContains(t, err, path)
		require.ErrorContains(t, err, strconv.Quote(last.Name))
		require.ErrorIs(t, f.Unchanged(), ErrTruncated)
		_, err = f.Map()
		require.ErrorIs(t, err, ErrTruncated)
		_, err = Open(path)
		require.ErrorIs(t, err, ErrTruncated)
		require.NoError(t, os.WriteFile(path, data, 0o644))
	})
	t.Run("grown", func(t *testing.T) {
		f := open(t, path)
		require.NoError(t, os.WriteFile(path, append(data[:len(data):len(data)], 0), 0o644))
		require.ErrorIs(t, f.Unchanged(), ErrChanged)
		_, err := f.Map()
		require.ErrorIs(t, err, ErrChanged)
		require.NoError(t, os.WriteFile(path, data, 0o644))
	})
	t.Run("written", func(t *testing.T) {
		f := open(t, path)
		require.NoError(t, os.Chtimes(path, time.Now(), time.Now().Add(time.Hour)))
		require.ErrorIs(t, f.Unchanged(), ErrChanged)
	})
	t.Run("replaced", func(t *testing.T) { // by rename: the open file is the old one and stays whole
		f := open(t, path)
		require.NoError(t, WriteFile(t.Context(), path, nil, nil))
		require.NoError(t, f.Unchanged())
		info, _ := f.Tensor("t.int64")
		got := make([]byte, info.Bytes)
		require.NoError(t, f.ReadTensor("t.int64", got))
		require.Equal(t, data[info.Offset:][:info.Bytes], got)
	})
}

func TestUnalignedTensors(t *testing.T) {
	header := `{"a":{"dtype":"I8","shape":[4],"data_offsets":[0,4]},"b":{"dtype":"F32","shape":[1],"data_offsets":[4,8]},"c":{"dtype":"C64","shape":[1],"data_offsets":[8,16]},"d":{"dtype":"I64","shape":[1],"data_offsets":[16,24]}}`
	for pad, want := range map[int]string{0: "abcd", 1: "a", 2: "a", 4: "abc"} {
		for len(header)%8 != pad {
			header += " "
		}
		f, err := memoryFile(header, make([]byte, 24))
		require.NoError(t, err)
		aligned := ""
		for _, info := range f.Tensors() {
			if info.Aligned() {
				aligned += info.Name
			}
		}
		require.Equal(t, want, aligned)
	}
}

func memoryFile(header string, data []byte) (*File, error) {
	file := append(append(binary.LittleEndian.AppendUint64(nil, uint64(len(header))), header...), data...)
	return NewFile(bytes.NewReader(file), int64(len(file)), "x")
}

func TestLimits(t *testing.T) {
	_, err := memoryFile(`{"a":{"dtype":"F32","shape":[`+strings.Repeat("1,", MaxDims)+`1],"data_offsets":[0,4]}}`, make([]byte, 4))
	require.ErrorIs(t, err, ErrBadShape)
	_, err = memoryFile(`{"a":{"dtype":"F32","shape":[`+strings.Repeat("1,", MaxDims-1)+`1],"data_offsets":[0,4]}}`, make([]byte, 4))
	require.NoError(t, err)
	for _, header := range []string{ // a field that is skipped must be JSON too, and bounded
		`{"a":{"dtype":"F32","x":{"a":1,"a":1},"shape":[0],"data_offsets":[0,0]}}`,
		`{"a":{"dtype":"F32","x":[` + strings.Repeat("[", 200) + `,"shape":[0],"data_offsets":[0,0]}}`,
		`{"a":{"dtype":"F32","x":nul,"shape":[0],"data_offsets":[0,0]}}`,
	} {
		_, err = memoryFile(header, nil)
		require.Error(t, err)
		require.ErrorContains(t, err, `tensor "a"`)
	}
}

// failing reads until its budget is used up.
type failing struct {
	io.ReaderAt
	err error
}

func (f failing) ReadAt(p []byte, off int64) (int, error) {
	if f.err != nil && off >= 512 {
		return 0, f.err
	}
	return f.ReaderAt.ReadAt(p, off)
}

func TestReadErrorIsPassedOn(t *testing.T) {
	data, err := os.ReadFile(filepath.Join(testdata.Open(t, "safetensors"), "all.safetensors"))
	require.NoError(t, err)
	r := &failing{ReaderAt: strings.NewReader(string(data))}
	f, err := NewFile(r, int64(len(data)), "x")
	require.NoError(t, err)
	r.err = fs.ErrPermission
	err = f.ReadTensor("t.int8", make([]byte, 6))
	require.ErrorIs(t, err, fs.ErrPermission)
	require.NotErrorIs(t, err, ErrTruncated)
	_, err = f.Map()
	require.ErrorIs(t, err, ErrUnsupported)
}
