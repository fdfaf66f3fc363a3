package peft

import (
	"encoding/json"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/torchgo/torchgo/internal/fileerr"
	"github.com/torchgo/torchgo/internal/testdata"
	"github.com/torchgo/torchgo/pretrained/safetensors"
	"github.com/torchgo/torchgo/torch"
	"github.com/torchgo/torchgo/torch/nn"
)

// readTensors reads a file of reference data.
func readTensors(t *testing.T, path string) map[string]*torch.Tensor {
	t.Helper()
	f, err := safetensors.Open(path)
	require.NoError(t, err)
	defer f.Close()
	all := map[string]*torch.Tensor{}
	for _, info := range f.Tensors() {
		dtype, err := torch.ParseDType(map[string]string{"F64": "float64", "F32": "float32", "I64": "int64"}[info.DType.String()])
		require.NoError(t, err)
		x := torch.Empty(info.Shape, torch.EmptyOptions{DType: dtype})
		require.NoError(t, f.ReadPart(info.Name, x.Bytes(), 0))
		all[info.Name] = x
	}
	return all
}

// single is a model of one layer.
type single struct {
	nn.Mode
	Layer any `torch:"layer"`
}

func (s *single) forward(x *torch.Tensor) *torch.Tensor {
	return s.Layer.(interface {
		Forward(*torch.Tensor) *torch.Tensor
	}).Forward(x)
}

var singleLayers = map[string]func(b nn.Builder) any{
	"linear":         func(b nn.Builder) any { return b.Linear(6, 5) },
	"linear-no-bias": func(b nn.Builder) any { return b.Linear(6, 5, nn.LinearOptions{Bias: torch.Some(false)}) },
	"conv1d-gpt2": func(b nn.Builder) any {
		return &nn.Linear{Weight: &nn.Transposed{W: b.Parameter(6, 5)}, Bias: b.Parameter(5)}
	},
	"embedding":         func(b nn.Builder) any { return b.Embedding(11, 6) },
	"embedding-padding": func(b nn.Builder) any { return b.Embedding(11, 6, nn.EmbeddingOptions{PaddingIdx: torch.Some(2)}) },
	"embedding-max-norm": func(b nn.Builder) any {
		return b.Embedding(11, 6, nn.EmbeddingOptions{MaxNorm: torch.Some(0.7)})
	},
	"conv1d": func(b nn.Builder) any {
		return b.Conv1d(4, 6, 3, nn.ConvOptions{Stride: 2, Padding: 1})
	},
	"conv1d-dilated": func(b nn.Builder) any { return b.Conv1d(4, 6, 3, nn.ConvOptions{Dilation: 2}) },
	"conv1d-pointwise": func(b nn.Builder) any {
		return b.Conv1d(4, 6, 1, nn.ConvOptions{Bias: torch.Some(false)})
	},
	"conv2d": func(b nn.Builder) any {
		return b.Conv2d(4, 6, 3, nn.ConvOptions{Stride: []int{2, 1}, Padding: 1})
	},
	"conv2d-pointwise": func(b nn.Builder) any { return b.Conv2d(4, 6, 1) },
	"conv2d-groups": func(b nn.Builder) any {
		return b.Conv2d(4, 6, 3, nn.ConvOptions{Groups: torch.Some(2), Padding: 1})
	},
	"conv2d-circular": func(b nn.Builder) any {
		return b.Conv2d(4, 6, 3, nn.ConvOptions{PaddingMode: nn.Circular, Padding: 1})
	},
}

var singleConfigs = map[string]Config{
	"lora":            {PeftType: LoRA},
	"rslora":          {PeftType: LoRA, UseRSLoRA: true},
	"dora":            {PeftType: LoRA, UseDoRA: true},
	"lora-bias":       {PeftType: LoRA, LoraBias: true},
	"ia3":             {PeftType: IA3},
	"ia3-feedforward": {PeftType: IA3},
}

// unlike are the cases that peft computes and that are refused here, by name.
var unlike = map[string]string{
	"conv2d-groups.dora": "use_dora on a convolution with groups", // its norm mixes the kernels of the groups
}

type layerCase struct {
	Layer, Way, Error string
	Starts            map[string]struct {
		Shape    []int
		Constant *float64
	}
}

func layerCases(t *testing.T) (cases []layerCase, tensors map[string]*torch.Tensor) {
	dir := testdata.Open(t, "peft")
	data, err := os.ReadFile(filepath.Join(dir, "layers.json"))
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal(data, &cases))
	require.Len(t, cases, len(singleLayers)*len(singleConfigs))
	return cases, readTensors(t, filepath.Join(dir, "layers.safetensors"))
}

// near requires values to be equal up to rounding in their dtype.
func near(t *testing.T, want, got *torch.Tensor, what string) {
	t.Helper()
	require.Equal(t, want.Shape(), got.Shape(), what)
	tolerance := 1e-12
	if want.DType() == torch.Float32 {
		tolerance = 1e-6
	}
	diff := torch.Item[float64](got.Detach().ToDType(torch.Float64).Sub(want.Detach().ToDType(torch.Float64)).Abs().Amax())
	scale := max(1, torch.Item[float64](want.Detach().ToDType(torch.Float64).Abs().Amax()))
	require.LessOrEqual(t, diff, tolerance*scale, what)
}

// Every kind of layer with every kind of adapter computes, trains and merges as in peft.
func TestLayersAsInPeft(t *testing.T) {
	cases, tensors := layerCases(t)
	for _, c := range cases {
		key := c.Layer + "." + c.Way
		t.Run(key, func(t *testing.T) {
			torch.Scope(func() { testLayer(t, c, key, tensors) })
		})
	}
}

func testLayer(t *testing.T, c layerCase, key string, tensors map[string]*torch.Tensor) {
	m := &single{Layer: singleLayers[c.Layer](nn.Builder{DType: torch.Float64})}
	nn.Eval(m)
	base := map[string]*torch.Tensor{}
	for name := range nn.StateDict(m) {
		base[name] = tensors[key+".base."+strings.TrimPrefix(name, "layer.")]
	}
	require.NoError(t, nn.LoadStateDict(m, maps.All(base)))
	config := singleConfigs[c.Way]
	config.R, config.LoraAlpha, config.TargetModules = torch.Some(2), torch.Some(3.), Names{List: []string{"layer"}}
	target := Target{Path: "layer", Module: m.Layer, R: 2, Alpha: 3, Feedforward: c.Way == "ia3-feedforward"}
	a := New(m, ModelInfo{})
	err := a.add(&config, "default", &Targets{Layers: []Target{target}})
	if says := unlike[key]; says != "" {
		require.ErrorContains(t, err, says)
		require.ErrorIs(t, err, ErrUnsupported)
		return
	}
	if len(c.Starts) == 0 {
		require.NotEmpty(t, c.Error)
		require.ErrorIs(t, err, ErrUnsupported)
		require.Empty(t, a.Names())
		return
	}
	require.NoError(t, err)

	// What peft starts with.
	trained := map[string]*torch.Tensor{}
	for name, p := range nn.NamedParameters(m) {
		if p.RequiresGrad() {
			trained[name] = p
		}
	}
	require.Len(t, trained, len(c.Starts))
	for name, start := range c.Starts {
		name = strings.TrimPrefix(name, "base_model.model.")
		p := trained[strings.TrimSuffix(name, ".weight")]
		if p == nil {
			p = trained[name]
		}
		require.NotNil(t, p, name)
		require.Equal(t, start.Shape, p.Shape())
		if start.Constant != nil {
			require.Equal(t, *start.Constant, torch.Item[float64](p.Detach().Amax()), name)
			require.Equal(t, *start.Constant, torch.Item[float64](p.Detach().Amin()), name)
		}
	}

	values := map[string]*torch.Tensor{}
	for name, v := range tensors {
		if rest, ok := strings.CutPrefix(name, key+".adapter."); ok {
			values["layer."+rest] = v
		}
	}
	info, err := a.LoadStateDict("default", values)
	require.NoError(t, err)
	require.Empty(t, info.Missing)
	require.Empty(t, info.Unexpected)
	if strings.HasPrefix(c.Error, "RuntimeError: The size") { // with dilation peft's A has another length than the layer
		require.Error(t, torch.TryDo(func() { m.forward(tensors[key+".x"]) }))
		return
	}
	out := m.forward(tensors[key+".x"].Clone())
	near(t, tensors[key+".out"], out, "output")
	n := out.Numel()
	out.Mul(torch.Linspace(-1, 1, n, torch.TensorOptions{DType: torch.Float64}).Reshape(out.Shape()...)).Sum().Backward()
	var grads int
	for name, want := range tensors {
		rest, ok := strings.CutPrefix(name, key+".grad.")
		if !ok {
			continue
		}
		grads++
		for _, e := range a.entries("default") {
			if e.name == "layer."+strings.TrimSuffix(rest, ".weight") || e.name == "layer."+rest {
				near(t, want, e.tensor.Grad(), rest)
				grads--
			}
		}
	}
	require.Zero(t, grads)

	again := m.forward(tensors[key+".x"].Clone()) // a lookup may have scaled rows of A down
	require.NoError(t, a.Disable())
	plain := m.forward(tensors[key+".x"].Clone())
	a.Enable()
	state := map[string]*torch.Tensor{}
	for name, v := range a.ModelState() {
		state[name] = v.Clone()
	}
	err = a.Merge()
	if strings.Contains(c.Error, "erging") || strings.Contains(c.Error, "merge LoRA") {
		require.ErrorIs(t, err, ErrUnsupported)
		return
	}
	require.NoError(t, err)
	for name, want := range tensors {
		if rest, ok := strings.CutPrefix(name, key+".merged."); ok {
			got, err := nn.GetParameter(m, "layer."+rest)
			require.NoError(t, err)
			near(t, want, got, "merged "+rest)
		}
	}
	near(t, tensors[key+".merged_out"], m.forward(tensors[key+".x"].Clone()), "output when merged")
	require.ErrorIs(t, a.Disable(), fileerr.ErrArgument)
	a.Unmerge()
	for name, v := range nn.StateDict(m) {
		if want := state[name]; want != nil {
			require.True(t, v.Equal(want), name)
		}
	}
	require.True(t, again.Equal(m.forward(tensors[key+".x"].Clone())), "output when unmerged")
	require.NoError(t, a.Unload())
	require.True(t, plain.Equal(m.forward(tensors[key+".x"].Clone())))
}
