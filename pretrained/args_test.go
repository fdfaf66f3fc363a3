package pretrained_test

import (
	"encoding/json"
	"errors"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/torchgo/torchgo/internal/testdata"
	"github.com/torchgo/torchgo/pretrained"
	"github.com/torchgo/torchgo/pretrained/checkpoint"
	"github.com/torchgo/torchgo/pretrained/models/bert"
	"github.com/torchgo/torchgo/pretrained/safetensors"
	"github.com/torchgo/torchgo/torch"
	"github.com/torchgo/torchgo/torch/nn"
)

func TestStateDictInPlaceOfFiles(t *testing.T) {
	dir := loaderCase(t, "single")
	m, _ := load(t, dir, pretrained.Options{})
	config := m.Config()
	live := torch.LiveTensors()
	for _, opts := range []pretrained.Options{{ConfigInstance: config}, {ConfigPath: dir}, {ConfigPath: filepath.Join(dir, "config.json")}} {
		opts.StateDict, opts.Strict, opts.Class = nn.StateDict(m), true, "BertForMaskedLM"
		got, r, err := pretrained.Load(ctx, "", opts)
		require.NoError(t, err)
		equalModels(t, m, got)
		require.Equal(t, "state dict", r.Path)
		for name, x := range nn.StateDict(got) { // copies: the caller's tensors stay as they are
			require.NotEqual(t, state(m)[name].DataPtr(), x.DataPtr(), name)
		}
		require.NotSame(t, config, got.Config())
		require.Len(t, r.TiedKeys, 2)
		got.Close()
	}
	opts := pretrained.Options{StateDict: nn.StateDict(m), ConfigInstance: config, Class: "BertForMaskedLM", DType: torch.Float16}
	half, _, err := pretrained.Load(ctx, "", opts)
	require.NoError(t, err)
	for name, x := range nn.StateDict(half) {
		torch.Scope(func() { require.True(t, state(m)[name].ToDType(torch.Float16).Equal(x), name) })
	}
	half.Close()
	require.Equal(t, live, torch.LiveTensors())

	for text, c := range map[string]struct {
		path string
		opts pretrained.Options
	}{
		"both a state dict and a path are given": {dir, pretrained.Options{StateDict: nn.StateDict(m), ConfigInstance: config}},
		"state dict: expected its config, too":   {"", pretrained.Options{StateDict: nn.StateDict(m)}},
		"config: expected an instance or a path": {dir, pretrained.Options{ConfigPath: dir, ConfigInstance: config}},
		"twice in the state dict": {"", pretrained.Options{ConfigInstance: config, StateDict: func(yield func(string, *torch.Tensor) bool) {
			for range 2 {
				if !yield("a", nn.Parameters(m)[0]) {
					return
				}
			}
		}}},
	} {
		_, _, err := pretrained.Load(ctx, c.path, c.opts)
		require.ErrorContains(t, err, text)
	}
}

func TestConfigInstance(t *testing.T) {
	dir := loaderCase(t, "single")
	config, err := pretrained.LoadConfig(ctx, dir, pretrained.Options{Config: map[string]any{"hidden_dropout_prob": 0.25}})
	require.NoError(t, err)
	m, _ := load(t, dir, pretrained.Options{ConfigInstance: config, DType: torch.Float64, Attn: nn.Eager, Strict: true})
	require.Equal(t, 0.25, m.Config().(*bert.Config).HiddenDropoutProb)
	m.Config().(*bert.Config).VocabSize = 7
	m.Config().Base().ID2Label[0] = "changed"
	require.Equal(t, "float32", config.Base().DType, "the caller's config stays")
	require.Empty(t, config.Base().Attn)
	require.Equal(t, 32, config.(*bert.Config).VocabSize)
	require.Equal(t, "LABEL_0", config.Base().ID2Label[0])

	// No config.json is needed then.
	dir = filepath.Join(testdata.Copy(t, "loader"), "single")
	require.NoError(t, os.Remove(filepath.Join(dir, "config.json")))
	load(t, dir, pretrained.Options{ConfigInstance: config})
	_, r := load(t, dir, pretrained.Options{ConfigPath: loaderCase(t, "single")})
	require.Empty(t, r.MissingKeys)

	_, _, err = pretrained.Load(ctx, dir, pretrained.Options{ConfigInstance: config, Config: map[string]any{"vocab_size": 3}})
	require.ErrorContains(t, err, "overrides of a config that is given as such; change the config itself")
	_, _, err = pretrained.Load(ctx, dir, pretrained.Options{ConfigInstance: &flatConfig{ConfigBase: pretrained.ConfigBase{ModelType: "bert"}}})
	require.ErrorContains(t, err, "expected a *bert.Config, got a *pretrained_test.flatConfig")
	bad := pretrained.CloneConfig(config)
	bad.(*bert.Config).HiddenSize = -1
	_, _, err = pretrained.Load(ctx, dir, pretrained.Options{ConfigInstance: bad})
	require.ErrorContains(t, err, "hidden_size")
}

func TestLoadConfig(t *testing.T) {
	dir := loaderCase(t, "single")
	for _, path := range []string{dir, filepath.Join(dir, "config.json"), filepath.Join(dir, "model.safetensors")} {
		c, err := pretrained.LoadConfig(ctx, path, pretrained.Options{Config: map[string]any{"num_labels": 3}})
		require.NoError(t, err)
		require.Equal(t, 16, c.(*bert.Config).HiddenSize)
		require.Equal(t, 3, c.Base().NumLabels())
	}
	_, err := pretrained.LoadConfig(ctx, loaderCase(t, "subfolder"), pretrained.Options{Subfolder: "sub"})
	require.NoError(t, err)
	_, err = pretrained.LoadConfig(ctx, filepath.Join(dir, "nothing"), pretrained.Options{})
	require.ErrorIs(t, err, fs.ErrNotExist)
	_, err = pretrained.LoadConfig(ctx, loaderCase(t, "no-config"), pretrained.Options{})
	require.ErrorIs(t, err, pretrained.ErrBadConfig)
	_, err = pretrained.NewConfig("nonsense", nil)
	require.ErrorContains(t, err, `model_type: expected one of`)
	c, err := pretrained.NewConfig("bert", map[string]any{"hidden_size": 24})
	require.NoError(t, err)
	require.Equal(t, 24, c.(*bert.Config).HiddenSize)
	require.Equal(t, 30522, c.(*bert.Config).VocabSize)
}

// Where transformers goes on without a word, the error says how to have that.
func TestWhatMustBeAllowed(t *testing.T) {
	t.Run("no config", func(t *testing.T) {
		dir := loaderCase(t, "no-config")
		_, _, err := pretrained.Load(ctx, dir, pretrained.Options{Class: "BertForMaskedLM"})
		require.ErrorIs(t, err, pretrained.ErrBadConfig)
		require.ErrorContains(t, err, "AllowDefaultConfig takes the defaults of the class")
		_, _, err = pretrained.Load(ctx, dir, pretrained.Options{Class: "AutoModelForMaskedLM", AllowDefaultConfig: true})
		require.ErrorContains(t, err, "no config.json says what model this is")
		if testing.Short() {
			t.Skip("a model of 110 million parameters")
		}
		_, r := load(t, dir, pretrained.Options{Class: "BertForMaskedLM", AllowDefaultConfig: true, IgnoreMismatchedSizes: true})
		require.Contains(t, r.Warnings, "there is no config.json: the model has the defaults of BertForMaskedLM")
		var want loaderReport
		readJSON(t, filepath.Join(dir, "report.json"), &want)
		require.ElementsMatch(t, want.Missing, r.MissingKeys)
		require.ElementsMatch(t, want.Unexpected, r.UnexpectedKeys)
		r.Warnings = slices.DeleteFunc(r.Warnings, func(w string) bool { return strings.HasPrefix(w, "there is no config.json") })
		checkLog(t, want.Log, r)
	})
	t.Run("index promises", func(t *testing.T) {
		dir := loaderCase(t, "index-key-missing-in-shard")
		_, _, err := pretrained.Load(ctx, dir, pretrained.Options{})
		require.ErrorIs(t, err, pretrained.ErrMissingTensor)
		require.ErrorContains(t, err, "AllowIncompleteIndex takes it for missing")
		_, r := load(t, dir, pretrained.Options{AllowIncompleteIndex: true})
		var want loaderReport
		readJSON(t, filepath.Join(dir, "report.json"), &want)
		require.Equal(t, want.Missing, r.MissingKeys)
		_, _, err = pretrained.Load(ctx, dir, pretrained.Options{AllowIncompleteIndex: true, Strict: true})
		require.ErrorIs(t, err, pretrained.ErrMissingTensor)
	})
	t.Run("tensor twice", func(t *testing.T) {
		dir := filepath.Join(testdata.Copy(t, "loader"), "sharded")
		c, err := checkpoint.Open(filepath.Join(dir, "model.safetensors.index.json"))
		require.NoError(t, err)
		defer c.Close()
		const name = "bert.embeddings.LayerNorm.bias"
		owner, info, ok := c.Tensor(name)
		require.True(t, ok)
		for _, f := range c.Files() { // every other shard gets one of twos
			if f == owner {
				continue
			}
			tensors, err := pretrained.LoadFile(ctx, f.Path())
			require.NoError(t, err)
			tensors[name] = torch.Full(info.Shape, 2.0)
			require.NoError(t, pretrained.SaveFile(ctx, f.Path(), tensors, nil))
			for _, x := range tensors {
				x.Close()
			}
		}
		_, _, err = pretrained.Load(ctx, dir, pretrained.Options{})
		require.ErrorIs(t, err, pretrained.ErrConflict)
		require.ErrorContains(t, err, "AllowConflictingShards")
		m, r := load(t, dir, pretrained.Options{AllowConflictingShards: true})
		require.Empty(t, r.MissingKeys)
		want, _ := load(t, loaderCase(t, "single"), pretrained.Options{})
		equalModels(t, want, m) // the one that the index means

		index := filepath.Join(dir, "model.safetensors.index.json")
		data, err := os.ReadFile(index)
		require.NoError(t, err)
		var lines []string
		for line := range strings.Lines(string(data)) {
			if !strings.Contains(line, `"`+name+`"`) {
				lines = append(lines, line)
			}
		}
		require.NoError(t, os.WriteFile(index, []byte(strings.Join(lines, "")), 0o600))
		m, _ = load(t, dir, pretrained.Options{AllowConflictingShards: true})
		torch.Scope(func() { require.True(t, state(m)[name].Equal(torch.Full(info.Shape, 2.0))) }) // the last one
	})
	t.Run("never", func(t *testing.T) {
		for old, new := range map[string]string{"model-00001-of-00003.safetensors": "../x.safetensors", "model-00002-of-00003.safetensors": "evil.bin"} {
			dir := filepath.Join(testdata.Copy(t, "loader"), "sharded")
			index := filepath.Join(dir, "model.safetensors.index.json")
			data, err := os.ReadFile(index)
			require.NoError(t, err)
			require.Contains(t, string(data), old)
			require.NoError(t, os.WriteFile(index, []byte(strings.ReplaceAll(string(data), old, new)), 0o600))
			if new == "evil.bin" {
				require.NoError(t, os.Rename(filepath.Join(dir, old), filepath.Join(dir, new)))
			}
			_, _, err = pretrained.Load(ctx, dir, pretrained.Options{AllowIncompleteIndex: true, AllowConflictingShards: true})
			require.Error(t, err)
			require.True(t, errors.Is(err, pretrained.ErrPath) || errors.Is(err, safetensors.ErrBadIndex), err)
		}
	})
}

func readJSON(t *testing.T, path string, v any) {
	t.Helper()
	data, err := os.ReadFile(path)
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal(data, v))
}

// Every argument of from_pretrained, and those that it swallows, is an option or is refused by name.
func TestEveryArgumentOfFromPretrained(t *testing.T) {
	dir := loaderCase(t, "single")
	for _, name := range strings.Fields(`config cache_dir ignore_mismatched_sizes force_download local_files_only token
		revision use_safetensors weights_only fusion_config disable_mmap state_dict proxies tqdm_class output_loading_info
		trust_remote_code device_map max_memory offload_folder offload_buffers load_in_8bit load_in_4bit
		quantization_config subfolder variant adapter_kwargs adapter_name generation_config gguf_file tp_plan tp_size
		device_mesh distributed_config use_kernels kernel_config allow_all_kernels key_mapping code_revision
		attn_implementation experts_implementation mirror _fast_init low_cpu_mem_usage from_tf from_flax
		offload_state_dict`) {
		_, _, err := pretrained.Load(ctx, dir, pretrained.Options{Config: map[string]any{name: nil}})
		require.Error(t, err, name)
		require.True(t, errors.Is(err, pretrained.ErrArgument) || errors.Is(err, pretrained.ErrUnsupported), name)
		require.ErrorContains(t, err, name)
		_, remedy, ok := strings.Cut(err.Error(), "; ")
		require.True(t, ok, name)
		if field, ok := strings.CutPrefix(remedy, "use Options."); ok {
			field, _, _ = strings.Cut(strings.TrimRight(field, ":"), " ")
			_, ok = reflect.TypeFor[pretrained.Options]().FieldByName(strings.TrimSuffix(field, ":"))
			require.True(t, ok, "%s: there is no %s", name, field)
		}
	}
	for _, name := range []string{"dtype", "torch_dtype"} { // keys of the config
		_, r := load(t, dir, pretrained.Options{Config: map[string]any{name: "float64"}})
		require.Equal(t, "float64", r.DType)
	}
}

func TestQuantizedCheckpointsAreRefused(t *testing.T) {
	for text, config := range map[string]string{
		"weights quantized with gptq can't be loaded yet":            `"quantization_config": {"quant_method": "gptq", "bits": 4}, "hidden_size"`,
		"weights quantized with bitsandbytes can't be loaded yet":    `"quantization_config": {"load_in_4bit": true}, "hidden_size"`,
		"weights quantized of an unknown method can't be loaded yet": `"quantization_config": {}, "hidden_size"`,
		"weights quantized with fp8 can't be loaded yet":             `"text_config": {"quantization_config": {"quant_method": "fp8"}}, "hidden_size"`,
	} {
		dir := edit(t, "single", `"hidden_size"`, config)
		_, _, err := pretrained.Load(ctx, dir, pretrained.Options{})
		require.ErrorIs(t, err, pretrained.ErrUnsupported)
		require.ErrorContains(t, err, text)
	}
	load(t, edit(t, "single", `"hidden_size"`, `"quantization_config": null, "hidden_size"`), pretrained.Options{})
}

func TestTransformersWeights(t *testing.T) {
	for name, text := range map[string]string{
		"other.safetensors":                "",
		"sub/other.safetensors.index.json": "other.safetensors.index.json",
		"../single/model.safetensors":      "contains ..",
		"other.bin":                        "transformers_weights: expected a .safetensors file or an index of such",
		"model.json":                       "transformers_weights: expected a .safetensors file",
	} {
		dir := edit(t, "single", `"hidden_size"`, `"transformers_weights": "`+name+`", "hidden_size"`)
		require.NoError(t, os.Rename(filepath.Join(dir, "model.safetensors"), filepath.Join(dir, "other.safetensors")))
		m, r, err := pretrained.Load(ctx, dir, pretrained.Options{Strict: true})
		if text == "" {
			require.NoError(t, err)
			require.Empty(t, r.MissingKeys)
			m.Close()
			continue
		}
		require.ErrorContains(t, err, text)
	}
}

func TestAttnImplementation(t *testing.T) {
	dir := loaderCase(t, "single")
	for name, notice := range map[nn.AttentionKind]bool{"eager": false, "sdpa": false, "flash_attention_2": true, "bettertransformer": true, "flex_attention": true} {
		m, r := load(t, dir, pretrained.Options{Attn: name})
		require.Equal(t, notice, len(r.Warnings) == 1, name)
		want := nn.SDPA
		if name == nn.Eager {
			want = nn.Eager
		}
		require.Equal(t, want, m.Config().Base().Attn)
	}
	m, _ := load(t, dir, pretrained.Options{Attn: nn.Eager})
	torch.Inference(func() {
		ids := torch.FromSlice([]int64{1, 2, 3, 4}, 1, 4)
		eager := m.Forward(pretrained.Inputs{InputIDs: ids, OutputAttentions: true})
		require.NotEmpty(t, eager.Attentions)
		require.NoError(t, m.(*bert.ForMaskedLM).SetAttnImplementation("flash_attention_2"))
		sdpa := m.Forward(pretrained.Inputs{InputIDs: ids, OutputAttentions: true})
		require.Empty(t, sdpa.Attentions)
		require.Less(t, torch.Item[float32](eager.Logits.Sub(sdpa.Logits).Abs().Max()), float32(1e-5))
	})
	require.ErrorContains(t, m.(*bert.ForMaskedLM).SetAttnImplementation("paged"), `expected one of bettertransformer, eager`)
}

// A model whose file has other names is saved with these, as transformers does.
func TestSavedNamesAreThoseOfTheFile(t *testing.T) {
	for name, opts := range map[string]pretrained.Options{
		"gamma-beta":  {},
		"key-mapping": {KeyMapping: []pretrained.KeyRule{{Pattern: `^zz\.`}}},
	} {
		dir := loaderCase(t, name)
		m, _ := load(t, dir, opts)
		to := t.TempDir()
		require.NoError(t, pretrained.SavePretrained(ctx, m, to, pretrained.SaveOptions{}))
		names := func(dir string) (names []string) {
			c, err := checkpoint.Open(dir)
			require.NoError(t, err)
			defer c.Close()
			for _, info := range c.All() {
				if !strings.Contains(info.Name, "cls.predictions.decoder.") { // tied: dropped on saving
					names = append(names, info.Name)
				}
			}
			return names
		}
		require.ElementsMatch(t, names(dir), names(to), name)
		again, _ := load(t, to, opts)
		equalModels(t, m, again)
	}
}

// An override of model_type chooses the model, as in transformers.
func TestModelTypeOverride(t *testing.T) {
	dir := loaderCase(t, "single")
	m, r := load(t, dir, pretrained.Options{Class: "AutoModelForCausalLM", Config: map[string]any{"model_type": "llama"}})
	require.Equal(t, "LlamaForCausalLM", r.Class)
	require.Equal(t, "llama", m.Config().Base().ModelType)
	_, _, err := pretrained.Load(ctx, dir, pretrained.Options{Class: "AutoModel", Config: map[string]any{"model_type": "foo"}})
	require.ErrorIs(t, err, pretrained.ErrUnsupported)
	require.ErrorContains(t, err, `got "foo"`)
	_, r = load(t, dir, pretrained.Options{Class: "BertModel", Config: map[string]any{"model_type": "llama"}})
	require.Contains(t, r.Warnings, `a checkpoint of model type "llama" is loaded as BertModel`)
	c, err := pretrained.LoadConfig(ctx, dir, pretrained.Options{Config: map[string]any{"model_type": "llama"}})
	require.NoError(t, err)
	require.Equal(t, "llama", c.Base().ModelType)
}

func TestDTypeOptions(t *testing.T) {
	dir := loaderCase(t, "single")
	m, r := load(t, dir, pretrained.Options{DTypes: map[string]torch.DType{"": torch.Float16, "text_config": torch.BFloat16}})
	require.Equal(t, torch.Float16, m.DType())
	require.Equal(t, "float16", m.Config().Base().DType)
	require.Equal(t, "option", r.DTypeSource)
	require.Equal(t, []string{"the dtype of text_config is ignored: a model has one"}, r.Warnings)
	for text, opts := range map[string]pretrained.Options{
		"expected one for the model or a map, got both": {DType: torch.Float16, DTypes: map[string]torch.DType{"": torch.Float16}},
		`expected an entry "" in the map`:               {DTypes: map[string]torch.DType{"text_config": torch.Float16}},
		"expected a floating-point dtype, got int32":    {DTypes: map[string]torch.DType{"": torch.Int32}},
		"expected a floating-point dtype, got int64":    {DType: torch.Int64},
	} {
		_, _, err := pretrained.Load(ctx, dir, opts)
		require.ErrorIs(t, err, pretrained.ErrArgument)
		require.ErrorContains(t, err, text)
	}
	// auto: config.json, else the index, else the first float of the first file.
	_, r = load(t, dir, pretrained.Options{})
	require.Equal(t, "config.json", r.DTypeSource)
	_, r = load(t, loaderCase(t, "bf16-noconfigdtype"), pretrained.Options{})
	require.Equal(t, []string{"checkpoint", "bfloat16"}, []string{r.DTypeSource, r.DType})
	sharded := edit(t, "sharded", `"dtype": "float32"`, `"x": 1`)
	index := filepath.Join(sharded, "model.safetensors.index.json")
	data, err := os.ReadFile(index)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(index, []byte(strings.Replace(string(data), `"metadata": {`, `"metadata": {"dtype": "float16", `, 1)), 0o600))
	_, r = load(t, sharded, pretrained.Options{})
	require.Equal(t, []string{"index metadata", "float16"}, []string{r.DTypeSource, r.DType})
	config, err := pretrained.LoadConfig(ctx, edit(t, "single", `"dtype"`, `"torch_dtype"`), pretrained.Options{})
	require.NoError(t, err)
	require.Equal(t, "float32", config.Base().DType)
}

// The rule of "auto", as transformers' _get_dtype has it: config.json goes before the index; else it is the first float
// by name, wherever it lies, of the first shard; those of 8 bits can't be a model's.
func TestAutoDType(t *testing.T) {
	tensor := func(name string, d safetensors.DType, size int) safetensors.Source {
		return safetensors.Source{Name: name, DType: d, Shape: []int{1}, Write: safetensors.Data(make([]byte, size))}
	}
	config := func(dtype string) string {
		return `{"model_type": "FlatPieces", "architectures": ["FlatPieces"], ` + dtype + ` "params": [["a", [1]], ["b", [1]], ["c", [1]]]}`
	}
	for _, c := range []struct {
		sources []safetensors.Source
		want    string
	}{
		{[]safetensors.Source{tensor("b", safetensors.F32, 4), tensor("a", safetensors.F16, 2)}, "float16"},
		{[]safetensors.Source{tensor("a", safetensors.F8E4M3, 1), tensor("b", safetensors.BF16, 2), tensor("c", safetensors.F32, 4)}, "bfloat16"},
		{[]safetensors.Source{tensor("a", safetensors.F64, 8), tensor("b", safetensors.BF16, 2)}, "float64"},
	} {
		dir := writeCheckpoint(t, config(""), c.sources)
		_, r := load(t, dir, pretrained.Options{})
		require.Equal(t, []string{"checkpoint", c.want}, []string{r.DTypeSource, r.DType})
	}
	dir := t.TempDir()
	for name, s := range map[string]safetensors.Source{"model-00001-of-00002.safetensors": tensor("b", safetensors.BF16, 2), "model-00002-of-00002.safetensors": tensor("a", safetensors.F32, 4)} {
		require.NoError(t, safetensors.WriteFile(ctx, filepath.Join(dir, name), []safetensors.Source{s}, nil))
	}
	write := func(name, text string) {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600))
	}
	index := func(metadata string) string {
		return `{"metadata": {` + metadata + `}, "weight_map": {"a": "model-00002-of-00002.safetensors", "b": "model-00001-of-00002.safetensors"}}`
	}
	for _, c := range []struct{ config, metadata, source, want string }{
		{"", "", "checkpoint", "bfloat16"},
		{"", `"dtype": "float16"`, "index metadata", "float16"},
		{`"dtype": "float64",`, `"dtype": "float16"`, "config.json", "float64"},
		{`"dtype": null,`, `"dtype": "float16"`, "index metadata", "float16"},
	} {
		write("config.json", config(c.config))
		write("model.safetensors.index.json", index(c.metadata))
		_, r := load(t, dir, pretrained.Options{})
		require.Equal(t, []string{c.source, c.want}, []string{r.DTypeSource, r.DType})
	}
}

func TestSynchronousLoading(t *testing.T) {
	dir := loaderCase(t, "sharded")
	want, _ := load(t, dir, pretrained.Options{DisableMmap: true, Threads: 4})
	t.Setenv("HF_DEACTIVATE_ASYNC_LOAD", "1")
	m, _ := load(t, dir, pretrained.Options{DisableMmap: true, Threads: 4})
	equalModels(t, want, m)
	for value, readers := range map[string]int{"1": 1, "on": 1, "Yes": 1, "TRUE": 1, "": 4, "0": 4, "false": 4} { // as transformers reads it
		t.Setenv("HF_DEACTIVATE_ASYNC_LOAD", value)
		require.Equal(t, readers, pretrained.Readers(pretrained.Options{Threads: 4}), value)
	}
	t.Setenv("HF_DEACTIVATE_ASYNC_LOAD", "")
	require.Equal(t, min(4, runtime.GOMAXPROCS(0)), pretrained.Readers(pretrained.Options{}))
}

func TestHubConfigs(t *testing.T) {
	s, _ := newHub(t)
	dir := loaderCase(t, "single")
	files := folder(t, dir)
	s.Commit("org/name", files)
	before := downloads(s)
	c, err := pretrained.LoadConfig(ctx, "org/name", pretrained.Options{Config: map[string]any{"num_labels": 3}})
	require.NoError(t, err)
	require.Equal(t, 3, c.Base().NumLabels())
	require.Equal(t, before+1, downloads(s), "the config alone")
	load(t, "org/name", pretrained.Options{ConfigInstance: c, Strict: true})

	s.Commit("org/bare", map[string][]byte{"model.safetensors": files["model.safetensors"]})
	_, _, err = pretrained.Load(ctx, "org/bare", pretrained.Options{Class: "BertForMaskedLM"})
	require.ErrorContains(t, err, "AllowDefaultConfig")
	load(t, "org/bare", pretrained.Options{Class: "BertForMaskedLM", ConfigPath: dir, Strict: true})
}

// Tensors that old versions saved and that models compute themselves are no surprise, where the model has them.
func TestTensorsWithoutUse(t *testing.T) {
	dir := loaderCase(t, "single")
	file, err := pretrained.LoadFile(ctx, filepath.Join(dir, "model.safetensors"))
	require.NoError(t, err)
	for _, name := range []string{"bert.embeddings.position_ids", "bert.encoder.rotary_emb.inv_freq"} {
		file[name] = torch.Zeros([]int{16})
	}
	m, r, err := pretrained.Load(ctx, "", pretrained.Options{StateDict: maps.All(file), ConfigPath: dir})
	require.NoError(t, err)
	require.Equal(t, []string{"bert.encoder.rotary_emb.inv_freq"}, r.UnexpectedKeys, "BERT has no such buffer")
	m.Close()
	for _, x := range file {
		x.Close()
	}
}
