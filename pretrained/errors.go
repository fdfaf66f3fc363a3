package pretrained

import (
	"errors"

	"github.com/torchgo/torchgo/internal/fileerr"
)

// Error is what loading and saving return for a bad file, config or argument: file, tensor, what was
// expected and found, and what to do about it. errors.Is tells its class.
type Error = fileerr.Error

// The classes of errors that loading adds to those of the file formats.
var (
	ErrBadConfig       = fileerr.ErrBadConfig
	ErrMissingShard    = fileerr.ErrMissingShard
	ErrMissingTensor   = fileerr.ErrMissingTensor
	ErrConflict        = fileerr.ErrConflict
	ErrPath            = fileerr.ErrPath
	ErrNotRegular      = fileerr.ErrNotRegular
	ErrSizeMismatch    = fileerr.ErrSizeMismatch
	ErrBadDType        = fileerr.ErrBadDType
	ErrLimit           = fileerr.ErrLimit
	ErrTruncated       = fileerr.ErrTruncated
	ErrUnsupported     = fileerr.ErrUnsupported
	ErrForbiddenGlobal = fileerr.ErrForbiddenGlobal // a pickle names a class or function that is not on the list
	ErrUnexpected      = fileerr.ErrUnexpected
	ErrArgument        = fileerr.ErrArgument
)

func configError(key, expected, actual string) *Error {
	return &Error{Class: ErrBadConfig, Detail: key, Expected: expected, Actual: actual}
}

// inFile fills in the file of an Error that does not name one yet.
func inFile(err error, file string) error {
	var e *Error
	if errors.As(err, &e) && e.File == "" {
		e.File = file
	}
	return err
}
