package pretrained_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/torchgo/torchgo/internal/testdata"
	"github.com/torchgo/torchgo/pretrained"
	"github.com/torchgo/torchgo/torch"
)

// placedModel is a model that tools/placeref had transformers plan.
type placedModel struct {
	Case  string `json:"case"`
	Class string `json:"class"`
	DType string `json:"dtype"`
	Bytes int64  `json:"bytes"`
	Runs  []struct {
		MaxMemory    [][2]any          `json:"max_memory"`
		Sequential   map[string]string `json:"sequential"`
		Balanced     map[string]string `json:"balanced"`
		BalancedLow0 map[string]string `json:"balanced_low_0"`
	} `json:"runs"`
}

// The maps of real models equal transformers', on GPUs that are not there: a plan needs none. Entries without
// tensors (an activation, say) are not compared: such modules are functions here.
func TestStrategiesAreTransformers(t *testing.T) {
	data, err := os.ReadFile(filepath.Join(testdata.Open(t, "placement"), "models.json"))
	require.NoError(t, err)
	var models []placedModel
	require.NoError(t, json.Unmarshal(data, &models))
	require.Len(t, models, 12)
	several := 0
	for _, m := range models {
		group := "models-bert"
		if strings.HasPrefix(m.Case, "llama") {
			group = "models-llama"
		}
		dir := filepath.Join(testdata.Open(t, group), m.Case)
		for k, run := range m.Runs {
			for strategy, want := range map[string]map[string]string{"sequential": run.Sequential, "balanced": run.Balanced, "auto": run.Balanced, "balanced_low_0": run.BalancedLow0} {
				if want["error"] != "" {
					continue // transformers fails
				}
				dtype, err := torch.ParseDType(m.DType)
				require.NoError(t, err)
				opts := pretrained.Options{Class: m.Class, DType: dtype, DeviceMap: pretrained.DeviceMap{"": strategy}, MaxMemory: map[string]int64{}}
				for _, b := range run.MaxMemory {
					opts.MaxMemory[b[0].(string)] = int64(b[1].(float64))
				}
				name := fmt.Sprintf("%s %s %d %s", m.Class, m.DType, k, strategy)
				plan, err := pretrained.Plan(ctx, dir, opts)
				require.NoError(t, err, name)
				require.Equal(t, m.Bytes, plan.MemoryFootprint, name)
				keys := map[string]bool{}
				for _, w := range plan.Weights {
					keys[w.Key] = true
				}
				got, expected := withTensors(plan.DeviceMap, keys), withTensors(want, keys)
				for name, d := range expected {
					if d >= "0" && d <= "9" {
						expected[name] = "cuda:" + d
					}
				}
				require.Equal(t, expected, got, name)
				if len(want) > 1 {
					several++
				}
			}
		}
	}
	require.Greater(t, several, 100)
}

// withTensors leaves out the entries of a map that hold no weight.
func withTensors(m map[string]string, keys map[string]bool) map[string]string {
	out := maps.Clone(m)
	maps.DeleteFunc(out, func(name, _ string) bool {
		for key := range keys {
			if name == "" || key == name || strings.HasPrefix(key, name+".") {
				return false
			}
		}
		return true
	})
	return out
}

// What the CPU may not hold goes to disk, and the model computes the same. The maps are those of transformers'
// from_pretrained with these files.
func TestAutoOffloadsToDisk(t *testing.T) {
	dir := filepath.Join(testdata.Open(t, "models-bert"), "bert-mlm")
	whole, r := load(t, dir, pretrained.Options{DeviceMap: pretrained.AutoDeviceMap})
	require.Equal(t, map[string]string{"": "cpu"}, r.DeviceMap)
	ids := torch.Arange(8).View(1, 8)
	for kb, placed := range map[int64]map[string]string{
		40: {"": "disk"}, 80: {"bert.embeddings": "cpu", "cls": "cpu", "bert.encoder": "disk"}, 200: {"": "cpu"},
	} {
		m, r := load(t, dir, pretrained.Options{DeviceMap: pretrained.AutoDeviceMap, MaxMemory: map[string]int64{"cpu": kb * 1000}})
		require.Equal(t, placed, r.DeviceMap)
		torch.Inference(func() {
			got, want := m.Forward(pretrained.Inputs{InputIDs: ids}), whole.Forward(pretrained.Inputs{InputIDs: ids})
			require.True(t, got.Logits.Equal(want.Logits), "%d KB", kb)
		})
	}

	opts := pretrained.Options{DeviceMap: pretrained.AutoDeviceMap, MaxMemory: map[string]int64{"0": 60_000, "cuda:1": 200_000}}
	plan, err := pretrained.Plan(ctx, dir, opts)
	require.NoError(t, err)
	require.Contains(t, plan.BytesPerDevice, "cuda:1")
	if torch.CUDADeviceCount() < 2 {
		_, _, err = pretrained.Load(ctx, dir, opts)
		require.ErrorContains(t, err, "device map: cuda:")
		require.ErrorContains(t, err, "GPUs that libtorch sees")
	}
}

func TestMaxMemory(t *testing.T) {
	dir := loaderCase(t, "single")
	for text, opts := range map[string]pretrained.Options{
		"max memory of cpu: expected 10.0 kB, got 20.6 kB":                  {MaxMemory: map[string]int64{"cpu": 10_000}},
		`max memory: expected a device name (cpu, cuda:0, disk), got "tpu"`: {MaxMemory: map[string]int64{"tpu": 1}},
		"max memory of cpu: expected 0 or more bytes, got -1":               {MaxMemory: map[string]int64{"cpu": -1}, DeviceMap: pretrained.AutoDeviceMap},
		"two entries for cuda:0":                                            {MaxMemory: map[string]int64{"0": 1, "cuda:0": 1}},
	} {
		_, err := pretrained.Plan(ctx, dir, opts)
		require.ErrorContains(t, err, text, text)
	}
	_, err := pretrained.Plan(ctx, dir, pretrained.Options{MaxMemory: map[string]int64{"cpu": 100_000, "disk": 0}})
	require.NoError(t, err)
}
