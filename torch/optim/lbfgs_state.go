package optim

import (
	"fmt"

	"github.com/torchgo/torchgo/torch"
)

// StateDict is the state in PyTorch's form; see [Optimizer]. PyTorch's tensors of one number are numbers
// here, which it takes as well.
func (l *LBFGS) StateDict() *StateDict {
	dict := dictOfGroups(l.groups)
	s := l.state
	if s == nil {
		return dict
	}
	row := map[string]any{"func_evals": s.evals, "n_iter": s.iters}
	dict.State[0] = row
	if !s.begun {
		return dict
	}
	row["d"], row["t"], row["H_diag"] = s.d, s.t, s.diag
	row["prev_flat_grad"], row["prev_loss"] = s.prevGrad, s.prevLoss
	dirs, steps, ro := []any{}, []any{}, []any{}
	for i := range s.dirs {
		dirs, steps, ro = append(dirs, s.dirs[i]), append(steps, s.steps[i]), append(ro, s.ro[i])
	}
	row["old_dirs"], row["old_stps"], row["ro"] = dirs, steps, ro
	if s.al != nil {
		al := make([]any, len(s.al))
		for i := range s.dirs {
			al[i] = s.al[i]
		}
		row["al"] = al
	}
	return dict
}

// LoadStateDict takes over a state; see [Optimizer].
func (l *LBFGS) LoadStateDict(dict *StateDict) error {
	byID, commit, err := loadGroups(l.groups, dict)
	if err != nil {
		return fmt.Errorf("load state dict: %w", err)
	}
	var made *lbfgsState
	for id, row := range dict.State {
		if at, ok := byID[id]; !ok || at != 0 {
			return fmt.Errorf("load state dict: state.%d: LBFGS keeps its state with the first parameter", id)
		}
		made = &lbfgsState{}
		caught := torch.TryDo(func() {
			torch.Scope(func() { torch.NoGrad(func() { err = l.load(made, row) }) })
		})
		if err == nil {
			err = caught
		}
		if err != nil {
			made.close()
			return fmt.Errorf("load state dict: state.%d.%w", id, err)
		}
	}
	commit()
	l.state.close()
	l.state = made
	return nil
}

func (l *LBFGS) load(s *lbfgsState, row map[string]any) error {
	total := 0
	for _, n := range l.numels {
		total += n
	}
	first := l.groups[0].Params[0]
	dtype := first.DType()
	if dtype.IsComplex() {
		dtype = torch.ViewAsReal(first.Detach()).DType()
	}
	vector := func(key string, v any) (*torch.Tensor, error) {
		t, ok := v.(*torch.Tensor)
		if !ok || t.Dim() != 1 || t.Numel() != total {
			return nil, fmt.Errorf("%s: expected a vector of %d", key, total)
		}
		t = t.To(first.Device(), torch.ToOptions{DType: dtype, Copy: true})
		torch.Keep(t)
		return t, nil
	}
	num := func(key string, v any) (float64, error) {
		if t, ok := v.(*torch.Tensor); ok && t.Numel() == 1 && t.DType().IsFloatingPoint() {
			return torch.Item[float64](t), nil
		}
		x, ok := number(v)
		if !ok {
			return 0, fmt.Errorf("%s: expected a number", key)
		}
		return x, nil
	}
	list := func(key string) ([]any, error) {
		items, ok := row[key].([]any)
		if !ok && row[key] != nil {
			return nil, fmt.Errorf("%s: expected a list", key)
		}
		return items, nil
	}
	known := map[string]bool{"func_evals": true, "n_iter": true, "d": true, "t": true, "old_dirs": true, "old_stps": true, "ro": true,
		"H_diag": true, "prev_flat_grad": true, "prev_loss": true, "al": true}
	for key := range row {
		if !known[key] {
			return fmt.Errorf("%s: LBFGS has no such entry", key)
		}
	}
	var ok, okIter bool
	s.evals, ok = integer(row["func_evals"])
	s.iters, okIter = integer(row["n_iter"])
	if !ok || !okIter {
		return fmt.Errorf("func_evals, n_iter: expected integers")
	}
	if s.iters == 0 {
		return nil
	}
	s.begun = true
	var err error
	if s.d, err = vector("d", row["d"]); err != nil {
		return err
	}
	if s.prevGrad, err = vector("prev_flat_grad", row["prev_flat_grad"]); err != nil {
		return err
	}
	for key, at := range map[string]*float64{"t": &s.t, "H_diag": &s.diag, "prev_loss": &s.prevLoss} {
		if *at, err = num(key, row[key]); err != nil {
			return err
		}
	}
	dirs, err := list("old_dirs")
	if err != nil {
		return err
	}
	steps, err := list("old_stps")
	if err != nil {
		return err
	}
	ro, err := list("ro")
	if err != nil {
		return err
	}
	if len(dirs) != len(steps) || len(dirs) != len(ro) {
		return fmt.Errorf("old_dirs, old_stps, ro: expected lists of one length, got %d, %d, %d", len(dirs), len(steps), len(ro))
	}
	for i := range dirs {
		y, err := vector("old_dirs", dirs[i])
		if err != nil {
			return err
		}
		s.dirs = append(s.dirs, y)
		step, err := vector("old_stps", steps[i])
		if err != nil {
			return err
		}
		s.steps = append(s.steps, step)
		r, err := num("ro", ro[i])
		if err != nil {
			return err
		}
		s.ro = append(s.ro, r)
	}
	return nil
}
