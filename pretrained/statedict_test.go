package pretrained_test

import (
	"context"
	"maps"
	"path/filepath"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/torchgo/torchgo/internal/testdata"
	"github.com/torchgo/torchgo/pretrained"
	"github.com/torchgo/torchgo/pretrained/safetensors"
	"github.com/torchgo/torchgo/torch"
	"github.com/torchgo/torchgo/torch/nn/nninit"
)

func TestLoadStateDict(t *testing.T) {
	file := filepath.Join(loaderCase(t, "fp16-auto"), "model.safetensors")
	f, err := safetensors.Open(file)
	require.NoError(t, err)
	defer f.Close()
	for _, opts := range []pretrained.LoadStateDictOptions{{}, {DisableMmap: true}, {MapLocation: torch.Meta}} {
		got, err := pretrained.LoadStateDict(ctx, file, opts)
		require.NoError(t, err)
		require.Len(t, got, len(f.Tensors()))
		for _, info := range f.Tensors() {
			x := got[info.Name]
			require.Equal(t, info.Shape, x.Shape())
			require.Equal(t, torch.Float16, x.DType())
			if opts.MapLocation == torch.Meta {
				require.Equal(t, torch.Meta, x.Device())
				continue
			}
			require.Equal(t, !opts.DisableMmap, inMappingOf(t, x.DataPtr(), "model.safetensors"))
			want := make([]byte, info.Bytes)
			require.NoError(t, f.ReadTensor(info.Name, want))
			require.Equal(t, want, x.Bytes())
		}
		for _, x := range got {
			x.Close()
		}
	}
	torch.Collect() // what other tests have left
	live := torch.LiveTensors()
	for name, class := range map[string]error{
		"bin-malicious/pytorch_model.bin": pretrained.ErrForbiddenGlobal,
		"truncated/model.safetensors":     pretrained.ErrTruncated,
	} {
		_, err = pretrained.LoadStateDict(ctx, filepath.Join(testdata.Open(t, "loader"), name), pretrained.LoadStateDictOptions{})
		require.ErrorIs(t, err, class)
	}
	done, cancel := context.WithCancel(ctx)
	cancel()
	_, err = pretrained.LoadStateDict(done, file, pretrained.LoadStateDictOptions{})
	require.ErrorIs(t, err, context.Canceled)
	require.Equal(t, live, torch.LiveTensors())
}

func TestRemoveTiedWeightsFromStateDict(t *testing.T) {
	dir := loaderCase(t, "single")
	m, _ := load(t, dir, pretrained.Options{})
	all := state(m)
	require.Contains(t, all, "cls.predictions.decoder.weight")
	got, err := pretrained.RemoveTiedWeightsFromStateDict(all, m)
	require.NoError(t, err)
	f, err := safetensors.Open(filepath.Join(dir, "model.safetensors")) // which transformers saved
	require.NoError(t, err)
	defer f.Close()
	var names []string
	for _, info := range f.Tensors() {
		names = append(names, info.Name)
	}
	require.ElementsMatch(t, names, slices.Collect(maps.Keys(got)))
	delete(all, "bert.embeddings.word_embeddings.weight") // then the target is the only one
	got, err = pretrained.RemoveTiedWeightsFromStateDict(all, m)
	require.NoError(t, err)
	require.Contains(t, got, "cls.predictions.decoder.weight")
	all["other"] = all["cls.predictions.decoder.weight"]
	_, err = pretrained.RemoveTiedWeightsFromStateDict(all, m)
	require.NoError(t, err) // the target goes, the other stays
	all["another"] = all["other"]
	_, err = pretrained.RemoveTiedWeightsFromStateDict(all, m)
	require.ErrorIs(t, err, pretrained.ErrConflict)
}

func TestStrToTorchDType(t *testing.T) {
	for code, want := range map[string]torch.DType{ // all of transformers' 15
		"BOOL": torch.Bool, "U8": torch.Uint8, "I8": torch.Int8, "I16": torch.Int16, "U16": torch.Uint16, "F16": torch.Float16,
		"BF16": torch.BFloat16, "I32": torch.Int32, "U32": torch.Uint32, "F32": torch.Float32, "F64": torch.Float64,
		"I64": torch.Int64, "U64": torch.Uint64, "F8_E4M3": torch.Float8E4M3FN, "F8_E5M2": torch.Float8E5M2,
	} {
		got, err := pretrained.StrToTorchDType(code)
		require.NoError(t, err)
		require.Equal(t, want, got, code)
	}
	for _, code := range []string{"", "F4", "F6_E2M3", "float32", "X\n"} {
		_, err := pretrained.StrToTorchDType(code)
		require.ErrorIs(t, err, pretrained.ErrBadDType)
		require.NotContains(t, err.Error(), "\n")
	}
}

func TestQuantizedState(t *testing.T) {
	require.False(t, pretrained.IsQuantizedState(ctx))
	marked := pretrained.SetQuantizedState(ctx)
	require.True(t, pretrained.IsQuantizedState(marked))
	_, _, err := pretrained.Load(marked, loaderCase(t, "single"), pretrained.Options{})
	require.ErrorIs(t, err, pretrained.ErrUnsupported)
}

// TORCH_INIT_FUNCTIONS are nninit's, by name.
func TestTorchInitFunctions(t *testing.T) {
	require.ElementsMatch(t, []string{"uniform_", "normal_", "constant_", "ones_", "zeros_", "eye_", "dirac_", "xavier_uniform_",
		"xavier_normal_", "kaiming_uniform_", "kaiming_normal_", "trunc_normal_", "orthogonal_", "sparse_"}, nninit.Names())
}
