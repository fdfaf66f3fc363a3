package bert_test

import (
	"context"
	"encoding/json"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
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
	Inputs, Labels  map[string]struct {
		DType string
		Shape []int
		Data  []int64
	}
}

func (r reference) tensors(t *testing.T, labels bool) pretrained.Inputs {
	named := map[string]*torch.Tensor{}
	for name, v := range r.Inputs {
		require.Equal(t, "int64", v.DType)
		named[name] = torch.FromSlice(v.Data, v.Shape...)
	}
	if labels {
		for name, v := range r.Labels {
			named[name] = torch.FromSlice(v.Data, v.Shape...)
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
func closeTo(t *testing.T, name string, want, got []float32, shape []int, mask []int64) {
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
	dir := testdata.Open(t, "models-bert")
	cases, err := filepath.Glob(filepath.Join(dir, "*", "inputs.json"))
	require.NoError(t, err)
	slices.Sort(cases)
	require.Len(t, cases, 6)
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
