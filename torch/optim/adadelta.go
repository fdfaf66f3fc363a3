package optim

import "github.com/torchgo/torchgo/torch"

// Adadelta is torch.optim.Adadelta (Zeiler, 2012). With g' = g + λθ:
//
//	v ← ρv + (1 − ρ)g'²
//	δ ← √(u + ε) / √(v + ε) · g'
//	u ← ρu + (1 − ρ)δ²
//	θ ← θ − γδ
type Adadelta = Base[AdadeltaOptions]

// AdadeltaOptions are the options of [Adadelta].
type AdadeltaOptions struct {
	LR          float64            // γ; 0: 1
	Rho         torch.Opt[float64] // ρ; default 0.9
	Eps         torch.Opt[float64] // ε; default 1e-6
	WeightDecay float64            // λ
	Maximize    bool
	Foreach     torch.Opt[bool]
}

// NewAdadelta makes an [Adadelta] optimizer of params.
func NewAdadelta(params []*torch.Tensor, opts ...AdadeltaOptions) *Adadelta {
	return newBase(adadelta, params, opts)
}

var adadelta = &rule[AdadeltaOptions]{
	name: "Adadelta", slots: []string{"square_avg", "acc_delta"}, counts: true,
	table: func(o *AdadeltaOptions) []option {
		return []option{{"lr", &o.LR, 1.0}, {"rho", &o.Rho, 0.9}, {"eps", &o.Eps, 1e-6}, {"weight_decay", &o.WeightDecay, nil},
			{"maximize", &o.Maximize, nil}, fixed("capturable"), {"foreach", &o.Foreach, nil}, fixed("differentiable")}
	},
	check: func(o *AdadeltaOptions) rules {
		rho, eps := o.Rho.Or(0), o.Eps.Or(0)
		return rules{
			{o.LR >= 0, "Invalid learning rate: %v", o.LR},
			{rho >= 0 && rho <= 1, "Invalid rho value: %v", rho},
			{eps >= 0, "Invalid epsilon value: %v", eps},
			{o.WeightDecay >= 0, "Invalid weight_decay value: %v", o.WeightDecay},
		}
	},
	update: func(o *AdadeltaOptions, m *batch) {
		fe, rho, eps := torch.Internal, o.Rho.Or(0), o.Eps.Or(0)
		m.tick()
		params, g := m.decayed(o.Maximize, o.WeightDecay)
		sq, acc := m.slot(0), m.slot(1)
		fe.ForeachMulScalar_(sq, rho)
		fe.ForeachAddcmul_(sq, g, g, torch.InternalForeachAddcmulOptions{Value: 1 - rho})
		std := fe.ForeachAddScalar(sq, eps)
		fe.ForeachSqrt_(std)
		delta := fe.ForeachAddScalar(acc, eps)
		fe.ForeachSqrt_(delta)
		fe.ForeachDiv_(delta, std)
		fe.ForeachMul_(delta, g)
		fe.ForeachMulScalar_(acc, rho)
		fe.ForeachAddcmul_(acc, delta, delta, torch.InternalForeachAddcmulOptions{Value: 1 - rho})
		fe.ForeachAdd_(params, delta, torch.InternalForeachAddOptions{Alpha: -o.LR})
	},
}
