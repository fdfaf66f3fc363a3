package pretrained

import (
	"encoding/json"
	"fmt"
	"math"
	"reflect"
	"strconv"
	"strings"

	"github.com/torchgo/torchgo/internal/pyjson"
)

// configFields maps JSON keys to the fields of a config, those of embedded structs included.
func configFields(c Config) map[string]reflect.Value {
	fields := map[string]reflect.Value{}
	var collect func(v reflect.Value)
	collect = func(v reflect.Value) {
		for i := range v.NumField() {
			sf := v.Type().Field(i)
			tag := sf.Tag.Get("json")
			switch {
			case sf.Anonymous && tag == "" && sf.Type.Kind() == reflect.Struct:
				collect(v.Field(i))
			case tag != "" && tag != "-":
				name, _, _ := strings.Cut(tag, ",")
				fields[name] = v.Field(i)
			}
		}
	}
	collect(reflect.ValueOf(c).Elem())
	return fields
}

// setField puts a JSON value into a field, without conversions: 8.0 or "8" is no size.
func setField(f reflect.Value, key string, v any) error {
	bad := func(want string) error { return configError(key, want, Describe(v)) }
	switch p := f.Addr().Interface().(type) {
	case *any:
		*p = v
	case *string:
		s, ok := v.(string)
		if !ok && v != nil {
			return bad("a string")
		}
		*p = s
	case *bool:
		b, ok := v.(bool)
		if !ok && v != nil {
			return bad("true or false")
		}
		*p = b
	case *int:
		i, ok := asInt(v)
		if !ok {
			return bad("an integer")
		}
		*p = i
	case **int:
		i, ok := asInt(v)
		switch {
		case v == nil:
			*p = nil
		case ok:
			*p = &i
		default:
			return bad("an integer or null")
		}
	case *float64:
		x, ok := asFloat(v)
		if !ok {
			return bad("a number")
		}
		*p = x
	case **float64:
		x, ok := asFloat(v)
		switch {
		case v == nil:
			*p = nil
		case ok:
			*p = &x
		default:
			return bad("a number or null")
		}
	case *[]string:
		list, ok := v.([]any)
		if !ok && v != nil {
			return bad("a list of strings")
		}
		*p = nil
		for _, item := range list {
			s, ok := item.(string)
			if !ok {
				return bad("a list of strings")
			}
			*p = append(*p, s)
		}
	case *map[int]string:
		m, ok := v.(map[string]any)
		if !ok && v != nil {
			return bad("an object of strings")
		}
		*p = nil
		for k, item := range m {
			i, err := strconv.Atoi(k)
			s, ok := item.(string)
			if err != nil || !ok {
				return bad("an object from integers to strings")
			}
			if *p == nil {
				*p = map[int]string{}
			}
			(*p)[i] = s
		}
	case *map[string]int:
		m, ok := v.(map[string]any)
		if !ok && v != nil {
			return bad("an object of integers")
		}
		*p = nil
		for k, item := range m {
			i, ok := asInt(item)
			if !ok {
				return bad("an object of integers")
			}
			if *p == nil {
				*p = map[string]int{}
			}
			(*p)[k] = i
		}
	case *map[string]any:
		m, ok := v.(map[string]any)
		if !ok && v != nil {
			return bad("an object or null")
		}
		*p, _ = cloneJSON(m).(map[string]any)
	default:
		panic(fmt.Sprintf("pretrained: config field %q: no reading of a %s", key, f.Type()))
	}
	return nil
}

// encodeFields is the inverse of setField for all fields.
func encodeFields(fields map[string]reflect.Value) map[string]any {
	out := map[string]any{}
	for key, f := range fields {
		switch v := f.Interface().(type) {
		case int:
			out[key] = int64(v)
		case string:
			out[key] = v
			if v == "" {
				out[key] = nil
			}
		case *int:
			out[key] = nil
			if v != nil {
				out[key] = int64(*v)
			}
		case *float64:
			out[key] = nil
			if v != nil {
				out[key] = *v
			}
		case []string:
			out[key] = nil
			if v != nil {
				out[key] = v
			}
		case map[int]string:
			out[key] = v
		case map[string]int:
			out[key] = nil
			if v != nil {
				m := map[string]any{}
				for k, i := range v {
					m[k] = i
				}
				out[key] = m
			}
		case map[string]any:
			out[key] = nil
			if v != nil {
				out[key] = cloneJSON(v)
			}
		default:
			out[key] = v
		}
	}
	return out
}

// cloneJSON copies a JSON value with the objects and lists in it; a nil map stays nil.
func cloneJSON(v any) any {
	switch v := v.(type) {
	case map[string]any:
		if v == nil {
			return v
		}
		m := make(map[string]any, len(v))
		for k, item := range v {
			m[k] = cloneJSON(item)
		}
		return m
	case []any:
		list := make([]any, len(v))
		for i, item := range v {
			list[i] = cloneJSON(item)
		}
		return list
	}
	return v
}

func asInt(v any) (int, bool) {
	switch v := v.(type) {
	case int:
		return v, true
	case int64:
		return int(v), true
	case json.Number: // from a caller's JSON
		x, err := strconv.Atoi(string(v))
		return x, err == nil
	}
	return 0, false
}

func asFloat(v any) (float64, bool) {
	switch v := v.(type) {
	case float64:
		return v, true
	case json.Number:
		x, err := strconv.ParseFloat(string(v), 64)
		return x, err == nil
	}
	i, ok := asInt(v)
	return float64(i), ok
}

// Describe shows a JSON value in an error, shortened.
func Describe(v any) string {
	var s string
	switch v := v.(type) {
	case nil:
		return "null"
	case string:
		s = strconv.Quote(v)
	case float64:
		if math.IsNaN(v) || math.IsInf(v, 0) {
			return fmt.Sprint(v)
		}
		s = pyjson.Float(v)
	case []any:
		return "a list"
	case map[string]any:
		return "an object"
	default:
		s = fmt.Sprint(v)
	}
	if len(s) > 60 {
		s = s[:57] + "..."
	}
	return s
}
