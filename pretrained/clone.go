package pretrained

import (
	"maps"
	"reflect"

	"github.com/torchgo/torchgo/torch/nn"
)

// Cloned is called by nn.Clone: the copy has a config of its own, and its layers are those that activation
// checkpointing runs again. EnableInputRequireGrads of the original holds in the copy for good.
func (p *PreTrainedModel) Cloned(self any) {
	m := self.(Model)
	if p.self == m {
		return // a model inside one that was told
	}
	was, config := p.config, CloneConfig(p.config)
	for _, module := range nn.NamedModules(m) {
		exchangePointers(reflect.ValueOf(module).Elem(), was, config)
		exchangePointers(reflect.ValueOf(module).Elem(), was.Base(), config.Base())
	}
	bind(m, p.class, p.arch, config)
	p.ties = maps.Clone(p.ties)
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
