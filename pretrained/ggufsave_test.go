package pretrained_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/torchgo/torchgo/internal/testdata"
	"github.com/torchgo/torchgo/pretrained"
	"github.com/torchgo/torchgo/pretrained/gguf"
	"github.com/torchgo/torchgo/torch"
)

func openGGUF(t *testing.T, path string) *gguf.File {
	f, err := gguf.Open(path)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, f.Close()) })
	return f
}

// Files that gguf-py wrote, loaded and saved again with their metadata: the tensors have the same bytes, q and k included and
// though they were dequantized and quantized again.
func TestSaveGGUFAgain(t *testing.T) {
	dir := testdata.Open(t, "gguf")
	for name, typ := range map[string]gguf.Type{"llama-F16.gguf": gguf.F16, "llama-Q8_0.gguf": gguf.Q8_0, "llama-Q4_0.gguf": gguf.Q4_0} {
		t.Run(name, func(t *testing.T) {
			old := openGGUF(t, filepath.Join(dir, name))
			m, _ := loadGGUF(t, dir, name, pretrained.Options{})
			path := filepath.Join(t.TempDir(), "x.gguf")
			require.NoError(t, pretrained.SaveGGUF(ctx, m, path, pretrained.GGUFOptions{Type: torch.Some(typ), Metadata: old.Metadata()}))
			saved := openGGUF(t, path)
			require.Equal(t, old.Len(), saved.Len())
			for _, info := range old.Tensors() {
				again, ok := saved.Tensor(info.Name)
				require.True(t, ok, info.Name)
				require.Equal(t, info.Shape, again.Shape)
				a, _ := old.Stored(info.Name)
				b, _ := saved.Stored(info.Name)
				require.Equal(t, a.Type, b.Type)
				want, got := make([]byte, a.Bytes), make([]byte, b.Bytes)
				require.NoError(t, old.ReadStored(info.Name, want, 0))
				require.NoError(t, saved.ReadStored(info.Name, got, 0))
				require.True(t, bytes.Equal(want, got), info.Name)
			}
			for _, key := range old.Metadata().Keys() {
				want, err := old.Metadata().Value(key)
				require.NoError(t, err)
				got, err := saved.Metadata().Value(key)
				require.NoError(t, err)
				require.Equal(t, want, got, key)
			}
		})
	}
}

// Checkpoints saved as GGUF: transformers loads the very files (tools/ggufref/judge.py, over the folder that
// TORCHGO_GGUF_WRITTEN names), with the tensors that the checkpoint has or that torchgo loads from the file.
func TestSaveGGUF(t *testing.T) {
	defaultRoPE := map[string]any{"rope_parameters": map[string]any{"rope_type": "default", "rope_theta": 500000.0}}
	for _, c := range []struct {
		name, folder string
		opts         pretrained.Options
		typ          string // "": the dtype's
	}{
		{"f32", "llama", pretrained.Options{}, ""},
		{"f16", "llama", pretrained.Options{DType: torch.Float16}, ""},
		{"bf16", "llama", pretrained.Options{DType: torch.BFloat16}, ""},
		{"q8_0", "llama", pretrained.Options{}, "Q8_0"},
		{"tied-q4_1", "llama-tied-rope-llama3", pretrained.Options{Config: defaultRoPE}, "Q4_1"},
		{"linear", "llama-rope-linear", pretrained.Options{}, ""},
		{"yarn-q4_0", "llama-rope-yarn", pretrained.Options{}, "Q4_0"},
	} {
		t.Run(c.name, func(t *testing.T) {
			name := "model-" + c.name + ".gguf"
			source := filepath.Join(testdata.Open(t, "models-llama"), c.folder)
			m, _ := load(t, source, c.opts)
			var o pretrained.GGUFOptions
			if c.typ != "" {
				typ, err := gguf.ParseType(c.typ)
				require.NoError(t, err)
				o.Type = torch.Some(typ)
			}
			var done, total int64
			o.Progress = func(d, n int64) { done, total = d, n }
			dir := os.Getenv("TORCHGO_GGUF_WRITTEN")
			if dir != "" {
				require.NoError(t, pretrained.SaveGGUF(ctx, m, filepath.Join(dir, name), o))
				t.Skip("written, to be judged")
			}
			dir = t.TempDir()
			require.NoError(t, pretrained.SaveGGUF(ctx, m, filepath.Join(dir, name), o))
			require.Positive(t, total)
			require.Equal(t, total, done)

			var verdict map[string]struct {
				SHA256   string
				Info     map[string]int
				Config   map[string]any
				SD       map[string]string
				InputIDs [][]int64 `json:"input_ids"`
				Logits   []float32
			}
			data, err := os.ReadFile(filepath.Join(testdata.Open(t, "gguf"), "written.json"))
			require.NoError(t, err)
			require.NoError(t, json.Unmarshal(data, &verdict))
			judged, ok := verdict[name]
			require.True(t, ok)
			file, err := os.ReadFile(filepath.Join(dir, name))
			require.NoError(t, err)
			sum := sha256.Sum256(file)
			require.Equal(t, judged.SHA256, hex.EncodeToString(sum[:]), "other bytes than transformers judged: write and judge them again")
			for what, n := range judged.Info {
				require.Zero(t, n, what)
			}

			again, r := load(t, filepath.Join(dir, name), pretrained.Options{Strict: true})
			require.Equal(t, "LlamaForCausalLM", r.Class)
			equalDigests(t, judged.SD, state(again))
			if c.typ == "" { // nothing is lost
				equalDigests(t, judged.SD, state(m))
			}
			encoded, err := json.Marshal(again.Config())
			require.NoError(t, err)
			var config map[string]any
			require.NoError(t, json.Unmarshal(encoded, &config))
			require.Len(t, judged.Config, 10)
			for key, want := range judged.Config {
				require.Equal(t, want, config[key], key)
			}
			logits := logitsOf(again, judged.InputIDs)
			if c.folder == "llama" || c.folder == "llama-tied-rope-llama3" { // transformers takes no scaling from files
				nearLogits(t, judged.Logits, logits[len(logits)-len(judged.Logits):])
			}
			if c.typ == "" && c.opts.DType == torch.DType(0) {
				nearLogits(t, logitsOf(m, judged.InputIDs), logits)
			}
		})
	}
}

func TestSaveGGUFRefuses(t *testing.T) {
	llamas := testdata.Open(t, "models-llama")
	scaled := func(kind string) pretrained.Options {
		return pretrained.Options{Config: map[string]any{"rope_parameters": map[string]any{"rope_type": kind, "rope_theta": 10000.0, "factor": 2.0}}}
	}
	set := func(key string, v any) pretrained.Options {
		return pretrained.Options{Config: map[string]any{key: v}}
	}
	for name, c := range map[string]struct {
		folder string
		opts   pretrained.Options
		typ    string
		text   string
	}{
		"class":       {"llama-seqcls", pretrained.Options{}, "", "class: expected LlamaForCausalLM, got LlamaForSequenceClassification"},
		"base model":  {"llama", pretrained.Options{Class: "LlamaModel"}, "", "class: expected LlamaForCausalLM, got LlamaModel"},
		"llama3":      {"llama-tied-rope-llama3", pretrained.Options{}, "", "config of a GGUF file: rope_parameters"},
		"dynamic":     {"llama", scaled("dynamic"), "", "config of a GGUF file: rope_parameters"},
		"activation":  {"llama", set("hidden_act", "gelu"), "", `config of a GGUF file: hidden_act: expected "silu", as the format says it, got "gelu"`},
		"biases":      {"llama", set("attention_bias", true), "", "config of a GGUF file: attention_bias: expected false"},
		"dtype":       {"llama", pretrained.Options{DType: torch.Float64}, "", "dtype: expected float32, float16 or bfloat16, got float64"},
		"dtype again": {"llama", pretrained.Options{DType: torch.Float64}, "Q8_0", "expected float32, float16 or bfloat16, got float64"},
		"type":        {"llama", pretrained.Options{}, "Q6_K", "type of tensors: expected BF16, F16, F32, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, got Q6_K"},
	} {
		t.Run(name, func(t *testing.T) {
			m, _ := load(t, filepath.Join(llamas, c.folder), c.opts)
			var o pretrained.GGUFOptions
			if c.typ != "" {
				typ, err := gguf.ParseType(c.typ)
				require.NoError(t, err)
				o.Type = torch.Some(typ)
			}
			path := filepath.Join(t.TempDir(), "x.gguf")
			err := pretrained.SaveGGUF(ctx, m, path, o)
			require.ErrorContains(t, err, c.text)
			require.ErrorContains(t, err, path+": ")
			require.NoFileExists(t, path)
		})
	}
	bert, _ := load(t, filepath.Join(testdata.Open(t, "models-bert"), "bert-mlm"), pretrained.Options{})
	err := pretrained.SaveGGUF(ctx, bert, filepath.Join(t.TempDir(), "x.gguf"), pretrained.GGUFOptions{})
	require.ErrorIs(t, err, pretrained.ErrUnsupported)
	require.ErrorContains(t, err, "class: expected a class that GGUF files can have, got BertForMaskedLM")
	closed, _, err := pretrained.Load(ctx, filepath.Join(llamas, "llama"), pretrained.Options{})
	require.NoError(t, err)
	closed.Close()
	err = pretrained.SaveGGUF(ctx, closed, filepath.Join(t.TempDir(), "x.gguf"), pretrained.GGUFOptions{})
	require.ErrorContains(t, err, "saving LlamaForCausalLM")
}

// The file of a real model, written again: byte for byte the same, its tokenizer's metadata included.
func TestRewriteSmolLM2(t *testing.T) {
	f := openGGUF(t, filepath.Join(smolLM2(t), smolLM2File))
	if testing.Short() {
		t.Skip("writes 98 MB")
	}
	path := filepath.Join(t.TempDir(), "x.gguf")
	require.NoError(t, gguf.WriteFile(ctx, path, f.Metadata(), f.Sources()))
	sum := func(path string) string {
		file, err := os.Open(path)
		require.NoError(t, err)
		defer file.Close()
		h := sha256.New()
		_, err = io.Copy(h, file)
		require.NoError(t, err)
		return hex.EncodeToString(h.Sum(nil))
	}
	require.Equal(t, sum(f.Path()), sum(path))
}
