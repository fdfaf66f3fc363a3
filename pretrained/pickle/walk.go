package pickle

import (
	"fmt"
	"math/big"
	"slices"
	"strconv"

	"github.com/torchgo/torchgo/internal/weights"
)

// entry is a tensor at a place in the object.
type entry struct {
	name string
	t    *Tensor
}

// weigher measures an object before anything walks it: a few bytes of pickle can make 2^100 values, or a dict that is in itself.
type weigher struct {
	seen map[any]weight // by pointer
}

// weight is what a walk of a value meets, counted as often as it meets it.
type weight struct{ values, tensors int64 }

// identity is the pointer of a value that can be at two places, nil for others.
func identity(v Value) any {
	switch v := v.(type) {
	case Tuple:
		if len(v) > 0 {
			return &v[0]
		}
	case *List, *Dict, *Set, *Tensor, *Opaque:
		return v
	}
	return nil
}

var errCycle = &Error{Class: ErrLimit, Detail: "an object that is in itself"}

// weigh measures v, which is depth levels below the root.
func (w *weigher) weigh(v Value, depth int) (weight, error) {
	id := identity(v)
	if id == nil {
		return weight{values: 1}, nil
	}
	if known, ok := w.seen[id]; ok {
		if known.values == 0 { // it is being weighed
			e := *errCycle
			return weight{}, &e
		}
		return known, nil
	}
	if depth > MaxDepth {
		return weight{}, &Error{Class: ErrLimit, Detail: "depth of the object", Expected: fmt.Sprintf("at most %d lists, dicts and tuples in each other", MaxDepth)}
	}
	w.seen[id] = weight{}
	sum := weight{values: 1}
	add := func(v Value, named bool) error {
		part, err := w.weigh(v, depth+1)
		sum.values += part.values
		if named {
			sum.tensors += part.tensors
		}
		if err == nil && sum.values > MaxValues {
			err = &Error{Class: ErrLimit, Detail: "values in the object", Expected: fmt.Sprintf("at most %d", MaxValues), Actual: "more"}
		}
		return err
	}
	var err error
	all := func(named bool, vs ...Value) {
		for _, v := range vs {
			if err == nil {
				err = add(v, named)
			}
		}
	}
	dict := func(d *Dict) {
		for k, v := range d.Items() {
			all(false, k)
			all(true, v)
		}
		all(false, d.State)
	}
	switch v := v.(type) {
	case Tuple:
		all(true, v...)
	case *List:
		all(true, v.Items...)
	case *Dict:
		dict(v)
	case *Set:
		for k := range v.Items() {
			all(false, k)
		}
	case *Tensor:
		sum.tensors = 1
		all(false, v.State)
	case *Opaque:
		all(true, v.Args...)
		all(true, v.State)
		all(true, v.Items...)
		dict(&v.Entries)
	}
	w.seen[id] = sum
	return sum, err
}

// list checks the object and lists its tensors.
func (f *File) list() error {
	switch f.root.(type) {
	case *Dict, *List, Tuple, *Tensor, *Opaque:
	default:
		return &Error{Class: ErrBadPickle, Expected: "a state dict, or something else with tensors in it", Actual: kindOf(f.root)}
	}
	w := &weigher{seen: map[any]weight{}}
	sum, err := w.weigh(f.root, 0)
	if err != nil {
		return err
	}
	if limit := min(MaxTensors, f.Size()); sum.tensors > limit {
		return &Error{Class: ErrLimit, Expected: fmt.Sprintf("at most %d tensors", limit), Actual: fmt.Sprint(sum.tensors)}
	}
	n := namer{weigher: w, left: 16*f.Size() + windowBytes}
	if err := n.walk("", f.root); err != nil {
		return err
	}
	infos, makes, err := tensorList(n.entries)
	if err != nil {
		return err
	}
	f.SetTensors(infos, makes)
	return nil
}

// namer names the tensors of an object by the keys that lead to them.
type namer struct {
	*weigher
	left    int64 // bytes that names may still have
	entries []entry
}

func (n *namer) walk(name string, v Value) error {
	if t, ok := v.(*Tensor); ok {
		if n.left -= int64(len(name)); n.left < 0 {
			return &Error{Class: ErrLimit, Detail: "names of tensors", Expected: "in all no longer than the file explains"}
		}
		n.entries = append(n.entries, entry{name, t})
		return nil
	}
	if id := identity(v); id == nil || n.seen[id].tensors == 0 {
		return nil
	}
	list := func(vs []Value) error {
		for i, v := range vs {
			if err := n.walk(join(name, strconv.Itoa(i)), v); err != nil {
				return err
			}
		}
		return nil
	}
	dict := func(d *Dict) error {
		for k, v := range d.Items() {
			if err := n.walk(join(name, keyName(k)), v); err != nil {
				return err
			}
		}
		return nil
	}
	switch v := v.(type) {
	case Tuple:
		return list(v)
	case *List:
		return list(v.Items)
	case *Dict:
		return dict(v)
	case *Opaque:
		if err := list(v.Args); err != nil {
			return err
		}
		if err := n.walk(name, v.State); err != nil {
			return err
		}
		if err := list(v.Items); err != nil {
			return err
		}
		return dict(&v.Entries)
	}
	return nil
}

func join(name, key string) string {
	if name == "" {
		return key
	}
	return name + "." + key
}

// keyName is a key in a tensor's name: as Python's str writes it, for those that people use.
func keyName(k Value) string {
	switch k := k.(type) {
	case nil:
		return "None"
	case bool:
		if k {
			return "True"
		}
		return "False"
	case string:
		return k
	case int64:
		return strconv.FormatInt(k, 10)
	case *big.Int:
		return k.String()
	case float64:
		return strconv.FormatFloat(k, 'g', -1, 64)
	case []byte:
		return string(k)
	case DType:
		return "torch." + string(k)
	case Device:
		return string(k)
	}
	return kindOf(k)
}

// tensorList is a list of tensors as a file of weights takes it.
func tensorList(entries []entry) ([]weights.TensorInfo, weights.Maker, error) {
	infos := make([]weights.TensorInfo, len(entries))
	byName := make(map[string]*Tensor, len(entries))
	for i, e := range entries {
		if _, dup := byName[e.name]; dup {
			return nil, nil, &Error{Class: ErrDuplicate, Tensor: e.name, Detail: "the keys that lead to two tensors are the same when they are joined by dots"}
		}
		byName[e.name] = e.t
		var err error
		if infos[i], err = e.info(); err != nil {
			return nil, nil, err
		}
	}
	return infos, func(t weights.TensorInfo, dst []byte, off int) error { return gather(byName[t.Name], dst, off) }, nil
}

// info is an entry as the list of a file has it.
func (e entry) info() (weights.TensorInfo, error) {
	t := e.t
	d := dtypes[t.DType]
	refused := func(what string) error {
		return &Error{Class: ErrUnsupported, Tensor: e.name, Actual: what}
	}
	if d.code == 0 {
		return weights.TensorInfo{}, refused("a tensor of " + string(t.DType))
	}
	shape := t.Shape
	if d.code == weights.F4 { // two to a byte
		if len(shape) == 0 {
			return weights.TensorInfo{}, refused("a scalar of " + string(t.DType))
		}
		shape = slices.Clone(shape)
		shape[len(shape)-1] *= 2
	}
	if t.Storage.swapped && t.Storage.DType == "" && d.bytes > 1 {
		return weights.TensorInfo{}, refused("a big-endian tensor of " + string(t.DType) + ", which torch doesn't swap")
	}
	info := weights.TensorInfo{Name: e.name, DType: d.code, Shape: shape, Offset: weights.Made, Bytes: t.numel() * d.bytes}
	if t.contiguous() && !t.Conj && !t.Neg && !t.Storage.swapped {
		info.Offset = t.Storage.Offset
		if info.Bytes > 0 {
			info.Offset += int64(t.Start) * int64(d.bytes)
		}
	}
	return info, nil
}
