package serialization

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"math/big"
	"reflect"
	"slices"
	"strings"
	"unsafe"

	"github.com/torchgo/torchgo/pretrained/pickle"
	"github.com/torchgo/torchgo/torch"
)

// Saver is a value of a type of its own that can be saved: SavedValue says as what, in the types that [Save] takes.
type Saver interface{ SavedValue() any }

// Save writes a value as torch.save(value, path) does; torch.load(weights_only=True) and [Load] read it. A value is
//
//   - nil, a bool, a number, a string, a []byte, a [torch.DType], [torch.Device] or [torch.Shape] (a torch.Size)
//   - a *[torch.Tensor], with its requires_grad; it is dense and has data
//   - a state dict, as nn.StateDict gives it: an OrderedDict of tensors that don't require gradients
//   - a slice (a list) or a map whose keys are strings or integers (a dict, sorted by key) of values
//   - a value of package pickle (a Tuple, a *Dict, …), which may have any of these inside
//   - a [Saver], such as the state dict of an optimizer
//
// Tensors that share memory share it in the file, too: of a view the whole storage is written, as in PyTorch, once.
// The tensors are copied to the CPU one by one, when it is their turn. The file replaces an old one when it is complete
// (see [pickle.WriteFile]). The tensors must not change meanwhile.
func Save(ctx context.Context, path string, value any) (err error) {
	s := &saver{tensors: map[*torch.Tensor]*pickle.Tensor{}, storages: map[uintptr]*pickle.Storage{}, done: map[any]pickle.Value{}}
	defer func() {
		for _, t := range s.held {
			t.Close()
		}
	}()
	var v pickle.Value
	caught := torch.TryDo(func() { torch.NoGrad(func() { v, err = s.value(value, "value", 0) }) })
	if err = errors.Join(err, caught); err != nil {
		return fmt.Errorf("save %s: %w", path, err)
	}
	return pickle.WriteFile(ctx, path, v)
}

// maxDepth is how deep values may be; one that contains itself is deeper.
const maxDepth = 1000

// saver turns values into those of package pickle.
type saver struct {
	tensors  map[*torch.Tensor]*pickle.Tensor
	storages map[uintptr]*pickle.Storage
	done     map[any]pickle.Value // by pointer: the same object stays the same
	held     []*torch.Tensor      // whose storages are to be written
}

func (s *saver) value(value any, at string, depth int) (pickle.Value, error) {
	if depth++; depth > maxDepth {
		return nil, fmt.Errorf("%.200s: values more than %d deep", at, maxDepth)
	}
	switch v := value.(type) {
	case nil, bool, string, []byte, int64, *big.Int, float64, complex128, pickle.DType, pickle.Device, pickle.Size,
		*pickle.Set, *pickle.Tensor, *pickle.Opaque:
		return v, nil
	case complex64:
		return complex128(v), nil
	case *torch.Tensor:
		return s.tensor(v, at, v != nil && v.RequiresGrad())
	case torch.DType:
		return pickle.DType(v.String()), nil
	case torch.Device:
		return pickle.Device(v.String()), nil
	case torch.Shape:
		size := make(pickle.Size, len(v))
		for i, n := range v {
			size[i] = int64(n)
		}
		return size, nil
	case iter.Seq2[string, *torch.Tensor]:
		return s.stateDict(v, at)
	case func(func(string, *torch.Tensor) bool):
		return s.stateDict(v, at)
	case Saver:
		return s.value(v.SavedValue(), at, depth)
	case pickle.Tuple:
		id := idOf(v)
		if made, ok := s.done[id]; ok {
			return made, nil
		}
		made, err := s.items(v, at, depth)
		if err == nil && len(v) > 0 {
			s.done[id] = made
		}
		return made, err
	case *pickle.List:
		list := &pickle.List{}
		return s.once(v, list, func() (err error) {
			list.Items, err = s.items(v.Items, at, depth)
			return err
		})
	case *pickle.Dict:
		dict := &pickle.Dict{Class: v.Class}
		return s.once(v, dict, func() error {
			for key, item := range v.Items() {
				if err := s.set(dict, key, item, at, depth); err != nil {
					return err
				}
			}
			state, err := s.value(v.State, at, depth)
			dict.State = state
			return err
		})
	}
	return s.reflected(reflect.ValueOf(value), at, depth)
}

// tupleID tells tuples apart, which are no pointers: the same one is the same memory.
type tupleID struct {
	first *pickle.Value
	n     int
}

func idOf(t pickle.Tuple) tupleID { return tupleID{unsafe.SliceData(t), len(t)} }

// once makes a value of a pointer, or gives the one that was made of it.
func (s *saver) once(of any, made pickle.Value, fill func() error) (pickle.Value, error) {
	if v, ok := s.done[of]; ok {
		return v, nil
	}
	s.done[of] = made
	return made, fill()
}

func (s *saver) items(list []pickle.Value, at string, depth int) (pickle.Tuple, error) {
	out := make(pickle.Tuple, len(list))
	for i, item := range list {
		var err error
		if out[i], err = s.value(item, fmt.Sprint(at, ".", i), depth); err != nil {
			return nil, err
		}
	}
	return out, nil
}

func (s *saver) set(dict *pickle.Dict, key pickle.Value, item any, at string, depth int) error {
	v, err := s.value(item, join(at, key), depth)
	if err == nil {
		err = dict.Set(key, v)
	}
	return err
}

func join(at string, key any) string { return fmt.Sprint(at, ".", key) }

// reflected makes a value of Go's numbers, slices and maps of any type.
func (s *saver) reflected(v reflect.Value, at string, depth int) (pickle.Value, error) {
	switch {
	case v.CanInt():
		return v.Int(), nil
	case v.CanUint() && int64(v.Uint()) >= 0:
		return int64(v.Uint()), nil
	case v.CanFloat():
		return v.Float(), nil
	case v.Kind() == reflect.Bool:
		return v.Bool(), nil
	case v.Kind() == reflect.String:
		return v.String(), nil
	case v.Kind() == reflect.Slice, v.Kind() == reflect.Array:
		items := make([]pickle.Value, v.Len())
		for i := range items {
			items[i] = v.Index(i).Interface()
		}
		var err error
		items, err = s.items(items, at, depth)
		return &pickle.List{Items: items}, err
	case v.Kind() == reflect.Map:
		return s.dict(v, at, depth)
	}
	return nil, fmt.Errorf("%.200s: can't save a %v", at, v.Type())
}

// dict makes a dict of a map.
func (s *saver) dict(v reflect.Value, at string, depth int) (pickle.Value, error) {
	keys := v.MapKeys()
	key := func(k reflect.Value) pickle.Value { return k.Int() }
	switch kind := reflect.Zero(v.Type().Key()); {
	case kind.Kind() == reflect.String:
		key = func(k reflect.Value) pickle.Value { return k.String() }
		slices.SortFunc(keys, func(a, b reflect.Value) int { return strings.Compare(a.String(), b.String()) })
	case kind.CanInt():
		slices.SortFunc(keys, func(a, b reflect.Value) int { return int(min(max(a.Int()-b.Int(), -1), 1)) })
	default:
		return nil, fmt.Errorf("%.200s: can't save a %v: expected keys that are strings or integers", at, v.Type())
	}
	dict := &pickle.Dict{}
	for _, k := range keys {
		if err := s.set(dict, key(k), v.MapIndex(k).Interface(), at, depth); err != nil {
			return nil, err
		}
	}
	return dict, nil
}

// stateDict makes an OrderedDict, as Module.state_dict does.
func (s *saver) stateDict(state iter.Seq2[string, *torch.Tensor], at string) (pickle.Value, error) {
	dict := &pickle.Dict{Class: pickle.OrderedDict}
	for name, t := range state {
		v, err := s.tensor(t, join(at, name), false)
		if err == nil {
			err = dict.Set(name, v)
		}
		if err != nil {
			return nil, err
		}
	}
	return dict, nil
}

// tensor makes a view of a storage.
func (s *saver) tensor(t *torch.Tensor, at string, requiresGrad bool) (pickle.Value, error) {
	switch {
	case t == nil:
		return nil, fmt.Errorf("%.200s: a nil tensor", at)
	case t.Layout() != torch.Strided:
		return nil, fmt.Errorf("%.200s: can't save a tensor of layout %v", at, t.Layout())
	case t.Device() == torch.Meta:
		return nil, fmt.Errorf("%.200s: can't save a tensor without data (device meta)", at)
	}
	if made, ok := s.tensors[t]; ok && made.RequiresGrad == requiresGrad {
		return made, nil
	}
	view := t.Detach()
	if view.IsConj() || view.IsNeg() {
		view = view.ResolveConj().ResolveNeg()
	}
	torch.Keep(view)
	s.held = append(s.held, view)
	made := &pickle.Tensor{DType: pickle.DType(t.DType().String()), Shape: view.Shape(), Strides: view.Stride(), Start: view.StorageOffset(),
		Storage: s.storage(view), RequiresGrad: requiresGrad}
	s.tensors[t] = made
	return made, nil
}

// storage is that of a tensor, the same one for all its views.
func (s *saver) storage(t *torch.Tensor) *pickle.Storage {
	id := t.StorageID()
	if made, ok := s.storages[id]; ok && id != 0 {
		return made
	}
	size := t.DType().ItemSize()
	n := t.StorageBytes() / size
	location := t.Device().String()
	made := &pickle.Storage{Bytes: int64(n * size), Location: location, Data: pickle.Made(func(w io.Writer) (err error) {
		caught := torch.TryDo(func() {
			torch.Scope(func() {
				torch.NoGrad(func() {
					plain := t.AsStrided([]int{n}, []int{1}, torch.AsStridedOptions{StorageOffset: torch.Some(0)}).To(torch.CPU)
					_, err = w.Write(plain.Bytes())
					plain.Close() // after the last use of its memory
				})
			})
		})
		return errors.Join(err, caught)
	})}
	s.storages[id] = made
	return made
}
