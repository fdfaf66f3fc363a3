package pretrained_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/torchgo/torchgo/internal/testdata"
	"github.com/torchgo/torchgo/pretrained"
	"github.com/torchgo/torchgo/pretrained/checkpoint"
	"github.com/torchgo/torchgo/pretrained/safetensors"
	"github.com/torchgo/torchgo/torch"
	"github.com/torchgo/torchgo/torch/nn"
)

// offloadMaps put all or some of a model on disk, or beside a GPU on the CPU.
func offloadMaps(layers string) map[string]pretrained.DeviceMap {
	return map[string]pretrained.DeviceMap{
		"disk":             {"": "disk"},
		"a layer on disk":  {"": "cpu", layers + ".1": "disk"},
		"layers on disk":   {"": "cpu", layers: "disk"},
		"cpu beside a GPU": {"": "cuda:0", layers + ".0": "cpu", layers + ".1": "cpu"},
		"GPU, CPU, disk":   {"": "cpu", layers + ".0": "cuda:1", layers + ".1": "disk"},
	}
}

// What comes out is, to the last bit, what comes out without offloading.
func TestOffloadedModelsAreTheSame(t *testing.T) {
	for name, c := range placedModels {
		dir := filepath.Join(testdata.Open(t, c.group), c.dir)
		for _, opts := range []pretrained.Options{{}, {Attn: nn.Eager}, {DType: torch.BFloat16}, {DisableMmap: true}} {
			plain, _ := load(t, dir, opts)
			want := values(t, plain)
			for what, m := range offloadMaps(c.layers) {
				t.Run(fmt.Sprintf("%s/%s/%v/%s/%v", name, opts.Attn, opts.DType, what, opts.DisableMmap), func(t *testing.T) {
					pretrained.Simulate(t, torch.CPU, torch.CPU)
					opts := opts
					opts.DeviceMap = m
					torch.Collect()
					live := torch.LiveTensors()
					model, r, err := pretrained.Load(ctx, dir, opts)
					require.NoError(t, err)
					loaded := torch.LiveTensors()
					for range 2 {
						require.Equal(t, want, values(t, model))
						require.Equal(t, loaded, torch.LiveTensors(), "weights are dropped")
					}
					away := 0
					for _, p := range nn.NamedParameters(model) {
						if p.Device() == torch.Meta {
							away++
						}
					}
					require.Positive(t, away)
					require.Equal(t, plain.NumParameters(), model.NumParameters())
					require.Equal(t, plain.MemoryFootprint(), model.MemoryFootprint())
					require.Equal(t, plain.DType(), model.DType())
					require.Equal(t, plain.TiedKeys(), model.TiedKeys())
					require.Equal(t, r.DeviceMap, model.HFDeviceMap())
					model.Close()
					require.Equal(t, live, torch.LiveTensors())
				})
			}
		}
	}
}

func TestOffloadedModelRunsConcurrently(t *testing.T) {
	c := placedModels["tied llama"]
	dir := filepath.Join(testdata.Open(t, c.group), c.dir)
	plain, _ := load(t, dir, pretrained.Options{})
	want := values(t, plain)
	for _, opts := range []pretrained.Options{{}, {DType: torch.Float32, DisableMmap: true}} {
		opts.DeviceMap = pretrained.DeviceMap{"": "disk"}
		m, _ := load(t, dir, opts)
		torch.Collect()
		live := torch.LiveTensors()
		var wg sync.WaitGroup
		for range 8 {
			wg.Go(func() {
				for i := range 5 {
					got := map[string][]float32{}
					run := torch.Inference
					if i%2 == 1 {
						run = torch.Scope // with autograd
					}
					run(func() {
						for name, x := range m.Forward(placedInputs()).Named() {
							got[name] = torch.ToSlice[float32](x)
						}
					})
					if fmt.Sprint(got) != fmt.Sprint(want) {
						t.Error("another result")
					}
					m.NumParameters()
					m.Device()
				}
			})
		}
		wg.Wait()
		require.Equal(t, live, torch.LiveTensors())
	}
}

// While a layer runs, the next one's weights are read, and those of no other.
func TestOffloadedWeightsAreReadAhead(t *testing.T) {
	for _, m := range []pretrained.DeviceMap{{"": "disk"}, {"": "cuda:0", "model.layers": "cpu"}} {
		pretrained.Simulate(t, torch.CPU)
		model, _ := load(t, filepath.Join(testdata.Open(t, "models-llama"), "llama"), pretrained.Options{DeviceMap: m})
		var ahead, here []string
		first, err := nn.GetSubmodule(model, "model.layers.0.mlp.up_proj")
		require.NoError(t, err)
		nn.RegisterForwardHook(first, func(any, []*torch.Tensor, []*torch.Tensor) []*torch.Tensor {
			ahead = pretrained.Ahead(model)
			for name, p := range nn.NamedParameters(model) {
				if p.Device() != torch.Meta {
					here = append(here, name)
				}
			}
			return nil
		})
		values(t, model)
		require.Len(t, ahead, 9)
		for _, name := range ahead {
			require.Contains(t, name, "model.layers.1.")
		}
		if m[""] == "disk" {
			require.Len(t, here, 9)
			require.Contains(t, here[0], "model.layers.0.")
		}
		require.Empty(t, pretrained.Ahead(model))
	}
}

// memory of the process in bytes: what is its own, and pages of files.
func memory(t *testing.T) (n int64) {
	data, err := os.ReadFile("/proc/self/status")
	require.NoError(t, err)
	for line := range strings.Lines(string(data)) {
		if fields := strings.Fields(line); fields[0] == "RssAnon:" || fields[0] == "RssFile:" {
			kB, err := strconv.ParseInt(fields[1], 10, 64)
			require.NoError(t, err)
			n += kB << 10
		}
	}
	return n
}

// A pass needs the memory of two layers, however many there are.
func TestOffloadedModelNeedsLittleMemory(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("reads /proc/self/status")
	}
	if testing.Short() {
		t.Skip("writes 200 MB")
	}
	config, err := pretrained.NewConfig("bert", map[string]any{"hidden_size": 512, "intermediate_size": 4096, "num_attention_heads": 8,
		"num_hidden_layers": 10, "vocab_size": 100})
	require.NoError(t, err)
	m, err := pretrained.FromConfig(config, pretrained.Options{Class: "BertForMaskedLM"})
	require.NoError(t, err)
	dir := t.TempDir()
	require.NoError(t, pretrained.SavePretrained(ctx, m, dir, pretrained.SaveOptions{}))
	all := m.MemoryFootprint()
	m.Close()
	const layer = (4*512*512 + 2*512*4096) * 4
	require.Greater(t, all, int64(10*layer))
	for what, opts := range map[string]pretrained.Options{"mapped": {}, "read": {DisableMmap: true}, "cast": {DType: torch.BFloat16}} {
		opts.DeviceMap = pretrained.DeviceMap{"": "disk"}
		m, _ := load(t, dir, opts)
		values(t, m) // warms up libtorch
		torch.Collect()
		before, most := memory(t), int64(0)
		for name, module := range nn.NamedModules(m) {
			if strings.HasSuffix(name, ".output.dense") {
				nn.RegisterForwardHook(module, func(any, []*torch.Tensor, []*torch.Tensor) []*torch.Tensor {
					most = max(most, memory(t)-before)
					return nil
				})
			}
		}
		values(t, m)
		t.Logf("%s: %d MB of %d MB", what, most>>20, all>>20)
		require.Less(t, most, int64(4.5*layer), what)
	}
}

func TestTrainingOffloadedWeightsIsRefused(t *testing.T) {
	for name, c := range placedModels {
		m, _ := load(t, filepath.Join(testdata.Open(t, c.group), c.dir), pretrained.Options{DeviceMap: pretrained.DeviceMap{"": "cpu", c.layers + ".1": "disk"}})
		m.Train()
		err := torch.TryDo(func() { m.Forward(placedInputs()).Loss.Backward() })
		require.ErrorContains(t, err, c.layers+".1 has weights that are offloaded to the CPU or to disk: such a model can't be trained", name)
	}
}

// tensorsOf are the bytes of all tensors of a folder, by name. (The order in the files is another for offloaded models, as in
// transformers: see TestOffloadIsTransformers.)
func tensorsOf(t *testing.T, dir string) map[string]string {
	t.Helper()
	c, err := checkpoint.Open(dir)
	require.NoError(t, err)
	defer c.Close()
	out := map[string]string{}
	for f, info := range c.All() {
		data := make([]byte, info.Bytes)
		require.NoError(t, f.ReadTensor(info.Name, data))
		out[info.Name] = fmt.Sprint(info.DType, info.Shape) + string(data)
	}
	return out
}

func TestSaveOffloadedModel(t *testing.T) {
	for name, c := range placedModels {
		for _, opts := range []pretrained.Options{{}, {DType: torch.BFloat16}} {
			dir := filepath.Join(testdata.Copy(t, c.group), c.dir)
			plain, _ := load(t, dir, opts)
			want, got := t.TempDir(), t.TempDir()
			require.NoError(t, pretrained.SavePretrained(ctx, plain, want, pretrained.SaveOptions{MaxShardSize: "20KB"}))
			for what, m := range offloadMaps(c.layers) {
				t.Run(fmt.Sprintf("%s/%v/%s", name, opts.DType, what), func(t *testing.T) {
					pretrained.Simulate(t, torch.CPU, torch.CPU)
					opts := opts
					opts.DeviceMap = m
					model, _ := load(t, dir, opts)
					torch.Collect()
					live := torch.LiveTensors()
					require.NoError(t, pretrained.SavePretrained(ctx, model, got, pretrained.SaveOptions{MaxShardSize: "20KB"}))
					require.Equal(t, live, torch.LiveTensors())
					require.Equal(t, tensorsOf(t, want), tensorsOf(t, got))
				})
			}
			// Over the very files that the weights are read from.
			opts.DeviceMap = pretrained.DeviceMap{"": "disk"}
			model, _ := load(t, dir, opts)
			before := values(t, model)
			require.NoError(t, pretrained.SavePretrained(ctx, model, dir, pretrained.SaveOptions{MaxShardSize: "20KB"}))
			require.Equal(t, before, values(t, model))
			require.Equal(t, tensorsOf(t, want), tensorsOf(t, dir))
		}
	}
}

func TestWeight(t *testing.T) {
	dir := loaderCase(t, "single")
	plain, _ := load(t, dir, pretrained.Options{})
	m, _ := load(t, dir, pretrained.Options{DeviceMap: pretrained.DeviceMap{"": "disk", "bert.embeddings": "cpu"}})
	for name, want := range nn.StateDict(plain) {
		got, err := m.Weight(ctx, name)
		require.NoError(t, err)
		require.True(t, want.Equal(got), name)
		got.Close()
	}
	_, err := m.Weight(ctx, "bert.nothing")
	require.ErrorIs(t, err, pretrained.ErrMissingTensor)
	require.ErrorContains(t, err, "bert.nothing")
	canceled, cancel := context.WithCancel(ctx)
	cancel()
	_, err = m.Weight(canceled, "cls.predictions.bias")
	require.ErrorIs(t, err, context.Canceled)
}

// Weights that the checkpoint does not have as they are go to the offload folder.
func TestOffloadFolder(t *testing.T) {
	t.Run("merged", func(t *testing.T) {
		dir, report, opts := moe(t, "mixtral")
		opts.DType = torch.Float32
		plain, _ := load(t, dir, opts)
		opts.DeviceMap = pretrained.DeviceMap{"": "disk"}
		_, _, err := pretrained.Load(ctx, dir, opts)
		require.ErrorIs(t, err, pretrained.ErrArgument)
		require.ErrorContains(t, err, "offloading to disk: got a weight that the checkpoint does not have as it is")
		require.ErrorContains(t, err, "OffloadFolder")
		require.NotContains(t, err.Error(), "\n")

		opts.OffloadFolder = filepath.Join(t.TempDir(), "new", "folder")
		m, _ := load(t, dir, opts)
		written := 0
		for name, want := range nn.StateDict(plain) {
			got, err := m.Weight(ctx, name)
			require.NoError(t, err)
			require.True(t, want.Equal(got), name)
			got.Close()
			if _, err := os.Stat(filepath.Join(opts.OffloadFolder, name+".safetensors")); err == nil {
				written++
			}
		}
		entries, err := os.ReadDir(opts.OffloadFolder)
		require.NoError(t, err)
		require.Len(t, entries, written, "a file for each tensor")
		require.Less(t, written, len(report.State), "the others are read where they are")
		require.Positive(t, written)
		to := t.TempDir()
		require.NoError(t, pretrained.SavePretrained(ctx, m, to, pretrained.SaveOptions{}))
		checkSaved(t, to, report.Saved)
	})
	t.Run("initialised", func(t *testing.T) {
		dir := loaderCase(t, "base-into-head")
		opts := pretrained.Options{Class: "BertForMaskedLM"}
		torch.ManualSeed(7)
		plain, r := load(t, dir, opts)
		require.NotEmpty(t, r.MissingKeys)
		opts.DeviceMap = pretrained.DeviceMap{"": "disk"}
		_, _, err := pretrained.Load(ctx, dir, opts)
		require.ErrorContains(t, err, "cls.predictions.")
		opts.OffloadFolder = t.TempDir()
		torch.ManualSeed(7)
		m, _ := load(t, dir, opts)
		require.Equal(t, values(t, plain), values(t, m))
	})
}

// What is wrong with the files later on is an error that names them, and the model stays of use.
func TestOffloadedFilesChange(t *testing.T) {
	for _, disable := range []bool{false, true} {
		dir := filepath.Join(testdata.Copy(t, "loader"), "single")
		path := filepath.Join(dir, "model.safetensors")
		m, _ := load(t, dir, pretrained.Options{DisableMmap: disable, DeviceMap: pretrained.DeviceMap{"": "disk"}})
		want := values(t, m)
		run := func() error { return torch.TryDo(func() { values(t, m) }) }

		data, err := os.ReadFile(path)
		require.NoError(t, err)
		st, err := os.Stat(path)
		require.NoError(t, err)
		require.NoError(t, os.Truncate(path, st.Size()-8))
		err = run()
		require.ErrorIs(t, err, pretrained.ErrTruncated)
		require.ErrorContains(t, err, "forward: bringing in bert.embeddings.word_embeddings.weight: "+path)
		require.NotContains(t, err.Error(), "\n")
		require.Error(t, pretrained.SavePretrained(ctx, m, t.TempDir(), pretrained.SaveOptions{}))
		require.NoError(t, os.WriteFile(path, data, 0o600))
		err = run()
		require.ErrorIs(t, err, safetensors.ErrChanged)
		require.ErrorContains(t, err, path)
		require.NoError(t, os.Chtimes(path, st.ModTime(), st.ModTime()))
		require.Equal(t, want, values(t, m))

		if runtime.GOOS == "linux" { // the file is open: it may go
			require.NoError(t, os.Remove(path))
			require.Equal(t, want, values(t, m))
		}
		live := torch.LiveTensors()
		require.NoError(t, run())
		require.Equal(t, live, torch.LiveTensors())
	}
}

func TestOffloadedModelsLeakNothing(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("counts /proc/self/fd")
	}
	open := func() int {
		fds, err := os.ReadDir("/proc/self/fd")
		require.NoError(t, err)
		return len(fds)
	}
	dir, _, opts := moe(t, "mixtral")
	opts.DeviceMap, opts.OffloadFolder = pretrained.DeviceMap{"": "disk"}, t.TempDir()
	torch.Collect()
	fds, live := open(), torch.LiveTensors()
	for _, c := range []struct {
		dir  string
		opts pretrained.Options
	}{
		{dir, opts},
		{loaderCase(t, "sharded"), pretrained.Options{DeviceMap: pretrained.DeviceMap{"": "disk"}}},
		{loaderCase(t, "tied-both-present-differ"), pretrained.Options{DeviceMap: pretrained.DeviceMap{"": "disk"}}},
		{loaderCase(t, "mismatch-ignore"), pretrained.Options{DeviceMap: pretrained.DeviceMap{"": "disk"}, Config: map[string]any{"vocab_size": 40}}},
	} {
		m, _, err := pretrained.Load(ctx, c.dir, c.opts)
		if err == nil {
			m.Close()
		}
		require.Equal(t, fds, open())
		require.Equal(t, live, torch.LiveTensors())
	}
}

// In accelerate, too, buffers stay where their module runs unless offload_buffers is true.
func TestOffloadBuffers(t *testing.T) {
	dir := loaderCase(t, "single")
	pretrained.Simulate(t, torch.Meta)
	for _, offload := range []bool{false, true} {
		m, _ := load(t, dir, pretrained.Options{OffloadBuffers: offload, DeviceMap: pretrained.DeviceMap{"": "cuda:0", "bert.embeddings": "cpu"}})
		ids, err := m.Weight(ctx, "bert.embeddings.position_ids")
		require.NoError(t, err)
		require.Equal(t, offload, ids.Device() == torch.CPU)
	}
}

// Closing a model that is in use is a mistake, but not one that ends the process or loses memory.
func TestCloseDuringAPass(t *testing.T) {
	dir := loaderCase(t, "single")
	for i := range 40 {
		torch.Collect()
		live := torch.LiveTensors()
		m, _, err := pretrained.Load(ctx, dir, pretrained.Options{DisableMmap: i%2 == 0, DeviceMap: pretrained.DeviceMap{"": "disk"}})
		require.NoError(t, err)
		var wg sync.WaitGroup
		started := make(chan struct{}, 4)
		for range 4 {
			wg.Go(func() {
				started <- struct{}{}
				for {
					if err := torch.TryDo(func() { torch.Inference(func() { m.Forward(placedInputs()) }) }); err != nil {
						if !errors.Is(err, torch.ErrClosed) {
							t.Error(err)
						}
						return
					}
				}
			})
		}
		for range 4 {
			<-started
		}
		time.Sleep(time.Duration(i) * 100 * time.Microsecond)
		m.Close()
		wg.Wait()
		require.Equal(t, live, torch.LiveTensors())
	}
}

func TestPlacedModelsRefuseWhatTheyCannot(t *testing.T) {
	dir := loaderCase(t, "single")
	pretrained.Simulate(t, torch.CPU, torch.CPU)
	offloaded, _ := load(t, dir, pretrained.Options{DeviceMap: pretrained.DeviceMap{"": "disk"}})
	spread, _ := load(t, dir, pretrained.Options{DeviceMap: pretrained.DeviceMap{"": "cuda:0", "bert.encoder.layer.1": "cuda:1"}})
	for _, err := range []error{offloaded.CPU(), offloaded.Half(), spread.CPU()} {
		require.ErrorIs(t, err, pretrained.ErrUnsupported)
		require.ErrorContains(t, err, "moving BertForMaskedLM")
	}
	_, err := offloaded.ResizeTokenEmbeddings(50)
	require.ErrorIs(t, err, pretrained.ErrUnsupported)
	require.ErrorContains(t, err, "offloaded")
	require.ErrorIs(t, spread.SetInputEmbeddings(nn.NewEmbedding(3, 3)), pretrained.ErrUnsupported)
	require.ErrorContains(t, torch.TryDo(func() { nn.Clone(spread) }), "can't be copied")
	want := values(t, offloaded)
	require.NoError(t, offloaded.InitWeights())
	require.Equal(t, want, values(t, offloaded))

	offloaded.Close()
	require.ErrorIs(t, torch.TryDo(func() { values(t, offloaded) }), torch.ErrClosed)
}
