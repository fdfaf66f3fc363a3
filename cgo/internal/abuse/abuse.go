//go:build cgo

package abuse

/*
#cgo linux LDFLAGS: -ldl
#include "abuse.h"
*/
import "C"

import (
	"errors"
	"unsafe"
)

// Functions are the names of the functions that [Run] calls.
func Functions() []string {
	var names []string
	for i := range C.abuse_case_count {
		names = append(names, C.GoString(C.abuse_name(i)))
	}
	return names
}

// Run opens the shim and calls each function with at most limit combinations of arguments. It
// returns the number of calls, and an error that names what did not hold.
func Run(shim string, limit int) (calls int, err error) {
	path := C.CString(shim)
	defer C.free(unsafe.Pointer(path))
	calls = int(C.abuse_run(path, C.int64_t(limit)))
	if calls < 0 {
		return 0, errors.New("abuse: can't open " + shim)
	}
	if text := C.GoString(C.abuse_failures()); text != "" {
		return calls, errors.New(text)
	}
	return calls, nil
}
