package tokenizer

import (
	"slices"
	"unicode/utf8"
)

// inserted is the position of a byte that stands for no part of the original text.
const inserted = -1

// text is a normalized piece of the input: for each byte, pos holds the index in the original text of the
// code point it came from. What the pipeline inserts takes the position of what stands before it.
type text struct {
	bytes []byte
	pos   []int32
}

// slice is the part [lo, hi) of t, in bytes; it shares t's memory.
func (t text) slice(lo, hi int) text {
	return text{t.bytes[lo:hi:hi], t.pos[lo:hi:hi]}
}

// span is where the bytes [lo, hi) of t, which is not empty, lie in the original: code points [start, end).
func (t text) span(lo, hi int) [2]int {
	start, end := t.pos[lo], t.pos[hi-1]+1
	return [2]int{int(max(start, 0)), int(end)}
}

// setString makes t the identity over s, whose first code point is the original's number first.
func (t *text) setString(s string, first int32) {
	t.bytes = append(t.bytes[:0], s...)
	t.pos = slices.Grow(t.pos[:0], len(s))[:len(s)]
	at := first - 1
	for i := range len(s) {
		if utf8.RuneStart(s[i]) {
			at++
		}
		t.pos[i] = at
	}
}

// glyph is a code point on its way through a normalizer.
type glyph struct {
	r     rune
	pos   int32
	class uint8 // canonical combining class, set by nfd
	added bool  // not the first part of a decomposition
}

// glyphs appends the code points of t from byte lo on.
func (t text) glyphs(dst []glyph, lo int) []glyph {
	for i := lo; i < len(t.bytes); {
		r, n := utf8.DecodeRune(t.bytes[i:])
		dst = append(dst, glyph{r: r, pos: t.pos[i]})
		i += n
	}
	return dst
}

// setGlyphs replaces t from byte lo on.
func (t *text) setGlyphs(lo int, src []glyph) {
	t.bytes, t.pos = t.bytes[:lo], t.pos[:lo]
	for _, g := range src {
		n := len(t.bytes)
		t.bytes = utf8.AppendRune(t.bytes, g.r)
		for range len(t.bytes) - n {
			t.pos = append(t.pos, g.pos)
		}
	}
}

// nfd decomposes src canonically into dst and orders marks by their class. As in the reference, positions
// don't follow marks that change places: the n-th code point that stands for one of src takes the n-th
// position, further parts take that of the code point before them.
func nfd(dst, src []glyph, u *unicodeTable) []glyph {
	start := 0 // of the run of marks, with the starter before it
	order := func() {
		slices.SortStableFunc(dst[start:], func(a, b glyph) int { return int(a.class) - int(b.class) })
	}
	for _, g := range src {
		if u.of(g.r)&flagNFD == 0 {
			order()
			start = len(dst)
			dst = append(dst, glyph{r: g.r})
			continue
		}
		first := true
		u.decompose(g.r, func(d rune) {
			class := u.class[d]
			if class == 0 {
				order()
				start = len(dst)
			}
			dst = append(dst, glyph{r: d, class: class, added: !first})
			first = false
		})
	}
	order()
	n := 0
	for i := range dst {
		switch {
		case !dst[i].added:
			dst[i].pos = src[n].pos
			n++
		case n > 0:
			dst[i].pos = src[n-1].pos
		default:
			dst[i].pos = inserted
		}
	}
	return dst
}

// lowercase maps the glyphs in src to dst.
func lowercase(dst, src []glyph, u *unicodeTable) []glyph {
	for _, g := range src {
		if u.of(g.r)&flagLower == 0 {
			dst = append(dst, g)
			continue
		}
		for _, r := range u.lower[g.r] {
			dst = append(dst, glyph{r: r, pos: g.pos})
		}
	}
	return dst
}
