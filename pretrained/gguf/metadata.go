package gguf

import (
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"math"
	"reflect"
	"slices"
	"strconv"
	"unicode/utf8"

	"github.com/torchgo/torchgo/internal/strictjson"
)

// Metadata is the metadata of a file: values of several types under keys, in order. Getters say in their error (ErrBadConfig)
// which key is missing or has another type. Arrays of a file are read from it when they are asked for, which fails once it is
// closed.
type Metadata struct {
	file   string // its name, for errors
	keys   []string
	values []value
	index  map[string]int
	err    error // of the first bad Set
}

// NewMetadata is metadata without a key.
func NewMetadata() *Metadata { return &Metadata{index: map[string]int{}} }

// Clone is a copy that can be changed.
func (m *Metadata) Clone() *Metadata {
	c := *m
	c.keys, c.values, c.index = slices.Clone(m.keys), slices.Clone(m.values), maps.Clone(m.index)
	return &c
}

// Len is the number of keys.
func (m *Metadata) Len() int { return len(m.keys) }

// Keys lists the keys in the order of the file.
func (m *Metadata) Keys() []string { return slices.Clone(m.keys) }

// Type is the type of a value, and whether there is one.
func (m *Metadata) Type(key string) (ValueType, bool) {
	i, ok := m.index[key]
	if !ok {
		return 0, false
	}
	return m.values[i].typ, true
}

// ArrayType is the type of an array's elements and their number; false if there is no array under the key.
func (m *Metadata) ArrayType(key string) (elem ValueType, n int, ok bool) {
	i, ok := m.index[key]
	if !ok || m.values[i].typ != Array {
		return 0, 0, false
	}
	return m.values[i].list.elem, int(m.values[i].list.n), true
}

// scalar gives the value of a key, if want accepts its type.
func (m *Metadata) scalar(key, expected string, want func(ValueType) bool) (value, error) {
	i, ok := m.index[key]
	if !ok {
		return value{}, m.missing(key, expected)
	}
	if v := m.values[i]; v.typ != Array && want(v.typ) {
		return v, nil
	}
	return value{}, m.wrong(key, expected, m.values[i])
}

// array gives the array of a key, if want accepts its elements' type.
func (m *Metadata) array(key, expected string, want func(ValueType) bool) (*list, error) {
	i, ok := m.index[key]
	if !ok {
		return nil, m.missing(key, expected)
	}
	if v := m.values[i]; v.typ == Array && want(v.list.elem) {
		return v.list, nil
	}
	return nil, m.wrong(key, expected, m.values[i])
}

func (m *Metadata) missing(key, expected string) error {
	return &Error{Class: ErrBadConfig, File: m.file, Detail: "metadata lacks " + quoted(key), Expected: expected}
}

func (m *Metadata) wrong(key, expected string, v value) error {
	actual := v.typ.String()
	if v.typ == Array {
		actual = fmt.Sprintf("array of %v", v.list.elem)
	}
	return &Error{Class: ErrBadConfig, File: m.file, Detail: "metadata " + quoted(key), Expected: expected, Actual: actual}
}

// at names the file and the key in an error of this package.
func (m *Metadata) at(key string, err error) error {
	if e := (*Error)(nil); errors.As(err, &e) {
		c := *e
		c.File, c.Detail = m.file, "metadata "+quoted(key)
		if e.Detail != "" {
			c.Detail += ": " + e.Detail
		}
		return &c
	}
	return err
}

// quoted keeps a hostile key from filling the screen.
func quoted(key string) string { return strconv.Quote(key[:min(len(key), 200)]) }

// String is a string.
func (m *Metadata) String(key string) (string, error) {
	v, err := m.scalar(key, "string", isString)
	return v.text, err
}

// Bool is a bool.
func (m *Metadata) Bool(key string) (bool, error) {
	v, err := m.scalar(key, "bool", isBool)
	return v.bits != 0, err
}

// Uint is an integer of any type that is not negative.
func (m *Metadata) Uint(key string) (uint64, error) {
	v, err := m.scalar(key, "integer", isInt)
	if err == nil && v.typ != Uint64 && signed(v.typ, v.bits) < 0 {
		return 0, m.at(key, &Error{Class: ErrBadConfig, Expected: "at least 0", Actual: fmt.Sprint(signed(v.typ, v.bits))})
	}
	return v.bits, err
}

// Int is an integer of any type that fits.
func (m *Metadata) Int(key string) (int64, error) {
	v, err := m.scalar(key, "integer", isInt)
	if err != nil {
		return 0, err
	}
	n, err := fits(v.typ, v.bits)
	return n, m.at(key, err)
}

func fits(t ValueType, bits uint64) (int64, error) {
	if t == Uint64 && bits > math.MaxInt64 {
		return 0, &Error{Class: ErrBadConfig, Expected: "at most 2^63 - 1", Actual: fmt.Sprint(bits)}
	}
	return signed(t, bits), nil
}

// Float is a number of any type.
func (m *Metadata) Float(key string) (float64, error) {
	v, err := m.scalar(key, "number", isNumber)
	return float(v.typ, v.bits), err
}

// Strings is an array of strings.
func (m *Metadata) Strings(key string) ([]string, error) {
	l, err := m.array(key, "array of string", isString)
	if err != nil {
		return nil, err
	}
	all, err := l.strings()
	return all, m.at(key, err)
}

// Bools is an array of bools.
func (m *Metadata) Bools(key string) ([]bool, error) {
	l, err := m.array(key, "array of bool", isBool)
	return elements(m, key, l, err, func(bits uint64) (bool, error) { return bits != 0, nil })
}

// Ints is an array of integers of any type that fit.
func (m *Metadata) Ints(key string) ([]int64, error) {
	l, err := m.array(key, "array of integers", isInt)
	return elements(m, key, l, err, func(bits uint64) (int64, error) { return fits(l.elem, bits) })
}

// Floats is an array of numbers of any type.
func (m *Metadata) Floats(key string) ([]float64, error) {
	l, err := m.array(key, "array of numbers", isNumber)
	return elements(m, key, l, err, func(bits uint64) (float64, error) { return float(l.elem, bits), nil })
}

func elements[T any](m *Metadata, key string, l *list, err error, convert func(bits uint64) (T, error)) ([]T, error) {
	if err != nil {
		return nil, err
	}
	all := make([]T, 0, l.n)
	err = l.each(func(bits uint64) error {
		x, err := convert(bits)
		all = append(all, x)
		return err
	})
	if err != nil {
		return nil, m.at(key, err)
	}
	return all, nil
}

// Value is a value in the Go type of its name: uint8, float32, string and so on, or a slice of them.
func (m *Metadata) Value(key string) (any, error) {
	i, ok := m.index[key]
	if !ok {
		return nil, m.missing(key, "")
	}
	v := m.values[i]
	switch {
	case v.typ == String:
		return v.text, nil
	case v.typ != Array:
		p := reflect.New(valueTypes[v.typ])
		_, err := binary.Decode(binary.LittleEndian.AppendUint64(nil, v.bits), binary.LittleEndian, p.Interface())
		return p.Elem().Interface(), err
	case v.list.elem == String:
		return m.Strings(key)
	case v.list.elem == Bool:
		return m.Bools(key)
	}
	raw, err := v.list.bytes()
	if err != nil {
		return nil, m.at(key, err)
	}
	all := reflect.MakeSlice(reflect.SliceOf(valueTypes[v.list.elem]), int(v.list.n), int(v.list.n)).Interface()
	_, err = binary.Decode(raw, binary.LittleEndian, all)
	return all, err
}

// Set gives a key a value: a string, a bool, an int8 to uint64, float32 or float64, or a slice of one of these types. A key that
// is there keeps its place. WriteFile returns the error of a value of another type.
func (m *Metadata) Set(key string, x any) {
	v, err := encode(x)
	if key == "" || len(key) > MaxKeyBytes || !utf8.ValidString(key) {
		err = &Error{Class: ErrBadHeader, Expected: fmt.Sprintf("a key of 1 to %d bytes of UTF-8", MaxKeyBytes)}
	}
	if err != nil {
		if m.err == nil {
			m.err = m.at(key, err)
		}
		return
	}
	m.put(key, v)
}

func (m *Metadata) put(key string, v value) {
	if i, ok := m.index[key]; ok {
		m.values[i] = v
		return
	}
	m.index[key] = len(m.keys)
	m.keys, m.values = append(m.keys, key), append(m.values, v)
}

// Delete removes keys, if they are there.
func (m *Metadata) Delete(keys ...string) {
	for _, key := range keys {
		if i, ok := m.index[key]; ok {
			m.keys, m.values = slices.Delete(m.keys, i, i+1), slices.Delete(m.values, i, i+1)
			delete(m.index, key)
			for j, k := range m.keys[i:] {
				m.index[k] = i + j
			}
		}
	}
}

func encode(x any) (value, error) {
	t := reflect.TypeOf(x)
	isArray := t != nil && t.Kind() == reflect.Slice
	if isArray {
		t = t.Elem()
	}
	i := slices.Index(valueTypes[:], t)
	if t == nil || i < 0 {
		return value{}, &Error{Class: ErrBadHeader, Detail: fmt.Sprintf("%T is no type of the format", x)}
	}
	v := value{typ: ValueType(i)}
	texts := []string{}
	switch s := x.(type) {
	case string:
		v.text, texts = s, []string{s}
	case []string:
		texts = s
	}
	for _, s := range texts {
		if !utf8.ValidString(s) {
			return value{}, &Error{Class: ErrBadHeader, Detail: fmt.Sprintf("not UTF-8: %.40q", s)}
		}
	}
	if !isArray && v.typ == String {
		return v, nil
	}
	var raw []byte
	if v.typ == String {
		for _, s := range texts {
			raw = append(binary.LittleEndian.AppendUint64(raw, uint64(len(s))), s...)
		}
	} else {
		var err error
		if raw, err = binary.Append(nil, binary.LittleEndian, x); err != nil {
			return value{}, err
		}
	}
	if isArray {
		return value{typ: Array, list: &list{elem: v.typ, n: int64(reflect.ValueOf(x).Len()), raw: raw, size: int64(len(raw))}}, nil
	}
	v.bits = littleEndian(raw)
	return v, nil
}

// MarshalJSON writes an object with the keys in order. Numbers that JSON lacks are strings: "NaN", "+Inf", "-Inf".
func (m *Metadata) MarshalJSON() ([]byte, error) {
	b := []byte{'{'}
	for i, key := range m.keys {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(strictjson.AppendString(b, key, false), ':')
		switch v := m.values[i]; {
		case v.typ == String:
			b = strictjson.AppendString(b, v.text, false)
		case v.typ != Array:
			b = appendNumber(b, v.typ, v.bits)
		default:
			b = append(b, '[')
			var err error
			if b, err = v.list.appendJSON(b); err != nil {
				return nil, m.at(key, err)
			}
			b = append(b, ']')
		}
	}
	return append(b, '}'), nil
}

func (l *list) appendJSON(b []byte) ([]byte, error) {
	start := len(b)
	comma := func() {
		if len(b) > start {
			b = append(b, ',')
		}
	}
	if l.elem == String {
		all, err := l.strings()
		for _, s := range all {
			comma()
			b = strictjson.AppendString(b, s, false)
		}
		return b, err
	}
	err := l.each(func(bits uint64) error {
		comma()
		b = appendNumber(b, l.elem, bits)
		return nil
	})
	return b, err
}

func appendNumber(b []byte, t ValueType, bits uint64) []byte {
	switch {
	case t == Bool:
		return strconv.AppendBool(b, bits != 0)
	case t == Uint64:
		return strconv.AppendUint(b, bits, 10)
	case isInt(t):
		return strconv.AppendInt(b, signed(t, bits), 10)
	}
	x, size := float(t, bits), 64
	if t == Float32 {
		size = 32
	}
	if math.IsNaN(x) || math.IsInf(x, 0) {
		return strconv.AppendQuote(b, strconv.FormatFloat(x, 'g', -1, 64))
	}
	return strconv.AppendFloat(b, x, 'g', -1, size)
}
