//go:build cgo

package cgo

/*
#cgo CFLAGS: -O2
#cgo linux LDFLAGS: -ldl
#cgo noescape tg_call
#cgo nocallback tg_call
#cgo noescape tg_tensors_free
#cgo nocallback tg_tensors_free
#cgo noescape tg_tensor_retain
#cgo nocallback tg_tensor_retain
#cgo noescape tg_tensor_info
#cgo nocallback tg_tensor_info
#cgo noescape tg_guard_enter
#cgo nocallback tg_guard_enter
#cgo noescape tg_guard_leave
#cgo nocallback tg_guard_leave
#cgo noescape tg_thread_state
#cgo nocallback tg_thread_state
#cgo noescape tg_released
#cgo nocallback tg_released
#include <stdlib.h>
#include "loader.h"

static void* tg_pointer(uintptr_t address) { return (void*)address; }
*/
import "C"

import (
	"errors"
	"unsafe"
)

// Load opens the shim. It is called once, before any other function.
func Load(l Library) error {
	path := C.CString(l.Shim)
	defer C.free(unsafe.Pointer(path))
	var cuda *C.char
	if l.CUDA != "" {
		cuda = C.CString(l.CUDA)
		defer C.free(unsafe.Pointer(cuda))
	}
	if why := C.tg_load(path, cuda); why != nil {
		defer C.free(unsafe.Pointer(why))
		return errors.New(C.GoString(why))
	}
	var e C.tg_error
	if err := check(C.tg_install_hooks(&e), &e); err != nil || l.CUDAShim == "" {
		return err
	}
	half := C.CString(l.CUDAShim)
	defer C.free(unsafe.Pointer(half))
	return check(C.tg_cuda_open(half, &e), &e)
}

// Loaded tells whether [Load] has succeeded.
func Loaded() bool { return C.tg_loaded() != nil }

// Version is the version of the loaded libtorch, "2.15.0"; empty before [Load].
func Version() string {
	if !Loaded() {
		return ""
	}
	return C.GoString(C.tg_runtime_version())
}

// HasCUDADriver tells whether the machine has a CUDA driver with a device. It opens the driver
// alone, not libtorch.
func HasCUDADriver() bool { return C.tg_cuda_driver() != 0 }

// check turns the error of a call into a Go error and frees its texts.
func check(kind C.int32_t, e *C.tg_error) error {
	if kind == C.TG_OK {
		return nil
	}
	return &Error{Kind: Kind(kind), Message: takeString(e.message), Backtrace: takeString(e.backtrace), Cause: uint64(e.cause)}
}

func words(s []uint64) *C.uint64_t { return (*C.uint64_t)(unsafe.Pointer(unsafe.SliceData(s))) }

func sizes(s []int) *C.int64_t { return (*C.int64_t)(unsafe.Pointer(unsafe.SliceData(s))) }

func flag(b bool) C.int32_t {
	if b {
		return 1
	}
	return 0
}

// takeString copies a text that the shim allocated, and frees it. 0 is the empty text.
func takeString(address C.uintptr_t) string {
	if address == 0 {
		return ""
	}
	text := C.tg_pointer(address)
	defer C.free(text)
	return C.GoString((*C.char)(text))
}

// OpFind looks an operator up. schema, if not empty, must be the one it has.
func OpFind(name, overload, schema string) (Op, error) {
	n, o := C.CString(name), C.CString(overload)
	defer C.free(unsafe.Pointer(n))
	defer C.free(unsafe.Pointer(o))
	var s *C.char
	if schema != "" {
		s = C.CString(schema)
		defer C.free(unsafe.Pointer(s))
	}
	var op C.tg_op
	var e C.tg_error
	err := check(C.tg_op_find(n, o, s, &op, &e), &e)
	return Op(op), err
}

// OpSchema is the schema of an operator.
func OpSchema(op Op) (string, error) {
	var out *C.char
	var e C.tg_error
	if err := check(C.tg_op_schema(C.tg_op(op), &out, &e), &e); err != nil {
		return "", err
	}
	return takeString(C.uintptr_t(uintptr(unsafe.Pointer(out)))), nil
}

// OpList has the schemas of all operators, one a line.
func OpList() (string, error) {
	var out *C.char
	var e C.tg_error
	if err := check(C.tg_op_list(&out, &e), &e); err != nil {
		return "", err
	}
	return takeString(C.uintptr_t(uintptr(unsafe.Pointer(out)))), nil
}

// Call runs an operator on nargs values in args. The results are the scope token of the calling
// thread, the number of values, the values. They are in rets or, where they need more room, in the
// slice that Call returns; else that is nil.
func Call(op Op, args []uint64, nargs int, rets []uint64) ([]uint64, error) {
	var e C.tg_error
	var more C.uint64_t
	kind := C.tg_call(C.tg_op(op), words(args), C.int64_t(len(args)), C.int64_t(nargs),
		words(rets), C.int64_t(len(rets)), &more, &e)
	if kind != C.TG_OK {
		return nil, check(kind, &e)
	}
	if more != 0 {
		return takeWords(C.uintptr_t(more)), nil
	}
	return nil, nil
}

// CallOpen is [Call] for a call during which libtorch may call [Hook]. site, if not empty, says where in
// the program the call is.
func CallOpen(op Op, args []uint64, nargs int, rets []uint64, site string) ([]uint64, error) {
	s := optionalText(site)
	defer C.free(unsafe.Pointer(s))
	// A callback can move this goroutine's stack, so nothing that C sees may lie on it.
	in, out := append([]uint64(nil), args...), make([]uint64, len(rets))
	var e C.tg_error
	var more C.uint64_t
	kind := C.tg_call_open(C.tg_op(op), words(in), C.int64_t(len(in)), C.int64_t(nargs),
		words(out), C.int64_t(len(out)), &more, s, &e)
	if kind != C.TG_OK {
		return nil, check(kind, &e)
	}
	copy(rets, out)
	if more != 0 {
		return takeWords(C.uintptr_t(more)), nil
	}
	return nil, nil
}

// takeWords copies results that did not fit the caller's buffer: their number, then they.
func takeWords(address C.uintptr_t) []uint64 {
	p := (*uint64)(C.tg_pointer(address))
	defer C.free(unsafe.Pointer(p))
	return append([]uint64(nil), unsafe.Slice(p, *p+1)[1:]...)
}

// TensorsFree gives up the references to tensors; 0 is skipped.
func TensorsFree(tensors []uint64) error {
	var e C.tg_error
	kind := C.tg_tensors_free(words(tensors), C.int64_t(len(tensors)), &e)
	if kind != C.TG_OK {
		return check(kind, &e)
	}
	return nil
}

// TensorRetain makes a second reference.
func TensorRetain(t Tensor) (Tensor, error) {
	var out C.tg_tensor
	var e C.tg_error
	kind := C.tg_tensor_retain(C.tg_tensor(t), &out, &e)
	if kind != C.TG_OK {
		return 0, check(kind, &e)
	}
	return Tensor(out), nil
}

// TensorInfo writes the words Info… of t, its sizes and its strides into out and returns how many
// words there are, also when out is too short for them.
func TensorInfo(t Tensor, out []int) (int, error) {
	var e C.tg_error
	var need C.int64_t
	kind := C.tg_tensor_info(C.tg_tensor(t), sizes(out), C.int64_t(len(out)), &need, &e)
	if kind != C.TG_OK {
		return 0, check(kind, &e)
	}
	return int(need), nil
}

// TensorFromBlob makes a CPU tensor over nbytes of memory at data. When the last user of its
// storage is gone, id turns up in [Released].
func TensorFromBlob(data unsafe.Pointer, nbytes int, shape, stride []int, dtype int32, id uint64) (Tensor, error) {
	if len(shape) != len(stride) {
		return 0, &Error{Kind: ErrArgument, Message: "shape and stride differ in length"}
	}
	var out C.tg_tensor
	var e C.tg_error
	err := check(C.tg_tensor_from_blob(data, C.int64_t(nbytes), sizes(shape), sizes(stride), C.int64_t(len(shape)),
		C.int32_t(dtype), C.uint64_t(id), &out, &e), &e)
	return Tensor(out), err
}

// SetRequiresGrad sets whether autograd records what is done with t.
func SetRequiresGrad(t Tensor, on bool) error {
	var e C.tg_error
	return check(C.tg_set_requires_grad(C.tg_tensor(t), flag(on), &e), &e)
}

// GradGet is the accumulated gradient of t; 0 where there is none.
func GradGet(t Tensor) (Tensor, error) {
	var out C.tg_tensor
	var e C.tg_error
	err := check(C.tg_grad_get(C.tg_tensor(t), &out, &e), &e)
	return Tensor(out), err
}

// GradSet replaces the gradient of t; 0 removes it.
func GradSet(t, grad Tensor) error {
	var e C.tg_error
	return check(C.tg_grad_set(C.tg_tensor(t), C.tg_tensor(grad), &e), &e)
}

// SetData makes t use the data of another tensor.
func SetData(t, data Tensor) error {
	var e C.tg_error
	return check(C.tg_set_data(C.tg_tensor(t), C.tg_tensor(data), &e), &e)
}

// GradFn is the name of the autograd node that made t; empty for a leaf.
func GradFn(t Tensor) (string, error) {
	var out *C.char
	var e C.tg_error
	if err := check(C.tg_grad_fn(C.tg_tensor(t), &out, &e), &e); err != nil {
		return "", err
	}
	return takeString(C.uintptr_t(uintptr(unsafe.Pointer(out)))), nil
}

// Backward accumulates gradients. grads is nil or has an entry for each tensor (0: none given).
func Backward(tensors, grads, inputs []uint64, retain, create bool) error {
	if grads != nil && len(grads) != len(tensors) {
		return &Error{Kind: ErrArgument, Message: "backward: tensors and gradients differ in number"}
	}
	var e C.tg_error
	return check(C.tg_backward(words(tensors), words(grads), C.int64_t(len(tensors)), words(inputs),
		C.int64_t(len(inputs)), flag(retain), flag(create), &e), &e)
}

// Grad writes the gradients of outputs with respect to inputs into out; 0 for an unused input.
func Grad(outputs, grads, inputs []uint64, retain, create, allowUnused bool, out []uint64) error {
	if grads != nil && len(grads) != len(outputs) {
		return &Error{Kind: ErrArgument, Message: "grad: outputs and gradients differ in number"}
	}
	if len(out) != len(inputs) {
		return &Error{Kind: ErrArgument, Message: "grad: inputs and results differ in number"}
	}
	var e C.tg_error
	return check(C.tg_grad(words(outputs), words(grads), C.int64_t(len(outputs)), words(inputs),
		C.int64_t(len(inputs)), flag(retain), flag(create), flag(allowUnused), words(out), &e), &e)
}

// HookAdd registers a hook on t; [Hook] is called with id. The handle is for [HookRemove].
func HookAdd(t Tensor, id uint64) (int, error) {
	var out C.int64_t
	var e C.tg_error
	err := check(C.tg_hook_add(C.tg_tensor(t), C.uint64_t(id), &out, &e), &e)
	return int(out), err
}

// HookRemove takes a hook off t.
func HookRemove(t Tensor, hook int) error {
	var e C.tg_error
	return check(C.tg_hook_remove(C.tg_tensor(t), C.int64_t(hook), &e), &e)
}

// Hook is what libtorch calls back: see tg_hook_fn of torchgo.h. It takes over the tensors in. If it
// fails, cause is what the error's [Error.Cause] will be. It is set once, before [Load].
var Hook func(id uint64, in, out []uint64) (cause uint64, err error)

//export goHook
func goHook(id C.uint64_t, in *C.uint64_t, n C.int64_t, out *C.uint64_t, cap C.int64_t, cause *C.uint64_t) *C.char {
	why, err := Hook(uint64(id), unsafe.Slice((*uint64)(in), n), unsafe.Slice((*uint64)(out), cap))
	if err != nil {
		*cause = C.uint64_t(why)
		return C.CString(err.Error())
	}
	return nil
}

// AccumulatedHookAdd registers a hook on a leaf that runs when its gradient has been accumulated;
// [Hook] is called with id. The handle is for [AccumulatedHookRemove].
func AccumulatedHookAdd(t Tensor, id uint64) (int, error) {
	var out C.int64_t
	var e C.tg_error
	err := check(C.tg_accumulated_hook_add(C.tg_tensor(t), C.uint64_t(id), &out, &e), &e)
	return int(out), err
}

// AccumulatedHookRemove takes it off again.
func AccumulatedHookRemove(t Tensor, hook int) error {
	var e C.tg_error
	return check(C.tg_accumulated_hook_remove(C.tg_tensor(t), C.int64_t(hook), &e), &e)
}

// FunctionParts says how many tensors of [FunctionApply]'s list are what, in this order.
type FunctionParts struct{ Inputs, Outputs, Saved, Dirty, Constant int }

// FunctionApply puts a node into the graph whose backward is [Hook] with id, and writes its outputs
// into out.
func FunctionApply(id uint64, name string, tensors []uint64, parts FunctionParts, materialize bool, site string, out []uint64) error {
	n := C.CString(name)
	defer C.free(unsafe.Pointer(n))
	s := optionalText(site)
	defer C.free(unsafe.Pointer(s))
	counts := [...]C.int64_t{C.int64_t(parts.Inputs), C.int64_t(parts.Outputs), C.int64_t(parts.Saved), C.int64_t(parts.Dirty), C.int64_t(parts.Constant)}
	var e C.tg_error
	return check(C.tg_function_apply(C.uint64_t(id), n, words(tensors), C.int64_t(len(tensors)), &counts[0], flag(materialize), s,
		words(out), C.int64_t(len(out)), &e), &e)
}

// optionalText is NULL for the empty text.
func optionalText(s string) *C.char {
	if s == "" {
		return nil
	}
	return C.CString(s)
}

// SavedNew saves a tensor as a node of autograd does.
func SavedNew(t Tensor) (Saved, error) {
	var out C.tg_saved
	var e C.tg_error
	err := check(C.tg_saved_new(C.tg_tensor(t), &out, &e), &e)
	return Saved(out), err
}

// SavedUnpack is the tensor again.
func SavedUnpack(s Saved) (Tensor, error) {
	var out C.tg_tensor
	var e C.tg_error
	err := check(C.tg_saved_unpack(C.tg_saved(s), &out, &e), &e)
	return Tensor(out), err
}

// SavedFree gives it up.
func SavedFree(s Saved) error {
	var e C.tg_error
	return check(C.tg_saved_free(C.tg_saved(s), &e), &e)
}

// SavedHooksEnter sets the hooks of saved tensors in the calling thread; for id 0, it forbids hooks and
// says why. As [GuardEnter].
func SavedHooksEnter(scope, id uint64, why string) (Guard, error) {
	w := optionalText(why)
	defer C.free(unsafe.Pointer(w))
	var g C.tg_guard
	var e C.tg_error
	err := check(C.tg_saved_hooks_enter(C.uint64_t(scope), C.uint64_t(id), w, &g, &e), &e)
	return Guard(g), err
}

// AnomalySet sets the process's anomaly mode.
func AnomalySet(on, checkNaN bool) error {
	var e C.tg_error
	return check(C.tg_anomaly_set(flag(on), flag(checkNaN), &e), &e)
}

// BackwardPass is the number of the backward pass that the calling thread works for, -1 outside.
func BackwardPass() (int, error) {
	var out C.int64_t
	var e C.tg_error
	err := check(C.tg_backward_pass(&out, &e), &e)
	return int(out), err
}

// Released writes ids of blobs and hooks that libtorch no longer uses and returns how many.
func Released(ids []uint64) (int, error) {
	var e C.tg_error
	var n C.int64_t
	kind := C.tg_released(words(ids), C.int64_t(len(ids)), &n, &e)
	if kind != C.TG_OK {
		return 0, check(kind, &e)
	}
	return int(n), nil
}

// GuardEnter sets a mode of the calling thread and, if scope is not 0, its scope token.
func GuardEnter(scope uint64, mode int) (Guard, error) {
	var g C.tg_guard
	var e C.tg_error
	kind := C.tg_guard_enter(C.uint64_t(scope), C.int32_t(mode), &g, &e)
	if kind != C.TG_OK {
		return 0, check(kind, &e)
	}
	return Guard(g), nil
}

// GuardLeave undoes [GuardEnter], on the same thread and in reverse order.
func GuardLeave(g Guard) error {
	var e C.tg_error
	kind := C.tg_guard_leave(C.tg_guard(g), &e)
	if kind != C.TG_OK {
		return check(kind, &e)
	}
	return nil
}

// State reads the state of the calling thread.
func State() (ThreadState, error) {
	var out [C.TG_STATE_WORDS]C.uint64_t
	var e C.tg_error
	kind := C.tg_thread_state(&out[0], C.TG_STATE_WORDS, &e)
	if kind != C.TG_OK {
		return ThreadState{}, check(kind, &e)
	}
	return ThreadState{
		Scope: uint64(out[C.TG_STATE_SCOPE]), Busy: out[C.TG_STATE_BUSY] != 0,
		Grad: out[C.TG_STATE_GRAD] != 0, Inference: out[C.TG_STATE_INFERENCE] != 0,
	}, nil
}

// SetNumThreads sets how many threads libtorch uses within an operator.
func SetNumThreads(n int) error {
	if n < 1 || n > 1<<16 {
		return &Error{Kind: ErrArgument, Message: "set_num_threads: expected at least 1 thread"}
	}
	var e C.tg_error
	return check(C.tg_set_num_threads(C.int32_t(n), &e), &e)
}

// NumThreads is how many threads libtorch uses within an operator.
func NumThreads() (int, error) {
	var out C.int32_t
	var e C.tg_error
	err := check(C.tg_num_threads(&out, &e), &e)
	return int(out), err
}

// ManualSeed seeds the default generators of all devices.
func ManualSeed(seed uint64) error {
	var e C.tg_error
	return check(C.tg_manual_seed(C.uint64_t(seed), &e), &e)
}

// GeneratorNew makes a generator for a device (c10::DeviceType and index).
func GeneratorNew(device, index int, seed uint64) (Generator, error) {
	var out C.tg_generator
	var e C.tg_error
	err := check(C.tg_generator_new(C.int32_t(device), C.int32_t(index), C.uint64_t(seed), &out, &e), &e)
	return Generator(out), err
}

// ObjectFree gives up the reference to an object.
func ObjectFree(o Object) error {
	var e C.tg_error
	return check(C.tg_object_free(C.tg_object(o), &e), &e)
}

// GeneratorFree gives up the reference to a generator.
func GeneratorFree(g Generator) error {
	var e C.tg_error
	return check(C.tg_generator_free(C.tg_generator(g), &e), &e)
}

// GeneratorState is the state of a generator (0: the CPU's default one) as a uint8 tensor.
func GeneratorState(g Generator) (Tensor, error) {
	var out C.tg_tensor
	var e C.tg_error
	err := check(C.tg_generator_state(C.tg_generator(g), &out, &e), &e)
	return Tensor(out), err
}

// GeneratorSetState restores what [GeneratorState] returned.
func GeneratorSetState(g Generator, state Tensor) error {
	var e C.tg_error
	return check(C.tg_generator_set_state(C.tg_generator(g), C.tg_tensor(state), &e), &e)
}

// DeviceCount is the number of devices of a c10::DeviceType.
func DeviceCount(device int) (int, error) {
	var out C.int64_t
	var e C.tg_error
	err := check(C.tg_device_count(C.int32_t(device), &out, &e), &e)
	return int(out), err
}

// EmptyCache gives the accelerator's cached memory back to it.
func EmptyCache() error {
	var e C.tg_error
	return check(C.tg_empty_cache(&e), &e)
}

// Trim gives free memory of the C allocator back to the system. glibc keeps what was freed in the
// arena of the thread that allocated it, and goroutines allocate on many threads.
func Trim() { C.tg_trim() }

// ShowConfig is libtorch's description of its build.
func ShowConfig() (string, error) {
	var out *C.char
	var e C.tg_error
	if err := check(C.tg_show_config(&out, &e), &e); err != nil {
		return "", err
	}
	return takeString(C.uintptr_t(uintptr(unsafe.Pointer(out)))), nil
}
