package strictjson

import (
	"encoding/json"
	"fmt"
	"iter"
	"math"
	"strconv"
	"strings"
)

// Number is a number as it is written in the document.
type Number string

// IsInteger reports whether it has neither fraction nor exponent.
func (n Number) IsInteger() bool {
	for i := range len(n) {
		if !isDigit(n[i]) && n[i] != '-' {
			return false
		}
	}
	return n != ""
}

// Int64 is its value, if it is written as an integer and fits.
func (n Number) Int64() (int64, error) {
	if !n.IsInteger() {
		return 0, &Error{ErrType, -1, "expected an integer, got " + clip(string(n))}
	}
	i, err := strconv.ParseInt(string(n), 10, 64)
	if err != nil {
		return 0, &Error{ErrLimit, -1, clip(string(n)) + " is outside int64"}
	}
	return i, nil
}

// Float64 is the nearest float64; an error if that is infinite but the number is not.
func (n Number) Float64() (float64, error) {
	switch n {
	case "NaN":
		return math.NaN(), nil
	case "Infinity":
		return math.Inf(1), nil
	case "-Infinity":
		return math.Inf(-1), nil
	}
	f, err := strconv.ParseFloat(string(n), 64)
	if err != nil {
		return 0, &Error{ErrLimit, -1, clip(string(n)) + " is outside float64"}
	}
	return f, nil
}

// Value is one JSON value. The zero Value is no value; null is a value.
type Value struct {
	kind  Kind
	text  string // of a string or number; "true" or "false" of a boolean
	items []Value
	obj   *Object
}

// Parse reads a document into a tree.
func Parse(data []byte, opts Options) (Value, error) {
	d := NewDecoder(data, opts)
	v, err := d.Value()
	if err == nil {
		err = d.End()
	}
	if err != nil {
		return Value{}, err
	}
	return v, nil
}

// Value reads the next value, of any kind, as a tree.
func (d *Decoder) Value() (Value, error) {
	k, err := d.Peek()
	if err != nil {
		return Value{}, err
	}
	if d.values++; d.values > d.opts.MaxValues {
		return Value{}, d.fail(ErrLimit, "more than %d values", d.opts.MaxValues)
	}
	v := Value{kind: k}
	switch k {
	case KindObject:
		v.obj = &Object{}
		err = d.Object(func(name string) error {
			member, err := d.Value()
			v.obj.Set(name, member)
			return err
		})
	case KindArray:
		err = d.Array(func(int) error {
			item, err := d.Value()
			v.items = append(v.items, item)
			return err
		})
	case KindString:
		v.text, err = d.Text()
	case KindNumber:
		var n Number
		n, err = d.Number()
		v.text = string(n)
	case KindBool:
		var b bool
		b, err = d.Bool()
		v.text = strconv.FormatBool(b)
	default:
		err = d.Null()
	}
	if err != nil {
		return Value{}, err
	}
	return v, nil
}

// Null is the value null.
func Null() Value { return Value{kind: KindNull} }

// Bool is a boolean value.
func Bool(b bool) Value { return Value{kind: KindBool, text: strconv.FormatBool(b)} }

// String is a string value.
func String(s string) Value { return Value{kind: KindString, text: s} }

// Int is an integer value.
func Int(i int64) Value { return Value{kind: KindNumber, text: strconv.FormatInt(i, 10)} }

// Float is a number as Python's json.dumps writes a float: with a point or an exponent, NaN and Infinity by
// name, which JSON doesn't have.
func Float(f float64) Value {
	text := strconv.FormatFloat(f, 'f', -1, 64)
	switch size := math.Abs(f); {
	case math.IsNaN(f):
		text = "NaN"
	case math.IsInf(f, 0):
		text = strings.Replace(text, "Inf", "Infinity", 1)
		text = strings.TrimPrefix(text, "+")
	case size != 0 && (size < 1e-4 || size >= 1e16):
		text = strconv.FormatFloat(f, 'e', -1, 64)
	case f == math.Trunc(f):
		text += ".0"
	}
	return Value{kind: KindNumber, text: text}
}

// Array is an array value.
func Array(items ...Value) Value { return Value{kind: KindArray, items: items} }

// Kind is the kind of v, 0 if v is no value.
func (v Value) Kind() Kind { return v.kind }

// IsNull reports whether v is null.
func (v Value) IsNull() bool { return v.kind == KindNull }

func (v Value) want(k Kind) error {
	if v.kind != k {
		return &Error{ErrType, -1, fmt.Sprintf("expected %v, got %v", k, v.kind)}
	}
	return nil
}

// AsBool is the value of a boolean.
func (v Value) AsBool() (bool, error) { return v.text == "true", v.want(KindBool) }

// AsString is the value of a string.
func (v Value) AsString() (string, error) {
	if err := v.want(KindString); err != nil {
		return "", err
	}
	return v.text, nil
}

// AsNumber is a number as it is written.
func (v Value) AsNumber() (Number, error) {
	if err := v.want(KindNumber); err != nil {
		return "", err
	}
	return Number(v.text), nil
}

// AsInt is the value of a number that is written as an integer.
func (v Value) AsInt() (int64, error) {
	n, err := v.AsNumber()
	if err != nil {
		return 0, err
	}
	return n.Int64()
}

// AsFloat is the value of a number.
func (v Value) AsFloat() (float64, error) {
	n, err := v.AsNumber()
	if err != nil {
		return 0, err
	}
	return n.Float64()
}

// AsArray is the elements of an array.
func (v Value) AsArray() ([]Value, error) { return v.items, v.want(KindArray) }

// AsTuple is the elements of an array that must have exactly n.
func (v Value) AsTuple(n int) ([]Value, error) {
	if err := v.want(KindArray); err != nil {
		return nil, err
	}
	if len(v.items) != n {
		return nil, &Error{ErrType, -1, fmt.Sprintf("expected an array of %d, got %d elements", n, len(v.items))}
	}
	return v.items, nil
}

// AsObject is the value of an object.
func (v Value) AsObject() (*Object, error) { return v.obj, v.want(KindObject) }

// Any converts v to the types of encoding/json with UseNumber: nil, bool, json.Number, string, []any,
// map[string]any.
func (v Value) Any() any {
	switch v.kind {
	case KindBool:
		return v.text == "true"
	case KindNumber:
		return json.Number(v.text)
	case KindString:
		return v.text
	case KindArray:
		list := make([]any, len(v.items))
		for i, item := range v.items {
			list[i] = item.Any()
		}
		return list
	case KindObject:
		m := make(map[string]any, v.obj.Len())
		for name, member := range v.obj.All() {
			m[name] = member.Any()
		}
		return m
	}
	return nil
}

// Object is the members of a JSON object in their order.
type Object struct {
	set    nameSet
	values []Value
}

// Value is o as a value; later changes of o show in it.
func (o *Object) Value() Value { return Value{kind: KindObject, obj: o} }

// Len is the number of members.
func (o *Object) Len() int { return len(o.values) }

// Get finds a member.
func (o *Object) Get(name string) (Value, bool) {
	if i := o.set.find(name); i >= 0 {
		return o.values[i], true
	}
	return Value{}, false
}

// Set replaces a member, or adds it at the end.
func (o *Object) Set(name string, v Value) {
	if o.set.add(name) {
		o.values = append(o.values, v)
		return
	}
	o.values[o.set.find(name)] = v
}

// All goes over the members in their order.
func (o *Object) All() iter.Seq2[string, Value] {
	return func(yield func(string, Value) bool) {
		for i, v := range o.values {
			if !yield(o.set.names[i], v) {
				return
			}
		}
	}
}

// nameSet is the names of an object in their order, and where each is.
type nameSet struct {
	names []string
	index map[string]int
}

func (s *nameSet) find(name string) int {
	if s.index != nil {
		if i, ok := s.index[name]; ok {
			return i
		}
		return -1
	}
	for i, n := range s.names {
		if n == name {
			return i
		}
	}
	return -1
}

func (s *nameSet) add(name string) bool {
	if s.find(name) >= 0 {
		return false
	}
	s.names = append(s.names, name)
	switch {
	case s.index != nil:
		s.index[name] = len(s.names) - 1
	case len(s.names) > smallObject:
		s.index = make(map[string]int, 4*smallObject)
		for i, n := range s.names {
			s.index[n] = i
		}
	}
	return true
}
