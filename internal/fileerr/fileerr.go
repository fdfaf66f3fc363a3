// Package fileerr has the error that every reader of model files returns, and its classes. The reading
// packages export those that they use under their own name, so errors.Is works across formats.
package fileerr

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"unicode"
)

// The classes: what can be wrong with a file.
var (
	ErrTruncated          = errors.New("file is truncated")
	ErrBadMagic           = errors.New("not a file of this format")
	ErrUnsupportedVersion = errors.New("format version is not supported")
	ErrHeaderLimit        = errors.New("header is over the size limit")
	ErrBadHeader          = errors.New("bad header")
	ErrBadDType           = errors.New("bad dtype")
	ErrBadShape           = errors.New("bad shape")
	ErrBadOffset          = errors.New("bad offset")
	ErrSizeMismatch       = errors.New("size mismatch")
	ErrDuplicate          = errors.New("duplicate name")
	ErrChecksum           = errors.New("checksum mismatch")
	ErrBadZip             = errors.New("bad zip structure")
	ErrLimit              = errors.New("resource limit exceeded")
	ErrBadPickle          = errors.New("bad pickle")
	ErrForbiddenOp        = errors.New("forbidden pickle opcode")
	ErrForbiddenGlobal    = errors.New("forbidden pickle global")
	ErrBadArgs            = errors.New("bad arguments in pickle")
	ErrBadStorage         = errors.New("bad tensor storage")
	ErrBounds             = errors.New("tensor reaches outside its storage")
	ErrPath               = errors.New("unsafe file name")
	ErrMissingShard       = errors.New("weights file is missing")
	ErrMissingTensor      = errors.New("tensor is missing")
	ErrBadIndex           = errors.New("bad index")
	ErrConflict           = errors.New("sources disagree about a tensor")
	ErrNotRegular         = errors.New("not a regular file")
	ErrBadConfig          = errors.New("bad config")
	ErrUnsupported        = errors.New("not supported")
	ErrBadValue           = errors.New("bad value")
	ErrChanged            = errors.New("file changed while in use")
)

// What isn't the file's fault: the caller's arguments, and names that a model does not have.
var (
	ErrArgument   = errors.New("bad argument")
	ErrUnexpected = errors.New("unexpected tensor")
)

// Error says what is wrong with a file, where, and what helps. Fields that don't apply are empty.
type Error struct {
	Class    error  // one of the sentinels
	File     string // as the caller named it
	Tensor   string
	Offset   int64 // in the file, in bytes; 0 where it says nothing
	Detail   string
	Expected string
	Actual   string
	Remedy   string // what to do about it
	Err      error  // the cause, if another package reported it
}

// Error is one line: file: class: tensor: detail: expected, got (at byte): cause; remedy.
func (e *Error) Error() string {
	var b strings.Builder
	part := func(s string) {
		if s == "" {
			return
		}
		if b.Len() > 0 {
			b.WriteString(": ")
		}
		b.WriteString(s)
	}
	part(Plain(e.File))
	if e.Class != nil {
		part(e.Class.Error())
	}
	if e.Tensor != "" {
		part("tensor " + strconv.Quote(clip(e.Tensor)))
	}
	part(e.Detail)
	if e.Expected != "" {
		part("expected " + e.Expected)
	}
	if e.Actual != "" {
		if e.Expected != "" {
			b.WriteString(", got " + e.Actual)
		} else {
			part("got " + e.Actual)
		}
	}
	if e.Offset != 0 {
		fmt.Fprintf(&b, " (at byte %d)", e.Offset)
	}
	if e.Err != nil {
		part(Plain(e.Err.Error()))
	}
	if e.Remedy != "" {
		b.WriteString("; " + e.Remedy)
	}
	return b.String()
}

// Unwrap gives errors.Is the class and the cause.
func (e *Error) Unwrap() []error {
	var list []error
	if e.Class != nil {
		list = append(list, e.Class)
	}
	if e.Err != nil {
		list = append(list, e.Err)
	}
	return list
}

// Plain is s, quoted if it would not print as one plain line.
func Plain(s string) string {
	for _, r := range s {
		if !unicode.IsPrint(r) {
			return strconv.Quote(s)
		}
	}
	return s
}

// clip keeps a name from a hostile file from filling the screen.
func clip(s string) string {
	if len(s) > 200 {
		return s[:200] + "…"
	}
	return s
}

var classes = map[string]error{
	"truncated": ErrTruncated, "bad_magic": ErrBadMagic, "unsupported_version": ErrUnsupportedVersion,
	"header_limit": ErrHeaderLimit, "bad_header": ErrBadHeader, "bad_dtype": ErrBadDType, "bad_shape": ErrBadShape,
	"bad_offset": ErrBadOffset, "size_mismatch": ErrSizeMismatch, "duplicate": ErrDuplicate, "checksum": ErrChecksum,
	"bad_zip": ErrBadZip, "limit": ErrLimit, "bad_pickle": ErrBadPickle, "forbidden_op": ErrForbiddenOp,
	"forbidden_global": ErrForbiddenGlobal, "bad_args": ErrBadArgs, "bad_storage": ErrBadStorage, "bounds": ErrBounds,
	"path": ErrPath, "missing_shard": ErrMissingShard, "missing_tensor": ErrMissingTensor, "bad_index": ErrBadIndex,
	"conflict": ErrConflict, "not_regular": ErrNotRegular, "bad_config": ErrBadConfig, "unsupported": ErrUnsupported,
	"bad_value": ErrBadValue,
}

// Class is the sentinel of a class by its name in the hostile corpus ("bad_header"); nil if there is none.
func Class(name string) error { return classes[name] }

// ClassNames are the names that Class knows, sorted.
func ClassNames() []string { return slices.Sorted(maps.Keys(classes)) }
