package safetensors

import (
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Checkpoint is the tensors of a model: one file, or the shards of an index.
type Checkpoint struct {
	path  string
	index *Index // nil if it is one file
	files []*File
	names []string // of files, as the index or the caller names them
	where map[string]*File
	opts  OpenOptions
}

// Layout says which of the checkpoints in a folder is meant. The zero Layout is the usual one.
type Layout struct {
	Subfolder string // of the folder
	Variant   string // model.<variant>.safetensors, model.safetensors.index.<variant>.json
}

// Find gives the file with the weights in a folder, as transformers chooses it: model.safetensors, else
// model.safetensors.index.json. If there is neither, the error is ErrMissingShard and fs.ErrNotExist.
func Find(dir string, l Layout) (string, error) {
	if l.Subfolder != "" {
		if !filepath.IsLocal(filepath.FromSlash(l.Subfolder)) {
			return "", &Error{Class: ErrPath, File: dir, Detail: "subfolder", Expected: "a folder inside", Actual: fmt.Sprintf("%.80q", l.Subfolder)}
		}
		dir = filepath.Join(dir, filepath.FromSlash(l.Subfolder))
	}
	single, index := fileNames(l.Variant)
	if strings.ContainsAny(l.Variant, `/\`) || checkFileName(single) != nil {
		return "", &Error{Class: ErrPath, File: dir, Detail: "variant", Expected: "a plain word", Actual: fmt.Sprintf("%.80q", l.Variant)}
	}
	if st, err := os.Stat(dir); err != nil {
		e := &Error{File: dir, Err: cause(err)}
		if errors.Is(err, fs.ErrNotExist) {
			e.Class = ErrMissingShard
		}
		return "", e
	} else if !st.IsDir() {
		return "", &Error{Class: ErrMissingShard, File: dir, Expected: "a folder", Actual: "a file"}
	}
	for _, name := range []string{single, index} {
		path := filepath.Join(dir, name)
		// A broken link or a folder of that name is an error later, not a reason to look further.
		if _, err := os.Lstat(path); err == nil {
			return path, nil
		} else if !errors.Is(err, fs.ErrNotExist) {
			return "", &Error{File: path, Detail: "open", Err: cause(err)}
		}
	}
	e := &Error{Class: ErrMissingShard, File: dir, Expected: fmt.Sprintf("%s or %s", single, index), Actual: "neither", Err: fs.ErrNotExist}
	if found, _ := fs.Glob(os.DirFS(dir), "pytorch_model*.bin"); len(found) > 0 {
		e.Remedy = "convert " + found[0] + " to safetensors"
	}
	return "", e
}

// fileNames are the names of a single file and of an index.
func fileNames(variant string) (single, index string) {
	if variant == "" {
		return "model.safetensors", "model.safetensors.index.json"
	}
	return "model." + variant + ".safetensors", "model.safetensors.index." + variant + ".json"
}

// OpenOptions say what OpenCheckpointWith does otherwise than OpenCheckpoint.
type OpenOptions struct {
	// Open opens the files, by the paths that they have or would have. Default: Open. Files on a hub, whose
	// headers alone are needed, take another.
	Open func(path string) (*File, error)

	// AllowIncompleteIndex opens shards that lack tensors which the index promises.
	AllowIncompleteIndex bool

	// AllowConflictingShards opens shards that hold tensors which the index does not have, or has in another one. Of a
	// tensor that is in several, the one in the index's shard counts, or else the last.
	AllowConflictingShards bool
}

// OpenCheckpointWith is OpenCheckpoint for a file or an index, with options.
func OpenCheckpointWith(path string, o OpenOptions) (*Checkpoint, error) {
	if o.Open == nil {
		o.Open = Open
	}
	return openCheckpoint(path, o)
}

// OpenCheckpoint opens a file, the shards of an index (a file that ends with .json), or what Find gives
// for a folder. All shards are opened and checked, against each other and against the index too: each
// promised tensor is in the shard that the index names, and there alone, and shards hold no others.
func OpenCheckpoint(path string) (*Checkpoint, error) {
	if st, err := os.Stat(path); err == nil && st.IsDir() {
		if path, err = Find(path, Layout{}); err != nil {
			return nil, err
		}
	}
	return openCheckpoint(path, OpenOptions{Open: Open})
}

func openCheckpoint(path string, o OpenOptions) (*Checkpoint, error) {
	c := &Checkpoint{path: path, where: map[string]*File{}, opts: o}
	if !strings.HasSuffix(path, ".json") {
		if err := c.add(path, filepath.Base(path)); err != nil {
			return nil, err
		}
		for _, t := range c.files[0].header.tensors {
			c.where[t.Name] = c.files[0]
		}
		return c, nil
	}
	if err := c.openShards(); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return c, nil
}

func (c *Checkpoint) add(path, name string) error {
	f, err := c.opts.Open(path)
	if err == nil {
		c.files, c.names = append(c.files, f), append(c.names, name)
	}
	return err
}

func (c *Checkpoint) openShards() (err error) {
	if c.index, err = ReadIndex(c.path); err != nil {
		return err
	}
	for _, name := range c.index.Files() {
		path := filepath.Join(filepath.Dir(c.path), filepath.FromSlash(name))
		if err := c.add(path, name); err != nil {
			var e *Error
			if errors.Is(err, ErrMissingShard) && errors.As(err, &e) && e.Detail == "" {
				e.Detail, e.Remedy = "named by "+filepath.Base(c.path), "download it too"
			}
			return err
		}
		if !strings.HasSuffix(name, ".safetensors") {
			return &Error{Class: ErrBadIndex, File: c.path, Detail: "shard", Expected: "a name that ends with .safetensors", Actual: fmt.Sprintf("%.80q", name),
				Remedy: "an index of safetensors names nothing else, whatever the file holds"}
		}
	}
	conflict := func(f *File, tensor, what string) error {
		return &Error{Class: ErrConflict, File: f.path, Tensor: tensor, Detail: what, Remedy: "AllowConflictingShards loads it all the same"}
	}
	var unlisted error
	for i, f := range c.files {
		for _, t := range f.header.tensors {
			promised, ok := c.index.WeightMap[t.Name]
			other := c.where[t.Name]
			if c.opts.AllowConflictingShards {
				if other == nil || !ok || promised == c.names[i] || promised != c.nameOf(other) {
					c.where[t.Name] = f
				}
				continue
			}
			if other != nil {
				return conflict(f, t.Name, "also in "+filepath.Base(other.path))
			}
			c.where[t.Name] = f
			switch {
			case !ok && unlisted == nil:
				unlisted = conflict(f, t.Name, "not in "+filepath.Base(c.path))
			case ok && promised != c.names[i]:
				return conflict(f, t.Name, fmt.Sprintf("%s promises it in %s", filepath.Base(c.path), promised))
			}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(c.index.WeightMap)) {
		if c.where[name] == nil && !c.opts.AllowIncompleteIndex {
			return &Error{Class: ErrMissingTensor, File: filepath.Join(filepath.Dir(c.path), c.index.WeightMap[name]), Tensor: name,
				Detail: "promised by " + filepath.Base(c.path), Remedy: "AllowIncompleteIndex takes it for missing"}
		}
	}
	return unlisted
}

// nameOf is the name that the index has for a file.
func (c *Checkpoint) nameOf(f *File) string { return c.names[slices.Index(c.files, f)] }

// Close closes all files. Mappings stay.
func (c *Checkpoint) Close() error {
	var errs []error
	for _, f := range c.files {
		errs = append(errs, f.Close())
	}
	return errors.Join(errs...)
}

// Path is the file or index that was opened.
func (c *Checkpoint) Path() string { return c.path }

// Index is the index; nil if the checkpoint is one file.
func (c *Checkpoint) Index() *Index { return c.index }

// Files are the open files, by name.
func (c *Checkpoint) Files() []*File { return slices.Clone(c.files) }

// Len is the number of tensors.
func (c *Checkpoint) Len() int { return len(c.where) }

// Tensor finds a tensor and the file that holds it.
func (c *Checkpoint) Tensor(name string) (*File, TensorInfo, bool) {
	f := c.where[name]
	if f == nil {
		return nil, TensorInfo{}, false
	}
	t, _ := f.Tensor(name)
	return f, t, true
}

// All goes over the tensors, file by file, in the order of their bytes.
func (c *Checkpoint) All() iter.Seq2[*File, TensorInfo] {
	return func(yield func(*File, TensorInfo) bool) {
		for _, f := range c.files {
			for _, t := range f.header.tensors {
				if c.where[t.Name] == f && !yield(f, t) {
					return
				}
			}
		}
	}
}
