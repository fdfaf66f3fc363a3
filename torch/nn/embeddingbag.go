package nn

import "github.com/torchgo/torchgo/torch"

// EmbeddingBag looks rows of a table up and reduces those of each bag: (B, N) → (B, dim), each row of indices a
// bag, or (N) with offsets (B), where the bags begin.
type EmbeddingBag struct {
	Hooks

	Weight *torch.Tensor `torch:"weight"` // (rows, dim)

	Options EmbeddingBagOptions

	padding int
}

// EmbeddingBagOptions are the optional arguments of NewEmbeddingBag.
type EmbeddingBagOptions struct {
	Mode              string             // "mean" (the default), "sum" or "max"
	PaddingIdx        torch.Opt[int]     // the row that starts as zeros, takes no part and gets no gradient; default: none
	MaxNorm           torch.Opt[float64] // rows that are looked up are first scaled down to this norm; default: not
	NormType          torch.Opt[float64] // the p of that norm; default: 2
	ScaleGradByFreq   bool               // gradients are divided by how often a row was looked up
	Sparse            bool               // the table's gradient is sparse
	IncludeLastOffset bool               // the last offset is where the last bag ends
}

var bagModes = map[string]int{"sum": 0, "mean": 1, "max": 2}

// NewEmbeddingBag makes a float32 table on the CPU with values from N(0, 1), the padding row zero.
func NewEmbeddingBag(rows, dim int, opts ...EmbeddingBagOptions) *EmbeddingBag {
	return Builder{}.EmbeddingBag(rows, dim, opts...)
}

// EmbeddingBag makes a table of (rows, dim).
func (b Builder) EmbeddingBag(rows, dim int, opts ...EmbeddingBagOptions) *EmbeddingBag {
	e := &EmbeddingBag{Options: first(opts)}
	if e.Options.Mode == "" {
		e.Options.Mode = "mean"
	}
	if _, ok := bagModes[e.Options.Mode]; !ok {
		fail("embedding_bag", "mode has to be one of sum, mean or max")
	}
	e.padding = paddingIdx("embedding_bag", e.Options.PaddingIdx, rows)
	e.Weight = b.table(rows, dim, e.padding)
	return e
}

// Forward maps indices (B, N), or (N) with offsets (B), to (B, dim). weights, of the indices' shape, multiply the
// rows in mode "sum"; nil is 1.
func (e *EmbeddingBag) Forward(indices, offsets, weights *torch.Tensor) *torch.Tensor {
	return e.call3(indices, offsets, weights, e.forward)
}

func (e *EmbeddingBag) forward(indices, offsets, weights *torch.Tensor) *torch.Tensor {
	const op = "embedding_bag"
	o, last := e.Options, e.Options.IncludeLastOffset
	switch d := indices.Dim(); {
	case d == 2 && offsets != nil:
		fail(op, "if input is 2D, then offsets has to be None, as input is treated is a mini-batch of fixed length sequences.")
	case d == 1 && offsets == nil:
		fail(op, "offsets has to be a 1D Tensor but got None")
	case d != 1 && d != 2:
		fail(op, "input has to be 1D or 2D Tensor, but got Tensor of dimension %d", d)
	case weights != nil && o.Mode != "sum":
		fail(op, "per_sample_weights is only supported for mode='sum' (got mode='%s')", o.Mode)
	case d == 2:
		bags, length := indices.Size(0), indices.Size(1)
		offsets = torch.Arange(bags, torch.TensorOptions{DType: indices.DType(), Device: indices.Device()}).MulScalar(length)
		indices, last = indices.Reshape(-1), false
		if weights != nil {
			weights = weights.Reshape(-1)
		}
	}
	if norm, ok := o.MaxNorm.Get(); ok {
		renorm(e.Weight, indices, norm, o.NormType.Or(2))
	}
	padding := torch.Opt[int]{}
	if e.padding >= 0 {
		padding = torch.Some(e.padding)
	}
	y, _, _, _ := torch.EmbeddingBagPaddingIdx(e.Weight, indices, offsets, o.ScaleGradByFreq, bagModes[o.Mode], o.Sparse, weights, last, padding)
	return y
}

// ExtraRepr is what PyTorch prints in the parentheses.
func (e *EmbeddingBag) ExtraRepr() string {
	s := itoa(e.Weight.Size(0)) + ", " + itoa(e.Weight.Size(1)) + normArgs(e.Options.MaxNorm, e.Options.NormType, e.Options.ScaleGradByFreq) +
		", mode='" + e.Options.Mode + "'"
	if e.padding >= 0 {
		s += ", padding_idx=" + itoa(e.padding)
	}
	return s
}
