package pretrained

import (
	"fmt"
	"iter"
	"regexp"
	"strings"

	"github.com/torchgo/torchgo/pretrained/hub"
	"github.com/torchgo/torchgo/torch"
	"github.com/torchgo/torchgo/torch/nn"
)

// Options are the arguments of from_pretrained. The zero value loads as transformers does by default.
type Options struct {
	// Class is a model class ("BertForMaskedLM") or an Auto class ("AutoModelForMaskedLM").
	// Default: the first entry of architectures in config.json.
	Class string

	// DType is the dtype of the model. Default: dtype or torch_dtype of config.json, else dtype of the
	// index's metadata, else the checkpoint's first floating-point dtype that is not fp8 or fp4.
	DType torch.DType

	// DTypes are dtypes by part of the model, as transformers 4 had them: that of "" counts, for the whole model, as
	// in transformers 5.
	DTypes map[string]torch.DType

	// Device is where the weights go. Default: CPU.
	Device torch.Device

	// DeviceMap places parts of the model, instead of Device.
	DeviceMap DeviceMap

	// MaxMemory bounds the bytes of the model on each device ("cpu", "cuda:0"): see ParseMemory.
	MaxMemory map[string]int64

	// OffloadFolder takes the weights that a device map puts on "disk" and the checkpoint does not have as they are:
	// those that are merged, divided or initialised. It is made if need be; what is written stays.
	OffloadFolder string

	// OffloadBuffers offloads buffers with the parameters of their module. Default: they stay where the module runs.
	OffloadBuffers bool

	// Config overrides keys of config.json. Values are those of a JSON document: nil, bool, int, int64,
	// float64, string, []any, map[string]any.
	Config map[string]any

	// ConfigInstance is the model's config, in place of a config.json. The model has a copy; Config must be empty.
	ConfigInstance Config

	// ConfigPath is another config.json, or a directory with one. (For one of the hub: LoadConfig, then
	// ConfigInstance.)
	ConfigPath string

	// StateDict is tensors by name to load in place of files: the path is then empty, and the config one of the two
	// above. The model has copies.
	StateDict iter.Seq2[string, *torch.Tensor]

	// AllowDefaultConfig loads a checkpoint without config.json with the defaults of the class, as transformers does.
	// Whatever does not fit is initialised anew.
	AllowDefaultConfig bool

	// AllowIncompleteIndex takes tensors that an index promises and its shards lack for missing ones.
	AllowIncompleteIndex bool

	// AllowConflictingShards loads shards that hold other tensors than their index says, or the same ones: of a tensor
	// that is in two, the one that the index means counts.
	AllowConflictingShards bool

	// GenerationConfig is the model's, in place of the generation_config.json beside the weights.
	GenerationConfig *GenerationConfig

	// KeyMapping renames tensors of the checkpoint before any other rule does: in order, each regular
	// expression's first match in a name is replaced.
	KeyMapping []KeyRule

	// IgnoreMismatchedSizes initialises a parameter anew whose shape in the checkpoint is another, instead
	// of failing.
	IgnoreMismatchedSizes bool

	// Strict makes missing, unexpected and mismatched weights errors.
	Strict bool

	// Variant picks model.<Variant>.safetensors.
	Variant string

	// Subfolder is a path below the model's directory that holds config and weights.
	Subfolder string

	// UseSafetensors true accepts safetensors only, false PyTorch's .bin files only. Default: safetensors
	// if there, else .bin.
	UseSafetensors torch.Opt[bool]

	// WeightsOnly false passes over objects of unknown classes in PyTorch's .bin files, where they are an error else. Either
	// way nothing of a file is run. Default: true.
	WeightsOnly torch.Opt[bool]

	// GGUFFile is the name of a GGUF file in the model's directory or repository, which is loaded in place of all others;
	// its metadata are the config. (A path of one as MODEL says the same.) Its weights become those of a dense model,
	// float32 unless DType says otherwise.
	GGUFFile string

	// DisableMmap reads the weights instead of mapping the file: the process then holds a copy of its own,
	// and nobody who truncates the file afterwards can harm it.
	DisableMmap bool

	// Attn is the attention implementation: nn.SDPA, nn.Eager, or a name of transformers' such as
	// flash_attention_2, for which sdpa stands. Default: nn.SDPA where the model has it.
	Attn nn.AttentionKind

	// Threads bounds the readers that run at once. Default: 4, or the number of CPUs if that is less.
	Threads int

	// Revision is the branch, tag, commit or pull request (refs/pr/N) of a hub id. Default: main. It becomes
	// a commit once; all files come from that one.
	Revision string

	// CodeRevision is taken for the sake of programs that have it: code from a hub never runs.
	CodeRevision string

	// Token is shown to the hub. Default: that of the environment, see package hub.
	Token hub.Token

	// NoToken makes requests without a token, even if the environment has one.
	NoToken bool

	// CacheDir is the folder of the hub's cache. Default: Python's, see package hub. Proxies are those of
	// HTTPS_PROXY, HTTP_PROXY and NO_PROXY.
	CacheDir string

	// ForceDownload downloads again what the cache has.
	ForceDownload bool

	// LocalFilesOnly makes no request: what is missing in the cache is an error. HF_HUB_OFFLINE says the same.
	LocalFilesOnly bool

	// DownloadProgress is called as bytes of a hub id's files arrive, never from two goroutines at once.
	DownloadProgress func(hub.Progress)

	// Adapter is an adapter of package peft to load over the model: a folder, or an id of the hub. Default: that beside
	// the model's files, if there is one.
	Adapter string

	// AdapterOptions are those of the adapter. What concerns the hub is as for the model where they say nothing.
	AdapterOptions LoadAdapterOptions

	// headersOnly: the weights' bytes are not needed.
	headersOnly bool

	// Progress is called as weights arrive, with the bytes so far and in all; never from two goroutines at
	// once.
	Progress func(done, total int64)
}

// KeyRule is one renaming, in Python's notation: what Pattern matches first in a name becomes Replacement,
// in which \1 is the first group.
type KeyRule struct{ Pattern, Replacement string }

// Validate tells what is wrong with the options by themselves; Load and Plan call it.
func (o Options) Validate() error {
	bad := func(name, expected, actual string) error {
		return &Error{Detail: name, Expected: expected, Actual: actual, Class: ErrArgument}
	}
	if o.DType != 0 && !o.DType.IsFloatingPoint() {
		return bad("dtype", "a floating-point dtype", o.DType.String())
	}
	if o.DTypes != nil {
		d, ok := o.DTypes[""]
		switch {
		case o.DType != 0:
			return bad("dtype", "one for the model or a map", "both")
		case !ok:
			return bad("dtype", `an entry "" in the map, for the whole model`, "none")
		case !d.IsFloatingPoint():
			return bad("dtype", "a floating-point dtype", d.String())
		}
	}
	if o.Threads < 0 {
		return bad("threads", "0 or more", fmt.Sprint(o.Threads))
	}
	if strings.ContainsAny(o.Variant, `/\`+"\x00") {
		return bad("variant", "a part of a file name", fmt.Sprintf("%q", o.Variant))
	}
	if o.Subfolder != "" {
		if err := checkRelative(o.Subfolder); err != nil {
			return bad("subfolder", "a path below the model directory", fmt.Sprintf("%q", o.Subfolder))
		}
	}
	if o.GGUFFile != "" {
		if err := checkRelative(o.GGUFFile); err != nil {
			return bad("gguf-file", "a path below the model directory", fmt.Sprintf("%q", o.GGUFFile))
		}
		if o.StateDict != nil {
			return bad("state dict", "the only source of weights", "a GGUF file, too")
		}
	}
	switch {
	case o.ConfigInstance != nil && o.ConfigPath != "":
		return bad("config", "an instance or a path", "both")
	case o.ConfigInstance != nil && len(o.Config) > 0:
		return &Error{Class: ErrArgument, Detail: "overrides of a config that is given as such", Remedy: "change the config itself"}
	case o.StateDict != nil && o.ConfigInstance == nil && o.ConfigPath == "":
		return bad("state dict", "its config, too", "none")
	}
	if o.DeviceMap != nil && (o.Device != torch.Device{}) {
		return badMap("both a device map and a device are given", Error{})
	}
	if err := o.DeviceMap.check(); err != nil {
		return err
	}
	if o.MaxMemory != nil {
		if _, err := budgetsOf(o.MaxMemory); err != nil {
			return err
		}
	}
	for _, r := range o.KeyMapping {
		if _, err := regexp.Compile(r.Pattern); err != nil {
			return bad("key mapping", "a regular expression", err.Error())
		}
	}
	if _, known := attnNames[o.Attn]; o.Attn != "" && !known {
		return badAttn(o.Attn)
	}
	return nil
}

func (o Options) device() torch.Device {
	if (o.Device == torch.Device{}) {
		return torch.CPU
	}
	return o.Device
}
