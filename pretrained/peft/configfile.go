package peft

import (
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"reflect"
	"slices"
	"strings"

	"github.com/torchgo/torchgo/internal/pyjson"
	"github.com/torchgo/torchgo/internal/regular"
	"github.com/torchgo/torchgo/internal/strictjson"
)

// ConfigName is the file with an adapter's config, in the adapter's folder.
const ConfigName = "adapter_config.json"

const maxConfig = 64 << 20 // bytes of a config file

// ReadConfig reads the adapter_config.json in a folder. Keys that peft doesn't know are left out with a warning, as
// peft does; what this package lacks is an error that names the key.
func ReadConfig(dir string) (*Config, error) {
	path := filepath.Join(dir, ConfigName)
	data, err := regular.Read(path, maxConfig)
	if err != nil {
		var e *Error
		if errors.As(err, &e) && e.Class == nil {
			e.Class = ErrBadConfig
		}
		return nil, err
	}
	c, err := ParseConfig(data)
	return c, inFile(err, path)
}

// ParseConfig reads the text of an adapter_config.json.
func ParseConfig(data []byte) (*Config, error) {
	doc, err := strictjson.Parse(data, strictjson.Options{AllowNaN: true})
	if err != nil {
		return nil, &Error{Class: ErrBadConfig, Err: err}
	}
	object, err := doc.AsObject()
	if err != nil {
		return nil, &Error{Class: ErrBadConfig, Expected: "an object", Actual: "a JSON " + doc.Kind().String()}
	}
	c := &Config{raw: map[string]any{}, asRead: map[string]any{}}
	kind, ok := object.Get("peft_type")
	if !ok {
		return nil, configError("peft_type", "a kind of adapter", "nothing")
	}
	name, err := kind.AsString()
	if err != nil {
		return nil, configError("peft_type", "a kind of adapter", describe(kind))
	}
	c.PeftType = Type(name)
	if err := c.checkType(); err != nil {
		return nil, err
	}
	var unknown []string
	for key, value := range object.All() {
		switch f, ok := fields[key]; {
		case ok && f.of(c.PeftType):
			c.raw[key] = pyjson.FromJSON(value.Any())
			if value.IsNull() && f.null {
				continue
			}
			if err := f.set(c, value); errors.Is(err, ErrUnsupported) {
				return nil, &Error{Class: ErrUnsupported, Detail: key, Actual: describe(value)}
			} else if err != nil {
				return nil, configError(key, f.what, describe(value))
			}
		case key == "runtime_config":
			c.warn("runtime_config is ignored: it is of the program that wrote the file")
		default:
			unknown = append(unknown, key)
		}
	}
	if slices.Sort(unknown); len(unknown) > 0 {
		c.warn("unknown keys are ignored: %s", listed(unknown))
	}
	for key, f := range fields {
		if f.of(c.PeftType) {
			c.asRead[key] = f.get(c)
		}
	}
	if err := c.Validate(); err != nil {
		return nil, err
	}
	return c, nil
}

// JSON is the config as peft writes it: sorted keys, two spaces, no final newline. What was read and not changed since
// is written as it was.
func (c *Config) JSON() []byte {
	out := map[string]any{}
	for key, f := range fields {
		if !f.of(c.PeftType) {
			continue
		}
		out[key] = f.get(c)
		if raw, ok := c.raw[key]; ok && reflect.DeepEqual(out[key], c.asRead[key]) {
			out[key] = raw
		}
	}
	text := pyjson.Marshal(out)
	return text[:len(text)-1]
}

// Clone is a copy that shares nothing.
func (c *Config) Clone() *Config {
	d := *c
	for _, list := range []*[]string{&d.TargetModules.List, &d.ExcludeModules.List, &d.FeedforwardModules.List, &d.ModulesToSave, &d.LayersPattern, &d.Warnings} {
		*list = slices.Clone(*list)
	}
	d.LayersToTransform = slices.Clone(c.LayersToTransform)
	d.RankPattern, d.AlphaPattern = slices.Clone(c.RankPattern), slices.Clone(c.AlphaPattern)
	d.AutoMapping = maps.Clone(c.AutoMapping)
	return &d
}

func (c *Config) warn(format string, args ...any) {
	c.Warnings = append(c.Warnings, fmt.Sprintf(format, args...))
}

// describe is a value for an error: as it is written if it is short.
func describe(v strictjson.Value) string {
	const most = 60
	text := string(strictjson.Format{}.Append(nil, v))
	if len(text) > most {
		return "a JSON " + v.Kind().String()
	}
	return text
}

// listed is at most ten names, quoted.
func listed(names []string) string {
	const most = 10
	var b strings.Builder
	for i, name := range names {
		if i == most {
			fmt.Fprintf(&b, " and %d more", len(names)-most)
			break
		}
		if i > 0 {
			b.WriteString(", ")
		}
		b.WriteString(quoted(name))
	}
	return b.String()
}

// quoted is a name from a file in quotes, cut if it is long.
func quoted(name string) string {
	const most = 200
	if len(name) > most {
		name = name[:most] + "…"
	}
	return fmt.Sprintf("%q", name)
}
