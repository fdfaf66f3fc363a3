package fileerr

import (
	"context"
	"errors"
	"io/fs"
)

// InFile names the file in an Error that has none.
func InFile(err error, path string) error {
	var e *Error
	if errors.As(err, &e) && e.File == "" {
		e.File = path
	}
	return err
}

// Cause drops operation and path of an error of the system, which an Error has itself.
func Cause(err error) error {
	var p *fs.PathError
	if errors.As(err, &p) {
		return p.Err
	}
	return err
}

// Writing names the file in an error of writing it. That a context ended is said as it is.
func Writing(path string, err error) error {
	if e := (*Error)(nil); err == nil || errors.As(err, &e) || errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return InFile(err, path)
	}
	return &Error{File: path, Detail: "write", Err: Cause(err)}
}
