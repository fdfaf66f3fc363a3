// Package checkpoint opens the weights of a model, whatever files they come in: one file or the shards of an index. What
// a file is is decided by its content, never by its name. It needs no libtorch.
//
// Errors are *[Error]; errors.Is finds their class.
package checkpoint

import (
	"errors"
	"fmt"
	"iter"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/torchgo/torchgo/internal/fileerr"
	"github.com/torchgo/torchgo/internal/modelfolder"
	"github.com/torchgo/torchgo/internal/weights"
	"github.com/torchgo/torchgo/pretrained/safetensors"
)

// Error says what is wrong with a file.
type Error = fileerr.Error

// TensorInfo describes a tensor in a file.
type TensorInfo = weights.TensorInfo

// Checkpoint is the tensors of a model: one file, or the shards of an index.
type Checkpoint struct {
	path  string
	index *safetensors.Index // nil if it is one file
	files []*File
	names []string // of files, as the index or the caller names them
	where map[string]*File
	opts  OpenOptions
}

// OpenOptions are the optional arguments of Open.
type OpenOptions struct {
	// StateDict takes the model's weights out of what training scripts wrap them in: see pickle.File.StateDict. Without
	// it the tensors are all that there are, under their full names.
	StateDict bool

	// KeepUnknown opens PyTorch files with objects of classes that are not known, which are passed over. Nothing of them
	// is run. (torch.load's weights_only=False.)
	KeepUnknown bool

	Only Format // what all files must be; "": anything

	// Open opens the files, by the paths that they have or would have. Default: those on disk. Files on a hub, whose
	// headers alone are needed, take another.
	Open func(path string) (*weights.File, error)

	// AllowIncompleteIndex opens shards that lack tensors which the index promises.
	AllowIncompleteIndex bool

	// AllowConflictingShards opens shards that hold tensors which the index does not have, or has in another one. Of a
	// tensor that is in several, the one in the index's shard counts, or else the last.
	AllowConflictingShards bool
}

// Open opens a file, the shards of an index (a file that ends with .json), the parts of a distributed checkpoint (a
// folder of torch.distributed.checkpoint's, in its safetensors form), or what Find gives for a folder; of a folder
// without a model's weights an adapter's. All shards
// are opened and checked, against each other and against the index too: each promised tensor is in the shard that the
// index names, and there alone, and shards hold no others.
func Open(path string, opts ...OpenOptions) (*Checkpoint, error) {
	var o OpenOptions
	if len(opts) > 0 {
		o = opts[0]
	}
	if o.Open == nil {
		o.Open = weights.Open
	}
	if st, err := os.Stat(path); err == nil && st.IsDir() {
		dir := path
		if path, err = Find(dir, Layout{}); errors.Is(err, fileerr.ErrMissingShard) && adapterIn(dir) != "" {
			path, err = adapterIn(dir), nil
		}
		if err != nil {
			return nil, err
		}
	}
	c := &Checkpoint{path: path, where: map[string]*File{}, opts: o}
	if modelfolder.IsDistributed(path) {
		if err := c.openDistributed(); err != nil {
			return nil, errors.Join(err, c.Close())
		}
		return c, nil
	}
	if !strings.HasSuffix(path, ".json") {
		if err := c.add(path, filepath.Base(path)); err != nil {
			return nil, err
		}
		for _, t := range c.files[0].Tensors() {
			c.where[t.Name] = c.files[0]
		}
		return c, nil
	}
	if !strings.Contains(filepath.Base(path), ".index.") {
		return nil, &Error{Class: fileerr.ErrUnsupported, File: path, Expected: "weights, or the index of their files", Actual: filepath.Base(path)}
	}
	if err := c.openShards(); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return c, nil
}

func (c *Checkpoint) add(path, name string) error {
	f, err := c.opts.Open(path)
	if err != nil {
		return err
	}
	file, err := read(f, c.opts)
	if err != nil {
		return errors.Join(err, f.Close())
	}
	c.files, c.names = append(c.files, file), append(c.names, name)
	return nil
}

func (c *Checkpoint) openShards() (err error) {
	if c.index, err = safetensors.ReadIndex(c.path); err != nil {
		return err
	}
	safe := strings.Contains(filepath.Base(c.path), ".safetensors.")
	if safe {
		c.opts.Only = Safetensors
	}
	for _, name := range c.index.Files() {
		path := filepath.Join(filepath.Dir(c.path), filepath.FromSlash(name))
		if err := c.add(path, name); err != nil {
			var e *Error
			if errors.Is(err, fileerr.ErrMissingShard) && errors.As(err, &e) && e.Detail == "" {
				e.Detail, e.Remedy = "named by "+filepath.Base(c.path), "download it too"
			}
			return err
		}
		if safe && !strings.HasSuffix(name, ".safetensors") {
			return &Error{Class: fileerr.ErrBadIndex, File: c.path, Detail: "shard", Expected: "a name that ends with .safetensors", Actual: fmt.Sprintf("%.80q", name),
				Remedy: "an index of safetensors names nothing else, whatever the file holds"}
		}
	}
	conflict := func(f *File, tensor, what string) error {
		return &Error{Class: fileerr.ErrConflict, File: f.Path(), Tensor: tensor, Detail: what, Remedy: "AllowConflictingShards loads it all the same"}
	}
	var unlisted error
	for i, f := range c.files {
		for _, t := range f.Tensors() {
			promised, ok := c.index.WeightMap[t.Name]
			other := c.where[t.Name]
			if c.opts.AllowConflictingShards {
				if other == nil || !ok || promised == c.names[i] || promised != c.nameOf(other) {
					c.where[t.Name] = f
				}
				continue
			}
			if other != nil {
				return conflict(f, t.Name, "also in "+filepath.Base(other.Path()))
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
			return &Error{Class: fileerr.ErrMissingTensor, File: filepath.Join(filepath.Dir(c.path), c.index.WeightMap[name]), Tensor: name,
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
func (c *Checkpoint) Index() *safetensors.Index { return c.index }

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
			for _, t := range f.Tensors() {
				if c.where[t.Name] == f && !yield(f, t) {
					return
				}
			}
		}
	}
}
