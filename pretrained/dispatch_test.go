package pretrained_test

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/torchgo/torchgo/internal/testdata"
	"github.com/torchgo/torchgo/pretrained"
	"github.com/torchgo/torchgo/torch"
	"github.com/torchgo/torchgo/torch/nn"
)

// placedModels are tiny models of two layers, with maps that put their parts on two GPUs.
var placedModels = map[string]struct {
	group, dir string
	layers     string // path of the layers
	split      pretrained.DeviceMap
	tied       string // a layer that the map puts elsewhere than the tensor that it shares
}{
	"bert": {"models-bert", "bert-mlm", "bert.encoder.layer",
		pretrained.DeviceMap{"bert": "cuda:0", "bert.encoder.layer.1": "1", "cls": "cuda:1"}, "cls.predictions.decoder"},
	"llama": {"models-llama", "llama", "model.layers",
		pretrained.DeviceMap{"": "cuda:0", "model.layers.1": "cuda:1", "model.norm": "cuda:1", "lm_head": "cuda:0"}, ""},
	"tied llama": {"models-llama", "llama-tied-rope-llama3", "model.layers",
		pretrained.DeviceMap{"model": "cuda:0", "model.layers.1": "cuda:1", "lm_head": "cuda:1"}, "lm_head"},
}

// placedInputs are two sequences, the second with padding.
func placedInputs() pretrained.Inputs {
	return pretrained.Inputs{
		InputIDs:      torch.FromSlice([]int64{5, 6, 7, 8, 9, 10, 11, 12}, 2, 4),
		AttentionMask: torch.FromSlice([]int64{1, 1, 1, 1, 1, 1, 1, 0}, 2, 4),
		Labels:        torch.FromSlice([]int64{5, 6, -100, 8, 9, 10, 11, 12}, 2, 4),

		OutputHiddenStates: true,
	}
}

// values runs m and gives all that comes out.
func values(t *testing.T, m pretrained.Model) map[string][]float32 {
	t.Helper()
	out := map[string][]float32{}
	torch.Inference(func() {
		for name, x := range m.Forward(placedInputs()).Named() {
			out[name] = torch.ToSlice[float32](x.ToDType(torch.Float32))
		}
	})
	require.Contains(t, out, "logits")
	return out
}

func TestDispatch(t *testing.T) {
	for name, c := range placedModels {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(testdata.Open(t, c.group), c.dir)
			m, _ := load(t, dir, pretrained.Options{})
			want := values(t, m)
			require.Nil(t, m.HFDeviceMap())

			sim := pretrained.Simulate(t, torch.CPU, torch.CPU)
			m, r := load(t, dir, pretrained.Options{DeviceMap: c.split})
			where := map[string]string{}
			for name, device := range c.split {
				where[name] = strings.Replace(device, "1", "cuda:1", 1)
				if strings.HasPrefix(device, "cuda") {
					where[name] = device
				}
			}
			require.Equal(t, where, r.DeviceMap)
			require.Equal(t, where, m.HFDeviceMap())
			sim.Take()

			require.Equal(t, want, values(t, m))
			moves, runs := sim.Take()
			ran := map[string]torch.Device{}
			for _, run := range runs {
				ran[run.Module] = run.On
				for _, in := range run.In {
					require.Equal(t, run.On, in, run.Module)
				}
				if run.Module == c.layers+".1" {
					require.Equal(t, torch.CUDA(0), run.Given[0], "the hidden state comes from the layer before")
				}
			}
			require.Equal(t, torch.CUDA(0), ran[c.layers+".0"])
			require.Equal(t, torch.CUDA(1), ran[c.layers+".1"])
			if c.tied != "" {
				require.Equal(t, torch.CUDA(0), ran[c.tied], "where the embeddings are")
			}
			for _, move := range moves {
				require.NotEqual(t, move.From, move.To)
			}
			last := moves[len(moves)-1]
			require.Equal(t, torch.CPU, last.To, "what comes out is where the inputs were")
		})
	}
}

// Gradients flow across devices, in training mode with dropout, also where layers are run again for them.
func TestDispatchedGradients(t *testing.T) {
	gradients := func(m pretrained.Model) map[string][]float32 {
		m.Train()
		torch.ManualSeed(3)
		require.NoError(t, torch.TryDo(func() { m.Forward(placedInputs()).Loss.Backward() }))
		out := map[string][]float32{}
		for name, p := range nn.NamedParameters(m) {
			require.NotNil(t, p.Grad(), name)
			out[name] = torch.ToSlice[float32](p.Grad())
		}
		return out
	}
	for name, c := range placedModels {
		dir := filepath.Join(testdata.Open(t, c.group), c.dir)
		m, _ := load(t, dir, pretrained.Options{})
		want := gradients(m)
		pretrained.Simulate(t, torch.CPU, torch.CPU)
		m, _ = load(t, dir, pretrained.Options{DeviceMap: c.split})
		require.Equal(t, want, gradients(m), name)
		m, _ = load(t, dir, pretrained.Options{DeviceMap: c.split})
		require.NoError(t, m.ActivationCheckpointingEnable())
		require.Equal(t, want, gradients(m), name)
	}
}

// With one of the two devices being the meta device, libtorch refuses whatever would mix them. (It lacks
// fused attention, embedding, layer_norm and roll there: they stay on the other.)
func TestNothingCrossesDevicesSilently(t *testing.T) {
	for name, m := range map[string]pretrained.DeviceMap{
		"bert":       {"": "cuda:0", "cls.predictions.transform.dense": "cuda:1"},
		"llama":      {"": "cuda:0", "model.norm": "cuda:1", "lm_head": "cuda:1"},
		"tied llama": {"": "cuda:0", "model.norm": "cuda:1"},
	} {
		t.Run(name, func(t *testing.T) {
			c := placedModels[name]
			pretrained.Simulate(t, torch.CPU, torch.Meta)
			model, _ := load(t, filepath.Join(testdata.Open(t, c.group), c.dir), pretrained.Options{DeviceMap: m, Attn: nn.Eager})
			away := false
			for _, p := range nn.NamedParameters(model) {
				away = away || p.Device() == torch.Meta
			}
			require.True(t, away)
			for name, x := range model.Forward(placedInputs()).Named() {
				require.Equal(t, torch.CPU, x.Device(), name)
			}
		})
	}
}

func TestDispatchOnAGPU(t *testing.T) {
	if torch.CUDADeviceCount() == 0 {
		t.Skip("no GPU")
	}
	for name, c := range placedModels {
		dir := filepath.Join(testdata.Open(t, c.group), c.dir)
		m, _ := load(t, dir, pretrained.Options{})
		want := values(t, m)
		for what, m := range map[string]pretrained.DeviceMap{
			"CPU and disk": {"": "cuda:0", c.layers + ".0": "cpu", c.layers + ".1": "disk"},
			"all on disk":  {"": "disk", c.layers + ".0": "cuda:0"},
		} {
			model, _ := load(t, dir, pretrained.Options{DeviceMap: m})
			for range 3 {
				for key, got := range values(t, model) {
					require.InDeltaSlice(t, want[key], got, 1e-4, "%s: %s: %s", name, what, key)
				}
			}
		}
	}
}

// Beside a GPU, layers whose weights are in the CPU's memory or on disk compute on the GPU.
func TestOffloadedLayersRunOnTheGPU(t *testing.T) {
	for _, place := range []string{"cpu", "disk"} {
		sim := pretrained.Simulate(t, torch.CPU)
		m, _ := load(t, filepath.Join(testdata.Open(t, "models-llama"), "llama"), pretrained.Options{
			DeviceMap: pretrained.DeviceMap{"": "cuda:0", "model.layers.1": place, "lm_head": place}})
		sim.Take()
		values(t, m)
		_, runs := sim.Take()
		ran := map[string]bool{}
		for _, r := range runs {
			ran[r.Module] = true
			require.Equal(t, torch.CUDA(0), r.On, r.Module)
			for _, in := range r.In {
				require.Equal(t, torch.CUDA(0), in, r.Module)
			}
		}
		require.True(t, ran["model.layers.1"] && ran["lm_head"])
	}
}

func TestDeviceMapRules(t *testing.T) {
	dir := loaderCase(t, "single")
	pretrained.Simulate(t, torch.CPU, torch.CPU)
	for name, c := range map[string]struct {
		m    pretrained.DeviceMap
		text string
	}{
		"unmatched": {pretrained.DeviceMap{"bert": "cpu"}, `no entry for the parameter cls.predictions.bias; add one for it, or "" for all that the others leave out`},
		"block": {pretrained.DeviceMap{"": "cpu", "bert.encoder.layer.0.output": "cuda:0"},
			"the parts of bert.encoder.layer.0 must stay together: expected output.dense.weight on cpu, as attention.self.query.weight, got cuda:0"},
		"embeddings": {pretrained.DeviceMap{"": "cpu", "bert.embeddings.LayerNorm": "disk"}, "the parts of bert.embeddings must stay together"},
		"foo":        {pretrained.DeviceMap{"": "cpu", "cls": "foo"}, `device map: cls: expected a device name (cpu, cuda:0), disk, or one of auto, balanced, balanced_low_0, sequential, got "foo"`},
		"strategy":   {pretrained.DeviceMap{"": "cpu", "cls": "auto"}, `device map: cls: expected a device name`},
		"negative":   {pretrained.DeviceMap{"": "-1"}, `got "-1"`},
		"absent GPU": {pretrained.DeviceMap{"": "cuda:2"}, "device map: cuda:2: expected one of the 2 GPUs"},
		"meta":       {pretrained.DeviceMap{"": "cpu", "cls": "meta"}, "device map: cls: got meta"},
	} {
		_, _, err := pretrained.Load(ctx, dir, pretrained.Options{DeviceMap: c.m})
		require.ErrorIs(t, err, pretrained.ErrArgument, name)
		require.ErrorContains(t, err, c.text, name)
		require.NotContains(t, err.Error(), "\n", name)
	}
}

// An entry matches whole parts of a name, and the longest counts: layer.1 is not layer.10.
func TestDeviceMapPrefixes(t *testing.T) {
	dir := loaderCase(t, "single")
	overrides := map[string]any{"num_hidden_layers": 12}
	sim := pretrained.Simulate(t, torch.CPU, torch.CPU)
	m, _ := load(t, dir, pretrained.Options{Config: overrides, DeviceMap: pretrained.DeviceMap{
		"": "cuda:0", "bert.encoder": "cuda:0", "bert.encoder.layer.1": "cuda:1"}})
	sim.Take()
	values(t, m)
	_, runs := sim.Take()
	var on1 []string
	for _, r := range runs {
		if r.On == torch.CUDA(1) {
			on1 = append(on1, r.Module)
		}
	}
	require.Equal(t, []string{"bert.encoder.layer.1"}, on1)

	t.Setenv("LOCAL_RANK", "1")
	_, r := load(t, dir, pretrained.Options{DeviceMap: pretrained.DeviceMap{"": "cuda"}})
	require.Equal(t, map[string]string{"": "cuda:1"}, r.DeviceMap)
}
