package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"github.com/torchgo/torchgo/cmd/torchgo/internal/cli"
	"github.com/torchgo/torchgo/internal/strictjson"
	"github.com/torchgo/torchgo/pretrained"
	_ "github.com/torchgo/torchgo/pretrained/models" // every architecture
	"github.com/torchgo/torchgo/torch"
	"github.com/torchgo/torchgo/torch/nn"
)

// modelFlags are the flags that all commands on a model have.
type modelFlags struct {
	class, dtype, device, attn string
	deviceMap, maxMemory       string
	offloadFolder              string
	offloadBuffers             bool
	adapter                    string
	variant, subfolder         string
	ggufFile                   string
	useSafetensors             bool
	config, keyMapping         string
	allow                      []string
	ignoreMismatched, strict   bool
	threads                    int
	seed                       uint64
	flags                      *pflag.FlagSet
	later                      map[string]*string // flags of the command line that this version can't serve
	dequantize, disableMmap    bool
	hub                        *hubFlags
}

// maxThreads is more than any machine has, and less than OpenMP fails to start.
const maxThreads = 4096

// laterFlags are part of the command line already; using one is a clear error.
var laterFlags = map[string]string{
	"quantization": "quantization",
}

func addModelFlags(cmd *cobra.Command) *modelFlags {
	m := &modelFlags{flags: cmd.Flags(), later: map[string]*string{}}
	f := m.flags
	f.StringVar(&m.class, "class", "", "an Auto class or model class (default: the first of architectures in config.json)")
	f.StringVar(&m.dtype, "dtype", "auto", "auto, float32, bfloat16, …")
	f.StringVar(&m.device, "device", "", "cpu or cuda:N (default: cpu)")
	f.StringVar(&m.deviceMap, "device-map", "", "a device, auto, balanced, balanced_low_0, sequential, or JSON of module name to device, 0 or \"disk\"")
	f.StringVar(&m.offloadFolder, "offload-folder", "", "a `folder` for weights on disk that the checkpoint does not have as they are")
	f.BoolVar(&m.offloadBuffers, "offload-buffers", false, "offload buffers with the parameters of their module")
	f.StringVar(&m.maxMemory, "max-memory", "", "JSON `object`: device to bytes, or \"10GiB\"")
	f.StringVar(&m.attn, "attn", "", "attention: eager or sdpa (default: sdpa where the model has it)")
	f.StringVar(&m.variant, "variant", "", "load model.VARIANT.safetensors (.bin, an index)")
	f.StringVar(&m.subfolder, "subfolder", "", "a folder below MODEL")
	f.StringVar(&m.ggufFile, "gguf-file", "", "the GGUF `file` in MODEL to load; MODEL may be one itself")
	f.BoolVar(&m.useSafetensors, "use-safetensors", false, "true: safetensors only; false: .bin only (default: what is there)")
	f.StringVar(&m.adapter, "adapter", "", "a PEFT adapter over MODEL: a `folder` or an id of the hub (--strict checks its tensors, too)")
	f.StringVar(&m.config, "config", "", "JSON `object` that overrides config.json")
	f.StringVar(&m.keyMapping, "key-mapping", "", "JSON `object`: regular expression to replacement, for names in the checkpoint")
	f.BoolVar(&m.ignoreMismatched, "ignore-mismatched-sizes", false, "initialise weights of another size anew")
	f.StringSliceVar(&m.allow, "allow", nil, "load in spite of an error: default-config, incomplete-index, conflicting-shards")
	f.BoolVar(&m.strict, "strict", false, "missing, unexpected and mismatched weights are errors")
	f.IntVar(&m.threads, "threads", 0, "threads within an operator (default: as many as the process may use)")
	f.Uint64Var(&m.seed, "seed", 0, "seed of the random numbers")
	f.BoolVar(&m.disableMmap, "disable-mmap", false, "read the weights in place of mapping the file")
	m.hub = addHubFlags(f)
	for name, what := range laterFlags {
		m.later[name] = f.String(name, "", what+": not in this version")
	}
	f.BoolVar(&m.dequantize, "dequantize", false, "quantization: not in this version")
	return m
}

// options checks the flags. What is wrong with them is wrong usage.
func (m *modelFlags) options(app *cli.App, what string) (pretrained.Options, error) {
	o := pretrained.Options{
		Class: m.class, Variant: m.variant, Subfolder: m.subfolder, GGUFFile: m.ggufFile, Attn: nn.AttentionKind(m.attn),
		Adapter: m.adapter, OffloadFolder: m.offloadFolder, OffloadBuffers: m.offloadBuffers,
		IgnoreMismatchedSizes: m.ignoreMismatched, Strict: m.strict, DisableMmap: m.disableMmap,
	}
	for name := range m.later {
		if m.flags.Changed(name) {
			return o, fmt.Errorf("--%s: %s: %w in this version", name, laterFlags[name], pretrained.ErrUnsupported)
		}
	}
	if m.dequantize {
		return o, fmt.Errorf("--dequantize: quantization: %w in this version", pretrained.ErrUnsupported)
	}
	for _, name := range []string{"adapter", "gguf-file"} { // a shell's variable that is not set
		if f := m.flags.Lookup(name); f.Changed && f.Value.String() == "" {
			return o, cli.Usagef("--%s: is empty", name)
		}
	}
	var err error
	if m.dtype != "auto" {
		if o.DType, err = torch.ParseDType(m.dtype); err != nil {
			return o, cli.Usagef("--%v", err)
		}
	}
	if m.device != "" {
		if o.Device, err = torch.ParseDevice(m.device); err != nil {
			return o, cli.Usagef("--%v", err)
		}
	}
	if m.deviceMap != "" {
		if o.DeviceMap, err = pretrained.ParseDeviceMap(m.deviceMap); err != nil {
			return o, cli.Usagef("--device-map: %v", err)
		}
	}
	if m.maxMemory != "" {
		if o.MaxMemory, err = memoryMap(m.maxMemory); err != nil {
			return o, cli.Usagef("--max-memory: %v", err)
		}
	}
	if m.flags.Changed("use-safetensors") {
		o.UseSafetensors = torch.Some(m.useSafetensors)
	}
	if m.config != "" {
		object, err := jsonObject(m.config)
		if err != nil {
			return o, cli.Usagef("--config: expected a JSON object: %v", err)
		}
		o.Config = map[string]any{}
		for key, v := range object.All() {
			o.Config[key] = v.Any()
		}
	}
	if m.keyMapping != "" {
		if o.KeyMapping, err = keyRules(m.keyMapping); err != nil {
			return o, cli.Usagef("--key-mapping: %v", err)
		}
	}
	for _, what := range m.allow {
		switch what {
		case "default-config":
			o.AllowDefaultConfig = true
		case "incomplete-index":
			o.AllowIncompleteIndex = true
		case "conflicting-shards":
			o.AllowConflictingShards = true
		default:
			return o, cli.Usagef("--allow: expected default-config, incomplete-index or conflicting-shards, got %q", what)
		}
	}
	if m.flags.Changed("threads") && (m.threads < 1 || m.threads > maxThreads) {
		return o, cli.Usagef("--threads: expected 1 to %d, got %d", maxThreads, m.threads)
	}
	m.hub.apply(app, &o)
	if err := o.Validate(); err != nil {
		return o, cli.Usagef("%v", err)
	}
	if bars := app.Progress(); bars != nil {
		o.Progress = func(done, total int64) { bars.Bytes(what, done, total) }
	}
	return o, nil
}

// start opens libtorch and applies what is set process-wide.
func (m *modelFlags) start() error {
	if err := torch.Load(); err != nil {
		return err
	}
	if m.threads > 0 {
		torch.SetNumThreads(m.threads)
	}
	if m.flags.Changed("seed") {
		torch.ManualSeed(m.seed)
	}
	return nil
}

// load is from_pretrained with the flags.
func (m *modelFlags) load(ctx context.Context, app *cli.App, path string) (pretrained.Model, *pretrained.Report, error) {
	o, err := m.options(app, "loading")
	if err != nil {
		return nil, nil, err
	}
	if err := m.start(); err != nil {
		return nil, nil, err
	}
	model, report, err := pretrained.Load(ctx, path, o)
	return model, report, inFlags(err)
}

// allowed are the values of --allow and the options that they are.
var allowed = map[string]string{
	"AllowDefaultConfig":     "--allow default-config",
	"AllowIncompleteIndex":   "--allow incomplete-index",
	"AllowConflictingShards": "--allow conflicting-shards",
}

// inFlags makes an error's remedy name flags in place of options.
func inFlags(err error) error {
	var e *pretrained.Error
	if !errors.As(err, &e) {
		return err
	}
	for option, flag := range allowed {
		if rest, ok := strings.CutPrefix(e.Remedy, option+" "); ok {
			out := *e
			out.Remedy = flag + " " + rest
			return &out
		}
	}
	return err
}

// jsonObject reads the JSON object that a flag has.
func jsonObject(text string) (*strictjson.Object, error) {
	v, err := strictjson.Parse([]byte(text), strictjson.Options{})
	if err != nil {
		return nil, err
	}
	return v.AsObject()
}

// memoryMap reads {"cuda:0": "10GiB", "cpu": 1000000}; a bare number as key is a GPU's index.
func memoryMap(text string) (map[string]int64, error) {
	object, err := jsonObject(text)
	if err != nil {
		return nil, err
	}
	limits := map[string]int64{}
	for device, v := range object.All() {
		if _, err := strconv.Atoi(device); err == nil {
			device = "cuda:" + device
		}
		bytes, err := v.AsInt()
		if size, textErr := v.AsString(); textErr == nil {
			bytes, err = pretrained.ParseMemory(size)
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", device, err)
		}
		limits[device] = bytes
	}
	return limits, nil
}

// keyRules reads {"pattern": "replacement"}, whose order counts.
func keyRules(text string) ([]pretrained.KeyRule, error) {
	object, err := jsonObject(text)
	if err != nil {
		return nil, err
	}
	var rules []pretrained.KeyRule
	for pattern, v := range object.All() {
		replacement, err := v.AsString()
		if err != nil {
			return nil, err
		}
		rules = append(rules, pretrained.KeyRule{Pattern: pattern, Replacement: replacement})
	}
	return rules, nil
}
