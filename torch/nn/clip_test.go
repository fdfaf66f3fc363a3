package nn_test

import (
	"encoding/json"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/torchgo/torchgo/internal/testdata"
	"github.com/torchgo/torchgo/torch"
	"github.com/torchgo/torchgo/torch/nn"
)

// Norms and clipped gradients are Python's, for several orders, dtypes in one list, and either form.
func TestClipGradNorm(t *testing.T) {
	require.NoError(t, torch.Load())
	text, err := os.ReadFile(filepath.Join(testdata.Open(t, "optim"), "reference.json"))
	require.NoError(t, err)
	// The file has Infinity elsewhere, which encoding/json refuses.
	var ref struct {
		Clip []struct {
			Norm          string
			Limit, Total  float64
			Before, After [][]float64
		}
	}
	require.NoError(t, json.Unmarshal(finite(text), &ref))
	require.Len(t, ref.Clip, 10)
	for _, c := range ref.Clip {
		for _, foreach := range []bool{true, false} {
			torch.Scope(func() {
				norm, err := strconv.ParseFloat(c.Norm, 64)
				require.NoError(t, err)
				shapes := [][]int{{3, 2}, {4}, {}}
				var params []*torch.Tensor
				for i, before := range c.Before {
					g := torch.FromSlice(before, shapes[i]...)
					if i > 0 {
						g = g.ToDType(torch.Float32)
					}
					p := torch.ZerosLike(g).SetRequiresGrad(true)
					p.SetGrad(g)
					params = append(params, p)
				}
				params = append(params, torch.Zeros([]int{2}).SetRequiresGrad(true)) // without a gradient
				total := nn.ClipGradNorm_(params, c.Limit, nn.ClipGradNormOptions{NormType: torch.Some(norm), Foreach: torch.Some(foreach)})
				require.InEpsilon(t, c.Total, torch.Item[float64](total), 1e-7)
				for i, after := range c.After {
					require.InDeltaSlice(t, after, torch.ToSlice[float64](params[i].Grad()), 1e-7)
				}
				require.Nil(t, params[3].Grad())
			})
		}
	}
}

// finite replaces the names of numbers that JSON doesn't have.
func finite(text []byte) []byte {
	out := make([]byte, 0, len(text))
	for i := 0; i < len(text); i++ {
		for _, name := range []string{"-Infinity", "Infinity", "NaN"} {
			if i > 0 && text[i-1] == ' ' && len(text) > i+len(name) && string(text[i:i+len(name)]) == name {
				i += len(name)
				out = append(out, '0')
			}
		}
		out = append(out, text[i])
	}
	return out
}

func TestClipGradNormNonfinite(t *testing.T) {
	p := torch.Zeros([]int{2}).SetRequiresGrad(true)
	p.SetGrad(torch.FromSlice([]float32{float32(math.Inf(1)), 1}))
	require.ErrorContains(t, torch.TryDo(func() { nn.ClipGradNorm_([]*torch.Tensor{p}, 1, nn.ClipGradNormOptions{ErrorIfNonfinite: true}) }),
		"The total norm of order 2 for gradients from `parameters` is non-finite")
	require.Equal(t, []float32{float32(math.Inf(1)), 1}, torch.ToSlice[float32](p.Grad()))
	require.Equal(t, float32(0), torch.Item[float32](nn.ClipGradNorm_(nil, 1)))
}

// The limits themselves stay, what is outside goes to them.
func TestClipGradValue(t *testing.T) {
	for _, foreach := range []bool{true, false} {
		p := torch.Zeros([]int{4}).SetRequiresGrad(true)
		p.SetGrad(torch.FromSlice([]float32{-3, 0.5, 0.25, float32(math.Inf(1))}))
		nn.ClipGradValue_([]*torch.Tensor{p, torch.Zeros([]int{1})}, 0.5, nn.ClipGradValueOptions{Foreach: torch.Some(foreach)})
		require.Equal(t, []float32{-0.5, 0.5, 0.25, 0.5}, torch.ToSlice[float32](p.Grad()))
	}
}

// A norm belongs to the scope around the call, and nothing else stays.
func TestClipGradNormLeavesNothing(t *testing.T) {
	p := torch.Zeros([]int{4}).SetRequiresGrad(true)
	p.SetGrad(torch.Ones([]int{4}))
	torch.Collect() // what other tests have left
	live := torch.LiveTensors()
	torch.Scope(func() {
		total := nn.ClipGradNorm_([]*torch.Tensor{p}, 1)
		require.Equal(t, float32(2), torch.Item[float32](total))
		require.Equal(t, live+1, torch.LiveTensors())
	})
	require.Equal(t, live, torch.LiveTensors())
}
