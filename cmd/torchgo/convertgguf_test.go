package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/torchgo/torchgo/internal/testdata"
)

// A model as a GGUF file: load --gguf-file has the same tensors, the files beside the model come along.
func TestConvertToGGUF(t *testing.T) {
	src := convertSource(t)
	dst := filepath.Join(t.TempDir(), "dst")
	var out converted
	require.NoError(t, json.Unmarshal([]byte(succeeds(t, "", "convert", src, dst, "--format", "gguf", "--json")), &out))
	require.Equal(t, []string{"model.gguf"}, out.Files)
	require.Contains(t, out.Copied, "tokenizer.json")
	require.Equal(t, "the text of tokenizer.json", tree(t, dst)["tokenizer.json"])
	require.NotContains(t, tree(t, dst), "config.json", "it is in the file")
	require.Equal(t, "LlamaForCausalLM", out.Class)
	require.Equal(t, stateOf(t, src), stateOf(t, dst, "--gguf-file", "model.gguf"))

	file := filepath.Join(t.TempDir(), "x.gguf")
	text := succeeds(t, "", "convert", src, file, "--gguf-type", "q8_0") // the name says the format
	require.Contains(t, text, file+": ")
	types := map[string]string{}
	for _, x := range inspected(t, file) {
		types[x.Name] = x.DType
	}
	require.Equal(t, "Q8_0", types["blk.0.attn_q.weight"])
	require.Equal(t, "F32", types["output_norm.weight"])
	require.Equal(t, "F16", types["blk.0.ffn_down.weight"], "its rows are no multiple of a block")
}

type inspectedTensor struct{ Name, DType, SHA256 string }

func inspected(t *testing.T, path string) []inspectedTensor {
	var out struct{ Tensors []inspectedTensor }
	require.NoError(t, json.Unmarshal([]byte(succeeds(t, "", "inspect", path, "--digest", "--json")), &out))
	return out.Tensors
}

// A GGUF file as another: byte for byte the same, or what gguf-py makes of it; all metadata stay.
func TestConvertGGUFToGGUF(t *testing.T) {
	dir := testdata.Open(t, "gguf")
	src := filepath.Join(dir, "llama-F16.gguf")
	same := filepath.Join(t.TempDir(), "same.gguf")
	succeeds(t, "", "convert", src, same, "--format", "gguf")
	want, err := os.ReadFile(src)
	require.NoError(t, err)
	got, err := os.ReadFile(same)
	require.NoError(t, err)
	require.Equal(t, want, got)

	q := filepath.Join(t.TempDir(), "q4_0.gguf")
	succeeds(t, "", "convert", dir, q, "--gguf-file", "llama-F16.gguf", "--format", "gguf", "--gguf-type", "Q4_0")
	digests := map[string]string{}
	for _, x := range inspected(t, q) {
		digests[x.Name] = x.SHA256
	}
	var written map[string]string
	data, err := os.ReadFile(filepath.Join(dir, "requantized.json"))
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal(data, &written))
	require.Equal(t, written, digests)
	var m struct{ Metadata map[string]any }
	require.NoError(t, json.Unmarshal([]byte(succeeds(t, "", "inspect", q, "--json")), &m))
	require.Equal(t, 2., m.Metadata["general.file_type"])
	require.Equal(t, 2., m.Metadata["general.quantization_version"])
	require.Len(t, m.Metadata["tokenizer.ggml.tokens"], 96)

	// With a flag of loading it is a model.
	back := filepath.Join(t.TempDir(), "back.gguf")
	succeeds(t, "", "convert", q, back, "--format", "gguf", "--dtype", "bfloat16")
	require.Equal(t, "BF16", inspected(t, back)[0].DType)
}
