package torch

// UniqueOptions are the optional arguments of [Tensor.Unique].
type UniqueOptions struct {
	Dim           Opt[int]  // unset: of all elements
	Sorted        Opt[bool] // default true
	ReturnInverse bool
	ReturnCounts  bool
}

// Unique has the different elements, sorted, or the different slices along Dim. With ReturnInverse it
// also tells where in values each element went, with ReturnCounts how many they were; else these are nil.
// It is PyTorch's torch.unique.
//
//	t = values[inverse]
//	t (...) -> values (L), inverse (...), counts (L)
func (t *Tensor) Unique(opts ...UniqueOptions) (values, inverse, counts *Tensor) {
	o := one(opts)
	if dim, ok := o.Dim.Get(); ok {
		values, inverse, counts = UniqueDim(t, dim, UniqueDimOptions{Sorted: o.Sorted, ReturnInverse: o.ReturnInverse, ReturnCounts: o.ReturnCounts})
	} else {
		values, inverse, counts = Internal.Unique2(t, InternalUnique2Options{Sorted: o.Sorted, ReturnInverse: o.ReturnInverse, ReturnCounts: o.ReturnCounts})
	}
	// Some kernels return more than they were asked for.
	if !o.ReturnInverse {
		inverse.Close()
		inverse = nil
	}
	if !o.ReturnCounts {
		counts.Close()
		counts = nil
	}
	return values, inverse, counts
}
