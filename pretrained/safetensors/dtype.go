package safetensors

import (
	"fmt"

	"github.com/torchgo/torchgo/internal/weights"
)

// DType is the element type of a tensor. The order is the format's own; writers sort by it.
type DType = weights.DType

// All dtypes of the format. F4 and the F6 types are smaller than a byte; torch keeps two F4 in one
// float4_e2m1fn_x2, so its last dimension is half of the one in the file.
const (
	BOOL       = weights.BOOL
	F4         = weights.F4
	F6E2M3     = weights.F6E2M3
	F6E3M2     = weights.F6E3M2
	U8         = weights.U8
	I8         = weights.I8
	F8E5M2     = weights.F8E5M2
	F8E4M3     = weights.F8E4M3
	F8E8M0     = weights.F8E8M0
	F8E4M3FNUZ = weights.F8E4M3FNUZ
	F8E5M2FNUZ = weights.F8E5M2FNUZ
	I16        = weights.I16
	U16        = weights.U16
	F16        = weights.F16
	BF16       = weights.BF16
	I32        = weights.I32
	U32        = weights.U32
	F32        = weights.F32
	C64        = weights.C64
	F64        = weights.F64
	I64        = weights.I64
	U64        = weights.U64
)

// MaxDims is the largest number of dimensions; torch can't compute with more.
const MaxDims = weights.MaxDims

// ParseDType finds a dtype by its code in the format, as "F32" or "F8_E4M3".
func ParseDType(code string) (DType, error) {
	d := weights.ParseDType(code)
	if !valid(d) {
		return 0, &Error{Class: ErrBadDType, Actual: fmt.Sprintf("%.40q", code), Expected: "a dtype of the safetensors format, as F32"}
	}
	return d, nil
}

// valid: PyTorch's own files have dtypes that this format lacks.
func valid(d DType) bool { return d >= BOOL && d <= U64 }
