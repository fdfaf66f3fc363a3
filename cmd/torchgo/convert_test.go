package main

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/torchgo/torchgo/cmd/torchgo/internal/cli"
	"github.com/torchgo/torchgo/internal/atomicfile"
	"github.com/torchgo/torchgo/internal/hubtest"
	"github.com/torchgo/torchgo/internal/testdata"
)

// convertSource is a folder with a tiny Llama, files that belong to it and files that don't.
func convertSource(t *testing.T) string {
	dir := filepath.Join(testdata.Copy(t, "models-llama"), "llama")
	for _, name := range []string{"inputs.json", "expected.safetensors"} {
		require.NoError(t, os.Remove(filepath.Join(dir, name)))
	}
	require.NoError(t, os.Mkdir(filepath.Join(dir, "1_Pooling"), 0o777))
	require.NoError(t, os.Mkdir(filepath.Join(dir, "runs"), 0o777))
	for _, name := range []string{"tokenizer.json", "merges.txt", "tokenizer.model", "chat_template.jinja", "LICENSE", "modules.json", "1_Pooling/config.json",
		"optimizer.pt", "old.bin", "runs/config.txt", "1_Pooling/notes.txt", ".hidden.json", "model.safetensors.index.fp16.json", "code.py"} {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte("the text of "+name), 0o600))
	}
	require.NoError(t, os.Truncate(filepath.Join(dir, "merges.txt"), 0))
	big, err := os.Create(filepath.Join(dir, "big.json"))
	require.NoError(t, err)
	require.NoError(t, big.Truncate(65<<20))
	require.NoError(t, big.Close())
	return dir
}

// tree is the names and contents of all files below a folder, but large ones.
func tree(t *testing.T, dir string) map[string]string {
	files := map[string]string{}
	require.NoError(t, filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() || d.Name() == "big.json" {
			return err
		}
		data, err := os.ReadFile(path)
		name, _ := filepath.Rel(dir, path)
		files[filepath.ToSlash(name)] = string(data)
		return err
	}))
	return files
}

// stateOf is the state dict that load --digest prints.
func stateOf(t *testing.T, dir string, args ...string) map[string]digestEntry {
	var out struct {
		StateDict map[string]digestEntry `json:"state_dict"`
	}
	require.NoError(t, json.Unmarshal([]byte(succeeds(t, "", append([]string{"load", dir, "--digest", "--strict"}, args...)...)), &out))
	return out.StateDict
}

func TestConvert(t *testing.T) {
	src := convertSource(t)
	before := tree(t, src)
	dst := filepath.Join(t.TempDir(), "new", "dst")
	var out converted
	require.NoError(t, json.Unmarshal([]byte(succeeds(t, "", "convert", src, dst, "--dtype", "bfloat16", "--max-shard-size", "20KB", "--json")), &out))
	require.Equal(t, before, tree(t, src), "the source is not touched")
	copied := []string{"1_Pooling/config.json", "LICENSE", "chat_template.jinja", "merges.txt", "modules.json", "tokenizer.json", "tokenizer.model"}
	require.Equal(t, copied, out.Copied)
	require.Equal(t, []string{"config.json", "generation_config.json", "model-00001-of-00003.safetensors", "model-00002-of-00003.safetensors",
		"model-00003-of-00003.safetensors", "model.safetensors.index.json"}, out.Files)
	after := tree(t, dst)
	require.Len(t, after, len(copied)+len(out.Files))
	var bytes int64
	for _, name := range out.Files {
		bytes += int64(len(after[name]))
	}
	require.Equal(t, bytes, out.Bytes)
	for _, name := range copied {
		require.Equal(t, before[name], after[name], name)
	}
	require.Equal(t, "bfloat16", out.DType)
	require.Equal(t, stateOf(t, src, "--dtype", "bfloat16"), stateOf(t, dst))

	// Back in place: bfloat16 values are float32 values, and nothing but the checkpoint changes.
	text := succeeds(t, "", "convert", dst, dst, "--dtype", "float32", "--format", "safetensors")
	require.Contains(t, text, dst+": ")
	require.Contains(t, text, "in 3 files\n")
	again := tree(t, dst)
	require.Len(t, again, len(copied)+3)
	for _, name := range copied {
		require.Equal(t, before[name], again[name], name)
	}
	require.Contains(t, again["config.json"], `"dtype": "float32"`)
	require.Equal(t, stateOf(t, dst), stateOf(t, dst, "--dtype", "float32"))
	succeeds(t, "", "convert", dst, dst, "--dtype", "bfloat16", "--max-shard-size", "20KB")
	require.Equal(t, after, tree(t, dst))
}

// What is compressed lists, hashes and loads as what is not, and converts back to it.
func TestConvertCompress(t *testing.T) {
	src := filepath.Join(testdata.Open(t, "models-llama"), "llama")
	plain, small, back := t.TempDir(), t.TempDir(), t.TempDir()
	succeeds(t, "", "convert", src, plain, "--max-shard-size", "40KB")
	succeeds(t, "", "convert", src, small, "--max-shard-size", "40KB", "--compress")
	require.Equal(t, succeeds(t, "", "inspect", plain, "--digest", "--json"), succeeds(t, "", "inspect", small, "--digest", "--json"))
	require.Equal(t, stateOf(t, plain), stateOf(t, small))
	succeeds(t, "", "convert", small, back, "--max-shard-size", "40KB")
	want, compressed := tree(t, plain), tree(t, small)
	require.Equal(t, want, tree(t, back))
	for name, data := range compressed {
		if strings.HasSuffix(name, ".safetensors") {
			require.Less(t, len(data), len(want[name])*95/100, name)
		} else {
			require.Equal(t, want[name], data, name)
		}
	}
}

// A checkpoint goes to PyTorch's own format and back; in place, too.
func TestConvertBin(t *testing.T) {
	src := convertSource(t)
	plain, pickles, back := t.TempDir(), t.TempDir(), t.TempDir()
	succeeds(t, "", "convert", src, plain, "--dtype", "bfloat16", "--max-shard-size", "20KB")
	var out converted
	require.NoError(t, json.Unmarshal([]byte(succeeds(t, "", "convert", src, pickles, "--format", "bin", "--dtype", "bfloat16", "--max-shard-size", "20KB", "--json")), &out))
	require.Equal(t, []string{"config.json", "generation_config.json", "pytorch_model-00001-of-00003.bin", "pytorch_model-00002-of-00003.bin",
		"pytorch_model-00003-of-00003.bin", "pytorch_model.bin.index.json"}, out.Files)
	require.Equal(t, stateOf(t, plain), stateOf(t, pickles))
	succeeds(t, "", "convert", pickles, back, "--max-shard-size", "20KB")
	require.Equal(t, tree(t, plain), tree(t, back))

	succeeds(t, "", "convert", pickles, pickles, "--format", "bin")
	files := tree(t, pickles)
	require.Contains(t, files, "pytorch_model.bin")
	require.NotContains(t, files, "pytorch_model.bin.index.json")
	require.NotContains(t, files, "pytorch_model-00001-of-00003.bin")
	require.Equal(t, stateOf(t, plain), stateOf(t, pickles))
	listed := func(dir string) any {
		var list struct {
			Tensors []struct {
				Name   string
				Shape  []int
				SHA256 string
			}
		}
		require.NoError(t, json.Unmarshal([]byte(succeeds(t, "", "inspect", dir, "--digest", "--json")), &list))
		slices.SortFunc(list.Tensors, func(a, b struct {
			Name   string
			Shape  []int
			SHA256 string
		}) int {
			return strings.Compare(a.Name, b.Name)
		})
		return list
	}
	require.Equal(t, listed(plain), listed(pickles))
}

func TestConvertKeepsTheNamesOfTheFiles(t *testing.T) {
	src := filepath.Join(testdata.Open(t, "loader"), "gamma-beta")
	for format, want := range map[string]string{"": "LayerNorm.gamma", "original": "LayerNorm.gamma", "safetensors": "LayerNorm.weight"} {
		dst := t.TempDir()
		args := []string{"convert", src, dst, "--class", "BertForMaskedLM"}
		if format != "" {
			args = append(args, "--format", format)
		}
		succeeds(t, "", args...)
		require.Contains(t, tree(t, dst)["model.safetensors"], "bert.embeddings."+want)
	}
}

func TestConvertRefuses(t *testing.T) {
	src := convertSource(t)
	dst := filepath.Join(t.TempDir(), "dst")
	file := filepath.Join(t.TempDir(), "file")
	require.NoError(t, os.WriteFile(file, nil, 0o600))
	for _, c := range []struct {
		status int
		line   string
		args   []string
	}{
		{2, "", []string{"convert", src}},
		{2, `--format: expected safetensors, original, gguf or bin, got "x"`, []string{"convert", src, dst, "--format", "x"}},
		{2, `--gguf-type: ggml has no type "Q9"`, []string{"convert", src, dst, "--format", "gguf", "--gguf-type", "Q9"}},
		{2, "--gguf-type: is for --format gguf", []string{"convert", src, dst, "--gguf-type", "Q8_0"}},
		{2, "--format gguf: is one file", []string{"convert", src, dst, "--format", "gguf", "--max-shard-size", "1MB"}},
		{1, "class: expected LlamaForCausalLM, got LlamaModel", []string{"convert", src, dst, "--format", "gguf", "--class", "LlamaModel"}},
		{2, "--compress: not with --format bin", []string{"convert", src, dst, "--format", "bin", "--compress"}},
		{1, "model.safetensors: sources disagree about a tensor: readers would find it in place of pytorch_model.bin", []string{"convert", src, src, "--format", "bin"}},
		{2, "Unit 'XB' not supported", []string{"convert", src, dst, "--max-shard-size", "5XB"}},
		{2, "expected a floating-point dtype, got int64", []string{"convert", src, dst, "--dtype", "int64"}},
		{1, "expected a directory", []string{"convert", src, file}},
		{1, "nosuchfolder", []string{"convert", filepath.Join(src, "nosuchfolder"), dst}},
		{1, "not a directory", []string{"convert", src, filepath.Join(file, "below")}},
	} {
		status, stdout, stderr := torchgo(t, "", c.args...)
		require.Equal(t, c.status, status, stderr)
		require.Empty(t, stdout)
		require.Contains(t, stderr, c.line)
		require.Equal(t, 1, strings.Count(stderr, "\n"), stderr)
	}
	require.NoDirExists(t, dst)
}

// Ctrl-C and a full disk, at some point of writing, leave nothing half-made.
func TestConvertInterrupted(t *testing.T) {
	src := convertSource(t)
	in := filepath.Join(testdata.Copy(t, "models-llama"), "llama")
	for _, dst := range []string{filepath.Join(t.TempDir(), "a", "b"), in} {
		before := tree(t, filepath.Dir(filepath.Dir(dst)))
		for _, at := range []int{1, 5, 12, 20} {
			for _, full := range []bool{false, true} {
				ctx, cancel := context.WithCancel(t.Context())
				n := 0
				restore := atomicfile.Intercept(func(op atomicfile.Op, path string) error {
					if n++; n == at && full && op != atomicfile.OpClose {
						return syscall.ENOSPC
					} else if n == at {
						cancel()
					}
					return nil
				})
				var stdout, stderr bytes.Buffer
				app := &cli.App{Stdin: strings.NewReader(""), Stdout: &stdout, Stderr: &stderr}
				status := cli.Run(ctx, app, []string{"convert", src, dst, "--max-shard-size", "20KB"})
				restore()
				cancel()
				require.Contains(t, []int{cli.Failed, cli.Interrupted}, status, stderr.String())
				require.Equal(t, 1, strings.Count(stderr.String(), "\n"), stderr.String())
				require.Equal(t, before, tree(t, filepath.Dir(filepath.Dir(dst))))
			}
		}
		require.NoDirExists(t, filepath.Join(filepath.Dir(dst), "b"))
	}
}

// A model of the hub comes with the files that a directory's would.
func TestConvertFromTheHub(t *testing.T) {
	src := convertSource(t)
	require.NoError(t, os.Remove(filepath.Join(src, "big.json")))
	files := map[string][]byte{}
	for name, text := range tree(t, src) {
		files[name] = []byte(text)
	}
	local := filepath.Join(t.TempDir(), "local")
	succeeds(t, "", "convert", src, local, "--dtype", "bfloat16")

	s := hubtest.New(t)
	t.Setenv("HF_ENDPOINT", s.URL)
	t.Setenv("HF_HOME", t.TempDir())
	s.Commit("org/name", files)
	for _, offline := range []string{"", "1"} {
		t.Setenv("HF_HUB_OFFLINE", offline)
		dst := filepath.Join(t.TempDir(), "dst")
		succeeds(t, "", "convert", "org/name", dst, "--dtype", "bfloat16")
		require.Equal(t, tree(t, local), tree(t, dst))
	}
	cached, err := filepath.Glob(filepath.Join(os.Getenv("HF_HOME"), "hub", "*", "snapshots", "*", "o*"))
	require.NoError(t, err)
	require.Empty(t, cached, "old.bin, optimizer.pt")
}
