package pretrained_test

import (
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
)

type object = map[string]json.RawMessage

func readReference(t *testing.T, file string, into any) {
	data, err := os.ReadFile(filepath.Join(testdata.Open(t, "saving"), file))
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal(data, into))
}

// llamaFolder is a folder with a tiny Llama whose config.json has some keys changed, and with a
// generation_config.json if generation is not nil.
func llamaFolder(t *testing.T, config object, generation json.RawMessage) string {
	dir := t.TempDir()
	from := filepath.Join(testdata.Open(t, "models-llama"), "llama")
	require.NoError(t, os.Symlink(filepath.Join(from, "model.safetensors"), filepath.Join(dir, "model.safetensors")))
	data, err := os.ReadFile(filepath.Join(from, "config.json"))
	require.NoError(t, err)
	var full object
	require.NoError(t, json.Unmarshal(data, &full))
	maps.Copy(full, config)
	data, err = json.Marshal(full)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(filepath.Join(dir, "config.json"), data, 0o600))
	if generation != nil && string(generation) != "null" {
		require.NoError(t, os.WriteFile(filepath.Join(dir, "generation_config.json"), generation, 0o600))
	}
	return dir
}

// What transformers makes of generation_config.json, of config.json where there is none, and of changes; and
// what it writes then.
func TestGenerationConfigIsTransformers(t *testing.T) {
	var rows []struct {
		Name   string
		File   json.RawMessage
		Config object
		Set    map[string]any
		Out    string
		Error  string
		At     string
	}
	readReference(t, "generation.json", &rows)
	require.Len(t, rows, 36)
	for _, row := range rows {
		t.Run(row.Name, func(t *testing.T) {
			dir := llamaFolder(t, row.Config, row.File)
			m, _, err := pretrained.Load(ctx, dir, pretrained.Options{Class: "LlamaForCausalLM"})
			if row.At == "load" {
				require.ErrorIs(t, err, pretrained.ErrBadConfig)
				require.ErrorContains(t, err, filepath.Join(dir, "generation_config.json"))
				return
			}
			require.NoError(t, err)
			defer m.Close()
			g := m.GenerationConfig()
			for _, key := range slices.Sorted(maps.Keys(row.Set)) {
				v := row.Set[key]
				if f, ok := v.(float64); ok && f == float64(int(f)) && key != "length_penalty" {
					v = int(f)
				}
				require.NoError(t, g.Set(key, v))
			}
			out := t.TempDir()
			err = pretrained.SavePretrained(ctx, m, out, pretrained.SaveOptions{})
			if row.At == "save" {
				require.ErrorIs(t, err, pretrained.ErrBadConfig)
				require.NoFileExists(t, filepath.Join(out, "config.json"))
				return
			}
			require.NoError(t, err)
			data, err := os.ReadFile(filepath.Join(out, "generation_config.json"))
			require.NoError(t, err)
			require.Equal(t, row.Out, string(data))
		})
	}
}

func TestGenerationConfigValues(t *testing.T) {
	dir := llamaFolder(t, nil, json.RawMessage(`{"eos_token_id": [2, 7], "temperature": 1, "do_sample": true, "max_new_tokens": 5, "mine": {"a": 1}}`))
	m, _ := load(t, dir, pretrained.Options{})
	require.True(t, m.CanGenerate())
	g := m.GenerationConfig()
	require.Equal(t, []int{2, 7}, g.Tokens("eos_token_id"))
	require.Empty(t, g.Tokens("bos_token_id"))
	require.Equal(t, 1.0, g.Float("temperature", 0))
	require.Equal(t, 5, g.Int("max_new_tokens", 0))
	require.Equal(t, 20, g.Int("max_length", 20))
	require.True(t, g.True("do_sample"))
	v, ok := g.Get("mine")
	require.True(t, ok)
	require.Equal(t, map[string]any{"a": int64(1)}, v)

	// A bad value changes nothing.
	require.ErrorIs(t, g.Set("temperature", "hot"), pretrained.ErrBadConfig)
	require.ErrorContains(t, g.Set("num_return_sequences", "3"), `num_return_sequences: expected an integer, got "3"`)
	require.Error(t, g.Set("max_new_tokens", -1))
	require.Equal(t, 5, g.Int("max_new_tokens", 0))

	// The caller's comes before the file's, and stays the caller's.
	own, err := pretrained.NewGenerationConfig(map[string]any{"eos_token_id": 3})
	require.NoError(t, err)
	m2, _ := load(t, dir, pretrained.Options{GenerationConfig: own})
	require.Equal(t, []int{3}, m2.GenerationConfig().Tokens("eos_token_id"))
	require.NoError(t, m2.GenerationConfig().Set("eos_token_id", 4))
	require.Equal(t, []int{3}, own.Tokens("eos_token_id"))

	b, _ := load(t, loaderCase(t, "single"), pretrained.Options{})
	require.False(t, b.CanGenerate())
	require.Nil(t, b.GenerationConfig())
}

// transformers takes a file that is no JSON for none; here it is an error, as are wrong types.
func TestBadGenerationConfigFile(t *testing.T) {
	for text, want := range map[string]string{
		`{"eos_token_id": 2`:           "generation_config.json",
		`[1]`:                          "expected an object",
		`{"temperature": "hot"}`:       "temperature: expected a number",
		`{"eos_token_id": [1, "x"]}`:   "eos_token_id: expected a token id or a list of them",
		`{"do_sample": 1}`:             "do_sample: expected true or false",
		`{"temperature": NaN}`:         "temperature",
		`{"compile_config": {"a": 1}}`: "compile_config",
		`{"top_k": 5, "top_k": 6}`:     "top_k",
		strings.Repeat(" ", 17<<20):    "at most",
	} {
		dir := llamaFolder(t, nil, json.RawMessage(text))
		_, _, err := pretrained.Load(ctx, dir, pretrained.Options{})
		require.ErrorContains(t, err, want)
		require.ErrorContains(t, err, filepath.Join(dir, "generation_config.json"))
		m, _, err := pretrained.Load(ctx, dir, pretrained.Options{Class: "LlamaModel"})
		require.NoError(t, err, "a model that can't generate does not look at it")
		m.Close()
	}
}

// What is accepted is written as it was taken: reading it again gives the same file.
func FuzzGenerationConfig(f *testing.F) {
	for _, text := range []string{
		`{"eos_token_id": [1, 2], "temperature": 0.5, "do_sample": true}`, `{"watermarking_config": {"bias": 1}, "x": {"y": [null, 1e300]}}`,
		`{"_from_model_config": true, "foo": 1, "num_return_sequences": 2, "num_beams": 3}`, `{"early_stopping": "never", "a": -0.0, "b": 12345678901234567890}`,
	} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		first, err := pretrained.RewriteGeneration(data)
		if err != nil {
			return
		}
		second, err := pretrained.RewriteGeneration(first)
		require.NoError(t, err)
		require.Equal(t, string(first), string(second))
	})
}
