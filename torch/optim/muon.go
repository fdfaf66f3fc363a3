package optim

import (
	"fmt"
	"math"

	"github.com/torchgo/torchgo/torch"
)

// Muon is torch.optim.Muon (Jordan et al., 2024), for matrices θ of A × B:
//
//	b ← μb + (1 − μ)g; u = (1 − μ)g + μb if Nesterov, else b
//	O = u/max(‖u‖, ε) in bfloat16, then NSSteps times O ← aO + bGO + cG²O with G = OOᵀ (Newton–Schulz)
//	θ ← θ − γλθ; θ ← θ − γ r O
//
// where r is √max(1, A/B), or as AdjustLR says.
type Muon = Base[MuonOptions]

// MuonOptions are the options of [Muon].
type MuonOptions struct {
	LR             float64               // γ; 0: 1e-3
	WeightDecay    torch.Opt[float64]    // λ; default 0.1
	Momentum       torch.Opt[float64]    // μ; default 0.95
	Nesterov       torch.Opt[bool]       // default true
	NSCoefficients torch.Opt[[3]float64] // a, b, c; default 3.4445, -4.775, 2.0315
	Eps            torch.Opt[float64]    // ε; default 1e-7
	NSSteps        torch.Opt[int]        // default 5
	AdjustLR       string                // "original", the default; "match_rms_adamw": r = 0.2√max(A, B); "spectral_unclamped": r = √(A/B)
}

// NewMuon makes a [Muon] optimizer of params, all of two dimensions.
func NewMuon(params []*torch.Tensor, opts ...MuonOptions) *Muon { return newBase(muon, params, opts) }

var muon = &rule[MuonOptions]{
	name: "Muon", slots: []string{"momentum_buffer"},
	table: func(o *MuonOptions) []option {
		return []option{{"lr", &o.LR, 1e-3}, {"weight_decay", &o.WeightDecay, 0.1}, {"momentum", &o.Momentum, 0.95},
			{"nesterov", &o.Nesterov, true}, {"ns_coefficients", &o.NSCoefficients, [3]float64{3.4445, -4.775, 2.0315}},
			{"eps", &o.Eps, 1e-7}, {"ns_steps", &o.NSSteps, 5}, {"adjust_lr_fn", &o.AdjustLR, nil}}
	},
	check: func(o *MuonOptions) rules {
		return rules{
			{o.LR >= 0, "Learning rate should be >= 0 but is: %v", o.LR},
			{o.Momentum.Or(0) >= 0, "momentum should be >= 0 but is: %v", o.Momentum.Or(0)},
			{o.WeightDecay.Or(0) >= 0, "weight decay should be >= 0 but is: %v", o.WeightDecay.Or(0)},
			{o.AdjustLR == "" || muonRatios[o.AdjustLR] != nil, "Adjust learning rate function %v is not supported", o.AdjustLR},
			{o.NSSteps.Or(0) < 100, "Number of steps must be less than 100 for computational efficiency", nil},
		}
	},
	accept: func(p *torch.Tensor) string {
		switch {
		case p.Dim() != 2:
			return fmt.Sprintf("Muon only supports 2D parameters whereas we found a parameter with size: %v", torch.Shape(p.Shape()))
		case p.DType().IsComplex():
			return "Muon does not support complex parameters"
		}
		return ""
	},
	begin:  func(_ *MuonOptions, e *entry, grad *torch.Tensor) { e.slots[0] = torch.ZerosLike(grad) },
	update: updateMuon,
}

// muonRatios are r for a matrix of a × b.
var muonRatios = map[string]func(a, b float64) float64{
	"original":           func(a, b float64) float64 { return math.Sqrt(max(1, a/b)) },
	"match_rms_adamw":    func(a, b float64) float64 { return 0.2 * math.Sqrt(max(a, b)) },
	"spectral_unclamped": func(a, b float64) float64 { return math.Sqrt(a / b) },
}

func updateMuon(o *MuonOptions, m *batch) {
	momentum, nesterov := o.Momentum.Or(0), o.Nesterov.Or(true)
	ratio := muonRatios[o.AdjustLR]
	if ratio == nil {
		ratio = muonRatios["original"]
	}
	for i, p := range m.params {
		g, b := m.grads[i], m.entries[i].slots[0]
		b.LerpScalar_(g, 1-momentum)
		u := b
		if nesterov {
			u = g.LerpScalar(b, momentum)
		}
		shape := p.Shape()
		rate := o.LR * ratio(float64(shape[0]), float64(shape[1]))
		update := newtonSchulz(u, o.NSCoefficients.Or([3]float64{}), o.NSSteps.Or(0), o.Eps.Or(0))
		p.MulScalar_(1 - o.LR*o.WeightDecay.Or(0))
		p.Add_(update, torch.AddOptions{Alpha: -rate})
	}
}

// newtonSchulz is about UVᵀ of a matrix USVᵀ, in bfloat16.
func newtonSchulz(u *torch.Tensor, k [3]float64, steps int, eps float64) *torch.Tensor {
	x := u.To(u.Device(), torch.ToOptions{DType: torch.BFloat16, Copy: true})
	tall := u.Size(0) > u.Size(1)
	if tall {
		x = x.T()
	}
	x.Div_(torch.LinalgVectorNorm(x).ClampMin(eps))
	for range steps {
		gram := x.MatMul(x.T())
		x = x.Addmm(gram.Addmm(gram, gram, torch.AddmmOptions{Beta: k[1], Alpha: k[2]}), x, torch.AddmmOptions{Beta: k[0]})
	}
	if tall {
		x = x.T()
	}
	return x
}
