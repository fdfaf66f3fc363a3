// Package models has the models that torchgo and PyTorch are compared on: loss by loss by its test,
// second by second by bench. Beside each file is its twin in Python. Weights and data are drawn by both
// sides, so nothing is stored.
//
// In comments B is batch, T sequence length, C hidden size, V vocabulary.
package models

import (
	"math"
	"strings"

	"github.com/torchgo/torchgo/torch"
	"github.com/torchgo/torchgo/torch/nn"
)

// words are those of SplitMix64 from the FNV-1a hash of the name.
func words(name string) func() uint64 {
	state := uint64(0xCBF29CE484222325)
	for _, b := range []byte(name) {
		state = (state ^ uint64(b)) * 0x100000001B3
	}
	return func() uint64 {
		state += 0x9E3779B97F4A7C15
		z := (state ^ state>>30) * 0xBF58476D1CE4E5B9
		z = (z ^ z>>27) * 0x94D049BB133111EB
		return z ^ z>>31
	}
}

func numel(shape []int) int {
	n := 1
	for _, s := range shape {
		n *= s
	}
	return n
}

// uniform gives float64 from base ± scale.
func uniform(name string, base, scale float64, shape ...int) *torch.Tensor {
	values, next := make([]float64, numel(shape)), words(name)
	for i := range values {
		u := float64(next()>>40)*0x1p-23 - 1 // exact in float32, too
		values[i] = base + u*scale
	}
	return torch.FromSlice(values, shape...)
}

// integers gives int64 from [0, high).
func integers(name string, high, n int) []int64 {
	values, next := make([]int64, n), words(name)
	for i := range values {
		values[i] = int64(next() >> 33 % uint64(high))
	}
	return values
}

// Fill gives a module its initial weights: matrices from ±√(1/fan in), convolutions from ±√(6/fan in),
// norms' weights from 1 ± 0.1, all else from ±0.1.
func Fill(module any) {
	for name, p := range nn.NamedParameters(module) {
		base, scale, shape := 0.0, 0.1, p.Shape()
		switch {
		case len(shape) == 2:
			scale = math.Sqrt(1 / float64(shape[1]))
		case len(shape) > 2:
			scale = math.Sqrt(6 / float64(numel(shape[1:])))
		case strings.HasSuffix(name, "weight"):
			base = 1
		}
		torch.Scope(func() {
			torch.NoGrad(func() { p.Copy_(uniform(name, base, scale, shape...)) })
		})
	}
}
