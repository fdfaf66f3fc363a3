package torch_test

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"math/cmplx"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/torchgo/torchgo/internal/half"
	"github.com/torchgo/torchgo/internal/testdata"
	"github.com/torchgo/torchgo/torch"
)

// The reference of tools/opinfo: calls of dispatcher operators with their results in Python.
type (
	opinfoRef struct {
		Torch   string            `json:"torch"`
		Entries []opinfoEntry     `json:"entries"`
		Skipped map[string]string `json:"skipped"`

		data map[string][]byte // dtype -> all its elements
	}
	opinfoEntry struct {
		Name    string         `json:"name"`
		Kind    string         `json:"kind"`
		Samples []opinfoSample `json:"samples"`
	}
	opinfoSample struct {
		Op   string         `json:"op"`
		Args []*opinfoValue `json:"args"`
		Out  []*opinfoValue `json:"out"`
		Grad *struct {
			Weights []*opinfoValue `json:"w"` // of each tensor of Out; nil: it takes no part
			Grads   []*opinfoValue `json:"g"` // of each input that asks for one
		} `json:"grad"`
		Skip []int      `json:"skip"` // tensors of Out whose values are not unique
		Tol  *tolerance `json:"tol"`
	}
	// opinfoValue has one field set; a nil one is None.
	opinfoValue struct {
		Tensor  *opinfoTensor  `json:"t"`
		Tensors []*opinfoValue `json:"tl"`
		Bool    *bool          `json:"b"`
		Int     *int           `json:"i"`
		Float   *jsonFloat     `json:"f"`
		Complex *[2]jsonFloat  `json:"c"`
		String  *string        `json:"s"`
		Bools   []bool         `json:"bl"`
		Ints    []int          `json:"il"`
		Floats  []jsonFloat    `json:"fl"`
		DType   string         `json:"dtype"`
		Layout  string         `json:"layout"`
		Format  string         `json:"format"`
		Device  string         `json:"device"`
	}
	opinfoTensor struct {
		DType  string `json:"d"`
		Shape  []int  `json:"s"`
		Offset int    `json:"o"`
		Stride []int  `json:"st"`
		Grad   bool   `json:"g"`
	}
	tolerance [2]float64 // relative, absolute
	jsonFloat float64
)

// UnmarshalJSON also reads "nan", "inf" and "-inf".
func (f *jsonFloat) UnmarshalJSON(b []byte) error {
	if b[0] != '"' {
		return json.Unmarshal(b, (*float64)(f))
	}
	switch string(b) {
	case `"nan"`:
		*f = jsonFloat(math.NaN())
	case `"inf"`:
		*f = jsonFloat(math.Inf(1))
	case `"-inf"`:
		*f = jsonFloat(math.Inf(-1))
	default:
		return fmt.Errorf("no float: %s", b)
	}
	return nil
}

// The defaults of torch.testing.assert_close; other dtypes are exact.
var tolerances = map[torch.DType]tolerance{
	torch.Float16: {1e-3, 1e-5}, torch.BFloat16: {1.6e-2, 1e-5}, torch.ComplexHalf: {1e-3, 1e-5},
	torch.Float32: {1.3e-6, 1e-5}, torch.Complex64: {1.3e-6, 1e-5},
	torch.Float64: {1e-7, 1e-7}, torch.Complex128: {1e-7, 1e-7},
}

// safetensorsDTypes are the format's names of what the reference has, complex numbers as pairs.
var safetensorsItem = map[string]int{"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "F8_E4M3": 1, "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U8": 1, "BOOL": 1}

func readOpInfo(t *testing.T) *opinfoRef {
	dir := testdata.Open(t, "opinfo")
	text, err := os.ReadFile(filepath.Join(dir, "opinfo.json"))
	require.NoError(t, err)
	ref := &opinfoRef{data: map[string][]byte{}}
	require.NoError(t, json.Unmarshal(text, ref))

	file, err := os.ReadFile(filepath.Join(dir, "opinfo.safetensors"))
	require.NoError(t, err)
	n := 8 + int(binary.LittleEndian.Uint64(file))
	var header map[string]struct {
		DType   string `json:"dtype"`
		Shape   []int  `json:"shape"`
		Offsets [2]int `json:"data_offsets"`
	}
	require.NoError(t, json.Unmarshal(file[8:n], &header))
	for dtype, h := range header {
		require.Len(t, h.Shape, 1)
		require.Equal(t, h.Shape[0]*safetensorsItem[h.DType], h.Offsets[1]-h.Offsets[0], "%s %s", dtype, h.DType)
		ref.data[dtype] = file[n+h.Offsets[0] : n+h.Offsets[1]]
	}
	return ref
}

// bytes are the values of a tensor of the reference, in row-major order.
func (ref *opinfoRef) bytes(x *opinfoTensor) (torch.DType, []byte) {
	dtype, err := torch.ParseDType(x.DType)
	if err != nil {
		panic(err)
	}
	size := dtype.ItemSize()
	return dtype, ref.data[x.DType][x.Offset*size : (x.Offset+product(x.Shape))*size]
}

func product(shape []int) int {
	n := 1
	for _, s := range shape {
		n *= s
	}
	return n
}

// tensor makes a tensor of the reference, with its strides.
func (ref *opinfoRef) tensor(x *opinfoTensor) *torch.Tensor {
	dtype, values := ref.bytes(x)
	if x.Stride == nil {
		return tensorOfBytes(dtype, x.Shape, values)
	}
	// Lay the values out in a flat tensor; overlapping elements have equal values.
	size, span := dtype.ItemSize(), 0
	offsets := make([]int, 0, product(x.Shape))
	var walk func(dim, at int)
	walk = func(dim, at int) {
		if dim == len(x.Shape) {
			offsets = append(offsets, at)
			span = max(span, at+1)
			return
		}
		for i := range x.Shape[dim] {
			walk(dim+1, at+i*x.Stride[dim])
		}
	}
	walk(0, 0)
	flat := make([]byte, span*size)
	for i, at := range offsets {
		copy(flat[at*size:(at+1)*size], values[i*size:])
	}
	base := tensorOfBytes(dtype, []int{span}, flat)
	return torch.Call("aten::as_strided", base, x.Shape, x.Stride, nil)[0].(*torch.Tensor)
}

func tensorOfBytes(dtype torch.DType, shape []int, values []byte) *torch.Tensor {
	x := torch.Call("aten::empty.memory_format", shape, dtype, nil, nil, nil, nil)[0].(*torch.Tensor)
	copy(x.Bytes(), values)
	return x
}

var layouts = map[string]torch.Layout{"strided": torch.Strided}

var formats = map[string]torch.MemoryFormat{
	"contiguous_format": torch.ContiguousFormat, "preserve_format": torch.PreserveFormat,
	"channels_last": torch.ChannelsLast, "channels_last_3d": torch.ChannelsLast3D,
}

// value makes an argument. Inputs whose gradients are recorded are added to leaves.
func (ref *opinfoRef) value(v *opinfoValue, leaves *[]*torch.Tensor) any {
	tensor := func(x *opinfoTensor) *torch.Tensor {
		t := ref.tensor(x)
		if x.Grad && leaves != nil {
			t.SetRequiresGrad(true)
			*leaves = append(*leaves, t)
		}
		return t
	}
	switch {
	case v == nil:
		return nil
	case v.Tensor != nil:
		return tensor(v.Tensor)
	case v.Tensors != nil:
		list := make([]*torch.Tensor, len(v.Tensors))
		for i, x := range v.Tensors {
			if x != nil {
				list[i] = tensor(x.Tensor)
			}
		}
		return list
	case v.Bool != nil:
		return *v.Bool
	case v.Int != nil:
		return *v.Int
	case v.Float != nil:
		return float64(*v.Float)
	case v.Complex != nil:
		return complex(float64(v.Complex[0]), float64(v.Complex[1]))
	case v.String != nil:
		return *v.String
	case v.Bools != nil:
		return v.Bools
	case v.Ints != nil:
		return v.Ints
	case v.Floats != nil:
		list := make([]float64, len(v.Floats))
		for i, x := range v.Floats {
			list[i] = float64(x)
		}
		return list
	case v.DType != "":
		d, err := torch.ParseDType(v.DType)
		if err != nil {
			panic(err)
		}
		return d
	case v.Layout != "":
		return layouts[v.Layout]
	case v.Format != "":
		return formats[v.Format]
	case v.Device != "":
		d, err := torch.ParseDevice(v.Device)
		if err != nil {
			panic(err)
		}
		return d
	}
	panic("a value of no kind")
}

// plain is the tensor's data in row-major order.
func plain(x *torch.Tensor) []byte {
	for _, op := range []string{"aten::detach", "aten::resolve_conj", "aten::resolve_neg"} {
		x = torch.Call(op, x)[0].(*torch.Tensor)
	}
	return slices.Clone(torch.Call("aten::contiguous", x, torch.ContiguousFormat)[0].(*torch.Tensor).Bytes())
}

// numbers decodes floating-point and complex elements; ok is false for other dtypes.
func numbers(dtype torch.DType, b []byte) (v []complex128, ok bool) {
	le := binary.LittleEndian
	part := map[torch.DType]func(b []byte) float64{
		torch.Float16:  func(b []byte) float64 { return float64(half.Float16(le.Uint16(b)).Float32()) },
		torch.BFloat16: func(b []byte) float64 { return float64(half.BFloat16(le.Uint16(b)).Float32()) },
		torch.Float32:  func(b []byte) float64 { return float64(math.Float32frombits(le.Uint32(b))) },
		torch.Float64:  func(b []byte) float64 { return math.Float64frombits(le.Uint64(b)) },
	}
	real, size := dtype, dtype.ItemSize()
	if parts := map[torch.DType]torch.DType{torch.ComplexHalf: torch.Float16, torch.Complex64: torch.Float32, torch.Complex128: torch.Float64}; parts[dtype] != 0 {
		real = parts[dtype]
	}
	decode := part[real]
	if decode == nil {
		return nil, false
	}
	for ; len(b) > 0; b = b[size:] {
		re, im := decode(b), 0.0
		if real != dtype {
			im = decode(b[size/2:])
		}
		v = append(v, complex(re, im))
	}
	return v, true
}

// near is assert_close's rule with equal_nan.
func near(got, want complex128, tol tolerance) bool {
	if cmplx.IsNaN(want) || cmplx.IsInf(want) || cmplx.IsNaN(got) || cmplx.IsInf(got) {
		part := func(g, w float64) bool {
			return g == w || g != g && w != w || math.Abs(g-w) <= tol[1]+tol[0]*math.Abs(w)
		}
		return part(real(got), real(want)) && part(imag(got), imag(want))
	}
	return cmplx.Abs(got-want) <= tol[1]+tol[0]*cmplx.Abs(want)
}

// compare checks a tensor against the reference: dtype, shape and, unless they are not unique, values.
func (ref *opinfoRef) compare(got *torch.Tensor, want *opinfoTensor, own *tolerance, values bool) error {
	dtype, bytes := ref.bytes(want)
	if got.DType() != dtype || !slices.Equal(got.Shape(), want.Shape) {
		return fmt.Errorf("expected %s%v, got %s%v", dtype, want.Shape, got.DType(), got.Shape())
	}
	if !values {
		return nil
	}
	have := plain(got)
	w, inexact := numbers(dtype, bytes)
	if !inexact {
		if !slices.Equal(have, bytes) {
			return fmt.Errorf("%s%v differs: expected bytes % x, got % x", dtype, want.Shape, bytes, have)
		}
		return nil
	}
	tol := tolerances[dtype]
	if own != nil {
		tol = *own
	}
	g, _ := numbers(dtype, have)
	for i := range w {
		if !near(g[i], w[i], tol) {
			return fmt.Errorf("%s%v: element %d: expected %v, got %v", dtype, want.Shape, i, w[i], g[i])
		}
	}
	return nil
}

// flatten lists the tensors of results and of the reference side by side; numbers are compared.
func (ref *opinfoRef) flatten(got []any, want []*opinfoValue) (tensors []*torch.Tensor, refs []*opinfoTensor, err error) {
	if len(got) != len(want) {
		return nil, nil, fmt.Errorf("expected %d results, got %d", len(want), len(got))
	}
	for i, w := range want {
		switch g := got[i].(type) {
		case *torch.Tensor:
			if w == nil || w.Tensor == nil {
				return nil, nil, fmt.Errorf("result %d: a tensor is not expected", i)
			}
			tensors, refs = append(tensors, g), append(refs, w.Tensor)
		case []*torch.Tensor:
			if w == nil || len(w.Tensors) != len(g) || w.Tensors == nil {
				return nil, nil, fmt.Errorf("result %d: %d tensors are not expected", i, len(g))
			}
			for j, x := range g {
				tensors, refs = append(tensors, x), append(refs, w.Tensors[j].Tensor)
			}
		default:
			e := ref.value(w, nil)
			if a, ok := e.(float64); ok {
				b, ok := g.(float64)
				if ok && near(complex(b, 0), complex(a, 0), tolerances[torch.Float64]) {
					continue
				}
			}
			if g != e {
				return nil, nil, fmt.Errorf("result %d: expected %v (%T), got %v (%T)", i, e, e, g, g)
			}
		}
	}
	return tensors, refs, nil
}

// replay runs a sample and compares; grads counts the gradients that were compared.
func (ref *opinfoRef) replay(s *opinfoSample) (grads int, err error) {
	var leaves []*torch.Tensor
	args := make([]any, len(s.Args))
	for i, a := range s.Args {
		args[i] = ref.value(a, &leaves)
	}
	tensors, refs, err := ref.flatten(torch.Call(s.Op, args...), s.Out)
	if err != nil {
		return 0, err
	}
	for i, x := range tensors {
		if err := ref.compare(x, refs[i], s.Tol, !slices.Contains(s.Skip, i)); err != nil {
			return 0, fmt.Errorf("result %d: %w", i, err)
		}
	}
	if s.Grad == nil {
		return 0, nil
	}
	var outputs, weights []*torch.Tensor
	for i, w := range s.Grad.Weights {
		if w != nil {
			outputs, weights = append(outputs, tensors[i]), append(weights, ref.tensor(w.Tensor))
		}
	}
	found := torch.Grad(outputs, leaves, torch.GradOptions{GradOutputs: weights, AllowUnused: true})
	if len(found) != len(s.Grad.Grads) {
		return 0, fmt.Errorf("expected %d gradients, got %d", len(s.Grad.Grads), len(found))
	}
	for i, w := range s.Grad.Grads {
		switch {
		case (w == nil) != (found[i] == nil):
			return grads, fmt.Errorf("gradient %d: expected none: %v, got none: %v", i, w == nil, found[i] == nil)
		case w != nil:
			if err := ref.compare(found[i], w.Tensor, s.Tol, true); err != nil {
				return grads, fmt.Errorf("gradient %d: %w", i, err)
			}
			grads++
		}
	}
	return grads, nil
}

// newGradients are operators whose derivative came, or was corrected, after libtorch 2.11: under
// another version than the recorded one their gradients are not compared.
var newGradients = map[string]string{
	"aten::aminmax":                    "had none",
	"aten::linalg_det":                 "had none for an empty matrix",
	"aten::narrow_copy":                "had none",
	"aten::nextafter":                  "had none",
	"aten::special_bessel_j0":          "had none",
	"aten::special_bessel_j1":          "had none",
	"aten::special_bessel_y0":          "had none",
	"aten::special_bessel_y1":          "had none",
	"aten::special_modified_bessel_i0": "had none",
	"aten::special_modified_bessel_i1": "had none",
	"aten::special_modified_bessel_k0": "had none",
	"aten::special_modified_bessel_k1": "had none",
	"aten::trace":                      "was wrong where there are more rows than columns",
}

// newValues are operators that gave other values then.
var newValues = map[string]string{
	"aten::_scaled_mm": "overflow to float8 gave nan; now it saturates",
}

// PyTorch's own operator database is the examiner: every call that tools/opinfo recorded gives
// Python's results and gradients. Under another libtorch than the recorded one, an operator that it
// lacks or has with another schema is a typed error; everything else still gives the same values.
func TestOpInfo(t *testing.T) {
	require.NoError(t, torch.Load())
	ref := readOpInfo(t)
	same := torch.Version() == ref.Torch
	ran, entries, samples, grads, refused := 0, 0, 0, 0, map[string]bool{}
	kinds := map[string]int{}
	live := torch.LiveTensors()
	for _, e := range ref.Entries {
		t.Run(e.Name, func(t *testing.T) {
			ran++
			passed := false
			for i := range e.Samples {
				s := &e.Samples[i]
				if !same && newValues[s.Op] != "" {
					continue
				}
				if !same && newGradients[s.Op] != "" {
					s.Grad = nil
				}
				var n int
				var err error
				caught := torch.TryDo(func() { torch.Scope(func() { n, err = ref.replay(s) }) })
				if !same && (errors.Is(caught, torch.ErrNoOperator) || errors.Is(caught, torch.ErrSchema)) {
					refused[s.Op] = true
					continue
				}
				if err = errors.Join(err, caught); err != nil {
					t.Errorf("sample %d: %s: %v", i, s.Op, err)
					continue
				}
				passed = true
				samples++
				grads += n
			}
			if passed && !t.Failed() {
				entries++
				kinds[e.Kind]++
			}
		})
	}
	names := make([]string, 0, len(refused))
	for op := range refused {
		names = append(names, op)
	}
	slices.Sort(names)
	t.Logf("libtorch %s: %d of %d entries in %d kinds, %d samples and %d gradients agree with PyTorch %s; refused: %d %s",
		torch.Version(), entries, len(ref.Entries), len(kinds), samples, grads, ref.Torch, len(names), strings.Join(names, " "))
	require.LessOrEqual(t, torch.LiveTensors(), live, "tensors outlived their scopes")
	if ran < len(ref.Entries) {
		return // -run has chosen some
	}
	require.GreaterOrEqual(t, entries, 200, "entries that agree")
	require.Less(t, len(names), 20, "operators that libtorch %s refuses", torch.Version())
}
