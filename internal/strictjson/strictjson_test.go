package strictjson

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestRefused(t *testing.T) {
	for _, c := range []struct {
		name, in string
		class    error
		offset   int
	}{
		{"empty", "", ErrSyntax, 0},
		{"space only", " \n", ErrSyntax, 2},
		{"byte order mark", "\ufeff{}", ErrSyntax, 0},
		{"duplicate", `{"a":1,"b":2,"a":1}`, ErrDuplicate, 13},
		{"duplicate, escaped", `{"a":1,"\u0061":1}`, ErrDuplicate, 7},
		{"duplicate in a nested object", `[{"x":{"a":1,"a":1}}]`, ErrDuplicate, 13},
		{"second value", `{} {}`, ErrSyntax, 3},
		{"NUL padding", "{}\x00\x00", ErrSyntax, 2},
		{"form feed is no space", "{}\f", ErrSyntax, 2},
		{"invalid UTF-8", "{\"a\xff\":1}", ErrSyntax, 3},
		{"invalid UTF-8 after the value", "{}\xff", ErrSyntax, 2},
		{"overlong UTF-8", "\"\xc0\xaf\"", ErrSyntax, 1},
		{"surrogate in UTF-8", "\"\xed\xa0\x80\"", ErrSyntax, 1},
		{"lone high surrogate", `"\ud800"`, ErrSyntax, 1},
		{"high surrogate before a letter", `"\ud800\u0041"`, ErrSyntax, 1},
		{"lone low surrogate", `"x\udc00"`, ErrSyntax, 2},
		{"two high surrogates", `"\ud800\ud800"`, ErrSyntax, 1},
		{"short escape", `"\u12"`, ErrSyntax, 1},
		{"bad hex", `"\u12g4"`, ErrSyntax, 1},
		{"unknown escape", `"\x41"`, ErrSyntax, 1},
		{"escape at the end", `"\`, ErrSyntax, 1},
		{"open string", `"abc`, ErrSyntax, 4},
		{"control character", "\"a\nb\"", ErrSyntax, 2},
		{"control character after an escape", "\"\\n\x01\"", ErrSyntax, 3},
		{"trailing comma in array", `[1,]`, ErrSyntax, 3},
		{"trailing comma in object", `{"a":1,}`, ErrSyntax, 7},
		{"only a comma", `[,]`, ErrSyntax, 1},
		{"no comma", `[1 2]`, ErrSyntax, 3},
		{"no colon", `{"a" 1}`, ErrSyntax, 5},
		{"name not a string", `{1:1}`, ErrSyntax, 1},
		{"open array", `[1`, ErrSyntax, 2},
		{"open object", `{"a":1`, ErrSyntax, 6},
		{"single quotes", `{'a':1}`, ErrSyntax, 1},
		{"comment", `{}//`, ErrSyntax, 2},
		{"leading zero", `01`, ErrSyntax, 1},
		{"leading plus", `+1`, ErrSyntax, 0},
		{"no integer part", `.5`, ErrSyntax, 0},
		{"no fraction", `1.`, ErrSyntax, 2},
		{"no exponent", `1e`, ErrSyntax, 2},
		{"only a sign", `-`, ErrSyntax, 1},
		{"hexadecimal", `0x1`, ErrSyntax, 1},
		{"NaN", `NaN`, ErrSyntax, 0},
		{"Infinity", `[-Infinity]`, ErrSyntax, 2},
		{"literal in capitals", `True`, ErrSyntax, 0},
		{"cut literal", `tru`, ErrSyntax, 0},
		{"literal with a tail", `nullx`, ErrSyntax, 4},
		{"129 deep", strings.Repeat("[", 129) + strings.Repeat("]", 129), ErrLimit, 128},
		{"very deep", strings.Repeat(`{"a":`, 1e6), ErrLimit, 128 * 5},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := Parse([]byte(c.in), Options{})
			require.ErrorIs(t, err, c.class)
			var e *Error
			require.ErrorAs(t, err, &e)
			require.Equal(t, c.offset, e.Offset, "%v", err)

			d := NewDecoder([]byte(c.in), Options{}) // Skip is as strict as Value
			err = d.Skip()
			if err == nil {
				err = d.End()
			}
			require.ErrorIs(t, err, c.class)
		})
	}
}

func TestLimits(t *testing.T) {
	_, err := Parse([]byte(strings.Repeat("[", 128)+strings.Repeat("]", 128)), Options{})
	require.NoError(t, err)
	_, err = Parse([]byte(`[[]]`), Options{MaxDepth: 1})
	require.ErrorIs(t, err, ErrLimit)
	_, err = Parse([]byte(`[1,2,3]`), Options{MaxValues: 3})
	require.ErrorIs(t, err, ErrLimit)
	_, err = Parse([]byte(`[{"a":1,"b":2},{"a":1,"b":2}]`), Options{MaxMembers: 2})
	require.NoError(t, err, "members of a closed object don't count")
	_, err = Parse([]byte(`{"a":{"b":2,"c":3}}`), Options{MaxMembers: 2})
	require.ErrorIs(t, err, ErrLimit)
}

func TestTree(t *testing.T) {
	v, err := Parse([]byte(" {\"z\": [1, -2.50e+3, true, false, null, \"\\ud83e\\udd99\\u0000\\/é\"],\n\"a\": {}, \"\": 0}\t"), Options{})
	require.NoError(t, err)
	o, err := v.AsObject()
	require.NoError(t, err)
	var names []string
	for name := range o.All() {
		names = append(names, name)
	}
	require.Equal(t, []string{"z", "a", ""}, names)
	z, ok := o.Get("z")
	require.True(t, ok)
	items, err := z.AsTuple(6)
	require.NoError(t, err)
	i, err := items[0].AsInt()
	require.NoError(t, err)
	require.Equal(t, int64(1), i)
	f, err := items[1].AsFloat()
	require.NoError(t, err)
	require.Equal(t, -2500.0, f)
	n, err := items[1].AsNumber()
	require.NoError(t, err)
	require.Equal(t, Number("-2.50e+3"), n)
	b, err := items[2].AsBool()
	require.NoError(t, err)
	require.True(t, b)
	require.True(t, items[4].IsNull())
	s, err := items[5].AsString()
	require.NoError(t, err)
	require.Equal(t, "🦙\x00/é", s)
	_, ok = o.Get("Z")
	require.False(t, ok, "names are case-sensitive")
	require.Equal(t, map[string]any{
		"z": []any{json.Number("1"), json.Number("-2.50e+3"), true, false, nil, "🦙\x00/é"}, "a": map[string]any{}, "": json.Number("0"),
	}, v.Any())

	for what, err := range map[string]error{
		"arity":         second(z.AsTuple(5)),
		"tuple":         second(v.AsTuple(1)),
		"string":        second(items[0].AsString()),
		"int":           second(items[1].AsInt()),
		"bool":          second(items[0].AsBool()),
		"object":        second(items[0].AsObject()),
		"array":         second(items[4].AsArray()),
		"float of null": second(items[4].AsFloat()),
	} {
		require.ErrorIs(t, err, ErrType, what)
	}
	_, err = Number("9223372036854775808").Int64()
	require.ErrorIs(t, err, ErrLimit)
	_, err = Number("1e999").Float64()
	require.ErrorIs(t, err, ErrLimit)
}

func second[T any](_ T, err error) error { return err }

func TestNaN(t *testing.T) {
	v, err := Parse([]byte(`[NaN, Infinity, -Infinity, -1]`), Options{AllowNaN: true})
	require.NoError(t, err)
	items, err := v.AsTuple(4)
	require.NoError(t, err)
	for i, want := range []float64{math.NaN(), math.Inf(1), math.Inf(-1), -1} {
		got, err := items[i].AsFloat()
		require.NoError(t, err)
		require.Equal(t, math.IsNaN(want), math.IsNaN(got))
		if !math.IsNaN(want) {
			require.Equal(t, want, got)
		}
	}
	for _, in := range []string{"nan", "Nan", "-NaN", "Infinit", "+Infinity", "NaN1"} {
		_, err := Parse([]byte(in), Options{AllowNaN: true})
		require.ErrorIs(t, err, ErrSyntax, in)
	}
}

func TestObjectSet(t *testing.T) {
	o := &Object{}
	for i := range 100 {
		o.Set(fmt.Sprint("k", i), Int(int64(i)))
	}
	o.Set("k3", String("three"))
	require.Equal(t, 100, o.Len())
	v, ok := o.Get("k3")
	require.True(t, ok)
	require.Equal(t, String("three"), v)
	v, ok = o.Get("k99")
	require.True(t, ok)
	require.Equal(t, Int(99), v)
}

// The expected text is what json.dumps of Python 3.11 wrote for the same object.
func TestFormatIsPythons(t *testing.T) {
	in := `{"b":[1,2.5,-3e-07,true,null,[],{}],"a":{"é":"\u007f\u0000\n\t\"\\/🦙","A":{}},"ａ":1e+16}`
	v, err := Parse([]byte(in), Options{})
	require.NoError(t, err)
	for _, c := range []struct {
		format Format
		want   string
	}{
		{Format{}, `{"b": [1, 2.5, -3e-07, true, null, [], {}], "a": {"\u00e9": "\u007f\u0000\n\t\"\\/\ud83e\udd99", "A": {}}, "\uff41": 1e+16}`},
		{Format{Indent: 2, SortKeys: true}, "{\n  \"a\": {\n    \"A\": {},\n    \"\\u00e9\": \"\\u007f\\u0000\\n\\t\\\"\\\\/\\ud83e\\udd99\"\n  },\n  \"b\": [\n    1,\n    2.5,\n    -3e-07,\n    true,\n    null,\n    [],\n    {}\n  ],\n  \"\\uff41\": 1e+16\n}"},
		{Format{Indent: 1, UTF8: true}, "{\n \"b\": [\n  1,\n  2.5,\n  -3e-07,\n  true,\n  null,\n  [],\n  {}\n ],\n \"a\": {\n  \"é\": \"\x7f\\u0000\\n\\t\\\"\\\\/🦙\",\n  \"A\": {}\n },\n \"ａ\": 1e+16\n}"},
	} {
		require.Equal(t, c.want, string(c.format.Append(nil, v)))
	}
}

// standard reads data with encoding/json: into one value, with numbers as text, and nothing after it.
func standard(data []byte) (any, error) {
	d := json.NewDecoder(bytes.NewReader(data))
	d.UseNumber()
	var v any
	if err := d.Decode(&v); err != nil {
		return nil, err
	}
	if _, err := d.Token(); err != io.EOF {
		return nil, errors.New("more data")
	}
	return v, nil
}

// compare holds Parse against encoding/json: what Parse accepts, encoding/json reads as the same values;
// what Parse refuses for its syntax, so does encoding/json, but for the leniencies that are named here.
func compare(t *testing.T, data []byte) {
	v, err := Parse(data, Options{})
	want, wantErr := standard(data)
	var e *Error
	switch {
	case err == nil:
		require.NoError(t, wantErr)
		got := string(Format{UTF8: true}.Append(nil, v))
		again, err := standard([]byte(got))
		require.NoError(t, err)
		require.Equal(t, want, again)
		back, err := Parse([]byte(got), Options{})
		require.NoError(t, err)
		require.Equal(t, v.Any(), back.Any())
	case wantErr == nil && errors.As(err, &e) && e.Class == ErrSyntax:
		lenient := strings.Contains(e.Message, "UTF-8") || strings.Contains(e.Message, "surrogate")
		require.True(t, lenient, "encoding/json reads what Parse refuses: %v: %q", err, data)
	}
}

func TestAgainstEncodingJSON(t *testing.T) {
	words := []string{"{", "}", "[", "]", ",", ":", `"a"`, `"b"`, `"\u0041\n"`, `"é🦙"`, "0", "-1.5e3", "12", "true", "false", "null", " ", "\n", "\"", "\\", "01", "1.", "x"}
	state := uint64(1)
	next := func(n int) int { // a small generator, the same on every run
		state = state*6364136223846793005 + 1442695040888963407
		return int(state>>33) % n
	}
	accepted := 0
	for range 200_000 {
		var doc []byte
		for range 1 + next(12) {
			doc = append(doc, words[next(len(words))]...)
		}
		if _, err := standard(doc); err == nil {
			accepted++
		}
		compare(t, doc)
	}
	require.Greater(t, accepted, 5_000, "the documents are too often invalid to test much")
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{
		`{"a":{"dtype":"F32","shape":[2,2],"data_offsets":[0,16]},"__metadata__":{"format":"pt"}}`,
		`[1,-2.5e3,true,false,null,"\ud83e\udd99\u0000"]`, `{"a":1,"a":2}`, "\"\xff\"", `"\ud800"`, "{}\x00", "[[[[", `NaN`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) { compare(t, data) })
}

// Floats are written as Python writes them.
func TestFloat(t *testing.T) {
	for want, f := range map[string]float64{
		"0.0": 0, "-0.0": math.Copysign(0, -1), "1.0": 1, "0.001": 1e-3, "0.0001": 1e-4, "1e-05": 1e-5, "1e-08": 1e-8, "-2.5": -2.5,
		"1000000.0": 1e6, "123456789012345.0": 123456789012345, "1e+16": 1e16, "1.5e+300": 1.5e300, "0.30000000000000004": math.Nextafter(0.3, 1),
		"NaN": math.NaN(), "Infinity": math.Inf(1), "-Infinity": math.Inf(-1),
	} {
		require.Equal(t, want, string(Format{}.Append(nil, Float(f))))
	}
}
