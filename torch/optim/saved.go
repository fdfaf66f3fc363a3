package optim

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"

	"github.com/torchgo/torchgo/pretrained/pickle"
	"github.com/torchgo/torchgo/torch"
)

// SavedValue is the state as serialization.Save writes it: what torch.load gives to Python's optimizer.load_state_dict.
func (s *StateDict) SavedValue() any {
	state, groups := &pickle.Dict{}, &pickle.List{}
	for _, id := range slices.Sorted(maps.Keys(s.State)) {
		row := &pickle.Dict{}
		for _, key := range slices.Sorted(maps.Keys(s.State[id])) {
			_ = row.Set(key, savedItem(s.State[id][key])) // strings can be keys
		}
		_ = state.Set(int64(id), row)
	}
	for _, g := range s.ParamGroups {
		row := &pickle.Dict{}
		for _, key := range slices.Sorted(maps.Keys(g)) {
			v := savedItem(g[key])
			if list, ok := v.(*pickle.List); ok && key != "params" && key != "param_names" {
				v = pickle.Tuple(list.Items) // betas and the like
			}
			_ = row.Set(key, v)
		}
		groups.Items = append(groups.Items, row)
	}
	root := &pickle.Dict{}
	_ = root.Set("state", state)
	_ = root.Set("param_groups", groups)
	return root
}

// savedItem is a value of a state dict for package pickle.
func savedItem(v any) pickle.Value {
	switch x := v.(type) {
	case int:
		return int64(x)
	case json.Number:
		return savedItem(plainNumber(x))
	case []int:
		list := &pickle.List{}
		for _, n := range x {
			list.Items = append(list.Items, int64(n))
		}
		return list
	case []any:
		list := &pickle.List{}
		for _, item := range x {
			list.Items = append(list.Items, savedItem(item))
		}
		return list
	}
	return v
}

// StateDictOf takes an optimizer's state out of what serialization.Load has read: {"state": …, "param_groups": …}. The
// tensors stay those of the file.
func StateDictOf(loaded any) (*StateDict, error) {
	wrong := func(what string) (*StateDict, error) {
		return nil, fmt.Errorf("optimizer's state dict: expected %s", what)
	}
	root, ok := loaded.(*pickle.Dict)
	if !ok {
		return wrong("a dict of state and param_groups")
	}
	state, _ := root.Get("state")
	groups, _ := root.Get("param_groups")
	rows, okState := state.(*pickle.Dict)
	list, okGroups := groups.(*pickle.List)
	if !okState || !okGroups {
		return wrong("a dict of state and param_groups")
	}
	s := &StateDict{State: map[int]map[string]any{}}
	for key, v := range rows.Items() {
		id, isInt := key.(int64)
		if !isInt || id < 0 {
			return wrong(fmt.Sprintf("numbers of parameters in state, got %.40q", fmt.Sprint(key)))
		}
		row, err := StateOf(v)
		if err != nil {
			return nil, fmt.Errorf("optimizer's state dict: state.%d: %w", id, err)
		}
		s.State[int(id)] = row
	}
	for i, v := range list.Items {
		row, err := StateOf(v)
		if err != nil {
			return nil, fmt.Errorf("optimizer's state dict: param_groups.%d: %w", i, err)
		}
		for key, v := range row { // PyTorch's lr may be a tensor
			if t, ok := v.(*torch.Tensor); ok && t.Numel() == 1 {
				err := torch.TryDo(func() { torch.Scope(func() { row[key] = torch.Item[float64](t.Detach().ToDType(torch.Float64)) }) })
				if err != nil {
					return nil, fmt.Errorf("optimizer's state dict: param_groups.%d.%s: %w", i, key, err)
				}
			}
		}
		s.ParamGroups = append(s.ParamGroups, row)
	}
	return s, nil
}

// StateOf is a dict that serialization.Load has read in the types of [StateDict]: the state of a scheduler or gradient
// scaler for its LoadStateDict.
func StateOf(loaded any) (map[string]any, error) {
	d, ok := loaded.(*pickle.Dict)
	if !ok {
		return nil, fmt.Errorf("expected a dict")
	}
	m := make(map[string]any, d.Len())
	for key, v := range d.Items() {
		name, ok := key.(string)
		if !ok {
			return nil, fmt.Errorf("expected a dict with names as keys, got %.40q", fmt.Sprint(key))
		}
		var err error
		if m[name], err = loadedItem(v); err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
	}
	return m, nil
}

func loadedItem(v any) (any, error) {
	var list []pickle.Value
	switch x := v.(type) {
	case nil, bool, string, float64, *torch.Tensor:
		return x, nil
	case int64:
		return int(x), nil
	case pickle.Tuple:
		list = x
	case *pickle.List:
		list = x.Items
	case *pickle.Dict:
		return StateOf(x)
	default:
		return nil, fmt.Errorf("unexpected value of type %T", v)
	}
	out := make([]any, len(list))
	for i, item := range list {
		var err error
		if out[i], err = loadedItem(item); err != nil {
			return nil, err
		}
	}
	return out, nil
}
