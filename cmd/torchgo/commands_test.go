package main

import (
	"bytes"
	"encoding/json"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/torchgo/torchgo/cmd/torchgo/internal/cli"
	"github.com/torchgo/torchgo/internal/testdata"
	"github.com/torchgo/torchgo/pretrained"
	"github.com/torchgo/torchgo/torch"
)

// torchgo runs a command line.
func torchgo(t *testing.T, stdin string, args ...string) (status int, stdout, stderr string) {
	var out, err bytes.Buffer
	app := &cli.App{Stdin: strings.NewReader(stdin), Stdout: &out, Stderr: &err}
	status = cli.Run(t.Context(), app, args)
	return status, out.String(), err.String()
}

// succeeds runs a command line that has to succeed, and gives its standard output.
func succeeds(t *testing.T, stdin string, args ...string) string {
	status, stdout, stderr := torchgo(t, stdin, args...)
	require.Equal(t, cli.OK, status, stderr)
	require.Empty(t, stderr)
	return stdout
}

type values struct {
	DType string
	Shape []int
	Data  []int64
}

// evalInputs writes the inputs of a reference case as a safetensors file.
func evalInputs(t *testing.T, dir string) (path string, mask []int64) {
	data, err := os.ReadFile(filepath.Join(dir, "inputs.json"))
	require.NoError(t, err)
	var ref struct{ Inputs, Labels map[string]values }
	require.NoError(t, json.Unmarshal(data, &ref))
	named := map[string]*torch.Tensor{}
	for _, group := range []map[string]values{ref.Inputs, ref.Labels} {
		for name, v := range group {
			named[name] = torch.FromSlice(v.Data, v.Shape...)
		}
	}
	path = filepath.Join(t.TempDir(), "in.safetensors")
	require.NoError(t, pretrained.SaveFile(t.Context(), path, named, nil))
	return path, ref.Inputs["attention_mask"].Data
}

func TestEvalGivesTheReference(t *testing.T) {
	for _, name := range []string{"bert", "bert-mlm", "bert-seqcls", "bert-tokcls", "bert-qa", "bert-nsp-pretrain"} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(testdata.Open(t, "models-bert"), name)
			want, err := pretrained.LoadFile(t.Context(), filepath.Join(dir, "expected.safetensors"))
			require.NoError(t, err)
			in, mask := evalInputs(t, dir)
			out := filepath.Join(t.TempDir(), "out.safetensors")
			args := []string{"eval", dir, "--inputs", in, "--outputs", out, "--hidden-states"}
			_, hasLoss := want["loss"]
			if hasLoss {
				args = append(args, "--grad")
			}
			require.Empty(t, succeeds(t, "", args...))
			got, err := pretrained.LoadFile(t.Context(), out)
			require.NoError(t, err)
			require.Equal(t, hasLoss, got["grad_norm"] != nil)
			for key, w := range want {
				g := got[key]
				require.NotNil(t, g, key)
				require.Equal(t, w.Shape(), g.Shape(), key)
				a, b := torch.ToSlice[float64](w), torch.ToSlice[float64](g)
				width := 0
				if s := w.Shape(); len(s) > 1 && s[0]*s[1] == len(mask) {
					width = len(a) / len(mask)
				}
				for i := range a {
					if width > 0 && mask[i/width] == 0 {
						continue // a padded position is unspecified
					}
					require.InDelta(t, a[i], b[i], 1e-5+1e-4*math.Abs(a[i]), "%s[%d]", key, i)
				}
			}
		})
	}
}

// What is wrong with the arguments by themselves is wrong usage, what only the machine or the model shows a failed run;
// errors name flags, not Go's options.
func TestLoadRefuses(t *testing.T) {
	base := testdata.Open(t, "loader")
	single := filepath.Join(base, "single")
	for _, c := range []struct {
		status int
		line   string
		args   []string
	}{
		{2, "argument 1 is empty", []string{"load", ""}},
		{2, "argument 2 is empty", []string{"convert", single, ""}},
		{2, `got "foo"`, []string{"load", single, "--device-map", "foo"}},
		{2, "device map: cls: expected a device name", []string{"plan", single, "--device-map", `{"":"cpu","cls":"auto"}`}},
		{2, `got "-1"`, []string{"load", single, "--device-map", "-1"}},
		{2, "both a device map and a device", []string{"load", single, "--device-map", "cpu", "--device", "cpu"}},
		{2, `expected a device name (cpu, cuda:0, disk), got "foo"`, []string{"load", single, "--max-memory", `{"foo":1}`}},
		{2, "expected 0 or more bytes, got -1", []string{"load", single, "--max-memory", `{"cpu":-1}`}},
		{1, "no entry for the parameter cls.predictions.bias", []string{"load", single, "--device-map", `{"bert":"cpu"}`}},
		{1, "; --allow default-config takes the defaults", []string{"load", filepath.Join(base, "no-config"), "--class", "BertModel"}},
		{1, "; --allow incomplete-index takes it for missing", []string{"plan", filepath.Join(base, "index-key-missing-in-shard")}},
	} {
		status, stdout, stderr := torchgo(t, "", c.args...)
		require.Equal(t, c.status, status, "%v: %s", c.args, stderr)
		require.Empty(t, stdout)
		require.Contains(t, stderr, c.line)
		require.Equal(t, 1, strings.Count(stderr, "\n"), stderr)
	}
}

func TestEvalJSON(t *testing.T) {
	dir := filepath.Join(testdata.Open(t, "models-bert"), "bert-seqcls")
	in, _ := evalInputs(t, dir)
	out := filepath.Join(t.TempDir(), "out.safetensors")
	var got struct {
		File    string
		Outputs map[string][]int
	}
	require.NoError(t, json.Unmarshal([]byte(succeeds(t, "", "eval", dir, "--inputs", in, "--outputs", out, "--json")), &got))
	written, err := pretrained.LoadFile(t.Context(), out)
	require.NoError(t, err)
	require.Equal(t, out, got.File)
	require.Len(t, got.Outputs, len(written))
	for name, tensor := range written {
		require.Equal(t, tensor.Shape(), got.Outputs[name], name)
	}
}

func TestEvalRefuses(t *testing.T) {
	dir := filepath.Join(testdata.Open(t, "models-bert"), "bert")
	in, _ := evalInputs(t, dir)
	out := filepath.Join(t.TempDir(), "out.safetensors")
	other := filepath.Join(t.TempDir(), "other.safetensors")
	require.NoError(t, pretrained.SaveFile(t.Context(), other, map[string]*torch.Tensor{"pixel_values": torch.Zeros([]int{1})}, nil))
	big := filepath.Join(t.TempDir(), "big.safetensors")
	require.NoError(t, pretrained.SaveFile(t.Context(), big, map[string]*torch.Tensor{"input_ids": torch.FromSlice([]int64{1 << 40}, 1, 1)}, nil))
	for _, c := range []struct {
		status int
		line   string
		args   []string
	}{
		{2, "--inputs and --outputs are required", []string{"eval", dir}},
		{2, "torchgo: eval: --dtype: expected a name like float32 or bfloat16", []string{"eval", dir, "--inputs", in, "--outputs", out, "--dtype", "flot32"}},
		{2, "expected cpu, cuda", []string{"eval", dir, "--inputs", in, "--outputs", out, "--device", "gpu"}},
		{2, "--config: expected a JSON object", []string{"eval", dir, "--inputs", in, "--outputs", out, "--config", "[1]"}},
		{2, "--threads: expected 1 to", []string{"eval", dir, "--inputs", in, "--outputs", out, "--threads", "100000"}},
		{1, "no such file", []string{"eval", dir, "--inputs", "nosuchfile", "--outputs", out}},
		{1, `"pixel_values"`, []string{"eval", dir, "--inputs", other, "--outputs", out}},
		{1, "there is no loss", []string{"eval", dir, "--inputs", in, "--outputs", out, "--grad"}},
		{1, "no/such/adapter", []string{"eval", dir, "--inputs", in, "--outputs", out, "--adapter", "no/such/adapter"}},
		{1, "out of range", []string{"eval", dir, "--inputs", big, "--outputs", out}},
		{1, "no such file or directory", []string{"eval", dir, "--inputs", in, "--outputs", filepath.Join(t.TempDir(), "no", "out.safetensors")}},
	} {
		status, stdout, stderr := torchgo(t, "", c.args...)
		require.Equal(t, c.status, status, "%v: %s", c.args, stderr)
		require.Empty(t, stdout)
		require.Contains(t, stderr, c.line)
		require.True(t, strings.HasPrefix(stderr, "torchgo: eval: "), stderr)
		require.Equal(t, 1, strings.Count(stderr, "\n"), "one line: %s", stderr)
		require.NoFileExists(t, out)
	}
}

func TestLoadReportsAndDigests(t *testing.T) {
	dir := filepath.Join(testdata.Open(t, "models-bert"), "bert-mlm")
	var report struct {
		Class           string
		DType           string            `json:"dtype"`
		DeviceMap       map[string]string `json:"device_map"`
		Missing         []string          `json:"missing_keys"`
		Mismatched      [][]any           `json:"mismatched_keys"`
		Tied            map[string]string `json:"tied_keys"`
		NumParameters   int               `json:"num_parameters"`
		MemoryFootprint int               `json:"memory_footprint"`
		StateDict       map[string]struct {
			DType, SHA256 string
			Shape         []int
		} `json:"state_dict"`
	}
	out := succeeds(t, "", "load", dir, "--json", "--digest")
	for _, key := range []string{"unexpected_keys", "error_msgs", "bytes_read", "seconds", "peak_rss_bytes"} {
		require.Contains(t, out, `"`+key+`"`)
	}
	require.NoError(t, json.Unmarshal([]byte(out), &report))
	require.Equal(t, "BertForMaskedLM", report.Class)
	require.Equal(t, "float32", report.DType)
	require.Equal(t, map[string]string{"": "cpu"}, report.DeviceMap)
	require.Equal(t, 21472, report.NumParameters)
	require.NotNil(t, report.Missing)
	require.Equal(t, "bert.embeddings.word_embeddings.weight", report.Tied["cls.predictions.decoder.weight"])
	require.Equal(t, report.StateDict["bert.embeddings.word_embeddings.weight"], report.StateDict["cls.predictions.decoder.weight"])
	// What the file has is what the model has.
	var listing struct {
		Tensors []struct {
			Name, DType, SHA256 string
			Shape               []int
		}
	}
	require.NoError(t, json.Unmarshal([]byte(succeeds(t, "", "inspect", dir, "--json", "--digest")), &listing))
	require.NotEmpty(t, listing.Tensors)
	for _, tensor := range listing.Tensors {
		require.Equal(t, tensor.SHA256, report.StateDict[tensor.Name].SHA256, tensor.Name)
		require.Equal(t, "F32", tensor.DType)
	}

	require.Contains(t, succeeds(t, "", "load", dir), "BertForMaskedLM")
	require.Contains(t, succeeds(t, "", "plan", dir), "cls.predictions.decoder.weight = bert.embeddings.word_embeddings.weight")
	require.True(t, json.Valid([]byte(succeeds(t, "", "plan", dir, "--json"))))

	status, _, stderr := torchgo(t, "", "load", dir, "--config", `{"vocab_size": 40}`)
	require.Equal(t, 1, status)
	require.Contains(t, stderr, "word_embeddings.weight")
	status, _, stderr = torchgo(t, "", "load", dir, "--class", "BertForSequenceClassification", "--strict")
	require.Equal(t, 1, status)
	require.Contains(t, stderr, "classifier")
	status, _, _ = torchgo(t, "", "load", dir, "--class", "AutoModelForMaskedLM", "--dtype", "bfloat16", "--attn", "eager",
		"--key-mapping", `{"^nothing": "x"}`, "--threads", "1", "--seed", "3", "--use-safetensors=true")
	require.Equal(t, 0, status)

	dir = filepath.Join(testdata.Open(t, "loader"), "index-key-missing-in-shard")
	status, _, _ = torchgo(t, "", "load", dir)
	require.Equal(t, 1, status)
	require.Contains(t, succeeds(t, "", "load", dir, "--allow", "incomplete-index,conflicting-shards"), "missing")
	status, _, stderr = torchgo(t, "", "inspect", dir)
	require.Equal(t, 1, status)
	require.Contains(t, stderr, "promised by")
	require.NotContains(t, stderr, "llow", "inspect has no such flag")
	status, _, stderr = torchgo(t, "", "load", dir, "--allow", "everything")
	require.Equal(t, cli.WrongUsage, status)
	require.Contains(t, stderr, "--allow: expected default-config")
}

func TestGGUFAtTheShell(t *testing.T) {
	dir := testdata.Open(t, "gguf")
	path := filepath.Join(dir, "llama-Q8_0.gguf")
	var want struct{ SD map[string]string }
	data, err := os.ReadFile(filepath.Join(dir, "llama-Q8_0.json"))
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal(data, &want))
	for _, args := range [][]string{{path}, {dir, "--gguf-file", "llama-Q8_0.gguf"}} {
		var report struct {
			Class     string
			StateDict map[string]struct{ DType, SHA256 string } `json:"state_dict"`
		}
		require.NoError(t, json.Unmarshal([]byte(succeeds(t, "", append([]string{"load", "--json", "--digest"}, args...)...)), &report))
		require.Equal(t, "LlamaForCausalLM", report.Class)
		require.Len(t, report.StateDict, len(want.SD))
		for name, x := range report.StateDict {
			require.Equal(t, want.SD[name], x.SHA256, name)
		}
		require.Contains(t, succeeds(t, "", append([]string{"plan"}, args...)...), "Q8_0 in llama-Q8_0.gguf as blk.0.attn_q.weight")
	}
	to := filepath.Join(t.TempDir(), "dense")
	succeeds(t, "", "convert", path, to, "--dtype", "bfloat16")
	require.Contains(t, succeeds(t, "", "load", to), "LlamaForCausalLM")
	status, _, stderr := torchgo(t, "", "load", dir, "--gguf-file", "../x.gguf")
	require.Equal(t, cli.WrongUsage, status)
	require.Contains(t, stderr, "gguf-file: expected a path below the model directory")
	for _, flag := range []string{"--gguf-file", "--adapter"} { // as "$VARIABLE" is that isn't set
		status, _, stderr = torchgo(t, "", "load", path, flag, "")
		require.Equal(t, cli.WrongUsage, status)
		require.Contains(t, stderr, flag+": is empty")
	}
}
