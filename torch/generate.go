package torch

import "github.com/torchgo/torchgo/cgo"

// The operators, zz_*_gen.go, are written from third_party/operators-*.txt; docs/operators.md says how
// they are named.
//go:generate go run ../tools/gen -root ..

// one is the options that a caller gave, or none.
func one[T any](opts []T) (o T) {
	switch len(opts) {
	case 0:
	case 1:
		o = opts[0]
	default:
		panic(&Error{Kind: ErrArgument, Message: "options: expected one struct, got several"})
	}
	return o
}

// What an option that isn't set stands for.

func orScalar(v, def Scalar) Scalar {
	if v == nil {
		return def
	}
	return v
}

func orInts(v []int, def ...int) []int {
	if v == nil {
		return def
	}
	return v
}

func orDType(v, def DType) DType {
	if v == 0 {
		return def
	}
	return v
}

func orMemoryFormat(v, def MemoryFormat) MemoryFormat {
	if v == 0 {
		return def
	}
	return v
}

// pinMemory is for pin_memory, whose None means false.
func (c *call) pinMemory(v bool) {
	if v {
		c.bool(true)
		return
	}
	c.none()
}

// optScalars is a list whose nil elements are None.
func (c *call) optScalars(v []Scalar) {
	c.head(cgo.TagList, len(v))
	n := c.nargs
	for _, x := range v {
		c.optScalar(x)
	}
	c.nargs = n // the elements are no arguments
}
