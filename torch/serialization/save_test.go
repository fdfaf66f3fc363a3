package serialization_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"io/fs"
	"iter"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/torchgo/torchgo/internal/testdata"
	"github.com/torchgo/torchgo/pretrained/pickle"
	"github.com/torchgo/torchgo/torch"
	"github.com/torchgo/torchgo/torch/nn"
	"github.com/torchgo/torchgo/torch/serialization"
)

var ctx = context.Background()

func TestMain(m *testing.M) {
	if err := torch.Load(); err != nil {
		panic(err)
	}
	os.Exit(m.Run())
}

func load(t *testing.T, path string) *serialization.Loaded {
	l, err := serialization.Load(ctx, path)
	require.NoError(t, err)
	t.Cleanup(l.Close)
	return l
}

func readJSON(t *testing.T, path string, to any) {
	text, err := os.ReadFile(path)
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal(text, to))
}

// Tensors are what they are in Python: each dtype, views with their strides, what shares a storage.
func TestLoadsWhatPythonSaved(t *testing.T) {
	dir := testdata.Open(t, "torchsave")
	var want map[string]struct {
		DType        string
		Shape        []int
		Stride       []int
		Offset       int
		RequiresGrad bool `json:"requires_grad"`
		Storage      int
		SHA256       string
	}
	readJSON(t, filepath.Join(dir, "tensors.json"), &want)
	last := 0
	for _, w := range want {
		last = max(last, w.Storage)
	}
	live := torch.LiveTensors()
	l, err := serialization.Load(ctx, filepath.Join(dir, "tensors.pt"))
	require.NoError(t, err)
	state, err := l.StateDict()
	require.NoError(t, err)
	storages := map[uintptr]int{}
	torch.Scope(func() {
		for name, x := range state {
			w, ok := want[name]
			require.True(t, ok, name)
			delete(want, name)
			require.Equal(t, w.DType, x.DType().String(), name)
			require.Equal(t, w.Shape, append([]int{}, x.Shape()...), name)
			require.Equal(t, w.Stride, append([]int{}, x.Stride()...), name)
			require.Equal(t, w.Offset, x.StorageOffset(), name)
			require.Equal(t, w.RequiresGrad, x.RequiresGrad(), name)
			require.True(t, x.IsLeaf(), name)
			if first, ok := storages[x.StorageID()]; ok && x.StorageBytes() > 0 {
				require.Equal(t, first, w.Storage, "%s: whose storage it shares", name)
			}
			storages[x.StorageID()] = w.Storage
			plain := x.Detach()
			if !plain.IsContiguous() || plain.IsConj() || plain.IsNeg() {
				plain = plain.ResolveConj().ResolveNeg().Contiguous()
			}
			sum := sha256.Sum256(plain.Bytes())
			require.Equal(t, w.SHA256, hex.EncodeToString(sum[:]), name)
		}
	})
	require.Empty(t, want)
	require.Len(t, storages, last+1, "no storage twice")
	x, err := l.At("parameter")
	require.NoError(t, err)
	same, err := l.At("same")
	require.NoError(t, err)
	require.Same(t, x, same)
	l.Close()
	require.LessOrEqual(t, torch.LiveTensors(), live)
}

// What was loaded is saved in the bytes in which torch.save had written it.
func TestSavesWhatTorchSaveWrites(t *testing.T) {
	dir := testdata.Open(t, "torchsave")
	for _, name := range []string{"plain.pt", "values.pt", "statedict.pt", "many.pt", "training/Adam.pt", "training/LBFGS.pt"} {
		path := filepath.Join(dir, name)
		want, err := os.ReadFile(path)
		require.NoError(t, err)
		live := torch.LiveTensors()
		l, err := serialization.Load(ctx, path)
		require.NoError(t, err)
		again := filepath.Join(t.TempDir(), "again.pt")
		require.NoError(t, serialization.Save(ctx, again, l.Value))
		l.Close()
		require.LessOrEqual(t, torch.LiveTensors(), live)
		got, err := os.ReadFile(again)
		require.NoError(t, err)
		// All but the identification, which is the last record, and the directory.
		end := bytes.Index(want, []byte("archive/.data/serialization_id")) - 30
		for i := range end {
			if want[i] != got[i] {
				require.Fail(t, "files differ", "%s at %d: %q, got %q", name, i, want[max(i-40, 0):i+40], got[max(i-40, 0):i+40])
			}
		}
	}
}

// Go's own types become Python's: described in the types of package pickle.
func TestSavesGoValues(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x.pt")
	type name string
	torch.Scope(func() {
		x := torch.FromSlice([]float32{1, 2, 3, 4}, 2, 2)
		model := nn.NewLinear(2, 2)
		require.NoError(t, serialization.Save(ctx, path, map[string]any{
			"ints":    []int{1, -2},
			"numbers": []any{int8(1), uint16(2), float32(0.5), 1i, true, nil},
			"names":   []name{"a"},
			"map":     map[int]string{2: "two", -1: "minus one"},
			"dtype":   torch.BFloat16,
			"device":  torch.CPU,
			"size":    torch.Shape{2, 3},
			"bytes":   []byte{0, 255},
			"views":   []*torch.Tensor{x.T(), x.Select(0, 1), x},
			"model":   nn.StateDict(model),
			"inside":  pickle.Tuple{x, map[string]*torch.Tensor{"x": x}},
			"grad":    torch.Ones([]int{1}).SetRequiresGrad(true),
		}))
	})
	l := load(t, path)
	list := func(items ...any) any {
		v := &pickle.List{}
		for _, item := range items {
			v.Items = append(v.Items, item)
		}
		return v
	}
	var keys []any
	for key := range l.Value.(*pickle.Dict).Items() {
		keys = append(keys, key)
	}
	require.Equal(t, []any{"bytes", "device", "dtype", "grad", "inside", "ints", "map", "model", "names", "numbers", "size", "views"}, keys)
	for key, want := range map[string]any{
		"ints": list(int64(1), int64(-2)), "numbers": list(int64(1), int64(2), 0.5, 1i, true, nil), "names": list("a"),
		"dtype": pickle.DType("bfloat16"), "device": pickle.Device("cpu"), "size": pickle.Size{2, 3}, "bytes": []byte{0, 255},
	} {
		v, err := l.At(key)
		require.NoError(t, err)
		require.Equal(t, want, v)
	}
	m, err := l.At("map")
	require.NoError(t, err)
	var pairs []any
	for k, v := range m.(*pickle.Dict).Items() {
		pairs = append(pairs, k, v)
	}
	require.Equal(t, []any{int64(-1), "minus one", int64(2), "two"}, pairs)
	tensor := func(path ...any) *torch.Tensor {
		v, err := l.At(path...)
		require.NoError(t, err)
		return v.(*torch.Tensor)
	}
	require.Equal(t, []int{1, 2}, tensor("views", 0).Stride())
	require.Equal(t, 2, tensor("views", 1).StorageOffset())
	require.Equal(t, tensor("views", 0).StorageID(), tensor("views", 1).StorageID())
	require.Same(t, tensor("views", 2), tensor("inside", 0))
	require.Same(t, tensor("views", 2), tensor("inside", 1, "x"))
	require.True(t, tensor("grad").RequiresGrad())
	model, err := l.At("model")
	require.NoError(t, err)
	require.Equal(t, pickle.OrderedDict, model.(*pickle.Dict).Class)
	state, err := l.StateDict("model")
	require.NoError(t, err)
	for _, x := range state {
		require.False(t, x.RequiresGrad(), "as Module.state_dict detaches")
	}
	require.NoError(t, nn.LoadStateDict(nn.NewLinear(2, 2), state))

	// A loaded tensor is a leaf that can be trained and changed in place.
	grad := tensor("grad")
	torch.Scope(func() { grad.MulScalar(3).Sum().Backward() })
	require.Equal(t, []float32{3}, torch.ToSlice[float32](grad.Grad()))
	torch.NoGrad(func() { grad.Fill_(5) })
}

func TestSaveRefuses(t *testing.T) {
	type own struct{}
	closed := torch.Ones([]int{2})
	closed.Close()
	loop := map[string]any{}
	loop["again"] = loop
	torch.Scope(func() {
		x := torch.Zeros([]int{4})
		for name, c := range map[string]struct {
			v    any
			want string
		}{
			"type":       {map[string]any{"a": map[string]any{"b": own{}}}, "value.a.b: can't save a serialization_test.own"},
			"key":        {map[float64]any{}, "expected keys that are strings or integers"},
			"nil tensor": {[]*torch.Tensor{nil}, "value.0: a nil tensor"},
			"closed":     {map[string]any{"x": closed}, "closed"},
			"meta":       {torch.Empty([]int{2}, torch.EmptyOptions{Device: torch.Meta}), "without data"},
			"sparse":     {torch.Zeros([]int{2, 2}).ToSparse(), "layout"},
			"loop":       {loop, "deep"},
			"quantized":  {torch.QuantizePerTensor(x, 0.1, 0, torch.QInt8), "qint8"},
			"two dtypes": {[]any{x, x.ViewDType(torch.Int32)}, "different dtypes in one storage"},
			"opaque":     {&pickle.Opaque{Module: "os", Name: "system"}, "os.system"},
			"state dict": {iter.Seq2[string, *torch.Tensor](func(yield func(string, *torch.Tensor) bool) { yield("w", nil) }), "value.w: a nil tensor"},
		} {
			path := filepath.Join(t.TempDir(), "x.pt")
			require.NoError(t, os.WriteFile(path, []byte("old"), 0o600))
			live := torch.LiveTensors()
			err := serialization.Save(ctx, path, c.v)
			require.ErrorContains(t, err, c.want, name)
			require.ErrorContains(t, err, path, name)
			require.NotContains(t, err.Error(), "\n", name)
			require.LessOrEqual(t, torch.LiveTensors(), live, name)
			old, err := os.ReadFile(path)
			require.NoError(t, err)
			require.Equal(t, "old", string(old), name)
		}
	})
}

func TestLoadRefuses(t *testing.T) {
	dir := testdata.Open(t, "torchsave")
	_, err := serialization.Load(ctx, filepath.Join(dir, "none.pt"))
	require.ErrorIs(t, err, fs.ErrNotExist)
	live := torch.LiveTensors()
	ended, cancel := context.WithCancel(ctx)
	cancel()
	_, err = serialization.Load(ended, filepath.Join(dir, "plain.pt"))
	require.ErrorIs(t, err, context.Canceled)

	// A bool that is none, in the second of two tensors.
	path := filepath.Join(t.TempDir(), "bool.pt")
	storage := &pickle.Storage{Bytes: 2, Data: bytes.NewReader([]byte{1, 2})}
	good := &pickle.Storage{Bytes: 4, Data: bytes.NewReader(make([]byte, 4))}
	require.NoError(t, pickle.WriteFile(ctx, path, &pickle.List{Items: []pickle.Value{
		&pickle.Tensor{DType: "float32", Storage: good},
		&pickle.Tensor{DType: "bool", Shape: []int{2}, Strides: []int{1}, Storage: storage}}}))
	_, err = serialization.Load(ctx, path)
	require.ErrorIs(t, err, pickle.ErrBadValue)
	require.ErrorContains(t, err, path)
	require.LessOrEqual(t, torch.LiveTensors(), live)

	l := load(t, filepath.Join(dir, "values.pt"))
	for _, path := range [][]any{{"nothing"}, {"lists", 3}, {"lists", "0"}, {"lists", -1}, {"true", 0}, {"tuples", 1, 1}} {
		_, err := l.At(path...)
		require.ErrorContains(t, err, "nothing at ")
	}
	for _, path := range [][]any{{}, {"lists"}, {"nothing"}} {
		_, err := l.StateDict(path...)
		require.Error(t, err)
	}
	v, err := l.At("tuples", 2, 1)
	require.NoError(t, err)
	require.Equal(t, int64(2), v)
}

func TestMapLocation(t *testing.T) {
	l, err := serialization.Load(ctx, filepath.Join(testdata.Open(t, "torchsave"), "plain.pt"), serialization.LoadOptions{MapLocation: torch.Meta})
	require.NoError(t, err)
	defer l.Close()
	state, err := l.StateDict()
	require.NoError(t, err)
	for name, x := range state {
		require.Equal(t, torch.Meta, x.Device(), name)
	}
}
