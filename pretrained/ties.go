package pretrained

import (
	"maps"
	"regexp"
	"slices"
	"strings"

	"github.com/torchgo/torchgo/torch"
	"github.com/torchgo/torchgo/torch/nn"
)

// TiedKeys maps entries of the state dict to those whose tensor they share, as the class ties them and the
// model has them.
func (p *PreTrainedModel) TiedKeys() map[string]string {
	defer p.lock()()
	slots := slotsByName(p.self)
	shared := map[string]string{}
	for target, source := range p.ties {
		if t, s := slots[target], slots[source]; t.Name != "" && s.Name != "" && t.Tensor() == s.Tensor() {
			shared[target] = source
		}
	}
	return shared
}

// wantedTies are the ties of a model's class, if its config wants them.
func wantedTies(m Model) map[string]string {
	p := m.base()
	f, ok := configFields(p.config)["tie_word_embeddings"]
	tied := ok && f.Bool()
	if !ok {
		v, _ := p.config.Base().Extra("tie_word_embeddings")
		tied = v == true
	}
	if !tied {
		return map[string]string{}
	}
	return p.classTies()
}

// classTies are the ties that the class declares, by name. A target that is no name is a regular expression of
// names, or of modules whose parameters are tied one by one; the source repeats its groups as \1.
func (p *PreTrainedModel) classTies() map[string]string {
	defer p.lock()()
	slots := slotsByName(p.self)
	ties := map[string]string{}
	for target, source := range p.class.Ties {
		if _, ok := slots[target]; ok {
			ties[target] = source
			continue
		}
		re := regexp.MustCompile(`^(?:` + target + `)((?:\..+)?)$`)
		to := pythonGroup.ReplaceAllString(strings.ReplaceAll(source, "$", "$$"), "$${$1}")
		for name := range slots {
			at := re.FindStringSubmatchIndex(name)
			if at == nil {
				continue
			}
			tail := name[at[len(at)-2]:at[len(at)-1]]
			from := string(re.ExpandString(nil, to, name, at)) + tail
			if _, ok := slots[from]; ok && from != name {
				ties[name] = from
			}
		}
	}
	return ties
}

// TieWeights ties what the class ties, if tie_word_embeddings of the config says so: each target takes the
// tensor of its source, and a layer's bias is cut or filled up with zeros to fit. What the targets held is
// left to the collector. (tie_weights)
func (p *PreTrainedModel) TieWeights() error {
	if err := p.withoutAdapters("tying weights"); err != nil {
		return err
	}
	ties, slots := wantedTies(p.self), slotsByName(p.self)
	away := p.offloadedNames()
	for target, source := range ties {
		if away[target] != away[source] {
			return &Error{Tensor: target, Class: ErrUnsupported, Detail: "tying weights of " + p.Class(), Actual: "one of the two is offloaded",
				Remedy: "load the model without offloading it"}
		}
	}
	err := torch.TryDo(func() {
		torch.Scope(func() {
			torch.NoGrad(func() {
				for _, target := range slices.Sorted(maps.Keys(ties)) {
					if t, s := slots[target], slots[ties[target]]; t.Name != "" && s.Name != "" { // a new layer may lack a bias
						t.Set(s.Tensor())
					}
				}
				for target := range ties {
					if l, ok := slots[target].Owner.(*nn.Linear); ok && l.Bias != nil {
						if _, n := l.Weight.Features(); l.Bias.Size(0) != n {
							exchange(p.self, l.Bias, withRows(l.Bias, n, func(fresh *torch.Tensor) { fresh.Zero_() }))
						}
					}
				}
			})
		})
	})
	if err != nil {
		return &Error{Detail: "tying weights of " + p.Class(), Err: err}
	}
	p.ties = ties
	return nil
}

// InitWeights gives weights without data (device meta) their first values on the CPU, then ties what is tied.
// After loading all weights have values, and stay. (init_weights)
func (p *PreTrainedModel) InitWeights() error {
	skip := wantedTies(p.self)
	for name := range p.offloadedNames() {
		skip[name] = ""
	}
	err := torch.TryDo(func() { initialise(p.self, func(string) torch.Device { return torch.CPU }, skip) })
	if err != nil {
		return &Error{Detail: "initialising " + p.Class(), Err: err}
	}
	return p.TieWeights()
}

func slotsByName(m any) map[string]nn.Slot {
	slots := map[string]nn.Slot{}
	for _, s := range nn.Slots(m) {
		slots[s.Name] = s
	}
	return slots
}
