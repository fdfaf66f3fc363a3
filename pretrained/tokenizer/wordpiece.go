package tokenizer

import (
	"strings"
	"unicode/utf8"
)

// token is a token of the model: its id, and the bytes [start, end) of the word that it covers.
type token struct {
	id, start, end int
}

// model maps a word, which is not empty, to tokens.
type model interface {
	tokenize(dst []token, word []byte) ([]token, error)
	vocab() *vocab
}

// vocab is a model's vocabulary. Ids may have holes.
type vocab struct {
	ids    map[string]int
	tokens []string // by id
	used   []bool   // by id
}

// newVocab checks ids: none twice, none far beyond the number of tokens.
func newVocab(ids map[string]int) (*vocab, error) {
	top := 0
	for tok, id := range ids {
		if id < 0 || id > maxID(len(ids)) {
			return nil, invalid("vocab: token %q has id %d, out of range for %d tokens", clip(tok), id, len(ids))
		}
		top = max(top, id+1)
	}
	v := &vocab{ids: ids, tokens: make([]string, top), used: make([]bool, top)}
	for tok, id := range ids {
		if v.used[id] {
			a, b := min(tok, v.tokens[id]), max(tok, v.tokens[id])
			return nil, invalid("vocab: tokens %q and %q have the same id %d", clip(a), clip(b), id)
		}
		v.tokens[id], v.used[id] = tok, true
	}
	return v, nil
}

// maxID bounds the ids of a vocabulary of n tokens, so that a small file can't ask for a large table.
func maxID(n int) int { return 4*n + 1<<16 }

func (v *vocab) token(id int) (string, bool) {
	if id < 0 || id >= len(v.tokens) || !v.used[id] {
		return "", false
	}
	return v.tokens[id], true
}

// wordPiece takes the longest known prefix of a word, then the longest known continuation of it, and so on;
// a word that leaves a rest, or is too long, is the unknown token.
type wordPiece struct {
	v         *vocab
	unk       string
	maxChars  int // longest word
	maxBytes  int // longest token
	continued map[string]int
}

func newWordPiece(v *vocab, unk, prefix string, maxChars int) *wordPiece {
	m := &wordPiece{v: v, unk: unk, maxChars: maxChars, continued: map[string]int{}}
	for tok, id := range v.ids {
		m.maxBytes = max(m.maxBytes, len(tok))
		if rest, ok := strings.CutPrefix(tok, prefix); ok {
			m.continued[rest] = id
		}
	}
	return m
}

func (m *wordPiece) vocab() *vocab { return m.v }

func (m *wordPiece) tokenize(dst []token, word []byte) ([]token, error) {
	if len(word) > m.maxChars && utf8.RuneCount(word) > m.maxChars {
		return m.unknown(dst, word)
	}
	known := m.v.ids
	first := len(dst)
	for start := 0; start < len(word); {
		end := len(word)
		if end > start+m.maxBytes {
			end = start + m.maxBytes
			for !utf8.RuneStart(word[end]) {
				end--
			}
		}
		for ; end > start; end-- {
			if end < len(word) && !utf8.RuneStart(word[end]) {
				continue
			}
			if id, ok := known[string(word[start:end])]; ok {
				dst = append(dst, token{id, start, end})
				break
			}
		}
		if end <= start {
			return m.unknown(dst[:first], word)
		}
		start, known = end, m.continued
	}
	return dst, nil
}

func (m *wordPiece) unknown(dst []token, word []byte) ([]token, error) {
	id, ok := m.v.ids[m.unk]
	if !ok {
		return dst, invalid("model: the unknown token %q is not in the vocabulary", m.unk)
	}
	return append(dst, token{id, 0, len(word)}), nil
}
