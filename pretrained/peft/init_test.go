package peft

import (
	"math"
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/torchgo/torchgo/torch"
	"github.com/torchgo/torchgo/torch/nn"
)

func adapted(t *testing.T, c Config, layer any) (*single, *Adapters) {
	m := &single{Layer: layer}
	c.PeftType, c.TargetModules = LoRA, Names{List: []string{"layer"}}
	a := New(m, ModelInfo{})
	require.NoError(t, a.Add(&c, "default"))
	return m, a
}

// moments are mean, deviation and largest size of values.
func moments(x *torch.Tensor) (mean, deviation, most float64) {
	x = x.Detach().ToDType(torch.Float64)
	return torch.Item[float64](x.Mean()), torch.Item[float64](x.Std()), torch.Item[float64](x.Abs().Amax())
}

// A begins uniform in ±1/√in, or normal with deviation 1/r; B as zeros; with init_lora_weights false both as linear layers do.
func TestFirstValues(t *testing.T) {
	torch.ManualSeed(0)
	const in, out, r = 400, 300, 16
	bound := func(n float64) float64 { return 1 / math.Sqrt(n) }
	for _, c := range []struct {
		init       Init
		a, b       float64 // deviations
		aMax, bMax float64
	}{
		{"", bound(in) / math.Sqrt(3), 0, bound(in), 0},
		{InitTrue, bound(in) / math.Sqrt(3), 0, bound(in), 0},
		{InitGaussian, 1. / r, 0, 1, 0},
		{InitFalse, bound(in) / math.Sqrt(3), bound(r) / math.Sqrt(3), bound(in), bound(r)},
	} {
		_, a := adapted(t, Config{R: torch.Some(r), InitLoraWeights: c.init}, nn.NewLinear(in, out))
		e := a.entries("default")
		mean, deviation, most := moments(e[0].tensor)
		require.InDelta(t, 0, mean, 0.003, c.init)
		require.InDelta(t, c.a, deviation, c.a/20, c.init)
		require.LessOrEqual(t, most, c.aMax, c.init)
		_, deviation, most = moments(e[1].tensor)
		require.InDelta(t, c.b, deviation, c.b/20, c.init)
		require.LessOrEqual(t, most, c.bMax, c.init)
	}

	// With DoRA the magnitude is that of the weights, so that nothing changes.
	l := nn.NewLinear(in, out)
	x := torch.Randn([]int{5, in})
	before := l.Forward(x)
	m, a := adapted(t, Config{UseDoRA: true}, l)
	require.True(t, before.Allclose(m.forward(x), torch.AllcloseOptions{Atol: torch.Some(1e-5)}))
	require.True(t, a.entries("default")[2].tensor.Allclose(torch.LinalgVectorNorm(l.Weight.(*linear).Base.(*nn.Dense).W, torch.LinalgVectorNormOptions{Dim: []int{1}})))

	// One seed gives one adapter.
	values := func() *torch.Tensor {
		torch.ManualSeed(7)
		_, a := adapted(t, Config{}, nn.NewLinear(4, 3))
		return a.entries("default")[0].tensor.Detach()
	}
	require.True(t, values().Equal(values()))
}

// Dropout is on the adapter's input, in training mode.
func TestDropout(t *testing.T) {
	l := nn.NewLinear(6, 5)
	m, a := adapted(t, Config{R: torch.Some(2), LoraAlpha: torch.Some(3.), LoraDropout: 0.5, InitLoraWeights: InitFalse}, l)
	e := a.entries("default")
	A, B := e[0].tensor, e[1].tensor
	x := torch.Randn([]int{4, 6})
	base := l.Weight.(*linear).Base.Forward(x, l.Bias)
	formula := func(x *torch.Tensor) *torch.Tensor { return base.Add(x.MatMul(A.T()).MatMul(B.T()).MulScalar(1.5)) }
	nn.Eval(m)
	require.True(t, formula(x).Allclose(m.forward(x)))
	nn.Train(m)
	torch.ManualSeed(3)
	got := m.forward(x)
	torch.ManualSeed(3)
	require.True(t, formula(torch.Dropout(x, 0.5, true)).Allclose(got))
	require.False(t, formula(x).Allclose(got))
}

// An adapter that is added to a model in evaluation mode drops nothing.
func TestModeOfANewAdapter(t *testing.T) {
	for _, training := range []bool{true, false} {
		m := &single{Layer: nn.NewLinear(4, 4)}
		m.SetTraining(training)
		a := New(m, ModelInfo{})
		require.NoError(t, a.Add(&Config{PeftType: LoRA, LoraDropout: 1, InitLoraWeights: InitFalse, TargetModules: Names{List: []string{"layer"}}}, "default"))
		x := torch.Randn([]int{2, 4})
		with := m.forward(x)
		require.NoError(t, a.Disable())
		require.Equal(t, training, with.Equal(m.forward(x)))
	}
}

// Weights that aren't one tensor take LoRA, and nothing that needs their values.
func TestParametrizedWeights(t *testing.T) {
	l := nn.NewLinear(4, 3)
	nn.WeightNorm(l)
	m := &single{Layer: l}
	a := New(m, ModelInfo{})
	c := Config{PeftType: LoRA, InitLoraWeights: InitFalse, TargetModules: Names{List: []string{"layer"}}}
	x := torch.Randn([]int{2, 4})
	before := m.forward(x)
	require.NoError(t, a.Add(&c, "default"))
	require.False(t, before.Allclose(m.forward(x)))
	err := a.Merge()
	require.ErrorIs(t, err, ErrUnsupported)
	require.ErrorContains(t, err, "merging into a weight that is not one tensor: got a *nn.Parametrized")
	c.UseDoRA = true
	require.ErrorContains(t, a.Add(&c, "other"), "use_dora on a weight that is not one tensor")
	require.NoError(t, a.Unload())
	require.True(t, before.Equal(m.forward(x)))
}
