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

	"github.com/torchgo/torchgo/internal/regular"
	"github.com/torchgo/torchgo/pretrained/safetensors"
)

const maxConfigBytes = 16 << 20

const noConfig = "AllowDefaultConfig takes the defaults of the class"

// files are the files of a checkpoint on disk.
type files struct {
	dir     string         // where config.json and its like are, if anywhere
	config  string         // path of config.json
	raw     map[string]any // its object
	weights string         // path of the weights file, or of the index of several

	open func(path string) (*safetensors.File, error) // opens weights; nil: safetensors.Open
	seen []*stamp                                     // files that say what belongs to the checkpoint, before they were read

	done func() // ends what open needs; nil: nothing
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

func (f *files) openCheckpoint(opts Options) (*safetensors.Checkpoint, error) {
	return safetensors.OpenCheckpointWith(f.weights, safetensors.OpenOptions{Open: f.open,
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
		return resolveDir(filepath.Join(path, filepath.FromSlash(opts.Subfolder)), opts)
	}
	if err := regular.Check(path, st); err != nil {
		return nil, err
	}
	f := &files{weights: path}
	if err := refuseOther(path); err != nil {
		return nil, err
	}
	f.look(path)
	return f, f.readConfig(filepath.Dir(path), opts)
}

func resolveDir(dir string, opts Options) (*files, error) {
	f := &files{}
	if err := f.readConfig(dir, opts); err != nil {
		return nil, err
	}
	if adapter := filepath.Join(dir, "adapter_config.json"); exists(adapter) {
		return nil, refuseAdapter(adapter)
	}
	if name, ok := f.raw["transformers_weights"].(string); ok {
		if err := checkWeightsName(name); err != nil {
			return nil, inFile(err, f.config)
		}
		f.weights = filepath.Join(dir, filepath.FromSlash(name))
		f.look(f.weights)
		return f, nil
	}
	only, chosen := opts.UseSafetensors.Get()
	var err error
	if only || !chosen {
		found := len(f.seen)
		f.look(dir)
		if f.weights, err = safetensors.Find(dir, safetensors.Layout{Variant: opts.Variant}); err == nil {
			f.seen = f.seen[:found]
			f.look(f.weights)
			return f, nil
		}
		if !errors.Is(err, ErrMissingShard) {
			return nil, err
		}
	}
	single, index := "pytorch_model.bin", "pytorch_model.bin.index.json"
	if opts.Variant != "" {
		single, index = "pytorch_model."+opts.Variant+".bin", "pytorch_model.bin.index."+opts.Variant+".json"
	}
	var pickle string
	for _, name := range []string{index, single} {
		if exists(filepath.Join(dir, name)) {
			pickle = name
		}
	}
	switch {
	case pickle != "" && !(chosen && only):
		return nil, refuseOther(filepath.Join(dir, pickle))
	case err == nil:
		err = &Error{File: dir, Class: ErrMissingShard, Expected: single + " or " + index, Actual: "neither"}
	}
	var e *Error
	if errors.As(err, &e) {
		if pickle != "" {
			e.Remedy = "there is a " + pickle + ", which use-safetensors=true forbids"
		} else if opts.Variant != "" && exists(filepath.Join(dir, "model.safetensors")) {
			e.Remedy = "there is a model.safetensors without the variant"
		}
	}
	return f, err
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
		if adapter := filepath.Join(dir, "adapter_config.json"); exists(adapter) {
			return refuseAdapter(adapter)
		}
		if opts.ConfigPath == "" {
			e.Remedy = noConfig
		}
		return e
	case err != nil:
		return err
	}
	if f.raw, err = parseObject(data); err != nil {
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

func refuseAdapter(file string) error {
	return &Error{File: file, Class: ErrUnsupported, Detail: "adapters can't be loaded yet", Remedy: "merge it into its base model"}
}

// refuseOther is an error for names of files that are no safetensors. Others may be: their content decides.
func refuseOther(path string) error {
	name := filepath.Base(path)
	switch {
	case strings.Contains(name, "safetensors.index."):
		return nil
	case strings.HasSuffix(name, ".gguf"):
		return &Error{File: path, Class: ErrUnsupported, Detail: "GGUF files can't be loaded yet"}
	case strings.HasSuffix(name, ".bin"), strings.Contains(name, ".bin.index."), strings.HasSuffix(name, ".pt"), strings.HasSuffix(name, ".pth"):
		return &Error{File: path, Class: ErrUnsupported, Detail: "PyTorch's pickle files can't be loaded yet",
			Remedy: "convert it to safetensors"}
	case strings.HasSuffix(name, ".json"):
		return &Error{File: path, Class: ErrUnsupported, Expected: "weights or their index", Actual: name}
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
