//go:build !cgo

package cgo

import (
	"errors"
	"unsafe"
)

// Without cgo there is no libtorch: every function reports that.
var errNoCgo = errors.New("built without cgo: libtorch can't be used (build with CGO_ENABLED=1 and a C compiler)")

// Load is there with cgo only.
func Load(l Library) error { return errNoCgo }

// Loaded is there with cgo only.
func Loaded() bool { return false }

// Version is there with cgo only.
func Version() string { return "" }

// HasCUDADriver is there with cgo only.
func HasCUDADriver() bool { return false }

// OpFind is there with cgo only.
func OpFind(name, overload, schema string) (Op, error) { return 0, errNoCgo }

// OpSchema is there with cgo only.
func OpSchema(op Op) (string, error) { return "", errNoCgo }

// OpList is there with cgo only.
func OpList() (string, error) { return "", errNoCgo }

// Call is there with cgo only.
func Call(op Op, args []uint64, nargs int, rets []uint64) ([]uint64, error) { return nil, errNoCgo }

// TensorsFree is there with cgo only.
func TensorsFree(tensors []uint64) error { return errNoCgo }

// TensorRetain is there with cgo only.
func TensorRetain(t Tensor) (Tensor, error) { return 0, errNoCgo }

// TensorInfo is there with cgo only.
func TensorInfo(t Tensor, out []int) (int, error) { return 0, errNoCgo }

// TensorFromBlob is there with cgo only.
func TensorFromBlob(data unsafe.Pointer, nbytes int, shape, stride []int, dtype int32, id uint64) (Tensor, error) {
	return 0, errNoCgo
}

// SetRequiresGrad is there with cgo only.
func SetRequiresGrad(t Tensor, on bool) error { return errNoCgo }

// GradGet is there with cgo only.
func GradGet(t Tensor) (Tensor, error) { return 0, errNoCgo }

// GradSet is there with cgo only.
func GradSet(t, grad Tensor) error { return errNoCgo }

// SetData is there with cgo only.
func SetData(t, data Tensor) error { return errNoCgo }

// GradFn is there with cgo only.
func GradFn(t Tensor) (string, error) { return "", errNoCgo }

// Backward is there with cgo only.
func Backward(tensors, grads, inputs []uint64, retain, create bool) error { return errNoCgo }

// Grad is there with cgo only.
func Grad(outputs, grads, inputs []uint64, retain, create, allowUnused bool, out []uint64) error {
	return errNoCgo
}

// HookAdd is there with cgo only.
func HookAdd(t Tensor, id uint64) (int, error) { return 0, errNoCgo }

// HookRemove is there with cgo only.
func HookRemove(t Tensor, hook int) error { return errNoCgo }

// Released is there with cgo only.
func Released(ids []uint64) (int, error) { return 0, errNoCgo }

// GuardEnter is there with cgo only.
func GuardEnter(scope uint64, mode int) (Guard, error) { return 0, errNoCgo }

// GuardLeave is there with cgo only.
func GuardLeave(g Guard) error { return errNoCgo }

// State is there with cgo only.
func State() (ThreadState, error) { return ThreadState{}, errNoCgo }

// SetNumThreads is there with cgo only.
func SetNumThreads(n int) error { return errNoCgo }

// NumThreads is there with cgo only.
func NumThreads() (int, error) { return 0, errNoCgo }

// ManualSeed is there with cgo only.
func ManualSeed(seed uint64) error { return errNoCgo }

// GeneratorNew is there with cgo only.
func GeneratorNew(device, index int, seed uint64) (Generator, error) { return 0, errNoCgo }

// ObjectFree is there with cgo only.
func ObjectFree(o Object) error { return errNoCgo }

// GeneratorFree is there with cgo only.
func GeneratorFree(g Generator) error { return errNoCgo }

// GeneratorState is there with cgo only.
func GeneratorState(g Generator) (Tensor, error) { return 0, errNoCgo }

// GeneratorSetState is there with cgo only.
func GeneratorSetState(g Generator, state Tensor) error { return errNoCgo }

// DeviceCount is there with cgo only.
func DeviceCount(device int) (int, error) { return 0, errNoCgo }

// EmptyCache is there with cgo only.
func EmptyCache() error { return errNoCgo }

// Trim is there with cgo only.
func Trim() {}

// ShowConfig is there with cgo only.
func ShowConfig() (string, error) { return "", errNoCgo }

// Hook is there with cgo only.
var Hook func(id uint64, in, out []uint64) (cause uint64, err error)

// FunctionParts is there with cgo only.
type FunctionParts struct{ Inputs, Outputs, Saved, Dirty, Constant int }

// AccumulatedHookAdd is there with cgo only.
func AccumulatedHookAdd(t Tensor, id uint64) (int, error) { return 0, errNoCgo }

// AccumulatedHookRemove is there with cgo only.
func AccumulatedHookRemove(t Tensor, hook int) error { return errNoCgo }

// FunctionApply is there with cgo only.
func FunctionApply(id uint64, name string, tensors []uint64, parts FunctionParts, materialize bool, site string, out []uint64) error {
	return errNoCgo
}

// SavedNew is there with cgo only.
func SavedNew(t Tensor) (Saved, error) { return 0, errNoCgo }

// SavedUnpack is there with cgo only.
func SavedUnpack(s Saved) (Tensor, error) { return 0, errNoCgo }

// SavedFree is there with cgo only.
func SavedFree(s Saved) error { return errNoCgo }

// SavedHooksEnter is there with cgo only.
func SavedHooksEnter(scope, id uint64, why string) (Guard, error) { return 0, errNoCgo }

// AnomalySet is there with cgo only.
func AnomalySet(on, checkNaN bool) error { return errNoCgo }

// BackwardPass is there with cgo only.
func BackwardPass() (int, error) { return 0, errNoCgo }

// CallOpen is there with cgo only.
func CallOpen(op Op, args []uint64, nargs int, rets []uint64, site string) ([]uint64, error) {
	return nil, errNoCgo
}
