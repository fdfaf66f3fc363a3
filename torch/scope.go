package torch

import (
	"reflect"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/torchgo/torchgo/cgo"
	"github.com/torchgo/torchgo/internal/xlog"
)

// scope owns the tensors made in it.
type scope struct {
	tensors []*Tensor // nil where one has left
	parent  *scope    // the next one out; nil: none
	made    int64     // tensors made in it, which live counts when it ends
	batch   []uint64  // room for end
}

func (s *scope) add(t *Tensor) {
	t.scope, t.index = s, len(s.tensors)
	s.tensors = append(s.tensors, t)
}

var scopePool = sync.Pool{New: func() any { return new(scope) }}

// end frees what is left, in one call.
func (s *scope) end() {
	batch := s.batch[:0]
	for _, t := range s.tensors {
		if t == nil {
			continue
		}
		t.scope = nil
		if t.shut() {
			batch = append(batch, uint64(t.handle)) // alive: s.tensors has it
		}
	}
	live.Add(s.made - int64(len(batch)))
	must("scope", cgo.TensorsFree(batch))
	clear(s.tensors)
	s.tensors, s.batch, s.made, s.parent = s.tensors[:0], batch, 0, nil
	if cap(s.tensors) <= 1<<16 {
		scopePool.Put(s)
	}
}

// thread is the Go half of a pinned thread's state; its number is the scope token that the shim
// keeps for the thread and returns with each call. Only the goroutine on that thread touches it.
type thread struct {
	token  uint64
	scopes *scope // innermost
}

var threads = struct {
	table atomic.Pointer[[]*thread] // by token
	mutex sync.Mutex
	free  []*thread
}{}

func init() { threads.table.Store(&[]*thread{nil}) } // token 0 is "none"

func newThread() *thread {
	threads.mutex.Lock()
	defer threads.mutex.Unlock()
	if n := len(threads.free); n > 0 {
		th := threads.free[n-1]
		threads.free = threads.free[:n-1]
		return th
	}
	old := *threads.table.Load()
	th := &thread{token: uint64(len(old))}
	table := append(append(make([]*thread, 0, len(old)+1), old...), th)
	threads.table.Store(&table)
	return th
}

func (th *thread) put() {
	threads.mutex.Lock()
	threads.free = append(threads.free, th)
	threads.mutex.Unlock()
}

func threadOf(token uint64) *thread { return (*threads.table.Load())[token] }

// scopeOf is the innermost scope of a thread; nil if it has only modes.
func scopeOf(token uint64) *scope { return threadOf(token).scopes }

// permits bound how many goroutines compute at a time. More would only add threads: each blocked
// call of C needs one, and libgomp keeps a pool for each.
var permits = make(chan struct{}, max(2, runtime.GOMAXPROCS(0)))

// patience is how long a wait for a permit may last before it is worth a word.
var patience = 30 * time.Second

var warned atomic.Bool

// takePermit waits for a permit. One that does not come is most often one scope waiting for another,
// which nothing else would tell.
func takePermit() {
	select {
	case permits <- struct{}{}:
		return
	default:
	}
	late := time.NewTimer(patience)
	defer late.Stop()
	select {
	case permits <- struct{}{}:
		return
	case <-late.C:
	}
	if warned.CompareAndSwap(false, true) {
		xlog.Logger().Warn("torch: no scope has ended for long; does code in one wait for a goroutine that enters a scope?",
			"seconds", patience.Seconds(), "scopes", cap(permits))
	}
	permits <- struct{}{}
}

// within runs fn on a pinned thread with a mode set and, if opens, a new scope, which it returns
// through leave before the scope ends.
func within(mode int, opens bool, fn func(), leave func(s *scope)) {
	guarded(func(token uint64) (cgo.Guard, error) { return cgo.GuardEnter(token, mode) }, opens, fn, leave)
}

// guarded is [within] with anything that enter sets in the thread, whose scope token it gets.
func guarded(enter func(token uint64) (cgo.Guard, error), opens bool, fn func(), leave func(s *scope)) {
	load("scope")
	state, err := cgo.State()
	must("scope", err)
	if state.Scope == 0 {
		defer drainReleased() // the callers' functions run without a permit
	}
	// Outermost here, and not in a callback whose caller computes already.
	if state.Scope == 0 && !state.Busy {
		takePermit()
		defer func() { <-permits }()
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var th *thread
	var token uint64
	if state.Scope == 0 {
		th = newThread()
		token = th.token
		defer th.put()
	} else {
		th = threadOf(state.Scope)
	}
	guard, err := enter(token)
	must("scope", err)
	defer func() { must("scope", cgo.GuardLeave(guard)) }()
	if !opens {
		fn()
		return
	}
	s := scopePool.Get().(*scope)
	s.parent, th.scopes = th.scopes, s
	defer func() {
		th.scopes = s.parent
		s.end()
	}()
	fn()
	if leave != nil {
		leave(s)
	}
}

// Scope runs fn and frees every tensor made in it, except what [Keep] names. Scopes nest. The
// goroutine stays on its thread meanwhile; code inside must not wait for another goroutine that
// itself enters a scope, because the number of scopes that run at a time is bounded.
func Scope(fn func()) { within(cgo.ModeKeep, true, fn, nil) }

// ScopeOf is [Scope] for a function with a result: the tensors in it survive, in the scope around
// this one if there is one. Tensors are found in pointers, slices, arrays, maps, structs' exported
// fields and interfaces.
func ScopeOf[T any](fn func() T) T { return scoped(cgo.ModeKeep, fn) }

// Inference runs fn in inference mode (no autograd bookkeeping at all; its tensors can't take part
// in autograd later) and in a [Scope].
func Inference(fn func()) { within(cgo.ModeInference, true, fn, nil) }

// InferenceOf is [Inference] for a function with a result; see [ScopeOf].
func InferenceOf[T any](fn func() T) T { return scoped(cgo.ModeInference, fn) }

func scoped[T any](mode int, fn func() T) (result T) {
	within(mode, true, func() { result = fn() }, func(s *scope) {
		if t, ok := any(result).(*Tensor); ok {
			t.leave(s)
			return
		}
		eachTensor(reflect.ValueOf(&result).Elem(), map[visit]bool{}, func(t *Tensor) { t.leave(s) })
	})
	return result
}

// NoGrad runs fn with autograd off. It frees nothing.
func NoGrad(fn func()) { within(cgo.ModeNoGrad, false, fn, nil) }

// EnableGrad runs fn with autograd on, inside [NoGrad].
func EnableGrad(fn func()) { within(cgo.ModeGrad, false, fn, nil) }

// inMode runs fn on a pinned thread with what enter sets.
func inMode(op string, enter func() (cgo.Guard, error), fn func()) {
	within(cgo.ModeKeep, false, func() {
		guard, err := enter()
		must(op, err)
		defer func() { must(op, cgo.GuardLeave(guard)) }()
		fn()
	}, nil)
}

// Go starts fn in a goroutine with the modes of this one: grad and inference mode, autocast, hooks of saved
// tensors, the current device and streams. A mode needs one of the permits that bound how many scopes run at a time (see
// [Scope]), so wait for fn only outside scopes and modes: callers that wait inside can take all permits and
// wait for each other.
func Go(fn func()) {
	const op = "go"
	load(op)
	modes, err := cgo.ModesCapture()
	must(op, err)
	if modes == 0 { // the default ones
		go fn()
		return
	}
	hooked := openCalls.Load() != 0 // hooks of saved tensors are among the modes
	if hooked {
		openCalls.Add(1)
	}
	go func() {
		if hooked {
			defer openCalls.Add(-1)
		}
		defer func() { must(op, cgo.ModesFree(modes)) }()
		inMode(op, func() (cgo.Guard, error) { return cgo.ModesEnter(modes) }, fn)
	}()
}

// GradEnabled tells whether autograd records operators here.
func GradEnabled() bool {
	load("is_grad_enabled")
	state, err := cgo.State()
	must("is_grad_enabled", err)
	return state.Grad
}

// InferenceEnabled tells whether this is inside [Inference].
func InferenceEnabled() bool {
	load("is_inference_mode_enabled")
	state, err := cgo.State()
	must("is_inference_mode_enabled", err)
	return state.Inference
}

// Keep takes tensors out of their scopes: from now on they live until they are closed or the
// collector finds them unreachable. It is for what outlives a scope: parameters, caches. It is
// called in the goroutine that made them.
func Keep(tensors ...*Tensor) {
	for _, t := range tensors {
		if t == nil || t.scope == nil {
			continue
		}
		if !t.use() { // so that a Close meanwhile waits
			panic(closedError("keep"))
		}
		t.scope.tensors[t.index] = nil
		t.scope = nil
		t.catch()
		t.unuse()
	}
}

// leave moves t from s to the scope around it.
func (t *Tensor) leave(s *scope) {
	switch {
	case t == nil || t.scope != s || t.Closed():
	case s.parent == nil:
		Keep(t)
	default:
		s.tensors[t.index] = nil
		s.parent.add(t)
	}
}

// CloseAll closes the tensors in v, found as [ScopeOf] finds them.
func CloseAll(v any) {
	if v != nil {
		eachTensor(reflect.ValueOf(v), map[visit]bool{}, (*Tensor).Close)
	}
}

var tensorType = reflect.TypeFor[*Tensor]()

// visit is a place that eachTensor has been to: a struct and its first field have one address, so
// the type counts.
type visit struct {
	kind    reflect.Type
	address uintptr
	n       int
}

// eachTensor finds the tensors in a value.
func eachTensor(v reflect.Value, seen map[visit]bool, fn func(*Tensor)) {
	been := func(n int) bool {
		at := visit{v.Type(), v.Pointer(), n}
		if seen[at] {
			return true
		}
		seen[at] = true
		return false
	}
	switch v.Kind() {
	case reflect.Pointer:
		if v.IsNil() {
			return
		}
		if v.Type() == tensorType {
			if v.CanInterface() {
				fn(v.Interface().(*Tensor))
			}
			return
		}
		if mayHoldTensors(v.Type().Elem()) && !been(0) {
			eachTensor(v.Elem(), seen, fn)
		}
	case reflect.Interface:
		if !v.IsNil() {
			eachTensor(v.Elem(), seen, fn)
		}
	case reflect.Slice, reflect.Array:
		if !mayHoldTensors(v.Type().Elem()) || v.Kind() == reflect.Slice && been(v.Len()) {
			return
		}
		for i := range v.Len() {
			eachTensor(v.Index(i), seen, fn)
		}
	case reflect.Map:
		if been(0) {
			return
		}
		for it := v.MapRange(); it.Next(); {
			eachTensor(it.Key(), seen, fn)
			eachTensor(it.Value(), seen, fn)
		}
	case reflect.Struct:
		for i := range v.NumField() {
			// An embedded struct's exported fields are the outer one's, whatever its own name.
			if f := v.Type().Field(i); f.IsExported() || f.Anonymous {
				eachTensor(v.Field(i), seen, fn)
			}
		}
	}
}

func mayHoldTensors(t reflect.Type) bool {
	switch t.Kind() {
	case reflect.Pointer, reflect.Interface, reflect.Slice, reflect.Array, reflect.Map, reflect.Struct:
		return true
	}
	return false
}
