package pretrained_test

import (
	"crypto/sha256"
	"encoding/hex"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/torchgo/torchgo/internal/fileerr"
	"github.com/torchgo/torchgo/internal/testdata"
	"github.com/torchgo/torchgo/pretrained"
	"github.com/torchgo/torchgo/torch"
	"github.com/torchgo/torchgo/torch/nn"
)

// The corpus' models are tiny llamas: for these tests, one with parameters and no forward pass.
type llamaConfig struct {
	pretrained.ConfigBase

	VocabSize        int  `json:"vocab_size"`
	HiddenSize       int  `json:"hidden_size"`
	IntermediateSize int  `json:"intermediate_size"`
	Layers           int  `json:"num_hidden_layers"`
	Heads            int  `json:"num_attention_heads"`
	KVHeads          int  `json:"num_key_value_heads"`
	HeadDim          int  `json:"head_dim"`
	Tie              bool `json:"tie_word_embeddings"`
}

func (c *llamaConfig) Validate() error {
	return pretrained.CheckBounds([]pretrained.Bound{
		{Key: "vocab_size", Value: c.VocabSize, Min: 1, Max: pretrained.MaxSize},
		{Key: "hidden_size", Value: c.HiddenSize, Min: 1, Max: pretrained.MaxSize},
		{Key: "intermediate_size", Value: c.IntermediateSize, Min: 1, Max: pretrained.MaxSize},
		{Key: "num_hidden_layers", Value: c.Layers, Min: 0, Max: pretrained.MaxLayers},
		{Key: "num_attention_heads", Value: c.Heads, Min: 1, Max: pretrained.MaxSize},
		{Key: "num_key_value_heads", Value: c.KVHeads, Min: 1, Max: pretrained.MaxSize},
		{Key: "head_dim", Value: c.HeadDim, Min: 1, Max: pretrained.MaxSize},
	}...)
}

type (
	llamaAttention struct {
		Q *nn.Linear `torch:"q_proj"`
		K *nn.Linear `torch:"k_proj"`
		V *nn.Linear `torch:"v_proj"`
		O *nn.Linear `torch:"o_proj"`
	}
	llamaMLP struct {
		Gate *nn.Linear `torch:"gate_proj"`
		Up   *nn.Linear `torch:"up_proj"`
		Down *nn.Linear `torch:"down_proj"`
	}
	rmsNorm struct {
		Weight *torch.Tensor `torch:"weight"`
	}
	llamaLayer struct {
		Attention *llamaAttention `torch:"self_attn"`
		MLP       *llamaMLP       `torch:"mlp"`
		Input     *rmsNorm        `torch:"input_layernorm"`
		Post      *rmsNorm        `torch:"post_attention_layernorm"`
	}
	llamaBase struct {
		Embed  *nn.Embedding `torch:"embed_tokens"`
		Layers []*llamaLayer `torch:"layers"`
		Norm   *rmsNorm      `torch:"norm"`
	}
	llama struct {
		pretrained.PreTrainedModel
		Model *llamaBase `torch:"model"`
		Head  *nn.Linear `torch:"lm_head"`
	}
)

func (*llama) Forward(pretrained.Inputs) *pretrained.Output { panic("parameters only") }

func newLlama(b nn.Builder, c *llamaConfig) *llama {
	bare := nn.LinearOptions{Bias: torch.Some(false)}
	h, norm := c.HiddenSize, func() *rmsNorm { return &rmsNorm{b.Parameter(c.HiddenSize)} }
	m := &llama{Model: &llamaBase{Embed: b.Embedding(c.VocabSize, h), Norm: norm()}, Head: b.Linear(h, c.VocabSize, bare)}
	for range c.Layers {
		m.Model.Layers = append(m.Model.Layers, &llamaLayer{
			&llamaAttention{b.Linear(h, c.Heads*c.HeadDim, bare), b.Linear(h, c.KVHeads*c.HeadDim, bare),
				b.Linear(h, c.KVHeads*c.HeadDim, bare), b.Linear(c.Heads*c.HeadDim, h, bare)},
			&llamaMLP{b.Linear(h, c.IntermediateSize, bare), b.Linear(h, c.IntermediateSize, bare), b.Linear(c.IntermediateSize, h, bare)},
			norm(), norm()})
	}
	return m
}

func init() {
	pretrained.Register(pretrained.Architecture{ModelType: "llama", Prefix: "model",
		NewConfig: func() pretrained.Config {
			return &llamaConfig{ConfigBase: pretrained.ConfigBase{ModelType: "llama"}}
		},
		Classes: []pretrained.Class{{Name: "LlamaForCausalLM", New: pretrained.Build(newLlama)}}})
}

func TestHostileFolders(t *testing.T) {
	require.NoError(t, torch.Load())
	pickles := map[string]bool{"hf_ok_bin": true, "hf_ok_sharded_bin": true, "hf_bin_only_hostile": true}
	live := torch.LiveTensors()
	fds, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Log("descriptors are not counted here:", err)
	}
	for _, c := range testdata.Hostile(t, "hf_dir") {
		for _, opts := range []pretrained.Options{{Strict: true}, {Strict: true, DisableMmap: true}} {
			start := time.Now()
			m, _, err := pretrained.Load(ctx, c.Path, opts)
			require.Less(t, time.Since(start), 2*time.Second, c.ID)
			switch {
			case pickles[c.ID]: // until there is a reader
				require.ErrorIs(t, err, pretrained.ErrUnsupported, c.ID)
			case c.Expected == "ok":
				require.NoError(t, err, c.ID)
				got := state(m)
				require.Len(t, got, len(c.Tensors), c.ID)
				for name, want := range c.Tensors {
					sum := sha256.Sum256(got[name].Bytes())
					require.Equal(t, want.SHA256, hex.EncodeToString(sum[:16]), "%s: %s", c.ID, name)
					require.Equal(t, want.Shape, got[name].Shape())
				}
				m.Close()
			default:
				require.ErrorIs(t, err, fileerr.Class(c.ErrorClass), "%s (%s)", c.ID, c.Wrong)
				require.Contains(t, err.Error(), filepath.Base(c.Path), c.ID)
				require.NotContains(t, strings.TrimSpace(err.Error()), "\n", c.ID)
			}
		}
	}
	require.Equal(t, live, torch.LiveTensors())
	after, err := os.ReadDir("/proc/self/fd")
	if err == nil {
		require.Len(t, after, len(fds))
	}
}

func TestSpecialFilesDontBlock(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"config.json", "model.safetensors"} {
		path := filepath.Join(dir, name)
		require.NoError(t, syscall.Mkfifo(path, 0o600))
		_, _, err := pretrained.Load(ctx, dir, pretrained.Options{})
		require.ErrorIs(t, err, pretrained.ErrNotRegular)
		require.ErrorContains(t, err, path)
		require.NoError(t, os.Remove(path))
		require.NoError(t, os.WriteFile(path, []byte(`{"architectures": ["BertModel"], "model_type": "bert"}`), 0o600))
	}
}
