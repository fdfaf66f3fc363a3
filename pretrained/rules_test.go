package pretrained_test

import (
	"maps"
	"path/filepath"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/torchgo/torchgo/pretrained"
	"github.com/torchgo/torchgo/pretrained/safetensors"
	"github.com/torchgo/torchgo/torch"
	"github.com/torchgo/torchgo/torch/nn"
)

// rampFile is a checkpoint whose tensors of four elements count up from 10·i.
func rampFile(t *testing.T, config string, names ...string) string {
	var sources []safetensors.Source
	for i, name := range names {
		x := float32(10 * i)
		sources = append(sources, safetensors.Source{Name: name, DType: safetensors.F32, Shape: []int{4}, Write: safetensors.Data(floats([]float32{x, x + 1, x + 2, x + 3}))})
	}
	return writeCheckpoint(t, config, sources)
}

func flatParams(names ...string) map[string]any {
	var params []any
	for _, name := range names {
		params = append(params, param(name, []int{4}))
	}
	return map[string]any{"params": params}
}

func init() {
	registerFlat("FlatKeep", pretrained.Architecture{KeepInFP32: []string{`(^|\.)wo\.`}, KeepInFP32Strict: []string{"router"}})
	registerFlat("FlatTies", pretrained.Architecture{Classes: []pretrained.Class{{Ties: map[string]string{
		"head.weight":                  "embed.weight",
		`decoder\.layers\.(\d+)\.bias`: `encoder.layers.\1.bias`,
		`copy`:                         "original",
	}}}})
	registerFlat("FlatInner", pretrained.Architecture{
		Renamings:  []pretrained.KeyRule{{Pattern: `old\.`, Replacement: "new."}},
		Converters: []pretrained.Converter{{Sources: []string{"e.*.w"}, Targets: []string{"stacked"}, Ops: []pretrained.Op{pretrained.Stack{}}}},
	})
	pretrained.Register(pretrained.Architecture{ModelType: "composite", Prefix: "model", NewConfig: func() pretrained.Config {
		return &flatConfig{ConfigBase: pretrained.ConfigBase{ModelType: "composite"}}
	}, Renamings: []pretrained.KeyRule{{Pattern: `^text\.`, Replacement: "model.language."}},
		Classes: []pretrained.Class{{Name: "Composite", New: pretrained.Build(newComposite)}}})
}

// compositeModel holds two models of another type, below the field model.
type compositeModel struct {
	pretrained.PreTrainedModel
	Model *struct {
		Language *flatModel `torch:"language"`
		Vision   *flatModel `torch:"vision"`
	} `torch:"model"`
	Old *torch.Tensor `torch:"old.x"`
}

func (m *compositeModel) Forward(pretrained.Inputs) *pretrained.Output { panic("computes nothing") }

func newComposite(b nn.Builder, c *flatConfig) *compositeModel {
	m := &compositeModel{Old: b.Parameter(4), Model: &struct {
		Language *flatModel `torch:"language"`
		Vision   *flatModel `torch:"vision"`
	}{}}
	inner := &flatConfig{ConfigBase: pretrained.ConfigBase{ModelType: "FlatInner"}, Params: c.Params}
	m.Model.Language, m.Model.Vision = newFlat(b, inner), newFlat(b, inner)
	m.Model.Language.UseConfig(inner)
	m.Model.Vision.UseConfig(inner)
	return m
}

func TestKeepInFloat32(t *testing.T) {
	names := []string{"c", "a.wo.weight", "b.word.weight", "router.weight"}
	dir := rampFile(t, "{}", names...)
	for dtype, want := range map[torch.DType][]string{
		torch.Float16: {"a.wo.weight", "router.weight"}, torch.BFloat16: {"router.weight"}, torch.Float32: names, torch.Float64: nil,
	} {
		for _, lack := range []bool{false, true} {
			opts := pretrained.Options{Class: "FlatKeep", Config: flatParams(names...), DType: dtype}
			from := dir
			if lack { // new values have the dtype, too
				from = rampFile(t, "{}", "c")
			}
			m, r := load(t, from, opts)
			require.Equal(t, dtype.String(), r.DType)
			for name, x := range state(m) {
				kept := dtype
				if slices.Contains(want, name) {
					kept = torch.Float32
				}
				require.Equal(t, kept, x.DType(), "%s in %s", name, dtype)
			}
		}
	}
	m, _ := load(t, dir, pretrained.Options{Class: "FlatKeep", Config: flatParams(names...), DType: torch.Float16})
	to := t.TempDir()
	require.NoError(t, pretrained.SavePretrained(ctx, m, to, pretrained.SaveOptions{}))
	again, r := load(t, to, pretrained.Options{Strict: true})
	require.Equal(t, "float16", r.DType)
	equalModels(t, m, again)
}

func TestTiesByPattern(t *testing.T) {
	names := []string{"head.weight", "embed.weight", "encoder.layers.0.bias", "encoder.layers.11.bias", "decoder.layers.0.bias", "decoder.layers.11.bias",
		"decoder.layers.2.bias", "copy.a", "copy.b.c", "copyist.a", "original.a", "original.b.c"}
	config := flatParams(names...)
	config["tie_word_embeddings"] = true
	opts := pretrained.Options{Class: "FlatTies", Config: config, Strict: true}
	want := map[string]string{"head.weight": "embed.weight", "decoder.layers.0.bias": "encoder.layers.0.bias", "decoder.layers.11.bias": "encoder.layers.11.bias",
		"copy.a": "original.a", "copy.b.c": "original.b.c"}
	dir := rampFile(t, "{}", "embed.weight", "encoder.layers.0.bias", "decoder.layers.11.bias", "decoder.layers.2.bias", "copyist.a", "original.a", "copy.b.c")
	m, r := load(t, dir, opts)
	require.Equal(t, want, r.TiedKeys)
	s := state(m)
	for target, source := range want {
		require.Same(t, s[target], s[source], target)
	}
	require.Equal(t, []float32{20, 21, 22, 23}, torch.ToSlice[float32](s["encoder.layers.11.bias"])) // only the target was there
	to := t.TempDir()
	require.NoError(t, pretrained.SavePretrained(ctx, m, to, pretrained.SaveOptions{}))
	saved, err := pretrained.LoadFile(ctx, filepath.Join(to, "model.safetensors"))
	require.NoError(t, err)
	require.Len(t, saved, len(names)-len(want))
	for _, x := range saved {
		x.Close()
	}
	config["tie_word_embeddings"] = false
	_, r = load(t, dir, pretrained.Options{Class: "FlatTies", Config: config})
	require.Empty(t, r.TiedKeys)
	require.Len(t, r.MissingKeys, 5)
}

// The rules of a model inside another hold for the names below it alone, with and without the base model's prefix.
func TestRulesOfModelsInside(t *testing.T) {
	inner := []any{param("new.a", []int{4}), param("stacked", []int{2, 4})}
	for _, prefix := range []string{"model.", ""} {
		names := []string{"text.old.a", "text.e.0.w", "text.e.1.w", prefix + "vision.old.a", prefix + "vision.e.0.w", prefix + "vision.e.1.w", "old.x"}
		dir := rampFile(t, "{}", names...)
		m, r := load(t, dir, pretrained.Options{Class: "Composite", Config: map[string]any{"params": inner}, Attn: nn.Eager})
		part := m.(*compositeModel).Model.Vision.Config()
		require.Equal(t, "FlatInner", part.Base().ModelType)
		require.Equal(t, "float32", part.Base().DType)
		require.Equal(t, nn.Eager, part.Base().Attn)
		require.Empty(t, r.MissingKeys)
		require.Empty(t, r.UnexpectedKeys)
		s := state(m)
		require.ElementsMatch(t, []string{"model.language.new.a", "model.language.stacked", "model.vision.new.a", "model.vision.stacked", "old.x"}, slices.Collect(maps.Keys(s)))
		require.Equal(t, []float32{40, 41, 42, 43, 50, 51, 52, 53}, torch.ToSlice[float32](s["model.vision.stacked"]))
		require.Equal(t, []float32{60, 61, 62, 63}, torch.ToSlice[float32](s["old.x"]), "no rule of the parts holds for the whole")
		to := t.TempDir()
		require.NoError(t, pretrained.SavePretrained(ctx, m, to, pretrained.SaveOptions{}))
		saved, err := pretrained.LoadFile(ctx, filepath.Join(to, "model.safetensors"))
		require.NoError(t, err)
		for i, name := range names {
			if prefix == "" && slices.Contains(names[3:6], name) {
				name = "model." + name // the base model's prefix is not taken away again
			}
			require.Contains(t, saved, name)
			require.Equal(t, float32(10*i), torch.ToSlice[float32](saved[name])[0], name)
		}
		for _, x := range saved {
			x.Close()
		}
	}
}

// Old files have a matrix the other way round: the shape tells.
func TestTransposeIfNeeded(t *testing.T) {
	registerFlat("FlatTurn", pretrained.Architecture{Converters: []pretrained.Converter{{Sources: []string{"w"}, Targets: []string{"w"},
		Ops: []pretrained.Op{pretrained.Transpose{Dim1: 1, IfNeeded: true}}}}})
	opts := pretrained.Options{Class: "FlatTurn", Config: map[string]any{"params": []any{param("w", []int{2, 3})}}}
	for _, c := range []struct {
		shape []int
		data  []float32
	}{{[]int{2, 3}, []float32{0, 1, 2, 3, 4, 5}}, {[]int{3, 2}, []float32{0, 3, 1, 4, 2, 5}}} {
		dir := writeCheckpoint(t, "{}", []safetensors.Source{{Name: "w", DType: safetensors.F32, Shape: c.shape, Write: safetensors.Data(floats(c.data))}})
		m, _ := load(t, dir, opts)
		require.Equal(t, []float32{0, 1, 2, 3, 4, 5}, torch.ToSlice[float32](state(m)["w"]))
		to := t.TempDir()
		require.NoError(t, pretrained.SavePretrained(ctx, m, to, pretrained.SaveOptions{}))
		again, _ := load(t, to, pretrained.Options{Strict: true})
		equalModels(t, m, again)
	}
	dir := writeCheckpoint(t, "{}", []safetensors.Source{{Name: "w", DType: safetensors.F32, Shape: []int{3, 4}, Write: safetensors.Data(make([]byte, 48))}})
	_, _, err := pretrained.Load(ctx, dir, opts)
	require.ErrorIs(t, err, pretrained.ErrSizeMismatch)
}

func TestWrongConvertersAreRefused(t *testing.T) {
	stack, chunk := pretrained.Stack{}, pretrained.Chunk{}
	for text, c := range map[string]pretrained.Converter{
		"no operation": {Sources: []string{"a"}, Targets: []string{"b"}},
		"operations that merge and such that divide": {Sources: []string{"a.*"}, Targets: []string{"b"}, Ops: []pretrained.Op{stack, chunk}},
		"several sources and several targets":        {Sources: []string{"a", "b"}, Targets: []string{"c", "d"}, Ops: []pretrained.Op{pretrained.Concatenate{}}},
		"two indices in a name":                      {Sources: []string{"a.*.*"}, Targets: []string{"b"}, Ops: []pretrained.Op{stack}},
		"an index on both sides":                     {Sources: []string{"a.*"}, Targets: []string{"b.*"}, Ops: []pretrained.Op{chunk}},
	} {
		func() {
			defer func() { require.Contains(t, recover(), text) }()
			registerFlat("wrong", pretrained.Architecture{Converters: []pretrained.Converter{c}})
		}()
	}
	func() {
		defer func() { require.Contains(t, recover(), "renaming") }()
		registerFlat("wrong", pretrained.Architecture{Renamings: []pretrained.KeyRule{{Pattern: "("}}})
	}()
}

func TestAutoClassesTakeMore(t *testing.T) {
	dir := rampFile(t, `{"model_type": "FlatKeep"}`, "c")
	opts := pretrained.Options{Config: flatParams("c")}
	mine := pretrained.NewAutoClass("AutoModelOfMine")
	_, err := mine.FromPretrained(ctx, dir, opts)
	require.ErrorIs(t, err, pretrained.ErrUnsupported)
	require.NoError(t, mine.Register("FlatKeep"))
	m, err := mine.FromPretrained(ctx, dir, opts)
	require.NoError(t, err)
	require.Equal(t, "FlatKeep", m.Class())
	m.Close()
	config, err := pretrained.LoadConfig(ctx, dir, opts)
	require.NoError(t, err)
	m, err = mine.FromConfig(config, pretrained.Options{DType: torch.BFloat16})
	require.NoError(t, err)
	require.Equal(t, torch.BFloat16, m.DType())
	m.Close()
	require.Equal(t, []string{"FlatKeep"}, mine.ModelTypes())
	require.ErrorIs(t, mine.Register("Nothing"), pretrained.ErrUnsupported)
	require.Panics(t, func() { pretrained.NewAutoClass("AutoModel") })
}
