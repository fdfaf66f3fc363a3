package data

import (
	"context"
	"iter"
	"slices"

	"github.com/torchgo/torchgo/torch"
)

// LoaderOptions are the optional arguments of [NewLoader].
type LoaderOptions struct {
	BatchSize int    // default: 1
	Shuffle   bool   // a new order in each epoch: the one of PyTorch's DataLoader with a generator of this Seed
	Seed      uint64 // of the orders
	DropLast  bool   // leave a last batch out that is smaller than the others
	Prefetch  int    // batches that another goroutine makes ahead; 0: each is made when it is taken
}

// Loader makes batches of a dataset, epoch by epoch (DataLoader in PyTorch). It is used by one goroutine.
type Loader[T any] struct {
	dataset Dataset[T]
	opts    LoaderOptions
	random  *torch.Generator
}

// NewLoader makes a loader of a dataset.
func NewLoader[T any](dataset Dataset[T], opts ...LoaderOptions) *Loader[T] {
	l := &Loader[T]{dataset: dataset}
	if len(opts) > 0 {
		l.opts = opts[0]
	}
	l.opts.BatchSize = max(1, l.opts.BatchSize)
	return l
}

// Len is the number of batches in an epoch.
func (l *Loader[T]) Len() int {
	n, size := l.dataset.Len(), l.opts.BatchSize
	if l.opts.DropLast {
		return n / size
	}
	return (n + size - 1) / size
}

// Batches yields the batches of an epoch. A batch's tensors are freed when the next one is taken, or the
// loop ends; torch.Keep does not change that, Clone does. An error, also that ctx is done, is yielded
// once and ends the epoch.
//
// With Prefetch, don't range inside a scope: it would wait for a goroutine that needs one (see
// [torch.Scope]).
func (l *Loader[T]) Batches(ctx context.Context) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		// yield runs the caller's loop body, so nothing here opens a scope around it.
		for b := range l.made(ctx, slices.Collect(slices.Chunk(l.order(), l.opts.BatchSize))[:l.Len()]) {
			if !b.pass(yield) {
				return
			}
		}
		if l.opts.Shuffle {
			l.permutation() // Python's sampler begins a second one, of which it takes nothing
		}
	}
}

// made is a batch or the error in its place.
type made[T any] struct {
	batch T
	err   error
}

// pass hands the batch to the caller's loop body, and frees it.
func (m made[T]) pass(yield func(T, error) bool) bool {
	defer torch.CloseAll(m.batch)
	return yield(m.batch, m.err) && m.err == nil
}

func (l *Loader[T]) made(ctx context.Context, batches [][]int) iter.Seq[made[T]] {
	if l.opts.Prefetch <= 0 {
		return func(yield func(made[T]) bool) {
			for _, indices := range batches {
				if !yield(l.make(ctx, indices)) {
					return
				}
			}
		}
	}
	return func(yield func(made[T]) bool) {
		ctx, cancel := context.WithCancel(ctx)
		ahead := make(chan made[T], l.opts.Prefetch-1) // and one in the goroutine's hands
		go func() {
			defer close(ahead)
			for _, indices := range batches {
				b := l.make(ctx, indices)
				ahead <- b
				if b.err != nil {
					return
				}
			}
		}()
		defer func() { // the goroutine ends with the loop
			cancel()
			for b := range ahead {
				torch.CloseAll(b.batch)
			}
		}()
		for b := range ahead {
			if !yield(b) {
				return
			}
		}
	}
}

func (l *Loader[T]) make(ctx context.Context, indices []int) made[T] {
	if err := ctx.Err(); err != nil {
		return made[T]{err: err}
	}
	m, err := torch.Try(func() made[T] {
		var err error
		batch := torch.ScopeOf(func() (b T) {
			b, err = l.dataset.Batch(ctx, indices)
			return b
		})
		return made[T]{batch, err}
	})
	if err != nil {
		m.err = err
	}
	return m
}

// order is that of the next epoch.
func (l *Loader[T]) order() []int {
	if l.opts.Shuffle {
		if l.random == nil {
			l.random = torch.NewGenerator(torch.CPU, l.opts.Seed)
		}
		// Python's DataLoader first draws a seed for its worker processes.
		torch.Empty(nil, torch.EmptyOptions{DType: torch.Int64}).Random_(torch.RandomOptions{Generator: l.random}).Close()
		return l.permutation()
	}
	order := make([]int, l.dataset.Len())
	for i := range order {
		order[i] = i
	}
	return order
}

func (l *Loader[T]) permutation() []int {
	t := torch.RandpermGenerator(l.dataset.Len(), l.random)
	defer t.Close()
	order := make([]int, t.Numel())
	for i, at := range torch.Data[int64](t) {
		order[i] = int(at)
	}
	return order
}
