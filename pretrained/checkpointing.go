package pretrained

import (
	"fmt"

	"github.com/torchgo/torchgo/torch"
	"github.com/torchgo/torchgo/torch/nn"
)

// ActivationCheckpointingOptions are the arguments of ActivationCheckpointingEnable.
type ActivationCheckpointingOptions struct {
	// EveryNLayers checkpoints every n-th layer only, the first included, which gives memory back for speed.
	// Default: 1.
	EveryNLayers int

	// Offload keeps what a layer is run again with, its inputs, in the CPU's memory (page-locked, if there
	// is a GPU).
	Offload bool

	// UseReentrant true is refused: PyTorch's older form has no gradients for layers whose inputs need none,
	// and no other advantage. Default: false.
	UseReentrant torch.Opt[bool]

	torch.CheckpointOptions
}

// checkpointing says which layers save their inputs only.
type checkpointing struct {
	layers map[any]bool
	opts   ActivationCheckpointingOptions
}

func (c *checkpointing) covers(block any) bool { return c != nil && c.layers[block] }

func (c *checkpointing) run(forward func([]*torch.Tensor) []*torch.Tensor, in []*torch.Tensor) (out []*torch.Tensor) {
	call := func() { out = torch.CheckpointAll(forward, in, c.opts.CheckpointOptions) }
	if c.opts.Offload {
		torch.SaveOnCPU(call, torch.SaveOnCPUOptions{PinMemory: true})
	} else {
		call()
	}
	return out
}

// ActivationCheckpointingEnable makes layers save their inputs only, in training mode: backward runs each
// again to get what it needs. The gradients are the same to the last bit, dropout included. It also does
// EnableInputRequireGrads, so that layers of which only adapters are trained get gradients. Tensors that a
// layer takes from the scope of the caller live as long as the graph, which holds them.
// (activation_checkpointing_enable)
func (p *PreTrainedModel) ActivationCheckpointingEnable(opts ...ActivationCheckpointingOptions) error {
	var o ActivationCheckpointingOptions
	if len(opts) > 0 {
		o = opts[0]
	}
	every := max(o.EveryNLayers, 1)
	layers, n := map[any]bool{}, 0
	for _, module := range nn.NamedModules(p.self) {
		if p.arch.isLayer(module) {
			layers[module] = n%every == 0
			n++
		}
	}
	switch {
	case o.EveryNLayers < 0:
		return &Error{Class: ErrArgument, Detail: "every n layers", Expected: "1 or more", Actual: fmt.Sprint(o.EveryNLayers)}
	case o.UseReentrant.Or(false):
		return &Error{Class: ErrUnsupported, Detail: "reentrant activation checkpointing", Remedy: "leave UseReentrant out: the gradients are the same"}
	case len(p.arch.Layers) == 0:
		return &Error{Class: ErrUnsupported, Detail: p.Class() + " does not support activation checkpointing"}
	}
	p.setCheckpointing(&checkpointing{layers, o})
	if p.InputEmbeddings() != nil {
		p.EnableInputRequireGrads()
	}
	return nil
}

// ActivationCheckpointingDisable ends it; gradients of the input embeddings stay on (see
// DisableInputRequireGrads), as in transformers.
func (p *PreTrainedModel) ActivationCheckpointingDisable() { p.setCheckpointing(nil) }

// IsActivationCheckpointing reports whether ActivationCheckpointingEnable is in force.
func (p *PreTrainedModel) IsActivationCheckpointing() bool { return p.checkpointing != nil }

// GradientCheckpointingEnable is the former name of ActivationCheckpointingEnable.
func (p *PreTrainedModel) GradientCheckpointingEnable(opts ...ActivationCheckpointingOptions) error {
	return p.ActivationCheckpointingEnable(opts...)
}

// GradientCheckpointingDisable is the former name of ActivationCheckpointingDisable.
func (p *PreTrainedModel) GradientCheckpointingDisable() { p.ActivationCheckpointingDisable() }

// IsGradientCheckpointing is the former name of IsActivationCheckpointing.
func (p *PreTrainedModel) IsGradientCheckpointing() bool { return p.IsActivationCheckpointing() }

// checkpointAsConfigured obeys gradient_checkpointing of an old config, once: the key is not saved again.
func (p *PreTrainedModel) checkpointAsConfigured() {
	raw := p.config.Base().raw
	if raw["gradient_checkpointing"] == true && p.ActivationCheckpointingEnable() == nil {
		delete(raw, "gradient_checkpointing")
	}
}

// setCheckpointing tells the models inside, too: the base model of a class with a head runs the layers.
func (p *PreTrainedModel) setCheckpointing(c *checkpointing) {
	for inner := range models(p.self) {
		inner.checkpointing = c
	}
}

func (a *Architecture) isLayer(module any) bool { return typeIn(a.Layers, module) }

// EnableInputRequireGrads makes what the input embeddings give require gradients, so that they flow through
// frozen layers to adapters in them. It needs a model with input embeddings, and panics with a *torch.Error
// else.
func (p *PreTrainedModel) EnableInputRequireGrads() {
	e := p.InputEmbeddings()
	if e == nil {
		panic(&torch.Error{Op: "enable_input_require_grads", Kind: torch.ErrArgument, Message: p.Class() + " has no input embeddings"})
	}
	p.DisableInputRequireGrads()
	p.inputGrads = nn.RegisterForwardHook(e, func(_ any, _, out []*torch.Tensor) []*torch.Tensor {
		if torch.GradEnabled() && !out[0].RequiresGrad() {
			out[0].SetRequiresGrad(true)
		}
		return nil
	})
}

// DisableInputRequireGrads undoes EnableInputRequireGrads.
func (p *PreTrainedModel) DisableInputRequireGrads() {
	if p.inputGrads != nil {
		p.inputGrads()
		p.inputGrads = nil
	}
}
