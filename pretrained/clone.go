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
	was, config := p.config, cloneConfig(p.config)
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

func cloneConfig(c Config) Config {
	v := reflect.New(reflect.TypeOf(c).Elem())
	v.Elem().Set(reflect.ValueOf(c).Elem())
	clone := v.Interface().(Config)
	base := clone.Base()
	base.raw, base.ID2Label, base.Label2ID = maps.Clone(base.raw), maps.Clone(base.ID2Label), maps.Clone(base.Label2ID)
	return clone
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
