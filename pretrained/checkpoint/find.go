package checkpoint

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/torchgo/torchgo/internal/fileerr"
	"github.com/torchgo/torchgo/internal/modelfolder"
	"github.com/torchgo/torchgo/internal/regular"
)

// Layout says which of the checkpoints in a folder is meant. The zero Layout is the usual one.
type Layout struct {
	Subfolder string // of the folder
	Variant   string // model.<variant>.safetensors, model.safetensors.index.<variant>.json, pytorch_model.<variant>.bin, …
	Only      Format // Safetensors or Pickle: files of that format's names only (use_safetensors)
}

// Names are the file names of a layout, in the order in which they are looked for (transformers' order).
func (l Layout) Names() (names []string) {
	v := ""
	if l.Variant != "" {
		v = "." + l.Variant
	}
	if l.Only != Pickle {
		names = append(names, "model"+v+".safetensors", "model.safetensors.index"+v+".json")
	}
	if l.Only != Safetensors {
		names = append(names, "pytorch_model"+v+".bin", "pytorch_model.bin.index"+v+".json")
	}
	return names
}

// Other is a layout whose files are there where those that were asked for are not.
type Other struct {
	Layout
	Why string // what to say of its files
}

// Others are layouts that a user may have meant.
func (l Layout) Others() []Other {
	return []Other{
		{Layout{Variant: l.Variant}, "which use-safetensors=" + fmt.Sprint(l.Only == Safetensors) + " forbids"},
		{Layout{Only: l.Only}, "without the variant"},
	}
}

// Check refuses a subfolder or a variant that leads elsewhere.
func (l Layout) Check(dir string) error {
	if l.Subfolder != "" && !filepath.IsLocal(filepath.FromSlash(l.Subfolder)) {
		return &Error{Class: fileerr.ErrPath, File: dir, Detail: "subfolder", Expected: "a folder inside", Actual: fmt.Sprintf("%.80q", l.Subfolder)}
	}
	if strings.ContainsAny(l.Variant, `/\`) || l.Variant != "" && fileerr.CheckName("model."+l.Variant+".safetensors") != nil {
		return &Error{Class: fileerr.ErrPath, File: dir, Detail: "variant", Expected: "a plain word", Actual: fmt.Sprintf("%.80q", l.Variant)}
	}
	return nil
}

// Find gives the file with the weights in a folder, or their index, as transformers chooses it: the folder itself if it
// holds a distributed checkpoint, else the first of l.Names that is there. If none is, the error is ErrMissingShard and fs.ErrNotExist.
func Find(dir string, l Layout) (string, error) {
	if err := l.Check(dir); err != nil {
		return "", err
	}
	dir = filepath.Join(dir, filepath.FromSlash(l.Subfolder))
	if st, err := os.Stat(dir); err != nil {
		e := &Error{File: dir, Err: cause(err)}
		if errors.Is(err, fs.ErrNotExist) {
			e.Class = fileerr.ErrMissingShard
		}
		return "", e
	} else if !st.IsDir() {
		return "", &Error{Class: fileerr.ErrMissingShard, File: dir, Expected: "a folder", Actual: "a file"}
	}
	if modelfolder.IsDistributed(dir) && l.Only != Pickle && l.Variant == "" {
		return dir, nil
	}
	there := func(name string) (bool, error) {
		// A broken link or a folder of that name is an error, not a reason to look further.
		path := filepath.Join(dir, name)
		if st, err := os.Stat(path); err == nil && st.IsDir() {
			return true, regular.Check(path, st)
		}
		_, err := os.Lstat(path)
		if err == nil || errors.Is(err, fs.ErrNotExist) {
			return err == nil, nil
		}
		return false, &Error{File: filepath.Join(dir, name), Detail: "open", Err: cause(err)}
	}
	names := l.Names()
	for _, name := range names {
		if ok, err := there(name); ok || err != nil {
			return filepath.Join(dir, name), err
		}
	}
	e := &Error{Class: fileerr.ErrMissingShard, File: dir, Expected: strings.Join(names, " or "), Actual: "none of them", Err: fs.ErrNotExist}
	for _, other := range l.Others() {
		for _, name := range other.Names() {
			if ok, _ := there(name); ok && e.Remedy == "" {
				e.Remedy = "there is a " + name + " " + other.Why
			}
		}
	}
	if found, _ := fs.Glob(os.DirFS(dir), "*.gguf"); len(found) > 0 && e.Remedy == "" {
		e.Remedy = "there is a GGUF file, to be asked for by its name (gguf-file): " + found[0]
	}
	if found, _ := fs.Glob(os.DirFS(dir), "*.distcp"); len(found) > 0 && e.Remedy == "" {
		e.Remedy = "there is a distributed checkpoint, not in its safetensors form: python -m torch.distributed.checkpoint.format_utils dcp_to_torch makes a .pt of it"
	}
	return "", e
}

// adapterIn is the file of an adapter's tensors in a folder that has no model's, "" if there is none.
func adapterIn(dir string) string {
	for _, name := range []string{"adapter_model.safetensors", "adapter_model.bin"} {
		path := filepath.Join(dir, name)
		if _, err := os.Lstat(path); err == nil {
			return path
		}
	}
	return ""
}

// cause drops operation and path, which the Error has already.
func cause(err error) error {
	var p *fs.PathError
	if errors.As(err, &p) {
		return p.Err
	}
	return err
}
