//go:build !race && !asan

package torch

const instrumented = false
