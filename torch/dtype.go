package torch

import (
	"fmt"

	"github.com/torchgo/torchgo/internal/half"
)

// DType is the type of a tensor's elements. The zero value means "not given".
type DType int8

// Element types. The order is c10::ScalarType's, one further on.
const (
	Uint8 DType = iota + 1
	Int8
	Int16
	Int32
	Int64
	Float16
	Float32
	Float64
	ComplexHalf
	Complex64
	Complex128
	Bool
	QInt8
	QUint8
	QInt32
	BFloat16
	QUint4x2
	QUint2x4
	Bits1x8
	Bits2x4
	Bits4x2
	Bits8
	Bits16
	Float8E5M2
	Float8E4M3FN
	Float8E5M2FNUZ
	Float8E4M3FNUZ
	Uint16
	Uint32
	Uint64
	Uint1
	Uint2
	Uint3
	Uint4
	Uint5
	Uint6
	Uint7
	Int1
	Int2
	Int3
	Int4
	Int5
	Int6
	Int7
	Float8E8M0FNU
	Float4E2M1FNX2
	BComplex32
)

// dtypes has PyTorch's name and the bytes of an element of each type.
var dtypes = [...]struct {
	name string
	size int
}{
	Uint8: {"uint8", 1}, Int8: {"int8", 1}, Int16: {"int16", 2}, Int32: {"int32", 4}, Int64: {"int64", 8},
	Float16: {"float16", 2}, Float32: {"float32", 4}, Float64: {"float64", 8},
	ComplexHalf: {"complex32", 4}, Complex64: {"complex64", 8}, Complex128: {"complex128", 16}, Bool: {"bool", 1},
	QInt8: {"qint8", 1}, QUint8: {"quint8", 1}, QInt32: {"qint32", 4}, BFloat16: {"bfloat16", 2},
	QUint4x2: {"quint4x2", 1}, QUint2x4: {"quint2x4", 1},
	Bits1x8: {"bits1x8", 1}, Bits2x4: {"bits2x4", 1}, Bits4x2: {"bits4x2", 1}, Bits8: {"bits8", 1}, Bits16: {"bits16", 2},
	Float8E5M2: {"float8_e5m2", 1}, Float8E4M3FN: {"float8_e4m3fn", 1},
	Float8E5M2FNUZ: {"float8_e5m2fnuz", 1}, Float8E4M3FNUZ: {"float8_e4m3fnuz", 1},
	Uint16: {"uint16", 2}, Uint32: {"uint32", 4}, Uint64: {"uint64", 8},
	Uint1: {"uint1", 1}, Uint2: {"uint2", 1}, Uint3: {"uint3", 1}, Uint4: {"uint4", 1}, Uint5: {"uint5", 1},
	Uint6: {"uint6", 1}, Uint7: {"uint7", 1}, Int1: {"int1", 1}, Int2: {"int2", 1}, Int3: {"int3", 1},
	Int4: {"int4", 1}, Int5: {"int5", 1}, Int6: {"int6", 1}, Int7: {"int7", 1},
	Float8E8M0FNU: {"float8_e8m0fnu", 1}, Float4E2M1FNX2: {"float4_e2m1fn_x2", 1},
	BComplex32: {"bcomplex32", 4},
}

// aliases are the second names that PyTorch has.
var dtypeAliases = map[string]DType{
	"half": Float16, "float": Float32, "double": Float64, "chalf": ComplexHalf, "cfloat": Complex64,
	"cdouble": Complex128, "short": Int16, "int": Int32, "long": Int64,
}

func (d DType) valid() bool { return d > 0 && int(d) < len(dtypes) }

// String is PyTorch's name without "torch.": "float32".
func (d DType) String() string {
	if !d.valid() {
		return fmt.Sprintf("dtype(%d)", int8(d))
	}
	return dtypes[d].name
}

// ItemSize is the number of bytes of an element.
func (d DType) ItemSize() int {
	if !d.valid() {
		return 0
	}
	return dtypes[d].size
}

// IsFloatingPoint tells whether d is a real floating-point type, fp8 and fp4 included.
func (d DType) IsFloatingPoint() bool {
	switch d {
	case Float16, Float32, Float64, BFloat16, Float8E5M2, Float8E4M3FN, Float8E5M2FNUZ, Float8E4M3FNUZ, Float8E8M0FNU, Float4E2M1FNX2:
		return true
	}
	return false
}

// IsComplex tells whether d is a complex type.
func (d DType) IsComplex() bool {
	return d == ComplexHalf || d == BComplex32 || d == Complex64 || d == Complex128
}

// IsSigned tells whether d can hold negative numbers.
func (d DType) IsSigned() bool {
	switch d {
	case Uint8, Uint16, Uint32, Uint64, Uint1, Uint2, Uint3, Uint4, Uint5, Uint6, Uint7, Bool, QUint8, QUint4x2, QUint2x4, Float8E8M0FNU:
		return false
	}
	return d.valid()
}

// category orders types as promotion does: a value of one category fits a higher one.
func (d DType) category() int {
	switch {
	case d == Bool:
		return 0
	case d.IsFloatingPoint():
		return 2
	case d.IsComplex():
		return 3
	}
	return 1
}

// ParseDType reads PyTorch's name of a dtype, with or without "torch.".
func ParseDType(name string) (DType, error) {
	short := name
	if len(short) > 6 && short[:6] == "torch." {
		short = short[6:]
	}
	if d, ok := dtypeAliases[short]; ok {
		return d, nil
	}
	for d, row := range dtypes {
		if row.name == short && short != "" {
			return DType(d), nil
		}
	}
	return 0, fmt.Errorf("dtype: expected a name like float32 or bfloat16, got %q", name)
}

// F16 and BF16 are elements of float16 and bfloat16 tensors as Go sees them.
type (
	F16  = half.Float16
	BF16 = half.BFloat16
)

// Element is a Go type that a tensor's elements can have.
type Element interface {
	bool | int8 | int16 | int32 | int64 | int | uint8 | uint16 | uint32 | uint64 |
		F16 | BF16 | float32 | float64 | complex64 | complex128
}

// DTypeOf is the dtype whose elements are T; int is int64.
func DTypeOf[T Element]() DType {
	var zero T
	switch any(zero).(type) {
	case bool:
		return Bool
	case int8:
		return Int8
	case int16:
		return Int16
	case int32:
		return Int32
	case int64, int:
		return Int64
	case uint8:
		return Uint8
	case uint16:
		return Uint16
	case uint32:
		return Uint32
	case uint64:
		return Uint64
	case F16:
		return Float16
	case BF16:
		return BFloat16
	case float32:
		return Float32
	case float64:
		return Float64
	case complex64:
		return Complex64
	}
	return Complex128
}
