package nn

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/torchgo/torchgo/torch"
)

// Size is an int, the same for all dimensions, or an []int with one for each: PyTorch's "int or tuple". In
// options nil means the default. A value of another type or length panics with a *torch.Error.
type Size any

// fail panics as operators do, with PyTorch's message.
func fail(op, format string, args ...any) {
	panic(&torch.Error{Op: op, Kind: torch.ErrArgument, Message: fmt.Sprintf(format, args...)})
}

// sizes expands s to n dimensions; nil gives def for each.
func sizes(op, what string, s Size, n, def int) []int {
	switch v := s.(type) {
	case nil:
		return slices.Repeat([]int{def}, n)
	case int:
		return slices.Repeat([]int{v}, n)
	case []int:
		if len(v) == n {
			return slices.Clone(v)
		}
		if len(v) == 1 {
			return slices.Repeat(v, n)
		}
		fail(op, "%s: expected an int or %d of them, got %d", what, n, len(v))
	}
	fail(op, "%s: expected an int or []int, got %T", what, s)
	return nil
}

// shapeOf is s as a shape: an int is one dimension.
func shapeOf(op string, s Size) []int {
	switch v := s.(type) {
	case int:
		return []int{v}
	case []int:
		return slices.Clone(v)
	}
	fail(op, "expected an int or []int, got %T", s)
	return nil
}

// tuple is how Python writes sizes: (3,), (3, 4).
func tuple(v []int) string {
	parts := make([]string, len(v))
	for i, n := range v {
		parts[i] = strconv.Itoa(n)
	}
	if len(v) == 1 {
		return "(" + parts[0] + ",)"
	}
	return "(" + strings.Join(parts, ", ") + ")"
}

// number is how Python writes a float: 0.1, 1e-05, 2.0.
func number(x float64) string {
	if math.IsInf(x, 0) || math.IsNaN(x) {
		return strings.TrimPrefix(strings.ToLower(strconv.FormatFloat(x, 'g', -1, 64)), "+")
	}
	s := strconv.FormatFloat(x, 'g', -1, 64)
	if x == float64(int64(x)) && !strings.ContainsAny(s, "e.") {
		return s + ".0"
	}
	if mantissa, exp, ok := strings.Cut(s, "e"); ok {
		// Python has the exponent from 1e16 on.
		if e, _ := strconv.Atoi(exp); e >= 0 && e < 16 {
			return strconv.FormatFloat(x, 'f', 1, 64)
		}
		return mantissa + "e" + exp
	}
	return s
}

func boolean(b bool) string {
	if b {
		return "True"
	}
	return "False"
}

// torchSize is how Python writes a shape.
func torchSize(shape []int) string {
	return "torch.Size(" + strings.ReplaceAll(fmt.Sprint(shape), " ", ", ") + ")"
}
