package optim

import "github.com/torchgo/torchgo/torch"

// Adamax is torch.optim.Adamax (Kingma and Ba, 2014). With g' = g + λθ:
//
//	m ← β₁m + (1 − β₁)g'
//	u ← max(β₂u, |g'| + ε)
//	θ ← θ − γ/(1 − β₁ᵗ) · m/u
type Adamax = Base[AdamaxOptions]

// AdamaxOptions are the options of [Adamax].
type AdamaxOptions struct {
	LR          float64               // γ; 0: 2e-3
	Betas       torch.Opt[[2]float64] // β₁, β₂; default 0.9, 0.999
	Eps         torch.Opt[float64]    // ε; default 1e-8
	WeightDecay float64               // λ
	Maximize    bool
	Foreach     torch.Opt[bool]
}

// NewAdamax makes an [Adamax] optimizer of params.
func NewAdamax(params []*torch.Tensor, opts ...AdamaxOptions) *Adamax {
	return newBase(adamax, params, opts)
}

var adamax = &rule[AdamaxOptions]{
	name: "Adamax", slots: []string{"exp_avg", "exp_inf"}, counts: true,
	table: func(o *AdamaxOptions) []option {
		return []option{{"lr", &o.LR, 2e-3}, {"betas", &o.Betas, pair{0.9, 0.999}}, {"eps", &o.Eps, 1e-8},
			{"weight_decay", &o.WeightDecay, nil}, {"foreach", &o.Foreach, nil}, {"maximize", &o.Maximize, nil},
			fixed("differentiable"), fixed("capturable")}
	},
	check: func(o *AdamaxOptions) rules {
		betas := o.Betas.Or(pair{})
		return append(append(rules{
			{o.LR >= 0, "Invalid learning rate: %v", o.LR},
			{o.Eps.Or(0) >= 0, "Invalid epsilon value: %v", o.Eps.Or(0)}},
			validBetas(betas[0], betas[1])...), rules{
			{o.WeightDecay >= 0, "Invalid weight_decay value: %v", o.WeightDecay}}...)
	},
	update: func(o *AdamaxOptions, m *batch) {
		fe, betas := torch.Internal, o.Betas.Or(pair{})
		steps := m.tick()
		params, g := m.decayed(o.Maximize, o.WeightDecay)
		avg, inf := m.slot(0), m.slot(1)
		fe.ForeachLerpScalar_(avg, g, 1-betas[0])
		fe.ForeachMulScalar_(inf, betas[1])
		size := fe.ForeachAbs(g)
		fe.ForeachAddScalar_(size, o.Eps.Or(0))
		fe.ForeachMaximum_(inf, size)
		fe.ForeachAddcdivScalarList_(params, avg, inf, each(steps, func(t float64) float64 { return -(o.LR / (1 - pow(betas[0], t))) }))
	},
}
