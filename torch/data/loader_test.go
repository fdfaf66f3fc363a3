package data_test

import (
	"context"
	"errors"
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/torchgo/torchgo/torch"
	"github.com/torchgo/torchgo/torch/data"
)

// numbers is a dataset whose sample i is (i, 10i).
func numbers(t *testing.T, n int) data.Tensors {
	x := torch.Arange(n, torch.TensorOptions{DType: torch.Int64})
	y := x.MulScalar(10)
	t.Cleanup(func() { x.Close(); y.Close() })
	return data.Tensors{X: x, Y: y}
}

// epoch is what a loader yields, each batch as the values of X.
func epoch(t *testing.T, l *data.Loader[data.Batch]) (batches [][]int64) {
	for b, err := range l.Batches(t.Context()) {
		require.NoError(t, err)
		x := torch.ToSlice[int64](b.X)
		for i, y := range torch.ToSlice[int64](b.Y) {
			require.Equal(t, 10*x[i], y)
		}
		batches = append(batches, x)
	}
	return batches
}

func TestBatches(t *testing.T) {
	ds := numbers(t, 5)
	for _, prefetch := range []int{0, 1, 3} {
		l := data.NewLoader(ds, data.LoaderOptions{BatchSize: 2, Prefetch: prefetch})
		require.Equal(t, 3, l.Len())
		for range 2 {
			require.Equal(t, [][]int64{{0, 1}, {2, 3}, {4}}, epoch(t, l))
		}
		l = data.NewLoader(ds, data.LoaderOptions{BatchSize: 2, DropLast: true, Prefetch: prefetch})
		require.Equal(t, 2, l.Len())
		require.Equal(t, [][]int64{{0, 1}, {2, 3}}, epoch(t, l))
	}
	require.Len(t, epoch(t, data.NewLoader(ds)), 5)
	require.Empty(t, epoch(t, data.NewLoader(numbers(t, 0))))
}

// The orders of three epochs of DataLoader(range(10), batch_size=4, shuffle=True,
// generator=torch.Generator().manual_seed(7)) in Python.
func TestShuffleIsPythons(t *testing.T) {
	l := data.NewLoader(numbers(t, 10), data.LoaderOptions{BatchSize: 4, Shuffle: true, Seed: 7})
	for _, want := range [][][]int64{
		{{1, 3, 5, 7}, {9, 4, 6, 2}, {8, 0}},
		{{5, 1, 6, 0}, {9, 7, 8, 4}, {3, 2}},
		{{4, 3, 2, 8}, {1, 0, 6, 5}, {9, 7}},
	} {
		require.Equal(t, want, epoch(t, l))
	}
}

// A batch lives until the next is taken, however the loop ends.
func TestBatchesAreFreed(t *testing.T) {
	ds := numbers(t, 12)
	for _, prefetch := range []int{0, 1, 4} {
		l := data.NewLoader(ds, data.LoaderOptions{BatchSize: 2, Prefetch: prefetch})
		before := torch.LiveTensors()
		var last data.Batch
		n := 0
		for b := range l.Batches(t.Context()) {
			if last.X != nil {
				require.True(t, last.X.Closed())
				require.True(t, last.Y.Closed())
			}
			require.False(t, b.X.Closed())
			last = b
			if n++; n == 3 {
				break
			}
		}
		require.True(t, last.X.Closed())
		require.Equal(t, before, torch.LiveTensors(), "prefetch %d", prefetch)

		require.Panics(t, func() {
			for range l.Batches(t.Context()) {
				panic("in the loop body")
			}
		})
		require.Equal(t, before, torch.LiveTensors(), "prefetch %d", prefetch)
	}
}

// The loop body runs in no scope: what it makes is not freed behind its back.
func TestBodyIsInNoScope(t *testing.T) {
	var made []*torch.Tensor
	for b := range data.NewLoader(numbers(t, 3)).Batches(t.Context()) {
		made = append(made, b.X.AddScalar(1))
	}
	for i, m := range made {
		require.Equal(t, int64(i+1), torch.Item[int64](m))
		m.Close()
	}
}

func TestErrorsEndTheEpoch(t *testing.T) {
	broken := errors.New("broken file")
	for _, prefetch := range []int{0, 2} {
		before := torch.LiveTensors()
		run := func(ctx context.Context, batch func(context.Context, []int) (*torch.Tensor, error)) (n int, err error) {
			for b, e := range data.NewLoader(data.Func(6, batch), data.LoaderOptions{Prefetch: prefetch}).Batches(ctx) {
				n++
				if err = e; e == nil {
					require.Equal(t, 1, b.Numel())
				}
			}
			return n, err
		}
		n, err := run(t.Context(), func(_ context.Context, at []int) (*torch.Tensor, error) {
			if at[0] == 2 {
				return torch.Zeros([]int{9}), broken // freed, too
			}
			return torch.FromSlice([]int64{int64(at[0])}), nil
		})
		require.ErrorIs(t, err, broken)
		require.Equal(t, 3, n)

		n, err = run(t.Context(), func(context.Context, []int) (*torch.Tensor, error) {
			return torch.Zeros([]int{2}).Add(torch.Zeros([]int{3})), nil
		})
		var e *torch.Error
		require.ErrorAs(t, err, &e)
		require.Equal(t, 1, n)

		ctx, cancel := context.WithCancel(t.Context())
		n, err = run(ctx, func(ctx context.Context, at []int) (*torch.Tensor, error) {
			if at[0] == 3 {
				cancel()
			}
			return torch.FromSlice([]int64{1}), nil
		})
		require.ErrorIs(t, err, context.Canceled)
		require.Equal(t, 5, n)
		require.Equal(t, before, torch.LiveTensors())
	}
	_, err := data.Tensors{X: torch.Zeros([]int{2}), Y: torch.Zeros([]int{3})}.Batch(t.Context(), []int{0})
	require.ErrorContains(t, err, "X has 2 samples, Y has 3")
}
