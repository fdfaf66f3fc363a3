package pretrained

import (
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
		{name: "groups", key: "h.3.w", rules: []KeyRule{{`^h\.(\d+)\.`, `layer.\1.`}}, known: known("layer.3.w"), want: "layer.3.w"},
		{name: "dollar is a character", key: "a", rules: []KeyRule{{`a`, `$1`}}, known: known("$1"), want: "$1"},
		{name: "first match only", key: "a.a", rules: []KeyRule{{`a`, "b"}}, known: known("b.a"), want: "b.a"},
		{name: "the original wins when the new name is unknown", key: "LayerNorm.gamma", known: known("LayerNorm.gamma"), want: "LayerNorm.gamma"},
	} {
		k, err := newKeyMap(c.rules, nil, c.known)
		require.NoError(t, err)
		k.prefix = c.prefix
		require.Equal(t, c.want, k.rename(c.key).key, c.name)
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
