package pickle

import (
	"fmt"
	"math/big"
	"math/bits"
	"strings"

	"github.com/torchgo/torchgo/internal/weights"
)

// callable is what the reader knows about a class or function on the list.
type callable struct {
	run     func(m *machine, args Tuple) (Value, error) // nil: it is only ever mentioned
	rebuild bool                                        // makes a tensor: may be an argument of _rebuild_from_type_v2
	class   bool                                        // NEWOBJ without arguments does the same as a call
	data    func(args Tuple) bool                       // a call with such arguments is data: an Opaque value

	storage bool  // a storage class
	dtype   DType // of its elements; "" for untyped
}

// globals is the allow-list: full names and what they stand for. Names that it lacks are refused, or kept as Opaque values; none is
// ever looked up anywhere else.
var globals = func() map[string]Value {
	g := map[string]Value{}
	add := func(full string, c callable) {
		i := strings.LastIndexByte(full, '.')
		g[full] = &Opaque{Module: full[:i], Name: full[i+1:], call: &c}
	}
	for d, info := range dtypes {
		g["torch."+string(d)] = d
		if info.storage != "" {
			for _, module := range []string{"torch.", "torch.cuda."} {
				add(module+info.storage+"Storage", callable{storage: true, dtype: d})
				add(module+info.storage+"Tensor", callable{})
			}
		}
	}
	add("torch.storage.UntypedStorage", callable{storage: true})
	add("torch.storage.TypedStorage", callable{})
	add("torch.Tensor", callable{})
	add("torch.nn.parameter.Parameter", callable{})
	for _, s := range []string{"per_tensor_affine", "per_tensor_symmetric", "per_channel_affine", "per_channel_symmetric", "per_channel_affine_float_qparams"} {
		add("torch."+s, callable{})
	}
	add("torch.Size", callable{run: makeSize})
	add("torch.device", callable{run: makeDevice})
	add("torch.serialization._get_layout", callable{run: makeLayout})
	add("collections.OrderedDict", callable{run: makeDict(OrderedDict), class: true})
	add("collections.Counter", callable{run: makeDict(Counter), class: true})
	add("builtins.set", callable{run: makeSet(false), class: true})
	add("builtins.frozenset", callable{run: makeSet(true), class: true})
	add("builtins.complex", callable{run: makeComplex})
	add("builtins.bytes", callable{run: makeBytes})
	add("builtins.bytearray", callable{run: makeBytes})
	add("_codecs.encode", callable{run: encode})

	add("torch._utils._rebuild_tensor", callable{run: rebuildTensor, rebuild: true})
	add("torch._utils._rebuild_tensor_v2", callable{run: rebuildTensorV2, rebuild: true})
	add("torch._utils._rebuild_tensor_v3", callable{run: rebuildTensorV3, rebuild: true})
	add("torch._utils._rebuild_parameter", callable{run: rebuildParameter, rebuild: true})
	add("torch._utils._rebuild_parameter_with_state", callable{run: rebuildParameterWithState, rebuild: true})
	add("torch._utils._rebuild_device_tensor_from_cpu_tensor", callable{run: rebuildDeviceTensor, rebuild: true})
	add("torch._utils._rebuild_qtensor", callable{run: rebuildQuantized, rebuild: true})
	add("torch._utils._rebuild_sparse_tensor", callable{run: rebuildSparse, rebuild: true})
	add("torch._tensor._rebuild_from_type_v2", callable{run: rebuildFromType})
	for name, what := range map[string]string{
		"torch._utils._rebuild_meta_tensor_no_storage":   "a meta tensor, which has no values",
		"torch._utils._rebuild_wrapper_subclass":         "a tensor subclass that wraps other tensors",
		"torch._utils._rebuild_nested_tensor":            "a nested tensor",
		"torch._utils._rebuild_device_tensor_from_numpy": "a device's tensor saved as a numpy array",
		"torch._utils._rebuild_xla_tensor":               "an XLA tensor saved as a numpy array",
	} {
		add(name, callable{run: unsupported(what), rebuild: true})
	}

	// Classes of data that training checkpoints have. Their objects are Opaque values.
	anything := func(Tuple) bool { return true }
	for _, full := range []string{"argparse.Namespace", "numpy.dtype", "numpy.ndarray"} {
		add(full, callable{data: anything})
	}
	for _, module := range []string{"numpy.core.multiarray.", "numpy._core.multiarray."} {
		add(module+"scalar", callable{data: isNumpyScalar})
		add(module+"_reconstruct", callable{data: isNumpyArray})
	}
	return g
}()

func badArgs(expected string, args ...Value) error {
	kinds := make([]string, min(len(args), 10))
	for i := range kinds {
		kinds[i] = kindOf(args[i])
	}
	return &Error{Class: ErrBadArgs, Expected: expected, Actual: "(" + strings.Join(kinds, ", ") + ")"}
}

func unsupported(what string) func(*machine, Tuple) (Value, error) {
	return func(*machine, Tuple) (Value, error) {
		return nil, &Error{Class: ErrUnsupported, Actual: what}
	}
}

// Values that aren't tensors.

// sequence is the values of a tuple or list.
func sequence(v Value) ([]Value, bool) {
	switch v := v.(type) {
	case Tuple:
		return v, true
	case *List:
		return v.Items, true
	}
	return nil, false
}

func makeSize(m *machine, args Tuple) (Value, error) {
	if len(args) == 1 {
		if vs, ok := sequence(args[0]); ok {
			if err := m.spend(len(vs)); err != nil {
				return nil, err
			}
			s := make(Size, len(vs))
			for i, v := range vs {
				if s[i], ok = v.(int64); !ok {
					return nil, badArgs("integers", v)
				}
			}
			return s, nil
		}
	}
	return nil, badArgs("(tuple)", args...)
}

func makeDevice(_ *machine, args Tuple) (Value, error) {
	if len(args) > 0 {
		kind, ok := args[0].(string)
		if ok && len(args) == 2 {
			n, isInt := args[1].(int64)
			kind, ok = fmt.Sprintf("%s:%d", kind, n), isInt && n >= 0
		}
		if ok && len(args) <= 2 && knownLocation(kind) {
			return Device(kind), nil
		}
	}
	return nil, badArgs("(type of device, index)", args...)
}

func makeLayout(_ *machine, args Tuple) (Value, error) {
	if len(args) == 1 {
		switch name, _ := args[0].(string); name {
		case "torch.strided", "torch.sparse_coo", "torch.sparse_csr", "torch.sparse_csc", "torch.sparse_bsr", "torch.sparse_bsc", "torch.jagged", "torch._mkldnn":
			return &Opaque{Module: "torch", Name: strings.TrimPrefix(name, "torch."), call: &callable{}}, nil
		}
	}
	return nil, badArgs("(layout)", args...)
}

// makeDict takes nothing, a dict, or a list of pairs.
func makeDict(class DictClass) func(*machine, Tuple) (Value, error) {
	return func(m *machine, args Tuple) (Value, error) {
		d := &Dict{Class: class}
		set := func(k, v Value) error {
			if err := m.spendKey(k); err != nil {
				return err
			}
			return d.Set(k, v)
		}
		switch len(args) {
		case 0:
			return d, nil
		case 1:
			if from, ok := args[0].(*Dict); ok {
				if err := m.spend(from.Len()); err != nil {
					return nil, err
				}
				for k, v := range from.Items() {
					if err := set(k, v); err != nil {
						return nil, err
					}
				}
				return d, nil
			}
			if vs, ok := sequence(args[0]); ok && class == OrderedDict {
				if err := m.spend(len(vs)); err != nil {
					return nil, err
				}
				for _, v := range vs {
					pair, ok := sequence(v)
					if !ok || len(pair) != 2 {
						return nil, badArgs("pairs of key and value", v)
					}
					if err := set(pair[0], pair[1]); err != nil {
						return nil, err
					}
				}
				return d, nil
			}
		}
		return nil, badArgs("(), (dict) or (list of pairs)", args...)
	}
}

func makeSet(frozen bool) func(*machine, Tuple) (Value, error) {
	return func(m *machine, args Tuple) (Value, error) {
		s := &Set{Frozen: frozen}
		switch len(args) {
		case 0:
			return s, nil
		case 1:
			if vs, ok := sequence(args[0]); ok {
				if err := m.spend(len(vs)); err != nil {
					return nil, err
				}
				return s, m.fill(s, vs)
			}
		}
		return nil, badArgs("() or (list)", args...)
	}
}

func makeComplex(_ *machine, args Tuple) (Value, error) {
	if len(args) == 2 {
		re, ok := args[0].(float64)
		im, ok2 := args[1].(float64)
		if ok && ok2 {
			return complex(re, im), nil
		}
	}
	return nil, badArgs("(float, float)", args...)
}

// makeBytes is bytes or bytearray of nothing, of bytes, or of a string in Latin-1; not of a length.
func makeBytes(m *machine, args Tuple) (Value, error) {
	switch len(args) {
	case 0:
		return []byte{}, nil
	case 1:
		if p, ok := args[0].([]byte); ok {
			return append([]byte{}, p...), m.spend(len(p))
		}
	case 2:
		return encode(m, args)
	}
	return nil, badArgs("(), (bytes) or (str, 'latin-1')", args...)
}

// encode is how protocol 2 writes bytes: a string of the characters 0 to 255.
func encode(m *machine, args Tuple) (Value, error) {
	if len(args) == 2 {
		s, ok := args[0].(string)
		codec, _ := args[1].(string)
		if ok && (codec == "latin1" || codec == "latin-1") {
			if err := m.spend(len(s)); err != nil {
				return nil, err
			}
			p := make([]byte, 0, len(s))
			for _, r := range s {
				if r > 0xff {
					return nil, &Error{Class: ErrBadArgs, Expected: "characters of Latin-1", Actual: fmt.Sprintf("%q", r)}
				}
				p = append(p, byte(r))
			}
			return p, nil
		}
	}
	return nil, badArgs("(str, 'latin1')", args...)
}

// isNumpyScalar: (dtype, bytes).
func isNumpyScalar(args Tuple) bool {
	if len(args) != 2 {
		return false
	}
	d, ok := args[0].(*Opaque)
	_, ok2 := args[1].([]byte)
	return ok && ok2 && d.String() == "numpy.dtype" && d.Args != nil
}

// isNumpyArray: (class, (0,), b"b"), as it is before BUILD gives it version, shape, dtype, order and bytes.
func isNumpyArray(args Tuple) bool {
	if len(args) != 3 {
		return false
	}
	class, ok := args[0].(*Opaque)
	return ok && class.String() == "numpy.ndarray" && class.Args == nil
}

// Tensors.

// rebuildTensor: (storage, offset, size, stride).
func rebuildTensor(m *machine, args Tuple) (Value, error) {
	if len(args) != 4 {
		return nil, badArgs("4 arguments", args...)
	}
	s, ok := args[0].(*Storage)
	if !ok {
		return nil, badArgs("a storage first", args...)
	}
	return m.view(s, s.DType, args[1:4])
}

// rebuildTensorV2: (storage, offset, size, stride, requires_grad, hooks[, metadata]).
func rebuildTensorV2(m *machine, args Tuple) (Value, error) {
	if len(args) != 6 && len(args) != 7 {
		return nil, badArgs("6 or 7 arguments", args...)
	}
	s, ok := args[0].(*Storage)
	if !ok {
		return nil, badArgs("a storage first", args...)
	}
	return m.viewWith(s, s.DType, args[1:4], args[4], args[5], args[6:])
}

// rebuildTensorV3: (storage, offset, size, stride, requires_grad, hooks, dtype[, metadata]).
func rebuildTensorV3(m *machine, args Tuple) (Value, error) {
	if len(args) != 7 && len(args) != 8 {
		return nil, badArgs("7 or 8 arguments", args...)
	}
	s, ok := args[0].(*Storage)
	d, ok2 := args[6].(DType)
	if !ok || !ok2 {
		return nil, badArgs("a storage first, a dtype seventh", args...)
	}
	return m.viewWith(s, d, args[1:4], args[4], args[5], args[7:])
}

func (m *machine) viewWith(s *Storage, d DType, place Tuple, grad, hooks Value, metadata Tuple) (*Tensor, error) {
	t, err := m.view(s, d, place)
	if err != nil {
		return nil, err
	}
	if err := t.setGrad(grad, hooks); err != nil {
		return nil, err
	}
	if len(metadata) == 1 && metadata[0] != nil {
		bits, ok := metadata[0].(*Dict)
		if !ok {
			return nil, badArgs("a dict as metadata", metadata...)
		}
		for k, v := range bits.Items() {
			set, isBool := v.(bool)
			switch {
			case isBool && k == "conj" && (!set || d.isComplex()):
				t.Conj = set
			case isBool && k == "neg" && (!set || d.signed()):
				t.Neg = set
			default:
				return nil, badArgs("conj and neg as metadata", k, v)
			}
		}
	}
	return t, nil
}

// setGrad takes the arguments that a tensor and a parameter share. Hooks are never kept.
func (t *Tensor) setGrad(grad, hooks Value) error {
	g, ok := grad.(bool)
	if _, isDict := hooks.(*Dict); !ok || !isDict && hooks != nil || g && !t.DType.hasGrad() {
		return badArgs("requires_grad that is false or of a float tensor, and a dict of hooks", grad, hooks)
	}
	t.RequiresGrad = g
	return nil
}

// maxExpandBytes is how large a tensor may be that repeats elements of a smaller storage.
const maxExpandBytes = 1 << 30

// view is the tensor of dtype d at place, (offset, size, stride), in a storage. All of it is checked here.
func (m *machine) view(s *Storage, d DType, place Tuple) (*Tensor, error) {
	if d == "" {
		return nil, badArgs("a storage with a dtype", s)
	}
	shape, err := ints(place[1], "size")
	if err != nil {
		return nil, err
	}
	strides, err := ints(place[2], "stride")
	if err != nil {
		return nil, err
	}
	if len(shape) != len(strides) {
		return nil, &Error{Class: ErrBadShape, Expected: fmt.Sprintf("a stride for each of %d dimensions", len(shape)), Actual: fmt.Sprint(len(strides))}
	}
	start, err := integer(place[0], "offset", ErrBounds)
	if err != nil {
		return nil, err
	}
	if err := m.spend(16 + 2*len(shape)); err != nil {
		return nil, err
	}
	t := &Tensor{DType: d, Shape: shape, Strides: strides, Start: start, Storage: s}
	if err := t.check(); err != nil {
		return nil, err
	}
	return t, m.tensor(t)
}

// place says in errors where a tensor is.
func (t *Tensor) place() string {
	return fmt.Sprintf("%.300s by %.300s from %d", fmt.Sprint(t.Shape), fmt.Sprint(t.Strides), t.Start)
}

// check checks that a tensor lies in its storage.
func (t *Tensor) check() error {
	size := int64(dtypes[t.DType].bytes)
	n := int64(1)
	for i, d := range t.Shape {
		if d < 0 || t.Strides[i] < 0 {
			return &Error{Class: ErrBadShape, Expected: "sizes and strides of at least 0", Actual: t.place()}
		}
		if hi, lo := bits.Mul64(uint64(n), uint64(d)); hi != 0 || lo > 1<<62/16 {
			return &Error{Class: ErrBadShape, Detail: "the number of elements overflows", Actual: fmt.Sprint(t.Shape)}
		} else {
			n = int64(lo)
		}
	}
	outside := func() error {
		return &Error{Class: ErrBounds, Expected: fmt.Sprintf("a view in %d bytes of %s", t.Storage.Bytes, t.DType), Actual: t.place()}
	}
	if t.Start < 0 {
		return outside()
	}
	if n == 0 {
		return nil
	}
	have := uint64(t.Storage.Bytes / size)
	last := uint64(t.Start)
	for i, d := range t.Shape {
		hi, step := bits.Mul64(uint64(d-1), uint64(t.Strides[i]))
		sum, carry := bits.Add64(last, step, 0)
		if hi != 0 || carry != 0 {
			return outside()
		}
		last = sum
	}
	if last >= have {
		return outside()
	}
	if n*size > max(t.Storage.Bytes, maxExpandBytes) {
		return &Error{Class: ErrLimit, Detail: "a small storage expanded", Expected: fmt.Sprintf("at most %d bytes", maxExpandBytes), Actual: fmt.Sprintf("%v of %s", t.Shape, t.DType)}
	}
	return nil
}

// ints is the size or stride of a tensor.
func ints(v Value, what string) ([]int, error) {
	if s, ok := v.(Size); ok {
		t := make(Tuple, min(len(s), weights.MaxDims+1))
		for i := range t {
			t[i] = s[i]
		}
		v = t
	}
	vs, ok := sequence(v)
	if !ok {
		return nil, badArgs(what+" that is a tuple", v)
	}
	if len(vs) > weights.MaxDims {
		return nil, &Error{Class: ErrBadShape, Expected: fmt.Sprintf("at most %d dimensions", weights.MaxDims), Actual: fmt.Sprint(len(vs))}
	}
	out := make([]int, len(vs))
	for i, v := range vs {
		n, err := integer(v, what, ErrBadShape)
		if err != nil {
			return nil, err
		}
		out[i] = n
	}
	return out, nil
}

// integer is an int that the host can count with; a larger one is an error of the given class.
func integer(v Value, what string, class error) (int, error) {
	switch n := v.(type) {
	case int64:
		if int64(int(n)) == n {
			return int(n), nil
		}
		return 0, &Error{Class: class, Detail: what, Actual: fmt.Sprint(n)}
	case *big.Int:
		return 0, &Error{Class: class, Detail: what, Expected: "64 bits", Actual: fmt.Sprint(n.BitLen())}
	}
	return 0, badArgs(what+" of integers", v)
}

// again is a tensor on the same elements as another.
func again(v Value) (*Tensor, bool) {
	t, ok := v.(*Tensor)
	if !ok {
		return nil, false
	}
	c := *t
	return &c, true
}

// rebuildParameter: (tensor, requires_grad, hooks).
func rebuildParameter(m *machine, args Tuple) (Value, error) {
	if len(args) == 3 {
		if t, ok := again(args[0]); ok {
			t.Parameter = true
			if err := t.setGrad(args[1], args[2]); err != nil {
				return nil, err
			}
			return t, m.tensor(t)
		}
	}
	return nil, badArgs("(tensor, requires_grad, hooks)", args...)
}

// rebuildParameterWithState: (tensor, requires_grad, hooks, state).
func rebuildParameterWithState(m *machine, args Tuple) (Value, error) {
	if len(args) != 4 {
		return nil, badArgs("(tensor, requires_grad, hooks, state)", args...)
	}
	v, err := rebuildParameter(m, args[:3])
	if err != nil {
		return nil, err
	}
	v.(*Tensor).State = args[3]
	return v, nil
}

// rebuildFromType: (function, class, its arguments, attributes).
func rebuildFromType(m *machine, args Tuple) (Value, error) {
	if len(args) == 4 {
		fn, ok := args[0].(*Opaque)
		cls, ok2 := args[1].(*Opaque)
		inner, ok3 := args[2].(Tuple)
		if ok && ok2 && ok3 && fn.Args == nil && fn.call != nil && fn.call.rebuild && cls.Args == nil {
			v, err := fn.call.run(m, inner)
			if err != nil {
				return nil, err
			}
			t := v.(*Tensor)
			t.State = args[3]
			t.Parameter = t.Parameter || cls.String() == "torch.nn.parameter.Parameter"
			return t, nil
		}
	}
	return nil, badArgs("(function that makes a tensor, class, its arguments, attributes)", args...)
}

// rebuildDeviceTensor: (tensor, dtype, device, requires_grad): tensors of devices that are saved from the CPU.
func rebuildDeviceTensor(m *machine, args Tuple) (Value, error) {
	if len(args) == 4 {
		t, ok := again(args[0])
		d, ok2 := args[1].(DType)
		_, ok3 := args[2].(string)
		if ok && ok2 && ok3 {
			if d != t.DType {
				return nil, &Error{Class: ErrUnsupported, Actual: fmt.Sprintf("a device's %s tensor saved as %s", d, t.DType)}
			}
			if err := t.setGrad(args[3], nil); err != nil {
				return nil, err
			}
			return t, m.tensor(t)
		}
	}
	return nil, badArgs("(tensor, dtype, device, requires_grad)", args...)
}

// rebuildQuantized: (storage, offset, size, stride, quantizer, requires_grad, hooks).
func rebuildQuantized(m *machine, args Tuple) (Value, error) {
	if len(args) != 7 {
		return nil, badArgs("7 arguments", args...)
	}
	s, ok := args[0].(*Storage)
	if !ok {
		return nil, badArgs("a storage first", args...)
	}
	t, err := m.view(s, s.DType, args[1:4])
	if err != nil {
		return nil, err
	}
	return nil, &Error{Class: ErrUnsupported, Actual: fmt.Sprintf("a quantized tensor, %s %v", t.DType, t.Shape), Remedy: "dequantize it before it is saved"}
}

// maxIndexBytes is how much of a sparse tensor's indices is looked at to tell a damaged one from one that is only unsupported.
const maxIndexBytes = 1 << 20

// rebuildSparse: (layout, (indices, values, size[, is_coalesced])), or with two kinds of indices.
func rebuildSparse(m *machine, args Tuple) (Value, error) {
	if len(args) != 2 {
		return nil, badArgs("(layout, data)", args...)
	}
	layout, ok := args[0].(*Opaque)
	data, ok2 := args[1].(Tuple)
	if !ok || !ok2 || layout.Module != "torch" {
		return nil, badArgs("(layout, data)", args...)
	}
	refused := &Error{Class: ErrUnsupported, Actual: "a sparse tensor, " + layout.Name, Remedy: "save it dense"}
	if layout.Name != "sparse_coo" {
		return nil, refused
	}
	if len(data) != 3 && len(data) != 4 {
		return nil, badArgs("(indices, values, size, is_coalesced)", data...)
	}
	indices, ok := data[0].(*Tensor)
	_, ok2 = data[1].(*Tensor)
	if !ok || !ok2 || indices.DType != "int64" || len(indices.Shape) != 2 {
		return nil, badArgs("(indices, values, size, is_coalesced)", data...)
	}
	size, err := ints(data[2], "size")
	if err != nil {
		return nil, err
	}
	for _, d := range size {
		if d < 0 {
			return nil, &Error{Class: ErrBadShape, Expected: "sizes of at least 0", Actual: fmt.Sprint(size)}
		}
	}
	if indices.Shape[0] > len(size) {
		return nil, &Error{Class: ErrBadShape, Expected: fmt.Sprintf("%d dimensions", len(size)), Actual: fmt.Sprint(indices.Shape[0])}
	}
	if indices.Storage.Data == nil || indices.Shape[0] == 0 || indices.Shape[1] == 0 || m.spend(maxIndexBytes/1024) != nil {
		return nil, refused
	}
	buf := make([]byte, min(maxIndexBytes, 8*indices.Shape[0]*indices.Shape[1]))
	if err := gather(indices, buf, 0); err != nil {
		return nil, err
	}
	for i := 0; i < len(buf)/8; i++ {
		if v, d := int64(le.Uint64(buf[8*i:])), size[i/indices.Shape[1]]; v < 0 || v >= int64(d) {
			return nil, &Error{Class: ErrBounds, Detail: "indices of a sparse tensor", Expected: fmt.Sprintf("0 to %d", d-1), Actual: fmt.Sprint(v)}
		}
	}
	return nil, refused
}

// knownLocation reports whether a storage or device was where torch has some.
func knownLocation(s string) bool {
	kind := strings.TrimRight(s, "0123456789")
	if kind != s {
		kind = strings.TrimSuffix(kind, ":")
	}
	switch kind {
	case "cpu", "cuda", "hip", "mps", "xpu", "hpu", "mtia", "xla", "npu", "maia", "ipu", "vulkan", "privateuseone", "meta":
		return true
	}
	return false
}
