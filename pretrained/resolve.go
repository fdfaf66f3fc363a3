package pretrained

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Limits of the JSON files of a model directory.
const (
	maxConfigBytes = 16 << 20
	maxIndexBytes  = 64 << 20
)

// files are the files of a checkpoint on disk.
type files struct {
	dir    string // that the weights' names are relative to
	config string // path of config.json
	raw    map[string]any

	index   *shardIndex // nil: one file
	weights []string    // names of the weight files below dir, sorted
}

// resolve finds config and weights of MODEL: a directory, or one checkpoint file with its config beside it.
func resolve(path string, opts Options) (*files, error) {
	f := &files{dir: filepath.Join(path, filepath.FromSlash(opts.Subfolder))}
	st, err := os.Stat(path)
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) && !filepath.IsAbs(path) && strings.Count(path, "/") == 1 && !strings.HasPrefix(path, ".") {
			return nil, &Error{File: path, Class: ErrUnsupported, Detail: "no such directory, and hub ids are not supported yet",
				Remedy: "download the model and give its directory"}
		}
		return nil, &Error{File: path, Err: pathCause(err)}
	}
	switch {
	case st.Mode().IsRegular():
		f.dir = filepath.Dir(path)
	case !st.IsDir():
		return nil, &Error{File: path, Class: ErrNotRegular, Expected: "a directory or a regular file", Actual: kindOf(st.Mode())}
	}
	if err := f.readConfig(); err != nil {
		return nil, err
	}
	if st.Mode().IsRegular() {
		f.weights = []string{filepath.Base(path)}
		if strings.HasSuffix(path, ".index.json") {
			return f, f.useIndex(filepath.Base(path))
		}
		return f, refuseOther(path, f.weights[0])
	}
	return f, f.findWeights(opts)
}

func (f *files) readConfig() error {
	f.config = filepath.Join(f.dir, "config.json")
	data, err := readSmall(f.config, maxConfigBytes)
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return &Error{File: f.config, Class: ErrBadConfig, Err: fs.ErrNotExist,
				Remedy: "a model directory needs its config.json"}
		}
		return err
	}
	if f.raw, err = parseObject(data); err != nil {
		return &Error{File: f.config, Class: ErrBadConfig, Err: err}
	}
	return nil
}

// findWeights looks for the weights in transformers' order.
func (f *files) findWeights(opts Options) error {
	safetensors := opts.UseSafetensors.Or(true)
	_, chosen := opts.UseSafetensors.Get()
	if name, ok := f.raw["transformers_weights"].(string); ok {
		if err := checkRelative(name); err != nil {
			return inFile(err, f.config)
		}
		if strings.HasSuffix(name, ".index.json") {
			return f.useIndex(name)
		}
		f.weights = []string{name}
		return refuseOther(filepath.Join(f.dir, name), name)
	}
	single, index := addVariant("model.safetensors", opts.Variant), addVariant("model.safetensors.index.json", opts.Variant)
	if safetensors && exists(filepath.Join(f.dir, single)) {
		f.weights = []string{single}
		return nil
	}
	if safetensors && exists(filepath.Join(f.dir, index)) {
		return f.useIndex(index)
	}
	bins := []string{addVariant("pytorch_model.bin", opts.Variant), addVariant("pytorch_model.bin.index.json", opts.Variant)}
	if !chosen || !safetensors {
		for _, name := range bins {
			if exists(filepath.Join(f.dir, name)) {
				return refuseOther(filepath.Join(f.dir, name), name)
			}
		}
	}
	wanted := []string{single, index}
	if chosen && !safetensors {
		wanted = bins
	}
	e := &Error{File: f.dir, Class: ErrMissingShard, Expected: "a file " + strings.Join(wanted, " or ")}
	if plain := filepath.Join(f.dir, "model.safetensors"); opts.Variant != "" && exists(plain) {
		e.Remedy = "there is a model.safetensors without the variant"
	} else if chosen && safetensors && exists(filepath.Join(f.dir, bins[0])) {
		e.Remedy = "there is a " + bins[0] + ", which use-safetensors=true forbids"
	}
	return e
}

// refuseOther is an error for files that are not safetensors.
func refuseOther(path, name string) error {
	switch {
	case strings.HasSuffix(name, ".safetensors"):
		return nil
	case strings.HasSuffix(name, ".bin") || strings.HasSuffix(name, ".bin.index.json") || strings.HasSuffix(name, ".pt") ||
		strings.HasSuffix(name, ".pth"):
		return &Error{File: path, Class: ErrUnsupported, Detail: "PyTorch's pickle files are not supported yet",
			Remedy: "convert it to safetensors"}
	case strings.HasSuffix(name, ".gguf"):
		return &Error{File: path, Class: ErrUnsupported, Detail: "GGUF files are not supported yet"}
	}
	return &Error{File: path, Class: ErrUnsupported, Expected: "a .safetensors file", Actual: name}
}

func (f *files) useIndex(name string) error {
	var err error
	if f.index, err = readIndex(filepath.Join(f.dir, name)); err != nil {
		return err
	}
	f.weights = f.index.shards()
	for _, shard := range f.weights {
		path := filepath.Join(f.dir, filepath.FromSlash(shard))
		if _, err := statRegular(path); err != nil {
			if errors.Is(err, fs.ErrNotExist) {
				return &Error{File: path, Class: ErrMissingShard, Detail: "named by " + name, Err: fs.ErrNotExist,
					Remedy: "download the model again"}
			}
			return err
		}
	}
	return nil
}

// shardIndex is a model.safetensors.index.json.
type shardIndex struct {
	path      string
	weightMap map[string]string // tensor: shard
	dtype     string            // of the metadata, "" if it names none
}

func readIndex(path string) (*shardIndex, error) {
	data, err := readSmall(path, maxIndexBytes)
	if err != nil {
		return nil, err
	}
	raw, err := parseObject(data)
	if err != nil {
		return nil, indexError(path, err)
	}
	bad := func(expected, actual string) error {
		return &Error{File: path, Class: ErrBadIndex, Expected: expected, Actual: actual}
	}
	weightMap, ok := raw["weight_map"].(map[string]any)
	if !ok {
		return nil, bad("an object weight_map", describe(raw["weight_map"]))
	}
	if len(weightMap) == 0 {
		return nil, bad("tensors in weight_map", "none")
	}
	ix := &shardIndex{path: path, weightMap: make(map[string]string, len(weightMap))}
	for name, v := range weightMap {
		shard, ok := v.(string)
		if !ok {
			return nil, &Error{File: path, Tensor: name, Class: ErrBadIndex, Expected: "a file name", Actual: describe(v)}
		}
		if err := checkRelative(shard); err != nil {
			return nil, inFile(err, path)
		}
		ix.weightMap[name] = shard
	}
	if meta, ok := raw["metadata"].(map[string]any); ok {
		ix.dtype, _ = meta["dtype"].(string)
	}
	return ix, nil
}

func (ix *shardIndex) shards() []string {
	seen := map[string]bool{}
	var names []string
	for _, shard := range ix.weightMap {
		if !seen[shard] {
			seen[shard] = true
			names = append(names, shard)
		}
	}
	slices.Sort(names)
	return names
}

// pathCause is the bare reason of a *fs.PathError.
func pathCause(err error) error {
	var perr *fs.PathError
	if errors.As(err, &perr) {
		return perr.Err
	}
	return err
}
