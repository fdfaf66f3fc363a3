package pretrained

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestRename(t *testing.T) {
	known := func(keys ...string) func(string) bool {
		return func(k string) bool {
			for _, key := range keys {
				if k == key {
					return true
				}
			}
			return false
		}
	}
	for _, c := range []struct {
		name, key, prefix string
		rules             []KeyRule
		known             func(string) bool
		want              string
	}{
		{name: "as it is", key: "a.weight", known: known("a.weight"), want: "a.weight"},
		{name: "gamma", key: "x.LayerNorm.gamma", known: known("x.LayerNorm.weight"), want: "x.LayerNorm.weight"},
		{name: "beta", key: "x.LayerNorm.beta", known: known("x.LayerNorm.bias"), want: "x.LayerNorm.bias"},
		{name: "weight norm", key: "conv.weight_g", known: known("conv.parametrizations.weight.original0"), want: "conv.parametrizations.weight.original0"},
		{name: "prefix stripped", key: "bert.a", prefix: "bert", known: known("a"), want: "a"},
		{name: "prefix added", key: "a", prefix: "bert", known: known("bert.a"), want: "bert.a"},
		{name: "prefix is a whole part", key: "bertha.a", prefix: "bert", known: known("a", "ha.a"), want: "bertha.a"},
		{name: "prefix neither", key: "cls.a", prefix: "bert", known: known("bert.a"), want: "cls.a"},
		{name: "rules come first and chain", key: "zz.yy.LayerNorm.gamma", rules: []KeyRule{{`^zz\.`, ""}, {`^yy`, "x"}},
			known: known("x.LayerNorm.weight"), want: "x.LayerNorm.weight"},
		{name: "before those for old files", key: "x.LayerNorm.gamma", rules: []KeyRule{{`gamma`, "g"}}, known: known("x.LayerNorm.g", "x.LayerNorm.weight"), want: "x.LayerNorm.g"},
		{name: "groups", key: "h.3.w", rules: []KeyRule{{`^h\.(\d+)\.`, `layer.\1.`}}, known: known("layer.3.w"), want: "layer.3.w"},
		{name: "dollar is a character", key: "a", rules: []KeyRule{{`a`, `$1`}}, known: known("$1"), want: "$1"},
		{name: "first match only", key: "a.a", rules: []KeyRule{{`a`, "b"}}, known: known("b.a"), want: "b.a"},
		{name: "a letter or digit at the end ends a word", key: "a.weight_scale", rules: []KeyRule{{`weight`, "w"}}, known: known("a.w_scale"), want: "a.weight_scale"},
		{name: "other ends are the start of one", key: "a.hc_fn", rules: []KeyRule{{`hc_`, "hc."}}, known: known("a.hc.fn"), want: "a.hc.fn"},
		{name: "any text before a dot", key: "model.x.y.w", rules: []KeyRule{{`^model.*.w`, "v"}}, known: known("v"), want: "v"},
		{name: "the original wins when the new name is unknown", key: "LayerNorm.gamma", known: known("LayerNorm.gamma"), want: "LayerNorm.gamma"},
	} {
		k, err := newKeyMap(c.rules, nil, nil, c.known)
		require.NoError(t, err)
		k.prefix = c.prefix
		require.Equal(t, c.want, k.rename(c.key).key, c.name)
	}
}

// The sources of a converter are one alternation, the longest first, as in transformers' WeightTransform.
func TestConverterMatch(t *testing.T) {
	for _, c := range []struct {
		sources     []string
		name        string
		source      int
		index, rest string
	}{
		{[]string{"weight", "weight.absmax"}, "a.weight.absmax", 1, "", "a.|"},
		{[]string{"weight.absmax", "weight"}, "a.weight.absmax", 0, "", "a.|"},
		{[]string{"weight", "weight.absmax"}, "a.weight", 0, "", "a.|"},
		{[]string{"b.long.name", "a"}, "x.a.b.long.name", 1, "", "x.|.b.long.name"},
		{[]string{"experts.*.w", "experts.*.w.scale"}, "experts.10.w.scale", 1, "10", "|"},
		{[]string{"^w", "w.b"}, "a.w.b", 1, "", "a.|"},
		{[]string{"weight"}, "a.weight_scale", -1, "", ""},
	} {
		m, ok := Converter{Sources: c.sources}.compile(scope{}).match(c.name)
		require.Equal(t, c.source >= 0, ok, c.name)
		if ok {
			require.Equal(t, match{c.source, c.index, strings.Split(c.rest, "|")[0], strings.Split(c.rest, "|")[1]}, m, c.name)
		}
	}
}

func TestCheckRelative(t *testing.T) {
	for _, name := range []string{"model.safetensors", "sub/model-2.safetensors", "a..b"} {
		require.NoError(t, checkRelative(name), name)
	}
	for _, name := range []string{"", ".", "..", "../x", "a/../../x", "/x", `\x`, `C:\x`, "c:x", `a\..\x`, "a\x00b", "https://x/y", `a\b`} {
		require.ErrorIs(t, checkRelative(name), ErrPath, "%q", name)
	}
}

func TestFoldLayers(t *testing.T) {
	require.Equal(t, []string{"a.{0,2,10}.w", "b.1.w", "c"}, foldLayers([]string{"a.0.w", "a.10.w", "a.2.w", "b.1.w", "c"}))
}
