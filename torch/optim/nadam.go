package optim

import (
	"math"

	"github.com/torchgo/torchgo/torch"
)

// NAdam is Adam with Nesterov's momentum (torch.optim.NAdam; Dozat, 2016). m, v, g' and decoupled decay are
// those of [Adam]; with the momentum decay ψ:
//
//	μₜ = β₁(1 − ½ · 0.96^(tψ)), πₜ = μ₁μ₂…μₜ
//	θ ← θ − γ ((1 − μₜ)/(1 − πₜ) g' + μₜ₊₁/(1 − πₜμₜ₊₁) m) / (√(v/(1 − β₂ᵗ)) + ε)
type NAdam = Base[NAdamOptions]

// NAdamOptions are the options of [NAdam].
type NAdamOptions struct {
	LR                   float64               // γ; 0: 2e-3
	Betas                torch.Opt[[2]float64] // β₁, β₂; default 0.9, 0.999
	Eps                  torch.Opt[float64]    // ε; default 1e-8
	WeightDecay          float64               // λ
	MomentumDecay        torch.Opt[float64]    // ψ; default 4e-3
	DecoupledWeightDecay bool
	Maximize             bool
	Foreach              torch.Opt[bool]
}

// NewNAdam makes an [NAdam] optimizer of params.
func NewNAdam(params []*torch.Tensor, opts ...NAdamOptions) *NAdam {
	return newBase(nadam, params, opts)
}

var nadam = &rule[NAdamOptions]{
	name: "NAdam", slots: []string{"exp_avg", "exp_avg_sq", "mu_product"}, counts: true, scalars: []int{2},
	table: func(o *NAdamOptions) []option {
		return []option{{"lr", &o.LR, 2e-3}, {"betas", &o.Betas, pair{0.9, 0.999}}, {"eps", &o.Eps, 1e-8},
			{"weight_decay", &o.WeightDecay, nil}, {"momentum_decay", &o.MomentumDecay, 4e-3},
			{"decoupled_weight_decay", &o.DecoupledWeightDecay, nil}, {"maximize", &o.Maximize, nil},
			{"foreach", &o.Foreach, nil}, fixed("capturable"), fixed("differentiable")}
	},
	check: func(o *NAdamOptions) rules {
		betas := o.Betas.Or(pair{})
		return append(append(rules{
			{o.LR >= 0, "Invalid learning rate: %v", o.LR},
			{o.Eps.Or(0) >= 0, "Invalid epsilon value: %v", o.Eps.Or(0)}},
			validBetas(betas[0], betas[1])...), rules{
			{o.WeightDecay >= 0, "Invalid weight_decay value: %v", o.WeightDecay},
			{o.MomentumDecay.Or(0) >= 0, "Invalid momentum_decay value: %v", o.MomentumDecay.Or(0)}}...)
	},
	begin: func(_ *NAdamOptions, e *entry, _ *torch.Tensor) {
		e.slots[0], e.slots[1] = torch.ZerosLike(e.param), torch.ZerosLike(e.param)
		e.slots[2] = torch.Ones([]int{})
	},
	update: func(o *NAdamOptions, m *batch) {
		fe, betas, lr, eps := torch.Internal, o.Betas.Or(pair{}), o.LR, o.Eps.Or(0)
		how := m.choose(false, o.Foreach, torch.Opt[bool]{})
		steps := m.tick()
		params, g := m.decoupled(o.Maximize, o.WeightDecay, lr, o.DecoupledWeightDecay)
		avg, sq := m.averages(g, betas)
		var denom []*torch.Tensor
		if how == foreach {
			denom = fe.ForeachSqrt(sq)
			fe.ForeachDivScalarList_(denom, each(steps, func(t float64) float64 { return math.Sqrt(1 - pow(betas[1], t)) }))
		} else {
			denom = fe.ForeachDivScalarList(sq, each(steps, func(t float64) float64 { return 1 - pow(betas[1], t) }))
			fe.ForeachSqrt_(denom)
		}
		fe.ForeachAddScalar_(denom, eps)
		ofGrad, ofAvg := make([]torch.Scalar, len(steps)), make([]torch.Scalar, len(steps))
		for i, t := range steps {
			mu := func(t float64) float64 { return betas[0] * (1 - 0.5*math.Pow(0.96, t*o.MomentumDecay.Or(0))) }
			product := torch.Data[float32](m.entries[i].slots[2])
			product[0] *= float32(mu(t))
			pi, next := float64(product[0]), mu(t+1)
			ofGrad[i], ofAvg[i] = -lr*(1-mu(t))/(1-pi), -lr*next/(1-pi*next)
		}
		fe.ForeachAddcdivScalarList_(params, g, denom, ofGrad)
		fe.ForeachAddcdivScalarList_(params, avg, denom, ofAvg)
	},
}
