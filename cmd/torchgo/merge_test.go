package main

import (
	"encoding/json"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/torchgo/torchgo/internal/testdata"
	"github.com/torchgo/torchgo/pretrained"
	"github.com/torchgo/torchgo/torch"
	"github.com/torchgo/torchgo/torch/nn"
)

// adapterOf is an adapter of peft's for the Llama of the tests.
func adapterOf(t *testing.T, name string) string {
	dir := filepath.Join(testdata.Copy(t, "peft"), "adapters", name)
	require.NoError(t, os.Rename(filepath.Join(dir, "expected.safetensors"), filepath.Join(t.TempDir(), "expected.safetensors")))
	return dir
}

// logitsAre requires a model's to be those that peft recorded.
func logitsAre(t *testing.T, name, what, model string, o pretrained.Options) {
	t.Helper()
	want, err := pretrained.LoadFile(t.Context(), filepath.Join(testdata.Open(t, "peft"), "adapters", name, "expected.safetensors"))
	require.NoError(t, err)
	o.Attn, o.Strict = nn.Eager, true
	m, _, err := pretrained.Load(t.Context(), model, o)
	require.NoError(t, err)
	defer m.Close()
	data, err := os.ReadFile(filepath.Join(testdata.Open(t, "models-llama"), "llama", "inputs.json"))
	require.NoError(t, err)
	var document struct {
		Inputs map[string]struct {
			Shape []int
			Data  []int64
		}
	}
	require.NoError(t, json.Unmarshal(data, &document))
	named := map[string]*torch.Tensor{}
	for name, v := range document.Inputs {
		named[name] = torch.FromSlice(v.Data, v.Shape...)
	}
	in, err := pretrained.NewInputs(named)
	require.NoError(t, err)
	got := torch.InferenceOf(func() *torch.Tensor { return m.Forward(in).Logits })
	require.Less(t, torch.Item[float32](got.Sub(want[what]).Abs().Amax()), float32(2e-5))
}

func TestMerge(t *testing.T) {
	const name = "llama-dora"
	src, adapter := convertSource(t), adapterOf(t, name)
	before := tree(t, src)
	dst := filepath.Join(t.TempDir(), "new", "dst")
	var out converted
	require.NoError(t, json.Unmarshal([]byte(succeeds(t, "", "merge", src, adapter, dst, "--strict", "--json")), &out))
	require.Equal(t, before, tree(t, src), "the base is not touched")
	require.Equal(t, []string{"config.json", "generation_config.json", "model.safetensors"}, out.Files)
	require.Equal(t, adapter, out.Adapter)
	require.Contains(t, out.Copied, "tokenizer.json")
	require.NoFileExists(t, filepath.Join(dst, "adapter_config.json"))
	require.Equal(t, len(stateOf(t, src)), len(stateOf(t, dst)))
	logitsAre(t, name, "merged_logits", dst, pretrained.Options{})

	// A broken adapter, a missing one and one of another model leave the destination as it is.
	saved := tree(t, dst)
	file := filepath.Join(adapter, "adapter_model.safetensors")
	tensors, err := pretrained.LoadFile(t.Context(), file)
	require.NoError(t, err)
	tensors["base_model.model.model.layers.1.mlp.up_proj.lora_B.weight"].Fill_(torch.Scalar(math.NaN()))
	require.NoError(t, pretrained.SaveFile(t.Context(), file, tensors, nil))
	for _, c := range []struct {
		status int
		says   string
		args   []string
	}{
		{1, "an infinity or a nan; the adapter seems to be broken", []string{src, adapter, dst}},
		{1, "no/such/adapter", []string{src, "no/such/adapter", dst}},
		{1, "no such module in the base model", []string{src, adapterOf(t, "bert-lora"), dst}},
		{2, "argument 2 is empty", []string{src, "", dst}},
		{2, "--adapter: the adapter is the second argument", []string{src, adapter, dst, "--adapter", adapter}},
		{2, "--max-shard-size", []string{src, adapter, dst, "--max-shard-size", "1"}},
	} {
		status, stdout, stderr := torchgo(t, "", append([]string{"merge"}, c.args...)...)
		require.Equal(t, c.status, status, stderr)
		require.Empty(t, stdout)
		require.Contains(t, stderr, c.says)
		require.Equal(t, saved, tree(t, dst))
	}
}

func TestAdapterFlag(t *testing.T) {
	const name = "llama-lora"
	src, adapter := convertSource(t), adapterOf(t, name)
	text := succeeds(t, "", "load", src, "--adapter", adapter, "--strict")
	require.Contains(t, text, "adapter     default: LORA from "+adapter+", ")
	require.Contains(t, succeeds(t, "", "plan", src, "--adapter", adapter), "adapter     default: LORA")
	plain, adapted := stateOf(t, src), stateOf(t, src, "--adapter", adapter)
	for entry, d := range plain {
		require.Equal(t, d, adapted[entry], "the model's own stay")
	}
	require.Contains(t, adapted, "model.layers.0.self_attn.q_proj.lora_A.default.weight")
	logitsAre(t, name, "logits", src, pretrained.Options{Adapter: adapter})

	// Its parameters, and they alone, have gradients, as with peft's is_trainable.
	in, grads := filepath.Join(t.TempDir(), "in.safetensors"), filepath.Join(t.TempDir(), "out.safetensors")
	ids := torch.FromSlice([]int64{5, 6, 7, 8}, 1, 4)
	require.NoError(t, pretrained.SaveFile(t.Context(), in, map[string]*torch.Tensor{"input_ids": ids, "labels": ids.Clone()}, nil))
	succeeds(t, "", "eval", src, "--adapter", adapter, "--inputs", in, "--outputs", grads, "--grad")
	outputs, err := pretrained.LoadFile(t.Context(), grads)
	require.NoError(t, err)
	require.Positive(t, torch.Item[float32](outputs["grad_norm"]))
	for entry := range adapted {
		require.Equal(t, strings.Contains(entry, "lora_"), outputs["grad."+entry] != nil, entry)
	}

	// A conversion saves the adapter.
	dst := t.TempDir()
	var out converted
	require.NoError(t, json.Unmarshal([]byte(succeeds(t, "", "convert", src, dst, "--adapter", adapter, "--json")), &out))
	require.Equal(t, []string{"adapter_config.json", "adapter_model.safetensors"}, out.Files)
	files := tree(t, dst)
	require.Len(t, files, 2)
	was := tree(t, adapter)
	require.Equal(t, was["adapter_model.safetensors"], files["adapter_model.safetensors"])

	tensors, err := pretrained.LoadFile(t.Context(), filepath.Join(adapter, "adapter_model.safetensors"))
	require.NoError(t, err)
	delete(tensors, "base_model.model.model.layers.1.self_attn.v_proj.lora_A.weight")
	require.NoError(t, pretrained.SaveFile(t.Context(), filepath.Join(adapter, "adapter_model.safetensors"), tensors, nil))
	status, _, stderr := torchgo(t, "", "load", src, "--adapter", adapter, "--strict")
	require.Equal(t, 1, status)
	require.Contains(t, stderr, "layers.1.self_attn.v_proj.lora_A.weight")
	require.Contains(t, succeeds(t, "", "load", src, "--adapter", adapter), "missing     model.layers.1.self_attn.v_proj.lora_A.weight")
}
