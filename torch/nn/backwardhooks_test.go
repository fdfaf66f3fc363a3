package nn_test

import (
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/torchgo/torchgo/torch"
	"github.com/torchgo/torchgo/torch/nn"
)

// scale is y = a·x·w, of two inputs and one parameter.
type scale struct {
	nn.Hooks
	W *torch.Tensor `torch:"w"`
}

func (m *scale) Forward(a, x *torch.Tensor) *torch.Tensor {
	return m.CallAll([]*torch.Tensor{a, x}, func(in []*torch.Tensor) []*torch.Tensor {
		y := in[1].Mul(m.W)
		if in[0] != nil {
			y = y.Mul(in[0])
		}
		return []*torch.Tensor{y}
	})[0]
}

func leaf(v ...float64) *torch.Tensor { return torch.FromSlice(v).SetRequiresGrad(true) }

func numbers(ts []*torch.Tensor) (all [][]float64) {
	for _, t := range ts {
		if t == nil {
			all = append(all, nil)
			continue
		}
		all = append(all, torch.ToSlice[float64](t.Detach()))
	}
	return all
}

func TestFullBackwardHooks(t *testing.T) {
	torch.Collect() // what other tests have left
	before := torch.LiveTensors()
	torch.Scope(func() {
		m := &scale{W: leaf(2)}
		a, x := torch.FromSlice([]float64{5}), leaf(3)
		var seen [][][]float64
		var order []string
		remove := nn.RegisterFullBackwardHook(m, func(mod any, gradIn, gradOut []*torch.Tensor) []*torch.Tensor {
			require.Same(t, m, mod)
			order = append(order, "hook")
			seen = append(seen, numbers(gradIn), numbers(gradOut))
			return []*torch.Tensor{nil, gradIn[1].MulScalar(100)}
		})
		removePre := nn.RegisterFullBackwardPreHook(m, func(_ any, gradOut []*torch.Tensor) []*torch.Tensor {
			order = append(order, "pre")
			return []*torch.Tensor{gradOut[0].MulScalar(7)}
		})
		// y = 30, dy/dx = 10, dy/dw = 15
		y := m.Forward(a, x)
		require.Equal(t, []float64{30}, torch.ToSlice[float64](y.Detach()))
		y.Backward()
		require.Equal(t, []string{"pre", "hook"}, order)
		require.Equal(t, [][][]float64{{{0}, {70}}, {{7}}}, seen, "as in PyTorch")
		require.Equal(t, []float64{7000}, torch.ToSlice[float64](x.Grad()), "what the hook made of it")
		require.Equal(t, []float64{105}, torch.ToSlice[float64](m.W.Grad()), "after the first hook, before the second")

		removePre()
		remove()
		x.SetGrad(nil)
		m.Forward(nil, x).Backward()
		require.Equal(t, []float64{2}, torch.ToSlice[float64](x.Grad()))
		require.Len(t, order, 2)
	})
	settle(t, before)
}

func TestFullBackwardHooksWithoutInputGradients(t *testing.T) {
	torch.Collect() // what other tests have left
	before := torch.LiveTensors()
	torch.Scope(func() {
		m := &scale{W: leaf(2)}
		x := torch.FromSlice([]float64{3})
		var seen [][]float64
		var back []*torch.Tensor
		nn.RegisterFullBackwardHook(m, func(_ any, gradIn, gradOut []*torch.Tensor) []*torch.Tensor {
			require.Equal(t, [][]float64{nil, nil}, numbers(gradIn))
			seen = append(seen, numbers(gradOut)...)
			return back
		})
		m.Forward(nil, x).Backward()
		require.Equal(t, [][]float64{{1}}, seen)
		require.Equal(t, []float64{3}, torch.ToSlice[float64](m.W.Grad()))
		back = []*torch.Tensor{nil, x}
		require.ErrorContains(t, torch.TryDo(func() { m.Forward(nil, x).Backward() }), "no input requires a gradient")
		torch.NoGrad(func() { require.False(t, m.Forward(nil, x).RequiresGrad()) })
	})
	settle(t, before)
}

// Hooks see gradients that can be differentiated, and passes that never reach the inputs keep nothing.
func TestFullBackwardHooksInHigherOrder(t *testing.T) {
	torch.Collect() // what other tests have left
	before := torch.LiveTensors()
	torch.Scope(func() {
		m := &scale{W: leaf(2)}
		x := leaf(3)
		nn.RegisterFullBackwardHook(m, func(_ any, gradIn, gradOut []*torch.Tensor) []*torch.Tensor {
			return []*torch.Tensor{nil, gradIn[1].Mul(gradOut[0])}
		})
		y := m.Forward(nil, x) // 6
		loss := y.Mul(y)       // d/dy = 2y; d/dx, as the hook has it, = 2yw·2y = 4w³x²
		g := torch.Grad([]*torch.Tensor{loss}, []*torch.Tensor{x}, torch.GradOptions{CreateGraph: true})[0]
		require.Equal(t, []float64{288}, torch.ToSlice[float64](g.Detach()))
		torch.Grad([]*torch.Tensor{loss}, []*torch.Tensor{m.W}, torch.GradOptions{RetainGraph: true})
		gg := torch.Grad([]*torch.Tensor{g}, []*torch.Tensor{m.W})[0] // g = 4w³x², d/dw = 12w²x²
		require.Equal(t, []float64{432}, torch.ToSlice[float64](gg))
	})
	settle(t, before)
}

func TestBackwardHookReturnsTooFew(t *testing.T) {
	torch.Scope(func() {
		m := &scale{W: leaf(2)}
		nn.RegisterFullBackwardHook(m, func(_ any, gradIn, gradOut []*torch.Tensor) []*torch.Tensor { return gradIn[:1] })
		require.ErrorContains(t, torch.TryDo(func() { m.Forward(nil, leaf(1)).Backward() }), "returned 1 gradients of inputs, want 2")
	})
}

func settle(t *testing.T, before int64) {
	t.Helper()
	for i := 0; i < 50 && torch.LiveTensors() > before; i++ {
		torch.Collect()
	}
	require.LessOrEqual(t, torch.LiveTensors(), before)
}
