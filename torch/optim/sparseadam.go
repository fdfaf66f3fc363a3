package optim

import (
	"math"

	"github.com/torchgo/torchgo/torch"
)

// SparseAdam is [Adam] for sparse gradients (torch.optim.SparseAdam): averages and parameters change only
// where the gradient has values. There is no weight decay.
type SparseAdam = Base[SparseAdamOptions]

// SparseAdamOptions are the options of [SparseAdam].
type SparseAdamOptions struct {
	LR       float64               // γ; 0: 1e-3
	Betas    torch.Opt[[2]float64] // β₁, β₂; default 0.9, 0.999
	Eps      torch.Opt[float64]    // ε; default 1e-8
	Maximize bool
}

// NewSparseAdam makes a [SparseAdam] optimizer of dense, real params.
func NewSparseAdam(params []*torch.Tensor, opts ...SparseAdamOptions) *SparseAdam {
	return newBase(sparseAdam, params, opts)
}

var sparseAdam = &rule[SparseAdamOptions]{
	name: "SparseAdam", slots: []string{"exp_avg", "exp_avg_sq"}, counts: true, intStep: true, sparse: true,
	table: func(o *SparseAdamOptions) []option {
		return []option{{"lr", &o.LR, 1e-3}, {"betas", &o.Betas, pair{0.9, 0.999}}, {"eps", &o.Eps, 1e-8}, {"maximize", &o.Maximize, nil}}
	},
	check: func(o *SparseAdamOptions) rules {
		betas := o.Betas.Or(pair{})
		return append(rules{
			{o.LR > 0, "Invalid learning rate: %v", o.LR},
			{o.Eps.Or(0) > 0, "Invalid epsilon value: %v", o.Eps.Or(0)}},
			validBetas(betas[0], betas[1])...)
	},
	accept: func(p *torch.Tensor) string {
		switch {
		case p.Layout() != torch.Strided:
			return "SparseAdam requires dense parameter tensors"
		case p.DType().IsComplex():
			return "SparseAdam does not support complex parameters"
		}
		return ""
	},
	update: updateSparseAdam,
}

func updateSparseAdam(o *SparseAdamOptions, m *batch) {
	if !m.sparse {
		panic(&torch.Error{Op: "step", Kind: torch.ErrRuntime, Message: "SparseAdam does not support dense gradients, please consider Adam instead"})
	}
	betas := o.Betas.Or(pair{})
	for i, t := range m.tick() {
		g := m.grads[i]
		if o.Maximize {
			g = g.Neg()
		}
		g = g.Coalesce()
		values := g.Values()
		if values.Numel() == 0 {
			continue
		}
		// The averages change by (1 − β) of what they differ from their new value.
		avg, sq := m.entries[i].slots[0], m.entries[i].slots[1]
		old := avg.SparseMask(g).Values()
		change := values.Sub(old).MulScalar_(1 - betas[0])
		avg.Add_(likeSparse(g, change))
		oldSq := sq.SparseMask(g).Values()
		changeSq := values.PowScalar(2).Sub_(oldSq).MulScalar_(1 - betas[1])
		sq.Add_(likeSparse(g, changeSq))
		numerator := change.Add_(old)
		denom := changeSq.Add_(oldSq).Sqrt_().AddScalar_(o.Eps.Or(0))
		size := o.LR * math.Sqrt(1-pow(betas[1], t)) / (1 - pow(betas[0], t))
		m.params[i].Add_(likeSparse(g, numerator.Div_(denom).MulScalar(-size)))
	}
}
