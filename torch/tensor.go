package torch

import (
	"runtime"
	"sync/atomic"
	"unsafe"

	"github.com/torchgo/torchgo/cgo"
)

// Tensor is an n-dimensional array of elements of one [DType] on one [Device].
//
// A Tensor belongs to the scope it was made in, or to the collector; see the package's
// documentation. Its methods may be called from many goroutines; whether an operator may run beside
// another on the same data is PyTorch's rule: reading is safe, writing in place needs care.
type Tensor struct {
	handle cgo.Tensor
	state  atomic.Int64 // uses in progress, plus the flags below

	scope *scope // that frees it; nil: the collector does
	index int    // in scope.tensors

	net     runtime.Cleanup // outside scopes
	bytes   int             // of storage that was the tensor's alone when it was made
	counted bool            // by the pressure meter
}

const (
	closed = 1 << 62 // Close was called
	freed  = 1 << 61 // libtorch's reference was given up
)

var live atomic.Int64

// LiveTensors counts the tensors that have not been freed, for tests. What other goroutines' scopes
// have made counts when those end.
func LiveTensors() int64 {
	n := live.Load()
	if !loaded.Load() {
		return n
	}
	state, err := cgo.State()
	must("live_tensors", err)
	if state.Scope != 0 {
		for s := scopeOf(state.Scope); s != nil; s = s.parent {
			n += s.made
		}
	}
	return n
}

// newTensor takes over a handle. token is the scope token of the calling thread.
func newTensor(handle cgo.Tensor, bytes int, token uint64) *Tensor {
	t := &Tensor{handle: handle, bytes: bytes}
	if token != 0 {
		if s := scopeOf(token); s != nil {
			s.made++
			s.add(t)
			return t
		}
	}
	live.Add(1)
	t.catch()
	return t
}

// catch leaves t to the collector. t is new, or in use.
func (t *Tensor) catch() {
	t.net = runtime.AddCleanup(t, collect, collected{t.handle, t.bytes}) // alive: it is what frees it later
	t.counted = true
	pressure.add(t.bytes)
}

// use keeps t's data while an operator runs; it is false if t is closed. unuse ends it.
func (t *Tensor) use() bool {
	if t.state.Add(1) < closed {
		return true
	}
	t.unuse()
	return false
}

func (t *Tensor) unuse() {
	// Whoever ends the last use of a closed tensor frees it.
	if t.state.Add(-1) == closed && t.state.CompareAndSwap(closed, closed|freed) {
		t.free()
	}
}

// shut marks t as closed and tells whether the caller has to free it.
func (t *Tensor) shut() bool {
	if t.state.CompareAndSwap(0, closed|freed) {
		return true
	}
	for {
		old := t.state.Load()
		if old >= freed {
			return false
		}
		if old != 0 {
			if t.state.CompareAndSwap(old, old|closed) {
				return false // the last use frees it
			}
			continue
		}
		if t.state.CompareAndSwap(0, closed|freed) {
			return true
		}
	}
}

// free gives up libtorch's reference.
func (t *Tensor) free() {
	t.net.Stop()
	live.Add(-1)
	if t.counted {
		pressure.sub(t.bytes)
	}
	if err := cgo.TensorsFree([]uint64{uint64(t.handle)}); err != nil {
		panic(wrap("close", err))
	}
	runtime.KeepAlive(t) // until here, so that the net has really been stopped
	drainReleased()
}

// Close frees the tensor's reference to its data. It may be called again and while an operator
// uses the tensor, which then finishes first. Other tensors that share the data keep it.
func (t *Tensor) Close() {
	if t == nil {
		return
	}
	if t.shut() {
		t.free()
	}
}

// Closed tells whether the tensor was closed, by [Tensor.Close] or the end of its scope; a nil one is.
func (t *Tensor) Closed() bool { return t == nil || t.state.Load() >= freed }

// borrow gives the handle for the length of fn.
func (t *Tensor) borrow(op string, fn func(cgo.Tensor) error) {
	if t == nil {
		invalid(op, "tensor is nil")
	}
	if !t.use() {
		panic(closedError(op))
	}
	defer t.unuse()
	if err := fn(t.handle); err != nil {
		e := wrap(op, err)
		e.Shapes = []Shape{shapeOf(t.handle)}
		panic(e)
	}
}

func closedError(op string) *Error {
	return &Error{Op: op, Kind: ErrClosed, Message: "the tensor was closed, or its scope has ended"}
}

// info is a tensor's description.
type info struct {
	words [cgo.InfoSizes + 16]int
	more  []int // for more than 8 dimensions
}

func (i *info) get() []int {
	if i.more != nil {
		return i.more
	}
	return i.words[:]
}

func (i *info) has(flag int) bool { return i.get()[cgo.InfoFlags]&flag != 0 }

func (i *info) shape() []int {
	w := i.get()
	return append([]int{}, w[cgo.InfoSizes:cgo.InfoSizes+w[cgo.InfoDim]]...)
}

func (i *info) stride() []int {
	w := i.get()
	n := w[cgo.InfoDim]
	return append([]int{}, w[cgo.InfoSizes+n:cgo.InfoSizes+2*n]...)
}

func (i *info) read(h cgo.Tensor) error {
	need, err := cgo.TensorInfo(h, i.words[:])
	if err == nil && need > len(i.words) {
		i.more = make([]int, need)
		_, err = cgo.TensorInfo(h, i.more)
	}
	return err
}

func (t *Tensor) info(op string) *info {
	i := new(info)
	t.borrow(op, i.read)
	return i
}

// shapeOf is for errors.
func shapeOf(h cgo.Tensor) Shape {
	var i info
	if h == 0 || i.read(h) != nil {
		return nil
	}
	return i.shape()
}

// Shape is the size of each dimension.
func (t *Tensor) Shape() []int { return t.info("shape").shape() }

// Size is the size of a dimension; negative ones count from the end.
func (t *Tensor) Size(dim int) int {
	shape := t.Shape()
	d := dim
	if d < 0 {
		d += len(shape)
	}
	if d < 0 || d >= len(shape) {
		panic(&Error{Op: "size", Kind: ErrIndex, Shapes: []Shape{shape},
			Message: "dimension out of range"})
	}
	return shape[d]
}

// Dim is the number of dimensions.
func (t *Tensor) Dim() int { return t.info("dim").get()[cgo.InfoDim] }

// Stride is the distance, in elements, between neighbours in each dimension.
func (t *Tensor) Stride() []int { return t.info("stride").stride() }

// StorageOffset is where the tensor begins in its storage, in elements.
func (t *Tensor) StorageOffset() int { return t.info("storage_offset").get()[cgo.InfoOffset] }

// Numel is the number of elements.
func (t *Tensor) Numel() int { return t.info("numel").get()[cgo.InfoNumel] }

// NumBytes is the number of bytes of the elements: Numel times the size of one.
func (t *Tensor) NumBytes() int {
	w := t.info("nbytes").get()
	return w[cgo.InfoNumel] * w[cgo.InfoItemSize]
}

// DType is the type of the elements.
func (t *Tensor) DType() DType { return DType(t.info("dtype").get()[cgo.InfoDType] + 1) }

// Device is where the data lies.
func (t *Tensor) Device() Device {
	w := t.info("device").get()
	return deviceFromC10(w[cgo.InfoDevice], w[cgo.InfoDeviceIndex])
}

// Layout is how the elements are stored.
func (t *Tensor) Layout() Layout { return Layout(t.info("layout").get()[cgo.InfoLayout] + 1) }

// IsContiguous tells whether the elements lie in memory in the order of the last index first.
func (t *Tensor) IsContiguous() bool { return t.info("is_contiguous").has(cgo.FlagContiguous) }

// DataPtr is the address of the first element; nil on the meta device. It is good as long as the
// tensor is; prefer [Data].
func (t *Tensor) DataPtr() unsafe.Pointer { return pointer(t.info("data_ptr").get()[cgo.InfoData]) }

// pointer makes an address of libtorch's memory a pointer. (Through memory, because vet can't know
// that the address is not Go's.)
func pointer(address int) unsafe.Pointer { return *(*unsafe.Pointer)(unsafe.Pointer(&address)) }

// StorageID identifies the storage: two tensors share data if and only if it is the same. Zero:
// there is none.
func (t *Tensor) StorageID() uintptr { return uintptr(t.info("storage").get()[cgo.InfoStorage]) }

// StorageBytes is the size of the storage, which a view may use only in part.
func (t *Tensor) StorageBytes() int { return t.info("storage").get()[cgo.InfoStorageBytes] }
