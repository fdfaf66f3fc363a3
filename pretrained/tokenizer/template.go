package tokenizer

import (
	"fmt"

	"github.com/torchgo/torchgo/internal/strictjson"
)

// postProcessor puts one or two sequences (b nil) and the special tokens around them together.
type postProcessor interface {
	added(pair bool) int // number of special tokens
	ids() []int          // of the special tokens
	process(a, b *sequence, special bool) Encoding
}

// template is a list of pieces: sequences and special tokens.
type template struct {
	single, pair []templatePiece
}

type templatePiece struct {
	seq    int // 0 or 1: a sequence; -1: special tokens
	typeID int
	ids    []int
	tokens []string
}

// plainTemplate joins the sequences without special tokens.
func plainTemplate() template {
	a, b := templatePiece{seq: 0}, templatePiece{seq: 1, typeID: 1}
	return template{single: []templatePiece{a}, pair: []templatePiece{a, b}}
}

// bertTemplate is [CLS] A [SEP] B [SEP].
func bertTemplate(cls string, clsID int, sep string, sepID int) template {
	special := func(tok string, id, typeID int) templatePiece {
		return templatePiece{seq: -1, typeID: typeID, ids: []int{id}, tokens: []string{tok}}
	}
	single := []templatePiece{special(cls, clsID, 0), {seq: 0}, special(sep, sepID, 0)}
	return template{
		single: single,
		pair:   append(single[:3:3], templatePiece{seq: 1, typeID: 1}, special(sep, sepID, 1)),
	}
}

func (t template) pieces(pair bool) []templatePiece {
	if pair {
		return t.pair
	}
	return t.single
}

func (t template) added(pair bool) int {
	n := 0
	for _, p := range t.pieces(pair) {
		n += len(p.ids)
	}
	return n
}

func (t template) ids() []int {
	var ids []int
	for _, p := range t.single {
		ids = append(ids, p.ids...)
	}
	for _, p := range t.pair {
		ids = append(ids, p.ids...)
	}
	return ids
}

func (t template) process(a, b *sequence, special bool) Encoding {
	pieces := t.pieces(b != nil)
	n := 0
	for _, p := range pieces {
		switch p.seq {
		case 0:
			n += len(a.ids)
		case 1:
			n += len(b.ids)
		default:
			n += len(p.ids)
		}
	}
	e := newEncoding(n)
	for _, p := range pieces {
		if p.seq < 0 {
			if special {
				for i, id := range p.ids {
					e.push(id, p.tokens[i], [2]int{}, p.typeID, 1, 1)
				}
			}
			continue
		}
		s := a
		if p.seq == 1 {
			s = b
		}
		for i, id := range s.ids {
			e.push(id, s.tokens[i], s.spans[i], p.typeID, 0, 1)
		}
	}
	return e
}

// parsePostProcessor reads the "post_processor" section; null joins the sequences.
func parsePostProcessor(v strictjson.Value) (postProcessor, error) {
	if v.IsNull() {
		return plainTemplate(), nil
	}
	o, kind, err := component(v, "post_processor")
	if err != nil {
		return nil, err
	}
	switch kind {
	case "TemplateProcessing":
		return parseTemplate(o)
	case "BertProcessing":
		cls, clsID, err := o.tokenAndID("cls")
		if err != nil {
			return nil, err
		}
		sep, sepID, err := o.tokenAndID("sep")
		return bertTemplate(cls, clsID, sep, sepID), err
	}
	return nil, unsupported("post_processor", kind)
}

// tokenAndID reads ["[SEP]", 102].
func (s section) tokenAndID(name string) (string, int, error) {
	v, ok := s.Get(name)
	if !ok {
		return "", 0, invalid("%s: no %q", s.name, name)
	}
	pair, err := v.AsTuple(2)
	if err != nil {
		return "", 0, fmt.Errorf("%s: %s: %w", s.name, name, err)
	}
	tok, err := pair[0].AsString()
	if err != nil {
		return "", 0, fmt.Errorf("%s: %s: %w", s.name, name, err)
	}
	id, err := asCount(pair[1])
	if err != nil {
		return "", 0, fmt.Errorf("%s: %s: %w", s.name, name, err)
	}
	return tok, id, nil
}

func parseTemplate(o section) (postProcessor, error) {
	specials := map[string]templatePiece{}
	v, ok := o.Get("special_tokens")
	if !ok {
		return nil, invalid("post_processor: no \"special_tokens\"")
	}
	all, err := asSection(v, "post_processor: special_tokens")
	if err != nil {
		return nil, err
	}
	for name, v := range all.All() {
		s, err := asSection(v, "post_processor: special token "+clip(name))
		if err != nil {
			return nil, err
		}
		p := templatePiece{seq: -1}
		err = s.each("ids", func(v strictjson.Value) error {
			id, err := asCount(v)
			p.ids = append(p.ids, id)
			return err
		})
		if err != nil {
			return nil, err
		}
		err = s.each("tokens", func(v strictjson.Value) error {
			tok, err := v.AsString()
			p.tokens = append(p.tokens, tok)
			return err
		})
		if err != nil {
			return nil, err
		}
		if len(p.ids) != len(p.tokens) {
			return nil, invalid("%s: %d ids but %d tokens", s.name, len(p.ids), len(p.tokens))
		}
		specials[name] = p
	}
	var t template
	if t.single, err = parsePieces(o, "single", specials); err != nil {
		return nil, err
	}
	if t.pair, err = parsePieces(o, "pair", specials); err != nil {
		return nil, err
	}
	for _, p := range t.single {
		if p.seq == 1 {
			return nil, invalid("post_processor: single: uses sequence B")
		}
	}
	return t, nil
}

// maxTemplate bounds a template, whose every sequence piece repeats the text.
const maxTemplate = 64

func parsePieces(o section, name string, specials map[string]templatePiece) ([]templatePiece, error) {
	where := "post_processor: " + name
	var out []templatePiece
	err := o.each(name, func(v strictjson.Value) error {
		s, err := asSection(v, where)
		if err != nil {
			return err
		}
		if s.Len() != 1 || len(out) == maxTemplate {
			return invalid("%s: not a template piece, or more than %d", where, maxTemplate)
		}
		for kind, v := range s.All() {
			var id string
			var p templatePiece
			s, err := asSection(v, where)
			if err != nil {
				return err
			}
			var typeID int
			if err := s.fields(map[string]any{"id": &id, "type_id": &typeID}); err != nil {
				return err
			}
			switch {
			case kind == "Sequence" && id == "A":
			case kind == "Sequence" && id == "B":
				p.seq = 1
			case kind == "SpecialToken":
				var ok bool
				if p, ok = specials[id]; !ok {
					return invalid("%s: special token %q is not in special_tokens", where, clip(id))
				}
			default:
				return invalid("%s: unknown piece %s %q", where, clip(kind), clip(id))
			}
			p.typeID = typeID
			out = append(out, p)
		}
		return nil
	})
	return out, err
}
