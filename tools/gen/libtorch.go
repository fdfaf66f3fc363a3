package main

import (
	"strings"

	"github.com/torchgo/torchgo/cgo"
)

// dispatcherSchemas asks the libtorch that is set up.
func dispatcherSchemas() (string, []string, error) {
	text, err := cgo.OpList()
	if err != nil {
		return "", nil, err
	}
	return cgo.Version(), strings.Split(strings.TrimSpace(text), "\n"), nil
}
