package pickle

import "github.com/torchgo/torchgo/internal/weights"

// dtypes are torch's: bytes of an element, the storage class that has them (those without are in an UntypedStorage), and the
// code under which a checkpoint's list has them (those without can't be read as tensors).
var dtypes = map[DType]struct {
	bytes   int
	storage string
	code    weights.DType
}{
	"float64":    {8, "Double", weights.F64},
	"float32":    {4, "Float", weights.F32},
	"float16":    {2, "Half", weights.F16},
	"bfloat16":   {2, "BFloat16", weights.BF16},
	"int64":      {8, "Long", weights.I64},
	"int32":      {4, "Int", weights.I32},
	"int16":      {2, "Short", weights.I16},
	"int8":       {1, "Char", weights.I8},
	"uint8":      {1, "Byte", weights.U8},
	"bool":       {1, "Bool", weights.BOOL},
	"complex64":  {8, "ComplexFloat", weights.C64},
	"complex128": {16, "ComplexDouble", weights.C128},

	"uint16":           {2, "", weights.U16},
	"uint32":           {4, "", weights.U32},
	"uint64":           {8, "", weights.U64},
	"complex32":        {4, "", weights.C32},
	"float8_e4m3fn":    {1, "", weights.F8E4M3},
	"float8_e5m2":      {1, "", weights.F8E5M2},
	"float8_e4m3fnuz":  {1, "", weights.F8E4M3FNUZ},
	"float8_e5m2fnuz":  {1, "", weights.F8E5M2FNUZ},
	"float8_e8m0fnu":   {1, "", weights.F8E8M0},
	"float4_e2m1fn_x2": {1, "", weights.F4},

	"qint8":    {1, "QInt8", 0},
	"quint8":   {1, "QUInt8", 0},
	"qint32":   {4, "QInt32", 0},
	"quint4x2": {1, "QUInt4x2", 0},
	"quint2x4": {1, "QUInt2x4", 0},

	"bcomplex32": {4, "", 0},
	"bits8":      {1, "", 0}, "bits16": {2, "", 0}, "bits1x8": {1, "", 0}, "bits2x4": {1, "", 0}, "bits4x2": {1, "", 0},
	"int1": {1, "", 0}, "int2": {1, "", 0}, "int3": {1, "", 0}, "int4": {1, "", 0}, "int5": {1, "", 0}, "int6": {1, "", 0}, "int7": {1, "", 0},
	"uint1": {1, "", 0}, "uint2": {1, "", 0}, "uint3": {1, "", 0}, "uint4": {1, "", 0}, "uint5": {1, "", 0}, "uint6": {1, "", 0}, "uint7": {1, "", 0},
}

// hasGrad reports whether a tensor of this dtype can require a gradient.
func (d DType) hasGrad() bool {
	switch d {
	case "float64", "float32", "float16", "bfloat16", "complex64", "complex128", "complex32", "bcomplex32",
		"float8_e4m3fn", "float8_e5m2", "float8_e4m3fnuz", "float8_e5m2fnuz", "float8_e8m0fnu", "float4_e2m1fn_x2":
		return true
	}
	return false
}

// signed reports whether the sign of a number is the first bit of its last byte.
func (d DType) signed() bool {
	switch d {
	case "float64", "float32", "float16", "bfloat16":
		return true
	}
	return d.isComplex()
}

// isComplex reports whether an element is two numbers.
func (d DType) isComplex() bool {
	switch d {
	case "complex32", "complex64", "complex128", "bcomplex32":
		return true
	}
	return false
}

// swapBytes is the size of the numbers of a dtype, which a byte order reverses; 0 if there is no dtype.
func (d DType) swapBytes() int {
	n := dtypes[d].bytes
	if d.isComplex() {
		return n / 2
	}
	return n
}
