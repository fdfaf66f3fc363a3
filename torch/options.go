package torch

// Opt is an optional value whose default is not Go's zero value: unset means PyTorch's default,
// zero means zero.
type Opt[T any] struct {
	value T
	set   bool
}

// Some is an [Opt] that is set.
func Some[T any](v T) Opt[T] { return Opt[T]{value: v, set: true} }

// Get returns the value and whether it is set.
func (o Opt[T]) Get() (T, bool) { return o.value, o.set }

// Or returns the value, or def if it is not set.
func (o Opt[T]) Or(def T) T {
	if o.set {
		return o.value
	}
	return def
}

// Scalar is a number: any of Go's integer, floating-point and complex types, or bool. A value of
// another type panics with an *[Error]. As an option, nil means not given.
type Scalar any

// TensorOptions say what kind of tensor a factory makes. Zero values mean PyTorch's defaults:
// float32 (or what the values imply), strided, CPU.
type TensorOptions struct {
	DType     DType
	Layout    Layout
	Device    Device
	PinMemory bool // in page-locked memory, for copies to a GPU
}

// Values of the option Reduction of losses: what becomes of the losses of the elements.
const (
	ReductionNone = iota // they are the result
	ReductionMean        // their mean is
	ReductionSum         // their sum is
)
