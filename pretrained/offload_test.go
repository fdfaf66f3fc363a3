package pretrained_test

import (
	"fmt"
	"path/filepath"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/torchgo/torchgo/internal/testdata"
	"github.com/torchgo/torchgo/pretrained"
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

func TestTrainingOffloadedWeightsIsRefused(t *testing.T) {
	for name, c := range placedModels {
		m, _ := load(t, filepath.Join(testdata.Open(t, c.group), c.dir), pretrained.Options{DeviceMap: pretrained.DeviceMap{"": "cpu", c.layers + ".1": "disk"}})
		m.Train()
		err := torch.TryDo(func() { m.Forward(placedInputs()).Loss.Backward() })
		require.ErrorContains(t, err, c.layers+".1 has weights that are offloaded to the CPU or to disk: such a model can't be trained", name)
	}
}
