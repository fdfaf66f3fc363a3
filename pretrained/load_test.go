package pretrained_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"unsafe"

	"github.com/stretchr/testify/require"

	"github.com/torchgo/torchgo/internal/testdata"
	"github.com/torchgo/torchgo/pretrained"
	"github.com/torchgo/torchgo/pretrained/safetensors"
	"github.com/torchgo/torchgo/torch"
	"github.com/torchgo/torchgo/torch/nn"
)

func loaderCase(t *testing.T, name string) string {
	return filepath.Join(testdata.Open(t, "loader"), name)
}

func load(t *testing.T, dir string, opts pretrained.Options) (pretrained.Model, *pretrained.Report) {
	t.Helper()
	m, r, err := pretrained.Load(ctx, dir, opts)
	require.NoError(t, err)
	t.Cleanup(m.Close)
	return m, r
}

func state(m any) map[string]*torch.Tensor {
	out := map[string]*torch.Tensor{}
	for name, x := range nn.StateDict(m) {
		out[name] = x
	}
	return out
}

// inMappingOf reports whether an address lies in a mapping of a file.
func inMappingOf(t *testing.T, p unsafe.Pointer, file string) bool {
	data, err := os.ReadFile("/proc/self/maps")
	require.NoError(t, err)
	for line := range strings.Lines(string(data)) {
		var from, to uintptr
		_, err := fmt.Sscanf(line, "%x-%x", &from, &to)
		require.NoError(t, err)
		if at := uintptr(p); at >= from && at < to {
			return strings.HasSuffix(strings.TrimSpace(line), file)
		}
	}
	return false
}

func TestZeroCopy(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("reads /proc/self/maps")
	}
	dir := loaderCase(t, "single")
	m, _ := load(t, dir, pretrained.Options{})
	for name, x := range nn.StateDict(m) {
		require.True(t, inMappingOf(t, x.DataPtr(), "single/model.safetensors"), name)
	}
	for _, opts := range []pretrained.Options{{DisableMmap: true}, {DType: torch.Float64}} {
		m, _ := load(t, dir, opts)
		for name, x := range nn.StateDict(m) {
			require.False(t, inMappingOf(t, x.DataPtr(), "single/model.safetensors"), name)
		}
	}
}

func TestCloseUnmapsAndWritesStayPrivate(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("reads /proc/self/maps")
	}
	dir := filepath.Join(testdata.Copy(t, "loader"), "single")
	file := filepath.Join(dir, "model.safetensors")
	before, err := os.ReadFile(file)
	require.NoError(t, err)
	m, _, err := pretrained.Load(ctx, dir, pretrained.Options{})
	require.NoError(t, err)
	torch.NoGrad(func() {
		for _, p := range nn.Parameters(m) {
			p.Zero_() // an in-place optimizer step on mapped weights
		}
	})
	m.Close()
	after, err := os.ReadFile(file)
	require.NoError(t, err)
	require.True(t, bytes.Equal(before, after))
	data, err := os.ReadFile("/proc/self/maps")
	require.NoError(t, err)
	require.NotContains(t, string(data), dir)
}

func TestTiesAreOneTensor(t *testing.T) {
	for _, name := range []string{"single", "tied-only-head-present", "gamma-beta", "mismatch-ignore"} {
		opts := pretrained.Options{}
		if name == "mismatch-ignore" {
			opts = pretrained.Options{Config: map[string]any{"vocab_size": 40}, IgnoreMismatchedSizes: true}
		}
		m, r := load(t, loaderCase(t, name), opts)
		s := state(m)
		require.Same(t, s["bert.embeddings.word_embeddings.weight"], s["cls.predictions.decoder.weight"], name)
		require.Same(t, s["cls.predictions.bias"], s["cls.predictions.decoder.bias"], name)
		require.Len(t, r.TiedKeys, 2)
	}
	m, r := load(t, loaderCase(t, "tied-both-present-differ"), pretrained.Options{})
	s := state(m)
	require.NotEqual(t, s["bert.embeddings.word_embeddings.weight"].DataPtr(), s["cls.predictions.decoder.weight"].DataPtr())
	require.Equal(t, map[string]string{"cls.predictions.decoder.bias": "cls.predictions.bias"}, r.TiedKeys)
	require.Len(t, r.Warnings, 1)
	require.Contains(t, r.Warnings[0], "they are not tied")

	m, r = load(t, loaderCase(t, "single"), pretrained.Options{Config: map[string]any{"tie_word_embeddings": false}})
	s = state(m)
	require.NotSame(t, s["bert.embeddings.word_embeddings.weight"], s["cls.predictions.decoder.weight"])
	require.Equal(t, []string{"cls.predictions.decoder.bias", "cls.predictions.decoder.weight"}, r.MissingKeys)
}

func TestStrict(t *testing.T) {
	for name, want := range map[string][]error{
		"single":                 nil,
		"missing-and-unexpected": {pretrained.ErrMissingTensor, pretrained.ErrUnexpected},
		"base-into-head":         {pretrained.ErrMissingTensor},
		"num-labels-mismatch":    {pretrained.ErrSizeMismatch},
	} {
		opts := pretrained.Options{Strict: true}
		switch name {
		case "base-into-head":
			opts.Class = "BertForSequenceClassification"
		case "num-labels-mismatch":
			opts.Config, opts.IgnoreMismatchedSizes = map[string]any{"num_labels": 5}, true
		}
		m, _, err := pretrained.Load(ctx, loaderCase(t, name), opts)
		if want == nil {
			require.NoError(t, err)
			m.Close()
		}
		for _, class := range want {
			require.ErrorIs(t, err, class, name)
		}
		if name == "missing-and-unexpected" {
			require.ErrorContains(t, err, "bert.encoder.layer.1.attention.output.LayerNorm.bias, bert.encoder.layer.1.attention.output.LayerNorm.weight")
			require.ErrorContains(t, err, "foo.bar.0.weight, foo.bar.1.weight")
		}
	}
}

func TestMissingWeightsAreInitialised(t *testing.T) {
	torch.ManualSeed(11)
	m, r := load(t, loaderCase(t, "missing-and-unexpected"), pretrained.Options{Config: map[string]any{"initializer_range": 0.5}})
	s := state(m)
	for _, key := range r.MissingKeys {
		x := torch.ToSlice[float32](s[key])
		var sum, squares float64
		for _, v := range x {
			sum += float64(v)
			squares += float64(v) * float64(v)
		}
		mean, n := sum/float64(len(x)), float64(len(x))
		switch {
		case strings.HasSuffix(key, "LayerNorm.weight"):
			require.Equal(t, []float64{1, 1}, []float64{mean, squares / n}, key)
		case strings.HasSuffix(key, ".bias"):
			require.Zero(t, squares, key)
		default:
			require.InDelta(t, 0.5, math.Sqrt(squares/n), 0.1, key)
			require.InDelta(t, 0, mean, 0.12, key)
		}
	}
}

func TestReportAndPlanAreDeterministic(t *testing.T) {
	dir := loaderCase(t, "missing-and-unexpected")
	var texts, plans []string
	for range 3 {
		m, r, err := pretrained.Load(ctx, dir, pretrained.Options{})
		require.NoError(t, err)
		m.Close()
		r.Seconds, r.PeakRSSBytes = 0, 0
		texts = append(texts, r.String()+string(r.JSON()))
		p, err := pretrained.Plan(ctx, dir, pretrained.Options{})
		require.NoError(t, err)
		plans = append(plans, p.String()+string(p.JSON()))
	}
	require.Equal(t, texts[0], texts[1])
	require.Equal(t, texts[0], texts[2])
	require.Equal(t, plans[0], plans[1])
	require.Equal(t, plans[0], plans[2])
	require.Contains(t, texts[0], "  unexpected  foo.bar.{0,1}.weight: in the checkpoint only\n")
	require.Contains(t, texts[0], "  missing     bert.encoder.layer.1.intermediate.dense.weight: initialised anew\n")
}

func TestPlanSaysWhatLoadDoes(t *testing.T) {
	dir := loaderCase(t, "fp16-auto")
	p, err := pretrained.Plan(ctx, dir, pretrained.Options{})
	require.NoError(t, err)
	m, r := load(t, dir, pretrained.Options{})
	require.Equal(t, m.NumParameters(), p.NumParameters)
	require.Equal(t, m.MemoryFootprint(), p.MemoryFootprint)
	require.Equal(t, r.BytesRead, p.BytesMapped)
	require.Equal(t, int64(2*16*8), p.BytesAllocated, "the two position buffers")
	require.Zero(t, p.BytesStaging)

	p, err = pretrained.Plan(ctx, dir, pretrained.Options{DType: torch.Float32})
	require.NoError(t, err)
	require.Equal(t, "option", p.DTypeSource)
	require.Zero(t, p.BytesMapped)
	require.Equal(t, p.MemoryFootprint, p.BytesAllocated)
	require.Positive(t, p.BytesStaging)
	require.Equal(t, pretrained.CastAction, p.Weights[0].Action)
	require.Equal(t, "F16", p.Weights[0].Parts[0].FileDType)
}

func TestNoDescriptorOrTensorLeaks(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("counts /proc/self/fd")
	}
	base := testdata.Open(t, "loader")
	entries, err := os.ReadDir(base)
	require.NoError(t, err)
	open := func() int {
		fds, err := os.ReadDir("/proc/self/fd")
		require.NoError(t, err)
		return len(fds)
	}
	fds, live := open(), torch.LiveTensors()
	for range 2 {
		for _, e := range entries {
			for _, opts := range []pretrained.Options{{}, {Strict: true}, {DType: torch.BFloat16}} {
				if m, _, err := pretrained.Load(ctx, filepath.Join(base, e.Name()), opts); err == nil {
					m.Close()
				}
			}
		}
	}
	require.Equal(t, fds, open())
	require.Equal(t, live, torch.LiveTensors())
}

func TestLoadOutlivesTheScopeItRanIn(t *testing.T) {
	live := torch.LiveTensors()
	var m pretrained.Model
	torch.Scope(func() {
		var err error
		m, _, err = pretrained.Load(ctx, loaderCase(t, "fp16-to-fp32"), pretrained.Options{DType: torch.Float32})
		require.NoError(t, err)
	})
	for name, x := range nn.StateDict(m) {
		require.False(t, x.Closed(), name)
	}
	m.Close()
	require.Equal(t, live, torch.LiveTensors())
}

func TestCancel(t *testing.T) {
	live := torch.LiveTensors()
	done, cancel := context.WithCancel(ctx)
	cancel()
	_, _, err := pretrained.Load(done, loaderCase(t, "single"), pretrained.Options{})
	require.ErrorIs(t, err, context.Canceled)

	for _, opts := range []pretrained.Options{{}, {DisableMmap: true}, {DType: torch.Float64}} {
		during, cancel := context.WithCancel(ctx)
		calls := 0
		opts.Threads = 1
		opts.Progress = func(done, total int64) {
			require.LessOrEqual(t, done, total)
			if calls++; calls == 3 {
				cancel()
			}
		}
		_, _, err = pretrained.Load(during, loaderCase(t, "single"), opts)
		require.ErrorIs(t, err, context.Canceled)
		require.Less(t, calls, 8)
	}
	require.Equal(t, live, torch.LiveTensors())
}

func TestFileChangedWhileLoading(t *testing.T) {
	for _, shrink := range []bool{true, false} {
		dir := filepath.Join(testdata.Copy(t, "loader"), "single")
		file := filepath.Join(dir, "model.safetensors")
		st, err := os.Stat(file)
		require.NoError(t, err)
		calls := 0
		_, _, err = pretrained.Load(ctx, dir, pretrained.Options{DisableMmap: true, Threads: 1, Progress: func(_, _ int64) {
			if calls++; calls > 1 {
				return
			}
			if shrink {
				require.NoError(t, os.Truncate(file, st.Size()/2))
			} else {
				f, err := os.OpenFile(file, os.O_WRONLY|os.O_APPEND, 0)
				require.NoError(t, err)
				_, err = f.Write([]byte{1})
				require.NoError(t, errors.Join(err, f.Close()))
			}
		}})
		require.Error(t, err)
		require.Equal(t, shrink, errors.Is(err, pretrained.ErrTruncated))
		require.ErrorContains(t, err, file)
	}
}

func TestOneFileAndArguments(t *testing.T) {
	m, _ := load(t, filepath.Join(loaderCase(t, "single"), "model.safetensors"), pretrained.Options{})
	require.Equal(t, "BertForMaskedLM", m.Class())
	m, _ = load(t, filepath.Join(loaderCase(t, "sharded"), "model.safetensors.index.json"), pretrained.Options{})
	require.Equal(t, "BertForMaskedLM", m.Class())

	dir := loaderCase(t, "single")
	for name, c := range map[string]struct {
		path string
		opts pretrained.Options
		text string
	}{
		"hub id":        {"org/name", pretrained.Options{LocalFilesOnly: true}, "org/name: not in the cache, and the network may not be used: no such file or folder, and as an id: revision main"},
		"nothing there": {filepath.Join(dir, "nope"), pretrained.Options{}, "no such file or directory"},
		"class":         {dir, pretrained.Options{Class: "T5Model"}, `class: expected an Auto class or one of BertForMaskedLM,`},
		"auto class":    {dir, pretrained.Options{Class: "AutoModelForCausalML"}, `got "AutoModelForCausalML"`},
		"config key":    {dir, pretrained.Options{Config: map[string]any{"foo_bar": 1}}, `config override "foo_bar": not a key`},
		"labels":        {dir, pretrained.Options{Config: map[string]any{"num_labels": "5"}}, `num_labels: expected 0 to 1048576, got "5"`},
		"config value":  {dir, pretrained.Options{Config: map[string]any{"hidden_size": "16"}}, `hidden_size: expected an integer, got "16"`},
		"heads":         {dir, pretrained.Options{Config: map[string]any{"num_attention_heads": 3}}, "hidden_size: expected a multiple of the 3 heads, got 16"},
		"problem":       {dir, pretrained.Options{Config: map[string]any{"problem_type": "guess"}}, `problem_type: expected "regression"`},
		"attention":     {dir, pretrained.Options{Attn: "flash_attention"}, `attn: expected one of bettertransformer, eager, flash_attention_2, flash_attention_3, flash_attention_4, flex_attention, sdpa, got "flash_attention"`},
		"regexp":        {dir, pretrained.Options{KeyMapping: []pretrained.KeyRule{{Pattern: "("}}}, "key mapping: expected a regular expression"},
		"variant":       {dir, pretrained.Options{Variant: "fp16"}, "there is a model.safetensors without the variant"},
		"variant path":  {dir, pretrained.Options{Variant: "../x"}, "variant: expected a part of a file name"},
		"subfolder":     {dir, pretrained.Options{Subfolder: "../single"}, "subfolder: expected a path below"},
		"bin":           {dir, pretrained.Options{UseSafetensors: torch.Some(false)}, "expected pytorch_model.bin or pytorch_model.bin.index.json"},
		"device map":    {dir, pretrained.Options{DeviceMap: pretrained.DeviceMap{"": "foo"}}, `bad argument: device map: expected a device name (cpu, cuda:0), disk, or one of auto, balanced, balanced_low_0, sequential, got "foo"`},
		"unmatched":     {dir, pretrained.Options{DeviceMap: pretrained.DeviceMap{"bert": "cpu"}}, "device map: no entry for the parameter cls.predictions.bias"},
		"both":          {dir, pretrained.Options{DeviceMap: pretrained.AutoDeviceMap, Device: torch.CPU}, "both a device map and a device"},
		"gpu":           {dir, pretrained.Options{Device: torch.CUDA(99)}, "device: cuda:99: expected one of the"},
		"meta":          {dir, pretrained.Options{Device: torch.Meta}, "bad argument: device: meta: got meta; weights have no place there"},
		"max memory":    {dir, pretrained.Options{MaxMemory: map[string]int64{"cpu": 10_000}}, "max memory of cpu: expected 10.0 kB, got 20.6 kB"},
		"qa labels":     {dir, pretrained.Options{Class: "BertForQuestionAnswering", Config: map[string]any{"num_labels": 3}}, "building BertForQuestionAnswering: num_labels: expected 2, got 3"},
		"threads":       {dir, pretrained.Options{Threads: -1}, "threads: expected 0 or more, got -1"},
	} {
		_, _, err := pretrained.Load(ctx, c.path, c.opts)
		require.ErrorContains(t, err, c.text, name)
		require.NotContains(t, err.Error(), "\n", name)
		_, err = pretrained.Plan(ctx, c.path, c.opts)
		require.ErrorContains(t, err, c.text, name)
	}
	_, _, err := pretrained.Load(ctx, filepath.Join(dir, "config.json"), pretrained.Options{})
	require.ErrorIs(t, err, pretrained.ErrUnsupported)
}

// edit changes config.json of a copy of a loader case.
func edit(t *testing.T, name, old, new string) string {
	dir := filepath.Join(testdata.Copy(t, "loader"), name)
	path := filepath.Join(dir, "config.json")
	data, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Contains(t, string(data), old)
	require.NoError(t, os.WriteFile(path, []byte(strings.Replace(string(data), old, new, 1)), 0o600))
	return dir
}

func TestOtherModelTypeAndCode(t *testing.T) {
	dir := edit(t, "single", `"model_type": "bert"`, `"model_type": "llama"`)
	_, r := load(t, dir, pretrained.Options{Class: "BertForMaskedLM", Strict: true})
	require.Equal(t, []string{`a checkpoint of model type "llama" is loaded as BertForMaskedLM`}, r.Warnings)

	dir = edit(t, "single", `"model_type": "bert"`, `"model_type": "bert", "auto_map": {"AutoModelForMaskedLM": "evil.Model"}`)
	_, r = load(t, dir, pretrained.Options{Class: "AutoModelForMaskedLM", Strict: true})
	require.Len(t, r.Warnings, 1)
	require.Contains(t, r.Warnings[0], "auto_map AutoModelForMaskedLM: evil.Model) is never run")

	dir = edit(t, "single", `"dtype": "float32"`, `"dtype": "flot32"`)
	_, _, err := pretrained.Load(ctx, dir, pretrained.Options{})
	require.ErrorContains(t, err, `dtype: expected a floating-point dtype, got "flot32"`)
	_, r = load(t, dir, pretrained.Options{DType: torch.Float16})
	require.Equal(t, "float16", r.DType)
}

func TestFileWithoutExtension(t *testing.T) {
	dir := filepath.Join(testdata.Copy(t, "loader"), "single")
	blob := filepath.Join(dir, "4d5e6f")
	require.NoError(t, os.Rename(filepath.Join(dir, "model.safetensors"), blob))
	load(t, blob, pretrained.Options{Strict: true})
}

func TestDeviceMapsOfOneDevice(t *testing.T) {
	dir := loaderCase(t, "single")
	for _, text := range []string{"cpu", `{"": "cpu"}`, `{"bert": "cpu", "cls": "cpu"}`, `{"bert": "cpu", "cls.predictions": "cpu"}`} {
		m, err := pretrained.ParseDeviceMap(text)
		require.NoError(t, err)
		model, r := load(t, dir, pretrained.Options{DeviceMap: m, MaxMemory: map[string]int64{"cpu": 30_000, "cuda:0": 1}})
		require.Equal(t, torch.CPU, model.Device())
		require.Equal(t, map[string]string{"": "cpu"}, r.DeviceMap)
	}
	_, err := pretrained.ParseDeviceMap(`{"bert": 1.5}`)
	require.ErrorContains(t, err, "device map: bert: expected a device, got 1.5")
	for text, want := range map[string]int64{"10GiB": 10 << 30, "40KB": 40_000, "1.5MB": 1_500_000, "7": 7, " 2 kib ": 2048} {
		n, err := pretrained.ParseMemory(text)
		require.NoError(t, err, text)
		require.Equal(t, want, n, text)
	}
	for _, text := range []string{"", "GB", "x", "-1GB", "9e99TB", "5XB"} {
		_, err := pretrained.ParseMemory(text)
		require.ErrorIs(t, err, pretrained.ErrArgument, text)
	}
}

func TestAutoClasses(t *testing.T) {
	dir := loaderCase(t, "single")
	for auto, class := range map[*pretrained.AutoClass]string{
		pretrained.AutoModel:                          "BertModel",
		pretrained.AutoModelForPreTraining:            "BertForPreTraining",
		pretrained.AutoModelForTextEncoding:           "BertModel",
		pretrained.AutoModelForCausalLM:               "BertLMHeadModel",
		pretrained.AutoModelForMaskedLM:               "BertForMaskedLM",
		pretrained.AutoModelForSequenceClassification: "BertForSequenceClassification",
		pretrained.AutoModelForTokenClassification:    "BertForTokenClassification",
		pretrained.AutoModelForQuestionAnswering:      "BertForQuestionAnswering",
		pretrained.AutoModelForNextSentencePrediction: "BertForNextSentencePrediction",
		pretrained.AutoModelForMultipleChoice:         "BertForMultipleChoice",
	} {
		m, err := auto.FromPretrained(ctx, dir, pretrained.Options{})
		require.NoError(t, err)
		require.Equal(t, class, m.Class())
		m.Close()
	}
}

// Two names of a checkpoint that mean one parameter are an error, since nobody knows which counts.
func TestTwoNamesOfOneParameter(t *testing.T) {
	registerFlat("two names", pretrained.Architecture{
		Renamings:  []pretrained.KeyRule{{Pattern: `^old\.`, Replacement: ""}},
		Converters: []pretrained.Converter{{Sources: []string{"experts.*.w"}, Targets: []string{"experts.w"}, Ops: []pretrained.Op{pretrained.Stack{}}}},
	})
	config := `{"model_type": "two names", "architectures": ["two names"], "params": [["LayerNorm.weight", [2]], ["experts.w", [2, 2]]]}`
	for _, c := range []struct{ names, tensors []string }{
		{[]string{"LayerNorm.gamma", "LayerNorm.weight"}, []string{"experts.0.w", "experts.1.w"}},
		{[]string{"old.LayerNorm.weight", "LayerNorm.weight"}, []string{"experts.0.w", "experts.1.w"}},
		{[]string{"experts.1.w", "old.experts.1.w"}, []string{"experts.0.w", "LayerNorm.weight"}},
	} {
		var sources []safetensors.Source
		for _, name := range slices.Concat(c.names, c.tensors) {
			sources = append(sources, safetensors.Source{Name: name, DType: safetensors.F32, Shape: []int{2}, Write: safetensors.Data(make([]byte, 8))})
		}
		_, _, err := pretrained.Load(ctx, writeCheckpoint(t, config, sources), pretrained.Options{})
		require.ErrorIs(t, err, pretrained.ErrConflict, c.names)
		for _, name := range c.names {
			require.ErrorContains(t, err, name)
		}
	}
}

// A model that no machine of this size can hold is refused before anything is allocated.
func TestLargerThanMemory(t *testing.T) {
	dir := writeCheckpoint(t, `{"model_type": "FlatPieces", "architectures": ["FlatPieces"], "params": [["a", [1]], ["b", [1099511627776, 64]]]}`,
		[]safetensors.Source{{Name: "a", DType: safetensors.F32, Shape: []int{1}, Write: safetensors.Data(make([]byte, 4))}})
	_, _, err := pretrained.Load(ctx, dir, pretrained.Options{})
	require.ErrorIs(t, err, pretrained.ErrLimit)
	require.ErrorContains(t, err, "memory of the model")
}
