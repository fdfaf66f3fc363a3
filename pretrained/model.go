package pretrained

import (
	"github.com/torchgo/torchgo/torch"
	"github.com/torchgo/torchgo/torch/nn"
)

// Model is a model that the pipeline can load, run and save. An architecture implements Forward and embeds
// PreTrainedModel, which has the rest.
type Model interface {
	// Forward runs the model. It panics with a *torch.Error on inputs that don't fit.
	Forward(in Inputs) *Output

	Class() string
	Config() Config
	DType() torch.DType
	Device() torch.Device
	NumParameters() int64
	MemoryFootprint() int64
	Close()

	base() *PreTrainedModel
}

// PreTrainedModel is the part of a model that all architectures share; model structs embed it.
type PreTrainedModel struct {
	self   Model
	class  *Class
	arch   *Architecture
	config Config
	ties   map[string]string // target: source, those in force
	loaded bool              // from a checkpoint
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
		p.self, p.config, p.arch, p.class = inner, config, arch, class
		if path != "" {
			p.class = &arch.Classes[0]
		}
	}
}

// Class is the name of the model's class: "BertForMaskedLM".
func (p *PreTrainedModel) Class() string { return p.class.Name }

// Config is the model's config.
func (p *PreTrainedModel) Config() Config { return p.config }

// TiedKeys maps each tied entry of the state dict to the one whose tensor it shares.
func (p *PreTrainedModel) TiedKeys() map[string]string { return p.ties }

// DType is the dtype of the first floating-point parameter.
func (p *PreTrainedModel) DType() torch.DType {
	for _, t := range nn.NamedParameters(p.self) {
		if t.DType().IsFloatingPoint() {
			return t.DType()
		}
	}
	return torch.Float32
}

// Device is that of the first parameter.
func (p *PreTrainedModel) Device() torch.Device {
	for _, t := range nn.NamedParameters(p.self) {
		return t.Device()
	}
	return torch.CPU
}

// NumParameters counts the elements of the parameters, tied ones once.
func (p *PreTrainedModel) NumParameters() int64 {
	var n int64
	for _, t := range nn.NamedParameters(p.self) {
		n += int64(t.Numel())
	}
	return n
}

// MemoryFootprint is the bytes of parameters and buffers, tied ones once.
func (p *PreTrainedModel) MemoryFootprint() int64 {
	var n int64
	for _, t := range nn.NamedParameters(p.self) {
		n += int64(t.Numel()) * int64(t.DType().ItemSize())
	}
	for _, t := range nn.NamedBuffers(p.self) {
		n += int64(t.Numel()) * int64(t.DType().ItemSize())
	}
	return n
}

// Close frees the weights. The model must not be used afterwards.
func (p *PreTrainedModel) Close() { nn.Close(p.self) }
