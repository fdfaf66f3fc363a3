// Package torch is libtorch for Go: tensors, operators, autograd.
//
// Names and semantics are PyTorch's. Tensor math chains and panics with *[Error]; [Try] turns that
// into an error. Sizes and dimensions are int; dtypes, devices and layouts have a zero value that
// means "not given".
//
// # Memory
//
// libtorch's memory is invisible to Go's collector, so there are three levels, all safe:
//
//   - [Scope], [ScopeOf], [Inference], [InferenceOf] free every tensor made inside at their end,
//     except what they return or [Keep] names. This is the normal way.
//   - [Tensor.Close] frees one tensor.
//   - Whatever is left is freed when the collector finds it unreachable; a meter of allocated
//     bytes starts the collector early enough.
//
// Using a tensor after it was freed panics with the operator's name; it never touches freed memory.
//
// # Threads
//
// Grad mode and inference mode belong to an operating system thread in libtorch. Functions that set
// them ([NoGrad], [Inference], …) keep their goroutine on one thread while they run; a goroutine
// started inside has the default modes (see [Go]). Everything here may be used from many goroutines.
//
// # Shapes
//
// In documentation B is batch, T sequence length, H hidden size, D a head's size, V vocabulary, E
// experts; N, C, L any other length.
package torch
