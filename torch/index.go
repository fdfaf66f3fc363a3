package torch

import "slices"

// Index is a part of an index expression for [Tensor.At]: an int, [All], [Ellipsis], [NewAxis], a
// range made by [From], [To] or [Between], a *[Tensor] or slice of ints or bools, or a bool.
type Index any

// Span is a slice of one dimension: start:stop:step in Python. Unset bounds are the ends.
type Span struct {
	Start, Stop Opt[int]
	Step        int // 0: 1
}

type marker string

// Marks in an index expression.
const (
	Ellipsis marker = "..."  // as many whole dimensions as fit
	NewAxis  marker = "None" // a new dimension of size 1
)

// All is a whole dimension, ":" in Python.
var All = Span{}

// From is start: in Python.
func From(start int) Span { return Span{Start: Some(start)} }

// To is :stop in Python.
func To(stop int) Span { return Span{Stop: Some(stop)} }

// Between is start:stop in Python.
func Between(start, stop int) Span { return Span{Start: Some(start), Stop: Some(stop)} }

// By is the range with a step.
func (r Span) By(step int) Span {
	r.Step = step
	return r
}

// At is x[index...] in Python: ints take a dimension away, ranges keep a part of it, tensors pick
// elements. The result is a view unless a tensor or bool picks.
//
//	x.At(0)                       // x[0]
//	x.At(torch.All, -1)           // x[:, -1]
//	x.At(torch.Ellipsis, torch.To(3)) // x[..., :3]
//	x.At(mask)                    // x[mask]
func (t *Tensor) At(index ...Index) *Tensor {
	if len(index) == 1 { // the frequent ones need nothing worked out
		switch p := index[0].(type) {
		case int:
			return t.Select(0, p)
		case *Tensor:
			return t.Index([]*Tensor{p})
		}
	}
	view, picks := t.locate("at", index)
	if picks == nil {
		if view == t { // x[...] is a new view of x
			return t.Alias()
		}
		return view
	}
	return view.Index(picks)
}

// SetAt is x[index...] = value in Python: value is a *[Tensor] that broadcasts, or a number.
func (t *Tensor) SetAt(value any, index ...Index) {
	Scope(func() {
		view, picks := t.locate("set_at", index)
		v, isTensor := value.(*Tensor)
		switch {
		case picks == nil && isTensor:
			view.Copy_(v)
		case picks == nil:
			view.Fill_(value)
		default:
			if !isTensor {
				v = ScalarTensor(value, TensorOptions{DType: t.DType(), Device: t.Device()})
			}
			view.IndexPut_(picks, v)
		}
	})
}

// locate applies the parts that make views; picks are the tensors for index, nil if there are none.
func (t *Tensor) locate(op string, index []Index) (view *Tensor, picks []*Tensor) {
	index = slices.Clone(index)
	for i, part := range index { // what a Go program has at hand
		switch p := part.(type) {
		case int64:
			index[i] = int(p)
		case int32:
			index[i] = int(p)
		case []int:
			index[i] = FromSlice(p).To(t.Device())
		case []int64:
			index[i] = FromSlice(p).To(t.Device())
		case []bool:
			index[i] = FromSlice(p).To(t.Device())
		}
	}
	consumed, ellipses := 0, 0
	for _, part := range index {
		switch p := part.(type) {
		case marker:
			if p == Ellipsis {
				ellipses++
			}
		case bool:
		case *Tensor:
			consumed++
			if d := p.DType(); d == Bool || d == Uint8 {
				consumed += p.Dim() - 1
			}
		default:
			consumed++
		}
	}
	if ellipses > 1 {
		invalid(op, "an index can have one Ellipsis, got %d", ellipses)
	}
	if n := t.Dim(); consumed > n {
		panic(&Error{Op: op, Kind: ErrIndex, Shapes: []Shape{t.Shape()}, Message: "too many indices for the tensor's dimensions"})
	}
	view = t
	var found map[int]*Tensor
	pick := func(dim int, index *Tensor) {
		if found == nil {
			found = map[int]*Tensor{}
		}
		found[dim] = index
	}
	dim := 0
	for _, part := range index {
		switch p := part.(type) {
		case int:
			view = view.Select(dim, p)
		case Span:
			if p.Step < 0 {
				invalid(op, "step must be positive, got %d", p.Step)
			}
			if p != All {
				view = view.Slice(SliceOptions{Dim: dim, Start: p.Start, End: p.Stop, Step: Some(max(p.Step, 1))})
			}
			dim++
		case marker:
			if p == NewAxis {
				view = view.Unsqueeze(dim)
				dim++
			} else {
				dim += t.Dim() - consumed
			}
		case bool:
			view = view.Unsqueeze(dim)
			pick(dim, FromSlice([]bool{p}))
			dim++
		case *Tensor:
			pick(dim, p)
			if d := p.DType(); d == Bool || d == Uint8 {
				dim += p.Dim()
			} else {
				dim++
			}
		default:
			invalid(op, "expected an int, Span, Ellipsis, NewAxis, tensor or bool, got %T", part)
		}
	}
	if found == nil {
		return view, nil
	}
	for d := 0; d < dim; {
		p := found[d]
		picks = append(picks, p)
		if p != nil && (p.DType() == Bool || p.DType() == Uint8) {
			d += max(p.Dim(), 1)
		} else {
			d++
		}
	}
	return view, picks
}
