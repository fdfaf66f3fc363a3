package optim

import (
	"math"

	"github.com/torchgo/torchgo/torch"
)

// LBFGS is the limited-memory BFGS method (torch.optim.LBFGS). One step makes up to MaxIter iterations
//
//	θ ← θ + t d, d = −H g
//
// where the last HistorySize changes of θ and g stand for the inverse Hessian H, and t is γ, or what a line
// search under the strong Wolfe conditions finds. All parameters are one vector; a missing gradient is zero.
// Step needs a closure; what it makes is freed when it returns, except the loss of the first call.
type LBFGS struct {
	opts   *LBFGSOptions
	groups []*Group
	numels []int
	state  *lbfgsState
}

// LBFGSOptions are the options of [LBFGS].
type LBFGSOptions struct {
	LR              float64            // γ; 0: 1
	MaxIter         torch.Opt[int]     // iterations of a step; default 20
	MaxEval         torch.Opt[int]     // calls of the closure in a step; default MaxIter · 5/4
	ToleranceGrad   torch.Opt[float64] // ends a step: largest |g|; default 1e-7
	ToleranceChange torch.Opt[float64] // ends a step: change of the loss or of θ; default 1e-9
	HistorySize     torch.Opt[int]     // default 100
	LineSearch      string             // "strong_wolfe"; empty: none
	Maximize        bool
}

// lbfgsState is what one step leaves for the next.
type lbfgsState struct {
	evals, iters int
	d            *torch.Tensor
	t            float64
	dirs, steps  []*torch.Tensor // changes of g and θ, oldest first
	ro           []float64
	diag         float64 // of the first guess of H
	prevGrad     *torch.Tensor
	prevLoss     float64
	al           []float64 // of the last iteration
	begun        bool      // an iteration was made
}

// NewLBFGS makes an [LBFGS] optimizer of params.
func NewLBFGS(params []*torch.Tensor, opts ...LBFGSOptions) *LBFGS {
	base := newBase(lbfgs, params, opts) // checks, and nothing else
	l := &LBFGS{groups: base.groups, opts: base.groups[0].options.(*LBFGSOptions)}
	for _, p := range params {
		n := p.Numel()
		if p.DType().IsComplex() {
			n *= 2
		}
		l.numels = append(l.numels, n)
	}
	return l
}

var lbfgs = &rule[LBFGSOptions]{
	name: "LBFGS",
	table: func(o *LBFGSOptions) []option {
		return []option{{"lr", &o.LR, 1.0}, {"max_iter", &o.MaxIter, 20}, {"max_eval", &o.MaxEval, o.MaxIter.Or(20) * 5 / 4},
			{"tolerance_grad", &o.ToleranceGrad, 1e-7}, {"tolerance_change", &o.ToleranceChange, 1e-9},
			{"history_size", &o.HistorySize, 100}, {"line_search_fn", &o.LineSearch, nil}, {"maximize", &o.Maximize, nil}}
	},
	check: func(o *LBFGSOptions) rules {
		return rules{
			{o.LR >= 0, "Invalid learning rate: %v", o.LR},
			{o.LineSearch == "" || o.LineSearch == "strong_wolfe", "only 'strong_wolfe' is supported", nil},
		}
	},
}

// Groups is the one parameter group.
func (l *LBFGS) Groups() []*Group { return l.groups }

// ZeroGrad removes the gradients of all parameters; see [Optimizer].
func (l *LBFGS) ZeroGrad(opts ...ZeroGradOptions) { zeroGrad(l.groups, opts) }

// Close frees the state; see [Optimizer].
func (l *LBFGS) Close() { l.state.close() }

func (s *lbfgsState) close() {
	if s == nil {
		return
	}
	s.d.Close()
	s.prevGrad.Close()
	for _, t := range append(append([]*torch.Tensor{}, s.dirs...), s.steps...) {
		t.Close()
	}
}

// flatGrad is the gradient of all parameters as a vector.
func (l *LBFGS) flatGrad() *torch.Tensor {
	views := make([]*torch.Tensor, len(l.numels))
	for i, p := range l.groups[0].Params {
		g := p.Grad()
		switch {
		case g == nil:
			g = torch.ZerosLike(p)
		case g.Layout() != torch.Strided:
			g = g.ToDense()
		}
		if g.DType().IsComplex() {
			g = torch.ViewAsReal(g)
		}
		views[i] = g.Reshape(-1)
	}
	flat := torch.Cat(views)
	if l.opts.Maximize {
		flat.Neg_()
	}
	return flat
}

// move adds t d to the parameters.
func (l *LBFGS) move(t float64, d *torch.Tensor) {
	at := 0
	for i, p := range l.groups[0].Params {
		if p.DType().IsComplex() {
			p = torch.ViewAsReal(p)
		}
		p.Add_(d.Narrow(0, at, l.numels[i]).ViewAs(p), torch.AddOptions{Alpha: t})
		at += l.numels[i]
	}
}

// loss is the number that a closure's result means.
func (l *LBFGS) loss(t *torch.Tensor) float64 {
	if l.opts.Maximize {
		return -torch.Item[float64](t)
	}
	return torch.Item[float64](t)
}

// Step minimizes what closure computes; see [Optimizer]. It returns the loss of the first call.
func (l *LBFGS) Step(closure ...func() *torch.Tensor) (first *torch.Tensor) {
	if len(closure) != 1 || closure[0] == nil {
		fail("LBFGS", "step needs a closure")
	}
	torch.EnableGrad(func() { first = closure[0]() })
	if l.state == nil {
		l.state = &lbfgsState{}
	}
	torch.Scope(func() {
		torch.NoGrad(func() {
			l.iterate(l.loss(first), func() (loss float64) {
				torch.Scope(func() { torch.EnableGrad(func() { loss = l.loss(closure[0]()) }) })
				return loss
			})
		})
	})
	return first
}

// iterate is a step after the first call of the closure.
func (l *LBFGS) iterate(loss float64, evaluate func() float64) {
	o, s := l.opts, l.state
	maxIter, maxEval := o.MaxIter.Or(0), o.MaxEval.Or(0)
	tolGrad, tolChange, history := o.ToleranceGrad.Or(0), o.ToleranceChange.Or(0), o.HistorySize.Or(0)
	evals := 1
	s.evals++
	g := l.flatGrad()
	// What is a tensor of no dimensions in PyTorch is a number of its precision here.
	round := func(x float64) float64 { return x }
	if g.DType() != torch.Float64 {
		round = func(x float64) float64 { return float64(float32(x)) }
	}
	if largest(g) <= tolGrad {
		return
	}
	iteration := func(n int, v lbfgsVectors) (lbfgsVectors, bool) {
		d, g, prevGrad := v[0], v[1], v[2]
		s.iters++
		if s.iters == 1 {
			d, s.diag = g.Neg(), 1
		} else {
			y, step := g.Sub(prevGrad), d.MulScalar(s.t)
			if ys := dot(y, step); ys > 1e-10 {
				if len(s.dirs) == history {
					s.dirs[0].Close()
					s.steps[0].Close()
					s.dirs, s.steps, s.ro = s.dirs[1:], s.steps[1:], s.ro[1:]
				}
				torch.Keep(y, step)
				s.dirs, s.steps, s.ro = append(s.dirs, y), append(s.steps, step), append(s.ro, round(1/ys))
				s.diag = round(ys / dot(y, y))
			}
			if len(s.al) < history {
				s.al = make([]float64, history)
			}
			q := g.Neg()
			for i := len(s.dirs) - 1; i >= 0; i-- {
				s.al[i] = round(dot(s.steps[i], q) * s.ro[i])
				q.Add_(s.dirs[i], torch.AddOptions{Alpha: -s.al[i]})
			}
			d = q.MulScalar(s.diag)
			for i := range s.dirs {
				be := round(dot(s.dirs[i], d) * s.ro[i])
				d.Add_(s.steps[i], torch.AddOptions{Alpha: round(s.al[i] - be)})
			}
		}
		prevGrad = g.Clone()
		prevLoss := loss
		s.prevLoss, s.begun = loss, true
		s.t = o.LR
		if s.iters == 1 {
			s.t = round(min(1, round(1/torch.Item[float64](g.Abs().Sum()))) * o.LR)
		}
		slope := dot(g, d)
		if slope > -tolChange {
			return lbfgsVectors{d, g, prevGrad}, false
		}
		calls := 0
		done := false
		switch {
		case o.LineSearch != "":
			search := wolfe{l: l, evaluate: evaluate, d: d, round: round, tol: tolChange, max: maxEval - evals}
			for _, p := range l.groups[0].Params {
				search.x = append(search.x, p.Clone(torch.CloneOptions{MemoryFormat: torch.ContiguousFormat}))
			}
			loss, g, s.t, calls = search.run(s.t, loss, g, slope)
			l.move(s.t, d)
			done = largest(g) <= tolGrad
		case n == maxIter:
			l.move(s.t, d)
		default:
			l.move(s.t, d)
			loss = evaluate()
			g = l.flatGrad()
			done = largest(g) <= tolGrad
			calls = 1
		}
		evals += calls
		s.evals += calls
		done = done || n == maxIter || evals >= maxEval ||
			largest(d.MulScalar(s.t)) <= tolChange || math.Abs(loss-prevLoss) < tolChange
		return lbfgsVectors{d, g, prevGrad}, !done
	}
	was := lbfgsVectors{s.d, g, s.prevGrad}
	for n, more := 1, true; more; n++ {
		now := torch.ScopeOf(func() (v lbfgsVectors) {
			v, more = iteration(n, was)
			return v
		})
		for i, t := range was {
			if t != now[i] {
				t.Close()
			}
		}
		was = now
	}
	s.d, s.prevGrad = was[0], was[2]
	torch.Keep(s.d, s.prevGrad)
}

// lbfgsVectors are the direction, the gradient and the one before.
type lbfgsVectors [3]*torch.Tensor

func dot(a, b *torch.Tensor) float64  { return torch.Item[float64](a.Dot(b)) }
func largest(t *torch.Tensor) float64 { return torch.Item[float64](t.Abs().Max()) }
