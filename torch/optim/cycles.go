package optim

import (
	"math"
	"slices"

	"github.com/torchgo/torchgo/torch"
)

// momentumKey is "momentum", or "betas" for optimizers whose β₁ is the momentum.
func momentumKey(name string, opt Optimizer) string {
	g := opt.Groups()[0]
	for _, key := range []string{"betas", "momentum"} {
		if g.Get(key) != nil {
			return key
		}
	}
	fail(name, "optimizer must support momentum or beta1 with `cycle_momentum` option enabled")
	return ""
}

func setMomentum(g *Group, key string, v float64) {
	if key == "betas" {
		betas := g.Get("betas").([]any)
		g.Set("betas", []any{v, betas[1]})
		return
	}
	g.Set(key, v)
}

// values are one number for each group: the only one given, or all.
func values(name, what string, opt Optimizer, list []float64) []float64 {
	n := len(opt.Groups())
	switch len(list) {
	case n:
		return slices.Clone(list)
	case 1:
		return slices.Repeat(list, n)
	}
	fail(name, "%s must have the same length as optimizer.param_groups. %s has %d values, param_groups has %d.", what, what, len(list), n)
	return nil
}

// valuesOr is values, with a default for none.
func valuesOr(name, what string, opt Optimizer, list []float64, def float64) []float64 {
	if list == nil {
		list = []float64{def}
	}
	return values(name, what, opt, list)
}

// CyclicLROptions are the optional arguments of [NewCyclicLR].
type CyclicLROptions struct {
	StepSizeUp    torch.Opt[int]          // steps from base to max; default 2000
	StepSizeDown  torch.Opt[int]          // steps back; default StepSizeUp
	Mode          string                  // "triangular", the default; "triangular2": half as high each cycle; "exp_range": Gammaᵉ as high
	Gamma         torch.Opt[float64]      // default 1
	ScaleFn       func(x float64) float64 // in place of Mode's: height in cycle x, or step x
	ScaleMode     string                  // what x is for ScaleFn: "cycle", the default, or "iterations"
	CycleMomentum torch.Opt[bool]         // the momentum, or β₁, goes the other way; default true
	BaseMomentum  []float64               // one for all groups, or one for each; default 0.8
	MaxMomentum   []float64               // default 0.9
}

// NewCyclicLR goes from baseLR to maxLR and back on lines, again and again
// (torch.optim.lr_scheduler.CyclicLR; Smith, 2015). Each is one value for all groups, or one for each.
func NewCyclicLR(opt Optimizer, baseLR, maxLR []float64, opts ...CyclicLROptions) *LRScheduler {
	const name = "CyclicLR"
	o := opt1(opts)
	low, high := values(name, "base_lr", opt, baseLR), values(name, "max_lr", opt, maxLR)
	for i, g := range opt.Groups() {
		g.SetLR(low[i])
	}
	up := float64(o.StepSizeUp.Or(2000))
	down := up
	if v, ok := o.StepSizeDown.Get(); ok {
		down = float64(v)
	}
	total := up + down
	ratio := up / total
	mode, scaleMode, gamma := o.Mode, o.ScaleMode, o.Gamma.Or(1)
	if mode == "" {
		mode = "triangular"
	}
	var scale func(float64) float64
	choose := func() {
		switch {
		case o.ScaleFn != nil:
			scale = o.ScaleFn
			if scaleMode == "" {
				scaleMode = "cycle"
			}
		case mode == "triangular":
			scale, scaleMode = func(float64) float64 { return 1 }, "cycle"
		case mode == "triangular2":
			scale, scaleMode = func(x float64) float64 { return 1 / math.Pow(2, x-1) }, "cycle"
		case mode == "exp_range":
			scale, scaleMode = func(x float64) float64 { return pow(gamma, x) }, "iterations"
		default:
			fail(name, "mode is invalid and scale_fn is None")
		}
	}
	choose()
	cycle, key, beta := o.CycleMomentum.Or(true), "", false
	var lowMomentum, highMomentum []float64
	if cycle {
		key = momentumKey(name, opt)
		beta = key == "betas"
		lowMomentum = valuesOr(name, "base_momentum", opt, o.BaseMomentum, 0.8)
		highMomentum = valuesOr(name, "max_momentum", opt, o.MaxMomentum, 0.9)
		for i, g := range opt.Groups() {
			setMomentum(g, key, highMomentum[i])
			g.Set("max_momentum", highMomentum[i])
			g.Set("base_momentum", lowMomentum[i])
		}
	}
	// height is how far up the cycle is, and the factor of its scale.
	height := func(epoch int) (float64, float64) {
		at := float64(epoch) / total
		n := math.Floor(1 + at)
		x := 1 + at - n
		factor := (x - 1) / (ratio - 1)
		if x <= ratio {
			factor = x / ratio
		}
		if scaleMode == "cycle" {
			return factor, scale(n)
		}
		return factor, scale(float64(epoch))
	}
	f := formula{
		table: []option{{"max_lrs", &high, nil}, {"total_size", &total, nil}, {"step_ratio", &ratio, nil}, {"mode", &mode, nil},
			{"gamma", &gamma, nil}, {"scale_mode", &scaleMode, nil}, {"cycle_momentum", &cycle, nil}},
		lr: func(s *LRScheduler, i int, _ float64) float64 {
			factor, by := height(s.epoch)
			return s.base[i] + (high[i]-s.base[i])*factor*by
		},
		loaded: choose,
	}
	if cycle {
		f.table = append(f.table, option{"use_beta1", &beta, nil}, option{"base_momentums", &lowMomentum, nil}, option{"max_momentums", &highMomentum, nil})
		f.other = func(s *LRScheduler) {
			factor, by := height(s.epoch)
			for i, g := range s.opt.Groups() {
				setMomentum(g, key, highMomentum[i]-(highMomentum[i]-lowMomentum[i])*factor*by)
			}
		}
	}
	s := newScheduler(name, opt, f)
	s.base = low
	return s
}

// OneCycleLROptions are the optional arguments of [NewOneCycleLR].
type OneCycleLROptions struct {
	PctStart       torch.Opt[float64] // part of the steps that go up; default 0.3
	AnnealStrategy string             // "cos", the default, or "linear"
	CycleMomentum  torch.Opt[bool]    // the momentum, or β₁, goes the other way; default true
	BaseMomentum   []float64          // one for all groups, or one for each; default 0.85
	MaxMomentum    []float64          // default 0.95
	DivFactor      torch.Opt[float64] // γ₀ is maxLR/DivFactor; default 25
	FinalDivFactor torch.Opt[float64] // the last is γ₀/FinalDivFactor; default 1e4
	ThreePhase     bool               // go back to γ₀ as fast as up, and then to the last
}

// NewOneCycleLR goes up to maxLR, one value for all groups or one for each, and down to nearly nothing in
// totalSteps steps (torch.optim.lr_scheduler.OneCycleLR; Smith and Topin, 2017). A step more panics.
func NewOneCycleLR(opt Optimizer, maxLR []float64, totalSteps int, opts ...OneCycleLROptions) *LRScheduler {
	const name = "OneCycleLR"
	o := opt1(opts)
	start := o.PctStart.Or(0.3)
	anneal := o.AnnealStrategy
	switch {
	case totalSteps <= 0:
		fail(name, "Expected positive integer total_steps, but got %d", totalSteps)
	case !(start >= 0 && start <= 1):
		fail(name, "Expected float between 0 and 1 pct_start, but got %s", pythonFloat(start))
	case anneal == "":
		anneal = "cos"
	case anneal != "cos" && anneal != "linear":
		fail(name, "anneal_strategy must be one of 'cos' or 'linear', instead got %s", anneal)
	}
	type phase struct {
		end                                        float64
		startLR, endLR, startMomentum, endMomentum string
	}
	up := phase{start*float64(totalSteps) - 1, "initial_lr", "max_lr", "max_momentum", "base_momentum"}
	phases := []phase{up, {float64(totalSteps - 1), "max_lr", "min_lr", "base_momentum", "max_momentum"}}
	if o.ThreePhase {
		phases = []phase{up, {2*start*float64(totalSteps) - 2, "max_lr", "initial_lr", "base_momentum", "max_momentum"},
			{float64(totalSteps - 1), "initial_lr", "min_lr", "max_momentum", "max_momentum"}}
	}
	highs := values(name, "max_lr", opt, maxLR)
	for i, g := range opt.Groups() {
		first := highs[i] / o.DivFactor.Or(25)
		g.Set("initial_lr", first)
		g.Set("max_lr", highs[i])
		g.Set("min_lr", first/o.FinalDivFactor.Or(1e4))
	}
	cycle, key, beta := o.CycleMomentum.Or(true), "", false
	if cycle {
		key = momentumKey(name, opt)
		beta = key == "betas"
		low, high := valuesOr(name, "base_momentum", opt, o.BaseMomentum, 0.85), valuesOr(name, "max_momentum", opt, o.MaxMomentum, 0.95)
		for i, g := range opt.Groups() {
			setMomentum(g, key, high[i])
			g.Set("max_momentum", high[i])
			g.Set("base_momentum", low[i])
		}
	}
	// at is the value between two entries of a group.
	at := func(s *LRScheduler, i int, of func(p phase) (from, to string)) float64 {
		step, begin := float64(s.epoch), 0.0
		if s.epoch > totalSteps {
			fail(name, "Tried to step %d times. The specified number of total steps is %d", s.epoch, totalSteps)
		}
		n := 0
		for n < len(phases)-1 && step > phases[n].end {
			begin = phases[n].end
			n++
		}
		pct := (step - begin) / (phases[n].end - begin)
		a, b := of(phases[n])
		from, _ := number(s.opt.Groups()[i].Get(a))
		to, _ := number(s.opt.Groups()[i].Get(b))
		if anneal == "cos" {
			return to + (from-to)/2*(math.Cos(math.Pi*pct)+1)
		}
		return (to-from)*pct + from
	}
	f := formula{
		table: []option{{"total_steps", &totalSteps, nil}, {"_anneal_func_type", &anneal, nil}, {"cycle_momentum", &cycle, nil}},
		lr: func(s *LRScheduler, i int, _ float64) float64 {
			return at(s, i, func(p phase) (string, string) { return p.startLR, p.endLR })
		},
	}
	if cycle {
		f.table = append(f.table, option{"use_beta1", &beta, nil})
		f.other = func(s *LRScheduler) {
			for i, g := range s.opt.Groups() {
				setMomentum(g, key, at(s, i, func(p phase) (string, string) { return p.startMomentum, p.endMomentum }))
			}
		}
	}
	return newScheduler(name, opt, f)
}
