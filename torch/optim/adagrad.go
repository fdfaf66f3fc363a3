package optim

import "github.com/torchgo/torchgo/torch"

// Adagrad is torch.optim.Adagrad (Duchi, Hazan and Singer, 2011). With g' = g + λθ and learning-rate decay η:
//
//	s ← s + g'²
//	θ ← θ − γ/(1 + (t − 1)η) · g' / (√s + ε)
//
// Sparse gradients are fine, without weight decay. The state is made with the optimizer.
type Adagrad = Base[AdagradOptions]

// AdagradOptions are the options of [Adagrad].
type AdagradOptions struct {
	LR                      float64            // γ; 0: 1e-2
	LRDecay                 float64            // η
	WeightDecay             float64            // λ
	InitialAccumulatorValue float64            // s at the start
	Eps                     torch.Opt[float64] // ε; default 1e-10
	Maximize                bool
	Foreach                 torch.Opt[bool]
	Fused                   torch.Opt[bool]
}

// NewAdagrad makes an [Adagrad] optimizer of params.
func NewAdagrad(params []*torch.Tensor, opts ...AdagradOptions) *Adagrad {
	return newBase(adagrad, params, opts)
}

var adagrad = &rule[AdagradOptions]{
	name: "Adagrad", slots: []string{"sum"}, counts: true, sparse: true, eager: true,
	table: func(o *AdagradOptions) []option {
		return []option{{"lr", &o.LR, 1e-2}, {"lr_decay", &o.LRDecay, nil}, {"eps", &o.Eps, 1e-10},
			{"weight_decay", &o.WeightDecay, nil}, {"initial_accumulator_value", &o.InitialAccumulatorValue, nil},
			{"foreach", &o.Foreach, nil}, {"maximize", &o.Maximize, nil}, fixed("differentiable"), {"fused", &o.Fused, nil}}
	},
	check: func(o *AdagradOptions) rules {
		return append(rules{
			{o.LR >= 0, "Invalid learning rate: %v", o.LR},
			{o.LRDecay >= 0, "Invalid lr_decay value: %v", o.LRDecay},
			{o.WeightDecay >= 0, "Invalid weight_decay value: %v", o.WeightDecay},
			{o.InitialAccumulatorValue >= 0, "Invalid initial_accumulator_value value: %v", o.InitialAccumulatorValue},
			{o.Eps.Or(0) >= 0, "Invalid epsilon value: %v", o.Eps.Or(0)},
		}, oneImplementation(o.Foreach, o.Fused)...)
	},
	begin: func(o *AdagradOptions, e *entry, _ *torch.Tensor) {
		var value torch.Scalar = o.InitialAccumulatorValue
		if e.dtype.IsComplex() {
			value = complex(o.InitialAccumulatorValue, o.InitialAccumulatorValue)
		}
		e.slots[0] = torch.FullLike(e.param, value)
	},
	update: updateAdagrad,
}

func updateAdagrad(o *AdagradOptions, m *batch) {
	eps := o.Eps.Or(0)
	how := m.choose(m.device == torch.CPU, o.Foreach, o.Fused)
	if how == fused {
		torch.Internal.FusedAdagrad_(m.params, m.grads, m.slot(0), m.countOn(), o.LR, o.LRDecay, o.WeightDecay, eps, o.Maximize)
		return
	}
	fe := torch.Internal
	steps := m.tick()
	params, g, sum := m.reals(m.params), m.grads, m.slot(0)
	if o.Maximize {
		g = fe.ForeachNeg(g)
	}
	minusRate := each(steps, func(t float64) float64 { return -o.LR / (1 + (t-1)*o.LRDecay) })
	if m.sparse {
		if o.WeightDecay != 0 {
			panic(&torch.Error{Op: "step", Kind: torch.ErrRuntime, Message: "weight_decay option is not compatible with sparse gradients"})
		}
		for i := range g {
			grad := g[i].Coalesce()
			values := grad.Values()
			sum[i].Add_(likeSparse(grad, values.PowScalar(2)))
			std := sum[i].SparseMask(grad).Values().Sqrt_().AddScalar_(eps)
			params[i].Add_(likeSparse(grad, values.Div(std)), torch.AddOptions{Alpha: minusRate[i]})
		}
		return
	}
	g = m.reals(g)
	if o.WeightDecay != 0 {
		g = fe.ForeachAdd(g, params, torch.InternalForeachAddOptions{Alpha: o.WeightDecay})
	}
	fe.ForeachAddcmul_(sum, g, g)
	std := fe.ForeachSqrt(sum)
	fe.ForeachAddScalar_(std, eps)
	if how == foreach {
		fe.ForeachAddcdiv_(params, fe.ForeachMulScalarList(g, minusRate), std)
	} else {
		fe.ForeachAddcdivScalarList_(params, g, std, minusRate)
	}
}

// likeSparse is a tensor with other values at the places of a coalesced one.
func likeSparse(sparse, values *torch.Tensor) *torch.Tensor {
	return torch.SparseCooTensor(sparse.Indices(), values, sparse.Shape())
}
