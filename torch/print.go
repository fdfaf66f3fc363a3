package torch

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
)

// How PyTorch prints by default (torch.set_printoptions).
const (
	printDigits    = 4    // after the point
	printThreshold = 1000 // elements beyond which the middle of long dimensions is left out
	printEdge      = 3    // elements at each end that stay
	printWidth     = 80   // of a line
)

var opIndexSelect = op{name: "aten::index_select"}
var opViewDType = op{name: "aten::view", overload: "dtype"}

// layoutNames are PyTorch's.
var layoutNames = map[Layout]string{
	Strided: "strided", Sparse: "sparse_coo", SparseCSR: "sparse_csr", SparseCSC: "sparse_csc", SparseBSR: "sparse_bsr",
	SparseBSC: "sparse_bsc", MKLDNNLayout: "_mkldnn", Jagged: "jagged",
}

// String is PyTorch's name without "torch.": "strided".
func (l Layout) String() string {
	if name, ok := layoutNames[l]; ok {
		return name
	}
	return fmt.Sprintf("layout(%d)", int8(l))
}

// String prints the tensor as Python's print does: the elements, of more than 1000 only the ends of
// each dimension; then what is not the default of device, shape, dtype and autograd. A sparse or
// quantized tensor is printed without its elements.
func (t *Tensor) String() string {
	if t == nil {
		return "tensor(nil)"
	}
	if t.Closed() {
		return "tensor(closed)"
	}
	shape, dtype, layout := t.Shape(), t.DType(), t.Layout()
	text := "tensor("
	var suffixes []string
	suffix := func(name, value string) { suffixes = append(suffixes, name+"="+value) }

	if d := t.Device(); d != CPU {
		suffix("device", "'"+d.String()+"'")
	}
	plain, known := false, printsElements(dtype) && layout == Strided && t.Device() != Meta
	switch {
	case !known:
		text += "..."
		suffix("size", Shape(shape).String())
		plain = dtype == Float32
	case numel("print", shape) == 0:
		text += "[]"
		if len(shape) != 1 {
			suffix("size", Shape(shape).String())
		}
		plain = dtype == Float32
	default:
		text += printElements(t, shape, len(text))
		plain = dtype == Float32 || dtype == Complex64 || dtype == Int64 || dtype == Bool
	}
	if !plain {
		suffix("dtype", "torch."+dtype.String())
	}
	if layout != Strided {
		suffix("layout", "torch."+layout.String())
	}
	if fn := t.GradFn(); fn != "" {
		suffix("grad_fn", "<"+fn+">")
	} else if t.RequiresGrad() {
		suffix("requires_grad", "True")
	}
	return appendSuffixes(text, suffixes, len("tensor("))
}

// appendSuffixes puts each suffix on the last line, or on a new one where it is full.
func appendSuffixes(text string, suffixes []string, indent int) string {
	var b strings.Builder
	b.WriteString(text)
	used := len(text) - strings.LastIndexByte(text, '\n') + 1
	for _, s := range suffixes {
		if used+len(s)+2 > printWidth {
			b.WriteString(",\n" + strings.Repeat(" ", indent) + s)
			used = indent + len(s)
		} else {
			b.WriteString(", " + s)
			used += len(s) + 2
		}
	}
	b.WriteString(")")
	return b.String()
}

// printsElements is false for the dtypes whose elements are no numbers of their own.
func printsElements(d DType) bool {
	switch d {
	case Bool, Int8, Int16, Int32, Int64, Uint8, Uint16, Uint32, Uint64:
		return true
	}
	return d != Float4E2M1FNX2 && d != BComplex32 && (d.IsFloatingPoint() || d.IsComplex())
}

// grid lays out formatted elements.
type grid struct {
	elements []string // those that are printed
	width    int      // of an element, as lines are filled
	cut      bool     // long dimensions have only their ends in elements
}

// printElements prints the elements; the first line begins at column indent.
func printElements(t *Tensor, shape []int, indent int) string {
	g := grid{cut: numel("print", shape) > printThreshold}
	Scope(func() {
		NoGrad(func() {
			if g.cut {
				t = edges(t, shape)
			}
			g.format(t)
		})
	})
	var b strings.Builder
	g.block(&b, shape, 0, indent)
	return b.String()
}

// edges leaves out the middle of each long dimension, the longest first, so that little is copied.
func edges(t *Tensor, shape []int) *Tensor {
	dtype, view := t.DType(), t.DType()
	switch dtype { // index_select does not know these
	case Float8E5M2, Float8E4M3FN, Float8E5M2FNUZ, Float8E4M3FNUZ, Float8E8M0FNU:
		view = Uint8
	case Uint16:
		view = Int16
	case Uint32:
		view = Int32
	case Uint64:
		view = Int64
	}
	if view != dtype {
		t = viewDType(t, view)
	}
	dims := make([]int, len(shape))
	for i := range dims {
		dims[i] = i
	}
	slices.SortFunc(dims, func(a, b int) int { return cmp.Compare(shape[b], shape[a]) })
	for _, dim := range dims {
		n := shape[dim]
		if n <= 2*printEdge {
			break
		}
		index := make([]int64, 0, 2*printEdge)
		for i := range printEdge {
			index = append(index, int64(i))
		}
		for i := n - printEdge; i < n; i++ {
			index = append(index, int64(i))
		}
		var c call
		c.start(&opIndexSelect)
		c.tensor(t)
		c.int(dim)
		c.tensor(FromSlice(index).To(t.Device()))
		c.run()
		t = c.retTensor()
	}
	if view != dtype {
		t = viewDType(t, dtype)
	}
	return t
}

func viewDType(t *Tensor, d DType) *Tensor {
	var c call
	c.start(&opViewDType)
	c.tensor(t)
	c.dtype(d)
	c.run()
	return c.retTensor()
}

// format fills the elements.
func (g *grid) format(t *Tensor) {
	switch d := t.DType(); {
	case d == Bool:
		g.elements, g.width = each(ToSlice[bool](t), func(v bool) string {
			if v {
				return "True"
			}
			return "False"
		})
	case d == Uint64:
		g.elements, g.width = each(ToSlice[uint64](t), func(v uint64) string { return strconv.FormatUint(v, 10) })
	case d.IsComplex():
		v := ToSlice[complex128](t)
		re, im := make([]float64, len(v)), make([]float64, len(v))
		for i, z := range v {
			re[i], im[i] = real(z), imag(z)
		}
		reals, imags := newFloatFormat(re), newFloatFormat(im)
		for i := range v {
			tail := strings.TrimLeft(imags.format(im[i]), " ") + "j"
			if tail[0] != '-' {
				tail = "+" + tail
			}
			g.elements = append(g.elements, reals.format(re[i])+tail)
		}
		g.width = reals.width + imags.width + 1
	case d.IsFloatingPoint():
		v := ToSlice[float64](t)
		f := newFloatFormat(v)
		for _, x := range v {
			g.elements = append(g.elements, f.format(x))
		}
		g.width = f.width
	default:
		g.elements, g.width = each(ToSlice[int64](t), func(v int64) string { return strconv.FormatInt(v, 10) })
	}
}

// each formats whole numbers and truth values, right-aligned.
func each[T any](values []T, format func(T) string) (elements []string, width int) {
	elements = make([]string, len(values))
	for i, v := range values {
		elements[i] = format(v)
		width = max(width, len(elements[i]))
	}
	for i, s := range elements {
		elements[i] = pad(s, width)
	}
	return elements, width
}

func pad(s string, width int) string { return strings.Repeat(" ", max(0, width-len(s))) + s }

// floatFormat is how all floats of a tensor are written; it depends on the finite ones but zero.
type floatFormat struct {
	verb   byte // 'f' or 'e'
	digits int  // after the point
	point  bool // whole numbers end in a point
	width  int
}

func newFloatFormat(values []float64) floatFormat {
	least, most, whole := math.Inf(1), 0.0, true
	counts := func(v float64) bool { return v != 0 && !math.IsNaN(v) && !math.IsInf(v, 0) }
	for _, v := range values {
		if counts(v) {
			least, most = min(least, math.Abs(v)), max(most, math.Abs(v))
			whole = whole && v == math.Trunc(v)
		}
	}
	f := floatFormat{verb: 'f', digits: printDigits, width: 1}
	switch {
	case most == 0:
		f.digits, f.point = 0, true
		return f
	case most/least > 1000 || most > 1e8 || least < 1e-4:
		f.verb = 'e'
	case whole:
		f.digits, f.point = 0, true
	}
	for _, v := range values {
		if counts(v) {
			f.width = max(f.width, len(f.text(v)))
		}
	}
	return f
}

// text writes a number without padding.
func (f floatFormat) text(v float64) string {
	switch {
	case math.IsNaN(v):
		return "nan"
	case math.IsInf(v, 1):
		return "inf"
	case math.IsInf(v, -1):
		return "-inf"
	}
	s := strconv.FormatFloat(v, f.verb, f.digits, 64)
	if f.point {
		s += "."
	}
	return s
}

func (f floatFormat) format(v float64) string { return pad(f.text(v), f.width) }

// kept is how many elements of a dimension are printed.
func (g *grid) kept(n int) int {
	if g.cut && n > 2*printEdge {
		return 2 * printEdge
	}
	return n
}

// block prints the part of shape whose elements begin at first, and returns where they end.
func (g *grid) block(b *strings.Builder, shape []int, first, indent int) int {
	if len(shape) == 0 {
		b.WriteString(g.elements[first])
		return first + 1
	}
	b.WriteString("[")
	n := g.kept(shape[0])
	inner := len(shape) - 1
	perLine := max(1, (printWidth-indent)/(g.width+2))
	items := 0 // the ellipsis is one
	next := func(text string) {
		switch {
		case items == 0:
		case inner > 0 || items%perLine == 0:
			b.WriteString("," + strings.Repeat("\n", max(inner, 1)) + strings.Repeat(" ", indent+1))
		default:
			b.WriteString(", ")
		}
		b.WriteString(text)
		items++
	}
	for i := range n {
		if n < shape[0] && i == printEdge {
			if inner > 0 {
				next("...")
			} else {
				next(" ...")
			}
		}
		next("")
		first = g.block(b, shape[1:], first, indent+1)
	}
	b.WriteString("]")
	return first
}
