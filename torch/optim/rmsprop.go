package optim

import "github.com/torchgo/torchgo/torch"

// RMSprop is torch.optim.RMSprop (Hinton's lectures; centered: Graves, 2013). With g' = g + λθ:
//
//	v ← αv + (1 − α)g'²
//	a ← √v + ε; centered: ḡ ← αḡ + (1 − α)g' and a ← √(v − ḡ²) + ε
//	θ ← θ − γ g'/a; with momentum μ: b ← μb + g'/a and θ ← θ − γb
type RMSprop = Base[RMSpropOptions]

// RMSpropOptions are the options of [RMSprop].
type RMSpropOptions struct {
	LR          float64            // γ; 0: 1e-2
	Alpha       torch.Opt[float64] // α; default 0.99
	Eps         torch.Opt[float64] // ε; default 1e-8
	WeightDecay float64            // λ
	Momentum    float64            // μ
	Centered    bool
	Maximize    bool
	Foreach     torch.Opt[bool]
}

// NewRMSprop makes an [RMSprop] optimizer of params.
func NewRMSprop(params []*torch.Tensor, opts ...RMSpropOptions) *RMSprop {
	return newBase(rmsprop, params, opts)
}

var rmsprop = &rule[RMSpropOptions]{
	name: "RMSprop", slots: []string{"square_avg", "momentum_buffer", "grad_avg"}, counts: true,
	table: func(o *RMSpropOptions) []option {
		return []option{{"lr", &o.LR, 1e-2}, {"momentum", &o.Momentum, nil}, {"alpha", &o.Alpha, 0.99}, {"eps", &o.Eps, 1e-8},
			{"centered", &o.Centered, nil}, {"weight_decay", &o.WeightDecay, nil}, fixed("capturable"),
			{"foreach", &o.Foreach, nil}, {"maximize", &o.Maximize, nil}, fixed("differentiable")}
	},
	check: func(o *RMSpropOptions) rules {
		return rules{
			{o.LR >= 0, "Invalid learning rate: %v", o.LR},
			{o.Eps.Or(0) >= 0, "Invalid epsilon value: %v", o.Eps.Or(0)},
			{o.Momentum >= 0, "Invalid momentum value: %v", o.Momentum},
			{o.WeightDecay >= 0, "Invalid weight_decay value: %v", o.WeightDecay},
			{o.Alpha.Or(0) >= 0, "Invalid alpha value: %v", o.Alpha.Or(0)},
		}
	},
	needs: func(o *RMSpropOptions, _ *entry) []int {
		slots := []int{0}
		if o.Momentum > 0 {
			slots = append(slots, 1)
		}
		if o.Centered {
			slots = append(slots, 2)
		}
		return slots
	},
	update: func(o *RMSpropOptions, m *batch) {
		fe, alpha := torch.Internal, o.Alpha.Or(0)
		m.tick()
		params, g := m.decayed(o.Maximize, o.WeightDecay)
		sq := m.slot(0)
		fe.ForeachMulScalar_(sq, alpha)
		fe.ForeachAddcmul_(sq, g, g, torch.InternalForeachAddcmulOptions{Value: 1 - alpha})
		var avg []*torch.Tensor
		if o.Centered {
			mean := m.slot(2)
			fe.ForeachLerpScalar_(mean, g, 1-alpha)
			avg = fe.ForeachAddcmul(sq, mean, mean, torch.InternalForeachAddcmulOptions{Value: -1})
			fe.ForeachSqrt_(avg)
		} else {
			avg = fe.ForeachSqrt(sq)
		}
		fe.ForeachAddScalar_(avg, o.Eps.Or(0))
		if o.Momentum > 0 {
			b := m.slot(1)
			fe.ForeachMulScalar_(b, o.Momentum)
			fe.ForeachAddcdiv_(b, g, avg)
			fe.ForeachAdd_(params, b, torch.InternalForeachAddOptions{Alpha: -o.LR})
		} else {
			fe.ForeachAddcdiv_(params, g, avg, torch.InternalForeachAddcdivOptions{Value: -o.LR})
		}
	},
}
