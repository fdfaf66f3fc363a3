package peft

import (
	"errors"

	"github.com/torchgo/torchgo/internal/fileerr"
)

// Error is what a bad adapter, config or argument gives: file, tensor, what was expected and found, and what to do
// about it. errors.Is tells its class.
type Error = fileerr.Error

// The classes of errors that adapters have beside those of the file formats.
var (
	ErrBadConfig     = fileerr.ErrBadConfig
	ErrUnsupported   = fileerr.ErrUnsupported   // a kind or variant of adapter that is not here
	ErrMissingShard  = fileerr.ErrMissingShard  // no file with weights
	ErrMissingTensor = fileerr.ErrMissingTensor // a tensor that the adapter needs, or a module that it is for
	ErrSizeMismatch  = fileerr.ErrSizeMismatch
	ErrConflict      = fileerr.ErrConflict // a tensor for a module that the config doesn't choose
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
