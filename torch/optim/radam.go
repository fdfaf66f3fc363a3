package optim

import (
	"math"

	"github.com/torchgo/torchgo/torch"
)

// RAdam is Adam with rectified variance (torch.optim.RAdam; Liu et al., 2019). m, v, g' and decoupled decay
// are those of [Adam]:
//
//	ρ∞ = 2/(1 − β₂) − 1, ρₜ = ρ∞ − 2tβ₂ᵗ/(1 − β₂ᵗ)
//	r = √((ρₜ − 4)(ρₜ − 2)ρ∞ / ((ρ∞ − 4)(ρ∞ − 2)ρₜ))
//	θ ← θ − γ m/(1 − β₁ᵗ) · (r√(1 − β₂ᵗ)/(√v + ε) if ρₜ > 5, else 1)
type RAdam = Base[RAdamOptions]

// RAdamOptions are the options of [RAdam].
type RAdamOptions struct {
	LR                   float64               // γ; 0: 1e-3
	Betas                torch.Opt[[2]float64] // β₁, β₂; default 0.9, 0.999
	Eps                  torch.Opt[float64]    // ε; default 1e-8
	WeightDecay          float64               // λ
	DecoupledWeightDecay bool
	Maximize             bool
	Foreach              torch.Opt[bool]
}

// NewRAdam makes an [RAdam] optimizer of params.
func NewRAdam(params []*torch.Tensor, opts ...RAdamOptions) *RAdam {
	return newBase(radam, params, opts)
}

var radam = &rule[RAdamOptions]{
	name: "RAdam", slots: []string{"exp_avg", "exp_avg_sq"}, counts: true,
	table: func(o *RAdamOptions) []option {
		return []option{{"lr", &o.LR, 1e-3}, {"betas", &o.Betas, pair{0.9, 0.999}}, {"eps", &o.Eps, 1e-8},
			{"weight_decay", &o.WeightDecay, nil}, {"maximize", &o.Maximize, nil}, {"foreach", &o.Foreach, nil},
			fixed("capturable"), {"decoupled_weight_decay", &o.DecoupledWeightDecay, nil}, fixed("differentiable")}
	},
	check: func(o *RAdamOptions) rules {
		betas := o.Betas.Or(pair{})
		return append(append(rules{
			{o.LR >= 0, "Invalid learning rate: %v", o.LR},
			{o.Eps.Or(0) >= 0, "Invalid epsilon value: %v", o.Eps.Or(0)}},
			validBetas(betas[0], betas[1])...), rules{
			{o.WeightDecay >= 0, "Invalid weight_decay value: %v", o.WeightDecay}}...)
	},
	update: updateRAdam,
}

func updateRAdam(o *RAdamOptions, m *batch) {
	fe, betas, lr, eps := torch.Internal, o.Betas.Or(pair{}), o.LR, o.Eps.Or(0)
	steps := m.tick()
	params, g := m.decoupled(o.Maximize, o.WeightDecay, lr, o.DecoupledWeightDecay)
	avg, sq := m.averages(g, betas)
	corrected := func(beta, t float64) float64 { return 1 - pow(beta, t) }
	end := 2/(1-betas[1]) - 1
	rho := func(t float64) float64 { return end - 2*t*pow(betas[1], t)/corrected(betas[1], t) }
	rect := func(t float64) float64 {
		r := rho(t)
		return math.Sqrt((r - 4) * (r - 2) * end / ((end - 4) * (end - 2) * r))
	}
	if m.choose(false, o.Foreach, torch.Opt[bool]{}) == foreach {
		plain := each(steps, func(t float64) float64 {
			if rho(t) > 5 {
				return 0
			}
			return -(lr / corrected(betas[0], t))
		})
		scale := each(steps, func(t float64) float64 {
			if rho(t) > 5 {
				return -(math.Sqrt(corrected(betas[1], t)) * (lr * rect(t) / corrected(betas[0], t)))
			}
			return 0
		})
		step := fe.ForeachSqrt(sq)
		fe.ForeachAddScalar_(step, eps)
		fe.ForeachDivScalarList_(step, scale)
		fe.ForeachReciprocal_(step)
		fe.ForeachAddScalarList_(step, plain)
		fe.ForeachAddcmul_(params, avg, step)
		return
	}
	update := fe.ForeachDivScalarList(avg, each(steps, func(t float64) float64 { return corrected(betas[0], t) }))
	fe.ForeachMulScalar_(update, lr)
	var some []*torch.Tensor // whose variance is rectified
	var inverse []*torch.Tensor
	var root, by []torch.Scalar
	for i, t := range steps {
		if rho(t) > 5 {
			some, inverse = append(some, update[i]), append(inverse, sq[i])
			root, by = append(root, math.Sqrt(corrected(betas[1], t))), append(by, rect(t))
		}
	}
	if some != nil {
		inverse = fe.ForeachSqrt(inverse)
		fe.ForeachAddScalar_(inverse, eps)
		fe.ForeachReciprocal_(inverse)
		fe.ForeachMulScalarList_(inverse, root)
		fe.ForeachMul_(some, inverse)
		fe.ForeachMulScalarList_(some, by)
	}
	fe.ForeachAdd_(params, update, torch.InternalForeachAddOptions{Alpha: -1})
}
