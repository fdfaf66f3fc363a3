package safetensors

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/torchgo/torchgo/internal/atomicfile"
	"github.com/torchgo/torchgo/internal/planes"
	"github.com/torchgo/torchgo/internal/weights"
)

// someWeights are tensors of every dtype: what could be weights where they are floats, noise else.
func someWeights() (tensors []Source, data map[string][]byte) {
	rnd := rand.New(rand.NewPCG(1, 2))
	data = map[string][]byte{}
	add := func(name string, d DType, shape ...int) {
		size, err := weights.ByteSize(d, shape)
		if err != nil {
			panic(err)
		}
		p := make([]byte, size)
		for i := range p {
			p[i] = byte(rnd.Uint32())
		}
		switch d {
		case BOOL:
			for i := range p {
				p[i] &= 1
			}
		case BF16:
			for i := 0; i < len(p); i += 2 {
				binary.LittleEndian.PutUint16(p[i:], uint16(math.Float32bits(float32(rnd.NormFloat64()*0.02))>>16))
			}
		case F32, C64:
			for i := 0; i < len(p); i += 4 {
				binary.LittleEndian.PutUint32(p[i:], math.Float32bits(float32(rnd.NormFloat64())))
			}
		}
		data[name] = p
		tensors = append(tensors, Source{name, d, shape, Data(p)})
	}
	for d := BOOL; valid(d); d++ {
		add("all."+d.String(), d, 3, 8)
	}
	add("embed", BF16, 300, 700)
	add("head", F32, 70, 900)
	add("complex", C64, 40, 100)
	add("scalar", F64)
	add("none", F32, 0, 7)
	add(`a "quoted" name`, I64, 5)
	return tensors, data
}

// saved writes tensors into a folder and opens the files.
func saved(t *testing.T, tensors []Source, o ShardOptions) (string, []*File) {
	dir := t.TempDir()
	names, err := WriteSharded(t.Context(), dir, tensors, o)
	require.NoError(t, err)
	var files []*File
	for _, name := range names {
		if strings.HasSuffix(name, ".json") {
			continue
		}
		f, err := Open(filepath.Join(dir, name))
		require.NoError(t, err)
		t.Cleanup(func() { _ = f.Close() })
		files = append(files, f)
	}
	return dir, files
}

// A compressed file shows the tensors and the metadata that an ordinary one has, and is smaller.
func TestCompressedIsTheSame(t *testing.T) {
	tensors, data := someWeights()
	metadata := map[string]string{"format": "pt", "more": "é\n"}
	for _, limit := range []int64{0, 300_000} {
		dir, plain := saved(t, tensors, ShardOptions{Metadata: metadata, MaxShardBytes: limit})
		smallDir, small := saved(t, tensors, ShardOptions{Metadata: metadata, MaxShardBytes: limit, Compress: true})
		require.Equal(t, len(plain), len(small))
		var plainSize, smallSize int64
		for i := range plain {
			require.Equal(t, plain[i].Metadata(), small[i].Metadata())
			require.Equal(t, plain[i].Len(), small[i].Len())
			plainSize, smallSize = plainSize+plain[i].Size(), smallSize+small[i].Size()
			for k, want := range plain[i].Tensors() {
				got := small[i].Tensors()[k]
				require.False(t, got.Plain())
				got.Offset = want.Offset
				require.Equal(t, want, got)
				p := make([]byte, want.Bytes)
				require.NoError(t, small[i].ReadTensor(want.Name, p))
				require.True(t, bytes.Equal(data[want.Name], p), want.Name)
				if n := want.Bytes; n > 10 {
					require.NoError(t, small[i].ReadPart(want.Name, p[:n/3], n/2))
					require.True(t, bytes.Equal(data[want.Name][n/2:][:n/3], p[:n/3]), want.Name)
				}
				m, err := small[i].Map()
				require.NoError(t, err)
				_, err = m.Tensor(want.Name)
				require.ErrorIs(t, err, ErrUnsupported)
				require.NoError(t, m.Release())
			}
		}
		require.Less(t, smallSize, plainSize*85/100)
		for _, name := range []string{"model.safetensors.index.json"} {
			want, wantErr := os.ReadFile(filepath.Join(dir, name))
			got, gotErr := os.ReadFile(filepath.Join(smallDir, name))
			require.Equal(t, wantErr == nil, gotErr == nil)
			require.Equal(t, string(want), string(got))
		}
	}
}

// What others see: a valid file, all tensors of which have a dtype and a shape that no weight has.
func TestCompressedToOtherReaders(t *testing.T) {
	tensors, _ := someWeights()
	dir, _ := saved(t, tensors, ShardOptions{Compress: true})
	data, err := os.ReadFile(filepath.Join(dir, "model.safetensors"))
	require.NoError(t, err)
	n := binary.LittleEndian.Uint64(data)
	require.Zero(t, n%8)
	var header map[string]json.RawMessage
	require.NoError(t, json.Unmarshal(data[8:8+n], &header))
	var metadata map[string]string
	require.NoError(t, json.Unmarshal(header["__metadata__"], &metadata))
	require.Equal(t, "torchgo.planes/1", metadata["format"])
	require.Len(t, header, len(tensors)+1)
	total := 0
	for _, s := range tensors {
		var entry struct {
			DType   string `json:"dtype"`
			Shape   []int  `json:"shape"`
			Offsets []int  `json:"data_offsets"`
		}
		require.NoError(t, json.Unmarshal(header[s.Name], &entry))
		size := entry.Offsets[1] - entry.Offsets[0]
		require.Equal(t, "U8", entry.DType)
		require.Equal(t, []int{1, 1, 1, 1, 1, 1, size}, entry.Shape)
		total += size
	}
	require.Equal(t, len(data), 8+int(n)+total)
}

// compressedFile is a file of two tensors, whose header a test may change.
func compressedFile(t testing.TB, change func(head string) string) []byte {
	frame := func(element int, data []byte) []byte {
		var b bytes.Buffer
		e, err := planes.NewEncoder(&b, element)
		require.NoError(t, err)
		_, err = e.Write(data)
		require.NoError(t, err)
		require.NoError(t, e.Close())
		return b.Bytes()
	}
	a, b := frame(2, []byte("abcdefgh")), frame(1, bytes.Repeat([]byte{1}, 5000))
	inner := `{\"a\":{\"dtype\":\"BF16\",\"shape\":[2,2],\"data_offsets\":[0,8]},\"b\":{\"dtype\":\"BOOL\",\"shape\":[5000],\"data_offsets\":[8,5008]}}`
	head := fmt.Sprintf(`{"__metadata__":{"format":"torchgo.planes/1","header":"%[1]s"},"a":{"dtype":"U8","shape":[1,1,1,1,1,1,%[2]d],"data_offsets":[0,%[2]d]},"b":{"dtype":"U8","shape":[1,1,1,1,1,1,%[3]d],"data_offsets":[%[2]d,%[4]d]}}`,
		inner, len(a), len(b), len(a)+len(b))
	head = change(head)
	out := binary.LittleEndian.AppendUint64(nil, uint64(len(head)))
	return append(append(append(out, head...), a...), b...)
}

func TestHostileCompressed(t *testing.T) {
	for _, c := range []struct {
		name, old, new string
		class          error
	}{
		{"as it is", "", "", nil},
		{"later version", "planes/1", "planes/2", ErrUnsupportedVersion},
		{"no header", `"header":`, `"other":`, ErrBadHeader},
		{"header is no JSON", `"header":"{`, `"header":"[`, ErrBadHeader},
		{"a tensor is not described", `\"b\":`, `\"c\":`, ErrBadHeader},
		{"a tensor is not there", `"b":{"dtype":"U8"`, `"c":{"dtype":"U8"`, ErrBadHeader},
		{"one more is promised", `{\"a\":`, `{\"0\":{\"dtype\":\"U8\",\"shape\":[0],\"data_offsets\":[0,0]},\"a\":`, ErrMissingTensor},
		{"twice", `\"b\":`, `\"a\":`, ErrDuplicate},
		{"other dtype", `U8","shape":[1,1,1,1,1,1`, `I8","shape":[1,1,1,1,1,1`, ErrBadHeader},
		{"other shape", `[1,1,1,1,1,1,`, `[`, ErrBadHeader},
		{"no such dtype", `BF16`, `BF17`, ErrBadDType},
		{"negative", `[2,2]`, `[-2,-2]`, ErrBadShape},
		{"overflow", `[2,2]`, `[4611686018427387904,4]`, ErrBadShape},
		{"size", `[2,2]`, `[2,3]`, ErrSizeMismatch},
		{"hole", `[8,5008]`, `[9,5009]`, ErrBadOffset},
		{"overlap", `[8,5008]`, `[7,5007]`, ErrBadOffset},
		{"terabytes", `[5000],\"data_offsets\":[8,5008]`, `[1099511627776],\"data_offsets\":[8,1099511627784]`, ErrSizeMismatch},
		{"beyond int64", `[5000],\"data_offsets\":[8,5008]`, `[9223372036854775807],\"data_offsets\":[9223372036854775800,9223372036854775807]`, ErrBadOffset},
	} {
		t.Run(c.name, func(t *testing.T) {
			data := compressedFile(t, func(head string) string {
				require.Contains(t, head, c.old)
				return strings.Replace(head, c.old, c.new, 1)
			})
			_, err := NewFile(bytes.NewReader(data), int64(len(data)), "x.safetensors")
			if c.class == nil {
				require.NoError(t, err)
				require.NoError(t, readAll(t, data))
				return
			}
			require.ErrorIs(t, err, c.class)
			require.Contains(t, err.Error(), "x.safetensors")
			require.NotContains(t, err.Error(), "\n")
		})
	}
	for _, c := range []struct {
		name, old, new string
		class          error
	}{
		{"dtype of another size", `BF16\",\"shape\":[2,2]`, `F32\",\"shape\":[2]`, ErrSizeMismatch},
		{"more elements", `[5000],\"data_offsets\":[8,5008]`, `[5001],\"data_offsets\":[8,5009]`, ErrSizeMismatch},
	} {
		t.Run("when it is read: "+c.name, func(t *testing.T) {
			data := compressedFile(t, func(head string) string { return strings.Replace(head, c.old, c.new, 1) })
			err := readAll(t, data)
			require.ErrorIs(t, err, c.class)
			var e *Error
			require.ErrorAs(t, err, &e)
			require.NotEmpty(t, e.Tensor)
		})
	}
}

// Any flip in a compressed file, or any part of it cut off, is an error or changes nothing but the names, dtypes and
// shapes that the header has.
func TestDamagedCompressed(t *testing.T) {
	data := compressedFile(t, func(head string) string { return head })
	head := 8 + int(binary.LittleEndian.Uint64(data))
	for n := range data {
		require.Error(t, readAll(t, data[:n]), "cut at %d", n)
	}
	for bit := range 8 * len(data) {
		bad := bytes.Clone(data)
		bad[bit/8] ^= 1 << (bit % 8)
		if err := readAll(t, bad); bit/8 >= head {
			require.Error(t, err, "bit %d", bit)
		}
	}
}

// A value that a BOOL must not have is found in a compressed file, too.
func TestCompressedBools(t *testing.T) {
	_, err := WriteSharded(t.Context(), t.TempDir(), []Source{{"b", BOOL, []int{3}, Data([]byte{0, 1, 2})}}, ShardOptions{Compress: true})
	require.ErrorIs(t, err, ErrBadValue)
	data := compressedFile(t, func(head string) string {
		return strings.Replace(head, `BF16\",\"shape\":[2,2]`, `BOOL\",\"shape\":[8]`, 1)
	})
	require.ErrorIs(t, readAll(t, data), ErrSizeMismatch)
}

// Each operation of a compressed save fails in turn: the folder has the old checkpoint, or the new one, whole.
func TestEveryFaultWhileSavingCompressed(t *testing.T) {
	tensors, data := someWeights()
	old := []Source{{"old", U8, []int{2}, Data([]byte("ab"))}}
	failed := 0
	for n := 0; ; n++ {
		dir := memoryDir(t)
		_, err := WriteSharded(t.Context(), dir, old, ShardOptions{Compress: true})
		require.NoError(t, err)
		count, broken := 0, errors.New("broken")
		restore := atomicfile.Intercept(func(op atomicfile.Op, path string) error {
			count++
			switch {
			case count-1 != n:
				return nil
			case op == atomicfile.OpWrite && n%2 == 0:
				return atomicfile.ErrShort
			}
			return broken
		})
		_, err = WriteSharded(t.Context(), dir, tensors, ShardOptions{Compress: true})
		restore()
		f, openErr := Open(filepath.Join(dir, "model.safetensors"))
		require.NoError(t, openErr)
		if _, isOld := f.Tensor("old"); isOld {
			require.Error(t, err)
		} else {
			for name, want := range data {
				p := make([]byte, len(want))
				require.NoError(t, f.ReadTensor(name, p))
				require.True(t, bytes.Equal(want, p))
			}
		}
		require.NoError(t, f.Close())
		if err != nil {
			failed++
		}
		if n >= count {
			require.NoError(t, err)
			break
		}
	}
	require.Greater(t, failed, 5)
}
