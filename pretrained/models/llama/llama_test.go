package llama_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"maps"
	"math"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/torchgo/torchgo/internal/testdata"
	"github.com/torchgo/torchgo/pretrained"
	"github.com/torchgo/torchgo/pretrained/internal/modeltest"
	"github.com/torchgo/torchgo/pretrained/models/llama"
	"github.com/torchgo/torchgo/torch"
	"github.com/torchgo/torchgo/torch/nn"
)

func TestReferenceCases(t *testing.T) {
	modeltest.RunAll(t, modeltest.Cases(t, "models-llama", 6))
}

// Options, heads, kinds of inputs, half precision.
func TestCases(t *testing.T) {
	modeltest.RunAll(t, modeltest.Cases(t, "llama", 36))
}

// Configs of all ages are saved again as transformers saves them.
func TestConfigsAreSavedAsTransformersDoes(t *testing.T) {
	dir := filepath.Join(testdata.Copy(t, "llama"), "configs")
	weights, err := os.ReadFile(filepath.Join(dir, "model.safetensors"))
	require.NoError(t, err)
	found, err := filepath.Glob(filepath.Join(dir, "*", "saved.json"))
	require.NoError(t, err)
	require.Len(t, found, 12)
	for _, path := range found {
		want, err := os.ReadFile(path)
		require.NoError(t, err)
		from := filepath.Dir(path)
		require.NoError(t, os.WriteFile(filepath.Join(from, "model.safetensors"), weights, 0o600))
		m, _, err := pretrained.Load(context.Background(), from, pretrained.Options{Strict: true})
		require.NoError(t, err, from)
		to := t.TempDir()
		require.NoError(t, pretrained.SavePretrained(context.Background(), m, to, pretrained.SaveOptions{}))
		m.Close()
		got, err := os.ReadFile(filepath.Join(to, "config.json"))
		require.NoError(t, err)
		require.True(t, bytes.Equal(want, got), "%s:\n%s\nwant\n%s", from, got, want)
	}
}

// A config made in Go is saved as one made in Python.
func TestBuiltConfigIsSavedAsTransformersDoes(t *testing.T) {
	want, err := os.ReadFile(filepath.Join(testdata.Open(t, "llama"), "configs", "built.json"))
	require.NoError(t, err)
	c, pad, kv := llama.NewConfig(), 0, 4
	c.VocabSize, c.HiddenSize, c.IntermediateSize, c.NumHiddenLayers, c.NumAttentionHeads, c.MaxPositionEmbeddings = 40, 16, 24, 1, 4, 32
	c.PadTokenID, c.NumKeyValueHeads = &pad, &kv
	m, err := pretrained.FromConfig(c, pretrained.Options{Class: "LlamaForCausalLM"})
	require.NoError(t, err)
	defer m.Close()
	to := t.TempDir()
	require.NoError(t, pretrained.SavePretrained(context.Background(), m, to, pretrained.SaveOptions{}))
	got, err := os.ReadFile(filepath.Join(to, "config.json"))
	require.NoError(t, err)
	require.Equal(t, string(want), string(got))
	require.Nil(t, c.HeadDim, "the caller's config is not changed")
}

// Under autocast each step has the dtype that Python's has.
func TestAutocast(t *testing.T) {
	ref := modeltest.Read(t, filepath.Join(testdata.Open(t, "llama"), "biases"))
	want, err := pretrained.LoadFile(context.Background(), filepath.Join(ref.Dir, "autocast.safetensors"))
	require.NoError(t, err)
	for _, attn := range []nn.AttentionKind{nn.Eager, nn.SDPA} {
		m, _, err := pretrained.Load(context.Background(), ref.Dir, pretrained.Options{Attn: attn})
		require.NoError(t, err)
		in := ref.Tensors(t, true)
		in.OutputHiddenStates = true
		var out *pretrained.Output
		torch.Autocast(torch.DeviceCPU, torch.AutocastOptions{DType: torch.BFloat16}, func() { out = m.Forward(in) })
		out.Loss.Backward()
		got := maps.Collect(out.Named())
		got["loss"] = out.Loss.View(1)
		for name, p := range nn.NamedParameters(m) {
			if name == "model.embed_tokens.weight" {
				got["grad"] = p.Grad()
			}
		}
		require.Len(t, got, 6)
		for name, x := range got {
			w := want[string(attn)+"."+name]
			require.Equal(t, w.DType(), x.DType(), name)
			require.True(t, x.ToDType(torch.Float32).Allclose(w.ToDType(torch.Float32), torch.AllcloseOptions{Rtol: torch.Some(0.02), Atol: torch.Some(0.02)}), "%s %s", attn, name)
		}
		m.Close()
	}
}

func load(t *testing.T, opts pretrained.Options) pretrained.Model {
	m, _, err := pretrained.Load(context.Background(), filepath.Join(testdata.Open(t, "models-llama"), "llama"), opts)
	require.NoError(t, err)
	t.Cleanup(m.Close)
	return m
}

var ids = []int64{5, 6, 7, 8, 9, 10}

// Attentions are there when the call or the config asks for them, in eager attention: a config that does chooses
// it, and doesn't go together with sdpa.
func TestOutputRecording(t *testing.T) {
	x := torch.FromSlice(ids, 1, 6)
	asks := map[string]any{"output_attentions": true, "output_hidden_states": true}
	m := load(t, pretrained.Options{Config: asks})
	out := m.Forward(pretrained.Inputs{InputIDs: x})
	require.Equal(t, nn.Eager, m.Config().Base().Attn)
	require.Len(t, out.Attentions, 2)
	require.Len(t, out.HiddenStates, 3)
	require.Equal(t, []int{1, 4, 6, 6}, out.Attentions[1].Shape())

	dir := filepath.Join(testdata.Open(t, "models-llama"), "llama")
	_, _, err := pretrained.Load(context.Background(), dir, pretrained.Options{Config: asks, Attn: nn.SDPA})
	require.ErrorIs(t, err, pretrained.ErrArgument)
	require.ErrorContains(t, err, "output_attentions")

	out = load(t, pretrained.Options{}).Forward(pretrained.Inputs{InputIDs: x, OutputAttentions: true})
	require.Empty(t, out.Attentions, "sdpa has none")
	require.Empty(t, out.HiddenStates)
}

// config.json may name the implementation; the caller's word counts more. It isn't saved.
func TestAttentionOfTheConfig(t *testing.T) {
	dir := filepath.Join(testdata.Copy(t, "models-llama"), "llama")
	path := filepath.Join(dir, "config.json")
	original, err := os.ReadFile(path)
	require.NoError(t, err)
	for text, want := range map[string]nn.AttentionKind{
		`{"attn_implementation": "eager",`:             nn.Eager,
		`{"_attn_implementation": "eager",`:            nn.Eager,
		`{"_attn_implementation_internal": "eager",`:   nn.SDPA,
		`{"attn_implementation": {"": "eager"},`:       nn.Eager,
		`{"attn_implementation": null,`:                nn.SDPA,
		`{"attn_implementation": "flash_attention_2",`: nn.SDPA,
	} {
		require.NoError(t, os.WriteFile(path, append([]byte(text), original[1:]...), 0o600))
		m, _, err := pretrained.Load(context.Background(), dir, pretrained.Options{})
		require.NoError(t, err)
		require.Equal(t, want, m.Config().Base().Attn, text)
		to := t.TempDir()
		require.NoError(t, pretrained.SavePretrained(context.Background(), m, to, pretrained.SaveOptions{}))
		saved, err := os.ReadFile(filepath.Join(to, "config.json"))
		require.NoError(t, err)
		require.Equal(t, string(original), string(saved))
		m.Close()
		m, _, err = pretrained.Load(context.Background(), dir, pretrained.Options{Attn: nn.SDPA})
		require.NoError(t, err)
		require.Equal(t, nn.SDPA, m.Config().Base().Attn, text)
		m.Close()
	}
	require.NoError(t, os.WriteFile(path, append([]byte(`{"attn_implementation": "bogus",`), original[1:]...), 0o600))
	_, err = pretrained.Plan(context.Background(), dir, pretrained.Options{})
	require.ErrorIs(t, err, pretrained.ErrBadConfig)
	require.ErrorContains(t, err, `config.json: bad config: attn_implementation: expected one of`)
	require.ErrorContains(t, err, `got "bogus"`)
}

func TestBadInputsAreTypedErrors(t *testing.T) {
	m := load(t, pretrained.Options{})
	x := torch.FromSlice(ids, 2, 3)
	for text, in := range map[string]pretrained.Inputs{
		"exactly one of input_ids and inputs_embeds":               {},
		"expected 2 dimensions, got shape [6]":                     {InputIDs: x.View(-1)},
		"expected an attention_mask of shape [2 3], got [2 4]":     {InputIDs: x, AttentionMask: torch.Ones([]int{2, 4})},
		"expected position_ids of shape [2 3] or [1 3], got [2 2]": {InputIDs: x, PositionIDs: torch.Zeros([]int{2, 2}, torch.TensorOptions{DType: torch.Int64})},
		"index out of range":                                       {InputIDs: torch.FromSlice([]int64{96}, 1, 1)},
	} {
		err := torch.TryDo(func() { m.Forward(in) })
		var te *torch.Error
		require.ErrorAs(t, err, &te, text)
		require.ErrorContains(t, err, text)
	}
	seq := load(t, pretrained.Options{Class: "LlamaForSequenceClassification", Config: map[string]any{"pad_token_id": nil}})
	err := torch.TryDo(func() { seq.Forward(pretrained.Inputs{InputIDs: x}) })
	require.ErrorContains(t, err, "a batch of 2 sequences needs a pad_token_id")
}

// What the model doesn't do is an error that names the option.
func TestBadConfigs(t *testing.T) {
	dir := filepath.Join(testdata.Copy(t, "models-llama"), "llama")
	path := filepath.Join(dir, "config.json")
	original, err := os.ReadFile(path)
	require.NoError(t, err)
	edit := func(keys map[string]any) {
		var c map[string]any
		require.NoError(t, json.Unmarshal(original, &c))
		maps.Copy(c, keys)
		data, err := json.Marshal(c)
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(path, data, 0o600))
	}
	for text, c := range map[string]map[string]any{
		"rope_parameters.partial_rotary_factor": {"rope_parameters": map[string]any{"rope_type": "linear", "factor": 2.0, "partial_rotary_factor": 0.5}},
		"num_attention_heads":                   {"num_key_value_heads": 3},
		"num_key_value_heads":                   {"num_key_value_heads": 8},
		"hidden_size":                           {"num_attention_heads": 3, "num_key_value_heads": 3},
		"head_dim":                              {"head_dim": 0},
		"rotary positions":                      {"head_dim": 5},
		"hidden_act":                            {"hidden_act": "swoosh"},
		"attention_dropout":                     {"attention_dropout": 1.5},
		"initializer_range":                     {"initializer_range": 2.0},
		"pad_token_id":                          {"pad_token_id": 96},
		"rope_parameters of rope_type \"linear\" lack factor": {"rope_parameters": map[string]any{"rope_type": "linear"}},
		"rope_parameters by layer type": {"layer_types": []any{"full_attention", "full_attention"},
			"rope_parameters": map[string]any{"full_attention": map[string]any{"rope_type": "default"}}},
		"per_layer_config":                    {"per_layer_config": map[string]any{"1": map[string]any{"intermediate_size": 16}}},
		"rope_parameters: expected an object": {"rope_parameters": []any{}},
	} {
		edit(c)
		_, err := pretrained.Plan(context.Background(), dir, pretrained.Options{})
		require.Error(t, err, text)
		require.True(t, errors.Is(err, pretrained.ErrBadConfig) || errors.Is(err, pretrained.ErrUnsupported), text)
		require.ErrorContains(t, err, text)
		require.NotContains(t, err.Error(), "\n")
	}
	edit(map[string]any{"rope_parameters": map[string]any{"rope_type": "linear", "factor": 2.0, "mrope_section": []any{}}})
	plan, err := pretrained.Plan(context.Background(), dir, pretrained.Options{})
	require.NoError(t, err)
	require.Equal(t, []string{`rope_parameters.mrope_section means nothing to rope_type "linear"`}, plan.Warnings)
}

// The question answering head holds the base model under another name, as Python's does: its weights are found from
// a bare base model and back, not from another head.
func TestQuestionAnsweringsPrefix(t *testing.T) {
	dir := testdata.Open(t, "llama")
	keys := func(from, class string) (missing, unexpected []string) {
		m, r, err := pretrained.Load(context.Background(), filepath.Join(dir, from), pretrained.Options{Class: class})
		require.NoError(t, err)
		m.Close()
		return r.MissingKeys, r.UnexpectedKeys
	}
	missing, unexpected := keys("base", "LlamaForQuestionAnswering")
	require.Equal(t, []string{"qa_outputs.bias", "qa_outputs.weight"}, missing)
	require.Empty(t, unexpected)
	missing, unexpected = keys("right", "LlamaForQuestionAnswering")
	require.Len(t, missing, 22)
	require.Len(t, unexpected, 21)
}

// A model built in Go has transformers' first values, and computes.
func TestBuiltInGo(t *testing.T) {
	c := llama.NewConfig()
	c.VocabSize, c.HiddenSize, c.IntermediateSize, c.NumHiddenLayers, c.NumAttentionHeads = 11, 16, 8, 2, 2
	c.RopeParameters = map[string]any{"rope_type": "llama3", "factor": 2.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
	require.NoError(t, c.Validate())
	m := llama.NewModel(nn.Builder{}, c)
	require.Equal(t, []float32{1, 1, 1, 1}, torch.ToSlice[float32](m.Norm.Weight)[:4])
	require.InDelta(t, 1, torch.ToSlice[float32](m.RotaryEmb.InvFreq)[0], 0)
	x := m.Layers[0].InputLayernorm.Forward(torch.Randn([]int{1, 3, 16}))
	cos, sin := m.RotaryEmb.Forward(x, nil)
	y, _ := m.Layers[0].Forward(x, nil, cos, sin)
	require.Equal(t, x.Shape(), y.Shape())
}

func TestDropoutWorksInTrainingOnly(t *testing.T) {
	for _, attn := range []nn.AttentionKind{nn.SDPA, nn.Eager} {
		m := load(t, pretrained.Options{Attn: attn, Config: map[string]any{"attention_dropout": 0.5}})
		logits := func() []float32 {
			return torch.ToSlice[float32](m.Forward(pretrained.Inputs{InputIDs: torch.FromSlice(ids, 1, 6)}).Logits)
		}
		first := logits()
		require.Equal(t, first, logits())
		nn.Train(m)
		torch.ManualSeed(1)
		require.NotEqual(t, first, logits())
		nn.Eval(m)
		require.Equal(t, first, logits())
	}
}

// Goroutines share a model, also one whose positions adapt to the length.
func TestConcurrentInference(t *testing.T) {
	m, _, err := pretrained.Load(context.Background(), filepath.Join(testdata.Open(t, "models-llama"), "llama-rope-dynamic"), pretrained.Options{})
	require.NoError(t, err)
	defer m.Close()
	forward := func(n int) (values []float32) {
		torch.Inference(func() {
			x := torch.Arange(n).AddScalar(5).Unsqueeze(0)
			values = torch.ToSlice[float32](m.Forward(pretrained.Inputs{InputIDs: x}).Logits)
		})
		return values
	}
	apart := func(a, b []float32) (d float64) {
		for i := range a {
			d = max(d, math.Abs(float64(a[i]-b[i])))
		}
		return d
	}
	early := forward(9)
	long := forward(30) // from here on no sequence is longer, or shorter than max_position_embeddings
	want := map[int][]float32{30: long, 9: forward(9)}
	require.Greater(t, apart(early, want[9]), 1e-2, "the scale of the longest stays")
	live := torch.LiveTensors()
	var wg sync.WaitGroup
	for i := range 16 {
		wg.Go(func() {
			n := []int{9, 30}[i%2]
			for range 5 {
				if d := apart(want[n], forward(n)); d > 1e-4 {
					t.Errorf("length %d: %v off", n, d)
				}
			}
		})
	}
	wg.Wait()
	require.Equal(t, live, torch.LiveTensors())
}

// A config's own original_max_position_embeddings goes before that of rope_parameters (transformers'
// standardize_rope_params); without either it is max_position_embeddings.
func TestOriginalLengthOfTheConfig(t *testing.T) {
	for text, want := range map[string]int64{
		`"original_max_position_embeddings": 16, "rope_scaling": {"rope_type": "yarn", "factor": 2, "original_max_position_embeddings": 8}`: 16,
		`"rope_scaling": {"rope_type": "yarn", "factor": 2, "original_max_position_embeddings": 8}`:                                         8,
		`"rope_scaling": {"rope_type": "yarn", "factor": 2}`:                                                                                64,
	} {
		dir := t.TempDir()
		require.NoError(t, os.WriteFile(filepath.Join(dir, "config.json"), []byte(`{"model_type": "llama", "max_position_embeddings": 64, `+text+`}`), 0o600))
		c, err := pretrained.LoadConfig(context.Background(), dir, pretrained.Options{})
		require.NoError(t, err)
		require.EqualValues(t, want, c.(*llama.Config).RopeParameters["original_max_position_embeddings"], text)
	}
}
