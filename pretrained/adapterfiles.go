package pretrained

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/torchgo/torchgo/internal/regular"
	"github.com/torchgo/torchgo/pretrained/hub"
	"github.com/torchgo/torchgo/pretrained/peft"
	"github.com/torchgo/torchgo/torch"
)

// The names of an adapter's files.
const (
	adapterWeights = "adapter_model.safetensors"
	adapterPickle  = "adapter_model.bin"
)

// read gives the config and the tensors of an adapter, by their names below the model.
func (o LoadAdapterOptions) read(ctx context.Context, path string) (_ *peft.Config, state map[string]*torch.Tensor, err error) {
	if (o.Config == nil) != (o.StateDict == nil) || (o.Config != nil) == (path != "") {
		return nil, nil, &Error{Class: ErrArgument, Detail: "an adapter", Expected: "a path, or a config and a state dict"}
	}
	state = map[string]*torch.Tensor{}
	if o.Config != nil {
		for name, t := range o.StateDict {
			state[withoutPrefix(name)] = t
		}
		return o.Config.Clone(), state, nil
	}
	if o.Subfolder != "" {
		if err := checkRelative(o.Subfolder); err != nil {
			return nil, nil, err
		}
	}
	dir, err := o.find(ctx, path)
	if err != nil {
		return nil, nil, err
	}
	config, err := peft.ReadConfig(dir)
	if err != nil {
		return nil, nil, err
	}
	file, err := o.weights(dir)
	if err != nil {
		return nil, nil, err
	}
	tensors, err := LoadStateDict(ctx, file, LoadStateDictOptions{DisableMmap: true})
	if err != nil {
		return nil, nil, err
	}
	for name, t := range tensors {
		short := withoutPrefix(name)
		if state[short] != nil {
			for _, t := range tensors {
				t.Close()
			}
			return nil, nil, &Error{File: file, Tensor: name, Class: ErrConflict, Detail: "with and without the prefix base_model.model."}
		}
		state[short] = t
	}
	return config, state, nil
}

// weights is the file of an adapter's tensors in a folder.
func (o LoadAdapterOptions) weights(dir string) (string, error) {
	only, chosen := o.UseSafetensors.Get()
	var names []string
	if only || !chosen {
		names = append(names, adapterWeights)
	}
	if !only {
		names = append(names, adapterPickle)
	}
	for _, name := range names {
		file := filepath.Join(dir, name)
		if st, err := os.Stat(file); err == nil {
			return file, regular.Check(file, st)
		}
	}
	return "", &Error{File: dir, Class: ErrMissingShard, Detail: "the adapter's weights", Expected: names[0], Actual: "none", Err: fs.ErrNotExist}
}

// find is the folder of an adapter; one of the hub is brought to the cache, all of it from one commit.
func (o LoadAdapterOptions) find(ctx context.Context, path string) (string, error) {
	st, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist) && isHubID(path):
		return o.fetch(ctx, path)
	case err != nil:
		return "", &Error{File: path, Err: pathCause(err)}
	case !st.IsDir():
		return "", &Error{File: path, Class: ErrArgument, Expected: "the folder of an adapter", Actual: "a file"}
	}
	return filepath.Join(path, filepath.FromSlash(o.Subfolder)), nil
}

func (o LoadAdapterOptions) fetch(ctx context.Context, id string) (string, error) {
	c, m, err := openHub(ctx, id, Options{Subfolder: o.Subfolder, Revision: o.Revision, Token: o.Token, NoToken: o.NoToken, CacheDir: o.CacheDir,
		ForceDownload: o.ForceDownload, LocalFilesOnly: o.LocalFilesOnly, DownloadProgress: o.DownloadProgress})
	if err != nil {
		return "", err
	}
	defer c.Close()
	config, err := m.File(ctx, m.in(peft.ConfigName))
	if err != nil {
		return "", err
	}
	only, chosen := o.UseSafetensors.Get()
	if only || !chosen {
		if _, err := m.File(ctx, m.in(adapterWeights)); !errors.Is(err, hub.ErrEntryNotFound) || only {
			return filepath.Dir(config), err
		}
	}
	if _, err = m.File(ctx, m.in(adapterPickle)); errors.Is(err, hub.ErrEntryNotFound) && !chosen {
		err = &Error{File: id, Class: ErrMissingShard, Detail: "commit " + m.Commit, Expected: adapterWeights + " or " + adapterPickle, Actual: "neither", Err: err}
	}
	return filepath.Dir(config), err
}

// errOnlyAdapter says that what was to be loaded is an adapter, without a model beside it.
var errOnlyAdapter = errors.New("an adapter without its base model")

func onlyAdapter(file string) error {
	return &Error{File: file, Class: ErrBadConfig, Err: errOnlyAdapter, Remedy: "load the base model, with this as its adapter"}
}

// overBase loads an adapter that was named in place of a model: first the model that its config names.
func overBase(ctx context.Context, path string, opts Options) (Model, *Report, error) {
	base, opts, err := baseOf(ctx, path, opts)
	if err != nil {
		return nil, nil, err
	}
	m, r, _, err := load(ctx, base, opts)
	if err != nil {
		return nil, nil, inBase(err, path)
	}
	return withAdapter(ctx, m, r, path, opts)
}

func inBase(err error, adapter string) error {
	e := &Error{File: adapter, Detail: "the base model (base_model_name_or_path)", Err: err}
	var base *Error
	if errors.Is(err, fs.ErrNotExist) && errors.As(err, &base) && base.Class == nil { // no file or folder of that name
		e.Remedy = "load the base model from where it is, with this as its adapter"
	}
	return e
}

// baseOf is the base model of an adapter, with the options for loading it and then the adapter.
func baseOf(ctx context.Context, path string, opts Options) (string, Options, error) {
	a := opts.forAdapter()
	dir, err := a.find(ctx, path)
	if err != nil {
		return "", opts, err
	}
	config, err := peft.ReadConfig(dir)
	if err != nil {
		return "", opts, err
	}
	if config.BaseModelNameOrPath == "" {
		return "", opts, &Error{File: filepath.Join(dir, peft.ConfigName), Class: ErrBadConfig, Detail: "base_model_name_or_path", Expected: "the model that the adapter is for", Actual: "none",
			Remedy: "load that model, with this as its adapter"}
	}
	opts.Adapter, opts.AdapterOptions, opts.Subfolder, opts.Revision = path, a, "", config.Revision
	return config.BaseModelNameOrPath, opts, nil
}

// forAdapter are the options of the adapter that is loaded with the model: those of the model where they say nothing.
func (o Options) forAdapter() LoadAdapterOptions {
	a := o.AdapterOptions
	if o.Adapter == "" { // it is what was asked for
		a.Subfolder, a.Revision = o.Subfolder, o.Revision
	}
	if a.Token == (hub.Token{}) {
		a.Token = o.Token
	}
	if a.CacheDir == "" {
		a.CacheDir = o.CacheDir
	}
	a.NoToken, a.ForceDownload, a.LocalFilesOnly = a.NoToken || o.NoToken, a.ForceDownload || o.ForceDownload, a.LocalFilesOnly || o.LocalFilesOnly
	a.Strict = a.Strict || o.Strict
	if a.DownloadProgress == nil {
		a.DownloadProgress = o.DownloadProgress
	}
	return a
}

// withAdapter puts an adapter over a model that was just loaded.
func withAdapter(ctx context.Context, m Model, r *Report, path string, opts Options) (Model, *Report, error) {
	info, err := m.LoadAdapter(ctx, path, opts.forAdapter())
	if err != nil {
		m.Close()
		return nil, nil, err
	}
	r.Adapter = info
	return m, r, nil
}
