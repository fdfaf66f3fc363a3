package pickle

import (
	"fmt"
	"io"
	"iter"
	"math"
	"math/big"
	"strings"

	"github.com/torchgo/torchgo/internal/fileerr"
)

// Value is an object of a pickle as data. It is one of
//
//	nil, bool, int64, *big.Int (what int64 can't hold), float64, complex128, string, []byte (bytes and bytearray),
//	Tuple, *List, *Dict, *Set, *Tensor, *Storage, DType, Device, Size, *Opaque
//
// Lists, dicts, sets, tensors and opaque values are pointers, and the same pointer at two places is the same object,
// as in Python.
type Value any

// Tuple is a tuple. It is not to be changed.
type Tuple []Value

// List is a list.
type List struct{ Items []Value }

// DType is a torch.dtype by its name in torch: "float32", "float8_e4m3fn", "qint8".
type DType string

// Device is a torch.device: "cpu", "cuda:1".
type Device string

// Size is a torch.Size.
type Size []int64

// Opaque is a class or function by its name, or what it made: an object of a class that this package doesn't know. Nothing
// of it was run.
type Opaque struct {
	Module, Name string
	Args         Tuple   // of the call that makes the object; nil if this is the class or function itself
	State        Value   // what the object was given afterwards (__setstate__ or __dict__); nil if nothing was
	Items        []Value // of an object that is a list
	Entries      Dict    // of an object that is a dict

	call *callable // what is known about the class or function
}

// String is the full name.
func (o *Opaque) String() string { return o.Module + "." + o.Name }

// Storage is a run of bytes that tensors are views of: tensors with the same *Storage share memory.
type Storage struct {
	DType    DType       // of its elements; "" for an UntypedStorage
	Bytes    int64       // its size
	Location string      // where it was when it was saved: "cpu", "cuda:0"
	Data     io.ReaderAt // its Bytes bytes, elements little-endian

	Key     string // its name in the file that it was read from
	Offset  int64  // of its first byte in that file
	swapped bool   // the file has its elements big-endian
}

// Tensor is a view of a storage.
type Tensor struct {
	DType        DType
	Shape        []int
	Strides      []int // in elements, one for a dimension
	Start        int   // index of the first element in the storage, in elements of DType
	Storage      *Storage
	RequiresGrad bool
	Parameter    bool  // an nn.Parameter
	Conj, Neg    bool  // the values are the conjugates, negatives, of what is in the storage
	State        Value // Python attributes of the tensor; nil if it has none
}

// DictClass tells dict from its subclasses.
type DictClass uint8

// The mappings that torch.load(weights_only=True) accepts.
const (
	PlainDict   DictClass = iota
	OrderedDict           // collections.OrderedDict: state dicts
	Counter               // collections.Counter
)

// Item is an entry of a Dict.
type Item struct{ Key, Value Value }

// Dict is a mapping in the order of insertion. The zero value is an empty dict.
type Dict struct {
	Class DictClass
	State Value // attributes of an OrderedDict, as a *Dict: _metadata of a state dict; nil if it has none

	items []Item
	index map[any]int // hash key → position; made when the dict outgrows a linear search
}

// Set is a set in the order of insertion. The zero value is an empty set.
type Set struct {
	Frozen bool // a frozenset

	dict Dict
}

// Len is the number of entries.
func (d *Dict) Len() int { return len(d.items) }

// Items gives the entries in order.
func (d *Dict) Items() iter.Seq2[Value, Value] {
	return func(yield func(Value, Value) bool) {
		for _, it := range d.items {
			if !yield(it.Key, it.Value) {
				return
			}
		}
	}
}

// Get finds the value of a key; as in Python, 1, 1.0 and True are the same key.
func (d *Dict) Get(key Value) (Value, bool) {
	h, err := hash(key)
	if err != nil {
		return nil, false
	}
	if i := d.find(h); i >= 0 {
		return d.items[i].Value, true
	}
	return nil, false
}

// Set gives a key a value. A key that is there keeps its place. The error is ErrBadArgs: not every value can be a key.
func (d *Dict) Set(key, value Value) error {
	h, err := hash(key)
	if err != nil {
		return err
	}
	if i := d.find(h); i >= 0 {
		d.items[i].Value = value
		return nil
	}
	d.items = append(d.items, Item{key, value})
	switch n := len(d.items); {
	case d.index != nil:
		d.index[h] = n - 1
	case n > linear || isTuple(h):
		d.index = make(map[any]int, 2*n)
		for i, it := range d.items {
			h, _ := hash(it.Key) // it was hashed when it came in
			d.index[h] = i
		}
	}
	return nil
}

// isTuple: hashing such a key is work.
func isTuple(h any) bool {
	_, ok := h.(tupleKey)
	return ok
}

// linear is the number of entries up to which a dict is searched from end to end.
const linear = 8

func (d *Dict) find(h any) int {
	if d.index != nil {
		if i, ok := d.index[h]; ok {
			return i
		}
		return -1
	}
	for i, it := range d.items {
		if k, _ := hash(it.Key); k == h {
			return i
		}
	}
	return -1
}

// Len is the number of elements.
func (s *Set) Len() int { return s.dict.Len() }

// Items gives the elements in order.
func (s *Set) Items() iter.Seq[Value] {
	return func(yield func(Value) bool) {
		for _, it := range s.dict.items {
			if !yield(it.Key) {
				return
			}
		}
	}
}

// Has reports whether v is an element.
func (s *Set) Has(v Value) bool {
	_, ok := s.dict.Get(v)
	return ok
}

// Add adds an element. The error is ErrBadArgs: not every value can be one.
func (s *Set) Add(v Value) error { return s.dict.Set(v, nil) }

// maxKeyNodes bounds the work of comparing a key that is a tuple of tuples.
const maxKeyNodes = 1000

// hash is a comparable value that is equal for equal keys. Tensors and opaque values are keys by identity.
func hash(key Value) (any, error) {
	switch k := key.(type) {
	case nil:
		return none{}, nil
	case string, int64, DType, Device, *Tensor, *Storage, *Opaque:
		return k, nil
	case bool:
		if k {
			return int64(1), nil
		}
		return int64(0), nil
	case float64:
		if i := int64(k); k >= -1<<63 && k < 1<<63 && float64(i) == k {
			return i, nil
		}
		return k, nil
	case complex128:
		if imag(k) == 0 {
			return hash(real(k))
		}
		return k, nil
	case *big.Int:
		if k.IsInt64() {
			return k.Int64(), nil
		}
		if f, exact := k.Float64(); exact == big.Exact && !math.IsInf(f, 0) {
			return f, nil
		}
		return bigKey(k.Text(62)), nil
	case []byte:
		return bytesKey(k), nil
	case *Set:
		if k.Frozen { // by identity, though Python compares the elements
			return k, nil
		}
	case Tuple, Size:
		var b strings.Builder
		budget := maxKeyNodes
		if err := hashInto(&b, k, &budget); err != nil {
			return nil, err
		}
		return tupleKey(b.String()), nil
	}
	return nil, &Error{Class: ErrBadArgs, Detail: "a key of a dict or set", Expected: "a hashable value", Actual: kindOf(key)}
}

type (
	none     struct{}
	bigKey   string
	bytesKey string
	tupleKey string
)

// hashInto writes what tells a key from all others, elements of tuples included.
func hashInto(b *strings.Builder, v Value, budget *int) error {
	if *budget--; *budget < 0 {
		return &Error{Class: ErrLimit, Detail: "a tuple as a key", Expected: fmt.Sprintf("at most %d values in it", maxKeyNodes)}
	}
	switch k := v.(type) {
	case Tuple:
		b.WriteByte('(')
		for _, e := range k {
			if err := hashInto(b, e, budget); err != nil {
				return err
			}
		}
		b.WriteByte(')')
		return nil
	case Size: // equal to a tuple of its numbers
		b.WriteByte('(')
		for _, n := range k {
			if err := hashInto(b, n, budget); err != nil {
				return err
			}
		}
		b.WriteByte(')')
		return nil
	}
	h, err := hash(v)
	if err != nil {
		return err
	}
	switch h := h.(type) {
	case *Tensor, *Storage, *Opaque, *Set:
		fmt.Fprintf(b, "%T:%p;", h, h)
	case float64:
		fmt.Fprintf(b, "float64:%x;", math.Float64bits(h))
	default:
		s := fmt.Sprint(h)
		fmt.Fprintf(b, "%T:%d:%s;", h, len(s), s)
	}
	return nil
}

// brief shows a value in errors: numbers and strings themselves, of others the type.
func brief(v Value) string {
	switch v := v.(type) {
	case string:
		return fmt.Sprintf("%.60q", v)
	case int64:
		return fmt.Sprint(v)
	}
	return kindOf(v)
}

// kindOf names the type of a value in errors, in Python's words.
func kindOf(v Value) string {
	switch v := v.(type) {
	case nil:
		return "None"
	case bool:
		return "bool"
	case int64, *big.Int:
		return "int"
	case float64:
		return "float"
	case complex128:
		return "complex"
	case string:
		return "str"
	case []byte:
		return "bytes"
	case Tuple:
		return "tuple"
	case *List:
		return "list"
	case *Dict:
		return [...]string{"dict", "OrderedDict", "Counter"}[v.Class]
	case *Set:
		return "set"
	case *Tensor:
		return "tensor"
	case *Storage:
		return "storage"
	case DType:
		return "torch.dtype"
	case Device:
		return "torch.device"
	case Size:
		return "torch.Size"
	case *Opaque:
		return fileerr.Plain(fmt.Sprintf("%.100s", v.String()))
	}
	return fmt.Sprintf("%T", v)
}
