package peft_test

import (
	"context"
	"encoding/json"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/torchgo/torchgo/internal/testdata"
	"github.com/torchgo/torchgo/pretrained"
	_ "github.com/torchgo/torchgo/pretrained/models"
	"github.com/torchgo/torchgo/pretrained/peft"
	"github.com/torchgo/torchgo/torch/nn"
)

// readJSON reads a document of the reference data.
func readJSON(t testing.TB, v any, path ...string) {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(path...))
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal(data, v))
}

// baseFolder is the folder of a base model of the reference data.
func baseFolder(t testing.TB, base string) string {
	return filepath.Join(testdata.Open(t, "models-"+strings.Split(base, "-")[0]), base)
}

// loadBase loads a base model of the reference data.
func loadBase(t testing.TB, base string) pretrained.Model {
	t.Helper()
	m, _, err := pretrained.Load(context.Background(), baseFolder(t, base), pretrained.Options{})
	require.NoError(t, err)
	t.Cleanup(m.Close)
	return m
}

// infoOf says what targets depend on.
func infoOf(m pretrained.Model) peft.ModelInfo {
	info := peft.ModelInfo{ModelType: m.Config().Base().ModelType}
	head := m.OutputEmbeddings()
	for path, module := range nn.NamedModules(m) {
		if head != nil && module == any(head) {
			info.OutputEmbeddings = path
		}
	}
	return info
}

// hit is what peft did to a module.
type hit struct {
	R           int
	Alpha       float64
	Feedforward bool
	Saved       bool
}

// TestTargetsAreThoseOfPeft: 400 random configs over the modules of BERT and Llama, with what peft made of them.
func TestTargetsAreThoseOfPeft(t *testing.T) {
	var rows []struct {
		Base     string
		PeftType string          `json:"peft_type"`
		Config   json.RawMessage // the order of its patterns counts
		Hit      map[string]hit
		Error    string
		Warnings []string
	}
	readJSON(t, &rows, testdata.Open(t, "peft"), "targets.json")
	require.Len(t, rows, 400)
	models := map[string]pretrained.Model{}
	compared := 0
	for i, row := range rows {
		m := models[row.Base]
		if m == nil {
			m = loadBase(t, row.Base)
			models[row.Base] = m
		}
		text := []byte(strings.Replace(`{"peft_type":"`+row.PeftType+`",`+string(row.Config[1:]), ",}", "}", 1))
		got := map[string]hit{}
		var targets *peft.Targets
		c, err := peft.ParseConfig(text)
		if err == nil {
			targets, err = peft.Resolve(m, c, infoOf(m))
		}
		if row.Error == "" {
			require.NoError(t, err, "row %d: %s", i, text)
			for _, l := range targets.Layers {
				if row.PeftType == "LORA" {
					got[l.Path] = hit{R: l.R, Alpha: l.Alpha}
				} else {
					got[l.Path] = hit{Feedforward: l.Feedforward}
				}
			}
			for _, s := range targets.Save {
				got[s.Path] = hit{Saved: true}
			}
			maps.DeleteFunc(row.Hit, func(path string, h hit) bool { // parts of a module that is copied as a whole
				return strings.Contains(path, ".modules_to_save.") || h.Saved && slices.ContainsFunc(slices.Collect(maps.Keys(row.Hit)), func(outer string) bool {
					return strings.HasPrefix(path, outer+".")
				})
			})
			require.Equal(t, row.Hit, got, "row %d: %s", i, text)
			for _, key := range []string{"rank_pattern", "alpha_pattern"} {
				warned := func(list []string) bool {
					return slices.ContainsFunc(list, func(w string) bool { return strings.Contains(w, key) })
				}
				require.Equal(t, warned(row.Warnings), warned(targets.Warnings), "row %d: %s", i, text)
			}
			compared++
			continue
		}
		switch {
		case strings.HasPrefix(row.Error, "NoMatching"):
			require.ErrorIs(t, err, peft.ErrMissingTensor, "row %d: %s", i, text)
		case strings.Contains(row.Error, "SiLUActivation"):
			require.NoError(t, err) // functions are not modules here, so the expression doesn't hit one
		case strings.HasPrefix(row.Error, "ValueError: Target module "):
			if err == nil { // a module that has no adapters of this kind is left to the adapter
				require.True(t, slices.ContainsFunc(targets.Layers, func(l peft.Target) bool {
					switch l.Module.(type) {
					case *nn.Linear:
						return false
					case *nn.Embedding:
						return row.PeftType == "IA3"
					}
					return true
				}), "row %d: %s: %s", i, text, row.Error)
			}
		default:
			require.ErrorIs(t, err, peft.ErrBadConfig, "row %d: %s: %s", i, text, row.Error)
		}
	}
	require.Greater(t, compared, 250)
}

// TestExpressionsAreLinear: expressions that take Python exponential time take none here.
func TestExpressionsAreLinear(t *testing.T) {
	m := loadBase(t, "llama")
	for _, pattern := range []string{`(a|aa)+$|((.*)*)*X`, `(.*.*.*.*.*)*=`, `(x+x+)+y`, strings.Repeat("(", 50) + "a" + strings.Repeat("*)", 50)} {
		start := time.Now()
		_, err := peft.Resolve(m, &peft.Config{PeftType: peft.LoRA, TargetModules: peft.Names{Pattern: pattern}}, infoOf(m))
		require.ErrorIs(t, err, peft.ErrMissingTensor)
		require.Less(t, time.Since(start), 5*time.Second)
		require.Contains(t, err.Error(), "target_modules")
	}
	for _, pattern := range []string{`(a{1000}){1000}`, strings.Repeat("(a?b|c){999}", 100), strings.Repeat("a", 1<<20)} {
		start := time.Now()
		c := peft.Config{PeftType: peft.LoRA, TargetModules: peft.Names{Pattern: pattern}}
		err := c.Validate()
		require.ErrorIs(t, err, peft.ErrUnsupported)
		require.Less(t, time.Since(start), 5*time.Second)
		require.Less(t, len(err.Error()), 600)
	}
}

// TestManyNames: lists and patterns with an entry for each module of a large model are matched at once.
func TestManyNames(t *testing.T) {
	m := loadBase(t, "llama")
	c := &peft.Config{PeftType: peft.LoRA, TargetModules: peft.Names{List: []string{"q_proj"}}}
	for i := range 9_999 {
		name := "model.layers." + strings.Repeat("1", i%7+1) + ".self_attn.q_proj"
		c.TargetModules.List = append(c.TargetModules.List, name)
		c.RankPattern = append(c.RankPattern, peft.Pattern[int]{Name: name, Value: 2})
	}
	start := time.Now()
	targets, err := peft.Resolve(m, c, infoOf(m))
	require.NoError(t, err)
	require.Less(t, time.Since(start), 5*time.Second)
	require.Len(t, targets.Layers, 2)
	require.Equal(t, 8, targets.Layers[0].R)
	require.Equal(t, 2, targets.Layers[1].R)
	c.RankPattern = append(c.RankPattern, c.RankPattern...)
	require.ErrorIs(t, c.Validate(), peft.ErrBadConfig)
}

// TestAllLinearIsRecorded: what all-linear and the default mean is in the targets, for the file.
func TestAllLinearIsRecorded(t *testing.T) {
	m := loadBase(t, "llama")
	targets, err := peft.Resolve(m, &peft.Config{PeftType: peft.LoRA, TargetModules: peft.Names{Pattern: "all-linear"}}, infoOf(m))
	require.NoError(t, err)
	require.Len(t, targets.TargetModules.List, 14)
	require.NotContains(t, targets.TargetModules.List, "lm_head")
	targets, err = peft.Resolve(m, &peft.Config{PeftType: peft.IA3}, infoOf(m))
	require.NoError(t, err)
	require.Equal(t, []string{"k_proj", "v_proj", "down_proj"}, targets.TargetModules.List)
	require.Equal(t, []string{"down_proj"}, targets.FeedforwardModules.List)
	_, err = peft.Resolve(m, &peft.Config{PeftType: peft.IA3}, peft.ModelInfo{ModelType: "nothing"})
	require.ErrorIs(t, err, peft.ErrBadConfig)
	var e *peft.Error
	require.True(t, errors.As(err, &e))
	require.Equal(t, "set target_modules", e.Remedy)
}

// TestPatternsKeepTheirOrderInAFile: peft writes patterns sorted by name, and cannot load what it saved where that
// changes ranks. Here such patterns are saved as one for each target.
func TestPatternsKeepTheirOrderInAFile(t *testing.T) {
	m := loadBase(t, "llama")
	ranks := func(c *peft.Config) map[string]int {
		targets, err := peft.Resolve(m, c, infoOf(m))
		require.NoError(t, err)
		c.RankPattern, c.AlphaPattern = targets.RankPattern, targets.AlphaPattern
		out := map[string]int{}
		for _, l := range targets.Layers {
			out[l.Path] = l.R
		}
		return out
	}
	for _, patterns := range [][]peft.Pattern[int]{
		{{Name: "q_proj", Value: 5}, {Name: `layers\.1\..*`, Value: 2}},
		{{Name: "layers.1.self_attn.q_proj", Value: 3}, {Name: "q_proj", Value: 5}},
	} {
		c := &peft.Config{PeftType: peft.LoRA, RankPattern: patterns, TargetModules: peft.Names{List: []string{"q_proj", "v_proj"}}}
		want := ranks(c)
		read, err := peft.ParseConfig(c.JSON())
		require.NoError(t, err)
		require.Equal(t, want, ranks(read))
		require.Equal(t, 5, want["model.layers.0.self_attn.q_proj"])
		if len(c.RankPattern) == 2 {
			require.Equal(t, patterns, c.RankPattern, "they are in order already")
		} else {
			require.Equal(t, `^model\.layers\.0\.self_attn\.q_proj`, c.RankPattern[0].Name)
		}
	}
}
