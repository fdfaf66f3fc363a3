package pretrained

import (
	"maps"
	"regexp"
	"slices"
	"strings"

	"github.com/torchgo/torchgo/torch/nn"
)

// GGUF says what GGUF files call the configuration and the tensors of a model type. Decoder has what most have in
// common.
type GGUF struct {
	Architectures []string // general.architecture of the files
	Class         string   // what a file is that does not say: "LlamaForCausalLM"

	Config   map[string]string // keys of metadata behind the architecture's name, and those of config.json that they are
	Optional map[string]string // such that a file may lack, for the config's default

	// Tensors are names without ".weight" or ".bias", and those in the base model. A * is the number of a block.
	Tensors    map[string]string
	Converters []Converter // on the names in the model
	Unused     []string    // tensors that the model does without, by such names

	rules  []KeyRule
	unused []*regexp.Regexp
}

// GGUFDecoder is g and what files of decoders with RoPE and RMSNorm have in common; what g says of a key or name counts.
func GGUFDecoder(g GGUF) *GGUF {
	g.Config = with(map[string]string{
		"context_length":                   "max_position_embeddings",
		"block_count":                      "num_hidden_layers",
		"embedding_length":                 "hidden_size",
		"feed_forward_length":              "intermediate_size",
		"attention.head_count":             "num_attention_heads",
		"attention.layer_norm_rms_epsilon": "rms_norm_eps",
	}, g.Config)
	g.Optional = with(map[string]string{
		"attention.head_count_kv": "num_key_value_heads",
		"rope.freq_base":          "rope_theta",
	}, g.Optional)
	g.Tensors = with(map[string]string{
		"token_embd":        "embed_tokens",
		"blk.*.attn_norm":   "layers.*.input_layernorm",
		"blk.*.attn_q":      "layers.*.self_attn.q_proj",
		"blk.*.attn_k":      "layers.*.self_attn.k_proj",
		"blk.*.attn_v":      "layers.*.self_attn.v_proj",
		"blk.*.attn_output": "layers.*.self_attn.o_proj",
		"blk.*.ffn_norm":    "layers.*.post_attention_layernorm",
		"blk.*.ffn_gate":    "layers.*.mlp.gate_proj",
		"blk.*.ffn_up":      "layers.*.mlp.up_proj",
		"blk.*.ffn_down":    "layers.*.mlp.down_proj",
		"output_norm":       "norm",
		"output":            "lm_head",
	}, g.Tensors)
	return &g
}

func with(m, more map[string]string) map[string]string {
	maps.Copy(m, more)
	return m
}

// compile makes the rules of the names, and tells what is wrong with them.
func (g *GGUF) compile() error {
	pattern := func(name string) string {
		return "^" + strings.Replace(regexp.QuoteMeta(name), `\*`, `(\d+)`, 1) + `\.(weight|bias)$`
	}
	g.rules = nil
	for _, name := range slices.Sorted(maps.Keys(g.Tensors)) {
		to, suffix := g.Tensors[name], `.\1`
		if strings.Contains(name, "*") {
			to, suffix = strings.Replace(to, "*", `\1`, 1), `.\2`
		}
		g.rules = append(g.rules, KeyRule{pattern(name), to + suffix})
	}
	g.unused = nil
	for _, name := range g.Unused {
		g.unused = append(g.unused, regexp.MustCompile(pattern(name)))
	}
	return checkRules(g.rules, g.Converters)
}

// gguf says how the names of the checkpoint are to be read if it is a GGUF file; else nil.
func (l *loader) gguf() *GGUF {
	if l.files == nil || l.files.gguf == nil {
		return nil
	}
	return l.files.gguf.GGUF
}

// checkGGUFClass refuses a class of another model type than the GGUF file's.
func (l *loader) checkGGUFClass() error {
	if l.gguf() == nil || l.files.gguf == l.arch {
		return nil
	}
	return &Error{File: l.files.weights, Class: ErrUnsupported, Detail: "class", Expected: "one of model type " + l.files.gguf.ModelType, Actual: l.class.Name}
}

// checkGGUFPlaces refuses to leave weights of a GGUF file on disk, as transformers does.
func (l *loader) checkGGUFPlaces() error {
	if l.gguf() == nil {
		return nil
	}
	for _, s := range nn.Slots(l.model) {
		if l.places[s.Name].disk {
			return badMap(s.Name, Error{File: l.files.weights, Class: ErrUnsupported, Actual: "disk", Expected: "memory for all weights of a GGUF file"})
		}
	}
	return nil
}
