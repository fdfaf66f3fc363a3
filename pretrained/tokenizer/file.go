package tokenizer

import (
	"fmt"

	"github.com/torchgo/torchgo/internal/regular"
	"github.com/torchgo/torchgo/internal/strictjson"
)

// maxFile bounds the files that are read.
const maxFile = 64 << 20

func readFile(path string) ([]byte, error) { return regular.Read(path, maxFile) }

// parts is a tokenizer.json, or what stands for one, before it is assembled.
type parts struct {
	normalizer   normalizer
	preTokenizer preTokenizer
	post         postProcessor
	decoder      decoder
	model        model
	added        []AddedToken
	addedIDs     []int
	options      EncodeOptions // of the truncation and padding sections
	pad          *padToken     // of the padding section
}

// parseFile reads a tokenizer.json.
func parseFile(data []byte) (*parts, error) {
	p := &parts{post: plainTemplate()}
	d := strictjson.NewDecoder(data, strictjson.Options{})
	var sections = map[string]strictjson.Value{}
	var m modelSection
	err := d.Object(func(name string) (err error) {
		switch name {
		case "model":
			m, err = readModel(d, len(data)/vocabEntry)
		case "version", "truncation", "padding", "added_tokens", "normalizer", "pre_tokenizer", "post_processor", "decoder":
			sections[name], err = d.Value()
		default:
			err = d.Skip()
		}
		return err
	})
	if err == nil {
		err = d.End()
	}
	if err != nil {
		return nil, err
	}
	section := func(name string) strictjson.Value {
		if v, ok := sections[name]; ok {
			return v
		}
		return strictjson.Null()
	}
	if v := section("version"); !v.IsNull() {
		if s, err := v.AsString(); err != nil || s != "1.0" {
			return nil, invalid("version: expected \"1.0\"")
		}
	}
	if p.normalizer, err = parseNormalizer(section("normalizer")); err != nil {
		return nil, err
	}
	if p.preTokenizer, err = parsePreTokenizer(section("pre_tokenizer")); err != nil {
		return nil, err
	}
	if p.post, err = parsePostProcessor(section("post_processor")); err != nil {
		return nil, err
	}
	if p.decoder, err = parseDecoder(section("decoder")); err != nil {
		return nil, err
	}
	if p.model, err = m.build(); err != nil {
		return nil, err
	}
	if err := p.parseTruncation(section("truncation")); err != nil {
		return nil, err
	}
	if err := p.parsePadding(section("padding")); err != nil {
		return nil, err
	}
	if v := section("added_tokens"); !v.IsNull() {
		return p, p.parseAdded(v)
	}
	return p, nil
}

func (p *parts) parseAdded(v strictjson.Value) error {
	items, err := v.AsArray()
	if err != nil {
		return fmt.Errorf("added_tokens: %w", err)
	}
	seen := map[int]string{}
	for _, item := range items {
		t, o, err := parseAddedToken(item)
		if err != nil {
			return err
		}
		var id int
		if err := o.fields(map[string]any{"id": &id}); err != nil {
			return err
		}
		if other, ok := seen[id]; ok {
			return invalid("added_tokens: %q and %q have the same id %d", clip(other), clip(t.Content), id)
		}
		if limit := maxID(len(p.model.vocab().ids) + len(items)); id > limit {
			return invalid("added_tokens: %q has id %d, out of range", clip(t.Content), id)
		}
		seen[id] = t.Content
		p.added = append(p.added, t)
		p.addedIDs = append(p.addedIDs, id)
	}
	return nil
}

// modelSection is the "model" section; only what WordPiece needs is kept.
type modelSection struct {
	vocab  map[string]int
	fields map[string]strictjson.Value
}

// vocabEntry is about the bytes that a token takes in the file.
const vocabEntry = 24

func readModel(d *strictjson.Decoder, tokens int) (modelSection, error) {
	m := modelSection{fields: map[string]strictjson.Value{}}
	err := d.Object(func(name string) error {
		k, err := d.Peek()
		if err != nil {
			return err
		}
		switch {
		case name == "vocab" && k == strictjson.KindObject:
			m.vocab = make(map[string]int, tokens)
			return d.Object(func(tok string) error {
				n, err := d.Number()
				if err != nil {
					return fmt.Errorf("model: vocab: %q: %w", clip(tok), err)
				}
				id, err := n.Int64()
				if err != nil || id < 0 || id > 1<<31 {
					return invalid("model: vocab: token %q has id %s", clip(tok), clip(string(n)))
				}
				m.vocab[tok] = int(id)
				return nil
			})
		case k == strictjson.KindArray || k == strictjson.KindObject:
			return d.Skip()
		}
		m.fields[name], err = d.Value()
		return err
	})
	return m, err
}

func (m modelSection) build() (model, error) {
	if m.fields == nil {
		return nil, invalid("no \"model\" section")
	}
	if v, ok := m.fields["type"]; ok {
		kind, err := v.AsString()
		if err != nil {
			return nil, fmt.Errorf("model: type: %w", err)
		}
		if kind != "WordPiece" {
			return nil, unsupported("model", kind)
		}
	}
	if m.vocab == nil {
		return nil, invalid("model: no \"vocab\" object")
	}
	o := new(strictjson.Object)
	for name, v := range m.fields {
		o.Set(name, v)
	}
	var unk, prefix string
	var maxChars int
	err := section{o, "model"}.fields(map[string]any{
		"unk_token": &unk, "continuing_subword_prefix": &prefix, "max_input_chars_per_word": &maxChars,
	})
	if err != nil {
		return nil, err
	}
	v, err := newVocab(m.vocab)
	if err != nil {
		return nil, err
	}
	return newWordPiece(v, unk, prefix, maxChars), nil
}

func (p *parts) parseTruncation(v strictjson.Value) error {
	if v.IsNull() {
		return nil
	}
	s, err := asSection(v, "truncation")
	if err != nil {
		return err
	}
	var strategy string
	var stride int
	if err := s.fields(map[string]any{"max_length": &p.options.MaxLength, "strategy": &strategy, "stride": &stride}); err != nil {
		return err
	}
	var ok bool
	if p.options.Truncation, ok = map[string]Truncation{"LongestFirst": LongestFirst, "OnlyFirst": OnlyFirst, "OnlySecond": OnlySecond}[strategy]; !ok {
		return invalid("truncation: unknown strategy %q", clip(strategy))
	}
	p.options.TruncationSide, err = s.side()
	return err
}

func (s section) side() (Side, error) {
	if _, ok := s.Get("direction"); !ok {
		return Right, nil
	}
	var d string
	if err := s.fields(map[string]any{"direction": &d}); err != nil {
		return 0, err
	}
	switch d {
	case "Right":
		return Right, nil
	case "Left":
		return Left, nil
	}
	return 0, invalid("%s: unknown direction %q", s.name, clip(d))
}

func (p *parts) parsePadding(v strictjson.Value) error {
	if v.IsNull() {
		return nil
	}
	s, err := asSection(v, "padding")
	if err != nil {
		return err
	}
	p.pad = new(padToken)
	var multiple *int
	err = s.fields(map[string]any{
		"pad_id": &p.pad.id, "pad_type_id": &p.pad.typeID, "pad_token": &p.pad.token, "pad_to_multiple_of": &multiple,
	})
	if err != nil {
		return err
	}
	if multiple != nil {
		if *multiple > maxFixedPadding {
			return invalid("padding: multiple of %d is more than %d", *multiple, maxFixedPadding)
		}
		p.options.PadToMultipleOf = *multiple
	}
	if p.options.PaddingSide, err = s.side(); err != nil {
		return err
	}
	strategy, _ := s.Get("strategy")
	if name, err := strategy.AsString(); err == nil {
		if name != "BatchLongest" {
			return invalid("padding: unknown strategy %q", clip(name))
		}
		p.options.Padding = PadLongest
		return nil
	}
	o, err := asSection(strategy, "padding: strategy")
	if err != nil {
		return err
	}
	var fixed int
	if err := o.fields(map[string]any{"Fixed": &fixed}); err != nil {
		return err
	}
	if fixed > maxFixedPadding {
		return invalid("padding: fixed length %d is more than %d", fixed, maxFixedPadding)
	}
	p.options.padFixed, p.options.Padding = fixed, padFixed
	return nil
}

// maxFixedPadding bounds the lengths that a file may pad each text to.
const maxFixedPadding = 1 << 20
