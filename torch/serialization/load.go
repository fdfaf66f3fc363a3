package serialization

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"

	"github.com/torchgo/torchgo/pretrained/pickle"
	"github.com/torchgo/torchgo/torch"
)

// LoadOptions are the optional arguments of Load.
type LoadOptions struct {
	MapLocation torch.Device // where the tensors go; default: CPU
}

// Loaded is what a file holds. Its tensors stay until Close, whatever scope it was loaded in.
type Loaded struct {
	// Value is in the types of package pickle, but for tensors, which are *[torch.Tensor]: nil, bool, int64, *big.Int,
	// float64, complex128, string, []byte, pickle.Tuple, *pickle.List, *pickle.Dict, *pickle.Set, pickle.DType,
	// pickle.Device, pickle.Size, or *pickle.Opaque for an object of a class that is not on PyTorch's list, which
	// nothing was made of.
	Value any

	tensors []*torch.Tensor
}

// Load reads a file that Save or Python has written, as torch.load(path, map_location="cpu", weights_only=True) does: zip archives,
// and the older formats. Tensors that share memory in the file share it again; parameters are tensors that require gradients.
// Attributes that Python code hung on tensors are left out.
func Load(ctx context.Context, path string, opts ...LoadOptions) (*Loaded, error) {
	var o LoadOptions
	if len(opts) > 0 {
		o = opts[0]
	}
	if o.MapLocation == (torch.Device{}) {
		o.MapLocation = torch.CPU
	}
	f, err := pickle.Open(path)
	if err != nil {
		return nil, err
	}
	l := &loader{ctx: ctx, device: o.MapLocation, loaded: &Loaded{}, path: path, storages: map[string]*torch.Tensor{}, done: map[any]any{}}
	caught := torch.TryDo(func() {
		torch.Scope(func() { torch.NoGrad(func() { l.loaded.Value, err = l.value(f.Root()) }) })
	})
	if err = errors.Join(err, caught); err == nil {
		err = f.Unchanged()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		l.loaded.Close()
		return nil, err
	}
	return l.loaded, nil
}

// Close frees the tensors.
func (l *Loaded) Close() {
	for _, t := range l.tensors {
		t.Close()
	}
	l.tensors = nil
}

// At is the value at the end of a path of keys of dicts and indices of lists and tuples: At("optimizer", "param_groups", 0, "lr").
func (l *Loaded) At(path ...any) (any, error) {
	v := l.Value
	for i, key := range path {
		if n, ok := key.(int); ok {
			key = int64(n)
		}
		var next any
		ok := false
		switch v := v.(type) {
		case *pickle.Dict:
			next, ok = v.Get(key)
		case *pickle.List:
			next, ok = at(v.Items, key)
		case pickle.Tuple:
			next, ok = at(v, key)
		}
		if !ok {
			return nil, fmt.Errorf("nothing at %.200s", dotted(path[:i+1]))
		}
		v = next
	}
	return v, nil
}

func dotted(path []any) string {
	text := "value"
	for _, key := range path {
		text = join(text, key)
	}
	return text
}

func at(list []pickle.Value, key any) (any, bool) {
	i, ok := key.(int64)
	if !ok || i < 0 || i >= int64(len(list)) {
		return nil, false
	}
	return list[i], true
}

// StateDict is the dict of tensors at the end of a path, for nn.LoadStateDict. Entries that are no tensors are an error.
func (l *Loaded) StateDict(path ...any) (iter.Seq2[string, *torch.Tensor], error) {
	v, err := l.At(path...)
	if err != nil {
		return nil, err
	}
	d, ok := v.(*pickle.Dict)
	if !ok {
		return nil, fmt.Errorf("at %.200s: expected a dict of tensors, got %T", dotted(path), v)
	}
	for key, v := range d.Items() {
		_, isName := key.(string)
		if _, isTensor := v.(*torch.Tensor); !isName || !isTensor {
			return nil, fmt.Errorf("at %.200s: expected a dict of tensors, got %T at %.100s", dotted(path), v, fmt.Sprint(key))
		}
	}
	return func(yield func(string, *torch.Tensor) bool) {
		for key, v := range d.Items() {
			if !yield(key.(string), v.(*torch.Tensor)) {
				return
			}
		}
	}, nil
}

// loader makes tensors of the views in a value.
type loader struct {
	ctx      context.Context
	device   torch.Device
	loaded   *Loaded
	path     string
	storages map[string]*torch.Tensor // bytes, by key
	done     map[any]any              // by pointer: the same object stays the same
}

func (l *loader) value(v pickle.Value) (any, error) {
	switch v := v.(type) {
	case *pickle.Tensor:
		if t, ok := l.done[v]; ok {
			return t, nil
		}
		t, err := l.tensor(v)
		if err == nil {
			l.done[v] = t
		}
		return t, err
	case pickle.Tuple:
		id := idOf(v)
		if made, ok := l.done[id]; ok {
			return made, nil
		}
		made, err := l.items(v)
		if err == nil && len(v) > 0 {
			l.done[id] = made
		}
		return made, err
	case *pickle.List:
		if made, ok := l.done[v]; ok {
			return made, nil
		}
		list := &pickle.List{}
		l.done[v] = list
		items, err := l.items(v.Items)
		list.Items = items
		return list, err
	case *pickle.Dict:
		if made, ok := l.done[v]; ok {
			return made, nil
		}
		dict := &pickle.Dict{Class: v.Class}
		l.done[v] = dict
		for key, item := range v.Items() {
			made, err := l.value(item)
			if err == nil {
				err = dict.Set(key, made)
			}
			if err != nil {
				return nil, named(err, key)
			}
		}
		var err error
		dict.State, err = l.value(v.State)
		return dict, err
	}
	return v, nil
}

// named puts a key before the name of the tensor in an error.
func named(err error, key any) error {
	var e *pickle.Error
	if !errors.As(err, &e) {
		return err
	}
	if e.Tensor != "" {
		e.Tensor = "." + e.Tensor
	}
	e.Tensor = fmt.Sprint(key) + e.Tensor
	return err
}

func (l *loader) items(list []pickle.Value) (pickle.Tuple, error) {
	out := make(pickle.Tuple, len(list))
	for i, item := range list {
		var err error
		if out[i], err = l.value(item); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// dtypes are torch's by name.
var dtypes = func() map[pickle.DType]torch.DType {
	m := map[pickle.DType]torch.DType{}
	for d := torch.Uint8; d.ItemSize() > 0; d++ {
		m[pickle.DType(d.String())] = d
	}
	return m
}()

// tensor makes the tensor that is a view of a storage. The caller is in a scope.
func (l *loader) tensor(p *pickle.Tensor) (*torch.Tensor, error) {
	dtype, ok := dtypes[p.DType]
	if !ok {
		return nil, &pickle.Error{Class: pickle.ErrUnsupported, Detail: "dtype", Actual: string(p.DType)}
	}
	bytes, err := l.storage(p.Storage, dtype == torch.Bool)
	if err != nil {
		return nil, err
	}
	n := bytes.Numel() / dtype.ItemSize() * dtype.ItemSize()
	// Not a view in autograd's sense: it may be changed in place as a leaf.
	t := torch.Empty([]int{0}, torch.EmptyOptions{DType: dtype, Device: l.device}).
		SetSourceTensorStorageOffset_(bytes.Narrow(0, 0, n).ViewDType(dtype), p.Start, p.Shape, torch.SetSourceTensorStorageOffsetOptions{Stride: p.Strides})
	if p.Conj {
		t = t.Conj()
	}
	if p.Neg {
		t = torch.Internal.NegView(t)
	}
	if p.RequiresGrad {
		t.SetRequiresGrad(true)
	}
	torch.Keep(t)
	l.loaded.tensors = append(l.loaded.tensors, t)
	return t, nil
}

// storage is the bytes of a storage on the device. The one of a key is the same whatever dtypes it is said to have.
func (l *loader) storage(s *pickle.Storage, bools bool) (*torch.Tensor, error) {
	if t, ok := l.storages[s.Key]; ok {
		return t, nil
	}
	if err := l.ctx.Err(); err != nil {
		return nil, err
	}
	device := torch.CPU
	if l.device == torch.Meta {
		device = torch.Meta
	}
	t := torch.Empty([]int{int(s.Bytes)}, torch.EmptyOptions{DType: torch.Uint8, Device: device})
	if s.Bytes > 0 && device != torch.Meta {
		data := t.Bytes()
		if n, err := s.Data.ReadAt(data, 0); n < len(data) {
			return nil, err
		}
		if i := slices.IndexFunc(data, func(b byte) bool { return b > 1 }); bools && i >= 0 {
			return nil, &pickle.Error{Class: pickle.ErrBadValue, File: l.path, Offset: s.Offset + int64(i), Detail: "bool", Expected: "0 or 1", Actual: fmt.Sprint(data[i])}
		}
	}
	if l.device != device {
		host := t
		t = host.To(l.device)
		host.Close()
	}
	l.storages[s.Key] = t
	return t, nil
}
