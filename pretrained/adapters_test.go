package pretrained_test

import (
	"bytes"
	"encoding/json"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/torchgo/torchgo/internal/testdata"
	"github.com/torchgo/torchgo/pretrained"
	"github.com/torchgo/torchgo/pretrained/internal/modeltest"
	"github.com/torchgo/torchgo/pretrained/peft"
	"github.com/torchgo/torchgo/torch"
	"github.com/torchgo/torchgo/torch/nn"
)

// adapterCase is an adapter that Python's peft saved over one of the repository's models.
type adapterCase struct {
	Case, Base, Class string
	Trainable         []string
	Hit               map[string]struct{ Saved bool }
	MergeError        string `json:"merge_error"`

	dir  string
	want map[string]*torch.Tensor
}

// baseDir is the folder of a model that adapters were made for.
func baseDir(t *testing.T, base string) string {
	return filepath.Join(testdata.Open(t, "models-"+strings.SplitN(base, "-", 2)[0]), base)
}

func adapterCases(t *testing.T) (cases []adapterCase) {
	dir := testdata.Open(t, "peft")
	data, err := os.ReadFile(filepath.Join(dir, "adapters.json"))
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal(data, &cases))
	require.Len(t, cases, 26)
	for i := range cases {
		c := &cases[i]
		c.dir = filepath.Join(dir, "adapters", c.Case)
		c.want, err = pretrained.LoadFile(ctx, filepath.Join(c.dir, "expected.safetensors"))
		require.NoError(t, err)
	}
	return cases
}

func adapterNamed(t *testing.T, name string) adapterCase {
	for _, c := range adapterCases(t) {
		if c.Case == name {
			return c
		}
	}
	t.Fatal(name)
	return adapterCase{}
}

// logits are a model's on the inputs of its case.
func logits(t *testing.T, m pretrained.Model, base string) *torch.Tensor {
	in := modeltest.Read(t, baseDir(t, base)).Tensors(t, false)
	return torch.InferenceOf(func() *torch.Tensor { return m.Forward(in).Logits })
}

// far is the largest difference of two tensors, relative to the largest value above 1.
func far(t *testing.T, want, got *torch.Tensor) float64 {
	t.Helper()
	require.Equal(t, want.Shape(), got.Shape())
	return torch.ScopeOf(func() float64 {
		scale := max(1, torch.Item[float64](want.Detach().Abs().Amax().ToDType(torch.Float64)))
		return torch.Item[float64](want.Detach().Sub(got.Detach()).Abs().Amax().ToDType(torch.Float64)) / scale
	})
}

func someRows(x *torch.Tensor) *torch.Tensor {
	if x.Dim() == 2 && x.Size(0) > 3 {
		return torch.Cat([]*torch.Tensor{x.Narrow(0, 0, 2), x.Narrow(0, x.Size(0)-1, 1)})
	}
	return x
}

// Every adapter of peft's computes, merges and saves as there.
func TestAdaptersAsInPeft(t *testing.T) {
	for _, c := range adapterCases(t) {
		t.Run(c.Case, c.check)
	}
}

// ties are the cases with an adapter on one of two tied modules. peft merges it into both, and the model then computes
// something else; here they are not tied any more.
var ties = map[string]string{"bert-lora-embedding": "cls.predictions.decoder.weight", "bert-lora-mlm": "bert.embeddings.word_embeddings.weight"}

func (c adapterCase) check(t *testing.T) {
	mergedLogits := c.want["merged_logits"]
	if ties[c.Case] != "" {
		mergedLogits = c.want["logits"]
		delete(c.want, "merged."+ties[c.Case])
	}
	m, _ := load(t, baseDir(t, c.Base), pretrained.Options{Class: c.Class, Attn: nn.Eager})
	plain := logits(t, m, c.Base)
	own := contents(m)
	r, err := m.LoadAdapter(ctx, c.dir, pretrained.LoadAdapterOptions{Strict: true, IsTrainable: true})
	require.NoError(t, err)
	require.Empty(t, slices.Concat(r.MissingKeys, r.UnexpectedKeys))
	require.LessOrEqual(t, far(t, c.want["logits"], logits(t, m, c.Base)), 2e-6)

	var trained []string
	for name, p := range nn.NamedParameters(m) {
		if p.RequiresGrad() {
			trained = append(trained, name)
		}
	}
	require.Len(t, trained, len(c.Trainable), "%v", trained)

	require.NoError(t, m.DisableAdapters())
	biases := m.PeftConfig()["default"].Bias // which are the model's own
	if biases == peft.BiasNone {
		require.Zero(t, far(t, plain, logits(t, m, c.Base)))
	}
	require.LessOrEqual(t, far(t, c.want["disabled"], logits(t, m, c.Base)), 2e-6)
	require.NoError(t, m.EnableAdapters())

	// The files are peft's.
	dir := t.TempDir()
	require.NoError(t, pretrained.SavePretrained(ctx, m, dir, pretrained.SaveOptions{}))
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Len(t, entries, 2)
	for _, name := range []string{"adapter_config.json", "adapter_model.safetensors"} {
		want, err := os.ReadFile(filepath.Join(c.dir, name))
		require.NoError(t, err)
		got, err := os.ReadFile(filepath.Join(dir, name))
		require.NoError(t, err)
		require.True(t, bytes.Equal(want, got), "%s:\n%.3000s\nwant\n%.3000s", name, got, want)
	}

	require.NoError(t, m.MergeAdapter())
	require.LessOrEqual(t, far(t, mergedLogits, logits(t, m, c.Base)), 2e-6)
	require.NoError(t, m.UnmergeAdapter())
	require.LessOrEqual(t, far(t, c.want["logits"], logits(t, m, c.Base)), 2e-6)

	require.NoError(t, pretrained.SavePretrained(ctx, m, filepath.Join(dir, "base"), pretrained.SaveOptions{BaseModel: true}))
	base, _ := load(t, filepath.Join(dir, "base"), pretrained.Options{Strict: true, Attn: nn.Eager})
	if biases == peft.BiasNone {
		require.Equal(t, own, contents(base))
	}

	require.NoError(t, m.MergeAndUnload())
	var changed []string
	after := contents(m)
	require.ElementsMatch(t, slices.Collect(maps.Keys(own)), slices.Collect(maps.Keys(after)), "names")
	for name, x := range nn.StateDict(m) {
		if own[name] != after[name] {
			changed = append(changed, name)
			want := c.want["merged."+name]
			require.NotNil(t, want, "%s changed", name)
			require.LessOrEqual(t, far(t, want, someRows(x)), 1e-6, name)
		}
	}
	for name := range c.want {
		if name, ok := strings.CutPrefix(name, "merged."); ok {
			require.Contains(t, changed, name)
		}
	}
	require.NoError(t, pretrained.SavePretrained(ctx, m, filepath.Join(dir, "merged"), pretrained.SaveOptions{}))
	merged, _ := load(t, filepath.Join(dir, "merged"), pretrained.Options{Strict: true, Attn: nn.Eager})
	require.Zero(t, far(t, logits(t, m, c.Base), logits(t, merged, c.Base)))
	require.LessOrEqual(t, far(t, mergedLogits, logits(t, merged, c.Base)), 2e-6)
}

// contents are the bytes of the state dict.
func contents(m pretrained.Model) map[string]string {
	out := map[string]string{}
	for name, x := range nn.StateDict(m) {
		out[name] = string(x.Detach().Contiguous().Bytes())
	}
	return out
}
