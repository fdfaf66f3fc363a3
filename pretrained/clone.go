package pretrained

import (
	"maps"
	"reflect"
	"slices"

	"github.com/torchgo/torchgo/torch"
	"github.com/torchgo/torchgo/torch/nn"
)

// Cloned is called by nn.Clone: the copy has a config of its own, and its layers are those that activation
// checkpointing runs again. EnableInputRequireGrads of the original holds in the copy for good.
func (p *PreTrainedModel) Cloned(self any) {
	m := self.(Model)
	if p.self == m {
		return // a model inside one that was told
	}
	if p.dispatch != nil {
		panic(&torch.Error{Op: "clone", Kind: torch.ErrArgument, Message: "a model on several devices, or with weights that are offloaded, can't be copied: load it twice"})
	}
	configs := map[Config]Config{} // a part of another type has its own
	for inner := range models(m) {
		if configs[inner.config] == nil {
			configs[inner.config] = CloneConfig(inner.config)
		}
		inner.config = configs[inner.config]
	}
	for _, module := range nn.NamedModules(m) {
		for was, config := range configs {
			exchangePointers(reflect.ValueOf(module).Elem(), was, config)
			exchangePointers(reflect.ValueOf(module).Elem(), was.Base(), config.Base())
		}
	}
	bind(m, p.class, p.arch, p.config)
	p.ties, p.tags = maps.Clone(p.ties), slices.Clone(p.tags)
	if g := p.generation; g != nil {
		p.generation = &GenerationConfig{values: maps.Clone(g.values), modified: g.modified}
	}
	if p.Adapters != nil {
		p.Adapters.Rebind(m)
	}
	if c := p.checkpointing; c != nil {
		_ = p.ActivationCheckpointingEnable(c.opts) // which the original accepted
	}
	for inner := range models(m) {
		inner.inputGrads = nil
	}
}

// exchangePointers puts to in the fields of a module that hold from, which are the architecture's own.
func exchangePointers(module reflect.Value, from, to any) {
	if module.Kind() != reflect.Struct {
		return
	}
	for i := range module.NumField() {
		f := module.Field(i)
		if f.Type() == reflect.TypeOf(from) && f.Pointer() == reflect.ValueOf(from).Pointer() {
			reflect.NewAt(f.Type(), f.Addr().UnsafePointer()).Elem().Set(reflect.ValueOf(to))
		}
	}
}
