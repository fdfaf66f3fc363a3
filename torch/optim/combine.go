package optim

import (
	"fmt"
	"slices"
	"sort"
)

// SequentialLR uses one scheduler after the other (torch.optim.lr_scheduler.SequentialLR).
type SequentialLR struct {
	several
	milestones []int
	epoch      int
}

// ChainedScheduler uses several schedulers at a time (torch.optim.lr_scheduler.ChainedScheduler): each
// changes what the one before has left.
type ChainedScheduler struct{ several }

// several are schedulers of one optimizer.
type several struct {
	name       string
	opt        Optimizer
	schedulers []Scheduler
	last       []float64
}

func newSeveral(name string, opt Optimizer, schedulers []Scheduler) several {
	if len(schedulers) == 0 {
		fail(name, "%s expects at least one scheduler, but got no scheduler.", name)
	}
	if opt == nil {
		opt = schedulers[0].optimizer()
	}
	for i, s := range schedulers {
		if s.optimizer() != opt {
			fail(name, "%s expects all schedulers to belong to the same optimizer, but the one at index %d does not", name, i)
		}
	}
	return several{name: name, opt: opt, schedulers: schedulers}
}

func (s *several) optimizer() Optimizer { return s.opt }

func (s *several) undo() {
	for _, child := range s.schedulers {
		child.undo()
	}
}

// LastLR are the learning rates that were set last.
func (s *several) LastLR() []float64 { return slices.Clone(s.last) }

func (s *several) stateDict(table []option) map[string]any {
	state := valuesOf(append(table, option{"_last_lr", &s.last, nil}))
	children := make([]any, len(s.schedulers))
	for i, child := range s.schedulers {
		children[i] = child.StateDict()
	}
	state["_schedulers"] = children
	return state
}

func (s *several) load(state map[string]any, table []option) error {
	children, ok := state["_schedulers"].([]any)
	if !ok || len(children) != len(s.schedulers) {
		return fmt.Errorf("load state dict: %s: _schedulers: expected a list of %d", s.name, len(s.schedulers))
	}
	if err := loadValues(s.name, append(table, option{"_last_lr", &s.last, nil}), state, len(s.opt.Groups())); err != nil {
		return err
	}
	for i, child := range s.schedulers {
		row, ok := children[i].(map[string]any)
		if !ok {
			return fmt.Errorf("load state dict: %s: _schedulers.%d: expected an object", s.name, i)
		}
		if err := child.LoadStateDict(row); err != nil {
			return fmt.Errorf("%w (scheduler %d)", err, i)
		}
	}
	return nil
}

// NewSequentialLR goes from one scheduler to the next at each milestone, a number of steps.
func NewSequentialLR(opt Optimizer, schedulers []Scheduler, milestones []int) *SequentialLR {
	const name = "SequentialLR"
	s := &SequentialLR{several: newSeveral(name, opt, schedulers), milestones: slices.Clone(milestones)}
	if len(milestones) != len(schedulers)-1 {
		fail(name, "Sequential Schedulers expects number of schedulers provided to be one more than the number of milestone points, "+
			"but got number of schedulers %d and the number of milestones to be equal to %d", len(schedulers), len(milestones))
	}
	for _, g := range opt.Groups() {
		lr, _ := number(g.Get("initial_lr"))
		g.SetLR(lr)
	}
	// Each scheduler made its first step when it was made.
	s.undo()
	s.begin()
	return s
}

// at is the index of the scheduler for an epoch.
func (s *SequentialLR) at(epoch int) int { return sort.SearchInts(s.milestones, epoch+1) }

func (s *SequentialLR) begin() {
	first := s.schedulers[s.at(0)]
	first.begin()
	s.last = first.LastLR()
}

func (s *SequentialLR) restart() {
	s.epoch = 0
	first := s.schedulers[s.at(0)]
	first.restart()
	s.last = first.LastLR()
}

// Step goes on by one.
func (s *SequentialLR) Step() {
	s.epoch++
	i := s.at(s.epoch)
	if i > 0 && s.milestones[i-1] == s.epoch {
		s.schedulers[i].restart()
	} else {
		s.schedulers[i].Step()
	}
	s.last = s.schedulers[i].LastLR()
}

func (s *SequentialLR) table() []option { return []option{{"last_epoch", &s.epoch, nil}} }

// StateDict is the state under PyTorch's names.
func (s *SequentialLR) StateDict() map[string]any { return s.stateDict(s.table()) }

// LoadStateDict takes over a state; see [Scheduler].
func (s *SequentialLR) LoadStateDict(state map[string]any) error { return s.load(state, s.table()) }

// NewChainedScheduler uses all schedulers, which must be of one optimizer, in each step.
func NewChainedScheduler(schedulers ...Scheduler) *ChainedScheduler {
	s := &ChainedScheduler{newSeveral("ChainedScheduler", nil, schedulers)}
	s.note()
	return s
}

func (s *ChainedScheduler) note() {
	s.last = nil
	for _, g := range s.opt.Groups() {
		s.last = append(s.last, g.LR())
	}
}

func (s *ChainedScheduler) begin() {
	for _, child := range s.schedulers {
		child.begin()
	}
	s.note()
}

func (s *ChainedScheduler) restart() {
	for _, child := range s.schedulers {
		child.restart()
	}
	s.note()
}

// Step goes on by one.
func (s *ChainedScheduler) Step() {
	for _, child := range s.schedulers {
		child.Step()
	}
	s.note()
}

// StateDict is the state under PyTorch's names.
func (s *ChainedScheduler) StateDict() map[string]any { return s.stateDict(nil) }

// LoadStateDict takes over a state; see [Scheduler].
func (s *ChainedScheduler) LoadStateDict(state map[string]any) error { return s.load(state, nil) }
