package pretrained_test

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/torchgo/torchgo/internal/testdata"
	"github.com/torchgo/torchgo/pretrained"
	"github.com/torchgo/torchgo/torch"
	"github.com/torchgo/torchgo/torch/nn"
)

func equalModels(t *testing.T, a, b pretrained.Model) {
	t.Helper()
	want, got := state(a), state(b)
	require.Len(t, got, len(want))
	for name, x := range want {
		require.True(t, x.Equal(got[name]), name)
	}
}

// What transformers saved, loaded and saved again must be the same files: names, bytes, index.
func TestSaveWritesWhatTransformersWrites(t *testing.T) {
	for name, opts := range map[string]pretrained.SaveOptions{
		"single":    {},
		"sharded":   {MaxShardSize: "8KB", SaveOriginalFormat: torch.Some(false)}, // transformers had it from no file
		"variant":   {Variant: "fp16"},
		"fp16-auto": {},
	} {
		from := loaderCase(t, name)
		m, _ := load(t, from, pretrained.Options{Variant: opts.Variant})
		to := filepath.Join(t.TempDir(), "new", "dir")
		require.NoError(t, pretrained.SavePretrained(ctx, m, to, opts))
		entries, err := os.ReadDir(from)
		require.NoError(t, err)
		var files []string
		for _, e := range entries {
			if slices.Contains([]string{"expected.safetensors", "report.json"}, e.Name()) {
				continue
			}
			files = append(files, e.Name())
			want, err := os.ReadFile(filepath.Join(from, e.Name()))
			require.NoError(t, err)
			got, err := os.ReadFile(filepath.Join(to, e.Name()))
			require.NoError(t, err)
			require.True(t, bytes.Equal(want, got), "%s/%s", name, e.Name())
		}
		entries, err = os.ReadDir(to)
		require.NoError(t, err)
		require.Len(t, entries, len(files))
		again, r := load(t, to, pretrained.Options{Strict: true, Variant: opts.Variant})
		equalModels(t, m, again)
		require.Len(t, r.TiedKeys, 2)
	}
}

func TestSaveOverTheMappedSource(t *testing.T) {
	dir := filepath.Join(testdata.Copy(t, "loader"), "single")
	m, _ := load(t, dir, pretrained.Options{})
	ref, _ := load(t, loaderCase(t, "single"), pretrained.Options{DisableMmap: true})
	torch.NoGrad(func() { state(m)["cls.predictions.bias"].Fill_(2) })
	require.NoError(t, pretrained.SavePretrained(ctx, m, dir, pretrained.SaveOptions{MaxShardSize: "8KB"}))
	again, _ := load(t, dir, pretrained.Options{Strict: true})
	equalModels(t, m, again)
	require.False(t, state(ref)["cls.predictions.bias"].Equal(state(again)["cls.predictions.bias"]))
	require.NoFileExists(t, filepath.Join(dir, "model.safetensors"))

	require.NoError(t, pretrained.SavePretrained(ctx, again, dir, pretrained.SaveOptions{}))
	last, _ := load(t, dir, pretrained.Options{Strict: true})
	equalModels(t, m, last)
	left, err := filepath.Glob(filepath.Join(dir, "model-*"))
	require.NoError(t, err)
	require.Empty(t, left, "the old shards are removed")
}

func TestSaveUntiedAndNotContiguous(t *testing.T) {
	m, _ := load(t, loaderCase(t, "tied-both-present-differ"), pretrained.Options{})
	to := t.TempDir()
	require.NoError(t, pretrained.SavePretrained(ctx, m, to, pretrained.SaveOptions{}))
	again, r := load(t, to, pretrained.Options{Strict: true})
	equalModels(t, m, again)
	require.Len(t, r.Warnings, 1)

	for _, s := range nn.Slots(m) {
		if s.Name == "bert.encoder.layer.0.intermediate.dense.weight" {
			s.Set(s.Tensor().Detach().Transpose(0, 1).Contiguous().Transpose(0, 1))
			require.False(t, s.Tensor().IsContiguous())
		}
	}
	require.NoError(t, pretrained.SavePretrained(ctx, m, to, pretrained.SaveOptions{}))
	again, _ = load(t, to, pretrained.Options{Strict: true})
	equalModels(t, m, again)
}

func TestSaveRefuses(t *testing.T) {
	m, _ := load(t, loaderCase(t, "tied-both-present-differ"), pretrained.Options{})
	dir := t.TempDir()
	err := pretrained.SavePretrained(ctx, m, dir, pretrained.SaveOptions{MaxShardSize: "20XB"})
	require.ErrorContains(t, err, "Unit 'XB' not supported. Supported units are TB, GB, MB, KB. Got '20XB'.")

	file := filepath.Join(dir, "file")
	require.NoError(t, os.WriteFile(file, nil, 0o600))
	require.ErrorIs(t, pretrained.SavePretrained(ctx, m, file, pretrained.SaveOptions{}), pretrained.ErrArgument)

	canceled, cancel := context.WithCancel(ctx)
	cancel()
	require.ErrorIs(t, pretrained.SavePretrained(canceled, m, dir, pretrained.SaveOptions{}), context.Canceled)

	slots := map[string]nn.Slot{}
	for _, s := range nn.Slots(m) {
		slots[s.Name] = s
	}
	slots["bert.encoder.layer.0.output.dense.bias"].Set(slots["bert.encoder.layer.1.output.dense.bias"].Tensor())
	err = pretrained.SavePretrained(ctx, m, dir, pretrained.SaveOptions{})
	require.ErrorIs(t, err, pretrained.ErrConflict)
	require.ErrorContains(t, err, "[bert.encoder.layer.0.output.dense.bias, bert.encoder.layer.1.output.dense.bias] are not declared as tied")

	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Len(t, entries, 1, "nothing half-written remains")
}
