package torch

import (
	"errors"
	"fmt"
	"math"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"unsafe"

	"github.com/torchgo/torchgo/cgo"
)

// op is an operator of the dispatcher. It is looked up when it is first called.
type op struct {
	name     string // "aten::add"
	overload string // "Tensor"
	schema   string // that the caller was written for; empty: any
	handle   atomic.Uintptr
	open     bool // runs backward, and so hooks
}

// label is how errors name it: "add", "quantized::linear".
func (o *op) label() string { return strings.TrimPrefix(o.name, "aten::") }

func (o *op) find() cgo.Op {
	if h := o.handle.Load(); h != 0 {
		return cgo.Op(h)
	}
	load(o.label())
	h, err := cgo.OpFind(o.name, o.overload, o.schema)
	if err != nil {
		e := wrap(o.label(), err)
		if e.Kind == ErrNoOperator {
			e.Message += " in libtorch " + cgo.Version()
		}
		panic(e)
	}
	o.handle.Store(uintptr(h))
	return h
}

// call is one call of an operator: start, an argument method for each argument of the schema, run,
// a ret method for each result. It stays on the stack; what doesn't fit its arrays goes to the heap.
type call struct {
	op       *op
	handle   cgo.Op
	nargs    int
	nwords   int
	nheld    int
	nresults int
	pos      int // of the next word of the results
	token    uint64

	words [20]uint64
	held  [8]*Tensor // tensors in use
	args  [8]uint16  // argument that each of held is
	rets  [14]uint64

	moreWords []uint64
	moreHeld  []*Tensor
	moreArgs  []uint16
	moreRets  []uint64
	random    *Generator
	objects   []*Object
}

// start looks the operator up, before any argument is in use.
func (c *call) start(o *op) { c.op, c.handle = o, o.find() }

// fail gives up: the tensors in use are let go, and it panics.
func (c *call) fail(e *Error) {
	c.release()
	panic(e)
}

func (c *call) invalid(format string, args ...any) {
	c.fail(&Error{Op: c.op.label(), Kind: ErrArgument, Message: fmt.Sprintf("argument %d: ", c.nargs) + fmt.Sprintf(format, args...)})
}

func (c *call) word(w uint64) {
	if c.nwords < len(c.words) && c.moreWords == nil {
		c.words[c.nwords] = w
		c.nwords++
		return
	}
	c.spill(w)
}

func (c *call) spill(w uint64) {
	if c.moreWords == nil {
		c.moreWords = append(make([]uint64, 0, 8*len(c.words)), c.words[:c.nwords]...)
	}
	c.moreWords = append(c.moreWords, w)
}

func (c *call) head(tag, n int) {
	c.word(uint64(tag) | uint64(n)<<8)
	c.nargs++
}

// hold keeps a tensor's data for the length of the call and gives its handle.
func (c *call) hold(t *Tensor) uint64 {
	if !t.use() {
		c.fail(closedError(c.op.label()))
	}
	arg := uint16(c.nargs - 1)
	if c.nheld < len(c.held) {
		c.held[c.nheld], c.args[c.nheld] = t, arg
		c.nheld++
	} else {
		c.moreHeld, c.moreArgs = append(c.moreHeld, t), append(c.moreArgs, arg)
	}
	return uint64(t.handle) // alive: until release
}

// release lets the arguments go, but remembers them: a result may be one of them.
func (c *call) release() {
	for _, t := range c.held[:c.nheld] {
		t.unuse()
	}
	for _, t := range c.moreHeld {
		t.unuse()
	}
}

func (c *call) none() { c.head(cgo.TagNone, 0) }

func (c *call) tensor(t *Tensor) {
	if t == nil {
		c.invalid("expected a tensor, got nil")
	}
	c.head(cgo.TagTensor, 0)
	c.word(c.hold(t))
}

func (c *call) optTensor(t *Tensor) {
	if t == nil {
		c.none()
		return
	}
	c.tensor(t)
}

func (c *call) list(ts []*Tensor, optional bool) {
	c.head(cgo.TagTensors, len(ts))
	for i, t := range ts {
		switch {
		case t != nil:
			c.word(c.hold(t))
		case optional:
			c.word(0)
		default:
			c.invalid("expected a tensor at %d, got nil", i)
		}
	}
}

func (c *call) tensors(ts []*Tensor)    { c.list(ts, false) }
func (c *call) optTensors(ts []*Tensor) { c.list(ts, true) }

func (c *call) int(v int) {
	c.head(cgo.TagInt, 0)
	c.word(uint64(v))
}

func (c *call) optInt(v Opt[int]) {
	if !v.set {
		c.none()
		return
	}
	c.int(v.value)
}

func (c *call) float(v float64) {
	c.head(cgo.TagDouble, 0)
	c.word(math.Float64bits(v))
}

func (c *call) optFloat(v Opt[float64]) {
	if !v.set {
		c.none()
		return
	}
	c.float(v.value)
}

func boolWord(v bool) uint64 {
	if v {
		return 1
	}
	return 0
}

func (c *call) bool(v bool) {
	c.head(cgo.TagBool, 0)
	c.word(boolWord(v))
}

func (c *call) optBool(v Opt[bool]) {
	if !v.set {
		c.none()
		return
	}
	c.bool(v.value)
}

func (c *call) str(v string) {
	c.head(cgo.TagString, len(v))
	for len(v) > 0 {
		var b [8]byte
		v = v[copy(b[:], v):]
		c.word(*(*uint64)(unsafe.Pointer(&b)))
	}
}

func (c *call) optStr(v Opt[string]) {
	if !v.set {
		c.none()
		return
	}
	c.str(v.value)
}

func (c *call) ints(v []int) {
	c.head(cgo.TagInts, len(v))
	for _, x := range v {
		c.word(uint64(x))
	}
}

func (c *call) optInts(v []int) {
	if v == nil {
		c.none()
		return
	}
	c.ints(v)
}

func (c *call) floats(v []float64) {
	c.head(cgo.TagDoubles, len(v))
	for _, x := range v {
		c.word(math.Float64bits(x))
	}
}

func (c *call) optFloats(v []float64) {
	if v == nil {
		c.none()
		return
	}
	c.floats(v)
}

func (c *call) bools(v []bool) {
	c.head(cgo.TagBools, len(v))
	for _, x := range v {
		c.word(boolWord(x))
	}
}

func (c *call) strs(v []string) {
	c.head(cgo.TagList, len(v))
	n := c.nargs
	for _, s := range v {
		c.str(s)
	}
	c.nargs = n // the elements are no arguments
}

func (c *call) complex(v complex128) {
	c.head(cgo.TagComplex, 0)
	c.word(math.Float64bits(real(v)))
	c.word(math.Float64bits(imag(v)))
}

func (c *call) scalar(v Scalar) {
	switch x := v.(type) {
	case int:
		c.int(x)
	case float64:
		c.float(x)
	case bool:
		c.bool(x)
	case float32:
		c.float(float64(x))
	case int64:
		c.int(int(x))
	case int32:
		c.int(int(x))
	case int16:
		c.int(int(x))
	case int8:
		c.int(int(x))
	case uint8:
		c.int(int(x))
	case uint16:
		c.int(int(x))
	case uint32:
		c.int(int(x))
	case uint:
		c.uint(uint64(x))
	case uint64:
		c.uint(x)
	case complex64:
		c.complex(complex128(x))
	case complex128:
		c.complex(x)
	default:
		c.invalid("expected a number, got %T", v)
	}
}

func (c *call) uint(v uint64) {
	if v > math.MaxInt64 {
		c.invalid("number %d does not fit int64", v)
	}
	c.int(int(v))
}

func (c *call) optScalar(v Scalar) {
	if v == nil {
		c.none()
		return
	}
	c.scalar(v)
}

func (c *call) scalars(v []Scalar) {
	c.head(cgo.TagList, len(v))
	n := c.nargs
	for _, x := range v {
		c.scalar(x)
	}
	c.nargs = n
}

func (c *call) dtype(v DType) {
	if !v.valid() {
		c.invalid("expected a dtype, got %v", v)
	}
	c.int(int(v) - 1)
}

func (c *call) optDType(v DType) {
	if v == 0 {
		c.none()
		return
	}
	c.dtype(v)
}

func (c *call) layout(v Layout) {
	if v <= 0 {
		c.invalid("expected a layout, got none")
	}
	c.int(int(v) - 1)
}

func (c *call) optLayout(v Layout) {
	if v == 0 {
		c.none()
		return
	}
	c.layout(v)
}

func (c *call) memoryFormat(v MemoryFormat) {
	if v <= 0 {
		c.invalid("expected a memory format, got none")
	}
	c.int(int(v) - 1)
}

func (c *call) optMemoryFormat(v MemoryFormat) {
	if v == 0 {
		c.none()
		return
	}
	c.memoryFormat(v)
}

func (c *call) device(v Device) {
	if v == (Device{}) {
		v = CPU
	}
	if _, ok := deviceTypes[v.Type]; !ok {
		c.invalid("unknown device type %d", v.Type)
	}
	if v.Type == DeviceCUDA && library.CUDA == "" { // libtorch would list what it was built with
		c.fail(&Error{Op: c.op.label(), Kind: ErrNoDevice, Message: v.String() + " was asked for, but libtorch runs without cuda here"})
	}
	kind, index := v.c10(c.op.label())
	c.head(cgo.TagDevice, 0)
	c.word(uint64(kind))
	c.word(uint64(index))
}

func (c *call) optDevice(v Device) {
	if v == (Device{}) {
		c.none()
		return
	}
	c.device(v)
}

func (c *call) generator(g *Generator) {
	if g == nil {
		c.none()
		return
	}
	c.random = g
	c.head(cgo.TagGenerator, 0)
	c.word(uint64(g.handle)) // alive: run keeps c.random
}

// unscoped counts the calls in progress; beyond the number of permits, a call outside any scope
// waits for a permit like a scope does.
var unscoped atomic.Int64

// run calls the operator.
func (c *call) run() {
	permit := false
	if unscoped.Add(1) > int64(cap(permits)) {
		permit = enterBusy()
	}
	words := c.words[:c.nwords]
	if c.moreWords != nil {
		words = c.moreWords
	}
	more, err := c.enter(words)
	if err != nil {
		more, err = c.retry(words, err)
	}
	unscoped.Add(-1)
	if permit {
		<-permits
	}
	if err != nil {
		c.failed(err)
	}
	c.moreRets = more
	c.token = c.ret()
	c.nresults = int(c.ret())
	c.release()
	runtime.KeepAlive(c.random)
	runtime.KeepAlive(c.objects)
}

// enterBusy waits for a permit, unless this thread computes for a caller that has one.
func enterBusy() bool {
	state, err := cgo.State()
	must("call", err)
	if state.Scope != 0 || state.Busy {
		return false
	}
	takePermit()
	return true
}

// retry calls once more after an allocation failure, when the collector has freed what it can.
func (c *call) retry(words []uint64, err error) ([]uint64, error) {
	var e *cgo.Error
	if !errors.As(err, &e) || e.Kind != cgo.ErrOutOfMemory {
		return nil, err
	}
	pressure.relieve(true)
	if e := cgo.EmptyCache(); e != nil {
		return nil, err
	}
	return c.enter(words)
}

// openCalls counts what makes every call one that libtorch may call back from: hooks of saved tensors
// anywhere in the process (they are a thread's, but a goroutine doesn't know its thread), anomaly mode.
var openCalls atomic.Int64

// enter calls the operator. Nearly all calls can't call back, which Go makes cheaper.
func (c *call) enter(words []uint64) ([]uint64, error) {
	if openCalls.Load() != 0 || c.op.open {
		return cgo.CallOpen(c.handle, words, c.nargs, c.rets[:], site())
	}
	return cgo.Call(c.handle, words, c.nargs, c.rets[:])
}

// failed panics with the error of the call and the shapes of its tensors.
func (c *call) failed(err error) {
	e := wrap(c.op.label(), err)
	for _, t := range c.held[:c.nheld] {
		e.Shapes = append(e.Shapes, shapeOf(t.handle)) // alive: until release
	}
	for _, t := range c.moreHeld {
		if len(e.Shapes) < 16 {
			e.Shapes = append(e.Shapes, shapeOf(t.handle)) // alive: until release
		}
	}
	c.fail(e)
}

// ret reads the next word of the results.
func (c *call) ret() uint64 {
	pos := c.pos
	c.pos++
	if c.moreRets != nil {
		return c.moreRets[pos]
	}
	return c.rets[pos]
}

// unexpected is for a result that is not what the schema promised.
func (c *call) unexpected(want string, tag uint64) {
	panic(&Error{Op: c.op.label(), Kind: ErrInternal, Message: fmt.Sprintf("expected %s as result, got tag %d", want, tag&0xff)})
}

// argument is the tensor that was passed as an argument.
func (c *call) argument(arg uint64) *Tensor {
	for i, a := range c.args[:c.nheld] {
		if uint64(a) == arg {
			return c.held[i]
		}
	}
	for i, a := range c.moreArgs {
		if uint64(a) == arg {
			return c.moreHeld[i]
		}
	}
	return nil
}

func (c *call) newTensor() *Tensor {
	handle := c.ret()
	bytes := c.ret()
	return newTensor(cgo.Tensor(handle), int(bytes), c.token)
}

// retTensor is nil for an undefined tensor.
func (c *call) retTensor() *Tensor {
	switch head := c.ret(); head & 0xff {
	case cgo.TagTensor:
		return c.newTensor()
	case cgo.TagNone:
	case cgo.TagSame:
		return c.argument(c.ret())
	default:
		c.unexpected("a tensor", head)
	}
	return nil
}

func (c *call) retTensors() []*Tensor {
	head := c.ret()
	if tag := head & 0xff; tag != cgo.TagTensors && tag != cgo.TagList {
		c.unexpected("a list of tensors", head)
	}
	ts := make([]*Tensor, head>>8)
	for i := range ts {
		if head&0xff == cgo.TagList { // of optional tensors
			ts[i] = c.retTensor()
		} else {
			ts[i] = c.newTensor()
		}
	}
	return ts
}

func (c *call) retInt() int {
	if head := c.ret(); head&0xff != cgo.TagInt {
		c.unexpected("an int", head)
	}
	return int(c.ret())
}

func (c *call) retDType() DType { return DType(c.retInt() + 1) }

func (c *call) retFloat() float64 {
	if head := c.ret(); head&0xff != cgo.TagDouble {
		c.unexpected("a float", head)
	}
	return math.Float64frombits(c.ret())
}

func (c *call) retBool() bool {
	if head := c.ret(); head&0xff != cgo.TagBool {
		c.unexpected("a bool", head)
	}
	return c.ret() != 0
}

// retScalar is an int, float64, bool or complex128.
func (c *call) retScalar() Scalar {
	head := c.peek()
	switch head & 0xff {
	case cgo.TagInt, cgo.TagDouble, cgo.TagBool, cgo.TagComplex:
		return c.retAny()
	}
	c.unexpected("a number", head)
	return nil
}

func (c *call) retStr() string {
	head := c.ret()
	if head&0xff != cgo.TagString {
		c.unexpected("a str", head)
	}
	n := int(head >> 8)
	b := make([]byte, 0, n+8)
	for len(b) < n {
		w := c.ret()
		b = append(b, (*[8]byte)(unsafe.Pointer(&w))[:]...)
	}
	return string(b[:n])
}

func (c *call) retInts() []int {
	head := c.ret()
	if head&0xff != cgo.TagInts {
		c.unexpected("a list of ints", head)
	}
	v := make([]int, head>>8)
	for i := range v {
		v[i] = int(c.ret())
	}
	return v
}

func (c *call) retFloats() []float64 {
	head := c.ret()
	if head&0xff != cgo.TagDoubles {
		c.unexpected("a list of floats", head)
	}
	v := make([]float64, head>>8)
	for i := range v {
		v[i] = math.Float64frombits(c.ret())
	}
	return v
}

func (c *call) peek() uint64 {
	head := c.ret()
	c.pos--
	return head
}

// retAny is a result of any type, as [Call] returns it.
func (c *call) retAny() any {
	switch head := c.peek(); head & 0xff {
	case cgo.TagTensor, cgo.TagSame:
		return c.retTensor()
	case cgo.TagTensors:
		return c.retTensors()
	case cgo.TagInt:
		return c.retInt()
	case cgo.TagDouble:
		return c.retFloat()
	case cgo.TagBool:
		return c.retBool()
	case cgo.TagString:
		return c.retStr()
	case cgo.TagInts:
		return c.retInts()
	case cgo.TagDoubles:
		return c.retFloats()
	case cgo.TagNone:
		c.pos++
		return nil
	case cgo.TagComplex:
		c.pos++
		re := math.Float64frombits(c.ret())
		return complex(re, math.Float64frombits(c.ret()))
	case cgo.TagDevice:
		c.pos++
		kind := int(c.ret())
		return deviceFromC10(kind, int(c.ret()))
	case cgo.TagObject:
		return c.retObject()
	case cgo.TagList:
		c.pos++
		list := make([]any, head>>8)
		for i := range list {
			list[i] = c.retAny()
		}
		return list
	default:
		c.unexpected("a known type", head)
		return nil
	}
}

var called sync.Map // name -> *op

// Call runs any operator of the dispatcher by name, "aten::add.Tensor", also one that a plugin has
// registered. It takes an argument for each one of the schema: nil, bool, an int, a float, a complex
// number, string, [DType], [Layout], [MemoryFormat], [Device], [Stream], *[Generator], *[Tensor] (also for
// a Storage), *[Object], or a slice: []int, []float64, []bool, []string, []*Tensor (nil elements where the
// schema has Tensor?[]), [][]*Tensor, []*Object, [][Scalar]. It returns the results: *Tensor, []*Tensor,
// int, float64, bool, complex128, string, []int, []float64, Device, *Object, nil, or []any; of a Dict, a
// []any of its keys and values in turn.
func Call(name string, args ...any) []any {
	known, ok := called.Load(name)
	if !ok {
		base, overload, _ := strings.Cut(name, ".")
		o := &op{name: base, overload: overload, open: base == "aten::_backward"}
		o.find() // so that only real names are kept
		known, _ = called.LoadOrStore(name, o)
	}
	var c call
	c.start(known.(*op))
	for _, a := range args {
		c.any(a)
	}
	c.run()
	results := make([]any, c.nresults)
	for i := range results {
		results[i] = c.retAny()
	}
	return results
}

func (c *call) any(a any) {
	switch v := a.(type) {
	case nil:
		c.none()
	case *Tensor:
		c.optTensor(v)
	case string:
		c.str(v)
	case []int:
		c.ints(v)
	case []float64:
		c.floats(v)
	case []bool:
		c.bools(v)
	case []string:
		c.strs(v)
	case []*Tensor:
		c.optTensors(v)
	case []Scalar:
		c.scalars(v)
	case DType:
		c.dtype(v)
	case Layout:
		c.layout(v)
	case MemoryFormat:
		c.memoryFormat(v)
	case Device:
		c.device(v)
	case *Generator:
		c.generator(v)
	case *Object:
		c.object(v)
	case []*Object:
		c.objectList(v)
	case [][]*Tensor:
		c.tensorLists(v)
	case Stream:
		c.stream(v)
	default:
		c.scalar(v)
	}
}
