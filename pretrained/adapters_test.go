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

// onOtherCPUs is how far float32 logits may be from the recorded ones: 2e-6 where they were recorded, but kernels of
// other instruction sets sum up in another order.
const onOtherCPUs = 1e-5

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
	require.LessOrEqual(t, far(t, c.want["logits"], logits(t, m, c.Base)), onOtherCPUs)

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
	require.LessOrEqual(t, far(t, c.want["disabled"], logits(t, m, c.Base)), onOtherCPUs)
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
	require.LessOrEqual(t, far(t, mergedLogits, logits(t, m, c.Base)), onOtherCPUs)
	require.NoError(t, m.UnmergeAdapter())
	require.LessOrEqual(t, far(t, c.want["logits"], logits(t, m, c.Base)), onOtherCPUs)

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
	require.LessOrEqual(t, far(t, mergedLogits, logits(t, merged, c.Base)), onOtherCPUs)
}

// contents are the bytes of the state dict.
func contents(m pretrained.Model) map[string]string {
	out := map[string]string{}
	for name, x := range nn.StateDict(m) {
		torch.Scope(func() { out[name] = string(x.Detach().Contiguous().Bytes()) })
	}
	return out
}

// Two adapters on one model: each alone, both in either order, both merged.
func TestSeveralAdapters(t *testing.T) {
	dir := testdata.Open(t, "peft")
	data, err := os.ReadFile(filepath.Join(dir, "several.json"))
	require.NoError(t, err)
	var rows []map[string]string
	require.NoError(t, json.Unmarshal(data, &rows))
	want, err := pretrained.LoadFile(ctx, filepath.Join(dir, "several.safetensors"))
	require.NoError(t, err)
	for _, row := range rows {
		key := row["first"] + "+" + row["second"]
		t.Run(key, func(t *testing.T) {
			m, _ := load(t, baseDir(t, row["base"]), pretrained.Options{Attn: nn.Eager})
			for _, name := range []string{"first", "second"} {
				_, err := m.LoadAdapter(ctx, filepath.Join(dir, "adapters", row[name]), pretrained.LoadAdapterOptions{Name: name, Strict: true})
				if name == "second" && row["load"] != "" {
					require.ErrorIs(t, err, pretrained.ErrUnsupported)
					require.Equal(t, []string{"first"}, m.ActiveAdapters())
					require.Len(t, m.PeftConfig(), 1)
					return
				}
				require.NoError(t, err)
			}
			require.Equal(t, []string{"first"}, m.ActiveAdapters(), "a further one waits")
			before := contents(m)
			checked := 0
			for what, names := range map[string][]string{"first": {"first"}, "second": {"second"}, "both": {"first", "second"}, "swapped": {"second", "first"}} {
				require.NoError(t, m.SetAdapter(names...))
				if w := want[key+"."+what]; w != nil {
					require.LessOrEqual(t, far(t, w, logits(t, m, row["base"])), onOtherCPUs, what)
					checked++
				}
			}
			require.GreaterOrEqual(t, checked, 2)
			require.NoError(t, m.SetAdapter("first"))
			require.Equal(t, before, contents(m))
			if ties[row["first"]] != "" {
				return // peft merges into the other module, too
			}
			require.NoError(t, m.MergeAndUnload(peft.MergeOptions{Adapters: []string{"first", "second"}, Safe: true}))
			checked = 0
			for name, x := range nn.StateDict(m) {
				if w := want[key+".merged."+name]; w != nil {
					require.LessOrEqual(t, far(t, w, someRows(x)), 2e-6, name)
					checked++
				}
			}
			require.NotZero(t, checked)
		})
	}
}

// besideBase puts an adapter of peft's, and the model that its config names, in folders of the test's own, in which it then
// runs.
func besideBase(t *testing.T, c adapterCase) (adapter string) {
	dir := t.TempDir()
	require.NoError(t, os.CopyFS(filepath.Join(dir, c.Base), os.DirFS(baseDir(t, c.Base))))
	require.NoError(t, os.CopyFS(filepath.Join(dir, "adapter"), os.DirFS(c.dir)))
	t.Chdir(dir)
	return "adapter"
}

// from_pretrained of an adapter: over the model that its config names, or over the one beside it (A28).
func TestAnAdapterInPlaceOfAModel(t *testing.T) {
	c := adapterNamed(t, "llama-lora")
	path := besideBase(t, c)
	eager := pretrained.Options{Attn: nn.Eager, Strict: true}
	m, r := load(t, path, eager)
	require.LessOrEqual(t, far(t, c.want["logits"], logits(t, m, c.Base)), onOtherCPUs)
	require.False(t, m.Training())
	require.Equal(t, "adapter", r.Adapter.Path)
	require.Equal(t, "LORA", r.Adapter.Type)
	require.Contains(t, r.String(), "adapter     default: LORA from adapter, ")
	require.Contains(t, string(r.JSON()), `"adapter":{"path":"adapter","name":"default","type":"LORA","parameters":`)
	require.Equal(t, []string{"default"}, m.ActiveAdapters())
	for _, p := range nn.NamedParameters(m) {
		require.False(t, p.RequiresGrad(), "it was not asked to train")
	}

	plan, err := pretrained.Plan(ctx, path, eager)
	require.NoError(t, err)
	require.Equal(t, r.Adapter.Parameters, plan.Adapter.Parameters)
	require.Equal(t, c.Base, plan.Path)
	require.Contains(t, plan.String(), "adapter     default: LORA")

	named := eager
	named.Adapter, named.AdapterOptions.Name, named.AdapterOptions.IsTrainable = path, "mine", true
	m, _ = load(t, c.Base, named)
	require.LessOrEqual(t, far(t, c.want["logits"], logits(t, m, c.Base)), onOtherCPUs)
	require.Equal(t, []string{"mine"}, m.ActiveAdapters())

	// Both in one folder: config.json wins over the name of the base.
	require.NoError(t, os.CopyFS("both", os.DirFS(c.Base)))
	config, err := os.ReadFile("adapter/adapter_config.json")
	require.NoError(t, err)
	other := bytes.Replace(config, []byte(`"base_model_name_or_path": "llama"`), []byte(`"base_model_name_or_path": "no/such/folder"`), 1)
	require.NotEqual(t, config, other)
	require.NoError(t, os.WriteFile("both/adapter_config.json", other, 0o600))
	require.NoError(t, os.Rename("adapter/adapter_model.safetensors", "both/adapter_model.safetensors"))
	m, _ = load(t, "both", eager)
	require.LessOrEqual(t, far(t, c.want["logits"], logits(t, m, c.Base)), onOtherCPUs)
	plan, err = pretrained.Plan(ctx, "both", eager)
	require.NoError(t, err)
	require.NotNil(t, plan.Adapter)

	_, _, err = pretrained.Load(ctx, path, eager)
	require.ErrorIs(t, err, pretrained.ErrMissingShard)
	require.ErrorContains(t, err, "adapter: weights file is missing: the adapter's weights: expected adapter_model.safetensors")
	require.NoError(t, os.WriteFile("adapter/adapter_config.json", other, 0o600))
	for _, load := range []func() error{
		func() error { _, _, err := pretrained.Load(ctx, path, eager); return err },
		func() error { _, err := pretrained.Plan(ctx, path, eager); return err },
	} {
		err := load()
		require.ErrorIs(t, err, os.ErrNotExist)
		require.ErrorContains(t, err, "adapter: the base model (base_model_name_or_path): no/such/folder: ")
		require.ErrorContains(t, err, "with this as its adapter")
	}
	require.NoError(t, os.WriteFile("adapter/adapter_config.json", []byte(`{"peft_type": "LORA", "base_model_name_or_path": null}`), 0o600))
	_, _, err = pretrained.Load(ctx, path, eager)
	require.ErrorIs(t, err, pretrained.ErrBadConfig)
	require.ErrorContains(t, err, "base_model_name_or_path")
	_, err = pretrained.LoadConfig(ctx, path, pretrained.Options{})
	require.ErrorContains(t, err, "an adapter without its base model")
}

// On the hub, base and adapter each have their own commit; one beside its model is of the same commit.
func TestAdaptersOfTheHub(t *testing.T) {
	s, _ := newHub(t)
	c := adapterNamed(t, "llama-lora")
	s.Commit("org/base", folder(t, baseDir(t, c.Base)))
	files := folder(t, c.dir)
	delete(files, "expected.safetensors")
	files["adapter_config.json"] = bytes.Replace(files["adapter_config.json"], []byte(`"llama"`), []byte(`"org/base"`), 1)
	first := s.Commit("org/adapter", files)
	eager := pretrained.Options{Attn: nn.Eager, Strict: true}
	m, _ := load(t, "org/adapter", eager)
	require.LessOrEqual(t, far(t, c.want["logits"], logits(t, m, c.Base)), onOtherCPUs)

	both := folder(t, baseDir(t, c.Base))
	maps.Copy(both, files)
	s.Commit("org/both", both)
	m, _ = load(t, "org/both", eager)
	require.LessOrEqual(t, far(t, c.want["logits"], logits(t, m, c.Base)), onOtherCPUs)

	s.Commit("org/adapter", map[string][]byte{"adapter_config.json": []byte("{}"), "adapter_model.safetensors": files["adapter_model.safetensors"]})
	_, _, err := pretrained.Load(ctx, "org/adapter", eager)
	require.ErrorContains(t, err, "peft_type")
	old := eager
	old.Revision = first
	m, _ = load(t, "org/adapter", old)
	require.LessOrEqual(t, far(t, c.want["logits"], logits(t, m, c.Base)), onOtherCPUs)
	m, _ = load(t, "org/base", eager)
	_, err = m.LoadAdapter(ctx, "org/adapter", pretrained.LoadAdapterOptions{Revision: first})
	require.NoError(t, err)
	require.LessOrEqual(t, far(t, c.want["logits"], logits(t, m, c.Base)), onOtherCPUs)

	s.Commit("org/empty", map[string][]byte{"adapter_config.json": files["adapter_config.json"]})
	_, err = m.LoadAdapter(ctx, "org/empty", pretrained.LoadAdapterOptions{Name: "other"})
	require.ErrorContains(t, err, "expected adapter_model.safetensors or adapter_model.bin, got neither")
}
