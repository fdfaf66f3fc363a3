package optim_test

import (
	"math"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/torchgo/torchgo/torch"
	"github.com/torchgo/torchgo/torch/optim"
)

// leaf is a parameter of float64 values.
func leaf(values ...float64) *torch.Tensor { return torch.FromSlice(values).SetRequiresGrad(true) }

// sumSquares has the gradient 2x.
func sumSquares(ps ...*torch.Tensor) *torch.Tensor {
	loss := ps[0].Mul(ps[0]).Sum()
	for _, p := range ps[1:] {
		loss = loss.Add(p.Mul(p).Sum())
	}
	return loss
}

// Two steps of each optimizer by hand, in every implementation.
func TestStepsByHand(t *testing.T) {
	const x0, lr = 3.0, 0.1
	for name, opts := range map[string][2]torch.Opt[bool]{
		"default":  {},
		"for loop": {torch.Some(false), torch.Some(false)},
		"foreach":  {torch.Some(true), torch.Opt[bool]{}},
		"fused":    {torch.Opt[bool]{}, torch.Some(true)},
	} {
		t.Run(name, func(t *testing.T) {
			run := func(p *torch.Tensor, opt optim.Optimizer) float64 {
				defer opt.Close()
				for range 2 {
					torch.Scope(func() {
						opt.ZeroGrad()
						sumSquares(p).Backward()
						opt.Step()
					})
				}
				return torch.Item[float64](p)
			}
			p := leaf(x0)
			got := run(p, optim.NewSGD([]*torch.Tensor{p}, optim.SGDOptions{LR: lr, Momentum: 0.5, Foreach: opts[0], Fused: opts[1]}))
			b := 2 * x0
			x := x0 - lr*b
			b = 0.5*b + 2*x
			require.InDelta(t, x-lr*b, got, 1e-15)

			adam := func(decay float64, decoupled bool) float64 {
				x, m, v := x0, 0.0, 0.0
				for i := 1; i <= 2; i++ {
					g := 2 * x
					if decoupled {
						x *= 1 - lr*decay
					} else {
						g += decay * x
					}
					m, v = 0.9*m+0.1*g, 0.999*v+0.001*g*g
					x -= lr * m / (1 - math.Pow(0.9, float64(i))) / (math.Sqrt(v/(1-math.Pow(0.999, float64(i)))) + 1e-8)
				}
				return x
			}
			p = leaf(x0)
			got = run(p, optim.NewAdam([]*torch.Tensor{p}, optim.AdamOptions{LR: lr, WeightDecay: 0.2, Foreach: opts[0], Fused: opts[1]}))
			require.InDelta(t, adam(0.2, false), got, 1e-12)
			p = leaf(x0)
			got = run(p, optim.NewAdamW([]*torch.Tensor{p}, optim.AdamWOptions{LR: lr, Foreach: opts[0], Fused: opts[1]}))
			require.InDelta(t, adam(0.01, true), got, 1e-12)
		})
	}
}

func TestParametersWithoutGradientStay(t *testing.T) {
	a, b := leaf(1, 2), leaf(3)
	opt := optim.NewAdam([]*torch.Tensor{a, b})
	defer opt.Close()
	sumSquares(a).Backward()
	opt.Step()
	require.Equal(t, []float64{3}, torch.ToSlice[float64](b))
	require.NotEqual(t, []float64{1, 2}, torch.ToSlice[float64](a))
}

// A group has the optimizer's options where it has none of its own.
func TestAddParamGroup(t *testing.T) {
	a, b := leaf(1), leaf(1)
	opt := optim.NewSGD([]*torch.Tensor{a}, optim.SGDOptions{LR: 0.25})
	defer opt.Close()
	opt.AddParamGroup([]*torch.Tensor{b}, func(o *optim.SGDOptions) { o.LR = 0 })
	require.Equal(t, 0.25, opt.Groups()[0].LR())
	sumSquares(a, b).Backward()
	opt.Step()
	require.Equal(t, 0.5, torch.Item[float64](a))
	require.Equal(t, 1.0, torch.Item[float64](b))
	opt.Groups()[1].SetLR(0.5)
	opt.Groups()[0].Options().(*optim.SGDOptions).LR = 0
	opt.Step()
	require.Equal(t, 0.5, torch.Item[float64](a))
	require.Equal(t, 0.0, torch.Item[float64](b))
}

func TestZeroGrad(t *testing.T) {
	a, b := leaf(1), leaf(2)
	opt := optim.NewSGD([]*torch.Tensor{a, b})
	sumSquares(a).Backward()
	opt.ZeroGrad(optim.ZeroGradOptions{SetToNone: torch.Some(false)})
	require.Equal(t, 0.0, torch.Item[float64](a.Grad()))
	require.Nil(t, b.Grad())
	opt.ZeroGrad()
	require.Nil(t, a.Grad())
}

// The closure's loss is returned, and computed with gradients although the caller has none.
func TestClosure(t *testing.T) {
	p := leaf(1)
	opt := optim.NewSGD([]*torch.Tensor{p}, optim.SGDOptions{LR: 0.25})
	torch.NoGrad(func() {
		loss := opt.Step(func() *torch.Tensor {
			opt.ZeroGrad()
			loss := sumSquares(p)
			loss.Backward()
			return loss
		})
		require.Equal(t, 1.0, torch.Item[float64](loss))
	})
	require.Equal(t, 0.5, torch.Item[float64](p))
}

// What steps make on the way is freed, what they keep belongs to the optimizer.
func TestStepLeavesNothing(t *testing.T) {
	a, b := leaf(1, 2), leaf(3)
	torch.Collect() // what other tests have left
	live := torch.LiveTensors()
	var opt optim.Optimizer
	torch.Scope(func() { opt = optim.NewAdamW([]*torch.Tensor{a, b}) })
	for range 3 {
		torch.Scope(func() {
			opt.ZeroGrad()
			sumSquares(a, b).Backward()
			opt.Step()
		})
	}
	require.EqualValues(t, live+6, torch.LiveTensors(), "two averages and a step counter for each")
	opt.Close()
	require.Equal(t, live, torch.LiveTensors())
}

func TestWrongArguments(t *testing.T) {
	p := leaf(1)
	params := []*torch.Tensor{p}
	for want, make := range map[string]func(){
		"SGD: Invalid learning rate: -1.0":                                    func() { optim.NewSGD(params, optim.SGDOptions{LR: -1}) },
		"SGD: Invalid momentum value: -0.5":                                   func() { optim.NewSGD(params, optim.SGDOptions{Momentum: -0.5}) },
		"SGD: Nesterov momentum requires a momentum and zero dampening":       func() { optim.NewSGD(params, optim.SGDOptions{Nesterov: true}) },
		"SGD: optimizer got an empty parameter list":                          func() { optim.NewSGD(nil) },
		"SGD: can't optimize a non-leaf Tensor":                               func() { optim.NewSGD([]*torch.Tensor{p.Mul(p)}) },
		"SGD: some parameters appear in more than one parameter group":        func() { optim.NewSGD(params).AddParamGroup(params) },
		"AdamW: Invalid beta parameter at index 0: 1.0":                       func() { optim.NewAdamW(params, optim.AdamWOptions{Betas: torch.Some([2]float64{1, 0})}) },
		"Adam: Invalid epsilon value: -1.0":                                   func() { optim.NewAdam(params, optim.AdamOptions{Eps: torch.Some(-1.0)}) },
		"AdamW: Invalid weight_decay value: -1.0":                             func() { optim.NewAdamW(params, optim.AdamWOptions{WeightDecay: torch.Some(-1.0)}) },
		"Adam: `fused` and `foreach` cannot be `True` together.":              func() { optim.NewAdam(params, optim.AdamOptions{Foreach: torch.Some(true), Fused: torch.Some(true)}) },
		"SGD: optimizer contains a parameter group with duplicate parameters": func() { optim.NewSGD([]*torch.Tensor{p, p}) },
	} {
		require.EqualError(t, torch.TryDo(make), want)
	}
}

func TestClosedOptimizer(t *testing.T) {
	p := torch.Ones([]int{2}).SetRequiresGrad(true)
	p.Sum().Backward()
	opt := optim.NewAdamW([]*torch.Tensor{p})
	opt.Step()
	opt.Close()
	opt.Close()
	require.ErrorIs(t, torch.TryDo(func() { opt.Step() }), torch.ErrClosed)
}
