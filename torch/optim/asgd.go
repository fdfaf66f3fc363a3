package optim

import (
	"math"

	"github.com/torchgo/torchgo/torch"
)

// ASGD is averaged stochastic gradient descent (torch.optim.ASGD; Polyak and Juditsky, 1992). The average is
// the entry "ax" of the state. With g' = g + λθ; η and μ begin as γ and 1:
//
//	θ ← θ(1 − ℓη) − ηg'
//	ax ← ax + μ(θ − ax)
//	η ← γ/(1 + ℓγt)^α, μ ← 1/max(1, t − t₀)
type ASGD = Base[ASGDOptions]

// ASGDOptions are the options of [ASGD].
type ASGDOptions struct {
	LR          float64            // γ; 0: 1e-2
	Lambd       torch.Opt[float64] // ℓ; default 1e-4
	Alpha       torch.Opt[float64] // α; default 0.75
	T0          torch.Opt[float64] // t₀; default 1e6
	WeightDecay float64            // λ
	Maximize    bool
	Foreach     torch.Opt[bool]
}

// NewASGD makes an [ASGD] optimizer of params.
func NewASGD(params []*torch.Tensor, opts ...ASGDOptions) *ASGD { return newBase(asgd, params, opts) }

var asgd = &rule[ASGDOptions]{
	name: "ASGD", slots: []string{"ax", "eta", "mu"}, counts: true, scalars: []int{1, 2},
	table: func(o *ASGDOptions) []option {
		return []option{{"lr", &o.LR, 1e-2}, {"lambd", &o.Lambd, 1e-4}, {"alpha", &o.Alpha, 0.75}, {"t0", &o.T0, 1e6},
			{"weight_decay", &o.WeightDecay, nil}, {"foreach", &o.Foreach, nil}, {"maximize", &o.Maximize, nil},
			fixed("differentiable"), fixed("capturable")}
	},
	check: func(o *ASGDOptions) rules {
		return rules{
			{o.LR >= 0, "Invalid learning rate: %v", o.LR},
			{o.Lambd.Or(0) >= 0, "Invalid lambd value: %v", o.Lambd.Or(0)},
			{o.Alpha.Or(0) >= 0, "Invalid alpha value: %v", o.Alpha.Or(0)},
			{o.WeightDecay >= 0, "Invalid weight_decay value: %v", o.WeightDecay},
		}
	},
	begin: func(o *ASGDOptions, e *entry, _ *torch.Tensor) {
		e.slots[0] = torch.ZerosLike(e.param)
		e.slots[1], e.slots[2] = torch.FromValue(float32(o.LR)), torch.Ones([]int{})
	},
	update: updateASGD,
}

func updateASGD(o *ASGDOptions, m *batch) {
	fe, lr, lambd, alpha := torch.Internal, o.LR, o.Lambd.Or(0), o.Alpha.Or(0)
	how := m.choose(false, o.Foreach, torch.Opt[bool]{})
	steps := m.tick()
	params, g := m.decayed(o.Maximize, o.WeightDecay)
	ax := m.slot(0)
	// The two numbers are float32, as PyTorch keeps them.
	eta, mu := make([]torch.Scalar, len(steps)), make([]torch.Scalar, len(steps))
	next := make([][2]float32, len(steps))
	for i, t := range steps {
		n := [2][]float32{torch.Data[float32](m.entries[i].slots[1]), torch.Data[float32](m.entries[i].slots[2])}
		eta[i], mu[i] = float64(n[0][0]), float64(n[1][0])
		next[i] = [2]float32{float32(lr / math.Pow(1+lambd*lr*t, alpha)), float32(1 / max(1, t-o.T0.Or(0)))}
		n[1][0] = next[i][1]
	}
	if how == foreach {
		g = fe.ForeachAdd(g, params, torch.InternalForeachAddOptions{Alpha: lambd})
		etas, mus := m.numbers(eta), m.numbers(mu)
		fe.ForeachAddcmul_(params, g, etas, torch.InternalForeachAddcmulOptions{Value: -1})
		fe.ForeachAddcmul_(ax, fe.ForeachSub(params, ax), mus)
		// PyTorch computes the next η in float32 here.
		for i, e := range m.entries {
			x := torch.FromValue(float32(steps[i])).MulScalar(lambd * lr).AddScalar(1).PowScalar(alpha)
			next[i][0] = torch.Item[float32](x.Reciprocal().MulScalar(lr))
			torch.Data[float32](e.slots[1])[0] = next[i][0]
		}
		return
	}
	shrink, minus := make([]torch.Scalar, len(steps)), make([]torch.Scalar, len(steps))
	for i := range steps {
		shrink[i], minus[i] = 1-lambd*eta[i].(float64), -eta[i].(float64)
	}
	fe.ForeachMulScalarList_(params, shrink)
	for i, p := range params {
		p.Add_(g[i], torch.AddOptions{Alpha: minus[i]})
		if mu[i] != 1.0 {
			ax[i].Add_(p.Sub(ax[i]).MulScalar_(mu[i]))
		} else {
			ax[i].Copy_(p)
		}
		torch.Data[float32](m.entries[i].slots[1])[0] = next[i][0]
	}
}

// numbers are tensors of one number for each parameter, on its device.
func (m *batch) numbers(values []torch.Scalar) []*torch.Tensor {
	list := make([]*torch.Tensor, len(values))
	for i, v := range values {
		list[i] = torch.Full([]int{}, v, torch.TensorOptions{DType: torch.Float32, Device: m.device})
	}
	return list
}
