package optim

import (
	"fmt"
	"math"
	"slices"
)

// Scheduler changes the learning rates of an optimizer. Making one sets the first; Step, called after the
// optimizer's, sets the next. [ReduceLROnPlateau] needs an argument and is none.
type Scheduler interface {
	Step()
	// LastLR are the learning rates of the groups that the scheduler set last.
	LastLR() []float64
	// StateDict is the state under PyTorch's names, of the types of [StateDict].
	StateDict() map[string]any
	// LoadStateDict takes over a state that StateDict, or PyTorch by way of JSON, has made. Functions are no
	// part of it.
	LoadStateDict(state map[string]any) error

	optimizer() Optimizer
	begin()   // the step that making it makes
	undo()    // takes that back
	restart() // goes to the first epoch, where it takes over from another
}

// LRScheduler is a schedule by a formula: [NewStepLR] and the others make one. In their documentation e is
// the number of steps so far and γ₀ the learning rate that the group had at first ("initial_lr").
type LRScheduler struct {
	name    string
	opt     Optimizer
	formula formula
	base    []float64 // γ₀
	last    []float64
	epoch   int
	count   int
	initial bool // in begin
}

// formula is what makes one schedule different from another.
type formula struct {
	table  []option // what state dicts have beside the rest
	lr     func(s *LRScheduler, group int, now float64) float64
	closed func(s *LRScheduler, group int) float64 // from the epoch alone; nil: lr does
	other  func(s *LRScheduler)                    // sets what else changes: momentum
	to     func(s *LRScheduler, epoch float64)     // instead of what Step and StepTo do to the epoch; negative: the next one
	loaded func()                                  // after table has changed
}

func newScheduler(name string, opt Optimizer, f formula) *LRScheduler {
	s := &LRScheduler{name: name, opt: opt, formula: f, epoch: -1}
	for _, g := range opt.Groups() {
		if g.Get("initial_lr") == nil {
			g.Set("initial_lr", g.LR())
		}
		base, _ := number(g.Get("initial_lr"))
		s.base = append(s.base, base)
	}
	s.begin()
	return s
}

func (s *LRScheduler) optimizer() Optimizer { return s.opt }
func (s *LRScheduler) undo()                { s.epoch-- }
func (s *LRScheduler) restart()             { s.update(0) }

func (s *LRScheduler) begin() {
	s.count, s.initial = 0, true
	s.Step()
	s.initial = false
}

// Step goes on by one.
func (s *LRScheduler) Step() {
	if s.formula.to != nil {
		s.formula.to(s, -1)
		s.apply(s.formula.lr)
		return
	}
	s.count++
	s.epoch++
	s.apply(s.formula.lr)
}

// StepTo goes to an epoch, from which alone the learning rate follows where the schedule has such a form
// (PyTorch's step(epoch)). Only [NewCosineAnnealingWarmRestarts] takes parts of epochs.
func (s *LRScheduler) StepTo(epoch float64) {
	if epoch < 0 || s.formula.to == nil && epoch != math.Trunc(epoch) {
		fail(s.name, "Expected non-negative epoch, but got %v", epoch)
	}
	if s.formula.to != nil {
		s.formula.to(s, epoch)
		s.apply(s.formula.lr)
		return
	}
	s.count++
	s.update(int(epoch))
}

func (s *LRScheduler) update(epoch int) {
	s.epoch = epoch
	if s.formula.closed == nil {
		s.apply(s.formula.lr)
		return
	}
	s.apply(func(s *LRScheduler, i int, _ float64) float64 { return s.formula.closed(s, i) })
}

func (s *LRScheduler) apply(lr func(s *LRScheduler, group int, now float64) float64) {
	groups := s.opt.Groups()
	if len(groups) != len(s.base) {
		fail(s.name, "the optimizer has %d parameter groups, and had %d", len(groups), len(s.base))
	}
	s.last = make([]float64, len(groups))
	for i, g := range groups {
		s.last[i] = lr(s, i, g.LR())
	}
	if s.formula.other != nil {
		s.formula.other(s)
	}
	for i, g := range groups {
		g.SetLR(s.last[i])
	}
}

// LastLR are the learning rates that were set last.
func (s *LRScheduler) LastLR() []float64 { return slices.Clone(s.last) }

// LastEpoch is the number of steps so far (PyTorch's last_epoch).
func (s *LRScheduler) LastEpoch() int { return s.epoch }

func (s *LRScheduler) entries() []option {
	return append([]option{{"base_lrs", &s.base, nil}, {"last_epoch", &s.epoch, nil}, {"_step_count", &s.count, nil},
		{"_last_lr", &s.last, nil}, fixed("_is_initial"), fixed("_get_lr_called_within_step")}, s.formula.table...)
}

// StateDict is the state under PyTorch's names.
func (s *LRScheduler) StateDict() map[string]any { return valuesOf(s.entries()) }

// LoadStateDict takes over a state; see [Scheduler].
func (s *LRScheduler) LoadStateDict(state map[string]any) error {
	n := len(s.base)
	if err := loadValues(s.name, s.entries(), state, n); err != nil {
		return err
	}
	if s.formula.loaded != nil {
		s.formula.loaded()
	}
	return nil
}

func valuesOf(table []option) map[string]any {
	state := map[string]any{}
	for _, o := range table {
		state[o.key] = o.value()
	}
	return state
}

// loadValues sets what a state has; lists of learning rates have an item for each of n groups. What the
// table doesn't have is PyTorch's own business.
func loadValues(name string, table []option, state map[string]any, n int) error {
	for _, commit := range []bool{false, true} {
		for _, o := range table {
			v, ok := state[o.key]
			if !ok {
				continue
			}
			list, isList := v.([]any)
			if _, numbers := o.at.(*[]float64); numbers && (!isList || len(list) != n) {
				return fmt.Errorf("load state dict: %s: %s: expected a list of %d numbers", name, o.key, n)
			}
			if err := o.set(v, commit); err != nil {
				return fmt.Errorf("load state dict: %s: %w", name, err)
			}
		}
	}
	return nil
}
