package optim

import (
	"math"

	"github.com/torchgo/torchgo/torch"
)

// Adam is Adam (torch.optim.Adam; Kingma and Ba, 2014). With g' = g + λθ, or θ ← θ − γλθ before all else if
// the weight decay is decoupled:
//
//	m ← β₁m + (1 − β₁)g'
//	v ← β₂v + (1 − β₂)g'²
//	θ ← θ − γ/(1 − β₁ᵗ) · m / (√v / √(1 − β₂ᵗ) + ε)
//
// With AMSGrad, the largest v so far takes the place of v in the last line.
type Adam = Base[AdamOptions]

// AdamOptions are the options of [Adam].
type AdamOptions struct {
	LR                   float64               // γ; 0: 1e-3
	Betas                torch.Opt[[2]float64] // β₁, β₂; default 0.9, 0.999
	Eps                  torch.Opt[float64]    // ε; default 1e-8
	WeightDecay          float64               // λ
	AMSGrad              bool
	Maximize             bool
	DecoupledWeightDecay bool
	Foreach              torch.Opt[bool]
	Fused                torch.Opt[bool]
}

// NewAdam makes an [Adam] optimizer of params.
func NewAdam(params []*torch.Tensor, opts ...AdamOptions) *Adam { return newBase(adam, params, opts) }

// AdamW is [Adam] with decoupled weight decay (torch.optim.AdamW; Loshchilov and Hutter, 2017).
type AdamW = Base[AdamWOptions]

// AdamWOptions are the options of [AdamW].
type AdamWOptions struct {
	LR          float64               // γ; 0: 1e-3
	Betas       torch.Opt[[2]float64] // β₁, β₂; default 0.9, 0.999
	Eps         torch.Opt[float64]    // ε; default 1e-8
	WeightDecay torch.Opt[float64]    // λ; default 0.01
	AMSGrad     bool
	Maximize    bool
	Foreach     torch.Opt[bool]
	Fused       torch.Opt[bool]
}

// NewAdamW makes an [AdamW] optimizer of params.
func NewAdamW(params []*torch.Tensor, opts ...AdamWOptions) *AdamW {
	return newBase(adamW, params, opts)
}

// adamArgs are the options of both.
type adamArgs struct {
	lr, beta1, beta2, eps, decay float64
	amsgrad, maximize, decoupled bool
	foreach, fused               torch.Opt[bool]
}

func (o *AdamOptions) args() *adamArgs {
	betas := o.Betas.Or(pair{})
	return &adamArgs{o.LR, betas[0], betas[1], o.Eps.Or(0), o.WeightDecay, o.AMSGrad, o.Maximize, o.DecoupledWeightDecay, o.Foreach, o.Fused}
}

func (o *AdamWOptions) args() *adamArgs {
	betas := o.Betas.Or(pair{})
	return &adamArgs{o.LR, betas[0], betas[1], o.Eps.Or(0), o.WeightDecay.Or(0), o.AMSGrad, o.Maximize, true, o.Foreach, o.Fused}
}

var adamSlots = []string{"exp_avg", "exp_avg_sq", "max_exp_avg_sq"}

var adam = &rule[AdamOptions]{
	name: "Adam", slots: adamSlots, counts: true,
	table: func(o *AdamOptions) []option {
		return []option{{"lr", &o.LR, 1e-3}, {"betas", &o.Betas, pair{0.9, 0.999}}, {"eps", &o.Eps, 1e-8},
			{"weight_decay", &o.WeightDecay, nil}, {"amsgrad", &o.AMSGrad, nil}, {"maximize", &o.Maximize, nil},
			{"foreach", &o.Foreach, nil}, fixed("capturable"), fixed("differentiable"), {"fused", &o.Fused, nil},
			{"decoupled_weight_decay", &o.DecoupledWeightDecay, nil}}
	},
	check:  func(o *AdamOptions) rules { return o.args().check() },
	needs:  func(o *AdamOptions, _ *entry) []int { return adamNeeds(o.AMSGrad) },
	update: func(o *AdamOptions, m *batch) { updateAdam(o.args(), m) },
}

var adamW = &rule[AdamWOptions]{
	name: "AdamW", slots: adamSlots, counts: true,
	table: func(o *AdamWOptions) []option {
		return []option{{"lr", &o.LR, 1e-3}, {"betas", &o.Betas, pair{0.9, 0.999}}, {"eps", &o.Eps, 1e-8},
			{"weight_decay", &o.WeightDecay, 1e-2}, {"amsgrad", &o.AMSGrad, nil}, {"maximize", &o.Maximize, nil},
			{"foreach", &o.Foreach, nil}, fixed("capturable"), fixed("differentiable"), {"fused", &o.Fused, nil},
			{"decoupled_weight_decay", nil, true}}
	},
	check:  func(o *AdamWOptions) rules { return o.args().check() },
	needs:  func(o *AdamWOptions, _ *entry) []int { return adamNeeds(o.AMSGrad) },
	update: func(o *AdamWOptions, m *batch) { updateAdam(o.args(), m) },
}

func (a *adamArgs) check() rules {
	return append(append(rules{
		{a.lr >= 0, "Invalid learning rate: %v", a.lr},
		{a.eps >= 0, "Invalid epsilon value: %v", a.eps}},
		validBetas(a.beta1, a.beta2)...), append(rules{
		{a.decay >= 0, "Invalid weight_decay value: %v", a.decay}},
		oneImplementation(a.foreach, a.fused)...)...)
}

// validBetas is the rule for the coefficients of running averages.
func validBetas(beta1, beta2 float64) rules {
	return rules{
		{beta1 >= 0 && beta1 < 1, "Invalid beta parameter at index 0: %v", beta1},
		{beta2 >= 0 && beta2 < 1, "Invalid beta parameter at index 1: %v", beta2}}
}

func adamNeeds(amsgrad bool) []int {
	if amsgrad {
		return []int{0, 1, 2}
	}
	return []int{0, 1}
}

func updateAdam(a *adamArgs, m *batch) {
	if m.choose(true, a.foreach, a.fused) == fused {
		fusedAdam(a, m)
		return
	}
	// PyTorch's for-loop and foreach forms have the same operations in the same order.
	fe := torch.Internal
	steps := m.tick()
	params, g := m.decoupled(a.maximize, a.decay, a.lr, a.decoupled)
	avg, sq := m.averages(g, pair{a.beta1, a.beta2})
	if a.amsgrad {
		most := m.slot(2)
		fe.ForeachMaximum_(most, sq)
		sq = most
	}
	denom := fe.ForeachSqrt(sq)
	fe.ForeachDivScalarList_(denom, each(steps, func(t float64) float64 { return math.Sqrt(1 - pow(a.beta2, t)) }))
	fe.ForeachAddScalar_(denom, a.eps)
	fe.ForeachAddcdivScalarList_(params, avg, denom, each(steps, func(t float64) float64 { return -(a.lr / (1 - pow(a.beta1, t))) }))
}

func fusedAdam(a *adamArgs, m *batch) {
	var most []*torch.Tensor
	if a.amsgrad {
		most = m.slot(2)
	}
	steps := m.countOn()
	if a.decoupled {
		torch.Internal.FusedAdamw_(m.params, m.grads, m.slot(0), m.slot(1), most, steps, a.lr, a.beta1, a.beta2, a.decay, a.eps, a.amsgrad, a.maximize)
	} else {
		torch.Internal.FusedAdam_(m.params, m.grads, m.slot(0), m.slot(1), most, steps, a.lr, a.beta1, a.beta2, a.decay, a.eps, a.amsgrad, a.maximize)
	}
}

// decayed are the parameters, and the gradients with weight decay as a penalty: g' = g + λθ, complex ones as
// real.
func (m *batch) decayed(maximize bool, decay float64) (params, g []*torch.Tensor) {
	params, g = m.reals(m.params), m.reals(m.grads)
	if maximize {
		g = torch.Internal.ForeachNeg(g)
	}
	if decay != 0 {
		g = torch.Internal.ForeachAdd(g, params, torch.InternalForeachAddOptions{Alpha: decay})
	}
	return params, g
}

// decoupled is decayed, with the decay of the parameters themselves if on.
func (m *batch) decoupled(maximize bool, decay, lr float64, on bool) (params, g []*torch.Tensor) {
	if !on || decay == 0 {
		return m.decayed(maximize, decay)
	}
	params, g = m.decayed(maximize, 0)
	torch.Internal.ForeachMulScalar_(params, 1-lr*decay)
	return params, g
}

// averages updates Adam's running averages, which are the first two slots.
func (m *batch) averages(g []*torch.Tensor, betas pair) (avg, sq []*torch.Tensor) {
	avg, sq = m.slot(0), m.slot(1)
	torch.Internal.ForeachLerpScalar_(avg, g, 1-betas[0])
	torch.Internal.ForeachMulScalar_(sq, betas[1])
	torch.Internal.ForeachAddcmul_(sq, g, g, torch.InternalForeachAddcmulOptions{Value: 1 - betas[1]})
	return avg, sq
}

// each maps step counters, most often all the same, to a list of numbers.
func each(steps []float64, fn func(t float64) float64) []torch.Scalar {
	list := make([]torch.Scalar, len(steps))
	for i, t := range steps {
		if i > 0 && t == steps[i-1] {
			list[i] = list[i-1]
		} else {
			list[i] = fn(t)
		}
	}
	return list
}
