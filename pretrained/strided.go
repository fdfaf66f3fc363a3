package pretrained

import (
	"fmt"
	"slices"

	"github.com/torchgo/torchgo/torch"
)

// A strided is a view of the elements of a tensor, as torch's as_strided makes them, but each dimension is a
// list of factors, outermost first: so dimensions can be merged and split whatever their strides are.
type strided struct {
	offset int
	dims   [][]factor
}

// factor is a part of a dimension. Both numbers count elements.
type factor struct{ size, stride int }

// whole is the view of a contiguous tensor that shows all of it as it lies there.
func whole(shape []int) strided {
	v := strided{dims: make([][]factor, len(shape))}
	stride := 1
	for i := len(shape) - 1; i >= 0; i-- {
		v.dims[i] = []factor{{shape[i], stride}}
		stride *= shape[i]
	}
	return v
}

func size(dim []factor) int {
	n := 1
	for _, f := range dim {
		n *= f.size
	}
	return n
}

func (v strided) shape() []int {
	shape := make([]int, len(v.dims))
	for i, d := range v.dims {
		shape[i] = size(d)
	}
	return shape
}

// with is v with one dimension replaced by others, at another offset.
func (v strided) with(dim, offset int, by ...[]factor) strided {
	return strided{offset, slices.Replace(slices.Clone(v.dims), dim, dim+1, by...)}
}

// splitFactors divides a dimension into its outer part and an inner one of n elements.
func splitFactors(dim []factor, n int) (outer, inner []factor, err error) {
	rest := n
	for i := len(dim) - 1; i >= 0; i-- {
		f := dim[i]
		switch {
		case rest == 1:
			return dim[:i+1], inner, nil
		case f.size != 0 && rest%f.size == 0:
			inner, rest = slices.Insert(inner, 0, f), rest/f.size
		case rest != 0 && f.size%rest == 0:
			inner = slices.Insert(inner, 0, factor{rest, f.stride})
			outer = append(slices.Clone(dim[:i]), factor{f.size / rest, f.stride * rest})
			return outer, inner, nil
		default:
			return nil, nil, fmt.Errorf("%d elements can't be split into groups of %d", size(dim), n)
		}
	}
	if rest != 1 {
		return nil, nil, fmt.Errorf("%d elements can't be split into groups of %d", size(dim), n)
	}
	return nil, inner, nil
}

// narrow shows n of the elements of a dimension, from start on.
func (v strided) narrow(dim, start, n int) (strided, error) {
	d := v.dims[dim]
	if len(d) == 1 {
		return v.with(dim, v.offset+start*d[0].stride, []factor{{n, d[0].stride}}), nil
	}
	inner := size(d[1:])
	if inner == 0 || start%inner != 0 || n%inner != 0 {
		return v, fmt.Errorf("%d elements from %d on are no view of dimension %d", n, start, dim)
	}
	return v.with(dim, v.offset+start/inner*d[0].stride, append([]factor{{n / inner, d[0].stride}}, d[1:]...)), nil
}

// index shows one element of a dimension and drops the dimension.
func (v strided) index(dim, i int) strided {
	offset := v.offset
	for _, f := range slices.Backward(v.dims[dim]) {
		offset += i % f.size * f.stride
		i /= f.size
	}
	return v.with(dim, offset)
}

// A blockCopy says which elements of one tensor are which of another: those at from.offset + Σ iₖ·from.strides[k]
// and at to.offset + Σ iₖ·to.strides[k], for 0 ≤ iₖ < sizes[k]. Dimensions that lie alike in both are merged, and
// from's strides fall.
type blockCopy struct {
	sizes    []int
	from, to blockStrides
}

type blockStrides struct {
	offset  int
	strides []int
}

// copyInto copies all of a contiguous tensor to where v shows its place, which has the tensor's shape.
func (v strided) copyInto() blockCopy {
	c := blockCopy{to: blockStrides{offset: v.offset}}
	stride := 1
	for _, f := range slices.Backward(slices.Concat(v.dims...)) {
		c.sizes = append(c.sizes, f.size)
		c.from.strides = append(c.from.strides, stride)
		c.to.strides = append(c.to.strides, f.stride)
		stride *= f.size
	}
	return c.simplify()
}

// reverse copies the other way.
func (c blockCopy) reverse() blockCopy {
	return blockCopy{slices.Clone(c.sizes), c.to, c.from}.simplify()
}

func (c blockCopy) simplify() blockCopy {
	type dim struct{ size, from, to int }
	var dims []dim
	for i, n := range c.sizes {
		if n != 1 {
			dims = append(dims, dim{n, c.from.strides[i], c.to.strides[i]})
		}
	}
	slices.SortStableFunc(dims, func(a, b dim) int { return b.from - a.from })
	out := blockCopy{from: blockStrides{offset: c.from.offset}, to: blockStrides{offset: c.to.offset}}
	for _, d := range dims {
		if k := len(out.sizes) - 1; k >= 0 && out.from.strides[k] == d.size*d.from && out.to.strides[k] == d.size*d.to {
			out.sizes[k] *= d.size
			out.from.strides[k], out.to.strides[k] = d.from, d.to
			continue
		}
		out.sizes = append(out.sizes, d.size)
		out.from.strides, out.to.strides = append(out.from.strides, d.from), append(out.to.strides, d.to)
	}
	return out
}

// numel is the number of elements that are copied.
func (c blockCopy) numel() int {
	n := 1
	for _, s := range c.sizes {
		n *= s
	}
	return n
}

// run reports whether the elements lie one after the other on both sides.
func (c blockCopy) run() bool {
	return len(c.sizes) == 0 || len(c.sizes) == 1 && c.from.strides[0] == 1 && c.to.strides[0] == 1
}

// each cuts c into copies whose elements of from span at most limit elements, or are one.
func (c blockCopy) each(limit int, fn func(blockCopy) error) error {
	if c.numel() == 0 {
		return nil
	}
	inner := 1 // what one step of the first dimension spans
	for i := 1; i < len(c.sizes); i++ {
		inner += (c.sizes[i] - 1) * c.from.strides[i]
	}
	if len(c.sizes) == 0 || inner+(c.sizes[0]-1)*c.from.strides[0] <= limit {
		return fn(c)
	}
	step := 1
	if inner <= limit {
		step += (limit - inner) / c.from.strides[0]
	}
	for at := 0; at < c.sizes[0]; at += step {
		piece := blockCopy{slices.Clone(c.sizes), c.from, c.to}
		piece.sizes[0] = min(step, c.sizes[0]-at)
		piece.from.offset += at * c.from.strides[0]
		piece.to.offset += at * c.to.strides[0]
		if step == 1 {
			piece.sizes = piece.sizes[1:]
			piece.from.strides, piece.to.strides = c.from.strides[1:], c.to.strides[1:]
		}
		var err error
		if inner > limit {
			err = piece.each(limit, fn)
		} else {
			err = fn(piece)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// span is the number of elements of from, from its offset on, among which the copied ones are.
func (c blockCopy) span() int {
	n := 1
	for i, s := range c.sizes {
		n += (s - 1) * c.from.strides[i]
	}
	return n
}

// view is a strided view of t.
func (s blockStrides) view(t *torch.Tensor, sizes []int) *torch.Tensor {
	return t.AsStrided(sizes, s.strides, torch.AsStridedOptions{StorageOffset: torch.Some(t.StorageOffset() + s.offset)})
}
