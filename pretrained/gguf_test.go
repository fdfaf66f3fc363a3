package pretrained_test

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/torchgo/torchgo/internal/fileerr"
	"github.com/torchgo/torchgo/internal/testdata"
	"github.com/torchgo/torchgo/pretrained"
	"github.com/torchgo/torchgo/pretrained/gguf"
	"github.com/torchgo/torchgo/pretrained/hub"
	"github.com/torchgo/torchgo/torch"
	"github.com/torchgo/torchgo/torch/nn"
)

// digestOf is the sha256 of a tensor's elements as float32.
func digestOf(x *torch.Tensor) (digest string) {
	torch.Scope(func() {
		sum := sha256.Sum256(x.ToDType(torch.Float32).Contiguous().Bytes())
		digest = hex.EncodeToString(sum[:])
	})
	return digest
}

func equalDigests(t *testing.T, want map[string]string, got map[string]*torch.Tensor) {
	t.Helper()
	require.Len(t, got, len(want))
	for name, x := range got {
		require.Equal(t, want[name], digestOf(x), name)
	}
}

// logitsOf runs a model on one row of ids or several.
func logitsOf(m pretrained.Model, ids [][]int64) (logits []float32) {
	torch.Inference(func() {
		x := torch.FromSlice(slices.Concat(ids...), len(ids), len(ids[0]))
		logits = slices.Clone(torch.Data[float32](m.Forward(pretrained.Inputs{InputIDs: x}).Logits.Contiguous()))
	})
	return logits
}

// expectedOf are the tensors of a file, which are there until the test ends: slices of their memory don't keep them.
func expectedOf(t *testing.T, path string) map[string]*torch.Tensor {
	tensors, err := pretrained.LoadFile(ctx, path)
	require.NoError(t, err)
	t.Cleanup(func() {
		for _, x := range tensors {
			x.Close()
		}
	})
	return tensors
}

// nearLogits compares by the rule of the reference data for models in float32.
func nearLogits(t *testing.T, want, got []float32) {
	t.Helper()
	require.Len(t, got, len(want))
	for i, w := range want {
		require.InDelta(t, w, got[i], 1e-5+1e-4*math.Abs(float64(w)), "logit %d", i)
	}
}

// loadGGUF loads a file of a folder twice: by option, and by its path.
func loadGGUF(t *testing.T, dir, file string, opts pretrained.Options) (pretrained.Model, *pretrained.Report) {
	t.Helper()
	m, r := load(t, filepath.Join(dir, file), opts)
	opts.GGUFFile = file
	same, _ := load(t, dir, opts)
	equalModels(t, m, same)
	return m, r
}

// Files of seven types: what transformers loads, bit for bit, and its logits.
func TestGGUFReference(t *testing.T) {
	dir := testdata.Open(t, "gguf")
	for _, name := range []string{"F16", "Q4_0", "Q8_0"} {
		t.Run(name, func(t *testing.T) {
			var want struct{ SD, Dequantized map[string]string }
			readJSON(t, filepath.Join(dir, "llama-"+name+".json"), &want)
			expected := expectedOf(t, filepath.Join(dir, "llama-"+name+".expected.safetensors"))
			m, r := loadGGUF(t, dir, "llama-"+name+".gguf", pretrained.Options{Strict: true})
			require.Equal(t, "LlamaForCausalLM", r.Class)
			require.Equal(t, "float32", r.DType)
			equalDigests(t, want.SD, state(m))
			nearLogits(t, torch.Data[float32](expected["logits"]), logitsOf(m, rows(expected["input_ids"])))

			raw, err := pretrained.LoadStateDict(ctx, filepath.Join(dir, "llama-"+name+".gguf"), pretrained.LoadStateDictOptions{})
			require.NoError(t, err)
			equalDigests(t, want.Dequantized, raw)
			for _, x := range raw {
				x.Close()
			}
		})
	}
	dir = testdata.Open(t, "gguf-quants")
	for _, name := range []string{"gguf-q4_k", "gguf-q3_k", "gguf-iq4_xs"} {
		t.Run(name, func(t *testing.T) {
			var want struct {
				InputIDs    [][]int64         `json:"input_ids"`
				Dequantized map[string]string `json:"sha256_fp32_dequant_by_gguf_name"`
			}
			dir := filepath.Join(dir, name)
			readJSON(t, filepath.Join(dir, "inputs.json"), &want)
			expected := expectedOf(t, filepath.Join(dir, "expected.safetensors"))
			m, _ := loadGGUF(t, dir, "model.gguf", pretrained.Options{Strict: true})
			nearLogits(t, torch.Data[float32](expected["logits"]), logitsOf(m, want.InputIDs))
			raw, err := pretrained.LoadStateDict(ctx, filepath.Join(dir, "model.gguf"), pretrained.LoadStateDictOptions{})
			require.NoError(t, err)
			for name, digest := range want.Dequantized {
				require.Equal(t, digest, digestOf(raw[name]), name)
			}
		})
	}
}

func rows(x *torch.Tensor) (rows [][]int64) {
	n := x.Size(1)
	for row := range slices.Chunk(torch.Data[int64](x), n) {
		rows = append(rows, row)
	}
	return rows
}

// What metadata leave out or say besides: config, tensors and logits of transformers, and the files that it would save.
func TestGGUFMetadata(t *testing.T) {
	dir := testdata.Open(t, "gguf-models")
	for name, odd := range map[string][]string{"least": nil, "ids": nil, "wide": nil, "bf16": nil, "scaled": nil, "yarn": nil, "freqs": nil,
		"more": {"blk.7.odd.weight", "layers.0.self_attn.q_proj.bias"}} { // transformers does not say
		t.Run(name, func(t *testing.T) {
			var want struct {
				Config json.RawMessage
				Info   struct {
					Missing []string `json:"missing_keys"`
				}
				SD    map[string]string
				Saved string
			}
			readJSON(t, filepath.Join(dir, name+".json"), &want)
			m, r := loadGGUF(t, dir, name+".gguf", pretrained.Options{})
			require.Empty(t, want.Info.Missing)
			require.Empty(t, r.MissingKeys)
			require.Equal(t, odd, r.UnexpectedKeys)
			equalDigests(t, want.SD, state(m))
			expected := expectedOf(t, filepath.Join(dir, name+".expected.safetensors"))
			nearLogits(t, torch.Data[float32](expected["logits"]), logitsOf(m, rows(expected["input_ids"])))

			to := t.TempDir()
			require.NoError(t, pretrained.SavePretrained(ctx, m, to, pretrained.SaveOptions{}))
			config, err := os.ReadFile(filepath.Join(to, "config.json"))
			require.NoError(t, err)
			require.JSONEq(t, string(want.Config), string(config))
			data, err := os.ReadFile(filepath.Join(to, "model.safetensors"))
			require.NoError(t, err)
			require.Equal(t, want.Saved, fmt.Sprintf("%x", sha256.Sum256(data)))
			again, _ := load(t, to, pretrained.Options{Strict: true})
			equalModels(t, m, again)

			c, err := pretrained.LoadConfig(ctx, dir, pretrained.Options{GGUFFile: name + ".gguf"})
			require.NoError(t, err)
			c.Base().DType = "float32"
			require.Equal(t, m.Config(), withAttn(c, m))
		})
	}
}

// withAttn is the config with what loading a model adds.
func withAttn(c pretrained.Config, m pretrained.Model) pretrained.Config {
	c.Base().Attn = m.Config().Base().Attn
	return c
}

// smolLM2 is the folder of SmolLM2-135M-Instruct as GGUF: TORCHGO_TEST_SMOLLM2, or where `make model` puts it.
func smolLM2(t testing.TB) string {
	dir := os.Getenv("TORCHGO_TEST_SMOLLM2")
	if dir == "" {
		dir = filepath.Join("..", "build", "models", "SmolLM2-135M-Instruct-GGUF")
	}
	if _, err := os.Stat(filepath.Join(dir, smolLM2File)); err != nil {
		t.Skip("SmolLM2-135M-Instruct is not here: `make model` fetches it, or set TORCHGO_TEST_SMOLLM2 to its directory")
	}
	return dir
}

const smolLM2File = "SmolLM2-135M-Instruct.Q4_1.gguf"

// A real model: all tensors equal gguf-py's dequantization, and the model's those of transformers; logits of five prompts
// within 1e-4.
func TestSmolLM2(t *testing.T) {
	if testing.Short() {
		t.Skip("135 million parameters, five prompts")
	}
	dir := smolLM2(t)
	ref := testdata.Open(t, "gguf-models")
	var want struct {
		Dequantized, SD map[string]string
		Saved           string
		Config          json.RawMessage
		Stride          int
		Prompts         []struct {
			InputIDs []int64 `json:"input_ids"`
		}
	}
	readJSON(t, filepath.Join(ref, "smollm2.json"), &want)
	raw, err := pretrained.LoadStateDict(ctx, filepath.Join(dir, smolLM2File), pretrained.LoadStateDictOptions{})
	require.NoError(t, err)
	require.Len(t, raw, 272)
	equalDigests(t, want.Dequantized, raw)
	for _, x := range raw {
		x.Close()
	}

	m, r := load(t, dir, pretrained.Options{GGUFFile: smolLM2File, Strict: true})
	require.Equal(t, map[string]string{"lm_head.weight": "model.embed_tokens.weight"}, r.TiedKeys)
	equalDigests(t, want.SD, state(m))
	expected := expectedOf(t, filepath.Join(ref, "smollm2.safetensors"))
	numbers := func(name string, n int) []float32 {
		return torch.Data[float32](expected[fmt.Sprintf("%s.%d", name, n)])
	}
	doubles := func(name string, n int) []float64 {
		return torch.Data[float64](expected[fmt.Sprintf("%s.%d", name, n)])
	}
	worst := 0.0
	for n, p := range want.Prompts {
		logits := logitsOf(m, [][]int64{p.InputIDs})
		v := len(logits) / len(p.InputIDs)
		near := func(want, got float32) {
			t.Helper()
			worst = max(worst, math.Abs(float64(want-got)))
			require.InDelta(t, want, got, 1e-4, "prompt %d", n)
		}
		var sample []float32
		for at := range p.InputIDs {
			row := logits[at*v : (at+1)*v]
			for i := 0; i < v; i += want.Stride {
				sample = append(sample, row[i])
			}
			top := torch.Data[int64](expected[fmt.Sprintf("top_ids.%d", n)])[8*at : 8*at+8]
			for i, id := range top {
				near(numbers("top", n)[8*at+i], row[id])
			}
			mean, squares := 0.0, 0.0
			for _, x := range row {
				mean += float64(x) / float64(v)
			}
			for _, x := range row {
				squares += (float64(x) - mean) * (float64(x) - mean)
			}
			require.InDelta(t, doubles("mean", n)[at], mean, 1e-4)
			require.InDelta(t, doubles("std", n)[at], math.Sqrt(squares/float64(v-1)), 1e-4)
		}
		require.Len(t, sample, len(numbers("logits", n)))
		for i, x := range numbers("logits", n) {
			near(x, sample[i])
		}
		if n == 0 {
			for i, x := range numbers("last", 0) {
				near(x, logits[len(logits)-v+i])
			}
		}
	}
	t.Logf("largest difference of logits: %.2g", worst)

	to := t.TempDir()
	require.NoError(t, pretrained.SavePretrained(ctx, m, to, pretrained.SaveOptions{}))
	config, err := os.ReadFile(filepath.Join(to, "config.json"))
	require.NoError(t, err)
	require.JSONEq(t, string(want.Config), string(config))
	data, err := os.ReadFile(filepath.Join(to, "model.safetensors"))
	require.NoError(t, err)
	require.Equal(t, want.Saved, fmt.Sprintf("%x", sha256.Sum256(data)))
}

// Tensors of the model's dtype are views of the file, where their order is the model's.
func TestGGUFZeroCopy(t *testing.T) {
	for _, c := range []struct {
		group, file string
		dtype       torch.DType
	}{{"gguf", "llama-F16.gguf", torch.Float16}, {"gguf-models", "bf16.gguf", torch.BFloat16}, {"gguf-models", "wide.gguf", 0}} {
		path := filepath.Join(testdata.Open(t, c.group), c.file)
		m, _ := load(t, path, pretrained.Options{DType: c.dtype})
		for name, x := range state(m) {
			permuted := strings.Contains(name, "q_proj") || strings.Contains(name, "k_proj")
			cast := strings.Contains(name, "norm") && c.dtype != 0
			require.Equal(t, !permuted && !cast, inMappingOf(t, x.DataPtr(), c.file), name)
		}
		read, _ := load(t, path, pretrained.Options{DType: c.dtype, DisableMmap: true})
		equalModels(t, m, read)
	}
}

func TestGGUFPlanShowsStoredTypes(t *testing.T) {
	path := filepath.Join(testdata.Open(t, "gguf-quants"), "gguf-q4_k", "model.gguf")
	p, err := pretrained.Plan(ctx, path, pretrained.Options{DType: torch.BFloat16})
	require.NoError(t, err)
	stored := map[string]string{}
	for _, w := range p.Weights {
		stored[w.Key] = w.Parts[0].FileDType
		require.Equal(t, pretrained.CastAction, w.Action)
	}
	require.Equal(t, "Q4_K", stored["model.layers.0.self_attn.q_proj.weight"])
	require.Equal(t, "Q6_K", stored["lm_head.weight"])
	require.Equal(t, "F32", stored["model.norm.weight"])
	require.Contains(t, p.String(), "bfloat16  (256, 256)  131.1 kB   Q4_K in model.gguf as blk.0.ffn_down.weight")
}

// All classes of the model type, as for other files.
func TestGGUFClasses(t *testing.T) {
	path := filepath.Join(testdata.Open(t, "gguf"), "llama-Q8_0.gguf")
	for class, want := range map[string]struct {
		class   string
		missing []string
	}{
		"AutoModelForCausalLM":            {"LlamaForCausalLM", nil},
		"AutoModel":                       {"LlamaModel", nil},
		"LlamaForSequenceClassification":  {"LlamaForSequenceClassification", []string{"score.weight"}},
		"AutoModelForQuestionAnswering":   {"LlamaForQuestionAnswering", []string{"qa_outputs.bias", "qa_outputs.weight"}},
		"AutoModelForTokenClassification": {"LlamaForTokenClassification", []string{"score.bias", "score.weight"}},
	} {
		m, r := load(t, path, pretrained.Options{Class: class})
		require.Equal(t, want.class, r.Class)
		require.Equal(t, want.missing, r.MissingKeys, class)
		if class != "AutoModelForCausalLM" {
			require.Equal(t, []string{"lm_head.weight"}, r.UnexpectedKeys)
		}
		require.NotEmpty(t, nn.Parameters(m))
	}
}

// rope_freqs of no type that is known, which transformers leaves out, too, do not go without a word.
func TestGGUFUnusedTensors(t *testing.T) {
	_, r := load(t, filepath.Join(testdata.Open(t, "gguf-models"), "more.gguf"), pretrained.Options{})
	require.Len(t, r.Warnings, 1)
	require.Contains(t, r.Warnings[0], "rope_freqs.weight is left out, as in transformers")

	// The biases that are unexpected there belong to a model with biases.
	m, r := load(t, filepath.Join(testdata.Open(t, "gguf-models"), "more.gguf"), pretrained.Options{Config: map[string]any{"attention_bias": true}})
	require.Equal(t, []string{"blk.7.odd.weight"}, r.UnexpectedKeys)
	require.Len(t, r.MissingKeys, 3)
	raw := expectedOf(t, filepath.Join(testdata.Open(t, "gguf-models"), "more.gguf"))
	pairs := torch.Data[float32](raw["blk.0.attn_q.bias"]) // 4 heads of 4 pairs
	for i, x := range torch.Data[float32](state(m)["model.layers.0.self_attn.q_proj.bias"]) {
		head, half, pair := i/8, i%8/4, i%4
		require.Equal(t, pairs[8*head+2*pair+half], x, i)
	}
}

// ggufFile writes a GGUF file with a few keys, and float32 tensors of zeros.
func ggufFile(t *testing.T, metadata map[string]any, tensors map[string][]int) string {
	t.Helper()
	m := gguf.NewMetadata()
	for _, key := range slices.Sorted(maps.Keys(metadata)) {
		m.Set(key, metadata[key])
	}
	var sources []gguf.Source
	for _, name := range slices.Sorted(maps.Keys(tensors)) {
		n := 4
		for _, d := range tensors[name] {
			n *= d
		}
		sources = append(sources, gguf.Source{Name: name, Type: gguf.F32, Shape: tensors[name], Write: gguf.Data(make([]byte, n))})
	}
	path := filepath.Join(t.TempDir(), "x.gguf")
	require.NoError(t, gguf.WriteFile(ctx, path, m, sources))
	return path
}

func TestGGUFRefuses(t *testing.T) {
	file := func(change func(m map[string]any, tensors map[string][]int)) string {
		m := map[string]any{"general.architecture": "llama", "llama.context_length": uint32(8), "llama.block_count": uint32(1), "llama.embedding_length": uint32(8),
			"llama.feed_forward_length": uint32(8), "llama.attention.head_count": uint32(2), "llama.attention.head_count_kv": uint32(1),
			"llama.attention.layer_norm_rms_epsilon": float32(1e-5), "llama.vocab_size": uint32(5)}
		tensors := map[string][]int{"token_embd.weight": {5, 8}, "output_norm.weight": {8}, "blk.0.attn_norm.weight": {8}, "blk.0.ffn_norm.weight": {8},
			"blk.0.attn_q.weight": {8, 8}, "blk.0.attn_k.weight": {4, 8}, "blk.0.attn_v.weight": {4, 8}, "blk.0.attn_output.weight": {8, 8},
			"blk.0.ffn_gate.weight": {8, 8}, "blk.0.ffn_up.weight": {8, 8}, "blk.0.ffn_down.weight": {8, 8}}
		change(m, tensors)
		return ggufFile(t, m, tensors)
	}
	good := file(func(map[string]any, map[string][]int) {})
	load(t, good, pretrained.Options{Strict: true})
	set := func(key string, value any) string {
		return file(func(m map[string]any, _ map[string][]int) {
			if m[key] = value; value == nil {
				delete(m, key)
			}
		})
	}
	shape := func(name string, shape ...int) string {
		return file(func(_ map[string]any, tensors map[string][]int) { tensors[name] = shape })
	}
	config, err := pretrained.LoadConfig(ctx, good, pretrained.Options{})
	require.NoError(t, err)
	quantized := filepath.Join(t.TempDir(), "config.json")
	require.NoError(t, os.WriteFile(quantized, []byte(`{"model_type": "llama", "quantization_config": {"quant_method": "gptq"}}`), 0o600))
	safe := filepath.Join(loaderCase(t, "single"), "model.safetensors")
	for text, c := range map[string]struct {
		path  string
		opts  pretrained.Options
		class error
	}{
		`metadata "general.architecture": expected one of llama, got "qwen2"`:              {set("general.architecture", "qwen2"), pretrained.Options{}, pretrained.ErrUnsupported},
		`metadata lacks "general.architecture"`:                                            {set("general.architecture", nil), pretrained.Options{}, pretrained.ErrBadConfig},
		`metadata "general.architecture": expected string, got uint32`:                     {set("general.architecture", uint32(3)), pretrained.Options{}, pretrained.ErrBadConfig},
		`metadata "split.count": expected a model in one file, got one of 3`:               {set("split.count", uint32(3)), pretrained.Options{}, pretrained.ErrUnsupported},
		`metadata: expected "llama.block_count", got none`:                                 {set("llama.block_count", nil), pretrained.Options{}, pretrained.ErrBadConfig},
		`metadata: expected "llama.vocab_size" or "tokenizer.ggml.tokens", got neither`:    {set("llama.vocab_size", nil), pretrained.Options{}, pretrained.ErrBadConfig},
		`num_hidden_layers: expected an integer, got "two"`:                                {set("llama.block_count", "two"), pretrained.Options{}, pretrained.ErrBadConfig},
		`num_hidden_layers: expected 0 to 10000, got 4000000000`:                           {set("llama.block_count", uint32(4_000_000_000)), pretrained.Options{}, pretrained.ErrBadConfig},
		`"llama.block_count": expected at most 2^63 - 1`:                                   {set("llama.block_count", uint64(math.MaxUint64)), pretrained.Options{}, pretrained.ErrBadConfig},
		`"llama.attention.head_count": expected one value for all layers, got a list of 2`: {set("llama.attention.head_count", []int32{2, 2}), pretrained.Options{}, pretrained.ErrUnsupported},
		`"llama.attention.layer_norm_rms_epsilon": expected a finite number, got NaN`:      {set("llama.attention.layer_norm_rms_epsilon", float32(math.NaN())), pretrained.Options{}, pretrained.ErrBadConfig},
		`num_attention_heads: expected 1 to 8, got 0`:                                      {set("llama.attention.head_count", uint32(0)), pretrained.Options{}, pretrained.ErrBadConfig},
		`hidden_size: expected a multiple of the 3 attention heads`:                        {set("llama.attention.head_count", uint32(3)), pretrained.Options{}, pretrained.ErrBadConfig},
		`num_key_value_heads: expected 1 to 2, got 5`:                                      {set("llama.attention.head_count_kv", uint32(5)), pretrained.Options{}, pretrained.ErrBadConfig},
		`model.embed_tokens.weight": expected (6, 8), got (5, 8)`:                          {set("llama.vocab_size", uint32(6)), pretrained.Options{}, pretrained.ErrSizeMismatch},
		`"blk.0.attn_q.weight": converting to model.layers.0.self_attn.q_proj.weight`:      {shape("blk.0.attn_q.weight", 6, 8), pretrained.Options{}, pretrained.ErrSizeMismatch},
		`model.layers.0.self_attn.k_proj.weight": expected (8, 8), got (4, 8)`:             {set("llama.attention.head_count_kv", nil), pretrained.Options{}, pretrained.ErrSizeMismatch},
		`model.layers.1.`: {set("llama.block_count", uint32(2)), pretrained.Options{Strict: true}, pretrained.ErrMissingTensor},
		`unexpected tensor: layers.1.mlp.up_proj.weight`:         {shape("blk.1.ffn_up.weight", 8, 8), pretrained.Options{Strict: true}, pretrained.ErrUnexpected},
		`class: expected one of model type llama, got BertModel`: {good, pretrained.Options{Class: "BertModel"}, pretrained.ErrUnsupported},
		`device map: model.layers.0.self_attn.q_proj.weight: expected memory for all weights of a GGUF file, got disk`: {good,
			pretrained.Options{DeviceMap: pretrained.DeviceMap{"model.layers": "disk", "": "cpu"}}, pretrained.ErrUnsupported},
		`quantization_config: expected none for a GGUF file`:                    {good, pretrained.Options{ConfigPath: quantized}, pretrained.ErrArgument},
		`state dict: expected the only source of weights, got a GGUF file, too`: {"", pretrained.Options{StateDict: noTensors, ConfigInstance: config, GGUFFile: "x.gguf"}, pretrained.ErrArgument},
		`both a state dict and a path are given`:                                {good, pretrained.Options{StateDict: noTensors, ConfigInstance: config}, pretrained.ErrArgument},
		`gguf-file: expected a path below the model directory, got "../x.gguf"`: {filepath.Dir(good), pretrained.Options{GGUFFile: "../x.gguf"}, pretrained.ErrArgument},
		`gguf-file: expected a folder or an id that it is in, got a file`:       {good, pretrained.Options{GGUFFile: "x.gguf"}, pretrained.ErrArgument},
		`none.gguf: weights file is missing`:                                    {filepath.Dir(good), pretrained.Options{GGUFFile: "none.gguf"}, pretrained.ErrMissingShard},
		`expected "GGUF", got "P`:                                               {filepath.Dir(safe), pretrained.Options{GGUFFile: "model.safetensors"}, fileerr.ErrBadMagic},
		`expected a safetensors file, got a GGUF file`:                          {good, pretrained.Options{UseSafetensors: torch.Some(true), ConfigPath: filepath.Dir(safe)}, fileerr.ErrBadMagic},
		`there is a GGUF file, to be asked for by its name (gguf-file): x.gguf`: {filepath.Dir(good), pretrained.Options{ConfigInstance: config}, pretrained.ErrMissingShard},
	} {
		_, _, err := pretrained.Load(ctx, c.path, c.opts)
		require.ErrorContains(t, err, text)
		require.ErrorIs(t, err, c.class, text)
		require.NotContains(t, err.Error(), "\n")
	}

	// The caller's config counts in place of the metadata; a config.json beside the file does not.
	require.NoError(t, os.WriteFile(filepath.Join(filepath.Dir(good), "config.json"), []byte("{"), 0o600))
	config.Base().DType = "bfloat16"
	m, r := load(t, good, pretrained.Options{ConfigInstance: config, Strict: true})
	require.Equal(t, "bfloat16", r.DType)
	require.Equal(t, "LlamaForCausalLM", r.Class)
	require.NotNil(t, m)
}

// A file of a hub id: the plan reads its header alone.
func TestGGUFFromTheHub(t *testing.T) {
	s, _ := newHub(t)
	dir := testdata.Open(t, "gguf")
	data, err := os.ReadFile(filepath.Join(dir, "llama-Q8_0.gguf"))
	require.NoError(t, err)
	s.Commit("org/name", map[string][]byte{"sub/llama-Q8_0.gguf": data, "config.json": []byte("{}"), "model.safetensors": make([]byte, 100)})
	opts := pretrained.Options{Subfolder: "sub", GGUFFile: "llama-Q8_0.gguf"}
	c, err := pretrained.LoadConfig(ctx, "org/name", opts)
	require.NoError(t, err)
	require.Equal(t, []string{"LlamaForCausalLM"}, c.Base().Architectures)
	p, err := pretrained.Plan(ctx, "org/name", opts)
	require.NoError(t, err)
	require.Equal(t, "LlamaForCausalLM", p.Class)
	m, _ := load(t, "org/name", opts)
	local, _ := load(t, filepath.Join(dir, "llama-Q8_0.gguf"), pretrained.Options{})
	sameState(t, m, local)
	opts.LocalFilesOnly = true
	m, _ = load(t, "org/name", opts)
	sameState(t, m, local)
	_, _, err = pretrained.Load(ctx, "org/name", pretrained.Options{GGUFFile: "none.gguf"})
	require.ErrorIs(t, err, hub.ErrEntryNotFound)
}

func noTensors(func(string, *torch.Tensor) bool) {}

// Whatever is wrong with a file is an error, or gives a model whose weights have the shapes of its config.
func TestGGUFDamaged(t *testing.T) {
	try := func(path string) error {
		m, r, err := pretrained.Load(ctx, path, pretrained.Options{})
		if err != nil {
			require.NotContains(t, err.Error(), "\n")
			return err
		}
		defer m.Close()
		require.Equal(t, "LlamaForCausalLM", r.Class)
		return nil
	}
	for _, c := range testdata.Hostile(t, "gguf") {
		require.Error(t, try(c.Path), c.ID) // the valid ones are no models
	}
	source := filepath.Join(testdata.Open(t, "gguf-models"), "ids.gguf")
	data, err := os.ReadFile(source)
	require.NoError(t, err)
	f, err := gguf.Open(source)
	require.NoError(t, err)
	header := f.Tensors()[0].Offset
	require.NoError(t, f.Close())
	path := filepath.Join(t.TempDir(), "x.gguf")
	r := rand.New(rand.NewPCG(1, 2))
	loaded := 0
	tries := 600
	if testing.Short() {
		tries = 60
	}
	for n := range tries {
		bad := slices.Clone(data)
		if n%4 == 0 {
			bad = bad[:r.IntN(len(bad))]
		} else {
			for range 1 + r.IntN(2) {
				bad[r.Int64N(header)] ^= 1 << r.IntN(8)
			}
		}
		require.NoError(t, os.WriteFile(path, bad, 0o600))
		if try(path) == nil {
			loaded++
		}
	}
	require.Less(t, loaded, tries*2/3)
	require.NotZero(t, loaded) // names of tokens and the like
}
