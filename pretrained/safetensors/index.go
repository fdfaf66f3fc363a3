package safetensors

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"unicode"

	"github.com/torchgo/torchgo/internal/strictjson"
)

// Index is a model.safetensors.index.json: which file holds which tensor.
type Index struct {
	Metadata  map[string]any    // total_size and the like, as encoding/json with UseNumber; informative only
	WeightMap map[string]string // tensor → file, a safe relative name with forward slashes
}

// ReadIndex reads and checks an index file.
func ReadIndex(path string) (*Index, error) {
	f, st, err := openRegular(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if st.Size() > maxIndexBytes {
		return nil, &Error{Class: ErrLimit, File: path, Expected: fmt.Sprintf("at most %d bytes", maxIndexBytes), Actual: fmt.Sprint(st.Size())}
	}
	data := make([]byte, st.Size())
	if err := readFull(f, data, 0, st.Size()); err != nil {
		return nil, inFile(err, path)
	}
	index, err := ParseIndex(data)
	if err != nil {
		return nil, inFile(err, path)
	}
	return index, nil
}

// ParseIndex reads the text of an index file. Errors lack the file's name.
func ParseIndex(data []byte) (*Index, error) {
	if err := sniff(data[:min(len(data), 512)]); errors.Is(err, ErrBadMagic) {
		err.(*Error).Expected = "a JSON index"
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
			err = checkFileName(file)
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

// checkFileName refuses names that lead out of the folder, or mean something else than a file in it, on
// any system: an index is safe or not wherever it is read.
func checkFileName(name string) error {
	bad := func(why string) error {
		return &Error{Class: ErrPath, Detail: why, Expected: "a name inside the folder of the index", Actual: fmt.Sprintf("%.80q", name)}
	}
	switch {
	case name == "":
		return bad("empty file name")
	case len(name) > 1024:
		return bad("file name is too long")
	case strings.ContainsFunc(name, func(r rune) bool { return r == unicode.ReplacementChar || unicode.IsControl(r) }):
		return bad("control character in a file name")
	case strings.ContainsAny(name, `\:`): // Windows: separators, drives, streams; and URLs
		return bad("backslash or colon in a file name")
	case strings.HasPrefix(name, "/"):
		return bad("absolute file name")
	}
	for part := range strings.SplitSeq(name, "/") {
		switch stem, _, _ := strings.Cut(part, "."); {
		case part == "" || part == "." || part == "..":
			return bad("file name is not plain")
		case strings.HasSuffix(part, ".") || strings.HasSuffix(part, " "):
			return bad("file name ends with a dot or space") // Windows drops them
		case isDeviceName(stem):
			return bad("device name of Windows")
		}
	}
	return nil
}

func isDeviceName(stem string) bool {
	stem = strings.ToUpper(strings.TrimRight(stem, " "))
	switch stem {
	case "CON", "PRN", "AUX", "NUL", "CONIN$", "CONOUT$":
		return true
	}
	if rest, ok := strings.CutPrefix(stem, "COM"); ok {
		stem = rest
	} else if stem, ok = strings.CutPrefix(stem, "LPT"); !ok {
		return false
	}
	return len(stem) == 1 && stem[0] >= '0' && stem[0] <= '9' || stem == "¹" || stem == "²" || stem == "³"
}
