package optim

import (
	"math"

	"github.com/torchgo/torchgo/torch"
)

// Adafactor is torch.optim.Adafactor (Shazeer and Stern, 2018). For a matrix of n rows and m columns it keeps
// the mean squares of rows and columns only; of more dimensions the last two count, vectors keep all:
//
//	ρₜ = min(γ, 1/√t), α = max(ε₂, RMS(θ)) ρₜ, w = t^β (β is Beta2Decay)
//	θ ← θ − γλθ
//	R ← R + w(mean over columns of g² − R), C likewise, V = R C / max(mean R, ε₁)
//	u = g / √max(V, ε₁²)
//	θ ← θ − α u / max(1, RMS(u)/d)
type Adafactor = Base[AdafactorOptions]

// AdafactorOptions are the options of [Adafactor].
type AdafactorOptions struct {
	LR          float64               // γ; 0: 1e-2
	Beta2Decay  torch.Opt[float64]    // β; default -0.8
	Eps         [2]torch.Opt[float64] // ε₁, ε₂; default the dtype's epsilon, 1e-3
	D           torch.Opt[float64]    // d; default 1
	WeightDecay float64               // λ
	Maximize    bool
	Foreach     torch.Opt[bool]
}

// NewAdafactor makes an [Adafactor] optimizer of params.
func NewAdafactor(params []*torch.Tensor, opts ...AdafactorOptions) *Adafactor {
	return newBase(adafactor, params, opts)
}

var adafactor = &rule[AdafactorOptions]{
	name: "Adafactor", slots: []string{"row_var", "col_var", "variance"}, counts: true,
	table: func(o *AdafactorOptions) []option {
		return []option{{"lr", &o.LR, 1e-2}, {"beta2_decay", &o.Beta2Decay, -0.8}, {"eps", &o.Eps, 1e-3}, {"d", &o.D, 1.0},
			{"weight_decay", &o.WeightDecay, nil}, {"foreach", &o.Foreach, nil}, {"maximize", &o.Maximize, nil}}
	},
	check: func(o *AdafactorOptions) rules {
		return rules{
			{o.LR >= 0, "Learning rate should be >= 0 but is: %v", o.LR},
			{o.Beta2Decay.Or(0) <= 0, "beta2_decay should be <= 0 but is: %v", o.Beta2Decay.Or(0)},
			{o.Eps[0].Or(0) >= 0, "epsilon1 should be >= 0 but is: %v", o.Eps[0].Or(0)},
			{o.Eps[1].Or(0) >= 0, "epsilon2 should be >= 0 but is: %v", o.Eps[1].Or(0)},
			{o.D.Or(0) >= 1, "Clipping threshold d should be >= 1 but is: %v", o.D.Or(0)},
			{o.WeightDecay >= 0, "weight_decay should be >= 0 but is: %v", o.WeightDecay},
		}
	},
	needs: func(_ *AdafactorOptions, e *entry) []int {
		if e.param.Dim() < 2 {
			return []int{2}
		}
		return []int{0, 1}
	},
	shape: func(slot int, shape []int) []int {
		if slot < 2 {
			shape[len(shape)-1-slot] = 1
		}
		return shape
	},
	update: updateAdafactor,
}

func updateAdafactor(o *AdafactorOptions, m *batch) {
	if m.dtype.IsComplex() {
		panic(&torch.Error{Op: "step", Kind: torch.ErrRuntime, Message: "Adafactor does not support complex parameters"})
	}
	lr, eps1, eps2 := o.LR, o.Eps[0].Or(epsilon(m.dtype)), o.Eps[1].Or(0)
	how := m.choose(false, o.Foreach, torch.Opt[bool]{})
	for i, t := range m.tick() {
		p, g, slots := m.params[i], m.grads[i], m.entries[i].slots
		if o.Maximize {
			g = g.Neg()
		}
		weight := math.Pow(t, o.Beta2Decay.Or(0))
		alpha := max(eps2, rms(p)) * min(lr, 1/math.Sqrt(t))
		if o.WeightDecay != 0 {
			p.MulScalar_(1 - lr*o.WeightDecay)
		}
		var u *torch.Tensor
		if slots[2] == nil {
			for k, dim := range []int{-1, -2} {
				mean := torch.LinalgVectorNorm(g, torch.LinalgVectorNormOptions{Dim: []int{dim}, KeepDim: true}).Square_().DivScalar_(g.Size(dim))
				slots[k].LerpScalar_(mean, weight)
			}
			u = slots[0].MatMul(slots[1])
			u.Div_(slots[0].MeanDim([]int{-2}, torch.MeanDimOptions{KeepDim: true}).ClampMin_(eps1))
		} else {
			slots[2].LerpScalar_(g.Mul(g), weight)
			u = slots[2].Clone()
		}
		u.ClampMin_(eps1 * eps1).Rsqrt_().Mul_(g)
		rate := -alpha / max(1, rms(u)/o.D.Or(0))
		if how == foreach {
			p.Add_(u.MulScalar_(rate))
		} else {
			p.Add_(u, torch.AddOptions{Alpha: rate})
		}
	}
}

// rms is the root of the mean square.
func rms(t *torch.Tensor) float64 {
	return torch.Item[float64](torch.LinalgVectorNorm(t)) / math.Sqrt(float64(t.Numel()))
}

// epsilon is the distance from 1 to the next number of a dtype.
func epsilon(dtype torch.DType) float64 {
	switch dtype {
	case torch.Float64:
		return 0x1p-52
	case torch.Float16:
		return 0x1p-10
	case torch.BFloat16:
		return 0x1p-7
	}
	return 0x1p-23
}
