//go:build race || asan

package torch

// instrumented builds have other memory figures.
const instrumented = true
