// Package cgo is the boundary to libtorch: the one package that says import "C".
//
// libtorch is a C++ library. The shim (folder shim) gives it a small face in plain C, torchgo.h,
// and is compiled once, by `torchgo setup`. This package opens the shim at run time, so a Go
// program needs neither libtorch nor compiler flags to build, and one binary serves machines with
// and without a GPU. Handles are plain addresses here; package torch gives them owners.
//
// Built with CGO_ENABLED=0 the package has the same functions, and [Load] says that cgo is missing.
package cgo
