package pickle

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/torchgo/torchgo/internal/fileerr"
	"github.com/torchgo/torchgo/internal/testdata"
	"github.com/torchgo/torchgo/internal/weights"
)

// referenceCase is what tools/pickleref has recorded of a file.
type referenceCase struct {
	Root      any
	Tensors   map[string]any
	StateDict []string `json:"state_dict"`
	Error     string   // a class
	Says      string
	Keep      any
}

func referenceCases(t *testing.T) (dir string, cases map[string]referenceCase) {
	dir = testdata.Open(t, "pickle")
	data, err := os.ReadFile(filepath.Join(dir, "cases.json"))
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal(data, &cases))
	require.Greater(t, len(cases), 30)
	return dir, cases
}

// describe is a value as tools/pickleref describes it.
func describe(t *testing.T, v Value) any {
	list := func(vs []Value) []any {
		out := make([]any, len(vs))
		for i, v := range vs {
			out[i] = describe(t, v)
		}
		return out
	}
	numbers := func(ns []int) []any {
		out := make([]any, len(ns))
		for i, n := range ns {
			out[i] = float64(n)
		}
		return out
	}
	kind := func(name string, v any, state Value) any {
		m := map[string]any{name: v}
		if state != nil {
			m["state"] = describe(t, state)
		}
		return m
	}
	switch v := v.(type) {
	case nil, bool, string:
		return v
	case int64:
		return kind("int", strconv.FormatInt(v, 10), nil)
	case *big.Int:
		return kind("int", v.String(), nil)
	case float64:
		return kind("float", pythonHex(v), nil)
	case complex128:
		return kind("complex", []any{pythonHex(real(v)), pythonHex(imag(v))}, nil)
	case []byte:
		return kind("bytes", hex.EncodeToString(v), nil)
	case Size:
		out := []any{}
		for _, n := range v {
			out = append(out, float64(n))
		}
		return kind("size", out, nil)
	case Tuple:
		return kind("tuple", list(v), nil)
	case *List:
		return kind("list", list(v.Items), nil)
	case *Set:
		out := list(slices.Collect(v.Items()))
		slices.SortFunc(out, func(a, b any) int { return len(fmt.Sprint(a)) - len(fmt.Sprint(b)) })
		if s, ok := out[0].(string); ok && s > out[len(out)-1].(string) {
			slices.Reverse(out)
		}
		return kind("set", out, nil)
	case *Dict:
		out := []any{}
		for k, x := range v.Items() {
			out = append(out, []any{describe(t, k), describe(t, x)})
		}
		return kind(kindOf(v), out, v.State)
	case DType:
		return kind("dtype", string(v), nil)
	case Device:
		return kind("device", string(v), nil)
	case *Tensor:
		data := make([]byte, v.numel()*dtypes[v.DType].bytes)
		require.NoError(t, gather(v, data, 0))
		sum := sha256.Sum256(data)
		return kind("tensor", []any{string(v.DType), numbers(v.Shape), numbers(v.Strides), float64(v.Start), v.RequiresGrad, v.Parameter, hex.EncodeToString(sum[:16])}, v.State)
	case *Opaque:
		m := kind("opaque", v.String(), v.State).(map[string]any)
		if v.Args != nil {
			m["args"] = list(v.Args)
			for i, a := range m["args"].([]any) { // Python's description has them as they are
				if s, ok := v.Args[i].(string); ok {
					m["args"].([]any)[i] = s
				} else {
					m["args"].([]any)[i] = a
				}
			}
		}
		return m
	}
	require.Failf(t, "no description", "%T", v)
	return nil
}

// pythonHex is a float as Python's float.hex writes it.
func pythonHex(f float64) string {
	switch {
	case f != f:
		return "nan"
	case f == 0:
		return "0x0.0p+0"
	}
	s := strconv.FormatFloat(f, 'x', 13, 64)
	i := slices.Index([]byte(s), 'p')
	exponent, _ := strconv.Atoi(s[i+1:])
	return fmt.Sprintf("%sp%+d", s[:i], exponent)
}

// TestReadsWhatTorchLoadReads: objects, tensors and their values are those of torch.load.
func TestReadsWhatTorchLoadReads(t *testing.T) {
	dir, cases := referenceCases(t)
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(dir, name+".pt")
			f, err := Open(path)
			if c.Error != "" {
				require.ErrorIs(t, err, fileerr.Class(c.Error))
				require.ErrorContains(t, err, c.Says)
				require.ErrorContains(t, err, path)
				if c.Error == "forbidden_global" {
					kept, err := OpenWith(path, Options{KeepUnknown: true})
					if m, ok := c.Keep.(map[string]any); ok && m["error"] != nil {
						require.ErrorIs(t, err, fileerr.Class(m["error"].(string)))
						return
					}
					require.NoError(t, err)
					defer kept.Close()
					if c.Keep != nil {
						require.Equal(t, c.Keep, describe(t, kept.Root()))
					}
				}
				return
			}
			require.NoError(t, err)
			defer f.Close()
			require.Equal(t, c.Root, describe(t, f.Root()))
			require.NoError(t, f.Verify(context.Background()))
			got := map[string]any{}
			for _, ti := range f.Tensors() {
				got[ti.Name] = digestOf(t, f, ti)
			}
			require.Equal(t, c.Tensors, got)
			d, err := f.StateDict()
			if c.StateDict == nil {
				if err == nil { // the file is of one dict of tensors
					require.Equal(t, f.Tensors(), d.Tensors())
				} else {
					require.ErrorIs(t, err, ErrBadPickle)
				}
				return
			}
			require.NoError(t, err)
			names := []string{}
			for _, ti := range d.Tensors() {
				names = append(names, ti.Name)
			}
			require.Equal(t, c.StateDict, names)
		})
	}
}

// digestOf reads a tensor whole, in pieces that end inside elements and rows, and from the mapping.
func digestOf(t *testing.T, f *File, ti weights.TensorInfo) any {
	data := make([]byte, ti.Bytes)
	require.NoError(t, f.ReadTensor(ti.Name, data))
	pieces := make([]byte, ti.Bytes)
	for off, n := 0, 1; off < len(pieces); n = n*2 + 1 {
		n = min(n, len(pieces)-off)
		require.NoError(t, f.ReadPart(ti.Name, pieces[off:off+n], off))
		off += n
	}
	require.Equal(t, data, pieces, ti.Name)
	m, err := f.Map()
	require.NoError(t, err)
	mapped, err := m.Tensor(ti.Name)
	if ti.Plain() {
		require.NoError(t, err)
		require.Equal(t, data, append([]byte{}, mapped...), ti.Name)
	} else {
		require.ErrorIs(t, err, ErrUnsupported)
	}
	require.NoError(t, m.Release())
	shape := []any{}
	for _, d := range ti.Shape {
		shape = append(shape, float64(d))
	}
	sum := sha256.Sum256(data)
	return []any{ti.DType.String(), shape, hex.EncodeToString(sum[:16])}
}

// What a model's file has is mapped: storages lie in the file as they are used, at multiples of 64.
func TestStateDictsAreMapped(t *testing.T) {
	dir, _ := referenceCases(t)
	for name, align := range map[string]int64{"module": 64, "parameters": 64, "aligned": 4096, "no-checksums": 64} {
		f, err := Open(filepath.Join(dir, name+".pt"))
		require.NoError(t, err)
		defer f.Close()
		require.NotZero(t, f.Len())
		for _, ti := range f.Tensors() {
			require.True(t, ti.Plain(), ti.Name)
			require.Zero(t, ti.Offset%align, "%s: %s", name, ti.Name)
		}
	}
}

// Tied weights are one storage, and one place in the file.
func TestSharedStoragesAreShared(t *testing.T) {
	dir, _ := referenceCases(t)
	for _, name := range []string{"module", "parameters"} {
		f, err := Open(filepath.Join(dir, name+".pt"))
		require.NoError(t, err)
		defer f.Close()
		a, ok := f.Tensor("embed.weight")
		b, ok2 := f.Tensor("head.weight")
		require.True(t, ok && ok2)
		require.Equal(t, a.Offset, b.Offset)
		x, _ := f.Root().(*Dict).Get("embed.weight")
		y, _ := f.Root().(*Dict).Get("head.weight")
		require.Same(t, x.(*Tensor).Storage, y.(*Tensor).Storage)
	}
}
