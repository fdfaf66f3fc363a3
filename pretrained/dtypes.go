package pretrained

import (
	"github.com/torchgo/torchgo/internal/weights"
	"github.com/torchgo/torchgo/pretrained/safetensors"
	"github.com/torchgo/torchgo/torch"
)

// dtypeOf is torch's dtype of one of safetensors; 0: it has none whose elements lie the same way.
func dtypeOf(d safetensors.DType) torch.DType {
	return dtypes[d]
}

var dtypes = map[safetensors.DType]torch.DType{
	safetensors.BOOL: torch.Bool, safetensors.U8: torch.Uint8, safetensors.I8: torch.Int8, safetensors.I16: torch.Int16,
	safetensors.U16: torch.Uint16, safetensors.I32: torch.Int32, safetensors.U32: torch.Uint32, safetensors.I64: torch.Int64,
	safetensors.U64: torch.Uint64, safetensors.F16: torch.Float16, safetensors.BF16: torch.BFloat16,
	safetensors.F32: torch.Float32, safetensors.F64: torch.Float64, safetensors.C64: torch.Complex64,
	safetensors.F8E4M3: torch.Float8E4M3FN, safetensors.F8E5M2: torch.Float8E5M2, safetensors.F8E8M0: torch.Float8E8M0FNU,
	safetensors.F8E4M3FNUZ: torch.Float8E4M3FNUZ, safetensors.F8E5M2FNUZ: torch.Float8E5M2FNUZ,
	weights.C32: torch.ComplexHalf, weights.C128: torch.Complex128,
}

// codeOf is the inverse of dtypeOf, for what safetensors has a dtype for.
func codeOf(d torch.DType) (safetensors.DType, bool) {
	for code, torchDType := range dtypes {
		if torchDType == d {
			return code, code <= safetensors.U64
		}
	}
	return 0, false
}
