// Package pyjson writes JSON byte by byte as Python's json.dumps(v, indent=2, sort_keys=True) does, and reads what
// json.loads reads: transformers' config.json and index files, peft's adapter_config.json.
package pyjson

import (
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/torchgo/torchgo/internal/strictjson"
)

// Marshal renders v, with a final newline. v is made of nil, bool, int, int64, float64, json.Number, string, []any,
// []string, map[string]any and map[int]string.
func Marshal(v any) []byte {
	var b strings.Builder
	write(&b, v, "\n")
	b.WriteByte('\n')
	return []byte(b.String())
}

func write(b *strings.Builder, v any, newline string) {
	switch v := v.(type) {
	case nil:
		b.WriteString("null")
	case bool:
		b.WriteString(strconv.FormatBool(v))
	case int:
		b.WriteString(strconv.Itoa(v))
	case int64:
		b.WriteString(strconv.FormatInt(v, 10))
	case json.Number: // an integer beyond int64
		b.WriteString(string(v))
	case float64:
		writeFloat(b, v, newline)
	case string:
		writeString(b, v)
	case []string:
		writeSeq(b, "[]", len(v), newline, func(i int, inner string) { writeString(b, v[i]) })
	case []any:
		writeSeq(b, "[]", len(v), newline, func(i int, inner string) { write(b, v[i], inner) })
	case map[string]any:
		keys := slices.Sorted(maps.Keys(v))
		writeSeq(b, "{}", len(keys), newline, func(i int, inner string) {
			writeString(b, keys[i])
			b.WriteString(": ")
			write(b, v[keys[i]], inner)
		})
	case map[int]string: // Python sorts the integers, then writes them as strings
		keys := slices.Sorted(maps.Keys(v))
		writeSeq(b, "{}", len(keys), newline, func(i int, inner string) {
			fmt.Fprintf(b, "\"%d\": ", keys[i])
			writeString(b, v[keys[i]])
		})
	default:
		panic(fmt.Sprintf("pyjson: no JSON form for a %T", v))
	}
}

func writeSeq(b *strings.Builder, brackets string, n int, newline string, item func(i int, inner string)) {
	b.WriteByte(brackets[0])
	inner := newline + "  "
	for i := range n {
		if i > 0 {
			b.WriteByte(',')
		}
		b.WriteString(inner)
		item(i, inner)
	}
	if n > 0 {
		b.WriteString(newline)
	}
	b.WriteByte(brackets[1])
}

// writeFloat writes repr(f); what JSON has no number for is tagged, as transformers does.
func writeFloat(b *strings.Builder, f float64, newline string) {
	switch {
	case math.IsNaN(f):
		write(b, map[string]any{"__float__": "NaN"}, newline)
	case math.IsInf(f, 1):
		write(b, map[string]any{"__float__": "Infinity"}, newline)
	case math.IsInf(f, -1):
		write(b, map[string]any{"__float__": "-Infinity"}, newline)
	default:
		b.WriteString(Float(f))
	}
}

// Float is Python's repr: the shortest digits, with an exponent below 1e-4 and from 1e16 on.
func Float(f float64) string {
	if a := math.Abs(f); a != 0 && (a < 1e-4 || a >= 1e16) {
		return strconv.FormatFloat(f, 'e', -1, 64)
	}
	s := strconv.FormatFloat(f, 'f', -1, 64)
	if !strings.Contains(s, ".") {
		s += ".0"
	}
	return s
}

// writeString writes ASCII only, as json.dumps does by default.
func writeString(b *strings.Builder, s string) {
	b.Write(strictjson.AppendString(nil, s, true))
}

// Parse reads a JSON document that must be an object, as Python's json.loads would: NaN and Infinity
// are numbers, integers stay integers. Special floats that transformers tagged are put back.
func Parse(data []byte) (map[string]any, error) {
	v, err := strictjson.Parse(data, strictjson.Options{AllowNaN: true})
	if err != nil {
		return nil, err
	}
	m, ok := FromJSON(v.Any()).(map[string]any)
	if !ok {
		return nil, fmt.Errorf("expected an object, got %v", v.Kind())
	}
	return m, nil
}

// FromJSON turns the numbers of a tree into int64 and float64, except integers that fit neither, and tagged floats
// back into floats.
func FromJSON(v any) any {
	switch v := v.(type) {
	case json.Number:
		n := strictjson.Number(v)
		if i, err := n.Int64(); err == nil {
			return i
		}
		if f, err := n.Float64(); err == nil && !n.IsInteger() {
			return f
		}
	case []any:
		for i := range v {
			v[i] = FromJSON(v[i])
		}
	case map[string]any:
		if tag, ok := v["__float__"].(string); ok && len(v) == 1 {
			if f, ok := taggedFloats[tag]; ok {
				return f
			}
		}
		for k := range v {
			v[k] = FromJSON(v[k])
		}
	}
	return v
}

var taggedFloats = map[string]float64{"NaN": math.NaN(), "Infinity": math.Inf(1), "-Infinity": math.Inf(-1)}
