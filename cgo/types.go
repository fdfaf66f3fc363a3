package cgo

import "fmt"

// Handles of the shim. Zero is the undefined tensor, the default generator.
type (
	// Tensor is an owned reference to a c10::TensorImpl.
	Tensor uintptr
	// Op is a looked-up operator; it stays good until the process ends.
	Op uintptr
	// Generator is an owned reference to a c10::GeneratorImpl.
	Generator uintptr
	// Guard is a set of thread modes in force.
	Guard uintptr
	// Modes is an owned copy of a thread's modes.
	Modes uintptr
	// Event is an owned c10::Event.
	Event uintptr
	// Object is an owned instance of a TorchScript class.
	Object uintptr
	// Graph is an owned graph of an accelerator's work.
	Graph uintptr
	// Saved is a tensor as a node of autograd saves it.
	Saved uintptr
)

// Kind says what kind of error the shim reports; the values are tg_kind of torchgo.h.
type Kind int32

const (
	OK Kind = iota
	ErrArgument
	ErrRuntime
	ErrIndex
	ErrValue
	ErrType
	ErrNotImplemented
	ErrOutOfMemory
	ErrLinAlg
	ErrNoOperator
	ErrSchema
	ErrSystem
	ErrUnknown
	ErrCallback
	ErrNotLoaded
	ErrNoDevice
)

// Tags of values (tg_tag of torchgo.h). A value is a head word, tag | n<<8, and its payload.
const (
	TagNone = iota
	TagTensor
	TagInt
	TagDouble
	TagBool
	TagComplex
	TagString
	TagInts
	TagDoubles
	TagBools
	TagTensors
	TagDevice
	TagGenerator
	TagList
	TagSame
	TagObject
)

// Words of [TensorInfo] before the sizes and strides.
const (
	InfoDType = iota
	InfoDevice
	InfoDeviceIndex
	InfoLayout
	InfoFlags
	InfoNumel
	InfoOffset
	InfoStorageBytes
	InfoData
	InfoStorage
	InfoItemSize
	InfoVersion
	InfoDim
	InfoSizes
)

// Flags in word InfoFlags.
const (
	FlagRequiresGrad = 1 << iota
	FlagLeaf
	FlagContiguous
	FlagStrided
	FlagConj
	FlagNeg
	FlagInference
)

// Modes of [GuardEnter].
const (
	ModeKeep = iota
	ModeGrad
	ModeNoGrad
	ModeInference
	ModeNoInference
)

// Modes of a graph's capture.
const (
	CaptureGlobal = iota
	CaptureThreadLocal
	CaptureRelaxed
)

// ThreadState is libtorch's and the shim's state of the calling thread.
type ThreadState struct {
	Scope     uint64 // token of the innermost scope, 0 outside
	Busy      bool   // inside a call that may call back into Go
	Grad      bool
	Inference bool
}

// Flags of the process, for [FlagGet] and [FlagSet].
const (
	FlagDeterministic = iota // 0, 1: raise, 2: warn
	FlagFillUninitialized
	FlagCUDNN
	FlagCUDNNBenchmark
	FlagCUDNNBenchmarkLimit
	FlagCUDNNDeterministic
	FlagCUDNNTF32
	FlagMatMulTF32
	FlagMatMulPrecision // 0 highest, 1 high, 2 medium
	FlagMatMulFP16Reduction
	FlagMatMulBF16Reduction
)

// Words of [DeviceProperties].
const (
	PropTotalMemory = iota
	PropMajor
	PropMinor
	PropMultiprocessors
	PropWarpSize
	PropThreadsPerMultiprocessor
	PropThreadsPerBlock
	PropSharedPerBlock
	PropSharedPerMultiprocessor
	PropRegistersPerMultiprocessor
	PropL2Bytes
	PropIntegrated
	PropWords
)

// MemoryWords is the number of words of [MemoryStats]; torchgo.h says what they are.
const MemoryWords = 9*12 + 2*4 + 6

// Streams of [StreamGet].
const (
	StreamCurrent = iota
	StreamDefault
	StreamNew
)

// Stream is a stream of a device: c10::DeviceType, index, id.
type Stream struct{ Device, Index, ID int }

// Error is what a function of the shim reports.
type Error struct {
	Kind      Kind
	Message   string // without the C++ backtrace
	Backtrace string // may be empty
	Cause     uint64 // of ErrCallback: what [Hook] gave; the error's receiver owns it
}

func (e *Error) Error() string { return e.Message }

// Library says where the shim is and what it opens first.
type Library struct {
	Shim     string // path of libtorchgo.so
	CUDA     string // path of libtorch_cuda.so; empty: CPU only
	CUDAShim string // path of libtorchgo_cuda.so; empty: CPU only, or built without CUDA's headers
}

func (l Library) String() string {
	if l.CUDA == "" {
		return l.Shim
	}
	return fmt.Sprintf("%s (CUDA: %s)", l.Shim, l.CUDA)
}
