// Package data feeds training: datasets, and a [Loader] that makes batches of them.
//
//	loader := data.NewLoader(data.Tensors{X: images, Y: labels}, data.LoaderOptions{BatchSize: 32, Shuffle: true})
//	for batch, err := range loader.Batches(ctx) {
//		if err != nil { return err }
//		torch.Scope(func() { step(batch.X, batch.Y) })
//	}
//
// In documentation N is the number of samples and B that of a batch.
package data

import (
	"context"
	"fmt"

	"github.com/torchgo/torchgo/torch"
)

// Dataset is a collection of Len samples that makes batches of type T: a tensor, or a struct of them.
type Dataset[T any] interface {
	Len() int
	// Batch makes the batch of the samples with these indices. It may be called from several goroutines,
	// each time in a [torch.Scope]: what it returns survives, what it needed meanwhile is freed.
	Batch(ctx context.Context, indices []int) (T, error)
}

// Batch is a batch of inputs and their targets.
type Batch struct {
	X *torch.Tensor // (B, …)
	Y *torch.Tensor // (B, …); nil where the dataset has no targets
}

// Tensors is a dataset that lies in memory: sample i is X[i], Y[i] (TensorDataset in PyTorch).
type Tensors struct {
	X *torch.Tensor // (N, …)
	Y *torch.Tensor // (N, …); nil: no targets
}

// Len implements Dataset.
func (d Tensors) Len() int { return d.X.Size(0) }

// Batch implements Dataset. It is an error if X and Y differ in length.
func (d Tensors) Batch(_ context.Context, indices []int) (b Batch, err error) {
	if d.Y != nil && d.Y.Size(0) != d.X.Size(0) {
		return b, fmt.Errorf("data: X has %d samples, Y has %d", d.X.Size(0), d.Y.Size(0))
	}
	at := make([]int64, len(indices))
	for i, index := range indices {
		at[i] = int64(index)
	}
	index := torch.FromSlice(at).To(d.X.Device())
	b.X = d.X.IndexSelect(0, index)
	if d.Y != nil {
		b.Y = d.Y.IndexSelect(0, index.To(d.Y.Device()))
	}
	return b, nil
}

// Func is a dataset of a function.
func Func[T any](n int, batch func(ctx context.Context, indices []int) (T, error)) Dataset[T] {
	return function[T]{n, batch}
}

type function[T any] struct {
	n     int
	batch func(ctx context.Context, indices []int) (T, error)
}

func (f function[T]) Len() int { return f.n }

func (f function[T]) Batch(ctx context.Context, indices []int) (T, error) {
	return f.batch(ctx, indices)
}
