package main

import (
	"strings"

	"github.com/torchgo/torchgo/cgo"
	"github.com/torchgo/torchgo/internal/libtorch"
)

// dispatcherSchemas asks the libtorch that is set up, without its CUDA library, which adds operators.
func dispatcherSchemas() (string, []string, error) {
	install, err := libtorch.Find(cgo.ShimHash())
	if err != nil {
		return "", nil, err
	}
	if err := cgo.Load(cgo.Library{Shim: install.Lib}); err != nil {
		return "", nil, err
	}
	text, err := cgo.OpList()
	if err != nil {
		return "", nil, err
	}
	return cgo.Version(), strings.Split(strings.TrimSpace(text), "\n"), nil
}
