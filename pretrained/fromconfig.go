package pretrained

import (
	"context"
	"errors"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"strings"

	"github.com/torchgo/torchgo/torch"
)

// NewConfig makes the config of a model type: transformers' defaults, and keys as they are in a config.json
// (AutoConfig.for_model).
func NewConfig(modelType string, keys map[string]any) (Config, error) {
	raw := maps.Clone(keys)
	if raw == nil {
		raw = map[string]any{}
	}
	raw["model_type"] = modelType
	registry.RLock()
	a, err := architectureOf(modelType, nil, "")
	registry.RUnlock()
	if err != nil {
		return nil, err
	}
	c := a.NewConfig()
	return c, readConfig(c, raw, keys)
}

// CloneConfig copies a config, so that changes of the one are none of the other.
func CloneConfig[C Config](c C) C {
	v := reflect.ValueOf(c).Elem()
	out := reflect.New(v.Type())
	out.Elem().Set(v)
	deepCopy(out.Elem())
	clone := out.Interface().(C)
	base := clone.Base()
	deepCopy(reflect.ValueOf(&base.raw).Elem())
	deepCopy(reflect.ValueOf(&base.asRead).Elem())
	return clone
}

// deepCopy makes what v refers to its own.
func deepCopy(v reflect.Value) {
	switch v.Kind() {
	case reflect.Struct:
		for i := range v.NumField() {
			if v.Field(i).CanSet() {
				deepCopy(v.Field(i))
			}
		}
	case reflect.Pointer:
		if !v.IsNil() {
			c := reflect.New(v.Type().Elem())
			c.Elem().Set(v.Elem())
			deepCopy(c.Elem())
			v.Set(c)
		}
	case reflect.Interface:
		if !v.IsNil() {
			c := reflect.New(v.Elem().Type()).Elem()
			c.Set(v.Elem())
			deepCopy(c)
			v.Set(c)
		}
	case reflect.Slice:
		if !v.IsNil() {
			c := reflect.MakeSlice(v.Type(), v.Len(), v.Len())
			reflect.Copy(c, v)
			for i := range v.Len() {
				deepCopy(c.Index(i))
			}
			v.Set(c)
		}
	case reflect.Map:
		if !v.IsNil() {
			c := reflect.MakeMapWithSize(v.Type(), v.Len())
			for _, k := range v.MapKeys() {
				item := reflect.New(v.Type().Elem()).Elem()
				item.Set(v.MapIndex(k))
				deepCopy(item)
				c.SetMapIndex(k, item)
			}
			v.Set(c)
		}
	}
}

// FromConfig builds a model with new values, which ManualSeed decides: that of opts.Class, or else of the first
// of the config's architectures, or else the base model. Of the options, Class, DType, Device, Attn and Config
// count; the dtype is float32 if neither they nor the config have one. The config is copied. The model is in
// training mode and belongs to the caller. (AutoModel.from_config.)
func FromConfig(config Config, opts Options) (_ Model, err error) {
	if err := opts.Validate(); err != nil {
		return nil, err
	}
	l := &loader{opts: opts, plan: &LoadPlan{}, files: &files{}}
	if err := l.useConfig(config); err != nil {
		return nil, err
	}
	l.dtype = torch.Float32
	if opts.DType != 0 {
		l.dtype = opts.DType
	} else if name := l.config.Base().DType; name != "" {
		if l.dtype, err = torch.ParseDType(name); err != nil || !l.dtype.IsFloatingPoint() {
			return nil, configError("dtype", "a floating-point dtype", name)
		}
	}
	l.config.Base().DType = l.dtype.String()
	if err := torch.Load(); err != nil {
		return nil, err
	}
	if err := torch.TryDo(l.build); err != nil {
		return nil, &Error{Class: ErrBadConfig, Detail: "building " + l.class.Name, Err: err}
	}
	defer func() {
		if err != nil {
			l.model.Close()
		}
	}()
	if err := l.place(); err != nil {
		return nil, err
	}
	for name, p := range l.places {
		if p.disk {
			return nil, badMap(name, Error{Class: ErrUnsupported, Actual: "disk", Remedy: "no file has the new values"})
		}
	}
	l.plan.TiedKeys, l.compare = wantedTies(l.model), map[string]string{}
	err = torch.TryDo(func() {
		l.initialise()
		l.tie()
		l.dispatch()
		l.model.base().checkpointAsConfigured()
	})
	if err != nil {
		return nil, &Error{Detail: "initialising", Err: err}
	}
	return l.model, nil
}

// FromConfig is the function of that name with the class that a chooses.
func (a *AutoClass) FromConfig(config Config, opts Options) (Model, error) {
	opts.Class = a.Name
	return FromConfig(config, opts)
}

// LoadConfig reads the config of a model: of a directory, of one checkpoint file that lies beside it, of a
// config.json itself, or of an id of the hub. Of the options those that concern the config and the hub count.
// (AutoConfig.from_pretrained.)
func LoadConfig(ctx context.Context, path string, opts Options) (Config, error) {
	if err := opts.Validate(); err != nil {
		return nil, err
	}
	f := &files{}
	defer func() { f.close() }()
	st, err := os.Stat(path)
	switch {
	case opts.ConfigInstance != nil || opts.ConfigPath != "":
		return nil, &Error{Class: ErrArgument, Detail: "a config in place of the config that is asked for"}
	case opts.GGUFFile != "" || err == nil && !st.IsDir() && isGGUF(path):
		opts.headersOnly = true
		var found *files
		if found, err = resolve(ctx, path, opts); found != nil {
			f = found
		}
	case errors.Is(err, fs.ErrNotExist) && isHubID(path):
		err = f.hubConfig(ctx, path, opts)
	case err != nil:
		err = &Error{File: path, Err: pathCause(err)}
	case st.IsDir():
		err = f.readConfig(filepath.Join(path, filepath.FromSlash(opts.Subfolder)), opts)
	case strings.HasSuffix(path, ".json") && !strings.Contains(filepath.Base(path), ".index."):
		opts.ConfigPath = path
		err = f.readConfig("", opts)
	default:
		err = f.readConfig(filepath.Dir(path), opts)
	}
	if err != nil {
		return nil, err
	}
	modelType, _ := f.raw["model_type"].(string)
	registry.RLock()
	a, err := architectureOf(modelType, f.raw, opts.Class)
	registry.RUnlock()
	if err != nil {
		return nil, inFile(err, f.config)
	}
	c := a.NewConfig()
	if err := readConfig(c, f.raw, opts.Config); err != nil {
		return nil, inFile(err, f.config)
	}
	return c, nil
}
