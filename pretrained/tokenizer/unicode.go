package tokenizer

import (
	"strings"
	"sync"
	"unicode/utf8"
)

// runeRange is an inclusive range of code points.
type runeRange struct{ lo, hi rune }

// classRange is an inclusive range of code points of one canonical combining class.
type classRange struct {
	lo, hi rune
	class  uint8
}

// caseRun maps every stride-th code point from lo to hi to the one delta further on.
type caseRun struct {
	lo, hi, stride, delta rune
}

// flags say what the pipeline does with a code point.
type flags uint16

const (
	flagDrop       flags = 1 << iota // removed by clean_text
	flagSpace                        // a space after clean_text
	flagCJK                          // set apart by handle_chinese_chars
	flagMark                         // removed by strip_accents
	flagPreSplit                     // split at and removed by BertPreTokenizer
	flagPunct                        // isolated by BertPreTokenizer
	flagWord                         // \w for single_word
	flagRegexSpace                   // \s for lstrip and rstrip
	flagLower                        // has another lowercase
	flagNFD                          // decomposes, or has a combining class: needs NFD
)

const (
	pageBits = 7
	pageSize = 1 << pageBits
)

// unicodeTable is the reference's view of Unicode (see tools/tokenizerref/unicode_tables.py for why it is
// not Go's), in two stages: pages of flags, and maps for the few code points that change.
type unicodeTable struct {
	index [(utf8.MaxRune + 1) >> pageBits]uint16
	pages [][pageSize]flags
	lower map[rune]string
	nfd   map[rune]string
	class map[rune]uint8
}

var loadUnicode = sync.OnceValue(func() *unicodeTable {
	t := &unicodeTable{lower: map[rune]string{}, nfd: map[rune]string{}, class: map[rune]uint8{}}
	all := make([]flags, utf8.MaxRune+1)
	for _, s := range []struct {
		ranges []runeRange
		flag   flags
	}{
		{dropRanges, flagDrop}, {spaceRanges, flagSpace}, {cjkRanges, flagCJK}, {markRanges, flagMark},
		{presplitRanges, flagPreSplit}, {punctRanges, flagPunct}, {wordRanges, flagWord},
		{regexspaceRanges, flagRegexSpace}, {[]runeRange{{hangulFirst, hangulLast}}, flagNFD},
	} {
		for _, r := range s.ranges {
			for c := r.lo; c <= r.hi; c++ {
				all[c] |= s.flag
			}
		}
	}
	for _, r := range lowerRuns {
		for c := r.lo; c <= r.hi; c += r.stride {
			all[c] |= flagLower
			t.lower[c] = string(c + r.delta)
		}
	}
	for c, s := range lowerFull {
		all[c] |= flagLower
		t.lower[c] = s
	}
	for line := range strings.Lines(decompositions) {
		c, n := utf8.DecodeRuneInString(line)
		all[c] |= flagNFD
		t.nfd[c] = strings.TrimSuffix(line[n:], "\n")
	}
	for _, r := range cccRanges {
		for c := r.lo; c <= r.hi; c++ {
			all[c] |= flagNFD
			t.class[c] = r.class
		}
	}
	seen := map[[pageSize]flags]uint16{}
	for i := range t.index {
		page := [pageSize]flags(all[i<<pageBits:])
		n, ok := seen[page]
		if !ok {
			n = uint16(len(t.pages))
			seen[page] = n
			t.pages = append(t.pages, page)
		}
		t.index[i] = n
	}
	return t
})

// of gives the flags of c, which is at most utf8.MaxRune.
func (t *unicodeTable) of(c rune) flags {
	return t.pages[t.index[uint32(c)>>pageBits]][c&(pageSize-1)]
}

// Hangul syllables decompose by arithmetic (Unicode, section 3.12).
const (
	hangulFirst, hangulLast = 0xAC00, 0xD7A3
	jamoL, jamoV, jamoT     = 0x1100, 0x1161, 0x11A7
	jamoVCount, jamoTCount  = 21, 28
)

// decompose calls f for the parts of c's full canonical decomposition; c itself where it has none.
func (t *unicodeTable) decompose(c rune, f func(rune)) {
	if c >= hangulFirst && c <= hangulLast {
		i := c - hangulFirst
		f(jamoL + i/(jamoVCount*jamoTCount))
		f(jamoV + i%(jamoVCount*jamoTCount)/jamoTCount)
		if last := i % jamoTCount; last != 0 {
			f(jamoT + last)
		}
		return
	}
	if s, ok := t.nfd[c]; ok {
		for _, d := range s {
			f(d)
		}
		return
	}
	f(c)
}
