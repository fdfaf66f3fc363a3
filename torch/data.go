package torch

import (
	"runtime"
	"slices"
	"unsafe"

	"github.com/torchgo/torchgo/cgo"
)

// Operators that the hand-written part of this package stands on.
var (
	opEmpty      = op{name: "aten::empty", overload: "memory_format"}
	opContiguous = op{name: "aten::contiguous"}
	opResolve    = op{name: "aten::resolve_conj"}
	opResolveNeg = op{name: "aten::resolve_neg"}
)

func numel(op string, shape []int) int {
	n := 1
	for _, s := range shape {
		if s < 0 {
			invalid(op, "negative size in shape %v", Shape(shape))
		}
		if s != 0 && n > (1<<62)/s {
			invalid(op, "shape %v has too many elements", Shape(shape))
		}
		n *= s
	}
	return n
}

// elementDType is the dtype of elements T, and their size.
func elementDType[T Element]() (DType, int) {
	var zero T
	return DTypeOf[T](), int(unsafe.Sizeof(zero))
}

func empty(dtype DType, shape []int) *Tensor {
	var c call
	c.start(&opEmpty)
	c.ints(shape)
	c.dtype(dtype)
	c.none()
	c.none()
	c.none()
	c.none()
	c.run()
	return c.retTensor()
}

// FromSlice makes a CPU tensor of a copy of data, whose dtype is [DTypeOf] T. Without a shape it
// has one dimension; a shape of no sizes for one element is written torch.FromSlice(data, []int{}...)
// or [FromValue].
func FromSlice[T Element](data []T, shape ...int) *Tensor {
	const op = "from_slice"
	if shape == nil {
		shape = []int{len(data)}
	}
	if n := numel(op, shape); n != len(data) {
		invalid(op, "shape %v has %d elements, the slice has %d", Shape(shape), n, len(data))
	}
	dtype, _ := elementDType[T]()
	t := empty(dtype, shape)
	copy(raw[T](t, op), data)
	return t
}

// FromValue makes a CPU tensor of no dimensions.
func FromValue[T Element](v T) *Tensor {
	t := empty(DTypeOf[T](), nil)
	raw[T](t, "from_value")[0] = v
	return t
}

// FromBlob makes a CPU tensor over memory of the caller's: no copy. The elements lie at data in the
// order of a contiguous tensor, or as stride says. release, if not nil, is called once, when
// neither this tensor nor any other that shares its storage is left (views and what autograd
// saved included). data must not be Go's own memory unless it is pinned until then.
func FromBlob(data unsafe.Pointer, nbytes int, shape []int, dtype DType, release func(), stride ...int) *Tensor {
	const op = "from_blob"
	load(op)
	if !dtype.valid() {
		invalid(op, "expected a dtype, got %v", dtype)
	}
	numel(op, shape)
	if stride == nil {
		stride = contiguous(shape)
	}
	if release == nil {
		release = func() {}
	}
	drainReleased()
	id := hold(release)
	handle, err := cgo.TensorFromBlob(data, nbytes, shape, stride, int32(dtype)-1, id)
	if err != nil {
		// The shim never took the id, so release is not called: the memory is still the caller's.
		holds.values.Delete(id)
		holds.count.Add(-1)
		e := wrap(op, err)
		e.Shapes = []Shape{shape}
		panic(e)
	}
	state, err := cgo.State()
	must(op, err)
	return newTensor(handle, 0, state.Scope)
}

// contiguous are the strides of a contiguous tensor.
func contiguous(shape []int) []int {
	stride := make([]int, len(shape))
	n := 1
	for i := len(shape) - 1; i >= 0; i-- {
		stride[i] = n
		n *= max(shape[i], 1)
	}
	return stride
}

// noMemory is for zeros that autograd made without memory: the gradient of sgn, for one.
func noMemory(op string, i *info) *Error {
	return &Error{Op: op, Kind: ErrValue, Shapes: []Shape{i.shape()}, Message: "zeros without memory; ToSlice reads them"}
}

// raw is the data of a contiguous CPU tensor.
func raw[T Element](t *Tensor, op string) []T {
	dtype, size := elementDType[T]()
	i := t.info(op)
	w := i.get()
	have := DType(w[cgo.InfoDType] + 1)
	switch {
	case have != dtype:
		panic(&Error{Op: op, Kind: ErrType, Shapes: []Shape{i.shape()}, Message: "expected a tensor of " + dtype.String() + ", got " + have.String()})
	case w[cgo.InfoDevice] != deviceTypes[DeviceCPU].c10:
		panic(&Error{Op: op, Kind: ErrValue, Shapes: []Shape{i.shape()}, Message: "expected a tensor on the CPU, got one on " + deviceFromC10(w[cgo.InfoDevice], w[cgo.InfoDeviceIndex]).String()})
	case !i.has(cgo.FlagContiguous):
		panic(&Error{Op: op, Kind: ErrValue, Shapes: []Shape{i.shape()}, Message: "expected a contiguous tensor"})
	case i.has(cgo.FlagConj) || i.has(cgo.FlagNeg):
		panic(&Error{Op: op, Kind: ErrValue, Shapes: []Shape{i.shape()}, Message: "expected plain data, got a lazily conjugated or negated view"})
	case w[cgo.InfoNumel] == 0:
		return nil
	case w[cgo.InfoData] == 0:
		panic(noMemory(op, i))
	case w[cgo.InfoItemSize] != size:
		panic(&Error{Op: op, Kind: ErrInternal, Message: "element size differs"})
	}
	return unsafe.Slice((*T)(pointer(w[cgo.InfoData])), w[cgo.InfoNumel])
}

// Data is the memory of a contiguous CPU tensor as a slice: no copy. It is good as long as t is
// reachable and not closed (call [runtime.KeepAlive] after the last use, or close t explicitly);
// writing to it writes to the tensor.
func Data[T Element](t *Tensor) []T { return raw[T](t, "data") }

// Bytes is the memory of a contiguous CPU tensor of any dtype; see [Data].
func (t *Tensor) Bytes() []byte {
	const op = "bytes"
	i := t.info(op)
	w := i.get()
	if w[cgo.InfoDevice] != deviceTypes[DeviceCPU].c10 || !i.has(cgo.FlagContiguous) {
		panic(&Error{Op: op, Kind: ErrValue, Shapes: []Shape{i.shape()}, Message: "expected a contiguous tensor on the CPU"})
	}
	n := w[cgo.InfoNumel] * w[cgo.InfoItemSize]
	if n == 0 {
		return nil
	}
	if w[cgo.InfoData] == 0 {
		panic(noMemory(op, i))
	}
	return unsafe.Slice((*byte)(pointer(w[cgo.InfoData])), n)
}

// ToSlice copies the elements out, in the order of the last index first, from any device and
// layout in memory. T may be another type than the dtype's where PyTorch's promotion allows it
// without losing the kind (bool to int to float to complex): bfloat16 comes out as float32.
func ToSlice[T Element](t *Tensor) []T {
	const op = "to_slice"
	dtype, _ := elementDType[T]()
	i := t.info(op)
	w := i.get()
	have := DType(w[cgo.InfoDType] + 1)
	if have.category() > dtype.category() {
		panic(&Error{Op: op, Kind: ErrType, Shapes: []Shape{i.shape()}, Message: have.String() + " does not convert to " + dtype.String() + " without loss; convert with ToDType first"})
	}
	plain := have == dtype && w[cgo.InfoDevice] == deviceTypes[DeviceCPU].c10 &&
		i.has(cgo.FlagContiguous) && !i.has(cgo.FlagConj) && !i.has(cgo.FlagNeg)
	if w[cgo.InfoData] == 0 && w[cgo.InfoDevice] == deviceTypes[DeviceCPU].c10 && i.has(cgo.FlagContiguous) {
		return make([]T, w[cgo.InfoNumel]) // empty, or zeros without memory
	}
	if plain {
		if !t.use() { // another goroutine's Close waits for the copy
			panic(closedError(op))
		}
		defer t.unuse()
		return slices.Clone(raw[T](t, op))
	}
	var out []T
	Scope(func() {
		NoGrad(func() {
			c := unary(&opContiguous, unary(&opResolveNeg, unary(&opResolve, t.to(dtype, CPU, false, false))), ContiguousFormat)
			out = slices.Clone(raw[T](c, op))
			runtime.KeepAlive(c)
		})
	})
	return out
}

// unary calls an operator of one tensor, with a memory format if the operator takes one.
func unary(o *op, t *Tensor, format ...MemoryFormat) *Tensor {
	var c call
	c.start(o)
	c.tensor(t)
	for _, f := range format {
		c.memoryFormat(f)
	}
	c.run()
	return c.retTensor()
}

// Item is the one element of a tensor; see [ToSlice] for what T may be.
func Item[T Element](t *Tensor) T {
	if n := t.Numel(); n != 1 {
		panic(&Error{Op: "item", Kind: ErrRuntime, Shapes: []Shape{t.Shape()}, Message: "a tensor with one element is needed"})
	}
	return ToSlice[T](t)[0]
}

// ToOptions are the rarer arguments of [Tensor.To].
type ToOptions struct {
	DType       DType
	NonBlocking bool // may return before a copy from pinned memory to a GPU is done
	Copy        bool // copies even where nothing changes
}

// NonBlocking is ToOptions{NonBlocking: true}.
func NonBlocking() ToOptions { return ToOptions{NonBlocking: true} }

// To is the tensor on another device, and of another dtype if the options say so; the same data
// where nothing changes (Tensor.to).
func (t *Tensor) To(device Device, opts ...ToOptions) *Tensor {
	var o ToOptions
	if len(opts) > 0 {
		o = opts[0]
	}
	return t.to(o.DType, device, o.NonBlocking, o.Copy)
}

// ToDType is the tensor converted to another dtype; the same data where it has it (Tensor.to).
func (t *Tensor) ToDType(dtype DType) *Tensor { return t.to(dtype, Device{}, false, false) }

var opToFull = op{name: "aten::to", overload: "dtype_layout"}

func (t *Tensor) to(dtype DType, device Device, nonBlocking, always bool) *Tensor {
	var c call
	c.start(&opToFull)
	c.tensor(t)
	c.optDType(dtype)
	c.none()
	c.optDevice(device)
	c.none()
	c.bool(nonBlocking)
	c.bool(always)
	c.none()
	c.run()
	return c.retTensor()
}
