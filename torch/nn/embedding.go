package nn

import (
	"github.com/torchgo/torchgo/torch"
	"github.com/torchgo/torchgo/torch/nn/nninit"
)

// Embedding looks rows of a table up: indices (…) → (…, dim). How the table is stored is up to Weight.
type Embedding struct {
	Hooks

	Weight EmbeddingWeight `torch:",inline"`

	PaddingIdx      int                // the row that starts as zeros and gets no gradient; negative: none
	MaxNorm         torch.Opt[float64] // rows that are looked up are first scaled down to this norm
	NormType        torch.Opt[float64] // the p of that norm; default: 2
	ScaleGradByFreq bool               // gradients are divided by how often a row was looked up
	Sparse          bool               // the table's gradient is sparse
}

// EmbeddingWeight is the table of an Embedding. It is a module: its tags name its own state-dict entries.
type EmbeddingWeight interface {
	// Lookup returns the rows at the indices: (…) → (…, dim). A negative PaddingIdx is none.
	Lookup(indices *torch.Tensor, e *Embedding) *torch.Tensor
	// Rows are the table's sizes.
	Rows() (rows, dim int)
}

// Table is an EmbeddingWeight stored as it is.
type Table struct {
	W *torch.Tensor `torch:"weight"` // (rows, dim)
}

// Lookup implements EmbeddingWeight.
func (t *Table) Lookup(indices *torch.Tensor, e *Embedding) *torch.Tensor {
	return lookup(t.W, indices, e)
}

func lookup(w, indices *torch.Tensor, e *Embedding) *torch.Tensor {
	if norm, ok := e.MaxNorm.Get(); ok {
		renorm(w, indices, norm, e.NormType.Or(2))
	}
	return torch.Embedding(w, indices, torch.EmbeddingOptions{
		PaddingIdx: torch.Some(max(e.PaddingIdx, -1)), ScaleGradByFreq: e.ScaleGradByFreq, Sparse: e.Sparse})
}

// renorm scales the rows at the indices down in place.
func renorm(w, indices *torch.Tensor, norm, p float64) {
	torch.NoGrad(func() { torch.EmbeddingRenorm_(w, indices.Contiguous(), norm, p) })
}

// Rows implements EmbeddingWeight.
func (t *Table) Rows() (rows, dim int) { return t.W.Size(0), t.W.Size(1) }

// Dense is the table, for weights that are computed from it.
func (t *Table) Dense() *torch.Tensor { return t.W }

// EmbeddingOptions are the optional arguments of NewEmbedding.
type EmbeddingOptions struct {
	PaddingIdx      torch.Opt[int]     // the row that starts as zeros and gets no gradient; negative: from the end; default: none
	MaxNorm         torch.Opt[float64] // rows that are looked up are first scaled down to this norm; default: not
	NormType        torch.Opt[float64] // the p of that norm; default: 2
	ScaleGradByFreq bool               // gradients are divided by how often a row was looked up
	Sparse          bool               // the table's gradient is sparse
}

// NewEmbedding makes a float32 table on the CPU with values from N(0, 1), the padding row zero.
func NewEmbedding(rows, dim int, opts ...EmbeddingOptions) *Embedding {
	return Builder{}.Embedding(rows, dim, opts...)
}

// Embedding makes a table of (rows, dim).
func (b Builder) Embedding(rows, dim int, opts ...EmbeddingOptions) *Embedding {
	o := first(opts)
	e := &Embedding{PaddingIdx: paddingIdx("embedding", o.PaddingIdx, rows), MaxNorm: o.MaxNorm, NormType: o.NormType,
		ScaleGradByFreq: o.ScaleGradByFreq, Sparse: o.Sparse}
	e.Weight = &Table{b.table(rows, dim, e.PaddingIdx)}
	return e
}

// paddingIdx is the row that p means, -1 for none.
func paddingIdx(op string, p torch.Opt[int], rows int) int {
	i, ok := p.Get()
	if !ok {
		return -1
	}
	if i < -rows || i >= rows {
		fail(op, "Padding_idx must be within num_embeddings")
	}
	if i < 0 {
		i += rows
	}
	return i
}

// table makes (rows, dim) values from N(0, 1), one row zero.
func (b Builder) table(rows, dim, padding int) *torch.Tensor {
	w := b.Parameter(rows, dim)
	b.init(func() {
		nninit.Normal_(w, 0, 1)
		if padding >= 0 {
			w.Select(0, padding).Zero_()
		}
	})
	return w
}

// Forward maps indices (…) to (…, dim).
func (e *Embedding) Forward(indices *torch.Tensor) *torch.Tensor { return e.Call(indices, e.forward) }

func (e *Embedding) forward(indices *torch.Tensor) *torch.Tensor { return e.Weight.Lookup(indices, e) }

// ExtraRepr is what PyTorch prints in the parentheses.
func (e *Embedding) ExtraRepr() string {
	rows, dim := e.Weight.Rows()
	s := itoa(rows) + ", " + itoa(dim)
	if e.PaddingIdx >= 0 {
		s += ", padding_idx=" + itoa(e.PaddingIdx)
	}
	s += normArgs(e.MaxNorm, e.NormType, e.ScaleGradByFreq)
	if e.Sparse {
		s += ", sparse=True"
	}
	return s
}

func normArgs(maxNorm, normType torch.Opt[float64], byFreq bool) (s string) {
	if v, ok := maxNorm.Get(); ok {
		s += ", max_norm=" + number(v)
	}
	if v := normType.Or(2); v != 2 {
		s += ", norm_type=" + number(v)
	}
	if byFreq {
		s += ", scale_grad_by_freq=True"
	}
	return s
}
