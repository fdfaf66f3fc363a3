package torch

import (
	"errors"
	"fmt"
	"strings"

	"github.com/torchgo/torchgo/cgo"
)

// Error is what tensor math panics with.
type Error struct {
	Op        string // operator, "add"; empty where there is none
	Kind      error  // one of the Err… values
	Message   string // libtorch's first line, without the C++ backtrace
	Shapes    []Shape
	cause     error // what a hook in Go failed with
	backtrace string
}

// Shape is the shape of an argument; nil for an undefined tensor.
type Shape []int

// String prints as Python prints a tuple.
func (s Shape) String() string {
	if s == nil {
		return "undefined"
	}
	parts := make([]string, len(s))
	for i, n := range s {
		parts[i] = fmt.Sprint(n)
	}
	if len(s) == 1 {
		return "(" + parts[0] + ",)"
	}
	return "(" + strings.Join(parts, ", ") + ")"
}

// Kinds of errors, for errors.Is.
var (
	ErrArgument       = errors.New("invalid argument")
	ErrRuntime        = errors.New("runtime error")
	ErrIndex          = errors.New("index error")
	ErrValue          = errors.New("value error")
	ErrType           = errors.New("type error")
	ErrNotImplemented = errors.New("not implemented for this dtype or device")
	ErrOutOfMemory    = errors.New("out of memory")
	ErrLinAlg         = errors.New("linear algebra error")
	ErrNoOperator     = errors.New("no such operator in this libtorch")
	ErrSchema         = errors.New("operator has another schema in this libtorch")
	ErrInternal       = errors.New("internal error")
	ErrCallback       = errors.New("a hook failed")
	ErrNotLoaded      = errors.New("libtorch is not loaded")
	ErrNoDevice       = errors.New("no such device")
	ErrClosed         = errors.New("tensor is closed")
)

var kinds = map[cgo.Kind]error{
	cgo.ErrArgument: ErrArgument, cgo.ErrRuntime: ErrRuntime, cgo.ErrIndex: ErrIndex, cgo.ErrValue: ErrValue,
	cgo.ErrType: ErrType, cgo.ErrNotImplemented: ErrNotImplemented, cgo.ErrOutOfMemory: ErrOutOfMemory,
	cgo.ErrLinAlg: ErrLinAlg, cgo.ErrNoOperator: ErrNoOperator, cgo.ErrSchema: ErrSchema,
	cgo.ErrSystem: ErrRuntime, cgo.ErrUnknown: ErrInternal, cgo.ErrCallback: ErrCallback,
	cgo.ErrNotLoaded: ErrNotLoaded, cgo.ErrNoDevice: ErrNoDevice,
}

// Error is one line: the operator, what is wrong, the shapes of its tensors.
func (e *Error) Error() string {
	var b strings.Builder
	if e.Op != "" {
		b.WriteString(e.Op + ": ")
	}
	message, _, _ := strings.Cut(strings.TrimSpace(e.Message), "\n")
	if message == "" && e.Kind != nil {
		message = e.Kind.Error()
	}
	b.WriteString(message)
	if len(e.Shapes) > 0 {
		parts := make([]string, len(e.Shapes))
		for i, s := range e.Shapes {
			parts[i] = s.String()
		}
		b.WriteString(": " + strings.Join(parts, " x "))
	}
	return b.String()
}

// Backtrace is the C++ stack at the error, for the log, or Go's stack at the panic of a hook; often empty.
func (e *Error) Backtrace() string { return e.backtrace }

// Unwrap gives the kind and, for [ErrCallback], the error that the hook failed with.
func (e *Error) Unwrap() []error {
	if e.cause == nil {
		return []error{e.Kind}
	}
	return []error{e.Kind, e.cause}
}

// wrap makes an *Error of what the boundary reports.
func wrap(op string, err error) *Error {
	var c *cgo.Error
	if !errors.As(err, &c) {
		return &Error{Op: op, Kind: ErrNotLoaded, Message: err.Error()}
	}
	kind := kinds[c.Kind]
	if kind == nil {
		kind = ErrInternal
	}
	e := &Error{Op: op, Kind: kind, Message: c.Message, backtrace: c.Backtrace}
	if f := takeFailure(c.Cause); f != nil {
		e.cause = f.err
		if e.backtrace == "" {
			e.backtrace = f.stack
		}
	}
	return e
}

// must panics with an *Error if err is not nil.
func must(op string, err error) {
	if err != nil {
		panic(wrap(op, err))
	}
}

// invalid panics with an *Error about an argument.
func invalid(op, format string, args ...any) {
	panic(&Error{Op: op, Kind: ErrArgument, Message: fmt.Sprintf(format, args...)})
}

// Try runs fn and returns the *[Error] that its tensor math panicked with. Other panics pass.
func Try[T any](fn func() T) (result T, err error) {
	defer catch(&err)
	return fn(), nil
}

// TryDo is [Try] for a function without a result.
func TryDo(fn func()) (err error) {
	defer catch(&err)
	fn()
	return nil
}

func catch(err *error) {
	switch p := recover().(type) {
	case nil:
	case *Error:
		*err = p
	default:
		panic(p)
	}
}
