package optim

import "github.com/torchgo/torchgo/torch"

// SGD is stochastic gradient descent (torch.optim.SGD). With g' = g + λθ and momentum μ:
//
//	b ← g' at the first step, then μb + (1 − dampening)g'
//	θ ← θ − γ(g' + μb if Nesterov, else b); without momentum θ − γg'
//
// Sparse gradients are fine.
type SGD = Base[SGDOptions]

// SGDOptions are the options of [SGD].
type SGDOptions struct {
	LR          float64 // γ; 0: 1e-3
	Momentum    float64 // μ
	Dampening   float64
	WeightDecay float64 // λ
	Nesterov    bool
	Maximize    bool
	Foreach     torch.Opt[bool]
	Fused       torch.Opt[bool]
}

// NewSGD makes an [SGD] optimizer of params.
func NewSGD(params []*torch.Tensor, opts ...SGDOptions) *SGD { return newBase(sgd, params, opts) }

var sgd = &rule[SGDOptions]{
	name:   "SGD",
	slots:  []string{"momentum_buffer"},
	sparse: true,
	needs:  func(*SGDOptions, *entry) []int { return nil }, // the momentum begins as the first gradient
	table: func(o *SGDOptions) []option {
		return []option{{"lr", &o.LR, 1e-3}, {"momentum", &o.Momentum, nil}, {"dampening", &o.Dampening, nil},
			{"weight_decay", &o.WeightDecay, nil}, {"nesterov", &o.Nesterov, nil}, {"maximize", &o.Maximize, nil},
			{"foreach", &o.Foreach, nil}, fixed("differentiable"), {"fused", &o.Fused, nil}}
	},
	check: func(o *SGDOptions) rules {
		return append(rules{
			{o.LR >= 0, "Invalid learning rate: %v", o.LR},
			{o.Momentum >= 0, "Invalid momentum value: %v", o.Momentum},
			{o.WeightDecay >= 0, "Invalid weight_decay value: %v", o.WeightDecay},
			{!o.Nesterov || o.Momentum > 0 && o.Dampening == 0, "Nesterov momentum requires a momentum and zero dampening", nil},
		}, oneImplementation(o.Foreach, o.Fused)...)
	},
	// Those whose momentum begins are apart.
	sort: func(e *entry, _ *torch.Tensor) int {
		if e.slots[0] == nil {
			return 1
		}
		return 0
	},
	update: updateSGD,
}

// oneImplementation is the rule that foreach and fused exclude each other.
func oneImplementation(each, fused torch.Opt[bool]) rules {
	return rules{{!each.Or(false) || !fused.Or(false), "`fused` and `foreach` cannot be `True` together.", nil}}
}

func updateSGD(o *SGDOptions, m *batch) {
	first := m.key == 1
	if m.choose(true, o.Foreach, o.Fused) == fused {
		var momentum []*torch.Tensor
		if o.Momentum != 0 {
			if first {
				for i, e := range m.entries {
					e.slots[0] = torch.EmptyLike(m.grads[i])
				}
			}
			momentum = m.raw(0)
		}
		torch.Internal.FusedSgd_(m.params, m.grads, momentum, o.WeightDecay, o.Momentum, o.LR, o.Dampening,
			o.Nesterov, o.Maximize, first && o.Momentum != 0)
		return
	}
	// Sparse lists work, too: on them these operators go through the tensors one by one.
	g, fe := m.grads, torch.Internal
	if o.Maximize {
		g = fe.ForeachNeg(g)
	}
	if o.WeightDecay != 0 {
		g = fe.ForeachAdd(g, m.params, torch.InternalForeachAddOptions{Alpha: o.WeightDecay})
	}
	if o.Momentum != 0 {
		if first {
			for i, e := range m.entries {
				e.slots[0] = g[i].Detach().Clone()
			}
		} else {
			b := m.raw(0)
			fe.ForeachMulScalar_(b, o.Momentum)
			fe.ForeachAdd_(b, g, torch.InternalForeachAddOptions{Alpha: 1 - o.Dampening})
		}
		if o.Nesterov {
			g = fe.ForeachAdd(g, m.raw(0), torch.InternalForeachAddOptions{Alpha: o.Momentum})
		} else {
			g = m.raw(0)
		}
	}
	fe.ForeachAdd_(m.params, g, torch.InternalForeachAddOptions{Alpha: -o.LR})
}
