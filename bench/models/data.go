package models

import (
	"fmt"

	"github.com/torchgo/torchgo/torch"
)

// Labelled is a batch of noise from [-1, 1) in which every element whose index, or indices' sum, is the
// label's modulo the number of classes is one higher. shape begins with B; x is float64 of that shape, y is
// int64 (B).
func Labelled(step, classes int, shape ...int) (x, y *torch.Tensor) {
	labels := integers(fmt.Sprintf("labels.%d", step), classes, shape[0])
	x = uniform(fmt.Sprintf("inputs.%d", step), 0, 1, shape...)
	values, inner := torch.Data[float64](x), numel(shape[1:])
	for i := range values {
		if sumOfIndices(i%inner, shape[1:])%classes == int(labels[i/inner]) {
			values[i]++
		}
	}
	return x, torch.FromSlice(labels)
}

func sumOfIndices(at int, shape []int) (sum int) {
	for i := len(shape) - 1; i >= 0; i-- {
		sum += at % shape[i]
		at /= shape[i]
	}
	return sum
}

// Sequences is a batch that counts up, each row in steps of its own, modulo the vocabulary: tokens and
// those that follow, int64 (B, T) each.
func Sequences(step, vocabulary, batch, length int) (tokens, next *torch.Tensor) {
	start := integers(fmt.Sprintf("start.%d", step), vocabulary, batch)
	width := integers(fmt.Sprintf("width.%d", step), 7, batch)
	x, y := make([]int64, 0, batch*length), make([]int64, 0, batch*length)
	for b := range batch {
		for t := range int64(length) {
			token := start[b] + t*(width[b]+1)
			x = append(x, token%int64(vocabulary))
			y = append(y, (token+width[b]+1)%int64(vocabulary))
		}
	}
	return torch.FromSlice(x, batch, length), torch.FromSlice(y, batch, length)
}
