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
		Torch      string            `json:"torch"`
		Entries    []opinfoEntry     `json:"entries"`
		Skipped    map[string]string `json:"skipped"`     // have an operator, but there is no reference; why
		NoOperator map[string]string `json:"no_operator"` // call no operator of the dispatcher; why

		data map[string][]byte // dtype -> all its elements
	}
	opinfoEntry struct {
		Name    string         `json:"name"`
		Kind    string         `json:"kind"`
		Samples []opinfoSample `json:"samples"`
	}
	// opinfoSample is a program: values are numbered, first the inputs, then what call after call
	// gives, lists taken apart.
	opinfoSample struct {
		In      []*opinfoTensor `json:"in"`
		Calls   []opinfoCall    `json:"calls"`
		Results []int           `json:"r"` // values that are the results
		Out     []*opinfoValue  `json:"out"`
		Seed    *uint64         `json:"seed"` // set where the results are random
		Grad    *struct {
			Weights []*opinfoValue `json:"w"` // of each tensor of Out; nil: it takes no part
			Grads   []*opinfoValue `json:"g"` // of each input that asks for one
		} `json:"grad"`
		Skip []int      `json:"skip"` // tensors of Out whose values are not unique
		Tol  *tolerance `json:"tol"`
	}
	opinfoCall struct {
		Op   string         `json:"op"`
		Args []*opinfoValue `json:"args"`
	}
	// opinfoValue has one field set; a nil one is None.
	opinfoValue struct {
		Value   *int           `json:"v"` // of the program
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
var safetensorsItem = map[string]int{"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "F8_E4M3": 1, "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U8": 1, "BOOL": 1, "U64": 8}

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

var layouts = map[string]torch.Layout{
	"strided": torch.Strided, "sparse_coo": torch.Sparse, "sparse_csr": torch.SparseCSR,
}

var formats = map[string]torch.MemoryFormat{
	"contiguous_format": torch.ContiguousFormat, "preserve_format": torch.PreserveFormat,
	"channels_last": torch.ChannelsLast, "channels_last_3d": torch.ChannelsLast3D,
}

// value makes an argument, given the program's values.
func (ref *opinfoRef) value(v *opinfoValue, values []any) any {
	switch {
	case v == nil:
		return nil
	case v.Value != nil:
		return values[*v.Value]
	case v.Tensor != nil:
		return ref.tensor(v.Tensor)
	case v.Tensors != nil:
		list := make([]*torch.Tensor, len(v.Tensors))
		for i, x := range v.Tensors {
			if x != nil {
				list[i] = ref.value(x, values).(*torch.Tensor)
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
	if x.DataPtr() == nil { // empty, or zeros without memory, as autograd makes them
		return make([]byte, x.Numel()*x.DType().ItemSize())
	}
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

// flatten takes the lists among results apart.
func flatten(results []any) (flat []any) {
	for _, r := range results {
		switch list := r.(type) {
		case []*torch.Tensor:
			for _, x := range list {
				flat = append(flat, x)
			}
		case []int:
			for _, x := range list {
				flat = append(flat, x)
			}
		default:
			flat = append(flat, r)
		}
	}
	return flat
}

// equal compares a result that is no tensor.
func (ref *opinfoRef) equal(got any, want *opinfoValue) error {
	w := ref.value(want, nil)
	if a, ok := w.(float64); ok {
		if b, ok := got.(float64); ok && near(complex(b, 0), complex(a, 0), tolerances[torch.Float64]) {
			return nil
		}
	}
	if got != w {
		return fmt.Errorf("expected %v (%T), got %v (%T)", w, w, got, got)
	}
	return nil
}

// replay runs a sample and compares; grads counts the gradients that were compared.
func (ref *opinfoRef) replay(s *opinfoSample) (grads int, err error) {
	var values []any
	var leaves []*torch.Tensor
	for _, in := range s.In {
		x := ref.tensor(in)
		if in.Grad && s.Grad != nil {
			x.SetRequiresGrad(true)
			leaves = append(leaves, x)
		}
		values = append(values, x)
	}
	if s.Seed != nil {
		torch.ManualSeed(*s.Seed)
	}
	for _, c := range s.Calls {
		args := make([]any, len(c.Args))
		for i, a := range c.Args {
			args[i] = ref.value(a, values)
		}
		values = append(values, flatten(torch.Call(c.Op, args...))...)
	}
	results := make([]*torch.Tensor, len(s.Out)) // nil where it is no tensor
	for i, want := range s.Out {
		got, ok := values[s.Results[i]].(*torch.Tensor)
		switch {
		case ok != (want != nil && want.Tensor != nil):
			err = fmt.Errorf("expected a tensor: %v, got a tensor: %v", !ok, ok)
		case ok:
			results[i] = got
			err = ref.compare(got, want.Tensor, s.Tol, !slices.Contains(s.Skip, i))
		default:
			err = ref.equal(values[s.Results[i]], want)
		}
		if err != nil {
			return 0, fmt.Errorf("result %d: %w", i, err)
		}
	}
	if s.Grad == nil {
		return 0, nil
	}
	var outputs, weights []*torch.Tensor
	for i, w := range s.Grad.Weights {
		if w != nil {
			outputs, weights = append(outputs, results[i]), append(weights, ref.tensor(w.Tensor))
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

// ops names the operators of a sample.
func (s *opinfoSample) ops() string {
	var names []string
	for _, c := range s.Calls {
		names = append(names, c.Op)
	}
	return strings.Join(names, " ")
}

// in tells whether a table has one of the sample's operators, alone, with the dtype of its result or with
// empty inputs; or one of these for all operators, or for all of fft.
func (s *opinfoSample) in(table map[string]string) bool {
	kinds := []string{""}
	if s.Out[0] != nil && s.Out[0].Tensor != nil {
		kinds = append(kinds, " "+s.Out[0].Tensor.DType)
	}
	if slices.ContainsFunc(s.In, func(in *opinfoTensor) bool { return product(in.Shape) == 0 }) {
		kinds = append(kinds, " empty")
	}
	for _, kind := range kinds {
		if table["*"+kind] != "" || slices.ContainsFunc(s.Calls, func(c opinfoCall) bool {
			return table[c.Op+kind] != "" || strings.HasPrefix(c.Op, "aten::fft_") && table["fft"+kind] != ""
		}) {
			return true
		}
	}
	return false
}

// newGradients are operators whose derivative came, or was corrected, after libtorch 2.11: under
// another version than the recorded one their gradients are not compared.
var newGradients = map[string]string{
	"* bfloat16":                       "were rounded in other places",
	"aten::nan_to_num complex64":       "had none",
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

// newValues are operators that gave other values then, all of them or those of one dtype.
var newValues = map[string]string{
	"fft empty":                           "MKL of 2.11 refuses a batch of none in some processes",
	"aten::_scaled_mm":                    "overflow to float8 gave nan; now it saturates",
	"aten::_scaled_mm_v2":                 "ran on CUDA only",
	"aten::arange.start_step int64":       "computed the number of elements of a fractional step otherwise",
	"aten::feature_dropout complex64":     "was not implemented",
	"aten::normal.Tensor_Tensor bfloat16": "drew other numbers",
	"aten::normal_ bfloat16":              "drew other numbers",
	"aten::rand_like bfloat16":            "drew other numbers",
	"aten::randn bfloat16":                "drew other numbers",
	"aten::randn_like bfloat16":           "drew other numbers",
	"aten::trace bfloat16":                "was not implemented",
	"aten::uniform_ bfloat16":             "drew other numbers",
}

// opinfoSize is the number of entries of op_db in torch 2.15.0.
const opinfoSize = 703

// opinfoSkipped are the entries that have an operator but are not compared, with the reason.
var opinfoSkipped = map[string]string{
	"nn.functional.batch_norm/without_cudnn":      "there is a kernel for CUDA only",
	"torch.ops.aten._efficient_attention_forward": "there is a kernel for CUDA only",
	"torch.ops.aten._flash_attention_forward":     "there is a kernel for CUDA only",
}

// opinfoNoOperator are the entries that call no operator of the dispatcher.
var opinfoNoOperator = map[string]string{
	"broadcast_shapes":                  "no tensor in or out",
	"jiterator_2inputs_2outputs":        "compiles a CUDA kernel from text",
	"jiterator_4inputs_with_extra_args": "compiles a CUDA kernel from text",
	"jiterator_binary":                  "compiles a CUDA kernel from text",
	"jiterator_binary_return_by_ref":    "compiles a CUDA kernel from text",
	"jiterator_unary":                   "compiles a CUDA kernel from text",
}

// PyTorch's own operator database is the examiner: the calls that tools/opinfo recorded for
// each entry give Python's results and gradients. Under another libtorch than the recorded one, an operator that it
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
				if !same && s.in(newValues) {
					continue
				}
				if !same && s.in(newGradients) {
					s.Grad = nil
				}
				var n int
				var err error
				caught := torch.TryDo(func() { torch.Scope(func() { n, err = ref.replay(s) }) })
				if !same && (errors.Is(caught, torch.ErrNoOperator) || errors.Is(caught, torch.ErrSchema)) {
					var e *torch.Error
					require.ErrorAs(t, caught, &e)
					refused[e.Op] = true
					continue
				}
				if err = errors.Join(err, caught); err != nil {
					t.Errorf("sample %d: %s: %v", i, s.ops(), err)
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
	if !same {
		require.GreaterOrEqual(t, 100*entries, 95*len(ref.Entries), "entries that agree")
		require.Less(t, len(names), 20, "operators that libtorch %s refuses", torch.Version())
		return
	}
	// All of op_db: what agrees, and the rest by name with its reason.
	require.Equal(t, opinfoSize, len(ref.Entries)+len(ref.Skipped)+len(ref.NoOperator))
	require.Equal(t, len(ref.Entries), entries, "entries that agree")
	require.Equal(t, opinfoSkipped, ref.Skipped)
	require.Equal(t, opinfoNoOperator, ref.NoOperator)
	require.Empty(t, names, "refused operators")
	require.GreaterOrEqual(t, 100*entries, 95*(opinfoSize-len(ref.NoOperator)), "entries that agree, of those with an operator")
}
