// Package modeltest compares models with what transformers computed: reference cases, folders that hold a
// checkpoint, inputs.json and expected.safetensors.
package modeltest

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
	"github.com/torchgo/torchgo/pretrained/safetensors"
	"github.com/torchgo/torchgo/torch"
	"github.com/torchgo/torchgo/torch/nn"
)

// Case is a reference case.
type Case struct {
	Dir  string
	Want map[string][]float32 // outputs, loss and gradients by name

	Class           string
	AutoClass       string            `json:"auto_class"`
	Tied            map[string]string `json:"tied_weights"`
	NumParameters   int64             `json:"num_parameters"`
	MemoryFootprint int64             `json:"memory_footprint"`
	Inputs, Labels  map[string]Value
	DType           string // of the model, where it isn't float32
	Attentions      bool   // were recorded
	NumItemsInBatch int    `json:"num_items_in_batch"`
	LogitsToKeep    int    `json:"logits_to_keep"`

	attn nn.AttentionKind // of the model at hand
}

// Value is a tensor in inputs.json.
type Value struct {
	DType string
	Shape []int
	Data  []float64
}

// Tensor makes the tensor.
func (v Value) Tensor(t testing.TB) *torch.Tensor {
	dtype, err := torch.ParseDType(v.DType)
	require.NoError(t, err)
	return torch.FromSlice(v.Data, v.Shape...).ToDType(dtype)
}

// Cases reads the cases of an archive, of which there must be n.
func Cases(t testing.TB, group string, n int) []Case {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(testdata.Open(t, group), "*", "inputs.json"))
	require.NoError(t, err)
	require.Len(t, found, n)
	cases := make([]Case, n)
	for i, path := range found {
		cases[i] = Read(t, filepath.Dir(path))
	}
	return cases
}

// Read reads the case of a folder.
func Read(t testing.TB, dir string) Case {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(dir, "inputs.json"))
	require.NoError(t, err)
	c := Case{Dir: dir}
	require.NoError(t, json.Unmarshal(data, &c))
	c.Want = expected(t, filepath.Join(dir, "expected.safetensors"))
	return c
}

// expected reads the float32 tensors that Python computed.
func expected(t testing.TB, path string) map[string][]float32 {
	f, err := safetensors.Open(path)
	require.NoError(t, err)
	defer f.Close()
	out := map[string][]float32{}
	for _, info := range f.Tensors() {
		if info.DType != safetensors.F32 {
			require.True(t, strings.HasPrefix(info.Name, "generate."), info.Name) // of generation's tests
			continue
		}
		values := make([]float32, info.Numel())
		require.NoError(t, f.ReadTensor(info.Name, unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(values))), info.Bytes)))
		out[info.Name] = values
	}
	return out
}

// Tensors makes the inputs, with the labels or without.
func (c Case) Tensors(t testing.TB, labels bool) pretrained.Inputs {
	named := map[string]*torch.Tensor{}
	for name, v := range c.Inputs {
		named[name] = v.Tensor(t)
	}
	if labels {
		for name, v := range c.Labels {
			named[name] = v.Tensor(t)
		}
	}
	in, err := pretrained.NewInputs(named)
	require.NoError(t, err)
	in.LogitsToKeep = c.LogitsToKeep
	if labels {
		in.NumItemsInBatch = c.NumItemsInBatch
	}
	return in
}

// tolerance is |d| ≤ abs + rel·|x|. In half precision the kernels of another CPU sum up in another order, which
// moves what is rounded next by a unit in the last place here and there.
var tolerance = map[string]struct{ abs, rel float64 }{
	"": {1e-5, 1e-4}, "float32": {1e-5, 1e-4}, "bfloat16": {2e-2, 2e-2}, "float16": {1e-2, 1e-2},
}

// Close compares. Where a tensor begins with (batch, sequence), positions whose mask is 0 are unspecified.
func (c Case) Close(t *testing.T, name string, x *torch.Tensor) {
	t.Helper()
	want, shape := c.want(name), x.Shape()
	got := torch.ToSlice[float32](x.ToDType(torch.Float32))
	require.Len(t, got, len(want), name)
	rows, tol := c.rows(name, shape), tolerance[c.DType]
	for i := range want {
		if rows != nil && rows[i*len(rows)/len(want)] == 0 {
			continue
		}
		w := float64(want[i])
		if math.IsNaN(w) {
			require.True(t, math.IsNaN(float64(got[i])), "%s[%d]", name, i)
			continue
		}
		require.InDelta(t, w, float64(got[i]), tol.abs+tol.rel*math.Abs(w), "%s[%d]", name, i)
	}
}

// want is what Python computed with this kind of attention, or else with eager attention.
func (c Case) want(name string) []float32 {
	if w, ok := c.Want["sdpa."+name]; ok && c.attn != nn.Eager {
		return w
	}
	return c.Want[name]
}

// rows is the mask of the leading dimensions of a tensor, nil where all counts.
func (c Case) rows(name string, shape []int) []float64 {
	mask := c.Inputs["attention_mask"]
	if len(mask.Shape) < 2 || strings.HasPrefix(name, "grad") {
		return nil
	}
	b, s := mask.Shape[0], mask.Shape[len(mask.Shape)-1]
	switch {
	case len(mask.Shape) > 3:
		return nil
	case strings.HasPrefix(name, "attentions.") && len(shape) == 4: // (B, H, T, T): rows of padding
		var rows []float64
		for i := range b {
			for range shape[1] {
				rows = append(rows, mask.Data[i*s:(i+1)*s]...)
			}
		}
		return rows
	case len(shape) >= 2 && shape[0]*shape[1] == len(mask.Data):
		return mask.Data
	}
	return nil
}

// Run loads the case by its Auto class, by its class and by its config, with each kind of attention, mapped and
// not, and compares everything.
func (c Case) Run(t *testing.T) {
	for _, class := range []string{c.AutoClass, c.Class, ""} {
		for _, attn := range []nn.AttentionKind{"", nn.SDPA, nn.Eager} {
			for _, disable := range []bool{false, true} {
				name := class + "/" + string(attn)
				if disable {
					if class != "" {
						continue
					}
					name += "/read"
				}
				t.Run(filepath.Base(c.Dir)+"/"+name, func(t *testing.T) {
					c.check(t, pretrained.Options{Class: class, Attn: attn, DisableMmap: disable, Strict: true})
				})
			}
		}
	}
}

func (c Case) check(t *testing.T, opts pretrained.Options) {
	m, report, err := pretrained.Load(context.Background(), c.Dir, opts)
	require.NoError(t, err)
	defer m.Close()
	c.attn = m.Config().Base().Attn
	require.Equal(t, c.Class, m.Class())
	require.Equal(t, c.NumParameters, m.NumParameters())
	require.Equal(t, c.MemoryFootprint, m.MemoryFootprint())
	require.Equal(t, c.NumParameters, report.NumParameters)
	require.Equal(t, c.MemoryFootprint, report.MemoryFootprint)
	require.Equal(t, c.Tied, report.TiedKeys)

	in := c.Tensors(t, false)
	in.OutputHiddenStates, in.OutputAttentions = true, c.Attentions
	out := torch.InferenceOf(func() *pretrained.Output { return m.Forward(in) })
	seen := map[string]bool{}
	for name, x := range out.Named() {
		require.Contains(t, c.Want, name)
		if c.DType != "" {
			require.Equal(t, c.DType, x.DType().String(), name)
		}
		c.Close(t, name, x)
		seen[name] = true
	}
	if c.Labels != nil && !c.unspecified() {
		out := m.Forward(c.Tensors(t, true))
		require.Equal(t, torch.Float32, out.Loss.DType())
		c.Close(t, "loss", out.Loss.View(1))
		out.Loss.Backward()
		var sum float64
		for name, p := range nn.NamedParameters(m) {
			g := p.Grad()
			if g == nil {
				continue
			}
			for _, v := range torch.ToSlice[float32](g.ToDType(torch.Float32)) {
				sum += float64(v) * float64(v)
			}
			if _, ok := c.Want["grad."+name]; ok {
				c.Close(t, "grad."+name, g)
				seen["grad."+name] = true
			}
		}
		seen["loss"] = true
		if _, ok := c.Want["grad_norm"]; ok {
			c.Close(t, "grad_norm", torch.FromSlice([]float32{float32(math.Sqrt(sum))}))
			seen["grad_norm"] = true
		}
	}
	for name := range c.Want {
		name = strings.TrimPrefix(name, "sdpa.")
		switch {
		case strings.HasPrefix(name, "attentions.") && c.attn != nn.Eager:
			require.False(t, seen[name], "sdpa has no weights to give")
		case (name == "loss" || strings.HasPrefix(name, "grad")) && c.unspecified():
		default:
			require.True(t, seen[name], "%s was not computed", name)
		}
	}
}

// unspecified tells whether padding on the left predicts a label that counts, in SDPA, for which no value was
// recorded: in eager attention such a position sees all, in SDPA none.
func (c Case) unspecified() bool {
	mask, labels := c.Inputs["attention_mask"], c.Labels["labels"]
	_, recorded := c.Want["sdpa.loss"]
	if c.attn == nn.Eager || recorded || !strings.HasSuffix(c.Class, "CausalLM") || len(mask.Shape) != 2 || len(labels.Data) != len(mask.Data) {
		return false
	}
	for i := 1; i < len(mask.Data); i++ {
		if i%mask.Shape[1] > 0 && mask.Data[i-1] == 0 && mask.Data[i] == 1 && labels.Data[i] != -100 {
			return true
		}
	}
	return false
}

// RunAll runs the cases in the order of their names.
func RunAll(t *testing.T, cases []Case) {
	slices.SortFunc(cases, func(a, b Case) int { return strings.Compare(a.Dir, b.Dir) })
	for _, c := range cases {
		c.Run(t)
	}
}
