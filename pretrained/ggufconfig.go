package pretrained

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"

	"github.com/torchgo/torchgo/pretrained/gguf"
)

const architectureKey = "general.architecture"

// ggufTokens are the keys of the tokenizer's metadata that are in a config.json.
var ggufTokens = map[string]string{
	"tokenizer.ggml.bos_token_id":     "bos_token_id",
	"tokenizer.ggml.eos_token_id":     "eos_token_id",
	"tokenizer.ggml.unknown_token_id": "unk_token_id",
	"tokenizer.ggml.padding_token_id": "pad_token_id",
	"general.name":                    "_model_name_or_path",
}

// ggufArchitecture is that of a GGUF file.
func ggufArchitecture(m *gguf.Metadata) (*Architecture, error) {
	if n, err := m.Int("split.count"); err == nil && n > 1 {
		return nil, &Error{Class: ErrUnsupported, Detail: "metadata \"split.count\"", Expected: "a model in one file", Actual: fmt.Sprintf("one of %d", n),
			Remedy: "merge them with llama.cpp's llama-gguf-split"}
	}
	name, err := m.String(architectureKey)
	if err != nil {
		return nil, err
	}
	registry.RLock()
	defer registry.RUnlock()
	var known []string
	for _, a := range registry.architectures {
		if a.GGUF == nil {
			continue
		}
		if slices.Contains(a.GGUF.Architectures, name) {
			return a, nil
		}
		known = append(known, a.GGUF.Architectures...)
	}
	slices.Sort(known)
	return nil, &Error{Class: ErrUnsupported, Detail: fmt.Sprintf("metadata %q", architectureKey), Expected: "one of " + strings.Join(known, ", "),
		Actual: fmt.Sprintf("%q", shorten(name))}
}

// ggufConfig is the config.json that the metadata of a GGUF file stands for. It is untied if it has output.weight.
func ggufConfig(a *Architecture, metadata *gguf.Metadata, untied bool) (map[string]any, error) {
	m := ggufMetadata{metadata}
	name, err := m.String(architectureKey)
	if err != nil {
		return nil, err
	}
	config := map[string]any{"model_type": a.ModelType, "architectures": []any{a.GGUF.Class}}
	for _, key := range slices.Sorted(maps.Keys(a.GGUF.Config)) {
		if !m.has(name + "." + key) {
			return nil, &Error{Class: ErrBadConfig, Detail: "metadata", Expected: fmt.Sprintf("%q", name+"."+key), Actual: "none"}
		}
	}
	keys := maps.Clone(ggufTokens)
	for _, table := range []map[string]string{a.GGUF.Config, a.GGUF.Optional, {"vocab_size": "vocab_size"}} {
		for key, to := range table {
			keys[name+"."+key] = to
		}
	}
	for _, key := range slices.Sorted(maps.Keys(keys)) {
		if m.has(key) {
			if config[keys[key]], err = m.value(key); err != nil {
				return nil, err
			}
		}
	}
	if _, ok := config["vocab_size"]; !ok {
		const tokens = "tokenizer.ggml.tokens"
		_, n, ok := m.ArrayType(tokens)
		if !ok {
			return nil, &Error{Class: ErrBadConfig, Detail: "metadata", Expected: fmt.Sprintf("%q or %q", name+".vocab_size", tokens), Actual: "neither"}
		}
		config["vocab_size"] = int64(n)
	}
	config["tie_word_embeddings"] = !untied
	return config, m.scaling(name+".rope.", config)
}

// ggufMetadata is metadata as a source of a config.
type ggufMetadata struct{ *gguf.Metadata }

func (m ggufMetadata) has(key string) bool {
	_, ok := m.Type(key)
	return ok
}

// value is a value as config.json would have it.
func (m ggufMetadata) value(key string) (any, error) {
	elem, n, list := m.ArrayType(key)
	t, _ := m.Type(key)
	if list {
		t = elem
	}
	switch {
	case list && n != 1:
		return nil, &Error{Class: ErrUnsupported, Detail: fmt.Sprintf("metadata %q", key), Expected: "one value for all layers", Actual: fmt.Sprintf("a list of %d", n)}
	case t == gguf.String && !list:
		return m.String(key)
	case t == gguf.Bool && !list:
		return m.Bool(key)
	case t == gguf.Float32 || t == gguf.Float64:
		x, err := only(m.Float, m.Floats, list)(key)
		if err == nil && (math.IsNaN(x) || math.IsInf(x, 0)) {
			return nil, &Error{Class: ErrBadConfig, Detail: fmt.Sprintf("metadata %q", key), Expected: "a finite number", Actual: fmt.Sprint(x)}
		}
		return x, err
	}
	return only(m.Int, m.Ints, list)(key)
}

// only gets a value, or the only one of a list.
func only[T any](one func(string) (T, error), list func(string) ([]T, error), isList bool) func(string) (T, error) {
	if !isList {
		return one
	}
	return func(key string) (x T, err error) {
		all, err := list(key)
		if len(all) > 0 {
			x = all[0]
		}
		return x, err
	}
}

// ropeScaling are keys behind rope.scaling. and those of a config's rope_scaling.
var ropeScaling = map[string]string{"factor": "factor", "original_context_length": "original_max_position_embeddings",
	"yarn_beta_fast": "beta_fast", "yarn_beta_slow": "beta_slow"}

// scaling adds rope_scaling to a config. transformers leaves it out for most models, whose logits are then others than
// those of the model that the file was made of.
func (m ggufMetadata) scaling(prefix string, config map[string]any) error {
	kind := "none"
	if key := prefix + "scaling.type"; m.has(key) {
		var err error
		if kind, err = m.String(key); err != nil {
			return err
		}
	}
	factor, err := 1.0, error(nil)
	if old := prefix + "scale_linear"; m.has(old) {
		kind = "linear"
		factor, err = m.Float(old)
	}
	scaling := map[string]any{"rope_type": kind}
	for from, to := range ropeScaling {
		if key := prefix + "scaling." + from; err == nil && m.has(key) && (kind == "yarn" || from == "factor") {
			scaling[to], err = m.value(key)
		}
	}
	if scaling["factor"] == nil {
		scaling["factor"] = factor
	}
	if err == nil && (kind == "linear" || kind == "yarn") && scaling["factor"] != 1.0 && scaling["factor"] != 0.0 {
		config["rope_scaling"] = scaling
	}
	return err
}
