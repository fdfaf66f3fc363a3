package pretrained_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/torchgo/torchgo/internal/testdata"
	"github.com/torchgo/torchgo/pretrained"
	"github.com/torchgo/torchgo/pretrained/peft"
	"github.com/torchgo/torchgo/torch"
	"github.com/torchgo/torchgo/torch/nn"
)

// judgedAdapters are adapters that are made here.
func judgedAdapters() map[string]struct {
	base   string
	config peft.Config
} {
	type made = struct {
		base   string
		config peft.Config
	}
	list := func(names ...string) peft.Names { return peft.Names{List: names} }
	return map[string]made{
		"default":    {"llama", peft.Config{PeftType: peft.LoRA}},
		"all-linear": {"bert-seqcls", peft.Config{PeftType: peft.LoRA, TaskType: "SEQ_CLS", TargetModules: peft.Names{Pattern: "all-linear"}, ModulesToSave: []string{"classifier"}}},
		"patterns": {"llama", peft.Config{
			PeftType: peft.LoRA, TaskType: "CAUSAL_LM", TargetModules: peft.Names{Pattern: `.*\.(q|k|v)_proj|.*mlp\..*_proj`}, R: torch.Some(3), LoraAlpha: torch.Some(2.5),
			RankPattern: []peft.Pattern[int]{{Name: "q_proj", Value: 5}, {Name: `layers\.1\..*`, Value: 2}}, AlphaPattern: []peft.Pattern[float64]{{Name: "up_proj", Value: 7}}, UseRSLoRA: true,
		}},
		"layers":    {"llama", peft.Config{PeftType: peft.LoRA, TargetModules: list("o_proj", "down_proj"), LayersToTransform: []int{1}, LayersPattern: []string{"layers"}}},
		"dora":      {"llama", peft.Config{PeftType: peft.LoRA, UseDoRA: true, TargetModules: list("q_proj", "up_proj"), ExcludeModules: list("layers.0.mlp.up_proj")}},
		"biases":    {"bert-tokcls", peft.Config{PeftType: peft.LoRA, Bias: peft.BiasAll, LoraBias: true, TargetModules: list("query", "output.dense"), TaskType: "FEATURE_EXTRACTION"}},
		"own bias":  {"bert-tokcls", peft.Config{PeftType: peft.LoRA, Bias: peft.BiasLoraOnly, TargetModules: list("key")}},
		"saved":     {"llama", peft.Config{PeftType: peft.LoRA, TargetModules: list("v_proj"), ModulesToSave: []string{"lm_head", "model.norm"}}},
		"embedding": {"llama", peft.Config{PeftType: peft.LoRA, TargetModules: list("embed_tokens", "lm_head", "k_proj")}},
		"tied":      {"llama-tied-rope-llama3", peft.Config{PeftType: peft.LoRA, InitLoraWeights: peft.InitGaussian, LoraDropout: 0.25}},
		"ia3":       {"llama", peft.Config{PeftType: peft.IA3}},
		"ia3 bert":  {"bert-seqcls", peft.Config{PeftType: peft.IA3, TargetModules: list("query", "intermediate.dense"), FeedforwardModules: list("intermediate.dense"), ModulesToSave: []string{"classifier"}}},
	}
}

// fill gives what is trained values that are the same everywhere: sixty-fourths from a small generator.
func fill(m pretrained.Model) {
	x := uint32(1)
	torch.NoGrad(func() {
		for _, p := range nn.Parameters(m) {
			if !p.RequiresGrad() {
				continue
			}
			values := make([]float32, p.Numel())
			for i := range values {
				x = x*1664525 + 1013904223
				values[i] = float32(int(x>>26)-32) / 64
			}
			p.Copy_(torch.FromSlice(values, p.Shape()...))
		}
	})
}

// TestAdaptersThatPythonJudged: adapters that are made and saved here, and models into which they were merged. Python's
// peft and transformers load them without a word, with nothing missing, and compute the same logits. They judged the
// very files that are saved now, by tools/peftref/judge.py, for which TORCHGO_PEFT names the folder to leave them in.
func TestAdaptersThatPythonJudged(t *testing.T) {
	out := os.Getenv("TORCHGO_PEFT")
	verdicts := map[string]struct {
		Files                    map[string]string
		Missing, Unexpected, Log []string
		Trainable                int
		Merged                   float64
	}{}
	var want map[string]*torch.Tensor
	if out == "" {
		dir := testdata.Open(t, "peft")
		data, err := os.ReadFile(filepath.Join(dir, "judged.json"))
		require.NoError(t, err)
		require.NoError(t, json.Unmarshal(data, &verdicts))
		want, err = pretrained.LoadFile(ctx, filepath.Join(dir, "judged.safetensors"))
		require.NoError(t, err)
		require.Len(t, verdicts, len(judgedAdapters()))
	}
	for name, c := range judgedAdapters() {
		t.Run(name, func(t *testing.T) {
			t.Chdir(testdata.Open(t, "models-"+strings.Split(c.base, "-")[0])) // its name is in the config
			m, _ := load(t, c.base, pretrained.Options{Attn: nn.Eager})
			require.NoError(t, m.AddAdapter(&c.config, ""))
			fill(m)
			trained := 0
			for _, p := range nn.Parameters(m) {
				if p.RequiresGrad() {
					trained++
				}
			}
			dir := t.TempDir()
			if out != "" {
				dir = filepath.Join(out, name)
			}
			require.NoError(t, pretrained.SavePretrained(ctx, m, dir, pretrained.SaveOptions{}))
			files := filesOf(t, dir)
			mine := logits(t, m, c.base)
			require.NoError(t, m.MergeAndUnload())
			require.NoError(t, pretrained.SavePretrained(ctx, m, filepath.Join(dir, "merged"), pretrained.SaveOptions{}))
			if out != "" {
				return
			}
			v := verdicts[name]
			require.Empty(t, append(append(v.Missing, v.Unexpected...), v.Log...))
			require.Equal(t, v.Files, files, "other files than those that were judged: judge anew")
			require.Equal(t, v.Trainable, trained)
			require.LessOrEqual(t, far(t, want[name], mine), onOtherCPUs)
			require.LessOrEqual(t, v.Merged, 1e-4)
			require.LessOrEqual(t, far(t, want[name], logits(t, m, c.base)), 1e-4)
		})
	}
}
