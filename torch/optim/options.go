package optim

import (
	"encoding/json"
	"fmt"
	"math"

	"github.com/torchgo/torchgo/internal/strictjson"
	"github.com/torchgo/torchgo/torch"
)

// option is one entry of a parameter group, under PyTorch's name.
type option struct {
	key string
	at  any // pointer to the field of the options; nil: always def
	def any // PyTorch's default, where it is not Go's zero value
}

// fixed are options of PyTorch's that have one value here.
func fixed(key string) option { return option{key, nil, false} }

type pair = [2]float64

// fill sets what is unset to its default.
func fill(table []option) {
	for _, o := range table {
		if o.def == nil {
			continue
		}
		switch at := o.at.(type) {
		case *float64:
			if *at == 0 {
				*at = o.def.(float64)
			}
		case *torch.Opt[float64]:
			fillOpt(at, o.def)
		case *torch.Opt[int]:
			fillOpt(at, o.def)
		case *torch.Opt[bool]:
			fillOpt(at, o.def)
		case *torch.Opt[pair]:
			fillOpt(at, o.def)
		case *torch.Opt[[3]float64]:
			fillOpt(at, o.def)
		case *[2]torch.Opt[float64]: // Adafactor's eps
			fillOpt(&at[1], o.def)
		}
	}
}

func fillOpt[T any](at *torch.Opt[T], def any) { *at = torch.Some(at.Or(def.(T))) }

// value is the option as JSON has it: nil, a bool, float64, int, string or a list.
func (o option) value() any {
	switch at := o.at.(type) {
	case nil:
		return o.def
	case *float64:
		return *at
	case *int:
		return *at
	case *bool:
		return *at
	case *string:
		if *at == "" {
			return nil
		}
		return *at
	case *[]float64:
		list := make([]any, len(*at))
		for i, v := range *at {
			list[i] = v
		}
		return list
	case *torch.Opt[float64]:
		return optValue(*at)
	case *torch.Opt[int]:
		return optValue(*at)
	case *torch.Opt[bool]:
		return optValue(*at)
	case *torch.Opt[pair]:
		v, _ := at.Get()
		return []any{v[0], v[1]}
	case *torch.Opt[[3]float64]:
		v, _ := at.Get()
		return []any{v[0], v[1], v[2]}
	case *[2]torch.Opt[float64]:
		return []any{optValue(at[0]), optValue(at[1])}
	}
	panic(fmt.Sprintf("optim: option %s of type %T", o.key, o.at))
}

func optValue[T any](o torch.Opt[T]) any {
	if v, ok := o.Get(); ok {
		return v
	}
	return nil
}

// set is the inverse of value. Without commit it only checks.
func (o option) set(v any, commit bool) error {
	var ok bool
	switch at := o.at.(type) {
	case nil:
		_, ok = v.(bool) // PyTorch's capturable and differentiable say how to compute, not what
	case *float64:
		ok = assign(at, v, number, commit)
	case *int:
		ok = assign(at, v, integer, commit)
	case *bool:
		ok = assign(at, v, is[bool], commit)
	case *string:
		if v == nil {
			v = ""
		}
		ok = assign(at, v, is[string], commit)
	case *[]float64:
		list, _ := v.([]any)
		ok = assign(at, v, numbers(len(list)), commit)
	case *torch.Opt[float64]:
		ok = assign(at, v, optional(number), commit)
	case *torch.Opt[int]:
		ok = assign(at, v, optional(integer), commit)
	case *torch.Opt[bool]:
		ok = assign(at, v, optional(is[bool]), commit)
	case *torch.Opt[pair]:
		var list []float64
		if ok = assign(&list, v, numbers(2), true); ok && commit {
			*at = torch.Some(pair(list))
		}
	case *torch.Opt[[3]float64]:
		var list []float64
		if ok = assign(&list, v, numbers(3), true); ok && commit {
			*at = torch.Some([3]float64(list))
		}
	case *[2]torch.Opt[float64]:
		list, _ := v.([]any)
		var both [2]torch.Opt[float64]
		if ok = len(list) == 2 && assign(&both[0], list[0], optional(number), true) && assign(&both[1], list[1], optional(number), true); ok && commit {
			*at = both
		}
	}
	if !ok {
		return fmt.Errorf("%s: unexpected value %v", o.key, v)
	}
	return nil
}

func assign[T any](at *T, v any, convert func(any) (T, bool), commit bool) bool {
	x, ok := convert(v)
	if ok && commit {
		*at = x
	}
	return ok
}

func is[T any](v any) (T, bool) {
	x, ok := v.(T)
	return x, ok
}

func number(v any) (float64, bool) {
	switch x := v.(type) {
	case float64:
		return x, true
	case int:
		return float64(x), true
	case json.Number:
		f, err := x.Float64()
		return f, err == nil
	}
	return 0, false
}

func integer(v any) (int, bool) {
	if x, ok := v.(int); ok {
		return x, true
	}
	f, ok := number(v)
	return int(f), ok && f == math.Trunc(f) && math.Abs(f) < 1<<53
}

func optional[T any](convert func(any) (T, bool)) func(any) (torch.Opt[T], bool) {
	return func(v any) (torch.Opt[T], bool) {
		if v == nil {
			return torch.Opt[T]{}, true
		}
		x, ok := convert(v)
		return torch.Some(x), ok
	}
}

func numbers(n int) func(any) ([]float64, bool) {
	return func(v any) ([]float64, bool) {
		list, _ := v.([]any)
		out := make([]float64, len(list))
		for i := range list {
			x, ok := number(list[i])
			if !ok {
				return nil, false
			}
			out[i] = x
		}
		return out, len(out) == n
	}
}

// rules tells what is wrong with options: a message, and the value it names, for each condition.
type rules []struct {
	ok     bool
	format string
	value  any
}

// broken is the message of the first condition that does not hold; empty if all do.
func (rs rules) broken() string {
	for _, r := range rs {
		switch {
		case r.ok:
		case r.value == nil:
			return r.format
		default:
			if f, ok := r.value.(float64); ok {
				return fmt.Sprintf(r.format, pythonFloat(f))
			}
			return fmt.Sprintf(r.format, r.value)
		}
	}
	return ""
}

// pythonFloat is a float as Python prints it.
func pythonFloat(f float64) string {
	return string(strictjson.Format{}.Append(nil, strictjson.Float(f)))
}

// fail panics with PyTorch's message about a wrong argument.
func fail(op, format string, args ...any) {
	panic(&torch.Error{Op: op, Kind: torch.ErrValue, Message: fmt.Sprintf(format, args...)})
}
