package tokenizer

import (
	"unicode/utf8"

	"github.com/torchgo/torchgo/internal/strictjson"
)

// piece is a part of the input: an added token, or text for the model.
type piece struct {
	text
	added int    // id of the added token; -1 for text
	name  string // of an added token, what it covers
}

// words is a piece that is text.
func words(t text) piece { return piece{text: t, added: -1} }

// preTokenizer splits a piece of text into words and appends them to dst; empty ones are left out. It may
// rewrite the text of what it appends.
type preTokenizer interface {
	split(dst []piece, t text) []piece
}

// parsePreTokenizer reads the "pre_tokenizer" section, nil for null.
func parsePreTokenizer(v strictjson.Value) (preTokenizer, error) {
	if v.IsNull() {
		return nil, nil
	}
	o, kind, err := component(v, "pre_tokenizer")
	if err != nil {
		return nil, err
	}
	switch kind {
	case "BertPreTokenizer":
		return bertPreTokenizer{loadUnicode()}, nil
	case "Sequence":
		var seq preTokenizerSequence
		err := o.components("pretokenizers", func(v strictjson.Value) error {
			p, err := parsePreTokenizer(v)
			if p != nil {
				seq = append(seq, p)
			}
			return err
		})
		return seq, err
	}
	return nil, unsupported("pre_tokenizer", kind)
}

type preTokenizerSequence []preTokenizer

func (s preTokenizerSequence) split(dst []piece, t text) []piece {
	from := []piece{words(t)}
	for _, p := range s {
		var to []piece
		for _, f := range from {
			to = p.split(to, f.text)
		}
		from = to
	}
	return append(dst, from...)
}

// bertPreTokenizer splits at white space, which it removes, and sets each punctuation mark apart.
type bertPreTokenizer struct{ u *unicodeTable }

func (p bertPreTokenizer) split(dst []piece, t text) []piece {
	start := 0
	for i := 0; i < len(t.bytes); {
		r, n := rune(t.bytes[i]), 1
		if r >= utf8.RuneSelf {
			r, n = utf8.DecodeRune(t.bytes[i:])
		}
		f := p.u.of(r)
		if f&(flagPreSplit|flagPunct) != 0 {
			if start < i {
				dst = append(dst, words(t.slice(start, i)))
			}
			if f&flagPreSplit == 0 {
				dst = append(dst, words(t.slice(i, i+n)))
			}
			start = i + n
		}
		i += n
	}
	if start < len(t.bytes) {
		dst = append(dst, words(t.slice(start, len(t.bytes))))
	}
	return dst
}
