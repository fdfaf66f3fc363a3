package tokenizer

import (
	"github.com/torchgo/torchgo/internal/strictjson"
)

// normalizer rewrites a piece of text in place and keeps its positions right. It may use scr.
type normalizer interface {
	normalize(t *text, scr *scratch)
}

// parseNormalizer reads the "normalizer" section, nil for null.
func parseNormalizer(v strictjson.Value) (normalizer, error) {
	if v.IsNull() {
		return nil, nil
	}
	o, kind, err := component(v, "normalizer")
	if err != nil {
		return nil, err
	}
	switch kind {
	case "BertNormalizer":
		n := newBertNormalizer()
		err = o.fields(map[string]any{
			"clean_text": &n.cleanText, "handle_chinese_chars": &n.handleChinese,
			"strip_accents": &n.stripAccents, "lowercase": &n.lowercase,
		})
		return n.build(), err
	case "Sequence":
		var seq normalizerSequence
		err := o.components("normalizers", func(v strictjson.Value) error {
			n, err := parseNormalizer(v)
			if n != nil {
				seq = append(seq, n)
			}
			return err
		})
		return seq, err
	case "Lowercase":
		return lowercaseNormalizer{loadUnicode()}, nil
	case "NFD":
		return nfdNormalizer{loadUnicode()}, nil
	}
	return nil, unsupported("normalizer", kind)
}

type normalizerSequence []normalizer

func (s normalizerSequence) normalize(t *text, scr *scratch) {
	for _, n := range s {
		n.normalize(t, scr)
	}
}

type lowercaseNormalizer struct{ u *unicodeTable }

func (n lowercaseNormalizer) normalize(t *text, scr *scratch) {
	scr.a = t.glyphs(scr.a[:0], 0)
	scr.b = lowercase(scr.b[:0], scr.a, n.u)
	t.setGlyphs(0, scr.b)
}

type nfdNormalizer struct{ u *unicodeTable }

func (n nfdNormalizer) normalize(t *text, scr *scratch) {
	scr.a = t.glyphs(scr.a[:0], 0)
	scr.b = nfd(scr.b[:0], scr.a, n.u)
	t.setGlyphs(0, scr.b)
}

// bertNormalizer is BERT's: clean, set Chinese characters apart, strip accents, lowercase.
type bertNormalizer struct {
	cleanText     bool
	handleChinese bool
	stripAccents  *bool // nil: as lowercase
	lowercase     bool

	strip bool
	u     *unicodeTable
	ascii [utf8Self]byte // what an ASCII byte becomes; drop for those that go
}

const (
	utf8Self = 0x80
	drop     = 0xFF
)

func newBertNormalizer() *bertNormalizer {
	return &bertNormalizer{cleanText: true, handleChinese: true, lowercase: true}
}

func (n *bertNormalizer) build() *bertNormalizer {
	n.u = loadUnicode()
	n.strip = n.lowercase
	if n.stripAccents != nil {
		n.strip = *n.stripAccents
	}
	for c := range rune(utf8Self) {
		f, to := n.u.of(c), byte(c)
		if n.lowercase && f&flagLower != 0 {
			to = n.u.lower[c][0]
		}
		if n.cleanText && f&flagSpace != 0 {
			to = ' '
		}
		if n.cleanText && f&flagDrop != 0 {
			to = drop
		}
		n.ascii[c] = to
	}
	return n
}

func (n *bertNormalizer) normalize(t *text, scr *scratch) {
	// ASCII changes byte by byte and never combines with what follows, so only the rest needs more.
	w, i := 0, 0
	for ; i < len(t.bytes) && t.bytes[i] < utf8Self; i++ {
		if c := n.ascii[t.bytes[i]]; c != drop {
			t.bytes[w], t.pos[w] = c, t.pos[i]
			w++
		}
	}
	if i == len(t.bytes) {
		t.bytes, t.pos = t.bytes[:w], t.pos[:w]
		return
	}
	// A mark may follow the last ASCII letter, but never changes places with it.
	cur, other := n.clean(scr.a[:0], t.glyphs(scr.b[:0], i)), scr.b[:0]
	if n.strip {
		needed := false
		for _, g := range cur {
			if n.u.of(g.r)&flagNFD != 0 {
				needed = true
				break
			}
		}
		if needed {
			cur, other = nfd(other[:0], cur, n.u), cur
		}
		kept := cur[:0]
		for _, g := range cur {
			if n.u.of(g.r)&flagMark == 0 {
				kept = append(kept, g)
			}
		}
		cur = kept
	}
	if n.lowercase {
		cur, other = lowercase(other[:0], cur, n.u), cur
	}
	t.setGlyphs(w, cur)
	scr.a, scr.b = cur, other
}

// clean applies clean_text and handle_chinese_chars.
func (n *bertNormalizer) clean(dst, src []glyph) []glyph {
	for _, g := range src {
		f := n.u.of(g.r)
		if n.cleanText {
			if f&flagDrop != 0 {
				continue
			}
			if f&flagSpace != 0 {
				g.r = ' '
			}
		}
		if n.handleChinese && f&flagCJK != 0 {
			space := glyph{r: ' ', pos: g.pos}
			dst = append(dst, space, g, space)
			continue
		}
		dst = append(dst, g)
	}
	return dst
}
