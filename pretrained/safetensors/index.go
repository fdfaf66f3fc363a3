package safetensors

import (
	"errors"
	"io/fs"
	"maps"
	"slices"
	"strings"

	"github.com/torchgo/torchgo/internal/fileerr"
	"github.com/torchgo/torchgo/internal/regular"
	"github.com/torchgo/torchgo/internal/strictjson"
	"github.com/torchgo/torchgo/internal/weights"
)

// Index is a model.safetensors.index.json: which file holds which tensor.
type Index struct {
	Metadata  map[string]any    // total_size and the like, as encoding/json with UseNumber; informative only
	WeightMap map[string]string // tensor → file, a safe relative name with forward slashes
}

// ReadIndex reads and checks an index file.
func ReadIndex(path string) (*Index, error) {
	data, err := regular.Read(path, maxIndexBytes)
	if e := (*Error)(nil); errors.Is(err, fs.ErrNotExist) && errors.As(err, &e) {
		e.Class = ErrMissingShard
	}
	if err != nil {
		return nil, err
	}
	index, err := ParseIndex(data)
	if err != nil {
		return nil, inFile(err, path)
	}
	return index, nil
}

// ParseIndex reads the text of an index file. Errors lack the file's name.
func ParseIndex(data []byte) (*Index, error) {
	if err := weights.Sniff(data[:min(len(data), 512)], "a JSON index"); errors.Is(err, ErrBadMagic) {
		if !strings.HasPrefix(err.(*Error).Actual, "text") { // other text may be JSON, if of a wrong type
			return nil, err
		}
	}
	root, err := strictjson.Parse(data, strictjson.Options{MaxMembers: MaxTensors + 1<<16})
	if err != nil {
		return nil, badIndex(err, "")
	}
	object, err := root.AsObject()
	if err != nil {
		return nil, badIndex(err, "")
	}
	index := &Index{}
	if v, ok := object.Get("metadata"); ok && !v.IsNull() {
		m, err := v.AsObject()
		if err != nil {
			return nil, badIndex(err, "metadata: ")
		}
		index.Metadata = m.Value().Any().(map[string]any)
	}
	v, ok := object.Get("weight_map")
	if !ok {
		return nil, &Error{Class: ErrBadIndex, Detail: "no weight_map"}
	}
	weights, err := v.AsObject()
	if err != nil {
		return nil, badIndex(err, "weight_map: ")
	}
	if weights.Len() == 0 {
		return nil, &Error{Class: ErrBadIndex, Detail: "weight_map is empty"}
	}
	index.WeightMap = make(map[string]string, weights.Len())
	for name, v := range weights.All() {
		file, err := v.AsString()
		if err == nil {
			err = fileerr.CheckName(file)
		}
		if err != nil {
			err = badIndex(err, "weight_map: ")
			err.(*Error).Tensor = name
			return nil, err
		}
		index.WeightMap[name] = file
	}
	return index, nil
}

func badIndex(err error, detail string) error {
	var e *Error
	if errors.As(err, &e) {
		return e
	}
	e = &Error{Class: ErrBadIndex, Detail: detail + err.Error()}
	if j := (*strictjson.Error)(nil); errors.As(err, &j) {
		e.Detail, e.Offset = detail+j.Message, int64(max(j.Offset, 0))
		switch j.Class {
		case strictjson.ErrDuplicate:
			e.Class = ErrDuplicate
		case strictjson.ErrLimit:
			e.Class = ErrLimit
		}
	}
	return e
}

// Files are the files that the index names, sorted.
func (x *Index) Files() []string {
	set := make(map[string]bool, 16)
	for _, file := range x.WeightMap {
		set[file] = true
	}
	return slices.Sorted(maps.Keys(set))
}
