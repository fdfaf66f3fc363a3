package pretrained

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/torchgo/torchgo/internal/pyjson"
	"github.com/torchgo/torchgo/internal/regular"
	"github.com/torchgo/torchgo/internal/weights"
	"github.com/torchgo/torchgo/pretrained/checkpoint"
	"github.com/torchgo/torchgo/pretrained/peft"
)

const maxConfigBytes = 16 << 20

const noConfig = "AllowDefaultConfig takes the defaults of the class"

// files are the files of a checkpoint on disk.
type files struct {
	dir     string         // where config.json and its like are, if anywhere
	config  string         // path of config.json
	raw     map[string]any // its object
	weights string         // path of the weights file, or of the index of several
	adapter bool           // an adapter is beside them
	commit  string         // that they are of, on the hub

	open func(path string) (*weights.File, error) // opens weights; nil: those on disk
	seen []*stamp                                 // files that say what belongs to the checkpoint, before they were read

	done func() // ends what open needs; nil: nothing

	gguf     *Architecture          // of a GGUF file, whose metadata are the config; nil: the weights are none
	opened   *checkpoint.Checkpoint // it, until openCheckpoint hands it on
	warnings []string               // what is odd about it
}

// close closes what is not in use by then.
func (f *files) close() {
	if f.opened != nil {
		_ = f.opened.Close() // read only: nothing can be lost
		f.opened = nil
	}
	if f.done != nil {
		f.done()
		f.done = nil
	}
}

// stamp is what tells a file from one that takes its place.
type stamp struct {
	path string
	info os.FileInfo // nil: there was none
}

// look notes a file that is going to be read.
func (f *files) look(path string) {
	info, _ := os.Stat(path)
	f.seen = append(f.seen, &stamp{path, info})
}

// unchanged reports whether the files that were read are still those that are there.
func (f *files) unchanged() bool {
	return !slices.ContainsFunc(f.seen, func(s *stamp) bool {
		now, _ := os.Stat(s.path)
		if now == nil || s.info == nil {
			return (now == nil) != (s.info == nil)
		}
		return !os.SameFile(now, s.info) || !now.ModTime().Equal(s.info.ModTime())
	})
}

func (f *files) openCheckpoint(opts Options) (*checkpoint.Checkpoint, error) {
	if c := f.opened; c != nil {
		f.opened = nil
		return c, nil
	}
	only := checkpoint.Format("")
	if safe, _ := opts.UseSafetensors.Get(); safe {
		only = checkpoint.Safetensors
	}
	return checkpoint.Open(f.weights, checkpoint.OpenOptions{StateDict: true, Only: only, Open: f.open, KeepUnknown: !opts.WeightsOnly.Or(true),
		AllowIncompleteIndex: opts.AllowIncompleteIndex, AllowConflictingShards: opts.AllowConflictingShards})
}

// resolve finds config and weights of MODEL: a directory, one checkpoint file with its config beside it, or
// an id of the hub, which is asked only for a name that no file has.
func resolve(ctx context.Context, path string, opts Options) (*files, error) {
	st, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist) && isHubID(path):
		return resolveHub(ctx, path, opts)
	case err != nil:
		return nil, &Error{File: path, Err: pathCause(err)}
	case st.IsDir():
		dir := filepath.Join(path, filepath.FromSlash(opts.Subfolder))
		if opts.GGUFFile == "" {
			return resolveDir(dir, opts)
		}
		f := &files{weights: filepath.Join(dir, filepath.FromSlash(opts.GGUFFile))}
		return f, f.useGGUF(opts)
	case opts.GGUFFile != "":
		return nil, &Error{File: path, Class: ErrArgument, Detail: "gguf-file", Expected: "a folder or an id that it is in", Actual: "a file"}
	}
	if err := regular.Check(path, st); err != nil {
		return nil, err
	}
	f := &files{weights: path}
	if safe, _ := opts.UseSafetensors.Get(); !safe && isGGUF(path) {
		return f, f.useGGUF(opts)
	}
	f.look(path)
	err = f.readConfig(filepath.Dir(path), opts)
	if errors.Is(err, fs.ErrNotExist) { // what is wrong with the file itself matters more
		c, openErr := f.openCheckpoint(opts)
		if openErr != nil {
			return nil, openErr
		}
		_ = c.Close() // read only: nothing can be lost
	}
	return f, err
}

// isGGUF tells a GGUF file by how it begins.
func isGGUF(path string) bool {
	f, st, err := regular.Open(path)
	if err != nil {
		return false
	}
	defer f.Close()
	head := make([]byte, min(st.Size(), 4))
	_, err = f.ReadAt(head, 0)
	return err == nil && string(head) == "GGUF"
}

// useGGUF opens the weights, which are a GGUF file. Its metadata are the config unless the caller has one; a config.json
// beside it isn't looked at.
func (f *files) useGGUF(opts Options) (err error) {
	f.look(f.weights)
	f.dir = filepath.Dir(f.weights)
	if f.opened, err = checkpoint.Open(f.weights, checkpoint.OpenOptions{Only: checkpoint.GGUF, Open: f.open}); err != nil {
		return err
	}
	file := f.opened.Files()[0].GGUF
	if f.gguf, err = ggufArchitecture(file.Metadata()); err != nil {
		return inFile(err, f.weights)
	}
	if opts.ConfigInstance != nil || opts.ConfigPath != "" {
		return f.readConfig(f.dir, opts)
	}
	f.config = f.weights
	_, untied := file.Tensor(ggufOutput)
	if f.raw, err = ggufConfig(f.gguf, file.Metadata(), untied); err != nil {
		return inFile(err, f.weights)
	}
	if f.warnings, err = frequencies(file, f.raw); err != nil {
		return err
	}
	if v, ok := opts.Config["model_type"]; ok {
		f.raw["model_type"] = v
	}
	return nil
}

func resolveDir(dir string, opts Options) (*files, error) {
	f := &files{adapter: exists(filepath.Join(dir, peft.ConfigName))}
	if f.adapter && !exists(filepath.Join(dir, "config.json")) {
		return nil, onlyAdapter(filepath.Join(dir, peft.ConfigName))
	}
	if err := f.readConfig(dir, opts); err != nil {
		// A folder with nothing but another kind of weights lacks a config, too, but that is not what helps.
		var e *Error
		if _, found := checkpoint.Find(dir, checkpoint.Layout{}); errors.Is(err, fs.ErrNotExist) && opts.ConfigPath == "" && errors.As(found, &e) && e.Remedy != "" {
			return nil, found
		}
		return nil, err
	}
	if name, ok := f.raw["transformers_weights"].(string); ok {
		if err := checkWeightsName(name); err != nil {
			return nil, inFile(err, f.config)
		}
		f.weights = filepath.Join(dir, filepath.FromSlash(name))
		f.look(f.weights)
		return f, nil
	}
	found := len(f.seen)
	f.look(dir)
	var err error
	if f.weights, err = checkpoint.Find(dir, opts.layout()); err == nil {
		f.seen = f.seen[:found]
		f.look(f.weights)
	}
	return f, err
}

// layout says which files of weights are looked for.
func (o *Options) layout() checkpoint.Layout {
	l := checkpoint.Layout{Variant: o.Variant}
	if safe, chosen := o.UseSafetensors.Get(); safe {
		l.Only = checkpoint.Safetensors
	} else if chosen {
		l.Only = checkpoint.Pickle
	}
	return l
}

// readConfig finds the model's config: the caller's, or config.json in the directory.
func (f *files) readConfig(dir string, opts Options) error {
	f.dir = dir
	if opts.ConfigInstance != nil {
		f.raw = opts.ConfigInstance.Base().raw
		return nil
	}
	f.config = filepath.Join(dir, "config.json")
	if opts.ConfigPath != "" {
		f.config = opts.ConfigPath
		if st, err := os.Stat(f.config); err == nil && st.IsDir() {
			f.config = filepath.Join(f.config, "config.json")
		}
	}
	f.look(f.config)
	data, err := regular.Read(f.config, maxConfigBytes)
	switch {
	case errors.Is(err, fs.ErrNotExist) && opts.AllowDefaultConfig && opts.ConfigPath == "":
		f.raw = nil
		return nil
	case errors.Is(err, fs.ErrNotExist):
		e := &Error{File: f.config, Class: ErrBadConfig, Err: fs.ErrNotExist}
		if adapter := filepath.Join(dir, peft.ConfigName); exists(adapter) {
			return onlyAdapter(adapter)
		}
		if opts.ConfigPath == "" {
			e.Remedy = noConfig
		}
		return e
	case err != nil:
		return err
	}
	if f.raw, err = pyjson.Parse(data); err != nil {
		return &Error{File: f.config, Class: ErrBadConfig, Err: err}
	}
	if v, ok := opts.Config["model_type"]; ok { // the caller knows better than the file what model it is
		f.raw["model_type"] = v
	}
	return nil
}

// checkWeightsName refuses a transformers_weights that leads outside the directory, or to no safetensors.
func checkWeightsName(name string) error {
	if err := checkRelative(name); err != nil {
		return err
	}
	if !strings.HasSuffix(name, ".safetensors") && !strings.HasSuffix(name, ".safetensors.index.json") {
		return configError("transformers_weights", "a .safetensors file or an index of such", fmt.Sprintf("%q", shorten(name)))
	}
	return nil
}

// pathCause is the bare reason of a *fs.PathError.
func pathCause(err error) error {
	var perr *fs.PathError
	if errors.As(err, &perr) {
		return perr.Err
	}
	return err
}
