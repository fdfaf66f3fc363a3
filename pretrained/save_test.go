package pretrained_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"

	"github.com/torchgo/torchgo/internal/atomicfile"
	"github.com/torchgo/torchgo/internal/testdata"
	"github.com/torchgo/torchgo/pretrained"
	"github.com/torchgo/torchgo/pretrained/safetensors"
	"github.com/torchgo/torchgo/torch"
	"github.com/torchgo/torchgo/torch/nn"
	"github.com/torchgo/torchgo/torch/optim"
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

// A model that was not loaded is written in the order of its own state dict, and its generation config says
// that it comes from the model's: as transformers did when these references were made.
func TestSaveOfAModelMadeFromAConfig(t *testing.T) {
	for name, from := range map[string]string{"sharded": loaderCase(t, "sharded"), "llama": filepath.Join(testdata.Open(t, "models-llama"), "llama")} {
		loaded, _ := load(t, from, pretrained.Options{})
		m, err := pretrained.FromConfig(loaded.Config(), pretrained.Options{Class: loaded.Class()})
		require.NoError(t, err)
		t.Cleanup(m.Close)
		require.NoError(t, nn.LoadStateDict(m, nn.StateDict(loaded)))
		to, opts := t.TempDir(), pretrained.SaveOptions{}
		if name == "sharded" {
			opts.MaxShardSize = "8KB"
		}
		require.NoError(t, pretrained.SavePretrained(ctx, m, to, opts))
		got, want := filesOf(t, to), filesOf(t, from)
		for _, other := range []string{"expected.safetensors", "report.json", "inputs.json"} {
			delete(want, other)
		}
		require.Equal(t, want, got)
	}
}

// Saving over the folder that a model is mapped from changes nothing for the model.
func TestAModelStaysWhatItIsWhenItsFilesAreReplaced(t *testing.T) {
	for _, shards := range []string{"", "20KB"} {
		dir := filepath.Join(testdata.Copy(t, "models-llama"), "llama")
		m, _ := load(t, dir, pretrained.Options{})
		in := pretrained.Inputs{InputIDs: torch.FromSlice([]int64{1, 5, 9, 17, 3, 2}, 1, 6)}
		logits := func(m pretrained.Model) (all []float32) {
			torch.Inference(func() { all = torch.ToSlice[float32](m.Forward(in).Logits) })
			return all
		}
		before := logits(m)
		for range 3 {
			require.NoError(t, pretrained.SavePretrained(ctx, m, dir, pretrained.SaveOptions{MaxShardSize: shards}))
			require.Equal(t, before, logits(m))
		}
		other, _ := load(t, loaderCase(t, "single"), pretrained.Options{})
		require.NoError(t, pretrained.SavePretrained(ctx, other, dir, pretrained.SaveOptions{MaxShardSize: shards}))
		require.Equal(t, before, logits(m), "after another model took its place, too")
		require.NoError(t, pretrained.SavePretrained(ctx, m, dir, pretrained.SaveOptions{}))
		again, _ := load(t, dir, pretrained.Options{Strict: true})
		equalModels(t, m, again)
	}
}

// Savers of one folder take turns.
func TestSaversOfOneFolder(t *testing.T) {
	dir := t.TempDir()
	var models []pretrained.Model
	for _, from := range []string{loaderCase(t, "single"), filepath.Join(testdata.Open(t, "models-llama"), "llama"), loaderCase(t, "gamma-beta")} {
		m, _ := load(t, from, pretrained.Options{})
		models = append(models, m)
	}
	g, run := errgroup.WithContext(ctx)
	for i, m := range models {
		for _, size := range []string{"", "8KB", "20KB"} {
			g.Go(func() error {
				for range 4 {
					if err := pretrained.SavePretrained(run, m, dir, pretrained.SaveOptions{MaxShardSize: size}); err != nil {
						return fmt.Errorf("%d: %w", i, err)
					}
				}
				return nil
			})
		}
	}
	require.NoError(t, g.Wait())
	last, _ := load(t, dir, pretrained.Options{Strict: true})
	same := slices.ContainsFunc(models, func(m pretrained.Model) bool { return sameDigests(digestsOf(m), digestsOf(last)) })
	require.True(t, same, "not one of the models")
	left, err := filepath.Glob(filepath.Join(dir, ".*"))
	require.NoError(t, err)
	require.Empty(t, left)

	// A saver that may not wait longer leaves.
	folder, err := atomicfile.OpenFolder(ctx, dir)
	require.NoError(t, err)
	short, cancel := context.WithTimeout(ctx, 50*time.Millisecond)
	defer cancel()
	require.ErrorIs(t, pretrained.SavePretrained(short, models[0], dir, pretrained.SaveOptions{}), context.DeadlineExceeded)
	require.NoError(t, folder.Close())
	require.NoError(t, pretrained.SavePretrained(ctx, models[0], dir, pretrained.SaveOptions{}))
}

func TestSaveInTheMiddleOfTraining(t *testing.T) {
	m, _ := load(t, loaderCase(t, "single"), pretrained.Options{})
	nn.Train(m)
	ids := torch.FromSlice([]int64{2, 7, 5, 3}, 1, 4)
	opt := optim.NewSGD(nn.Parameters(m), optim.SGDOptions{LR: 0.1})
	for range 2 {
		torch.Scope(func() { m.Forward(pretrained.Inputs{InputIDs: ids, Labels: ids}).Loss.Backward() })
		opt.Step()
	}
	grads := map[string][]float32{}
	for name, p := range nn.NamedParameters(m) {
		require.True(t, p.RequiresGrad())
		if g := p.Grad(); g != nil {
			grads[name] = torch.ToSlice[float32](g)
		}
	}
	require.NotEmpty(t, grads)
	dir := t.TempDir()
	torch.Inference(func() { require.NoError(t, pretrained.SavePretrained(ctx, m, dir, pretrained.SaveOptions{})) })
	again, _ := load(t, dir, pretrained.Options{Strict: true})
	equalModels(t, m, again)
	for name, p := range nn.NamedParameters(m) {
		require.True(t, p.RequiresGrad())
		if g := p.Grad(); g != nil {
			require.Equal(t, grads[name], torch.ToSlice[float32](g), name)
		}
	}
}

func TestSaveWithFurtherFilesAndProgress(t *testing.T) {
	m, _ := load(t, loaderCase(t, "single"), pretrained.Options{})
	dir := t.TempDir()
	var last, total int64
	opts := pretrained.SaveOptions{MaxShardSize: "8KB", Files: map[string][]byte{"tokenizer.json": []byte("{}"), "1_Pooling/config.json": []byte("{ }")},
		Progress: func(done, all int64) {
			require.Greater(t, done, last)
			last, total = done, all
		}}
	require.NoError(t, pretrained.SavePretrained(ctx, m, dir, opts))
	require.Equal(t, total, last)
	require.Equal(t, int64(20352), total, "total_size of the index")
	for name, want := range opts.Files {
		got, err := os.ReadFile(filepath.Join(dir, filepath.FromSlash(name)))
		require.NoError(t, err)
		require.Equal(t, want, got)
	}
	for _, name := range []string{"config.json", "model.safetensors", "../x", "/x", ".x", "a/../../x", "model.safetensors.index.json", "a\\b", ""} {
		before := filesOf(t, filepath.Join(dir, "1_Pooling"))
		err := pretrained.SavePretrained(ctx, m, dir, pretrained.SaveOptions{Files: map[string][]byte{name: []byte("x")}})
		require.Error(t, err, name)
		require.True(t, errors.Is(err, pretrained.ErrArgument) || errors.Is(err, pretrained.ErrPath), "%q: %v", name, err)
		require.Equal(t, before, filesOf(t, filepath.Join(dir, "1_Pooling")))
	}
}

func TestSaveRefusesTensorsWithoutDataOrForm(t *testing.T) {
	m, _ := load(t, loaderCase(t, "single"), pretrained.Options{})
	dir := filepath.Join(t.TempDir(), "new")
	for want, x := range map[error]*torch.Tensor{
		pretrained.ErrMissingTensor: torch.Empty([]int{2}, torch.EmptyOptions{Device: torch.Meta}),
		pretrained.ErrBadDType:      torch.Zeros([]int{2}, torch.TensorOptions{DType: torch.Complex128}),
	} {
		err := pretrained.SavePretrained(ctx, m, dir, pretrained.SaveOptions{StateDict: maps.All(map[string]*torch.Tensor{"x": x})})
		require.ErrorIs(t, err, want)
		require.ErrorContains(t, err, `"x"`)
		require.NoDirExists(t, dir)
	}
	err := pretrained.SavePretrained(ctx, m, dir, pretrained.SaveOptions{StateDict: maps.All(map[string]*torch.Tensor{"x": nil})})
	require.ErrorIs(t, err, pretrained.ErrMissingTensor)
	m.Close()
	require.ErrorIs(t, pretrained.SavePretrained(ctx, m, dir, pretrained.SaveOptions{}), torch.ErrClosed)
	require.NoDirExists(t, dir)
}

// Directories that a save makes are on the disk before it ends, each in its parent; one that fails makes none.
func TestSaveMakesDirectories(t *testing.T) {
	m, _ := load(t, loaderCase(t, "single"), pretrained.Options{})
	top := t.TempDir()
	dir := filepath.Join(top, "a", "b")
	restore := atomicfile.Intercept(func(op atomicfile.Op, _ string) error {
		if op == atomicfile.OpWrite {
			return syscall.ENOSPC
		}
		return nil
	})
	err := pretrained.SavePretrained(ctx, m, dir, pretrained.SaveOptions{})
	restore()
	require.ErrorIs(t, err, syscall.ENOSPC)
	require.NoDirExists(t, filepath.Join(top, "a"))
	var synced []string
	restore = atomicfile.Intercept(func(op atomicfile.Op, path string) error {
		if op == atomicfile.OpSyncDir {
			synced = append(synced, path)
		}
		return nil
	})
	defer restore()
	require.NoError(t, pretrained.SavePretrained(ctx, m, dir, pretrained.SaveOptions{}))
	require.Contains(t, synced, top)
	require.Contains(t, synced, filepath.Join(top, "a"))
}

// Marian's positions, say: what a model computes need not be in the file.
func TestIgnoreOnSave(t *testing.T) {
	registerFlat("ignoring", pretrained.Architecture{Classes: []pretrained.Class{{IgnoreOnSave: []string{"positions"}, IgnoreMissing: []string{"^positions"}}}})
	values := safetensors.Data(make([]byte, 16))
	from := writeCheckpoint(t, `{"model_type": "ignoring", "architectures": ["ignoring"], "params": [["positions", [4]], ["positions2", [4]]]}`,
		[]safetensors.Source{{Name: "positions", DType: safetensors.F32, Shape: []int{4}, Write: values}, {Name: "positions2", DType: safetensors.F32, Shape: []int{4}, Write: values}})
	m, _ := load(t, from, pretrained.Options{})
	to := t.TempDir()
	require.NoError(t, pretrained.SavePretrained(ctx, m, to, pretrained.SaveOptions{}))
	file, err := safetensors.Open(filepath.Join(to, "model.safetensors"))
	require.NoError(t, err)
	defer file.Close()
	require.Len(t, file.Tensors(), 1)
	require.Equal(t, "positions2", file.Tensors()[0].Name)
	load(t, to, pretrained.Options{Strict: true})
}

// Weights that are read from the files as they are needed stay what they are when the files are replaced, and a
// model may run while it is saved.
func TestSaveOfAnOffloadedModelOverItself(t *testing.T) {
	from := filepath.Join(testdata.Open(t, "models-llama"), "llama-tied-rope-llama3")
	whole, _ := load(t, from, pretrained.Options{})
	for _, disableMmap := range []bool{false, true} {
		dir := filepath.Join(testdata.Copy(t, "models-llama"), "llama-tied-rope-llama3")
		deviceMap, err := pretrained.ParseDeviceMap(`{"": "disk", "model.norm": "cpu"}`)
		require.NoError(t, err)
		m, _ := load(t, dir, pretrained.Options{DeviceMap: deviceMap, DisableMmap: disableMmap})
		in := pretrained.Inputs{InputIDs: torch.FromSlice([]int64{1, 5, 9, 17, 3, 2}, 1, 6)}
		logits := func(m pretrained.Model) (all []float32) {
			torch.Inference(func() { all = torch.ToSlice[float32](m.Forward(in).Logits) })
			return all
		}
		want := logits(whole)
		running, stop := context.WithCancel(ctx)
		var g errgroup.Group
		g.Go(func() error {
			for running.Err() == nil {
				if got := logits(m); !slices.Equal(got, want) {
					return errors.New("other logits while the model is saved")
				}
			}
			return nil
		})
		for _, size := range []string{"20KB", "", "30KB"} {
			require.NoError(t, pretrained.SavePretrained(ctx, m, dir, pretrained.SaveOptions{MaxShardSize: size}))
			require.Equal(t, want, logits(m))
			again, r := load(t, dir, pretrained.Options{Strict: true})
			equalModels(t, whole, again)
			require.Len(t, r.TiedKeys, 1)
		}
		stop()
		require.NoError(t, g.Wait())
	}
}
