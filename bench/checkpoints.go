package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"

	"github.com/torchgo/torchgo/pretrained"
	"github.com/torchgo/torchgo/pretrained/pickle"
	"github.com/torchgo/torchgo/pretrained/safetensors"
	"github.com/torchgo/torchgo/torch"
	"github.com/torchgo/torchgo/torch/nn"
)

// shape is the size of a checkpoint that is made on the spot: bfloat16, in shards.
type shape struct {
	class, modelType                                      string
	hidden, inner, layers, heads, kvHeads, vocab, experts int
	maxShardBytes                                         int64
	bin                                                   bool // torch.save's format, else safetensors
}

// The checkpoints of the rows on loading: TinyLlama's shape, 1.1 billion parameters in 5 shards, of either format, and
// experts as Mixtral stores them, each in tensors of its own.
var shapes = map[string]shape{
	"llama": {class: "LlamaForCausalLM", modelType: "llama", hidden: 2048, inner: 5632, layers: 22, heads: 32, kvHeads: 4, vocab: 32000,
		maxShardBytes: 500e6},
	"llama-bin": {class: "LlamaForCausalLM", modelType: "llama", hidden: 2048, inner: 5632, layers: 22, heads: 32, kvHeads: 4, vocab: 32000,
		maxShardBytes: 500e6, bin: true},
	"mixtral": {class: "MixtralForCausalLM", modelType: "mixtral", hidden: 768, inner: 1408, layers: 12, heads: 12, kvHeads: 4, vocab: 4000,
		experts: 8, maxShardBytes: 5e9},
}

// dims lists the tensors of the file by name.
func (s shape) dims() map[string][]int {
	head := s.hidden / s.heads
	d := map[string][]int{"model.embed_tokens.weight": {s.vocab, s.hidden}, "lm_head.weight": {s.vocab, s.hidden}, "model.norm.weight": {s.hidden}}
	for i := range s.layers {
		at := fmt.Sprintf("model.layers.%d.", i)
		d[at+"self_attn.q_proj.weight"] = []int{s.hidden, s.hidden}
		d[at+"self_attn.k_proj.weight"] = []int{s.kvHeads * head, s.hidden}
		d[at+"self_attn.v_proj.weight"] = []int{s.kvHeads * head, s.hidden}
		d[at+"self_attn.o_proj.weight"] = []int{s.hidden, s.hidden}
		d[at+"input_layernorm.weight"] = []int{s.hidden}
		d[at+"post_attention_layernorm.weight"] = []int{s.hidden}
		if s.experts == 0 {
			d[at+"mlp.gate_proj.weight"] = []int{s.inner, s.hidden}
			d[at+"mlp.up_proj.weight"] = []int{s.inner, s.hidden}
			d[at+"mlp.down_proj.weight"] = []int{s.hidden, s.inner}
			continue
		}
		d[at+"block_sparse_moe.gate.weight"] = []int{s.experts, s.hidden}
		for e := range s.experts {
			expert := fmt.Sprintf("%sblock_sparse_moe.experts.%d.", at, e)
			d[expert+"w1.weight"] = []int{s.inner, s.hidden}
			d[expert+"w3.weight"] = []int{s.inner, s.hidden}
			d[expert+"w2.weight"] = []int{s.hidden, s.inner}
		}
	}
	return d
}

// write makes the checkpoint in a folder.
func (s shape) write(ctx context.Context, dir string) error {
	config := map[string]any{"architectures": []string{s.class}, "model_type": s.modelType, "dtype": "bfloat16", "hidden_size": s.hidden,
		"intermediate_size": s.inner, "num_hidden_layers": s.layers, "num_attention_heads": s.heads, "num_key_value_heads": s.kvHeads,
		"vocab_size": s.vocab, "max_position_embeddings": 2048, "rms_norm_eps": 1e-5, "tie_word_embeddings": false}
	if s.experts > 0 {
		config["num_local_experts"] = s.experts
	}
	data, err := json.MarshalIndent(config, "", "  ")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o777); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, "config.json"), data, 0o666); err != nil {
		return err
	}
	var weights []weight
	random := rand.New(rand.NewPCG(1, 2))
	noise := make([]byte, 1<<20) // of bfloat16, each ±[1/128, 1/64)
	for i := 0; i < len(noise); i += 2 {
		noise[i], noise[i+1] = byte(random.Uint32())&0x7f, 0x3c|byte(random.Uint32())&0x80
	}
	for name, dims := range s.dims() {
		n := 2
		for _, d := range dims {
			n *= d
		}
		from := 2 * random.IntN(len(noise)/2)
		weights = append(weights, weight{name, dims, n, func(w io.Writer) error {
			for left := n; left > 0; {
				k, err := w.Write(noise[from:min(from+left, len(noise))])
				if err != nil {
					return err
				}
				from, left = 0, left-k
			}
			return nil
		}})
	}
	if s.bin {
		return writeBin(ctx, dir, weights, s.maxShardBytes)
	}
	var sources []safetensors.Source
	for _, w := range weights {
		sources = append(sources, safetensors.Source{Name: w.name, DType: safetensors.BF16, Shape: w.dims, Write: w.write})
	}
	_, err = safetensors.WriteSharded(ctx, dir, sources, safetensors.ShardOptions{MaxShardBytes: s.maxShardBytes, Metadata: map[string]string{"format": "pt"}})
	return err
}

// weight is a tensor of a checkpoint that is being made.
type weight struct {
	name  string
	dims  []int
	bytes int
	write func(io.Writer) error
}

// writeBin writes bfloat16 weights as torch.save does, in shards with an index.
func writeBin(ctx context.Context, dir string, weights []weight, maxShardBytes int64) error {
	var shards []*pickle.Dict
	files, total, inShard := map[string]string{}, int64(0), int64(0)
	for _, w := range weights {
		if inShard += int64(w.bytes); len(shards) == 0 || inShard > maxShardBytes {
			shards, inShard = append(shards, &pickle.Dict{Class: pickle.OrderedDict}), int64(w.bytes)
		}
		total += int64(w.bytes)
		files[w.name] = fmt.Sprintf("pytorch_model-%05d.bin", len(shards))
		strides := make([]int, len(w.dims))
		for i, stride := len(w.dims)-1, 1; i >= 0; i-- {
			strides[i], stride = stride, stride*w.dims[i]
		}
		storage := &pickle.Storage{DType: "bfloat16", Bytes: int64(w.bytes), Location: "cpu", Data: pickle.Made(w.write)}
		err := shards[len(shards)-1].Set(w.name, &pickle.Tensor{DType: "bfloat16", Shape: w.dims, Strides: strides, Storage: storage})
		if err != nil {
			return err
		}
	}
	for i, shard := range shards {
		if err := pickle.WriteFile(ctx, filepath.Join(dir, fmt.Sprintf("pytorch_model-%05d.bin", i+1)), shard); err != nil {
			return err
		}
	}
	index, err := json.Marshal(map[string]any{"metadata": map[string]int64{"total_size": total}, "weight_map": files})
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "pytorch_model.bin.index.json"), index, 0o666)
}

// mixtral is Mixtral's parameters without its computation: torchgo has no such model yet.
type mixtral struct {
	pretrained.PreTrainedModel
	Model *mixtralModel `torch:"model"`
	Head  *nn.Linear    `torch:"lm_head"`
}

type mixtralModel struct {
	Embed  *nn.Embedding   `torch:"embed_tokens"`
	Layers []*mixtralLayer `torch:"layers"`
	Norm   *nn.RMSNorm     `torch:"norm"`
}

type mixtralLayer struct {
	Attention struct {
		Q *nn.Linear `torch:"q_proj"`
		K *nn.Linear `torch:"k_proj"`
		V *nn.Linear `torch:"v_proj"`
		O *nn.Linear `torch:"o_proj"`
	} `torch:"self_attn"`
	MLP struct {
		Gate    *nn.Linear `torch:"gate"`
		Experts struct {
			GateUp *torch.Tensor `torch:"gate_up_proj"` // (E, 2I, C)
			Down   *torch.Tensor `torch:"down_proj"`    // (E, C, I)
		} `torch:"experts"`
	} `torch:"mlp"`
	In   *nn.RMSNorm `torch:"input_layernorm"`
	Post *nn.RMSNorm `torch:"post_attention_layernorm"`
}

func (*mixtral) Forward(pretrained.Inputs) *pretrained.Output { panic("parameters only") }

type mixtralConfig struct {
	pretrained.ConfigBase

	Hidden  int `json:"hidden_size"`
	Inner   int `json:"intermediate_size"`
	Layers  int `json:"num_hidden_layers"`
	Heads   int `json:"num_attention_heads"`
	KVHeads int `json:"num_key_value_heads"`
	Vocab   int `json:"vocab_size"`
	Experts int `json:"num_local_experts"`
}

func (*mixtralConfig) Validate() error { return nil } // it is our own

func newMixtral(b nn.Builder, c *mixtralConfig) *mixtral {
	bare := nn.LinearOptions{Bias: torch.Some(false)}
	m := &mixtral{Model: &mixtralModel{Embed: b.Embedding(c.Vocab, c.Hidden), Norm: b.RMSNorm(c.Hidden)}, Head: b.Linear(c.Hidden, c.Vocab, bare)}
	for range c.Layers {
		l := &mixtralLayer{In: b.RMSNorm(c.Hidden), Post: b.RMSNorm(c.Hidden)}
		l.Attention.Q, l.Attention.O = b.Linear(c.Hidden, c.Hidden, bare), b.Linear(c.Hidden, c.Hidden, bare)
		kv := c.Hidden / c.Heads * c.KVHeads
		l.Attention.K, l.Attention.V = b.Linear(c.Hidden, kv, bare), b.Linear(c.Hidden, kv, bare)
		l.MLP.Gate = b.Linear(c.Hidden, c.Experts, bare)
		l.MLP.Experts.GateUp, l.MLP.Experts.Down = b.Parameter(c.Experts, 2*c.Inner, c.Hidden), b.Parameter(c.Experts, c.Hidden, c.Inner)
		m.Model.Layers = append(m.Model.Layers, l)
	}
	return m
}

func registerMixtral() {
	pretrained.Register(pretrained.Architecture{
		ModelType: "mixtral", Prefix: "model",
		NewConfig: func() pretrained.Config {
			return &mixtralConfig{ConfigBase: pretrained.ConfigBase{ModelType: "mixtral"}}
		},
		Renamings: []pretrained.KeyRule{{Pattern: `\.block_sparse_moe\.`, Replacement: ".mlp."}},
		Converters: []pretrained.Converter{
			{Sources: []string{".experts.*.w1.weight", ".experts.*.w3.weight"}, Targets: []string{".experts.gate_up_proj"},
				Ops: []pretrained.Op{pretrained.Stack{}, pretrained.Concatenate{Dim: 1}}},
			{Sources: []string{".experts.*.w2.weight"}, Targets: []string{".experts.down_proj"}, Ops: []pretrained.Op{pretrained.Stack{}}},
		},
		Classes: []pretrained.Class{{Name: "MixtralForCausalLM", New: pretrained.Build(newMixtral)}},
	})
}
