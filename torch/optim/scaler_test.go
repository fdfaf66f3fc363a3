package optim

import (
	"fmt"
	"math"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/torchgo/torchgo/torch"
)

// Scale, parameters and state follow Python's through infinite gradients, backoff and growth, with and
// without Unscale_.
func TestGradScaler(t *testing.T) {
	require.NoError(t, torch.Load())
	live := torch.LiveTensors()
	rows := optimRef(t)["scaler"].([]any)
	torch.Scope(func() {
		p := torch.FromSlice([]float32{1, 2}).SetRequiresGrad(true)
		opt := NewSGD([]*torch.Tensor{p}, SGDOptions{LR: 0.1})
		s := NewGradScaler(GradScalerOptions{InitScale: some(8.0), GrowthFactor: some(4.0), BackoffFactor: some(0.25), GrowthInterval: some(3)})
		defer s.Close()
		for i, row := range rows {
			ref := row.(map[string]any)
			var g float64
			_, err := fmt.Sscan(ref["g"].(string), &g)
			require.NoError(t, err)
			torch.Scope(func() {
				opt.ZeroGrad()
				s.Scale(p.Mul(torch.FromSlice([]float32{float32(g), 1})).Sum()).Backward()
				if i%2 == 1 {
					s.Unscale_(opt)
					if !math.IsNaN(g) && !math.IsInf(g, 0) {
						require.Equal(t, []float32{float32(g), 1}, torch.ToSlice[float32](p.Grad()))
					}
				}
				s.Step(opt)
				s.Update()
			})
			for k, v := range ref["p"].([]any) {
				w, _ := number(v)
				require.Equal(t, float32(w), torch.ToSlice[float32](p)[k], "step %d", i)
			}
			requireSame(t, ref["state"], s.StateDict(), fmt.Sprint("step ", i))
		}
		// The state goes on elsewhere.
		other := NewGradScaler()
		require.NoError(t, other.LoadStateDict(s.StateDict()))
		require.Equal(t, s.StateDict(), other.StateDict())
		require.Equal(t, s.GetScale(), other.GetScale())
		require.ErrorContains(t, other.LoadStateDict(map[string]any{"scale": 1.0}), "growth_factor: the entry is missing")
		require.ErrorContains(t, other.LoadStateDict(nil), "The source state dict is empty")
	})
	require.LessOrEqual(t, torch.LiveTensors(), live)
}

// A scaler that is not enabled only steps.
func TestGradScalerDisabled(t *testing.T) {
	p := torch.FromSlice([]float32{1}).SetRequiresGrad(true)
	opt := NewSGD([]*torch.Tensor{p}, SGDOptions{LR: 0.5})
	s := NewGradScaler(GradScalerOptions{Enabled: some(false)})
	loss := p.Sum()
	require.Same(t, loss, s.Scale(loss))
	loss.Backward()
	s.Unscale_(opt)
	s.Step(opt)
	s.Update()
	require.Equal(t, float32(0.5), torch.Item[float32](p))
	require.Equal(t, 1.0, s.GetScale())
	require.Empty(t, s.StateDict())
}

func TestGradScalerOrder(t *testing.T) {
	p := torch.FromSlice([]float32{1}).SetRequiresGrad(true)
	opt := NewSGD([]*torch.Tensor{p})
	s := NewGradScaler()
	defer s.Close()
	requireMessage := func(want string, fn func()) {
		t.Helper()
		require.ErrorContains(t, torch.TryDo(fn), want)
	}
	requireMessage("Attempted unscale_ but _scale is None", func() { s.Unscale_(opt) })
	requireMessage("Attempted update but _scale is None", func() { s.Update() })
	s.Scale(p.Sum()).Backward()
	s.Unscale_(opt)
	requireMessage("unscale_() has already been called on this optimizer since the last update().", func() { s.Unscale_(opt) })
	s.Step(opt)
	requireMessage("unscale_() is being called after step().", func() { s.Unscale_(opt) })
	requireMessage("step() has already been called since the last update().", func() { s.Step(opt) })
	s.Update()
	requireMessage("No inf checks were recorded prior to update.", func() { s.Update() })
	opt.ZeroGrad()
	requireMessage("No inf checks were recorded for this optimizer.", func() { s.Step(opt) })
	requireMessage("The growth factor must be > 1.0.", func() { NewGradScaler(GradScalerOptions{GrowthFactor: some(1.0)}) })

	half := torch.Zeros([]int{1}, torch.TensorOptions{DType: torch.Float16}).SetRequiresGrad(true)
	half.SetGrad(torch.Zeros([]int{1}, torch.TensorOptions{DType: torch.Float16}))
	requireMessage("Attempting to unscale FP16 gradients.", func() { s.Unscale_(NewSGD([]*torch.Tensor{half})) })
}
