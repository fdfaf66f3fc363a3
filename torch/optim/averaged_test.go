package optim

import (
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/torchgo/torchgo/torch"
	"github.com/torchgo/torchgo/torch/nn"
)

type averagedNet struct {
	Linear *nn.Linear      `torch:"0"`
	Norm   *nn.BatchNorm1d `torch:"1"`
}

func (m *averagedNet) Forward(x *torch.Tensor) *torch.Tensor {
	return m.Norm.Forward(m.Linear.Forward(x))
}

// linspace is torch.linspace in float64.
func linspace(from, to float64, n int) *torch.Tensor {
	return torch.Linspace(from, to, n, torch.TensorOptions{DType: torch.Float64})
}

// changing are the tensors that the script changes, in its order.
func (m *averagedNet) changing() []*torch.Tensor {
	return append(nn.Parameters(m), m.Norm.RunningMean, m.Norm.RunningVar)
}

func newAveragedNet() *averagedNet {
	m := &averagedNet{nn.NewLinear(2, 3), nn.NewBatchNorm1d(3)}
	nn.To(m, torch.CPU, torch.Float64)
	torch.Scope(func() {
		torch.NoGrad(func() {
			for k, t := range m.changing() {
				t.Copy_(linspace(0.1*float64(k), 1, t.Numel()).View(t.Shape()...))
			}
		})
	})
	return m
}

// Averages, buffers and the count are Python's after each update, and the batch norm's values after
// UpdateBN.
func TestAveragedModel(t *testing.T) {
	require.NoError(t, torch.Load())
	ref := optimRef(t)["averaged"].(map[string]any)
	for name, opts := range map[string]AveragedModelOptions{"swa": {}, "ema": {Decay: some(0.9)}, "buffers": {Decay: some(0.5), UseBuffers: true}} {
		rows := ref[name].([]any)
		m := newAveragedNet()
		a := NewAveragedModel(m, opts)
		module := a.Module
		check := func(row any) {
			t.Helper()
			want := row.(map[string]any)
			n := 0
			for key, v := range nn.StateDict(a) {
				got := []any{}
				for _, x := range torch.ToSlice[float64](v.Detach()) {
					got = append(got, x)
				}
				require.Contains(t, want, key)
				requireSame(t, want[key], got, name+" "+key)
				n++
			}
			require.Len(t, want, n)
		}
		for i := range 4 {
			torch.Scope(func() {
				torch.NoGrad(func() {
					for k, p := range m.changing() {
						p.MulScalar_(0.9).AddScalar_(0.1 * float64(i+k))
					}
				})
			})
			a.UpdateParameters(m)
			check(rows[i])
		}
		if name == "swa" {
			nn.Eval(module)
			batches := []*torch.Tensor{}
			for i := range 3 {
				batches = append(batches, linspace(-1, float64(1+i), 8).View(4, 2).PowScalar(2))
			}
			UpdateBN(slices.Values(batches), a, module.Forward)
			check(rows[4])
			require.False(t, module.Norm.Training())
			require.False(t, module.Norm.Cumulative)
		}
	}
}

func TestAveragedModelRefuses(t *testing.T) {
	m := newAveragedNet()
	require.EqualError(t, torch.TryDo(func() { NewAveragedModel(m, AveragedModelOptions{Decay: some(1.5)}) }),
		"AveragedModel: Invalid decay value 1.5 provided. Please provide a value in [0,1] range.")
	a := NewAveragedModel[any](m)
	require.ErrorContains(t, torch.TryDo(func() { a.UpdateParameters(nn.NewLinear(2, 3)) }), "AveragedModel: the model has no 0.weight")
}
