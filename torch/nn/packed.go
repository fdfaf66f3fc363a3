package nn

import "github.com/torchgo/torchgo/torch"

// PackedSequence is a batch of sequences of different lengths without padding: step after step, the elements of
// the sequences that are that long. PackPaddedSequence and PackSequence make one.
type PackedSequence struct {
	Data            *torch.Tensor // (Σ lengths, …)
	BatchSizes      *torch.Tensor // (T) int64 on the CPU: how many sequences have that step
	SortedIndices   *torch.Tensor // (B): the sequences by falling length; nil: they were
	UnsortedIndices *torch.Tensor // (B): the inverse of that
}

// PackOptions are the optional arguments of PackPaddedSequence and PackSequence.
type PackOptions struct {
	BatchFirst    bool            // the input is (B, T, …), not (T, B, …)
	EnforceSorted torch.Opt[bool] // the lengths must fall, so that no sorting is needed; default: true
}

// PackPaddedSequence packs a padded batch (T, B, …), whose sequences have these lengths
// (torch.nn.utils.rnn.pack_padded_sequence).
func PackPaddedSequence(x *torch.Tensor, lengths []int, opts ...PackOptions) PackedSequence {
	o := first(opts)
	sizes := make([]int64, len(lengths))
	for i, n := range lengths {
		sizes[i] = int64(n)
	}
	var p PackedSequence
	length := torch.FromSlice(sizes)
	if !o.EnforceSorted.Or(true) {
		var order *torch.Tensor
		length, order = length.Sort(torch.SortOptions{Descending: true})
		p.SortedIndices = order.To(x.Device())
		p.UnsortedIndices = p.SortedIndices.Argsort()
		dim := 1
		if o.BatchFirst {
			dim = 0
		}
		x = x.IndexSelect(dim, p.SortedIndices)
	}
	p.Data, p.BatchSizes = torch.Internal.PackPaddedSequence(x, length, o.BatchFirst)
	return p
}

// PackSequence packs sequences (L, …) of the same trailing shape (torch.nn.utils.rnn.pack_sequence).
func PackSequence(sequences []*torch.Tensor, opts ...PackOptions) PackedSequence {
	lengths := make([]int, len(sequences))
	for i, s := range sequences {
		lengths[i] = s.Size(0)
	}
	return PackPaddedSequence(PadSequence(sequences), lengths, PackOptions{EnforceSorted: first(opts).EnforceSorted})
}

// PadPackedOptions are the optional arguments of PadPackedSequence.
type PadPackedOptions struct {
	BatchFirst   bool    // the result is (B, T, …), not (T, B, …)
	PaddingValue float64 // what is beyond a sequence's end
	TotalLength  int     // T, at least the longest length; 0: that
}

// PadPackedSequence is the inverse of PackPaddedSequence: the padded batch (T, B, …), and the lengths.
func PadPackedSequence(p PackedSequence, opts ...PadPackedOptions) (x *torch.Tensor, lengths []int) {
	o := first(opts)
	longest := p.BatchSizes.Size(0)
	switch {
	case o.TotalLength == 0:
		o.TotalLength = longest
	case o.TotalLength < longest:
		fail("pad_packed_sequence", "Expected total_length to be at least the length of the longest sequence in input, but got "+
			"total_length=%d and max sequence length being %d", o.TotalLength, longest)
	}
	x, length := torch.Internal.PadPackedSequence(p.Data, p.BatchSizes, o.BatchFirst, o.PaddingValue, o.TotalLength)
	if u := p.UnsortedIndices; u != nil {
		dim := 1
		if o.BatchFirst {
			dim = 0
		}
		x, length = x.IndexSelect(dim, u), length.IndexSelect(0, u.To(torch.CPU))
	}
	for _, n := range torch.ToSlice[int64](length) {
		lengths = append(lengths, int(n))
	}
	return x, lengths
}

// PadSequence stacks sequences (L, …) of the same trailing shape, filled up at the end (torch.nn.utils.rnn.pad_sequence):
// (T, B, …), or (B, T, …) with BatchFirst.
func PadSequence(sequences []*torch.Tensor, opts ...torch.PadSequenceOptions) *torch.Tensor {
	return torch.PadSequence(sequences, opts...)
}

// sorted brings a state (L·D, B, H) in the order of the packed sequences; unsorted back.
func (p PackedSequence) sorted(h *torch.Tensor) *torch.Tensor   { return permute(h, p.SortedIndices) }
func (p PackedSequence) unsorted(h *torch.Tensor) *torch.Tensor { return permute(h, p.UnsortedIndices) }

func permute(h, order *torch.Tensor) *torch.Tensor {
	if h == nil || order == nil {
		return h
	}
	return h.IndexSelect(1, order)
}
