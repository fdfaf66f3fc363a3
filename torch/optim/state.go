package optim

import (
	"encoding/json"
	"fmt"
	"slices"

	"github.com/torchgo/torchgo/torch"
)

// StateDict is the state of an optimizer in PyTorch's form.
type StateDict struct {
	// State has the entries of each parameter that has any, by the parameter's number. A value is a
	// *[torch.Tensor], nil, a bool, float64, int, json.Number, string, or a []any of these.
	State map[int]map[string]any
	// ParamGroups have PyTorch's keys; "params" is an []int of the parameters' numbers, the other values are
	// like those of State, without tensors.
	ParamGroups []map[string]any

	owned bool // Close frees the tensors
}

// Close frees the tensors of a state that [ReadStateDict] has made; those of an optimizer stay.
func (s *StateDict) Close() {
	if !s.owned {
		return
	}
	for _, entries := range s.State {
		for _, v := range entries {
			eachTensor(v, (*torch.Tensor).Close)
		}
	}
}

func eachTensor(v any, fn func(*torch.Tensor)) {
	switch x := v.(type) {
	case *torch.Tensor:
		fn(x)
	case []any:
		for _, item := range x {
			eachTensor(item, fn)
		}
	}
}

// dictOfGroups begins a state dict.
func dictOfGroups(groups []*Group) *StateDict {
	s := &StateDict{State: map[int]map[string]any{}}
	n := 0
	for _, g := range groups {
		row := map[string]any{}
		for key, v := range g.extra {
			row[key] = v
		}
		for _, o := range g.table {
			row[o.key] = o.value()
		}
		if g.Names != nil {
			names := make([]any, len(g.Names))
			for i, name := range g.Names {
				names[i] = name
			}
			row["param_names"] = names
		}
		ids := make([]int, len(g.Params))
		for i := range ids {
			ids[i] = n
			n++
		}
		row["params"] = ids
		s.ParamGroups = append(s.ParamGroups, row)
	}
	return s
}

// StateDict is the state in PyTorch's form; see [Optimizer].
func (b *Base[O]) StateDict() *StateDict {
	s := dictOfGroups(b.groups)
	for id, e := range b.order {
		if !e.made {
			continue
		}
		row := map[string]any{}
		if e.step != nil {
			row["step"] = e.step
			if b.rule.intStep {
				row["step"] = int(torch.Item[float32](e.step))
			}
		}
		for i, t := range e.slots {
			if t != nil {
				row[b.rule.slots[i]] = t
			}
		}
		if len(row) > 0 {
			s.State[id] = row
		}
	}
	return s
}

// loadGroups checks the groups of a state dict against an optimizer's. It returns which of the optimizer's
// parameters each number means, and what takes the options over.
func loadGroups(groups []*Group, s *StateDict) (byID map[int]int, commit func(), err error) {
	if len(s.ParamGroups) != len(groups) {
		return nil, nil, fmt.Errorf("loaded state dict has a different number of parameter groups: %d, want %d", len(s.ParamGroups), len(groups))
	}
	byID = map[int]int{}
	var commits []func()
	n := 0
	for i, g := range groups {
		row := s.ParamGroups[i]
		ids, err := intList(row["params"])
		if err != nil {
			return nil, nil, fmt.Errorf("param_groups.%d.params: %w", i, err)
		}
		if len(ids) != len(g.Params) {
			return nil, nil, fmt.Errorf("loaded state dict contains a parameter group that doesn't match the size of optimizer's group: "+
				"group %d has %d parameters, want %d", i, len(ids), len(g.Params))
		}
		for _, id := range ids {
			if _, twice := byID[id]; twice {
				return nil, nil, fmt.Errorf("param_groups.%d.params: parameter %d is there twice", i, id)
			}
			byID[id] = n
			n++
		}
		names, extra := g.Names, map[string]any{}
		for key, v := range row {
			at := slices.IndexFunc(g.table, func(o option) bool { return o.key == key })
			switch {
			case key == "params":
			case key == "param_names":
				list, _ := v.([]any)
				names = make([]string, len(list))
				for k, item := range list {
					names[k], _ = item.(string)
				}
				if len(list) != len(g.Params) {
					return nil, nil, fmt.Errorf("param_groups.%d.param_names: expected %d names", i, len(g.Params))
				}
			case at >= 0:
				if err := g.table[at].set(v, false); err != nil {
					return nil, nil, fmt.Errorf("param_groups.%d.%w", i, err)
				}
				commits = append(commits, func() { _ = g.table[at].set(v, true) })
			default:
				extra[key] = plainNumber(v)
			}
		}
		commits = append(commits, func() { g.Names, g.extra = names, extra })
	}
	return byID, func() {
		for _, c := range commits {
			c()
		}
	}, nil
}

// plainNumber is a number of JSON as Go has it.
func plainNumber(v any) any {
	if x, ok := v.(json.Number); ok {
		if i, err := x.Int64(); err == nil {
			return int(i)
		}
		f, _ := x.Float64()
		return f
	}
	return v
}

func intList(v any) ([]int, error) {
	if ids, ok := v.([]int); ok {
		return ids, nil
	}
	list, ok := v.([]any)
	ids := make([]int, len(list))
	for i, item := range list {
		n, whole := integer(item)
		ids[i], ok = n, ok && whole
	}
	if !ok {
		return nil, fmt.Errorf("expected a list of integers")
	}
	return ids, nil
}

// LoadStateDict takes over a state; see [Optimizer].
func (b *Base[O]) LoadStateDict(s *StateDict) error {
	byID, commit, err := loadGroups(b.groups, s)
	if err != nil {
		return fmt.Errorf("load state dict: %w", err)
	}
	// What the options will be decides which entries are needed.
	options := make([]O, len(b.groups))
	of := make([]*O, len(b.order))
	n := 0
	for i, g := range b.groups {
		options[i] = *g.options.(*O)
		table := b.rule.table(&options[i])
		for key, v := range s.ParamGroups[i] {
			if at := slices.IndexFunc(table, func(o option) bool { return o.key == key }); at >= 0 {
				_ = table[at].set(v, true) // loadGroups has checked it
			}
		}
		if message := b.rule.check(&options[i]).broken(); message != "" {
			return fmt.Errorf("load state dict: param_groups.%d: %s", i, message)
		}
		for range g.Params {
			of[n] = &options[i]
			n++
		}
	}
	made := make([]*entry, len(b.order))
	fail := func(err error) error {
		for _, e := range made {
			if e != nil {
				e.close()
			}
		}
		return fmt.Errorf("load state dict: %w", err)
	}
	for id, row := range s.State {
		at, ok := byID[id]
		if !ok {
			return fail(fmt.Errorf("state.%d: no parameter group has that parameter", id))
		}
		old := b.order[at]
		made[at] = &entry{param: old.param, dtype: old.dtype, device: old.device, made: true, slots: make([]*torch.Tensor, len(old.slots))}
		err := error(nil)
		caught := torch.TryDo(func() {
			torch.Scope(func() { torch.NoGrad(func() { err = b.loadEntry(of[at], made[at], row) }) })
		})
		if err == nil {
			err = caught
		}
		if err != nil {
			return fail(fmt.Errorf("state.%d.%w", id, err))
		}
	}
	commit()
	for i, old := range b.order {
		e := made[i]
		if e == nil {
			e = &entry{slots: make([]*torch.Tensor, len(old.slots))}
		}
		old.close()
		old.made, old.step, old.count, old.slots = e.made, e.step, e.count, e.slots
	}
	return nil
}

// loadEntry copies the state of one parameter.
func (b *Base[O]) loadEntry(o *O, e *entry, row map[string]any) error {
	for key, v := range row {
		slot := slices.Index(b.rule.slots, key)
		switch {
		case key == "step" && b.rule.counts:
			x, ok := number(v)
			if t, is := v.(*torch.Tensor); is {
				if ok = t.Numel() == 1 && t.DType().IsFloatingPoint(); ok {
					x = torch.Item[float64](t.ToDType(torch.Float64))
				}
			}
			if !ok {
				return fmt.Errorf("step: expected a number")
			}
			e.setStep(torch.FromValue(float32(x)))
		case slot < 0:
			return fmt.Errorf("%s: %s has no such entry", key, b.rule.name)
		case v == nil:
		default:
			t, ok := v.(*torch.Tensor)
			if !ok {
				return fmt.Errorf("%s: expected a tensor", key)
			}
			if want := b.shape(slot, e); !slices.Equal(t.Shape(), want) {
				return fmt.Errorf("%s: expected shape %v, got %v", key, torch.Shape(append([]int{}, want...)), torch.Shape(t.Shape()))
			}
			to := torch.ToOptions{Copy: true}
			device := e.device
			switch {
			case slices.Contains(b.rule.scalars, slot):
				to.DType, device = torch.Float32, torch.CPU
			case e.dtype.IsFloatingPoint():
				to.DType = e.dtype
			}
			e.slots[slot] = t.To(device, to)
			torch.Keep(e.slots[slot])
		}
	}
	for _, slot := range b.needed(o, e) {
		if e.slots[slot] == nil {
			return fmt.Errorf("%s: the entry is missing", b.rule.slots[slot])
		}
	}
	if b.rule.counts && e.step == nil {
		return fmt.Errorf("step: the entry is missing")
	}
	return nil
}
