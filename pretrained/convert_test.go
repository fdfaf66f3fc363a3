package pretrained_test

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/torchgo/torchgo/internal/testdata"
	"github.com/torchgo/torchgo/pretrained"
	"github.com/torchgo/torchgo/pretrained/checkpoint"
	"github.com/torchgo/torchgo/pretrained/safetensors"
	"github.com/torchgo/torchgo/torch"
)

// opsCase is one converter on small tensors, as transformers applies it and its reverse.
type opsCase struct {
	Name             string
	Sources, Targets []string
	From, To, Back   map[string]struct {
		Shape []int
		Data  []float32
	}
}

// opsOf are the operations of the cases; a number at the end of a case's name is that of experts.
var opsOf = map[string][]pretrained.Op{
	"stack":               {pretrained.Stack{}},
	"stack dim 1":         {pretrained.Stack{Dim: 1}},
	"unstack":             {pretrained.Unstack{}},
	"stack concatenate":   {pretrained.Stack{}, pretrained.Concatenate{Dim: 1}},
	"stack transpose":     {pretrained.Stack{}, pretrained.Transpose{Dim0: 1, Dim1: 2}},
	"concatenate":         {pretrained.Concatenate{}},
	"concatenate dim 1":   {pretrained.Concatenate{Dim: 1}},
	"concatenate unequal": {pretrained.Concatenate{}},
	"concatenate parts":   {pretrained.Concatenate{Count: "parts"}},
	"chunk":               {pretrained.Chunk{}},
	"chunk dim 1":         {pretrained.Chunk{Dim: 1}},
	"split":               {pretrained.Split{}},
	"transpose":           {pretrained.Transpose{Dim0: 0, Dim1: 1}},
	"transpose 1 2":       {pretrained.Transpose{Dim0: 1, Dim1: 2}},
	"interleave":          {pretrained.Interleave{}},
	"interleave dim 1":    {pretrained.Interleave{Dim: 1}},
	"interleave inverse":  {pretrained.Interleave{Inverse: true}},
	"interleave chunk":    {pretrained.Interleave{Dim: 1}, pretrained.Chunk{Dim: 1}},
	"rope":                {pretrained.PermuteForRope{}},
	"rope bias":           {pretrained.PermuteForRope{}},
	"rope inverse":        {pretrained.PermuteForRope{Inverse: true}},
	"chunk rope":          {pretrained.Chunk{}, pretrained.PermuteForRope{Only: []string{"q_proj", "k_proj"}}},
}

func floats(data []float32) []byte {
	var out []byte
	for _, x := range data {
		out = binary.LittleEndian.AppendUint32(out, math.Float32bits(x))
	}
	return out
}

// Each operation is loaded and saved through the pipeline: the tensors that transformers makes are the model's,
// and those that it makes of them again are the file's; and so with the converter turned around.
func TestConverterOperations(t *testing.T) {
	data, err := os.ReadFile(filepath.Join(testdata.Open(t, "convert"), "ops.json"))
	require.NoError(t, err)
	var cases []opsCase
	require.NoError(t, json.Unmarshal(data, &cases))
	require.Len(t, cases, 27)
	for _, c := range cases {
		t.Run(c.Name, func(t *testing.T) {
			ops := opsOf[c.Name]
			for _, n := range []string{" 12", " 2"} {
				if ops == nil || strings.HasPrefix(c.Name, "stack") {
					if known := opsOf[strings.Replace(c.Name, n, "", 1)]; known != nil {
						ops = known
					}
				}
			}
			require.NotNil(t, ops)
			forward := pretrained.Converter{Sources: c.Sources, Targets: c.Targets, Ops: ops}
			checkConverter(t, c.Name, forward, c.From, c.To, c.Back)
			if c.Back != nil {
				back, saved := forward.Reverse(), c.To
				if c.Name == "split" { // the sizes are lost on the way back, in transformers, too
					saved = nil
				} else {
					require.Equal(t, forward, back.Reverse())
				}
				checkConverter(t, c.Name+" back", back, c.To, c.Back, saved)
			}
		})
	}
}

func checkConverter(t *testing.T, name string, c pretrained.Converter, file, want, saved map[string]struct {
	Shape []int
	Data  []float32
}) {
	registerFlat("ops "+name, pretrained.Architecture{Converters: []pretrained.Converter{c}})
	var sources []safetensors.Source
	for _, key := range slices.Sorted(maps.Keys(file)) {
		x := file[key]
		sources = append(sources, safetensors.Source{Name: key, DType: safetensors.F32, Shape: x.Shape, Write: safetensors.Data(floats(x.Data))})
	}
	dir := writeCheckpoint(t, "{}", sources)
	var params []any
	for _, key := range slices.Sorted(maps.Keys(want)) {
		params = append(params, param(key, want[key].Shape))
	}
	opts := pretrained.Options{Class: "ops " + name, Config: map[string]any{"params": params}, Strict: true}
	for _, dtype := range []torch.DType{torch.Float32, torch.Float64} {
		for _, disable := range []bool{false, true} {
			opts.DType, opts.DisableMmap = dtype, disable
			m, r := load(t, dir, opts)
			require.Equal(t, []string{`a checkpoint of model type "" is loaded as ops ` + name}, r.Warnings)
			for key, x := range state(m) {
				torch.Scope(func() { require.Equal(t, want[key].Data, torch.ToSlice[float32](x.ToDType(torch.Float32)), key) })
			}
			if dtype != torch.Float32 || saved == nil {
				continue
			}
			to := t.TempDir()
			require.NoError(t, pretrained.SavePretrained(ctx, m, to, pretrained.SaveOptions{}))
			got, err := pretrained.LoadFile(ctx, filepath.Join(to, "model.safetensors"))
			require.NoError(t, err)
			require.ElementsMatch(t, slices.Collect(maps.Keys(saved)), slices.Collect(maps.Keys(got)))
			for key, x := range got {
				require.Equal(t, saved[key].Shape, x.Shape(), key)
				require.Equal(t, saved[key].Data, torch.ToSlice[float32](x), key)
				x.Close()
			}
		}
	}
}

// moeReport is what transformers makes of a mixture-of-experts checkpoint.
type moeReport struct {
	Class          string
	State, Float16 map[string]moeTensor
	Saved          [][2]string
	SavedFused     []string `json:"saved_fused"`
	Missing        []string `json:"missing_keys"`
	Variants       map[string]struct {
		Default, Ignore struct {
			Error      string
			Missing    []string          `json:"missing_keys"`
			Unexpected []string          `json:"unexpected_keys"`
			Mismatched []json.RawMessage `json:"mismatched_keys"`
		}
	}
}

type moeTensor struct {
	DType  string
	Shape  []int
	Digest string
}

func (m *moeTensor) UnmarshalJSON(data []byte) error {
	return json.Unmarshal(data, &[]any{&m.DType, &m.Shape, &m.Digest})
}

func digest(x *torch.Tensor) string {
	var sum [32]byte
	torch.Scope(func() { sum = sha256.Sum256(x.Contiguous().Bytes()) })
	return hex.EncodeToString(sum[:8])
}

// The rules of transformers' mixtral and qwen2_moe, which also holds for Qwen 3 and DeepSeek.
var (
	mixtralRules = pretrained.Architecture{
		Prefix:    "model",
		Renamings: []pretrained.KeyRule{{Pattern: `\.block_sparse_moe\.`, Replacement: ".mlp."}},
		Converters: []pretrained.Converter{
			{Sources: []string{".experts.*.w1.weight", ".experts.*.w3.weight"}, Targets: []string{".experts.gate_up_proj"},
				Ops: []pretrained.Op{pretrained.Stack{}, pretrained.Concatenate{Dim: 1}}},
			{Sources: []string{".experts.*.w2.weight"}, Targets: []string{".experts.down_proj"}, Ops: []pretrained.Op{pretrained.Stack{}}},
		},
	}
	qwenRules = pretrained.Architecture{
		Prefix:           "model",
		KeepInFP32Strict: []string{`e_score_correction_bias`},
		Converters: []pretrained.Converter{
			{Sources: []string{"mlp.experts.*.gate_proj.weight", "mlp.experts.*.up_proj.weight"}, Targets: []string{"mlp.experts.gate_up_proj"},
				Ops: []pretrained.Op{pretrained.Stack{}, pretrained.Concatenate{Dim: 1}}},
			{Sources: []string{"mlp.experts.*.down_proj.weight"}, Targets: []string{"mlp.experts.down_proj"}, Ops: []pretrained.Op{pretrained.Stack{}}},
		},
	}
)

func init() {
	registerFlat("FlatMixtral", mixtralRules)
	registerFlat("FlatQwenMoE", qwenRules)
}

// moe reads a checkpoint and gives the options that load it as a flat model.
func moe(t *testing.T, name string) (dir string, report moeReport, opts pretrained.Options) {
	dir = filepath.Join(testdata.Open(t, "convert"), name)
	data, err := os.ReadFile(filepath.Join(dir, "report.json"))
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal(data, &report))
	opts.Class = "FlatMixtral"
	if !strings.HasPrefix(report.Class, "Mixtral") {
		opts.Class = "FlatQwenMoE"
	}
	var params []any
	for _, key := range slices.Sorted(maps.Keys(report.State)) {
		params = append(params, param(key, report.State[key].Shape))
	}
	opts.Config = map[string]any{"params": params, "tie_word_embeddings": false}
	return dir, report, opts
}

func TestExpertsAreStackedAndSavedApart(t *testing.T) {
	for _, name := range []string{"mixtral", "qwen3-moe", "deepseek-v3", "twelve"} {
		t.Run(name, func(t *testing.T) {
			dir, report, opts := moe(t, name)
			require.Empty(t, report.Missing)
			for _, c := range []struct {
				dtype torch.DType
				want  map[string]moeTensor
			}{{torch.Float32, report.State}, {torch.Float16, report.Float16}} {
				for _, disable := range []bool{false, true} {
					opts.DType, opts.DisableMmap, opts.Strict = c.dtype, disable, true
					m, _ := load(t, dir, opts)
					got := state(m)
					require.Len(t, got, len(c.want))
					for key, want := range c.want {
						require.Equal(t, want.DType, got[key].DType().String(), key) // DeepSeek keeps some in float32
						require.Equal(t, want.Digest, digest(got[key]), key)
					}
				}
			}
			opts.DType = torch.Float32
			m, _ := load(t, dir, opts)
			to := t.TempDir()
			require.NoError(t, pretrained.SavePretrained(ctx, m, to, pretrained.SaveOptions{}))
			checkSaved(t, to, report.Saved)

			// Saved with the model's own names it loads again, and then these are the file's.
			require.NoError(t, pretrained.SavePretrained(ctx, m, to, pretrained.SaveOptions{SaveOriginalFormat: torch.Some(false)}))
			fused, _ := load(t, to, opts)
			equalModels(t, m, fused)
			again := t.TempDir()
			require.NoError(t, pretrained.SavePretrained(ctx, fused, again, pretrained.SaveOptions{}))
			c, err := checkpoint.Open(again)
			require.NoError(t, err)
			defer c.Close()
			var names []string
			for _, info := range c.All() {
				names = append(names, info.Name)
			}
			require.ElementsMatch(t, report.SavedFused, names)
		})
	}
}

// checkSaved compares names and digests of a model.safetensors.
func checkSaved(t *testing.T, dir string, want [][2]string) {
	t.Helper()
	got, err := pretrained.LoadFile(ctx, filepath.Join(dir, "model.safetensors"))
	require.NoError(t, err)
	require.Len(t, got, len(want))
	for _, w := range want {
		require.Contains(t, got, w[0])
		require.Equal(t, w[1], digest(got[w[0]]), w[0])
	}
	for _, x := range got {
		x.Close()
	}
}

// A model that was not loaded is saved in its type's form, too.
func TestNewModelIsSavedInTheFilesForm(t *testing.T) {
	_, report, opts := moe(t, "twelve")
	config, err := pretrained.NewConfig(opts.Class, opts.Config)
	require.NoError(t, err)
	m, err := pretrained.FromConfig(config, pretrained.Options{Class: opts.Class})
	require.NoError(t, err)
	defer m.Close()
	to := t.TempDir()
	require.NoError(t, pretrained.SavePretrained(ctx, m, to, pretrained.SaveOptions{}))
	got, err := pretrained.LoadFile(ctx, filepath.Join(to, "model.safetensors"))
	require.NoError(t, err)
	for _, w := range report.Saved {
		require.Contains(t, got, w[0])
	}
	require.Len(t, got, len(report.Saved))
	gateUp := state(m)["model.layers.0.mlp.experts.gate_up_proj"] // (12, 8, 8)
	torch.Scope(func() {
		require.True(t, gateUp.Select(0, 11).Narrow(0, 4, 4).Equal(got["model.layers.0.block_sparse_moe.experts.11.w3.weight"]))
	})
	for _, x := range got {
		x.Close()
	}
}

func TestExpertsThatAreMissingOrDiffer(t *testing.T) {
	dir, report, opts := moe(t, "mixtral")
	const at = "model.layers.0.block_sparse_moe.experts."
	file, err := pretrained.LoadFile(ctx, filepath.Join(dir, "model.safetensors"))
	require.NoError(t, err)
	config, err := os.ReadFile(filepath.Join(dir, "config.json"))
	require.NoError(t, err)
	zeros := func(shape ...int) *torch.Tensor { return torch.Zeros(shape) }
	for name, c := range map[string]struct {
		edit   func(map[string]*torch.Tensor)
		err    error
		text   string
		always bool // an error even when mismatches are ignored
	}{
		"no w1": {func(f map[string]*torch.Tensor) { delete(f, at+"2.w1.weight") }, pretrained.ErrMissingTensor,
			`tensor "model.layers.0.mlp.experts.gate_up_proj": it is made of several, and absent are ` + at + "2.w1.weight", true},
		"no w2": {func(f map[string]*torch.Tensor) { delete(f, at+"2.w2.weight") }, pretrained.ErrSizeMismatch,
			`tensor "model.layers.0.mlp.experts.down_proj": absent are ` + at + "2.w2.weight: expected (4, 32, 48), got (3, 32, 48)", false},
		"no w1 and w3": {func(f map[string]*torch.Tensor) { delete(f, at+"2.w1.weight"); delete(f, at+"2.w3.weight") }, pretrained.ErrSizeMismatch,
			"absent are " + at + "2.w1.weight, " + at + "2.w3.weight", false},
		"no w3 at all": {func(f map[string]*torch.Tensor) {
			for i := range 4 {
				delete(f, fmt.Sprintf("%s%d.w3.weight", at, i))
			}
		}, pretrained.ErrMissingTensor, at + "0.w3.weight, " + at + "1.w3.weight", true},
		"one shape": {func(f map[string]*torch.Tensor) { f[at+"2.w2.weight"] = zeros(32, 40) }, pretrained.ErrSizeMismatch,
			`tensor "` + at + `2.w2.weight": one of those that make model.layers.0.mlp.experts.down_proj: expected (32, 48), got (32, 40)`, true},
		"all shapes": {func(f map[string]*torch.Tensor) {
			for i := range 4 {
				f[fmt.Sprintf("%s%d.w2.weight", at, i)] = zeros(32, 40)
			}
		}, pretrained.ErrSizeMismatch, "expected (4, 32, 48), got (4, 32, 40)", false},
		"one more": {func(f map[string]*torch.Tensor) { f[at+"4.w2.weight"] = zeros(32, 48) }, pretrained.ErrSizeMismatch, "expected (4, 32, 48), got (5, 32, 48)", false},
		"other index": {func(f map[string]*torch.Tensor) {
			f[at+"9.w2.weight"] = f[at+"2.w2.weight"]
			delete(f, at+"2.w2.weight")
		}, nil, "", false},
		"another layer": {func(f map[string]*torch.Tensor) {
			f["model.layers.7.block_sparse_moe.experts.0.w1.weight"] = zeros(48, 32)
		}, nil, "", false},
	} {
		want := report.Variants[name]
		require.NotNil(t, want, name)
		dir := t.TempDir()
		torch.Scope(func() {
			edited := maps.Clone(file)
			c.edit(edited)
			require.NoError(t, pretrained.SaveFile(ctx, filepath.Join(dir, "model.safetensors"), edited, nil))
		})
		require.NoError(t, os.WriteFile(filepath.Join(dir, "config.json"), config, 0o600))
		for _, ignore := range []bool{false, true} {
			opts.IgnoreMismatchedSizes = ignore
			m, r, err := pretrained.Load(ctx, dir, opts)
			recorded := want.Default
			if ignore {
				recorded = want.Ignore
			}
			if c.err != nil && (!ignore || c.always) {
				require.NotEmpty(t, recorded.Error, name)
				require.ErrorIs(t, err, c.err, name)
				require.ErrorContains(t, err, c.text, name)
				continue
			}
			require.NoError(t, err, name)
			require.Empty(t, recorded.Error, name)
			require.Equal(t, nonNil(recorded.Missing), nonNil(r.MissingKeys), name)
			require.Equal(t, nonNil(recorded.Unexpected), nonNil(r.UnexpectedKeys), name)
			mismatched, err := json.Marshal(nonNil(r.MismatchedKeys))
			require.NoError(t, err)
			recordedRows, err := json.Marshal(nonNil(recorded.Mismatched))
			require.NoError(t, err)
			require.JSONEq(t, string(recordedRows), string(mismatched), name)
			switch name {
			case "no w2":
				require.Contains(t, r.Warnings, "model.layers.0.mlp.experts.down_proj is made of tensors that are absent: "+at+"2.w2.weight")
			case "other index":
				require.Contains(t, r.Warnings, "model.layers.0.mlp.experts.down_proj has other tensors in the place of "+at+"2.w2.weight")
				// In the order of the numbers, as transformers stacks them.
				torch.Scope(func() {
					require.True(t, file[at+"3.w2.weight"].Equal(state(m)["model.layers.0.mlp.experts.down_proj"].Select(0, 2)))
				})
			}
			m.Close()
		}
	}
	for _, x := range file {
		x.Close()
	}
}

func nonNil[T any](s []T) []T {
	if s == nil {
		return []T{}
	}
	return s
}

// Parts go straight to their place, whatever the number of readers.
func TestPlanOfExperts(t *testing.T) {
	dir, _, opts := moe(t, "twelve")
	p, err := pretrained.Plan(ctx, dir, opts)
	require.NoError(t, err)
	i := slices.IndexFunc(p.Weights, func(w pretrained.PlannedWeight) bool { return w.Key == "model.layers.0.mlp.experts.gate_up_proj" })
	w := p.Weights[i]
	require.Equal(t, pretrained.ReadAction, w.Action)
	require.Len(t, w.Parts, 24)
	require.Equal(t, w.Bytes, w.FileBytes())
	require.Zero(t, p.BytesStaging)
	require.Contains(t, p.String(), "F32 in model.safetensors as model.layers.0.block_sparse_moe.experts.0.w1.weight and 23 more\n")
	var want pretrained.Model
	for _, threads := range []int{1, 2, 8} {
		opts.Threads = threads
		m, _ := load(t, dir, opts)
		if want == nil {
			want = m
		}
		equalModels(t, want, m)
	}
}

// Indices are text from a file: whatever they are, the load ends with an error or a warning.
func TestOddIndices(t *testing.T) {
	dir, _, opts := moe(t, "twelve")
	const at = "model.layers.0.block_sparse_moe.experts."
	file, err := pretrained.LoadFile(ctx, filepath.Join(dir, "model.safetensors"))
	require.NoError(t, err)
	config, err := os.ReadFile(filepath.Join(dir, "config.json"))
	require.NoError(t, err)
	for index, c := range map[string]struct {
		err  error
		text string
	}{
		"99999999999999999999999999": {nil, "has other tensors in the place of " + at + "3.w2.weight"},
		"03":                         {nil, ""},
		"0003":                       {nil, ""},
		"02":                         {nil, "in the place of " + at + "3.w2.weight"}, // beside 2
		"-3":                         {pretrained.ErrSizeMismatch, "absent are " + at + "3.w2.weight"},
		"3.0":                        {pretrained.ErrSizeMismatch, "absent are " + at + "3.w2.weight"},
		"":                           {pretrained.ErrSizeMismatch, "absent are " + at + "3.w2.weight"},
	} {
		edited := maps.Clone(file)
		delete(edited, at+"3.w2.weight")
		edited[at+index+".w2.weight"] = file[at+"3.w2.weight"]
		dir := t.TempDir()
		require.NoError(t, pretrained.SaveFile(ctx, filepath.Join(dir, "model.safetensors"), edited, nil))
		require.NoError(t, os.WriteFile(filepath.Join(dir, "config.json"), config, 0o600))
		m, r, err := pretrained.Load(ctx, dir, opts)
		if c.err != nil {
			require.ErrorIs(t, err, c.err, index)
			require.ErrorContains(t, err, c.text, index)
			continue
		}
		require.NoError(t, err, index)
		require.Contains(t, strings.Join(r.Warnings, " "), c.text)
		m.Close()
	}
	for _, x := range file {
		x.Close()
	}
}

// Stacked experts can't be read in place from the checkpoint: they are written to the offload folder, and saved in
// the file's form from there.
func TestExpertsOffloadedToDisk(t *testing.T) {
	dir, report, opts := moe(t, "twelve")
	opts.DeviceMap = pretrained.DeviceMap{"model": "disk", "lm_head": "cpu"}
	_, _, err := pretrained.Load(ctx, dir, opts)
	require.ErrorIs(t, err, pretrained.ErrArgument)
	require.ErrorContains(t, err, "OffloadFolder")
	opts.OffloadFolder = t.TempDir()
	m, _ := load(t, dir, opts)
	to := t.TempDir()
	require.NoError(t, pretrained.SavePretrained(ctx, m, to, pretrained.SaveOptions{}))
	checkSaved(t, to, report.Saved)
}
