package nn

import "github.com/torchgo/torchgo/torch"

// Embedding looks rows of a table up: indices (…) → (…, dim). How the table is stored is up to Weight.
type Embedding struct {
	Weight EmbeddingWeight `torch:",inline"`

	PaddingIdx int // the row that starts as zeros and gets no gradient; negative: none
}

// EmbeddingWeight is the table of an Embedding. It is a module: its tags name its own state-dict entries.
type EmbeddingWeight interface {
	// Lookup returns the rows at the indices: (…) → (…, dim).
	Lookup(indices *torch.Tensor, paddingIdx int) *torch.Tensor
}

// Table is an EmbeddingWeight stored as it is.
type Table struct {
	W *torch.Tensor `torch:"weight"` // (rows, dim)
}

// Lookup implements EmbeddingWeight.
func (e *Table) Lookup(indices *torch.Tensor, paddingIdx int) *torch.Tensor {
	if paddingIdx < 0 {
		paddingIdx = -1
	}
	return torch.Embedding(e.W, indices, torch.EmbeddingOptions{PaddingIdx: torch.Some(paddingIdx)})
}

// EmbeddingOptions are the optional arguments of NewEmbedding.
type EmbeddingOptions struct {
	PaddingIdx torch.Opt[int] // default: none
}

// NewEmbedding makes a float32 table on the CPU with values from N(0, 1), the padding row zero.
func NewEmbedding(rows, dim int, opts ...EmbeddingOptions) *Embedding {
	return Builder{}.Embedding(rows, dim, opts...)
}

// Embedding makes a table of (rows, dim).
func (b Builder) Embedding(rows, dim int, opts ...EmbeddingOptions) *Embedding {
	e := &Embedding{PaddingIdx: -1}
	if len(opts) > 0 {
		e.PaddingIdx = opts[0].PaddingIdx.Or(-1)
	}
	w := b.Parameter(rows, dim)
	b.init(func() {
		normal(w, 0, 1)
		if e.PaddingIdx >= 0 {
			w.Select(0, e.PaddingIdx).Zero_()
		}
	})
	e.Weight = &Table{w}
	return e
}

// Forward maps indices (…) to (…, dim).
func (e *Embedding) Forward(indices *torch.Tensor) *torch.Tensor {
	return e.Weight.Lookup(indices, e.PaddingIdx)
}
