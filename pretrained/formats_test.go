package pretrained_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/torchgo/torchgo/internal/testdata"
	"github.com/torchgo/torchgo/pretrained"
	"github.com/torchgo/torchgo/pretrained/checkpoint"
	"github.com/torchgo/torchgo/pretrained/pickle"
	"github.com/torchgo/torchgo/pretrained/safetensors"
	"github.com/torchgo/torchgo/torch"
)

// sameModel loads two checkpoints and compares all that the models have.
func sameModel(t *testing.T, want, got string, opts pretrained.Options) {
	t.Helper()
	class := opts.Class
	m, _ := load(t, want, pretrained.Options{Class: class, DType: opts.DType})
	n, r, err := pretrained.Load(ctx, got, opts)
	require.NoError(t, err)
	defer n.Close()
	require.Empty(t, r.MissingKeys)
	require.Empty(t, r.UnexpectedKeys)
	a, b := state(m), state(n)
	require.Len(t, b, len(a))
	for name, x := range a {
		require.Equal(t, x.DType(), b[name].DType(), name)
		require.True(t, x.Equal(b[name]), name)
	}
}

// The parts that ranks wrote make the model that they were cut from (torch.distributed.checkpoint).
func TestLoadsDistributedCheckpoints(t *testing.T) {
	single := loaderCase(t, "single")
	for _, name := range []string{"rows", "grid", "columns"} {
		dir := filepath.Join(testdata.Open(t, "dcp"), name)
		for _, opts := range []pretrained.Options{{}, {DisableMmap: true}, {DType: torch.BFloat16}, {UseSafetensors: torch.Some(true)}} {
			opts.Strict = true
			sameModel(t, single, dir, opts)
		}
		_, _, err := pretrained.Load(ctx, dir, pretrained.Options{UseSafetensors: torch.Some(false)})
		require.ErrorIs(t, err, pretrained.ErrMissingShard)
	}
	// What is saved beside one would not be found.
	dir := testdata.Copy(t, "dcp")
	m, _ := load(t, single, pretrained.Options{})
	err := pretrained.SavePretrained(ctx, m, filepath.Join(dir, "rows"), pretrained.SaveOptions{})
	require.ErrorIs(t, err, pretrained.ErrConflict)
	require.ErrorContains(t, err, "distributed checkpoint")
	require.NoFileExists(t, filepath.Join(dir, "rows", "model.safetensors"))
	require.NoError(t, pretrained.SavePretrained(ctx, m, filepath.Join(dir, "rows"), pretrained.SaveOptions{Variant: "fp16"}))
}

// A file that Python's safetensors wrote, with every dtype that torch has, is the same after it was loaded and saved.
// Elements of less than a byte: two F4 are one float4_e2m1fn_x2; what torch has no dtype for comes as its bytes.
func TestEveryDTypeThroughTensors(t *testing.T) {
	from := filepath.Join(testdata.Open(t, "safetensors"), "all.safetensors")
	tensors, err := pretrained.LoadFile(ctx, from)
	require.NoError(t, err)
	require.Equal(t, torch.Float4E2M1FNX2, tensors["t.float4_e2m1fn_x2"].DType())
	to := filepath.Join(t.TempDir(), "all.safetensors")
	require.NoError(t, pretrained.SaveFile(ctx, to, tensors, map[string]string{"format": "pt"}))
	want, err := checkpoint.List(ctx, from, true)
	require.NoError(t, err)
	got, err := checkpoint.List(ctx, to, true)
	require.NoError(t, err)
	require.ElementsMatch(t, want.Tensors, got.Tensors)
	for _, x := range tensors {
		x.Close()
	}
	six := filepath.Join(t.TempDir(), "six.safetensors")
	bytes := []byte{1, 2, 3, 4, 5, 6}
	require.NoError(t, safetensors.WriteFile(ctx, six, []safetensors.Source{{Name: "x", DType: safetensors.F6E2M3, Shape: []int{2, 4}, Write: safetensors.Data(bytes)},
		{Name: "y", DType: safetensors.F4, Shape: []int{4, 3}, Write: safetensors.Data(bytes)}}, nil))
	for _, opts := range []pretrained.LoadStateDictOptions{{}, {DisableMmap: true}} {
		tensors, err = pretrained.LoadStateDict(ctx, six, opts)
		require.NoError(t, err)
		for _, x := range tensors {
			require.Equal(t, torch.Uint8, x.DType())
			require.Equal(t, []int{6}, x.Shape())
			require.Equal(t, bytes, x.Bytes())
			x.Close()
		}
	}
}

// A training script's checkpoint holds the model among other things; a class that isn't known is an error, or passed over.
func TestLoadsTrainingCheckpoints(t *testing.T) {
	dir := t.TempDir()
	single := loaderCase(t, "single")
	data, err := os.ReadFile(filepath.Join(single, "config.json"))
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(filepath.Join(dir, "config.json"), data, 0o644))
	state := &pickle.Dict{Class: pickle.OrderedDict}
	for name, x := range pickled(t, single) {
		require.NoError(t, state.Set("module."+name, x))
	}
	all := &pickle.Dict{}
	require.NoError(t, all.Set("epoch", int64(3)))
	require.NoError(t, all.Set("state_dict", state))
	require.NoError(t, pickle.WriteFile(ctx, filepath.Join(dir, "pytorch_model.bin"), all))
	sameModel(t, single, dir, pretrained.Options{Strict: true})
	sameModel(t, single, dir, pretrained.Options{Strict: true, DisableMmap: true, DType: torch.Float16})
	sameModel(t, single, dir, pretrained.Options{Strict: true, UseSafetensors: torch.Some(false), WeightsOnly: torch.Some(false)})
	_, _, err = pretrained.Load(ctx, dir, pretrained.Options{UseSafetensors: torch.Some(true)})
	require.ErrorIs(t, err, pretrained.ErrMissingShard)
	l, err := checkpoint.List(ctx, dir, false)
	require.NoError(t, err)
	require.Equal(t, map[string]any{"epoch": int64(3)}, l.Metadata)
	require.True(t, strings.HasPrefix(l.Tensors[0].Name, "state_dict.module."), l.Tensors[0].Name)
}

// pickled are the weights of a folder's model.safetensors as PyTorch saves them.
func pickled(t *testing.T, dir string) map[string]*pickle.Tensor {
	f, err := safetensors.Open(filepath.Join(dir, "model.safetensors"))
	require.NoError(t, err)
	defer f.Close()
	tensors := map[string]*pickle.Tensor{}
	for _, info := range f.Tensors() {
		bytes := make([]byte, info.Bytes)
		require.NoError(t, f.ReadTensor(info.Name, bytes))
		x := &pickle.Tensor{DType: "float32", Storage: &pickle.Storage{Data: strings.NewReader(string(bytes)), Bytes: int64(len(bytes)), DType: "float32", Location: "cpu"}}
		x.Shape, x.Strides = info.Shape, make([]int, len(info.Shape))
		for d, stride := len(info.Shape)-1, 1; d >= 0; d-- {
			x.Strides[d] = stride
			stride *= info.Shape[d]
		}
		tensors[info.Name] = x
	}
	return tensors
}

// A zip's storages are mapped, each once. Two parameters that share one in the file don't in the model, unless they are
// tied there.
func TestStoragesOfPickles(t *testing.T) {
	dir := t.TempDir()
	single := loaderCase(t, "single")
	data, err := os.ReadFile(filepath.Join(single, "config.json"))
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(filepath.Join(dir, "config.json"), data, 0o644))
	const query, key = "bert.encoder.layer.0.attention.self.query.weight", "bert.encoder.layer.0.attention.self.key.weight"
	const embeddings, decoder = "bert.embeddings.word_embeddings.weight", "cls.predictions.decoder.weight"
	saved := &pickle.Dict{Class: pickle.OrderedDict}
	tensors := pickled(t, single)
	tensors[key].Storage = tensors[query].Storage
	tensors[decoder] = tensors[embeddings]
	for name, x := range tensors {
		require.NoError(t, saved.Set(name, x))
	}
	require.NoError(t, pickle.WriteFile(ctx, filepath.Join(dir, "pytorch_model.bin"), saved))
	m, r := load(t, dir, pretrained.Options{Strict: true})
	require.Equal(t, map[string]string{decoder: embeddings, "cls.predictions.decoder.bias": "cls.predictions.bias"}, r.TiedKeys)
	own := 0
	for name, x := range state(m) {
		if !inMappingOf(t, x.DataPtr(), "pytorch_model.bin") {
			own++
			require.Contains(t, []string{query, key}, name)
		}
	}
	require.Equal(t, 1, own)
	weights := state(m)
	require.True(t, weights[query].Equal(weights[key]))
	before := weights[key].Clone()
	torch.NoGrad(func() { weights[query].Zero_() })
	require.True(t, weights[key].Equal(before))
	require.Equal(t, weights[embeddings].DataPtr(), weights[decoder].DataPtr())
}
