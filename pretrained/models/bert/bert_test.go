package bert_test

import (
	"context"
	"encoding/json"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"unsafe"

	"github.com/stretchr/testify/require"

	"github.com/torchgo/torchgo/internal/testdata"
	"github.com/torchgo/torchgo/pretrained"
	_ "github.com/torchgo/torchgo/pretrained/models/bert"
	"github.com/torchgo/torchgo/pretrained/safetensors"
	"github.com/torchgo/torchgo/torch"
	"github.com/torchgo/torchgo/torch/nn"
)

// reference is a case's inputs.json.
type reference struct {
	Class           string
	AutoClass       string            `json:"auto_class"`
	Tied            map[string]string `json:"tied_weights"`
	NumParameters   int64             `json:"num_parameters"`
	MemoryFootprint int64             `json:"memory_footprint"`
	Inputs, Labels  map[string]value
}

type value struct {
	DType string
	Shape []int
	Data  []float64
}

func (v value) tensor(t *testing.T) *torch.Tensor {
	dtype, err := torch.ParseDType(v.DType)
	require.NoError(t, err)
	return torch.FromSlice(v.Data, v.Shape...).ToDType(dtype)
}

func (r reference) tensors(t *testing.T, labels bool) pretrained.Inputs {
	named := map[string]*torch.Tensor{}
	for name, v := range r.Inputs {
		named[name] = v.tensor(t)
	}
	if labels {
		for name, v := range r.Labels {
			named[name] = v.tensor(t)
		}
	}
	in, err := pretrained.NewInputs(named)
	require.NoError(t, err)
	return in
}

// expected reads the float32 tensors that Python computed.
func expected(t *testing.T, path string) map[string][]float32 {
	f, err := safetensors.Open(path)
	require.NoError(t, err)
	defer f.Close()
	out := map[string][]float32{}
	for _, info := range f.Tensors() {
		require.Equal(t, safetensors.F32, info.DType)
		values := make([]float32, info.Numel())
		require.NoError(t, f.ReadTensor(info.Name, unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(values))), info.Bytes)))
		out[info.Name] = values
	}
	return out
}

// closeTo is the rule of comparison: |d| ≤ 1e-5 + 1e-4·|x|. Where the tensor begins with (batch, sequence),
// positions whose mask is 0 are unspecified.
func closeTo(t *testing.T, name string, want, got []float32, shape []int, mask []float64) {
	t.Helper()
	require.Len(t, got, len(want), name)
	width := 0
	if len(shape) >= 2 && shape[0]*shape[1] == len(mask) && !strings.HasPrefix(name, "grad") {
		width = len(want) / len(mask)
	}
	for i := range want {
		if width > 0 && mask[i/width] == 0 {
			continue
		}
		x := float64(want[i])
		require.InDelta(t, x, float64(got[i]), 1e-5+1e-4*math.Abs(x), "%s[%d]", name, i)
	}
}

func TestReferenceCases(t *testing.T) {
	var cases []string
	for group, n := range map[string]int{"models-bert": 6, "bert-heads": 10} {
		found, err := filepath.Glob(filepath.Join(testdata.Open(t, group), "*", "inputs.json"))
		require.NoError(t, err)
		require.Len(t, found, n)
		cases = append(cases, found...)
	}
	slices.Sort(cases)
	for _, path := range cases {
		dir := filepath.Dir(path)
		data, err := os.ReadFile(path)
		require.NoError(t, err)
		var ref reference
		require.NoError(t, json.Unmarshal(data, &ref))
		want := expected(t, filepath.Join(dir, "expected.safetensors"))
		for _, class := range []string{ref.AutoClass, ref.Class, ""} {
			for _, attn := range []nn.AttentionKind{"", nn.SDPA, nn.Eager} {
				name := filepath.Base(dir) + "/" + class + "/" + string(attn)
				t.Run(name, func(t *testing.T) {
					checkCase(t, dir, ref, want, pretrained.Options{Class: class, Attn: attn})
				})
			}
		}
	}
}

func checkCase(t *testing.T, dir string, ref reference, want map[string][]float32, opts pretrained.Options) {
	opts.Strict = true
	m, report, err := pretrained.Load(context.Background(), dir, opts)
	require.NoError(t, err)
	defer m.Close()
	require.Equal(t, ref.Class, m.Class())
	require.Equal(t, ref.NumParameters, m.NumParameters())
	require.Equal(t, ref.MemoryFootprint, m.MemoryFootprint())
	require.Equal(t, ref.NumParameters, report.NumParameters)
	require.Equal(t, ref.MemoryFootprint, report.MemoryFootprint)
	require.Equal(t, ref.Tied, report.TiedKeys)

	mask := ref.Inputs["attention_mask"].Data
	in := ref.tensors(t, false)
	in.OutputHiddenStates = true
	out := torch.InferenceOf(func() *pretrained.Output { return m.Forward(in) })
	seen := map[string]bool{}
	for name, x := range out.Named() {
		require.Contains(t, want, name)
		closeTo(t, name, want[name], torch.ToSlice[float32](x), x.Shape(), mask)
		seen[name] = true
	}

	if ref.Labels != nil {
		out := m.Forward(ref.tensors(t, true))
		closeTo(t, "loss", want["loss"], torch.ToSlice[float32](out.Loss.View(1)), []int{1}, mask)
		out.Loss.Backward()
		var sum float64
		for name, p := range nn.NamedParameters(m) {
			g := p.Grad()
			if g == nil {
				continue
			}
			values := torch.ToSlice[float32](g)
			for _, v := range values {
				sum += float64(v) * float64(v)
			}
			if grad, ok := want["grad."+name]; ok {
				closeTo(t, "grad."+name, grad, values, g.Shape(), mask)
				seen["grad."+name] = true
			}
		}
		closeTo(t, "grad_norm", want["grad_norm"], []float32{float32(math.Sqrt(sum))}, []int{1}, mask)
		seen["loss"], seen["grad_norm"] = true, true
	}
	for name := range want {
		require.True(t, seen[name], "%s was not computed", name)
	}
}

// A model is read only in evaluation mode: goroutines share it.
func TestConcurrentInference(t *testing.T) {
	dir := filepath.Join(testdata.Open(t, "models-bert"), "bert")
	m, _, err := pretrained.Load(context.Background(), dir, pretrained.Options{})
	require.NoError(t, err)
	defer m.Close()
	ids := torch.FromSlice([]int64{5, 6, 7, 8, 9, 10, 11, 12}, 2, 4)
	forward := func() (values []float32) {
		torch.Inference(func() { values = torch.ToSlice[float32](m.Forward(pretrained.Inputs{InputIDs: ids}).PoolerOutput) })
		return values
	}
	want, live := forward(), torch.LiveTensors()
	var wg sync.WaitGroup
	results := make([][]float32, 64)
	for i := range results {
		wg.Go(func() {
			for range 5 {
				results[i] = forward()
			}
		})
	}
	wg.Wait()
	for _, got := range results {
		require.Equal(t, want, got)
	}
	require.Equal(t, live, torch.LiveTensors())
}

// The whole forward pass keeps the model's dtype, and comes near the float32 one.
func TestHalfPrecision(t *testing.T) {
	dir := filepath.Join(testdata.Open(t, "models-bert"), "bert")
	want := expected(t, filepath.Join(dir, "expected.safetensors"))["pooler_output"]
	data, err := os.ReadFile(filepath.Join(dir, "inputs.json"))
	require.NoError(t, err)
	var ref reference
	require.NoError(t, json.Unmarshal(data, &ref))
	for _, dtype := range []torch.DType{torch.BFloat16, torch.Float16, torch.Float64} {
		for _, attn := range []nn.AttentionKind{nn.SDPA, nn.Eager} {
			m, _, err := pretrained.Load(context.Background(), dir, pretrained.Options{DType: dtype, Attn: attn})
			require.NoError(t, err)
			out := torch.InferenceOf(func() *pretrained.Output { return m.Forward(ref.tensors(t, false)) })
			require.Equal(t, dtype, out.PoolerOutput.DType())
			for i, v := range torch.ToSlice[float32](out.PoolerOutput.ToDType(torch.Float32)) {
				require.InDelta(t, want[i], v, 0.06, "%v %s", dtype, attn)
			}
			m.Close()
		}
	}
}

func TestDropoutWorksInTrainingOnly(t *testing.T) {
	dir := filepath.Join(testdata.Open(t, "models-bert"), "bert-seqcls")
	m, _, err := pretrained.Load(context.Background(), dir, pretrained.Options{})
	require.NoError(t, err)
	defer m.Close()
	ids := torch.FromSlice([]int64{5, 6, 7, 8}, 1, 4)
	logits := func() []float32 { return torch.ToSlice[float32](m.Forward(pretrained.Inputs{InputIDs: ids}).Logits) }
	first := logits()
	require.Equal(t, first, logits())
	nn.Train(m)
	torch.ManualSeed(1)
	require.NotEqual(t, first, logits())
	nn.Eval(m)
	require.Equal(t, first, logits())
}

func TestBadInputsAreTypedErrors(t *testing.T) {
	dir := filepath.Join(testdata.Open(t, "models-bert"), "bert")
	m, _, err := pretrained.Load(context.Background(), dir, pretrained.Options{})
	require.NoError(t, err)
	defer m.Close()
	ids := torch.FromSlice([]int64{5, 6, 7, 8}, 1, 4)
	for text, in := range map[string]pretrained.Inputs{
		"exactly one of input_ids and inputs_embeds": {},
		"exactly one of":                                       {InputIDs: ids, InputsEmbeds: torch.Zeros([]int{1, 4, 32})},
		"expected 2 dimensions, got shape [4]":                 {InputIDs: ids.View(-1)},
		"longer than the model's 64 positions":                 {InputIDs: torch.Zeros([]int{1, 65}, torch.TensorOptions{DType: torch.Int64})},
		"expected an attention_mask of shape [1 4], got [1 3]": {InputIDs: ids, AttentionMask: torch.Ones([]int{1, 3})},
		"index out of range":                                   {InputIDs: torch.FromSlice([]int64{96}, 1, 1)},
	} {
		err := torch.TryDo(func() { m.Forward(in) })
		var te *torch.Error
		require.ErrorAs(t, err, &te, text)
		require.ErrorContains(t, err, text)
	}
	_, err = pretrained.NewInputs(map[string]*torch.Tensor{"input_idz": ids})
	require.ErrorContains(t, err, `input: expected one of input_ids,`)
}
