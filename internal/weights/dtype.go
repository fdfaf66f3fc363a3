package weights

import (
	"fmt"
	"math"
	"math/bits"

	"github.com/torchgo/torchgo/internal/fileerr"
)

// DType is the element type of a tensor, under safetensors' code. The order is that format's own; its writers sort
// by it.
type DType uint8

// All dtypes of safetensors, and two that only PyTorch's own files have. F4 and the F6 types are smaller than a byte;
// torch keeps two F4 in one float4_e2m1fn_x2, so its last dimension is half of the one in the file.
const (
	BOOL DType = iota + 1
	F4
	F6E2M3
	F6E3M2
	U8
	I8
	F8E5M2
	F8E4M3
	F8E8M0
	F8E4M3FNUZ
	F8E5M2FNUZ
	I16
	U16
	F16
	BF16
	I32
	U32
	F32
	C64
	F64
	I64
	U64

	C32  // torch.complex32: two float16
	C128 // torch.complex128: two float64
)

var dtypes = [...]struct {
	code string
	bits int
}{
	BOOL: {"BOOL", 8}, F4: {"F4", 4}, F6E2M3: {"F6_E2M3", 6}, F6E3M2: {"F6_E3M2", 6}, U8: {"U8", 8}, I8: {"I8", 8},
	F8E5M2: {"F8_E5M2", 8}, F8E4M3: {"F8_E4M3", 8}, F8E8M0: {"F8_E8M0", 8}, F8E4M3FNUZ: {"F8_E4M3FNUZ", 8},
	F8E5M2FNUZ: {"F8_E5M2FNUZ", 8}, I16: {"I16", 16}, U16: {"U16", 16}, F16: {"F16", 16}, BF16: {"BF16", 16},
	I32: {"I32", 32}, U32: {"U32", 32}, F32: {"F32", 32}, C64: {"C64", 64}, F64: {"F64", 64}, I64: {"I64", 64},
	U64: {"U64", 64}, C32: {"C32", 32}, C128: {"C128", 128},
}

var dtypeOf = func() map[string]DType {
	m := make(map[string]DType, len(dtypes))
	for d := BOOL; int(d) < len(dtypes); d++ {
		m[dtypes[d].code] = d
	}
	return m
}()

// ParseDType finds a dtype by its code, as "F32" or "F8_E4M3"; 0 if there is none.
func ParseDType(code string) DType { return dtypeOf[code] }

// String is the code in the format.
func (d DType) String() string {
	if !d.Valid() {
		return fmt.Sprintf("DType(%d)", uint8(d))
	}
	return dtypes[d].code
}

// Bits is the size of an element.
func (d DType) Bits() int {
	if !d.Valid() {
		return 0
	}
	return dtypes[d].bits
}

// Align is what offsets of elements must be multiples of for the CPU.
func (d DType) Align() int {
	switch d {
	case C32, C64, C128: // pairs of floats
		return d.Bits() / 16
	}
	return max(d.Bits()/8, 1)
}

// Valid reports whether d is one of the above.
func (d DType) Valid() bool { return d >= BOOL && int(d) < len(dtypes) }

// MaxDims is the largest number of dimensions; torch can't compute with more.
const MaxDims = 64

// ByteSize is the number of bytes of a tensor. The error says what is wrong with the shape, its class is
// ErrBadShape or, if the last byte is not full, ErrSizeMismatch.
func ByteSize(d DType, shape []int) (int64, error) {
	if len(shape) > MaxDims {
		return 0, &Error{Class: fileerr.ErrBadShape, Expected: fmt.Sprintf("at most %d dimensions", MaxDims), Actual: fmt.Sprint(len(shape))}
	}
	n := uint64(1)
	for _, dim := range shape {
		if dim < 0 {
			return 0, &Error{Class: fileerr.ErrBadShape, Expected: "dimensions of at least 0", Actual: fmt.Sprint(dim)}
		}
		hi, lo := bits.Mul64(n, uint64(dim))
		if hi != 0 || lo > math.MaxInt64 {
			return 0, &Error{Class: fileerr.ErrBadShape, Detail: "the number of elements overflows", Actual: fmt.Sprint(shape)}
		}
		n = lo
	}
	hi, lo := bits.Mul64(n, uint64(d.Bits()))
	if hi != 0 || lo > math.MaxInt64 || lo/8 > math.MaxInt {
		return 0, &Error{Class: fileerr.ErrBadShape, Detail: "the number of bytes overflows", Actual: fmt.Sprintf("%v of %v", shape, d)}
	}
	if lo%8 != 0 {
		return 0, &Error{Class: fileerr.ErrSizeMismatch, Detail: fmt.Sprintf("%v of %v does not end on a byte", shape, d)}
	}
	return int64(lo / 8), nil
}
