package optim

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/torchgo/torchgo/internal/strictjson"
	"github.com/torchgo/torchgo/pretrained/safetensors"
	"github.com/torchgo/torchgo/torch"
)

// metadataKey is where a file keeps what is not a tensor, as JSON.
const metadataKey = "optimizer"

// fileDTypes are the dtypes that state can have.
var fileDTypes = map[torch.DType]safetensors.DType{
	torch.Float32: safetensors.F32, torch.Float64: safetensors.F64, torch.Float16: safetensors.F16,
	torch.BFloat16: safetensors.BF16, torch.Complex64: safetensors.C64,
	torch.Int64: safetensors.I64, torch.Int32: safetensors.I32, torch.Bool: safetensors.BOOL, torch.Uint8: safetensors.U8,
}

// Save writes the state as a safetensors file: the tensors as "state.<number>.<name>", the items of lists
// as "state.<number>.<name>.<index>", and all else as JSON in the metadata, where null stands for each
// tensor. docs/optim.md shows how Python reads it. The file replaces an old one when it is complete.
func (s *StateDict) Save(ctx context.Context, path string) error {
	var tensors []safetensors.Source
	var convert func(v any, name string) (strictjson.Value, error)
	convert = func(v any, name string) (strictjson.Value, error) {
		switch x := v.(type) {
		case *torch.Tensor:
			dtype, ok := fileDTypes[x.DType()]
			if !ok {
				return strictjson.Value{}, fmt.Errorf("%s: a safetensors file can't hold %v", name, x.DType())
			}
			tensors = append(tensors, safetensors.Source{Name: name, DType: dtype, Shape: x.Shape(), Write: func(w io.Writer) error {
				return writeTensor(w, x)
			}})
			return strictjson.Null(), nil
		case []any:
			items := make([]strictjson.Value, len(x))
			for i, item := range x {
				var err error
				if items[i], err = convert(item, name+"."+strconv.Itoa(i)); err != nil {
					return strictjson.Value{}, err
				}
			}
			return strictjson.Array(items...), nil
		case []int:
			items := make([]strictjson.Value, len(x))
			for i, item := range x {
				items[i] = strictjson.Int(int64(item))
			}
			return strictjson.Array(items...), nil
		}
		return plainValue(v, name)
	}
	state, groups := &strictjson.Object{}, make([]strictjson.Value, len(s.ParamGroups))
	for _, id := range slices.Sorted(maps.Keys(s.State)) {
		row := &strictjson.Object{}
		for _, key := range slices.Sorted(maps.Keys(s.State[id])) {
			v, err := convert(s.State[id][key], fmt.Sprintf("state.%d.%s", id, key))
			if err != nil {
				return fmt.Errorf("save state dict: %w", err)
			}
			row.Set(key, v)
		}
		state.Set(strconv.Itoa(id), row.Value())
	}
	n := len(tensors)
	for i, g := range s.ParamGroups {
		row := &strictjson.Object{}
		for _, key := range slices.Sorted(maps.Keys(g)) {
			v, err := convert(g[key], fmt.Sprintf("param_groups.%d.%s", i, key))
			if err == nil && len(tensors) > n {
				err = fmt.Errorf("param_groups.%d.%s: a tensor", i, key)
			}
			if err != nil {
				return fmt.Errorf("save state dict: %w", err)
			}
			row.Set(key, v)
		}
		groups[i] = row.Value()
	}
	doc := &strictjson.Object{}
	doc.Set("state", state.Value())
	doc.Set("param_groups", strictjson.Array(groups...))
	text := strictjson.Format{}.Append(nil, doc.Value())
	return safetensors.WriteFile(ctx, path, tensors, map[string]string{"format": "pt", metadataKey: string(text)})
}

// plainValue is a value without tensors as JSON.
func plainValue(v any, name string) (strictjson.Value, error) {
	switch x := v.(type) {
	case nil:
		return strictjson.Null(), nil
	case bool:
		return strictjson.Bool(x), nil
	case int:
		return strictjson.Int(int64(x)), nil
	case float64:
		return strictjson.Float(x), nil
	case string:
		return strictjson.String(x), nil
	case json.Number:
		if i, err := x.Int64(); err == nil {
			return strictjson.Int(i), nil
		}
		f, err := x.Float64()
		return strictjson.Float(f), err
	}
	return strictjson.Value{}, fmt.Errorf("%s: can't be saved: %T", name, v)
}

// writeTensor writes the bytes of a tensor.
func writeTensor(w io.Writer, t *torch.Tensor) (err error) {
	caught := torch.TryDo(func() {
		torch.Scope(func() {
			torch.NoGrad(func() {
				plain := t.Detach().To(torch.CPU).ResolveConj().ResolveNeg().Contiguous()
				_, err = w.Write(plain.Bytes())
				plain.Close() // after the last use of its memory
			})
		})
	})
	return errors.Join(err, caught)
}

// ReadStateDict reads what [StateDict.Save], or the Python of docs/optim.md, has written. Close frees it.
func ReadStateDict(ctx context.Context, path string) (*StateDict, error) {
	f, err := safetensors.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	s, err := readState(ctx, f)
	if err == nil {
		err = f.Unchanged()
	}
	if err != nil {
		s.Close()
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return s, nil
}

func readState(ctx context.Context, f *safetensors.File) (*StateDict, error) {
	s := &StateDict{State: map[int]map[string]any{}, owned: true}
	text, ok := f.Metadata()[metadataKey]
	if !ok {
		return s, fmt.Errorf("the metadata has no %q: not an optimizer's state", metadataKey)
	}
	v, err := strictjson.Parse([]byte(text), strictjson.Options{AllowNaN: true})
	if err != nil {
		return s, fmt.Errorf("%s: %w", metadataKey, err)
	}
	doc, _ := v.Any().(map[string]any)
	groups, ok := doc["param_groups"].([]any)
	state, isMap := doc["state"].(map[string]any)
	if !ok || !isMap || len(doc) != 2 {
		return s, fmt.Errorf("%s: expected an object of state and param_groups", metadataKey)
	}
	for i, g := range groups {
		row, ok := g.(map[string]any)
		if !ok {
			return s, fmt.Errorf("%s: param_groups.%d: expected an object", metadataKey, i)
		}
		s.ParamGroups = append(s.ParamGroups, row)
	}
	for key, v := range state {
		id, err := natural(key)
		row, ok := v.(map[string]any)
		if err != nil || !ok {
			return s, fmt.Errorf("%s: state.%.40s: expected a number and an object", metadataKey, key)
		}
		s.State[id] = row
	}
	for _, info := range f.Tensors() {
		if err := ctx.Err(); err != nil {
			return s, err
		}
		at, err := s.place(info.Name)
		if err != nil {
			return s, err
		}
		t, err := readTensor(f, info)
		if err != nil {
			return s, err
		}
		at(t)
	}
	return s, nil
}

// natural reads a number that is written in the one usual way.
func natural(text string) (int, error) {
	n, err := strconv.Atoi(text)
	if err != nil || n < 0 || strconv.Itoa(n) != text {
		return 0, fmt.Errorf("expected a number, got %.40q", text)
	}
	return n, nil
}

// place finds the null that stands for a tensor.
func (s *StateDict) place(name string) (set func(*torch.Tensor), err error) {
	wrong := func(what string) (func(*torch.Tensor), error) {
		return nil, fmt.Errorf("tensor %.80q: %s", name, what)
	}
	parts := strings.Split(name, ".")
	if len(parts) < 3 || len(parts) > 4 || parts[0] != "state" {
		return wrong("expected a name like state.0.exp_avg")
	}
	id, err := natural(parts[1])
	if err != nil {
		return wrong(err.Error())
	}
	v, ok := s.State[id][parts[2]]
	if !ok {
		return wrong("the JSON has no place for it")
	}
	if len(parts) == 3 {
		if v != nil {
			return wrong("the JSON has a value in its place")
		}
		return func(t *torch.Tensor) { s.State[id][parts[2]] = t }, nil
	}
	list, ok := v.([]any)
	i, err := natural(parts[3])
	if !ok || err != nil || i >= len(list) || list[i] != nil {
		return wrong("the JSON has no place for it")
	}
	return func(t *torch.Tensor) { list[i] = t }, nil
}

func readTensor(f *safetensors.File, info safetensors.TensorInfo) (t *torch.Tensor, err error) {
	for dtype, code := range fileDTypes {
		if code != info.DType {
			continue
		}
		caught := torch.TryDo(func() {
			t = torch.Empty(info.Shape, torch.EmptyOptions{DType: dtype})
			torch.Keep(t)
			err = f.ReadTensor(info.Name, t.Bytes())
		})
		if err = errors.Join(err, caught); err != nil {
			t.Close()
			return nil, err
		}
		return t, nil
	}
	return nil, fmt.Errorf("tensor %.80q: %v is no dtype of an optimizer's state", info.Name, info.DType)
}
