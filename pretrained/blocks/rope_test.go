package blocks_test

import (
	"encoding/json"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/torchgo/torchgo/internal/testdata"
	"github.com/torchgo/torchgo/pretrained"
	"github.com/torchgo/torchgo/pretrained/blocks"
	"github.com/torchgo/torchgo/torch"
	"github.com/torchgo/torchgo/torch/nn"
)

func read(t *testing.T, name string, into any) {
	data, err := os.ReadFile(filepath.Join(testdata.Open(t, "llama"), name))
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal(data, into))
}

type ropeCase struct {
	Parameters map[string]any
	HeadDim    int `json:"head_dim"`
	Positions  int
}

func (c ropeCase) parse() (blocks.RoPE, []string, error) {
	base := &pretrained.ConfigBase{}
	params, err := blocks.StandardizeRoPE(base, c.Parameters, c.Positions)
	if err != nil {
		return blocks.RoPE{}, nil, err
	}
	r, err := blocks.ParseRoPE(base, params, c.HeadDim, c.Positions)
	return r, base.Warnings, err
}

// near is equality up to some units in the last place: libtorch's power, sine and cosine differ by one between kinds
// of CPU, which the steps after them carry on. It reports whether the values are the very same.
func near(t *testing.T, want []float64, got []float32, ulps float64, name string) (exact bool) {
	t.Helper()
	require.Len(t, got, len(want), name)
	exact = true
	for i, w := range want {
		if float32(w) != got[i] {
			exact = false
			ulp := float64(math.Nextafter32(float32(math.Abs(w)), math.MaxFloat32) - float32(math.Abs(w)))
			require.InDelta(t, w, float64(got[i]), ulps*ulp, "%s[%d]", name, i)
		}
	}
	return exact
}

func TestRoPEFunctions(t *testing.T) {
	var ref struct {
		Functions []struct {
			ropeCase
			Length          int
			InvFreq         []float64 `json:"inv_freq"`
			AttentionFactor float64   `json:"attention_factor"`
		}
	}
	read(t, "rope.json", &ref)
	require.Len(t, ref.Functions, 198)
	kinds, exact := map[string]bool{}, 0
	for _, c := range ref.Functions {
		r, _, err := c.parse()
		require.NoError(t, err, c.Parameters)
		name := fmt.Sprint(c.Parameters, c.HeadDim, c.Length)
		require.Equal(t, c.AttentionFactor, r.Attention(), name)
		if near(t, c.InvFreq, torch.ToSlice[float32](r.InvFreq(c.Length)), 4, name) {
			exact++
		}
		kinds[r.Type] = true
	}
	require.Len(t, kinds, 7)
	t.Logf("%d of %d to the last bit", exact, len(ref.Functions))
}

// A module sees sequences of several lengths: a dynamic one remembers the longest, as Python's does.
func TestRotaryEmbeddingOfManyLengths(t *testing.T) {
	var ref struct {
		Modules []struct {
			ropeCase
			Steps []struct {
				Length   int
				InvFreq  []float64 `json:"inv_freq"`
				Cos, Sin []float64
			}
		}
	}
	read(t, "rope.json", &ref)
	require.Len(t, ref.Modules, 3)
	for _, m := range ref.Modules {
		rope, _, err := m.parse()
		require.NoError(t, err)
		for _, given := range []bool{false, true} { // position ids
			module := blocks.NewRotaryEmbedding(nn.Builder{}, rope)
			for i, step := range m.Steps {
				x := torch.Zeros([]int{1, step.Length, 16})
				var positions *torch.Tensor
				if given {
					positions = torch.Arange(step.Length).Unsqueeze(0)
				}
				cos, sin := module.Forward(x, positions)
				last := func(x *torch.Tensor) []float32 {
					require.Equal(t, []int{1, 1, step.Length, 8}, []int(x.Shape()))
					return torch.ToSlice[float32](x.Select(2, step.Length-1).View(8))
				}
				name := fmt.Sprintf("%s, step %d, length %d", rope.Type, i, step.Length)
				// An angle of 40 radians that is a unit off turns that into several of the cosine.
				near(t, step.Cos, last(cos), 64, name)
				got := last(sin)
				for j := range 4 { // Rotate's sines have the sign that rotate_half has
					got[j] = -got[j]
				}
				near(t, step.Sin, got, 64, name)
			}
		}
	}
}

// What transformers refuses, or computes nonsense with, is an error that names the key.
func TestBadRoPE(t *testing.T) {
	var ref struct {
		Bad []struct {
			Parameters map[string]any
			Problem    string
			Missing    []string
		}
	}
	read(t, "rope.json", &ref)
	require.Len(t, ref.Bad, 16)
	for _, c := range ref.Bad {
		r, _, err := ropeCase{c.Parameters, 8, 16}.parse()
		if c.Parameters["partial_rotary_factor"] != nil { // fine by itself; Llama's class refuses it
			require.NoError(t, err)
			require.Equal(t, 4, r.Dim())
			continue
		}
		require.ErrorIs(t, err, pretrained.ErrBadConfig, c.Parameters)
		for _, key := range c.Missing {
			require.ErrorContains(t, err, key)
		}
		require.Contains(t, err.Error(), "rope_")
	}
	for name, c := range map[string]map[string]any{
		"rope_parameters.rope_theta":                          {"rope_theta": math.Inf(1)},
		"rope_parameters.factor":                              {"rope_type": "linear", "factor": math.NaN()},
		"rope_parameters.partial_rotary_factor":               {"partial_rotary_factor": 1.5},
		"rope_parameters.long_factor":                         {"rope_type": "longrope", "short_factor": []any{1.0, 1.0, 1.0, 1.0}, "long_factor": []any{1.0, "1", 1.0, 1.0}},
		"rope_parameters.truncate":                            {"rope_type": "yarn", "factor": 2.0, "truncate": "no"},
		"original_max_position_embeddings: expected":          {"rope_type": "longrope", "short_factor": []any{1.0, 1.0, 1.0, 1.0}, "long_factor": []any{1.0, 1.0, 1.0, 1.0}, "factor": 2.0, "original_max_position_embeddings": 1},
		"rope_parameters.factor: expected a number, got null": {"rope_type": "linear", "factor": nil},
		"rope_parameters.low_freq_factor: expected":           {"rope_type": "llama3", "factor": 2.0, "low_freq_factor": nil, "high_freq_factor": 4},
		"original_max_position_embeddings: expected a number": {"rope_type": "yarn", "factor": 2.0, "original_max_position_embeddings": nil},
		"not 1, whose logarithm divides":                      {"rope_type": "yarn", "factor": 2.0, "rope_theta": 1},
		"more than low_freq_factor":                           {"rope_type": "llama3", "factor": 2.0, "low_freq_factor": 4.0, "high_freq_factor": 4, "rope_theta": 1e4},
		`rope_type: expected one of default, dynamic`:         {"rope_type": "axial"},
	} {
		_, _, err := ropeCase{c, 8, 16}.parse()
		require.ErrorIs(t, err, pretrained.ErrBadConfig, name)
		require.ErrorContains(t, err, name)
	}
	_, _, err := ropeCase{map[string]any{}, 5, 16}.parse()
	require.ErrorIs(t, err, pretrained.ErrUnsupported)
	_, _, err = ropeCase{map[string]any{"rope_type": "dynamic", "factor": 2.0}, 2, 16}.parse()
	require.ErrorContains(t, err, "more than 2 rotated dimensions")

	_, warnings, err := ropeCase{map[string]any{"rope_type": "linear", "factor": 0.5, "mrope_section": nil}, 8, 16}.parse()
	require.NoError(t, err)
	require.Equal(t, []string{`rope_parameters.mrope_section means nothing to rope_type "linear"`, "rope_parameters.factor should be 1 or more, not 0.5"}, warnings)
}

// At the original length the short factors still hold (transformers: seq_len > original_max_position_embeddings).
func TestLongRoPEAtTheOriginalLength(t *testing.T) {
	c := ropeCase{map[string]any{"rope_type": "longrope", "short_factor": []any{1.0, 1.0}, "long_factor": []any{2.0, 4.0},
		"original_max_position_embeddings": int64(16)}, 4, 64}
	r, _, err := c.parse()
	require.NoError(t, err)
	near(t, []float64{1, 0.01}, torch.ToSlice[float32](r.InvFreq(16)), 4, "short")
	near(t, []float64{0.5, 0.0025}, torch.ToSlice[float32](r.InvFreq(17)), 4, "long")
}
