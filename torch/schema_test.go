package torch

import (
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// A schemaArg is an argument as a schema writes it: "SymInt[2] stride=[1, 1]".
type schemaArg struct {
	base     string // "Tensor", "int", ...; SymInt is int
	list     bool
	optional bool
	name     string
	def      string // default; "" where there is none
}

var argumentForm = regexp.MustCompile(`^(\w+)(?:\([^)]*\))?(\?)?(\[(\d*)\])?(\?)? (\w+)(?:=(.*))?$`)

// schemaArgs reads the arguments of a schema that uses plain types only.
func schemaArgs(t *testing.T, schema string) (args []schemaArg) {
	t.Helper()
	list := schema[strings.Index(schema, "(")+1 : strings.LastIndex(schema, ") -> ")]
	depth, start := 0, 0
	for i := 0; i <= len(list); i++ {
		switch {
		case i < len(list) && strings.ContainsRune("[(", rune(list[i])):
			depth++
		case i < len(list) && strings.ContainsRune("])", rune(list[i])):
			depth--
		case i == len(list) || list[i] == ',' && depth == 0:
			text := strings.TrimSpace(list[start:i])
			start = i + 1
			if text == "" || text == "*" {
				continue
			}
			m := argumentForm.FindStringSubmatch(text)
			require.NotNil(t, m, "%s: %s", schema, text)
			base := strings.TrimPrefix(m[1], "Sym")
			a := schemaArg{base: strings.ToLower(base[:1]) + base[1:], list: m[3] != "", optional: m[5] != "" || m[2] != "" && m[3] == "", name: m[6], def: m[7]}
			if m[1] == base {
				a.base = base
			}
			args = append(args, a)
		}
	}
	return args
}

// value is the argument's default.
func (a schemaArg) value(t *testing.T) any {
	t.Helper()
	number := func(s string) any {
		if a.base == "float" || a.base == "Scalar" && strings.ContainsAny(s, ".e") {
			v, err := strconv.ParseFloat(s, 64)
			require.NoError(t, err)
			return v
		}
		v, err := strconv.Atoi(s)
		require.NoError(t, err, "%v", a)
		return v
	}
	switch d := a.def; {
	case d == "None":
		return nil
	case a.list && a.base == "int":
		var v []int
		for _, s := range strings.FieldsFunc(d, func(r rune) bool { return strings.ContainsRune("[], ", r) }) {
			v = append(v, number(s).(int))
		}
		if v == nil {
			v = []int{}
		}
		return v
	case a.list && a.base == "float":
		return []float64{}
	case a.base == "bool":
		return d == "True"
	case a.base == "str":
		return strings.Trim(d, `"`)
	case a.base == "MemoryFormat":
		return MemoryFormat(number(d).(int) + 1)
	default:
		return number(d)
	}
}
