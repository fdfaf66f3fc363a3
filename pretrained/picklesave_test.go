package pretrained_test

import (
	"crypto/sha256"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/torchgo/torchgo/internal/testdata"
	"github.com/torchgo/torchgo/pretrained"
	"github.com/torchgo/torchgo/pretrained/pickle"
	"github.com/torchgo/torchgo/torch"
	"github.com/torchgo/torchgo/torch/nn"
)

// SafeSerialization false writes the files that transformers 4 writes, byte for byte: names, shards, index, order, tied
// weights, all but PyTorch's identification of a file.
func TestPickleSaves(t *testing.T) {
	var want map[string]struct{ Files map[string]string }
	readJSON(t, filepath.Join(testdata.Open(t, "bin"), "saved.json"), &want)
	require.Len(t, want, 18)
	for name, w := range want {
		t.Run(name, func(t *testing.T) {
			words := strings.Fields(name)
			group, folder, _ := strings.Cut(words[0], "/")
			dtype := map[string]torch.DType{"float32": torch.Float32, "float16": torch.Float16, "bfloat16": torch.BFloat16}[words[1]]
			src := filepath.Join(testdata.Open(t, group), folder)
			m, _ := load(t, src, pretrained.Options{DType: dtype})
			o := pretrained.SaveOptions{SafeSerialization: torch.Some(false)}
			if words[2] != "None" {
				o.MaxShardSize = words[2]
			}
			dir := filepath.Join(t.TempDir(), "saved")
			require.NoError(t, pretrained.SavePretrained(ctx, m, dir, o))
			files := map[string]string{}
			entries, err := os.ReadDir(dir)
			require.NoError(t, err)
			for _, e := range entries {
				if strings.HasPrefix(e.Name(), "pytorch_model") {
					data, err := os.ReadFile(filepath.Join(dir, e.Name()))
					require.NoError(t, err)
					files[e.Name()] = fmt.Sprintf("%x", sha256.Sum256(data))
				}
			}
			require.Equal(t, w.Files, files)
		})
	}
}

// What was saved loads with the same values, mapped and read, tied weights as one; also over the files that it was loaded
// from, of which the model has views.
func TestPickleSavesLoad(t *testing.T) {
	src := filepath.Join(testdata.Open(t, "models-llama"), "llama-tied-rope-llama3")
	m, _ := load(t, src, pretrained.Options{})
	want := digestsOf(m)
	dir := t.TempDir()
	o := pretrained.SaveOptions{SafeSerialization: torch.Some(false), MaxShardSize: "20KB"}
	require.NoError(t, pretrained.SavePretrained(ctx, m, dir, o))
	for _, opts := range []pretrained.Options{{Strict: true}, {Strict: true, DisableMmap: true}} {
		again, report := load(t, dir, opts)
		require.Equal(t, want, digestsOf(again))
		require.Empty(t, report.UnexpectedKeys)
		s := state(again)
		require.Equal(t, s["model.embed_tokens.weight"].DataPtr(), s["lm_head.weight"].DataPtr())
		require.NoError(t, pretrained.SavePretrained(ctx, again, dir, o))
		require.Equal(t, want, digestsOf(again), "the values that the model has are not touched")
	}
	o.MaxShardSize = ""
	require.NoError(t, pretrained.SavePretrained(ctx, m, dir, o))
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	require.Equal(t, []string{"config.json", "generation_config.json", "pytorch_model.bin"}, names)
	again, _ := load(t, dir, pretrained.Options{Strict: true})
	require.Equal(t, want, digestsOf(again))
}

// Weights that are on disk are read when it is their turn; what shares memory without being tied is saved as what it is.
func TestPickleSavesOffloadedAndShared(t *testing.T) {
	src := filepath.Join(testdata.Open(t, "models-llama"), "llama")
	plain, _ := load(t, src, pretrained.Options{})
	want := digestsOf(plain)
	deviceMap, err := pretrained.ParseDeviceMap(`{"": "disk", "model.norm": "cpu"}`)
	require.NoError(t, err)
	m, _ := load(t, src, pretrained.Options{DeviceMap: deviceMap})
	dir := t.TempDir()
	o := pretrained.SaveOptions{SafeSerialization: torch.Some(false)}
	require.NoError(t, pretrained.SavePretrained(ctx, m, dir, o))
	again, _ := load(t, dir, pretrained.Options{Strict: true})
	require.Equal(t, want, digestsOf(again))

	shared := map[string]*torch.Tensor{}
	for name, x := range nn.StateDict(plain) {
		shared[name] = x
	}
	shared["model.layers.0.self_attn.v_proj.weight"] = shared["model.layers.0.self_attn.k_proj.weight"]
	o.StateDict = maps.All(shared)
	require.NoError(t, pretrained.SavePretrained(ctx, plain, dir, o))
	f, err := pickle.Open(filepath.Join(dir, "pytorch_model.bin"))
	require.NoError(t, err)
	defer f.Close()
	get := func(name string) *pickle.Tensor {
		v, ok := f.Root().(*pickle.Dict).Get(name)
		require.True(t, ok)
		return v.(*pickle.Tensor)
	}
	require.Same(t, get("model.layers.0.self_attn.k_proj.weight").Storage, get("model.layers.0.self_attn.v_proj.weight").Storage)
	require.NotSame(t, get("model.layers.0.self_attn.k_proj.weight").Storage, get("model.layers.0.self_attn.q_proj.weight").Storage)
	o.SafeSerialization = torch.Some(true)
	require.ErrorIs(t, pretrained.SavePretrained(ctx, plain, t.TempDir(), o), pretrained.ErrConflict, "which safetensors can't hold")
}

func TestPickleSavesRefuse(t *testing.T) {
	src := filepath.Join(testdata.Open(t, "models-llama"), "llama")
	m, _ := load(t, src, pretrained.Options{})
	dir := t.TempDir()
	require.NoError(t, pretrained.SavePretrained(ctx, m, dir, pretrained.SaveOptions{}))
	before := folderText(t, dir)
	o := pretrained.SaveOptions{SafeSerialization: torch.Some(false)}
	require.ErrorIs(t, pretrained.SavePretrained(ctx, m, dir, o), pretrained.ErrConflict, "model.safetensors would be found")
	o.Compress = true
	require.ErrorIs(t, pretrained.SavePretrained(ctx, m, t.TempDir(), o), pretrained.ErrArgument)
	o = pretrained.SaveOptions{Files: map[string][]byte{"pytorch_model.bin": nil}}
	require.ErrorIs(t, pretrained.SavePretrained(ctx, m, t.TempDir(), o), pretrained.ErrArgument)
	require.Equal(t, before, folderText(t, dir))
}

// folderText is the names and contents of a folder's files.
func folderText(t *testing.T, dir string) map[string]string {
	files := map[string]string{}
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	for _, e := range entries {
		data, err := os.ReadFile(filepath.Join(dir, e.Name()))
		require.NoError(t, err)
		files[e.Name()] = string(data)
	}
	return files
}
