package pretrained

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math"
	"path/filepath"
	"reflect"
	"slices"

	"github.com/torchgo/torchgo/internal/pyjson"
	"github.com/torchgo/torchgo/internal/regular"
)

const generationFile = "generation_config.json"

// GenerationConfig is generation_config.json: how a model generates unless a caller says otherwise. A key
// that is not set has transformers' default. It is data; nothing here generates.
type GenerationConfig struct {
	values   map[string]any // those of the file that are not null, and unknown keys
	modified bool
}

// generationKeys are the keys that transformers gives a meaning, with the kind of value that each takes.
var generationKeys = map[string]kind{
	"max_length": integer, "max_new_tokens": integer, "min_length": integer, "min_new_tokens": integer,
	"early_stopping": anything, "max_time": number, "stop_strings": anything,
	"do_sample": boolean, "num_beams": integer, "use_mtp": boolean,
	"use_cache": boolean, "cache_implementation": text, "cache_config": anything, "max_cache_len": integer,
	"temperature": number, "top_k": integer, "top_p": number, "min_p": number, "top_h": number, "typical_p": number,
	"epsilon_cutoff": number, "eta_cutoff": number, "repetition_penalty": number, "encoder_repetition_penalty": number,
	"length_penalty": number, "no_repeat_ngram_size": integer, "bad_words_ids": anything, "renormalize_logits": boolean,
	"forced_bos_token_id": tokens, "forced_eos_token_id": tokens, "remove_invalid_values": boolean,
	"exponential_decay_length_penalty": anything, "suppress_tokens": tokens, "begin_suppress_tokens": tokens,
	"sequence_bias": anything, "token_healing": boolean, "guidance_scale": number, "watermarking_config": anything,
	"num_return_sequences": integer, "output_attentions": boolean, "output_hidden_states": boolean,
	"output_scores": boolean, "output_logits": boolean, "return_dict_in_generate": boolean,
	"pad_token_id": integer, "bos_token_id": tokens, "eos_token_id": tokens,
	"encoder_no_repeat_ngram_size": integer, "decoder_start_token_id": tokens,
	"is_assistant": boolean, "num_assistant_tokens": integer, "num_assistant_tokens_schedule": text,
	"assistant_confidence_threshold": number, "prompt_lookup_num_tokens": integer, "max_matching_ngram_size": integer,
	"assistant_early_exit": integer, "assistant_lookbehind": integer, "target_lookbehind": integer,
	"assistant_ensemble_weight": number, "speculation_type": text, "compile_config": anything, "disable_compile": boolean,
	"continuous_batching_config": anything, "low_memory": boolean, "penalty_alpha": number, "dola_layers": anything,
	"diversity_penalty": number, "num_beam_groups": integer, "constraints": anything, "force_words_ids": anything,
	"prefill_chunk_size": integer, fromModelConfig: boolean, "transformers_version": text,
}

// fromModelConfig marks what was derived from config.json.
const fromModelConfig = "_from_model_config"

// kind is what values a key takes; null is always one.
type kind string

const (
	anything kind = ""
	boolean  kind = "true or false"
	integer  kind = "an integer"
	number   kind = "a number"
	text     kind = "a string"
	tokens   kind = "a token id or a list of them"
)

func (k kind) takes(v any) bool {
	if _, ok := v.(float64); ok && k == number {
		return true
	}
	switch v := v.(type) {
	case nil:
		return true
	case bool:
		return k == anything || k == boolean
	case int, int64:
		return k == anything || k == integer || k == number || k == tokens
	case string:
		return k == anything || k == text
	case []any:
		return k == anything || k == tokens && !slices.ContainsFunc(v, func(id any) bool { _, ok := asInt(id); return !ok })
	}
	return k == anything
}

// NewGenerationConfig makes a GenerationConfig of keys and values, as they are in generation_config.json.
func NewGenerationConfig(values map[string]any) (*GenerationConfig, error) {
	g := &GenerationConfig{values: map[string]any{}, modified: true}
	for _, key := range slices.Sorted(maps.Keys(values)) {
		if err := g.set(key, values[key]); err != nil {
			return nil, err
		}
	}
	if g.True(fromModelConfig) { // then only keys with a meaning are of this config
		maps.DeleteFunc(g.values, func(key string, _ any) bool { _, known := generationKeys[key]; return !known })
	}
	return g, g.check()
}

// Get returns the value of a key as JSON has it: bool, int64, float64, string, []any, map[string]any; and
// whether it is set.
func (g *GenerationConfig) Get(key string) (any, bool) {
	v, ok := g.values[key]
	return v, ok && v != nil
}

// True reports whether a key is set to true.
func (g *GenerationConfig) True(key string) bool { return g.values[key] == true }

// Int returns an integer, or def if the key is not set.
func (g *GenerationConfig) Int(key string, def int) int {
	if i, ok := asInt(g.values[key]); ok {
		return i
	}
	return def
}

// Float returns a number, or def if the key is not set.
func (g *GenerationConfig) Float(key string, def float64) float64 {
	if x, ok := asFloat(g.values[key]); ok {
		return x
	}
	return def
}

// Tokens returns the token ids of a key that takes one or several.
func (g *GenerationConfig) Tokens(key string) []int {
	list, ok := g.values[key].([]any)
	if !ok {
		list = []any{g.values[key]}
	}
	var ids []int
	for _, v := range list {
		if id, ok := asInt(v); ok {
			ids = append(ids, id)
		}
	}
	return ids
}

// Set sets a key; nil unsets it. A value that the key can't have is an error, and so is one that does not
// go together with the others; the config is then as it was.
func (g *GenerationConfig) Set(key string, v any) error {
	old, had := g.values[key]
	err := g.set(key, v)
	if err == nil {
		err = g.check()
	}
	switch {
	case err == nil:
		g.modified = true
	case had:
		g.values[key] = old
	default:
		delete(g.values, key)
	}
	return err
}

func (g *GenerationConfig) set(key string, v any) error {
	k, known := generationKeys[key]
	switch {
	case key == "_commit_hash":
		return nil
	case !k.takes(v):
		return generationError(key, string(k), Describe(v))
	case slices.Contains(generateArguments, key):
		return generationError(key, "an argument of generate", "part of the config")
	case hasNaN(v):
		return generationError(key, "a number", "NaN or infinity")
	case v == nil && known:
		delete(g.values, key)
		return nil
	}
	if i, ok := v.(int); ok {
		v = int64(i)
	}
	if w, ok := v.(map[string]any); ok && key == "watermarking_config" {
		full := maps.Clone(watermarking)
		for k, v := range w {
			if _, known := watermarking[k]; !known {
				return generationError(key, "no key "+shorten(k), Describe(v))
			}
			full[k] = v
		}
		v = full
	}
	g.values[key] = v
	return nil
}

// watermarking are the keys of watermarking_config and their defaults.
var watermarking = map[string]any{"greenlist_ratio": 0.25, "bias": 2.0, "hashing_key": int64(15485863), "seeding_scheme": "lefthash", "context_width": int64(1)}

// generateArguments belong to a call of generate.
var generateArguments = []string{"logits_processor", "stopping_criteria", "prefix_allowed_tokens_fn", "synced_gpus",
	"assistant_model", "streamer", "negative_prompt_ids", "negative_prompt_attention_mask"}

var cacheImplementations = []any{"static", "offloaded_static", "sliding_window", "hybrid", "hybrid_chunked", "offloaded_hybrid",
	"offloaded_hybrid_chunked", "dynamic", "offloaded", "quantized", "paged"}

func generationError(key, expected, actual string) error {
	return &Error{Class: ErrBadConfig, Detail: key, Expected: expected, Actual: actual}
}

func hasNaN(v any) bool {
	switch v := v.(type) {
	case float64:
		return math.IsNaN(v) || math.IsInf(v, 0)
	case []any:
		return slices.ContainsFunc(v, hasNaN)
	case map[string]any:
		return slices.ContainsFunc(slices.Collect(maps.Values(v)), hasNaN)
	}
	return false
}

// check refuses what transformers refuses: values out of range, and such that contradict each other.
func (g *GenerationConfig) check() error {
	bad := func(key, expected string) error { return generationError(key, expected, Describe(g.values[key])) }
	if v, ok := g.Get("early_stopping"); ok && v != "never" && !oneOf(v, true, false, int64(0), int64(1)) {
		return bad("early_stopping", `true, false or "never"`)
	}
	if v, ok := g.Get("max_new_tokens"); ok && g.Int("max_new_tokens", 1) <= 0 {
		return generationError("max_new_tokens", "more than 0", Describe(v))
	}
	if w := g.Float("assistant_ensemble_weight", 0.5); !(w > 0 && w < 1) {
		return bad("assistant_ensemble_weight", "between 0 and 1")
	}
	if v, ok := g.Get("cache_implementation"); ok && !slices.Contains(cacheImplementations, v) {
		return bad("cache_implementation", "one of "+fmt.Sprint(cacheImplementations))
	}
	if v, ok := g.Get("compile_config"); ok {
		return generationError("compile_config", "none in a file", Describe(v))
	}
	if w, ok := g.values["watermarking_config"].(map[string]any); ok {
		ratio, _ := asFloat(w["greenlist_ratio"])
		width, isInt := asInt(w["context_width"])
		if !oneOf(w["seeding_scheme"], "selfhash", "lefthash") || ratio < 0 || ratio > 1 || !isInt || width < 1 {
			return generationError("watermarking_config", "seeding_scheme lefthash or selfhash, greenlist_ratio 0 to 1, context_width from 1", Describe(w))
		}
	}
	if n, beams := g.Int("num_return_sequences", 1), g.Int("num_beams", 1); n > 1 {
		if beams == 1 && !g.True("do_sample") {
			return bad("num_return_sequences", "1, without beams and without sampling")
		}
		if beams != 1 && n > beams {
			return bad("num_return_sequences", fmt.Sprintf("at most num_beams, %d", beams))
		}
	}
	suppressed := g.Tokens("suppress_tokens")
	for _, key := range []string{"forced_bos_token_id", "forced_eos_token_id"} {
		forced := g.Tokens(key)
		if len(forced) > 0 && !slices.ContainsFunc(forced, func(id int) bool { return !slices.Contains(suppressed, id) }) {
			return bad(key, "a token that is not in suppress_tokens")
		}
	}
	return nil
}

func oneOf(v any, values ...any) bool {
	return slices.ContainsFunc(values, func(w any) bool { return reflect.DeepEqual(v, w) })
}

// Validate refuses, besides what can't be at all, settings that have no effect beside the others. They may be
// in a file that is saved as it was, but not in a config that was changed.
func (g *GenerationConfig) Validate() error {
	if err := g.check(); err != nil {
		return err
	}
	for _, idle := range []struct {
		when   bool
		why    string
		values map[string]float64 // that the keys may have all the same
	}{
		{!g.True("do_sample"), "nothing, as do_sample is not true", map[string]float64{"temperature": 1, "top_p": 1, "min_p": none, "top_h": none,
			"typical_p": 1, "top_k": 50, "epsilon_cutoff": 0, "eta_cutoff": 0}},
		{g.Int("num_beams", 1) == 1, "nothing, as num_beams is 1", map[string]float64{"early_stopping": 0, "length_penalty": 1}},
		{g.values["use_cache"] == false, "nothing, as use_cache is false", map[string]float64{"cache_implementation": none, "cache_config": none}},
		{!g.True("return_dict_in_generate"), "false, as return_dict_in_generate is not true", map[string]float64{"output_attentions": 0,
			"output_hidden_states": 0, "output_scores": 0, "output_logits": 0}},
		{g.Int("pad_token_id", 0) < 0, "0 or more", map[string]float64{"pad_token_id": none}},
	} {
		for _, key := range slices.Sorted(maps.Keys(idle.values)) {
			v, set := g.Get(key)
			if x, ok := asFloat(v); idle.when && set && v != false && (!ok || x != idle.values[key]) {
				return generationError(key, idle.why, Describe(v))
			}
		}
	}
	return nil
}

var none = math.NaN() // equals no value

// json is the file as save_pretrained writes it.
func (g *GenerationConfig) json() ([]byte, error) {
	if g.modified {
		if err := g.Validate(); err != nil {
			return nil, err
		}
	}
	out := maps.Clone(g.values)
	out["transformers_version"] = TransformersVersion
	return pyjson.Marshal(out), nil
}

// GenerationConfig is the config that the model was loaded with, or that its config.json implies; nil if it
// can't generate. SavePretrained writes it.
func (p *PreTrainedModel) GenerationConfig() *GenerationConfig {
	if p.generation == nil && p.class.Generates {
		values := encodeFields(configFields(p.config))
		values["output_attentions"] = false
		p.generation, _ = deriveGeneration(values) // config.json's own fields can't be wrong
	}
	return p.generation
}

// readGeneration gives a model that can generate the caller's generation config, or its file's.
func (l *loader) readGeneration() (err error) {
	if !l.class.Generates {
		return nil
	}
	p := l.model.base()
	if given := l.opts.GenerationConfig; given != nil {
		p.generation, err = NewGenerationConfig(given.values)
	} else if dir := l.files.dir; dir != "" && (l.opts.ConfigInstance == nil || exists(filepath.Join(dir, generationFile))) {
		p.generation, err = readGeneration(dir, l.files.raw)
	} // else it follows from the config when it is asked for
	return err
}

// readGeneration reads the generation config of a model that can generate: the file in dir, else what the
// object of config.json says.
func readGeneration(dir string, config map[string]any) (*GenerationConfig, error) {
	path := filepath.Join(dir, generationFile)
	data, err := regular.Read(path, maxConfigBytes)
	if errors.Is(err, fs.ErrNotExist) {
		g, err := deriveGeneration(config)
		return g, inFile(err, filepath.Join(dir, "config.json"))
	}
	if err != nil {
		return nil, err
	}
	values, err := pyjson.Parse(data)
	if err != nil {
		return nil, &Error{File: path, Class: ErrBadConfig, Err: err}
	}
	g, err := NewGenerationConfig(values)
	if err != nil {
		return nil, inFile(err, path)
	}
	g.modified = false
	return g, nil
}

// deriveGeneration takes from a config.json what is of generation's, as files had it before there was a
// generation_config.json. What the decoder's part of the config says holds where the outer one is silent.
func deriveGeneration(config map[string]any) (*GenerationConfig, error) {
	values := map[string]any{}
	parts := []map[string]any{config}
	for _, name := range []string{"decoder", "generator", "text_config"} {
		if part, ok := config[name].(map[string]any); ok && len(part) > 0 {
			parts = append(parts, part)
			break
		}
	}
	for _, part := range parts {
		for key, v := range part {
			if _, known := generationKeys[key]; known && v != nil && values[key] == nil {
				values[key] = v
			}
		}
	}
	if config["force_bos_token_to_be_generated"] == true {
		values["forced_bos_token_id"] = values["bos_token_id"]
	}
	for _, key := range []string{"output_attentions", "output_hidden_states", "output_scores", "output_logits"} {
		if values[key] == true {
			values["return_dict_in_generate"] = true
		}
	}
	values[fromModelConfig] = true
	g, err := NewGenerationConfig(values)
	if err != nil {
		return nil, err
	}
	g.modified = false
	return g, nil
}
