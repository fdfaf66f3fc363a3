package optim

import (
	"github.com/torchgo/torchgo/torch"
)

// Rprop is resilient backpropagation (torch.optim.Rprop; Riedmiller and Braun, 1993). For each element with
// its former gradient g₋ and its step size s, which begins as γ:
//
//	s ← clamp(s · (η₊ if g g₋ > 0, η₋ if g g₋ < 0, else 1)); where g g₋ < 0, g ← 0
//	θ ← θ − sign(g) s
type Rprop = Base[RpropOptions]

// RpropOptions are the options of [Rprop].
type RpropOptions struct {
	LR        float64               // γ; 0: 1e-2
	Etas      torch.Opt[[2]float64] // η₋, η₊; default 0.5, 1.2
	StepSizes torch.Opt[[2]float64] // smallest and largest s; default 1e-6, 50
	Maximize  bool
	Foreach   torch.Opt[bool]
}

// NewRprop makes an [Rprop] optimizer of params.
func NewRprop(params []*torch.Tensor, opts ...RpropOptions) *Rprop {
	return newBase(rprop, params, opts)
}

var rprop = &rule[RpropOptions]{
	name: "Rprop", slots: []string{"prev", "step_size"}, counts: true,
	table: func(o *RpropOptions) []option {
		return []option{{"lr", &o.LR, 1e-2}, {"etas", &o.Etas, pair{0.5, 1.2}}, {"step_sizes", &o.StepSizes, pair{1e-6, 50}},
			{"foreach", &o.Foreach, nil}, {"maximize", &o.Maximize, nil}, fixed("differentiable"), fixed("capturable")}
	},
	check: func(o *RpropOptions) rules {
		etas := o.Etas.Or(pair{})
		return rules{
			{o.LR >= 0, "Invalid learning rate: %v", o.LR},
			{0 < etas[0] && etas[0] < 1 && 1 < etas[1], "Invalid eta values: %v", pythonFloat(etas[0]) + ", " + pythonFloat(etas[1])},
		}
	},
	begin: func(o *RpropOptions, e *entry, grad *torch.Tensor) {
		e.slots[0] = torch.ZerosLike(e.param)
		var size torch.Scalar = o.LR
		if e.dtype.IsComplex() {
			size = complex(o.LR, o.LR)
		}
		e.slots[1] = torch.FullLike(grad, size)
	},
	update: func(o *RpropOptions, m *batch) {
		fe, etas, sizes := torch.Internal, o.Etas.Or(pair{}), o.StepSizes.Or(pair{})
		m.tick()
		params, g := m.decayed(o.Maximize, 0)
		prev, size := m.slot(0), m.slot(1)
		sign := fe.ForeachMul(g, prev)
		fe.ForeachSign_(sign)
		fe.ForeachCopy_(prev, g)
		for i, s := range sign {
			same, turned := s.GtScalar(0), s.LtScalar(0)
			s.MaskedFill_(s.EqScalar(0), 1).MaskedFill_(same, etas[1]).MaskedFill_(turned, etas[0])
			size[i].Mul_(s).Clamp_(torch.ClampOptions{Min: sizes[0], Max: sizes[1]})
			prev[i].MaskedFill_(turned, 0)
		}
		signs := make([]*torch.Tensor, len(prev))
		for i, p := range prev {
			signs[i] = p.Sign()
		}
		fe.ForeachAddcmul_(params, signs, size, torch.InternalForeachAddcmulOptions{Value: -1})
	},
}
