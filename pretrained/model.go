package pretrained

import (
	"context"
	"slices"

	"github.com/torchgo/torchgo/pretrained/peft"
	"github.com/torchgo/torchgo/torch"
	"github.com/torchgo/torchgo/torch/nn"
)

// Model is a model that the pipeline can load, run and save. An architecture implements Forward and embeds
// PreTrainedModel, which has, and documents, the rest.
type Model interface {
	// Forward runs the model. It panics with a *torch.Error on inputs that don't fit.
	Forward(in Inputs) *Output

	Class() string
	Config() Config
	GenerationConfig() *GenerationConfig
	DType() torch.DType
	Device() torch.Device
	NumParameters(...NumParametersOptions) int64
	MemoryFootprint(...MemoryFootprintOptions) int64
	CanGenerate() bool
	InputDevice() torch.Device
	HFDeviceMap() map[string]string
	Weight(ctx context.Context, name string) (*torch.Tensor, error)
	Close()

	Train()
	Eval()
	Training() bool
	SetRequiresGrad(bool)

	BaseModel() Model
	GetEncoder() any
	GetDecoder() any
	InputEmbeddings() *nn.Embedding
	SetInputEmbeddings(*nn.Embedding) error
	OutputEmbeddings() *nn.Linear
	SetOutputEmbeddings(*nn.Linear) error
	ResizeTokenEmbeddings(n int, opts ...ResizeOptions) (*nn.Embedding, error)
	TiedKeys() map[string]string
	TieWeights() error
	InitWeights() error

	To(torch.Device, torch.DType) error
	CPU() error
	CUDA(index int) error
	Half() error
	BFloat16() error
	Float() error
	Double() error
	Dequantize(torch.DType) error

	ActivationCheckpointingEnable(...ActivationCheckpointingOptions) error
	ActivationCheckpointingDisable()
	IsActivationCheckpointing() bool
	GradientCheckpointingEnable(...ActivationCheckpointingOptions) error
	GradientCheckpointingDisable()
	IsGradientCheckpointing() bool
	EnableInputRequireGrads()
	DisableInputRequireGrads()

	LoadAdapter(ctx context.Context, path string, opts ...LoadAdapterOptions) (*AdapterReport, error)
	AddAdapter(config *peft.Config, name string) error
	SetAdapter(names ...string) error
	EnableAdapters() error
	DisableAdapters() error
	ActiveAdapters() []string
	DeleteAdapter(names ...string) error
	PeftConfig() map[string]*peft.Config
	GetAdapterStateDict(name string) (map[string]*torch.Tensor, error)
	EnablePeftHotswap(targetRank int) error
	MergeAdapter(...peft.MergeOptions) error
	UnmergeAdapter() error
	MergeAndUnload(...peft.MergeOptions) error
	UnloadAdapters() error

	AddModelTags(...string)
	ModelTags() []string
	WarnIfPaddingAndNoAttentionMask(inputIDs, mask *torch.Tensor)

	base() *PreTrainedModel
}

// PreTrainedModel is the part of a model that all architectures share; model structs embed it.
type PreTrainedModel struct {
	nn.Mode

	self   Model
	class  *Class
	arch   *Architecture
	config Config
	ties   map[string]string // target: source, those in force
	file   *fileRules        // how the names of its checkpoint come back; nil: it was not loaded from one

	generation *GenerationConfig // of a model that can generate; see there

	// Adapters are those of package peft that the model has; nil: none. AddAdapter, LoadAdapter and their kin manage
	// them.
	Adapters *peft.Adapters `torch:",inline"`

	path          string         // what it was loaded from; "": nothing
	dispatch      *dispatch      // nil: all on one device
	checkpointing *checkpointing // nil: off
	inputGrads    func()         // takes the hook off that makes embeddings require gradients; nil: there is none
	tags          []string       // of the model card
}

func (p *PreTrainedModel) base() *PreTrainedModel { return p }

var _ interface{ base() *PreTrainedModel } = (*PreTrainedModel)(nil) // what Model asks of those who embed it

// bind tells m and the models inside it who they are.
func bind(m Model, class *Class, arch *Architecture, config Config) {
	for path, child := range nn.NamedModules(m) {
		inner, ok := child.(Model)
		if !ok {
			continue
		}
		p := inner.base()
		p.self = inner
		switch own := p.config; {
		case path == "":
			p.config, p.arch, p.class = config, arch, class
		case own != nil && own != config && architecture(own) != nil:
			p.arch = architecture(own)
			p.class = &p.arch.Classes[0]
		default:
			p.config, p.arch, p.class = config, arch, &arch.Classes[0]
		}
	}
}

// UseConfig tells a model that is a part of one of another type its own config. The constructor of the whole
// calls it, so that the rules of the part's own architecture hold for it.
func (p *PreTrainedModel) UseConfig(c Config) { p.config = c }

// Class is the name of the model's class: "BertForMaskedLM".
func (p *PreTrainedModel) Class() string { return p.class.Name }

// Config is the model's config.
func (p *PreTrainedModel) Config() Config { return p.config }

// DType is the dtype of the first floating-point parameter.
func (p *PreTrainedModel) DType() torch.DType {
	defer p.lock()()
	for _, t := range nn.NamedParameters(p.self) {
		if t.DType().IsFloatingPoint() {
			return t.DType()
		}
	}
	return torch.Float32
}

// Device is that of the first parameter, which is torch.Meta if it is offloaded: see InputDevice.
func (p *PreTrainedModel) Device() torch.Device {
	defer p.lock()()
	for _, t := range nn.NamedParameters(p.self) {
		return t.Device()
	}
	return torch.CPU
}

// NumParametersOptions are the arguments of NumParameters.
type NumParametersOptions struct {
	OnlyTrainable     bool // those that require gradients
	ExcludeEmbeddings bool // without the tables of all embeddings, positions included
}

// NumParameters counts the elements of the parameters, tied ones once (num_parameters).
func (p *PreTrainedModel) NumParameters(opts ...NumParametersOptions) int64 {
	var o NumParametersOptions
	if len(opts) > 0 {
		o = opts[0]
	}
	tables := map[string]bool{}
	for path, module := range nn.NamedModules(p.self) {
		if _, ok := module.(*nn.Embedding); ok && o.ExcludeEmbeddings {
			tables[path+".weight"] = true
		}
	}
	var n int64
	defer p.lock()()
	for name, t := range nn.NamedParameters(p.self) {
		if !tables[name] && (t.RequiresGrad() || !o.OnlyTrainable) {
			n += int64(t.Numel())
		}
	}
	return n
}

// MemoryFootprintOptions are the arguments of MemoryFootprint.
type MemoryFootprintOptions struct {
	ReturnBuffers torch.Opt[bool] // count buffers, too; default: true
}

// MemoryFootprint is the bytes of parameters and buffers, tied ones once (get_memory_footprint).
func (p *PreTrainedModel) MemoryFootprint(opts ...MemoryFootprintOptions) int64 {
	var o MemoryFootprintOptions
	if len(opts) > 0 {
		o = opts[0]
	}
	var n int64
	defer p.lock()()
	for _, t := range nn.NamedParameters(p.self) {
		n += int64(t.NumBytes())
	}
	for _, t := range nn.NamedBuffers(p.self) {
		if o.ReturnBuffers.Or(true) {
			n += int64(t.NumBytes())
		}
	}
	return n
}

// Train puts the model in training mode.
func (p *PreTrainedModel) Train() { nn.Train(p.self) }

// Eval puts the model in evaluation mode, in which it is after loading.
func (p *PreTrainedModel) Eval() { nn.Eval(p.self) }

// SetRequiresGrad says whether the parameters are trained: false freezes the model (requires_grad_).
func (p *PreTrainedModel) SetRequiresGrad(on bool) { nn.RequiresGrad_(p.self, on) }

// AddModelTags adds tags to the model card of a model that is pushed to the hub (add_model_tags).
func (p *PreTrainedModel) AddModelTags(tags ...string) {
	for _, tag := range tags {
		if !slices.Contains(p.tags, tag) {
			p.tags = append(p.tags, tag)
		}
	}
}

// ModelTags are the tags that AddModelTags added.
func (p *PreTrainedModel) ModelTags() []string { return slices.Clone(p.tags) }

// Close frees the weights. The model must not be used afterwards.
func (p *PreTrainedModel) Close() {
	if p.dispatch != nil {
		p.dispatch.close()
	}
	nn.Close(p.self)
}
