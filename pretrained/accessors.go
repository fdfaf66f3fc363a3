package pretrained

import (
	"fmt"
	"iter"

	"github.com/torchgo/torchgo/torch/nn"
)

// models yields what m and the models inside it have in common.
func models(m Model) iter.Seq[*PreTrainedModel] {
	return func(yield func(*PreTrainedModel) bool) {
		for _, child := range nn.NamedModules(m) {
			if inner, ok := child.(Model); ok && !yield(inner.base()) {
				return
			}
		}
	}
}

// BaseModel is the model below the head; of a base model, itself (base_model).
func (p *PreTrainedModel) BaseModel() Model {
	if inner, ok := p.child(p.class.prefix(p.arch)).(Model); ok {
		return inner
	}
	return p.self
}

// child is the module at a path; nil: there is none.
func (p *PreTrainedModel) child(path string) any {
	if path == "" {
		return nil
	}
	m, err := nn.GetSubmodule(p.self, path)
	if err != nil {
		return nil
	}
	return m
}

// InputEmbeddings is the table that input_ids are looked up in; nil: the model has none
// (get_input_embeddings).
func (p *PreTrainedModel) InputEmbeddings() *nn.Embedding {
	e, _ := p.BaseModel().base().child(p.arch.InputEmbeddings).(*nn.Embedding)
	return e
}

// SetInputEmbeddings replaces the input embeddings (set_input_embeddings). What was tied to the former ones
// keeps them: TieWeights ties it to the new ones.
func (p *PreTrainedModel) SetInputEmbeddings(e *nn.Embedding) error {
	if p.InputEmbeddings() == nil {
		return &Error{Class: ErrUnsupported, Detail: p.Class() + " has no input embeddings"}
	}
	return p.set(p.BaseModel(), p.arch.InputEmbeddings, e)
}

// OutputEmbeddings is the layer that scores the vocabulary; nil: the model has none (get_output_embeddings).
func (p *PreTrainedModel) OutputEmbeddings() *nn.Linear {
	l, _ := p.child(p.class.OutputEmbeddings).(*nn.Linear)
	return l
}

// SetOutputEmbeddings replaces the output embeddings (set_output_embeddings). They are no longer tied to the
// input embeddings, until TieWeights; what was tied to their bias takes the new one.
func (p *PreTrainedModel) SetOutputEmbeddings(l *nn.Linear) error {
	if p.OutputEmbeddings() == nil {
		return &Error{Class: ErrUnsupported, Detail: p.Class() + " has no output embeddings"}
	}
	if err := p.set(p.self, p.class.OutputEmbeddings, l); err != nil {
		return err
	}
	slots := slotsByName(p.self)
	for target, source := range p.ties {
		if t, s := slots[target], slots[source]; t.Owner == any(l) && s.Name != "" && t.Tensor() == l.Bias {
			s.Set(l.Bias)
		}
	}
	return nil
}

func (p *PreTrainedModel) set(m Model, path string, module any) error {
	if err := p.withoutAdapters("setting " + path); err != nil {
		return err
	}
	if p.dispatch != nil {
		return &Error{Class: ErrUnsupported, Detail: fmt.Sprintf("%s of %s", path, p.Class()), Actual: "a model on several devices, which runs its layers where they were put"}
	}
	if err := nn.SetSubmodule(m, path, module); err != nil {
		return &Error{Class: ErrArgument, Detail: fmt.Sprintf("%s of %s", path, p.Class()), Err: err}
	}
	return nil
}

// GetEncoder is the encoder, in the model or in its base model; of a model without one, itself (get_encoder).
func (p *PreTrainedModel) GetEncoder() any { return p.part("text_encoder", "encoder") }

// GetDecoder is the decoder, in the model or in its base model; of a model without one, the base model
// (get_decoder).
func (p *PreTrainedModel) GetDecoder() any {
	base := p.BaseModel()
	if d := p.part("language_model", "text_model", "decoder", "text_decoder"); d != any(p.self) {
		return d
	}
	return base
}

func (p *PreTrainedModel) part(names ...string) any {
	for _, m := range []Model{p.self, p.BaseModel()} {
		for _, name := range names {
			if module := m.base().child(name); module != nil {
				return module
			}
		}
	}
	return p.self
}

// CanGenerate reports whether the class is one that text is generated with (can_generate).
func (p *PreTrainedModel) CanGenerate() bool { return p.class.Generates }
