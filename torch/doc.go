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
// # Operators
//
// Each operator of libtorch is a method of [Tensor] where PyTorch has a method, else a function. Options
// are a struct behind the other arguments; [Opt] fields are set by [Some]. docs/operators.md says what is
// called how. [Internal] has PyTorch's own operators with a leading underscore, [Quantized] and its kin
// have those of other namespaces, and [Call] runs any operator by name.
//
// Where to look: tensors from Go's memory and back, [FromSlice], [FromBlob], [ToSlice], [Data], [Item];
// x[1:, 0], [Tensor.At] and [Tensor.SetAt]; another dtype or device, [Tensor.To], [Tensor.ToDType];
// gradients, [Tensor.Backward] and [Grad]; errors, [Try] and [Error]; random numbers, [ManualSeed].
// Layers are in torch/nn, optimizers in torch/optim.
//
// # Shapes
//
// In documentation B is batch, T sequence length, H hidden size, D a head's size, V vocabulary, E
// experts. Operators on images have C channels of H rows and W columns, and windows of K; N, M, L, S, O
// are any other length. "..." stands for any dimensions, L' for what a formula says. In formulas t is
// the receiver, y the result, and a name with a capital an option.
package torch
