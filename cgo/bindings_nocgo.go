//go:build !cgo

package cgo

import (
	"errors"
	"unsafe"
)

// Without cgo there is no libtorch: every function reports that.
var errNoCgo = errors.New("built without cgo: libtorch can't be used (build with CGO_ENABLED=1 and a C compiler)")

func ShowConfig() (string, error) { return "", errNoCgo }

// Hook is what a hook of autograd runs.
var Hook func(id uint64, grad Tensor) (Tensor, error)
