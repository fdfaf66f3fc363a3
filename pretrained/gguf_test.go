package pretrained_test

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/torchgo/torchgo/internal/testdata"
	"github.com/torchgo/torchgo/pretrained"
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
			expected, err := pretrained.LoadFile(ctx, filepath.Join(dir, "llama-"+name+".expected.safetensors"))
			require.NoError(t, err)
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
			expected, err := pretrained.LoadFile(ctx, filepath.Join(dir, "expected.safetensors"))
			require.NoError(t, err)
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
	for name, odd := range map[string][]string{"least": nil, "ids": nil, "wide": nil, "bf16": nil, "scaled": nil, "yarn": nil,
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
			expected, err := pretrained.LoadFile(ctx, filepath.Join(dir, name+".expected.safetensors"))
			require.NoError(t, err)
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
	expected, err := pretrained.LoadFile(ctx, filepath.Join(ref, "smollm2.safetensors"))
	require.NoError(t, err)
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
