package peft_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/torchgo/torchgo/internal/testdata"
	"github.com/torchgo/torchgo/pretrained/peft"
	"github.com/torchgo/torchgo/torch"
)

// TestConfigFilesAreThoseOfPeft: what peft wrote is written back byte by byte.
func TestConfigFilesAreThoseOfPeft(t *testing.T) {
	dir := testdata.Open(t, "peft")
	files, err := filepath.Glob(filepath.Join(dir, "configs", "*.json"))
	require.NoError(t, err)
	more, err := filepath.Glob(filepath.Join(dir, "adapters", "*", peft.ConfigName))
	require.NoError(t, err)
	require.Len(t, files, 10)
	require.Len(t, more, 26)
	refused := 0
	for _, path := range append(files, more...) {
		want, err := os.ReadFile(path)
		require.NoError(t, err)
		c, err := peft.ParseConfig(want)
		if strings.Contains(string(want), `"ensure_weight_tying": true`) {
			require.ErrorIs(t, err, peft.ErrUnsupported, path)
			refused++
			continue
		}
		require.NoError(t, err, path)
		require.Equal(t, string(want), string(c.JSON()), path)
		require.Equal(t, string(want), string(c.Clone().JSON()), path)
	}
	require.Equal(t, 1, refused)
}

// TestNewConfigsAreWrittenAsByPeft: configs made here are the same texts.
func TestNewConfigsAreWrittenAsByPeft(t *testing.T) {
	for name, c := range map[string]peft.Config{
		"0": {PeftType: peft.LoRA},
		"1": {PeftType: peft.IA3},
		"2": {PeftType: peft.LoRA, TargetModules: peft.Names{List: []string{"v_proj"}}},
		"3": {PeftType: peft.LoRA, TargetModules: peft.Names{Pattern: "all-linear"}, R: torch.Some(16), LoraAlpha: torch.Some(32.0), LoraDropout: 0.05, Bias: peft.BiasAll},
		"4": {
			PeftType: peft.LoRA, TargetModules: peft.Names{Pattern: `.*\.(q|v)_proj`}, UseRSLoRA: true, UseDoRA: true, Revision: "main",
			RankPattern: []peft.Pattern[int]{{Name: "q_proj", Value: 4}, {Name: "a.b", Value: 2}}, AlphaPattern: []peft.Pattern[float64]{{Name: "v_proj", Value: 0.5}},
		},
		"5": {
			PeftType: peft.LoRA, TaskType: "SEQ_2_SEQ_LM", LoraAlpha: torch.Some(1e-07), LoraDropout: 1e-05, LayersToTransform: []int{0, 3},
			LayersPattern: []string{"layers", "h"}, ModulesToSave: []string{"lm_head"}, TargetModules: peft.Names{List: []string{"q"}},
		},
		"8": {
			PeftType: peft.IA3, TaskType: "TOKEN_CLS", TargetModules: peft.Names{List: []string{"k"}}, FeedforwardModules: peft.Names{List: []string{"k"}},
			ModulesToSave: []string{"classifier"}, FanInFanOut: true, InitIA3Weights: torch.Some(false),
		},
		"9": {PeftType: peft.IA3, TargetModules: peft.Names{Pattern: ".*"}, FeedforwardModules: peft.Names{Pattern: ".*down"}, ExcludeModules: peft.Names{List: nil, Pattern: "lm_head"}, Revision: "v1"},
	} {
		want, err := os.ReadFile(filepath.Join(testdata.Open(t, "peft"), "configs", name+".json"))
		require.NoError(t, err)
		require.NoError(t, c.Validate())
		require.Equal(t, string(want), string(c.JSON()), name)
	}
}

// TestChangedConfigs: what was changed after reading is written, the rest as it was.
func TestChangedConfigs(t *testing.T) {
	c, err := peft.ParseConfig([]byte(`{"peft_type": "LORA", "lora_alpha": 2.0, "layers_to_transform": 3, "target_modules": ["q"], "r": 4}`))
	require.NoError(t, err)
	c.R = torch.Some(5)
	var got map[string]json.RawMessage
	require.NoError(t, json.Unmarshal(c.JSON(), &got))
	require.Equal(t, "5", string(got["r"]))
	require.Equal(t, "2.0", string(got["lora_alpha"]))
	require.Equal(t, "3", string(got["layers_to_transform"]))
}

// TestOddConfigs: keys and values that peft warns of, drops or refuses.
func TestOddConfigs(t *testing.T) {
	var rows []struct {
		Name     string
		Document json.RawMessage
		Config   map[string]any
		Error    string
		Warnings []string
	}
	readJSON(t, &rows, testdata.Open(t, "peft"), "configs.json")
	require.Len(t, rows, 21)
	for _, row := range rows {
		c, err := peft.ParseConfig(row.Document)
		switch {
		case row.Name == "empty": // an object without a kind, which peft takes for a base class's defaults
			require.ErrorIs(t, err, peft.ErrBadConfig)
			continue
		case row.Error != "":
			require.True(t, err != nil, "%s: %s", row.Name, row.Error)
			continue
		}
		require.NoError(t, err, row.Name)
		require.Equal(t, len(row.Warnings) > 0, len(c.Warnings) > 0, "%s: %v, %v", row.Name, row.Warnings, c.Warnings)
		if row.Name == "unknown" {
			require.Equal(t, []string{`unknown keys are ignored: "aardvark", "zebra"`}, c.Warnings)
		}
		var got map[string]any
		require.NoError(t, json.Unmarshal(c.JSON(), &got))
		if row.Name == "eva_ignored" { // peft keeps it
			delete(got, "eva_config")
			delete(row.Config, "eva_config")
		}
		require.Equal(t, row.Config, got, row.Name)
	}
}

// TestRefusedConfigs: each thing that is not here is refused by its name.
func TestRefusedConfigs(t *testing.T) {
	for text, words := range map[string]string{
		`"megatron_config": {"a": 1}`:                           "megatron_config",
		`"trainable_token_indices": [1, 2]`:                     "trainable_token_indices",
		`"velora_config": {"rank": 1}`:                          "velora_config",
		`"alora_invocation_tokens": [1]`:                        "alora_invocation_tokens",
		`"use_qalora": true`:                                    "use_qalora",
		`"monteclora_config": {}`:                               "monteclora_config",
		`"layer_replication": [[0, 4]]`:                         "layer_replication",
		`"target_parameters": ["experts.w1"]`:                   "target_parameters",
		`"use_bdlora": {}`:                                      "use_bdlora",
		`"arrow_config": {}`:                                    "arrow_config",
		`"kasa_config": {"beta": 1}`:                            "kasa_config",
		`"ensure_weight_tying": true`:                           "ensure_weight_tying",
		`"init_lora_weights": "pissa"`:                          "pissa",
		`"init_lora_weights": "pissa_niter_16"`:                 "pissa_niter_16",
		`"init_lora_weights": "olora"`:                          "olora",
		`"init_lora_weights": "corda"`:                          "corda",
		`"init_lora_weights": "loftq"`:                          "loftq",
		`"init_lora_weights": "lora_ga"`:                        "lora_ga",
		`"init_lora_weights": "mica"`:                           "mica",
		`"target_modules": "(?=a)b"`:                            "target_modules: the pattern \"(?=a)b\"",
		`"exclude_modules": "(a)\\1"`:                           `exclude_modules: the pattern "(a)\\1"`,
		`"target_modules": "a++"`:                               "possessive",
		`"target_modules": "(?>a)"`:                             "(?>",
		`"layers_to_transform": [1], "layers_pattern": "(?!a)"`: "layers_pattern",
	} {
		_, err := peft.ParseConfig([]byte(`{"peft_type": "LORA", ` + text + `}`))
		require.ErrorIs(t, err, peft.ErrUnsupported, text)
		require.Contains(t, err.Error(), words)
	}
	for _, kind := range []string{"ADALORA", "PROMPT_TUNING", "VERA", "EVIL", "lora"} {
		_, err := peft.ParseConfig([]byte(`{"peft_type": "` + kind + `"}`))
		require.ErrorIs(t, err, peft.ErrUnsupported)
		require.Contains(t, err.Error(), kind)
	}
	for _, text := range []string{
		`"r": 0`, `"r": -2`, `"r": 1099511627776`, `"r": 1e3`, `"r": 99999999999999999999`, `"r": "8"`, `"r": null`, `"r": 2.5`, `"r": true`,
		`"lora_alpha": NaN`, `"lora_alpha": Infinity`, `"lora_alpha": "1"`, `"lora_alpha": 1e999`, `"lora_dropout": -0.1`, `"lora_dropout": 1.5`, `"lora_dropout": NaN`,
		`"bias": "some"`, `"bias": true`, `"target_modules": 3`, `"target_modules": [3]`, `"target_modules": {"a": 1}`, `"target_modules": "(["`, `"target_modules": "a**"`,
		`"target_modules": "\\p{L}"`, `"target_modules": "(?U)a"`, `"target_modules": "(?<n>a)"`, `"modules_to_save": [""]`, `"modules_to_save": ["("]`,
		`"rank_pattern": {"a": 0}`, `"rank_pattern": {"a": 1.5}`, `"rank_pattern": {"(": 1}`, `"rank_pattern": [1]`, `"alpha_pattern": {"a": NaN}`,
		`"init_lora_weights": "zeros"`, `"init_lora_weights": 3`, `"init_lora_weights": "gaussian", "lora_bias": true`, `"layers_to_transform": ["1"]`, `"use_dora": 1`,
		`"task_type": "SEQ"`, `"auto_mapping": 3`, `"r": 8, "r": 8`,
	} {
		_, err := peft.ParseConfig([]byte(`{"peft_type": "LORA", ` + text + `}`))
		require.ErrorIs(t, err, peft.ErrBadConfig, text)
	}
}
