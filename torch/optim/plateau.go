package optim

import (
	"math"
	"slices"

	"github.com/torchgo/torchgo/torch"
)

// ReduceLROnPlateau multiplies the learning rate by Factor when a metric has not become better for more
// than Patience steps (torch.optim.lr_scheduler.ReduceLROnPlateau).
type ReduceLROnPlateau struct {
	opt                   Optimizer
	mode, thresholdMode   string
	factor, threshold     float64
	eps, best, worst      float64
	patience, cooldown    int
	coolingFor, badEpochs int
	epoch                 int
	minLRs, last          []float64
}

// ReduceLROnPlateauOptions are the optional arguments of [NewReduceLROnPlateau].
type ReduceLROnPlateauOptions struct {
	Mode          string             // "min", the default: lower is better; "max"
	Factor        torch.Opt[float64] // default 0.1
	Patience      torch.Opt[int]     // default 10
	Threshold     torch.Opt[float64] // how much better counts; default 1e-4
	ThresholdMode string             // "rel", the default: of the best so far; "abs"
	Cooldown      int                // steps after a reduction in which nothing counts
	MinLR         []float64          // one for all groups, or one for each; default 0
	Eps           torch.Opt[float64] // smaller reductions are not made; default 1e-8
}

// NewReduceLROnPlateau makes a [ReduceLROnPlateau].
func NewReduceLROnPlateau(opt Optimizer, opts ...ReduceLROnPlateauOptions) *ReduceLROnPlateau {
	const name = "ReduceLROnPlateau"
	o := opt1(opts)
	s := &ReduceLROnPlateau{opt: opt, mode: o.Mode, thresholdMode: o.ThresholdMode, factor: o.Factor.Or(0.1), threshold: o.Threshold.Or(1e-4),
		eps: o.Eps.Or(1e-8), patience: o.Patience.Or(10), cooldown: o.Cooldown, minLRs: valuesOr(name, "min_lr", opt, o.MinLR, 0)}
	if s.mode == "" {
		s.mode = "min"
	}
	if s.thresholdMode == "" {
		s.thresholdMode = "rel"
	}
	switch {
	case s.factor >= 1:
		fail(name, "Factor should be < 1.0.")
	case s.mode != "min" && s.mode != "max":
		fail(name, "mode %s is unknown!", s.mode)
	case s.thresholdMode != "rel" && s.thresholdMode != "abs":
		fail(name, "threshold mode %s is unknown!", s.thresholdMode)
	}
	s.worst = s.worse()
	s.best = s.worst
	s.note()
	return s
}

func (s *ReduceLROnPlateau) worse() float64 {
	if s.mode == "max" {
		return math.Inf(-1)
	}
	return math.Inf(1)
}

func (s *ReduceLROnPlateau) note() {
	s.last = nil
	for _, g := range s.opt.Groups() {
		s.last = append(s.last, g.LR())
	}
}

func (s *ReduceLROnPlateau) better(a float64) bool {
	switch {
	case s.mode == "min" && s.thresholdMode == "rel":
		return a < s.best*(1-s.threshold)
	case s.mode == "min":
		return a < s.best-s.threshold
	case s.thresholdMode == "rel":
		return a > s.best*(s.threshold+1)
	}
	return a > s.best+s.threshold
}

// Step notes the metric of an epoch.
func (s *ReduceLROnPlateau) Step(metric float64) {
	s.epoch++
	if s.better(metric) {
		s.best, s.badEpochs = metric, 0
	} else {
		s.badEpochs++
	}
	if s.coolingFor > 0 {
		s.coolingFor--
		s.badEpochs = 0
	}
	if s.badEpochs > s.patience {
		for i, g := range s.opt.Groups() {
			lr := g.LR()
			if reduced := max(lr*s.factor, s.minLRs[min(i, len(s.minLRs)-1)]); lr-reduced > s.eps {
				g.SetLR(reduced)
			}
		}
		s.coolingFor, s.badEpochs = s.cooldown, 0
	}
	s.note()
}

// LastLR are the learning rates after the last step.
func (s *ReduceLROnPlateau) LastLR() []float64 { return slices.Clone(s.last) }

func (s *ReduceLROnPlateau) table() []option {
	return []option{{"factor", &s.factor, nil}, {"min_lrs", &s.minLRs, nil}, {"patience", &s.patience, nil}, {"cooldown", &s.cooldown, nil},
		{"eps", &s.eps, nil}, {"last_epoch", &s.epoch, nil}, {"_last_lr", &s.last, nil}, {"mode_worse", &s.worst, nil}, {"mode", &s.mode, nil},
		{"threshold", &s.threshold, nil}, {"threshold_mode", &s.thresholdMode, nil}, {"best", &s.best, nil},
		{"cooldown_counter", &s.coolingFor, nil}, {"num_bad_epochs", &s.badEpochs, nil}}
}

// StateDict is the state under PyTorch's names.
func (s *ReduceLROnPlateau) StateDict() map[string]any { return valuesOf(s.table()) }

// LoadStateDict takes over a state; see [Scheduler].
func (s *ReduceLROnPlateau) LoadStateDict(state map[string]any) error {
	return loadValues("ReduceLROnPlateau", s.table(), state, len(s.opt.Groups()))
}
