package blocks_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/torchgo/torchgo/pretrained"
	"github.com/torchgo/torchgo/pretrained/blocks"
	"github.com/torchgo/torchgo/pretrained/internal/modeltest"
	"github.com/torchgo/torchgo/torch"
	"github.com/torchgo/torchgo/torch/nn"
)

// In half precision each step rounds where transformers' does: the results are the same to the last bit.
func TestHalfPrecision(t *testing.T) {
	var ref []struct {
		DType                                            string
		X, Weight, Norm, Cos, Sin, Turned, K, Y, Weights modeltest.Value
	}
	read(t, "blocks.json", &ref)
	require.Len(t, ref, 2)
	for _, c := range ref {
		dtype, err := torch.ParseDType(c.DType)
		require.NoError(t, err)
		tensor := func(v modeltest.Value) *torch.Tensor { return v.Tensor(t).ToDType(dtype) }
		equal := func(want modeltest.Value, got *torch.Tensor, name string) {
			require.Equal(t, dtype, got.DType(), name)
			require.Equal(t, torch.ToSlice[float32](want.Tensor(t).View(-1)), torch.ToSlice[float32](got.ToDType(torch.Float32).Reshape(-1)), "%s %s", c.DType, name)
		}
		norm := blocks.NewRMSNorm(nn.Builder{DType: dtype}, 16, 1e-5)
		torch.NoGrad(func() { norm.Weight.Copy_(tensor(c.Weight)) })
		x := tensor(c.X)
		equal(c.Norm, norm.Forward(x).Detach(), "norm")

		rope, _, err := ropeCase{nil, 8, 16}.parse()
		require.NoError(t, err)
		cos, sin := blocks.NewRotaryEmbedding(nn.Builder{}, rope).Forward(x, nil)
		equal(c.Cos, cos, "cos")
		half := sin.Narrow(-1, 0, 4).Neg()
		equal(c.Sin, torch.Cat([]*torch.Tensor{half, sin.Narrow(-1, 4, 4)}, torch.CatOptions{Dim: -1}), "sin")
		q := x.View(2, 4, 2, 8).Transpose(1, 2)
		equal(c.Turned, blocks.Rotate(q, cos, sin), "turned")

		y, weights := nn.AttentionWithWeights(q, tensor(c.K), tensor(c.K), nil, nn.AttentionOptions{Kind: nn.Eager, Scale: 0.25, Float32Softmax: true})
		equal(c.Weights, weights, "weights")
		equal(c.Y, y, "attention")
	}
}

// A float64 model's norm and attention weights are computed in float32, too.
func TestFloat64(t *testing.T) {
	single := func(x *torch.Tensor) bool { return x.ToDType(torch.Float32).ToDType(torch.Float64).Equal(x) }
	torch.ManualSeed(3)
	b := nn.Builder{DType: torch.Float64}
	x := torch.Randn([]int{1, 4, 16}, torch.TensorOptions{DType: torch.Float64})
	require.False(t, single(x))
	require.True(t, single(blocks.NewRMSNorm(b, 16, 1e-5).Forward(x)))
	rope, _, err := ropeCase{nil, 8, 16}.parse()
	require.NoError(t, err)
	cos, sin := blocks.NewRotaryEmbedding(b, rope).Forward(x, nil)
	a := blocks.NewSelfAttention(b, &pretrained.ConfigBase{Attn: nn.Eager}, blocks.SelfAttentionOptions{Hidden: 16, Heads: 2, KVHeads: 1, HeadDim: 8})
	y, weights := a.Forward(x, nil, cos, sin)
	require.True(t, single(weights))
	require.False(t, single(y))
	require.Equal(t, torch.Float64, y.DType())
}

// Rotating a part of a head leaves the rest.
func TestRotatePart(t *testing.T) {
	rope, _, err := ropeCase{map[string]any{"partial_rotary_factor": 0.5}, 8, 16}.parse()
	require.NoError(t, err)
	whole, _, err := ropeCase{nil, 4, 16}.parse()
	require.NoError(t, err)
	x := torch.Arange(2*3*8).ToDType(torch.Float32).View(1, 2, 3, 8)
	cos, sin := blocks.NewRotaryEmbedding(nn.Builder{}, rope).Forward(x.View(1, 3, 16), nil)
	got := blocks.Rotate(x, cos, sin)
	cos, sin = blocks.NewRotaryEmbedding(nn.Builder{}, whole).Forward(x.View(1, 3, 16), nil)
	require.True(t, got.Narrow(-1, 0, 4).Equal(blocks.Rotate(x.Narrow(-1, 0, 4), cos, sin)))
	require.True(t, got.Narrow(-1, 4, 4).Equal(x.Narrow(-1, 4, 4)))
	require.True(t, got.Select(2, 0).Equal(x.Select(2, 0)), "position 0 is not turned")
}
