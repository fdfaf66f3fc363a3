package torch

import "github.com/torchgo/torchgo/cgo"

// Everything here is a flag of the whole process, for all goroutines: set it at the start.

// DeterministicOptions are the options of [UseDeterministicAlgorithms].
type DeterministicOptions struct {
	WarnOnly bool // an operator without a deterministic implementation only writes a warning to standard error
}

// UseDeterministicAlgorithms makes operators use deterministic implementations; one that has none fails with
// [ErrRuntime] (torch.use_deterministic_algorithms). On a GPU, matrix products also need the environment
// variable CUBLAS_WORKSPACE_CONFIG=:4096:8.
func UseDeterministicAlgorithms(on bool, opts ...DeterministicOptions) {
	mode := 0
	if on {
		mode = 1
		if one(opts).WarnOnly {
			mode = 2
		}
	}
	setFlag("use_deterministic_algorithms", cgo.FlagDeterministic, mode)
}

// AreDeterministicAlgorithmsEnabled tells whether they are asked for.
func AreDeterministicAlgorithmsEnabled() bool {
	return flag("are_deterministic_algorithms_enabled", cgo.FlagDeterministic) != 0
}

// IsDeterministicAlgorithmsWarnOnlyEnabled tells whether an operator without one only warns.
func IsDeterministicAlgorithmsWarnOnlyEnabled() bool {
	return flag("is_deterministic_algorithms_warn_only_enabled", cgo.FlagDeterministic) == 2
}

// MatmulPrecision is how exactly matrix products of float32 tensors compute.
type MatmulPrecision int

// Precisions of [SetFloat32MatmulPrecision].
const (
	MatmulHighest MatmulPrecision = iota // float32
	MatmulHigh                           // TensorFloat32, or a sum of bfloat16 products
	MatmulMedium                         // bfloat16
)

// SetFloat32MatmulPrecision lets matrix products of float32 tensors compute faster and less exactly, where
// the device can (torch.set_float32_matmul_precision).
func SetFloat32MatmulPrecision(p MatmulPrecision) {
	setFlag("set_float32_matmul_precision", cgo.FlagMatMulPrecision, int(p))
}

// Float32MatmulPrecision is the precision in force.
func Float32MatmulPrecision() MatmulPrecision {
	return MatmulPrecision(flag("get_float32_matmul_precision", cgo.FlagMatMulPrecision))
}

// Flag is a switch of libtorch's, of the whole process.
type Flag int

// Flags, with Python's names.
const (
	// FillUninitializedMemory makes deterministic mode fill what [Empty] and its kin return, with NaN or
	// the largest value (torch.utils.deterministic.fill_uninitialized_memory; default on).
	FillUninitializedMemory Flag = cgo.FlagFillUninitialized
	CUDNNEnabled            Flag = cgo.FlagCUDNN              // torch.backends.cudnn.enabled; default on
	CUDNNBenchmark          Flag = cgo.FlagCUDNNBenchmark     // torch.backends.cudnn.benchmark: tries algorithms, keeps the fastest
	CUDNNDeterministic      Flag = cgo.FlagCUDNNDeterministic // torch.backends.cudnn.deterministic
	CUDNNAllowTF32          Flag = cgo.FlagCUDNNTF32          // torch.backends.cudnn.allow_tf32; default on
	MatmulAllowTF32         Flag = cgo.FlagMatMulTF32         // torch.backends.cuda.matmul.allow_tf32
	// Sums of products in half precision: torch.backends.cuda.matmul.allow_fp16_reduced_precision_reduction
	// and allow_bf16_…; default on.
	MatmulFP16Reduction Flag = cgo.FlagMatMulFP16Reduction
	MatmulBF16Reduction Flag = cgo.FlagMatMulBF16Reduction
)

// Set turns the flag on or off.
func (f Flag) Set(on bool) {
	value := 0
	if on {
		value = 1
	}
	setFlag("set_flag", int(f), value)
}

// On tells whether the flag is on.
func (f Flag) On() bool { return flag("flag", int(f)) != 0 }

// SetCUDNNBenchmarkLimit bounds how many algorithms [CUDNNBenchmark] tries; 0 is all.
func SetCUDNNBenchmarkLimit(n int) {
	setFlag("cudnn_benchmark_limit", cgo.FlagCUDNNBenchmarkLimit, n)
}

// CUDNNBenchmarkLimit is the bound in force (10).
func CUDNNBenchmarkLimit() int {
	return flag("cudnn_benchmark_limit", cgo.FlagCUDNNBenchmarkLimit)
}

func setFlag(op string, which, value int) {
	load(op)
	must(op, cgo.FlagSet(which, value))
}

func flag(op string, which int) int {
	load(op)
	value, err := cgo.FlagGet(which)
	must(op, err)
	return value
}
