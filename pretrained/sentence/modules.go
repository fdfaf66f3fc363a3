package sentence

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"

	"github.com/torchgo/torchgo/internal/regular"
	"github.com/torchgo/torchgo/internal/strictjson"
	"github.com/torchgo/torchgo/pretrained"
)

const maxConfigBytes = 1 << 20

func join(dir, sub string) string { return filepath.Join(dir, filepath.FromSlash(sub)) }

// readModules reads modules.json and the configs that it names, and returns the transformer's folder below
// dir.
func (e *Encoder) readModules(dir string) (transformer string, err error) {
	path := filepath.Join(dir, "modules.json")
	root, err := readJSON(path)
	if errors.Is(err, fs.ErrNotExist) {
		e.Pooling = []Pooling{Mean}
		return "", e.readTransformer(dir)
	}
	if err != nil {
		return "", err
	}
	bad := func(expected, actual string) error {
		return &pretrained.Error{File: path, Class: pretrained.ErrBadConfig, Expected: expected, Actual: actual}
	}
	modules, err := root.AsArray()
	if err != nil {
		return "", bad("a list of modules", root.Kind().String())
	}
	found := false
	for i, v := range modules {
		kind, sub := text(v, "type"), text(v, "path")
		if sub != "" && (!filepath.IsLocal(filepath.FromSlash(sub)) || strings.Contains(sub, `\`)) {
			return "", &pretrained.Error{File: path, Class: pretrained.ErrPath, Detail: fmt.Sprintf("module %d: path %.80q", i, sub)}
		}
		switch last := kind[strings.LastIndexByte(kind, '.')+1:]; last {
		case "Transformer":
			found, transformer = true, sub
			err = e.readTransformer(join(dir, sub))
		case "Pooling":
			err = e.readPooling(filepath.Join(join(dir, sub), "config.json"))
		case "Normalize":
			e.Normalize = true
		default:
			err = &pretrained.Error{File: path, Class: pretrained.ErrUnsupported, Detail: fmt.Sprintf("module %d", i),
				Expected: "Transformer, Pooling or Normalize", Actual: fmt.Sprintf("%.80q", kind)}
		}
		if err != nil {
			return "", err
		}
	}
	if !found {
		return "", bad("a Transformer", "none")
	}
	if len(e.Pooling) == 0 {
		return "", bad("a Pooling", "none")
	}
	return transformer, nil
}

// readTransformer reads sentence_bert_config.json, which may be absent.
func (e *Encoder) readTransformer(dir string) error {
	path := filepath.Join(dir, "sentence_bert_config.json")
	root, err := readJSON(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	o, err := root.AsObject()
	if err != nil {
		return &pretrained.Error{File: path, Class: pretrained.ErrBadConfig, Err: err}
	}
	if v, ok := o.Get("max_seq_length"); ok && !v.IsNull() {
		n, err := v.AsInt()
		if err != nil || n < 1 || n > pretrained.MaxSize {
			return &pretrained.Error{File: path, Class: pretrained.ErrBadConfig, Detail: "max_seq_length",
				Expected: fmt.Sprintf("1 to %d", pretrained.MaxSize), Err: err}
		}
		e.MaxSeqLength = int(n)
	}
	e.lowercase = flag(o, "do_lower_case")
	return nil
}

// keys are those of 1_Pooling/config.json, in the order in which results are put side by side.
var keys = []struct {
	key     string
	pooling Pooling
}{
	{"pooling_mode_cls_token", CLS},
	{"pooling_mode_max_tokens", Max},
	{"pooling_mode_mean_tokens", Mean},
	{"pooling_mode_mean_sqrt_len_tokens", MeanSqrtLen},
	{"pooling_mode_weightedmean_tokens", WeightedMean},
	{"pooling_mode_lasttoken", LastToken},
}

func (e *Encoder) readPooling(path string) error {
	root, err := readJSON(path)
	if err != nil {
		return err
	}
	o, err := root.AsObject()
	if err != nil {
		return &pretrained.Error{File: path, Class: pretrained.ErrBadConfig, Err: err}
	}
	e.Pooling = nil
	for _, k := range keys {
		if flag(o, k.key) {
			e.Pooling = append(e.Pooling, k.pooling)
		}
	}
	if mode, ok := o.Get("pooling_mode"); ok && len(e.Pooling) == 0 {
		s, _ := mode.AsString()
		e.Pooling = []Pooling{Pooling(s)}
	}
	if len(e.Pooling) == 0 {
		return &pretrained.Error{File: path, Class: pretrained.ErrBadConfig, Expected: "a pooling_mode that is true", Actual: "none"}
	}
	return nil
}

// readJSON reads a small regular file; fs.ErrNotExist where there is none.
func readJSON(path string) (strictjson.Value, error) {
	data, err := regular.Read(path, maxConfigBytes)
	if err != nil {
		return strictjson.Value{}, err
	}
	v, err := strictjson.Parse(data, strictjson.Options{AllowNaN: true})
	if err != nil {
		return v, &pretrained.Error{File: path, Class: pretrained.ErrBadConfig, Err: err}
	}
	return v, nil
}

func text(v strictjson.Value, key string) string {
	if o, err := v.AsObject(); err == nil {
		if m, ok := o.Get(key); ok {
			s, _ := m.AsString()
			return s
		}
	}
	return ""
}

func flag(o *strictjson.Object, key string) bool {
	v, ok := o.Get(key)
	b, err := v.AsBool()
	return ok && err == nil && b
}
