package gguf

import (
	"encoding/binary"
	"fmt"
	"math"
	"reflect"
	"unicode/utf8"

	"github.com/torchgo/torchgo/internal/weights"
)

// ValueType is the type of a value in the metadata, numbered as in the format.
type ValueType uint32

// The 13 types.
const (
	Uint8 ValueType = iota
	Int8
	Uint16
	Int16
	Uint32
	Int32
	Float32
	Bool
	String
	Array
	Uint64
	Int64
	Float64
)

var valueTypes = [...]reflect.Type{
	Uint8: reflect.TypeFor[uint8](), Int8: reflect.TypeFor[int8](), Uint16: reflect.TypeFor[uint16](), Int16: reflect.TypeFor[int16](),
	Uint32: reflect.TypeFor[uint32](), Int32: reflect.TypeFor[int32](), Float32: reflect.TypeFor[float32](), Bool: reflect.TypeFor[bool](),
	String: reflect.TypeFor[string](), Array: nil, Uint64: reflect.TypeFor[uint64](), Int64: reflect.TypeFor[int64](),
	Float64: reflect.TypeFor[float64](),
}

func (t ValueType) valid() bool { return int64(t) < int64(len(valueTypes)) }

// String is the type's name in Go.
func (t ValueType) String() string {
	switch {
	case !t.valid():
		return fmt.Sprintf("type %d", uint32(t))
	case t == Array:
		return "array"
	}
	return valueTypes[t].Name()
}

// size is the bytes of a number or bool; of a string and an array those of its length and type.
func (t ValueType) size() uint64 {
	switch t {
	case String:
		return 8
	case Array:
		return 12
	}
	return uint64(valueTypes[t].Size())
}

func isString(t ValueType) bool { return t == String }
func isBool(t ValueType) bool   { return t == Bool }
func isFloat(t ValueType) bool  { return t == Float32 || t == Float64 }
func isInt(t ValueType) bool    { return !isString(t) && !isBool(t) && !isFloat(t) && t != Array }
func isNumber(t ValueType) bool { return isInt(t) || isFloat(t) }

// value is a value of the metadata.
type value struct {
	typ  ValueType
	bits uint64 // of a number or bool, zeros above its size
	text string
	list *list // of an array
}

// list is the elements of an array. Those of a file stay there until they are asked for: a vocabulary is most of a header.
type list struct {
	elem ValueType
	n    int64
	raw  []byte        // as in a file; nil: they are in one,
	file *weights.File // here
	off  int64
	size int64
}

// bytes gives the elements as in a file.
func (l *list) bytes() ([]byte, error) {
	if l.file == nil {
		return l.raw, nil
	}
	raw := make([]byte, l.size)
	return raw, l.file.ReadFull(raw, l.off)
}

// each calls f with each number or bool.
func (l *list) each(f func(bits uint64) error) error {
	raw, err := l.bytes()
	if err != nil {
		return err
	}
	size := int(l.elem.size())
	for ; len(raw) >= size; raw = raw[size:] {
		bits := littleEndian(raw[:size])
		if l.elem == Bool && bits > 1 {
			return badBool(bits)
		}
		if err := f(bits); err != nil {
			return err
		}
	}
	return nil
}

// strings gives all strings. The file may have changed since they were walked through.
func (l *list) strings() ([]string, error) {
	raw, err := l.bytes()
	if err != nil {
		return nil, err
	}
	all := make([]string, 0, l.n)
	for range l.n {
		if len(raw) < 8 || binary.LittleEndian.Uint64(raw) > uint64(len(raw)-8) {
			return nil, &Error{Class: ErrChanged, Detail: "a string's length"}
		}
		s := raw[8:][:binary.LittleEndian.Uint64(raw)]
		if !utf8.Valid(s) {
			return nil, &Error{Class: ErrBadHeader, Detail: fmt.Sprintf("element %d is not UTF-8: %.40q", len(all), s)}
		}
		all, raw = append(all, string(s)), raw[8+len(s):]
	}
	return all, nil
}

func badBool(bits uint64) error {
	return &Error{Class: ErrBadValue, Detail: "bool", Expected: "0 or 1", Actual: fmt.Sprint(bits)}
}

func littleEndian(p []byte) uint64 {
	var b [8]byte
	copy(b[:], p)
	return binary.LittleEndian.Uint64(b[:])
}

// signed is an integer of any type but Uint64.
func signed(t ValueType, bits uint64) int64 {
	switch t {
	case Int8:
		return int64(int8(bits))
	case Int16:
		return int64(int16(bits))
	case Int32:
		return int64(int32(bits))
	}
	return int64(bits)
}

// float is a number of any type.
func float(t ValueType, bits uint64) float64 {
	switch t {
	case Float32:
		return float64(math.Float32frombits(uint32(bits)))
	case Float64:
		return math.Float64frombits(bits)
	case Uint64:
		return float64(bits)
	}
	return float64(signed(t, bits))
}
