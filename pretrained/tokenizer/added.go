package tokenizer

import (
	"slices"
	"sort"
	"unicode/utf8"

	"github.com/torchgo/torchgo/internal/strictjson"
)

// AddedToken is a token that is looked for in the text before the model sees it.
type AddedToken struct {
	Content    string
	SingleWord bool // only where no word character is beside it
	LStrip     bool // takes the white space on its left with it
	RStrip     bool // takes the white space on its right with it
	Normalized bool // looked for, in its normalized form, in the normalized text
	Special    bool // left out by Decode with skipSpecialTokens
}

// parseAddedToken reads an entry of "added_tokens" or of tokenizer_config.json.
func parseAddedToken(v strictjson.Value) (AddedToken, section, error) {
	t := AddedToken{Normalized: true}
	o, err := asSection(v, "added token")
	if err != nil {
		return t, o, err
	}
	into := map[string]any{"content": &t.Content}
	for name, p := range map[string]*bool{
		"single_word": &t.SingleWord, "lstrip": &t.LStrip, "rstrip": &t.RStrip,
		"normalized": &t.Normalized, "special": &t.Special,
	} {
		if _, ok := o.Get(name); ok {
			into[name] = p
		}
	}
	err = o.fields(into)
	return t, o, err
}

// addedVocab is the set of added tokens.
type addedVocab struct {
	ids      map[string]int     // content → id
	tokens   map[int]AddedToken // by id
	forms    map[int]string     // normalized content, where it differs
	special  map[string]bool    // contents
	raw      matcher            // tokens looked for in the text
	inNormal matcher            // tokens looked for in the normalized text
	u        *unicodeTable
}

func newAddedVocab() *addedVocab {
	return &addedVocab{
		ids: map[string]int{}, tokens: map[int]AddedToken{}, forms: map[int]string{},
		special: map[string]bool{}, u: loadUnicode(),
	}
}

// add adds tokens: one that the model or an earlier call knows keeps its id, others get the next free ones.
func (a *addedVocab) add(toks []AddedToken, v *vocab, n normalizer) {
	next := len(v.ids)
	for id := range a.tokens {
		if id >= len(v.ids) {
			next = max(next, id+1)
		}
	}
	for _, t := range toks {
		if t.Content == "" {
			continue
		}
		id, known := a.ids[t.Content]
		if known && a.tokens[id] == t {
			continue
		}
		if !known {
			id, known = v.ids[t.Content]
		}
		if !known {
			id = next
			next++
		}
		if t.Normalized && n != nil {
			var scr scratch
			var form text
			form.setString(t.Content, 0)
			n.normalize(&form, &scr)
			if string(form.bytes) != t.Content {
				a.forms[id] = string(form.bytes)
			}
		}
		a.ids[t.Content] = id
		a.tokens[id] = t
		if t.Special {
			a.special[t.Content] = true
		}
	}
}

// build prepares the search; to be called after the last add.
func (a *addedVocab) build() error {
	raw, normal := map[string]int{}, map[string]int{}
	for id, t := range a.tokens {
		to, pattern := raw, t.Content
		if t.Normalized {
			to, pattern = normal, a.form(id)
		}
		if pattern == "" {
			return invalid("added_tokens: %q is empty after normalization", clip(t.Content))
		}
		if other, ok := to[pattern]; ok {
			x, y := a.tokens[min(id, other)], a.tokens[max(id, other)]
			return invalid("added_tokens: %q and %q are looked for as the same text", clip(x.Content), clip(y.Content))
		}
		to[pattern] = id
	}
	a.raw, a.inNormal = newMatcher(raw), newMatcher(normal)
	return nil
}

// form is the token's text for the decoder: its normalized form if it has one.
func (a *addedVocab) form(id int) string {
	if f, ok := a.forms[id]; ok {
		return f
	}
	return a.tokens[id].Content
}

// match is a part of a text: an added token's place, or (id -1) what lies between two.
type match struct{ lo, hi, id int }

// find cuts s at the added tokens that m knows. Parts can overlap where a token starts in the white space
// that the one before it has stripped; the reference gives both, too.
func (a *addedVocab) find(dst []match, m *matcher, s []byte, splitSpecial bool) []match {
	if len(s) == 0 {
		return dst
	}
	done := 0
	for i := 0; len(m.patterns) > 0 && i < len(s); {
		if !m.first[s[i]] {
			i++
			continue
		}
		n, id := m.longest(s[i:])
		if n == 0 {
			i++
			continue
		}
		lo, hi := i, i+n
		i = hi
		t := a.tokens[id]
		if splitSpecial && a.special[t.Content] || t.SingleWord && !a.alone(s, lo, hi) {
			continue
		}
		if t.LStrip {
			for lo > done {
				r, n := utf8.DecodeLastRune(s[:lo])
				if a.u.of(r)&flagRegexSpace == 0 {
					break
				}
				lo -= n
			}
			lo = max(lo, done)
		}
		if t.RStrip && hi < done {
			hi = done // white space up to there
		} else if t.RStrip {
			for hi < len(s) {
				r, n := utf8.DecodeRune(s[hi:])
				if a.u.of(r)&flagRegexSpace == 0 {
					break
				}
				hi += n
			}
		}
		if lo >= hi {
			continue // in what the token before it has stripped
		}
		if done < lo {
			dst = append(dst, match{done, lo, -1})
		}
		dst = append(dst, match{lo, hi, id})
		done = hi
	}
	if done != len(s) {
		dst = append(dst, match{done, len(s), -1})
	}
	return dst
}

// alone reports that no word character is beside s[lo:hi].
func (a *addedVocab) alone(s []byte, lo, hi int) bool {
	if lo > 0 {
		if r, _ := utf8.DecodeLastRune(s[:lo]); a.u.of(r)&flagWord != 0 {
			return false
		}
	}
	if hi < len(s) {
		if r, _ := utf8.DecodeRune(s[hi:]); a.u.of(r)&flagWord != 0 {
			return false
		}
	}
	return true
}

// matcher finds the longest of its patterns at a place.
type matcher struct {
	patterns []string // sorted
	ids      []int
	first    [256]bool // bytes that a pattern starts with
}

func newMatcher(ids map[string]int) matcher {
	var m matcher
	for p := range ids {
		m.patterns = append(m.patterns, p)
		m.first[p[0]] = true
	}
	slices.Sort(m.patterns)
	for _, p := range m.patterns {
		m.ids = append(m.ids, ids[p])
	}
	return m
}

// longest is the length and id of the longest pattern that s starts with; 0 if there is none.
func (m *matcher) longest(s []byte) (n, id int) {
	lo, hi := 0, len(m.patterns) // the patterns that start with s[:d]; one of length d is first
	for d := 0; lo < hi; d++ {
		if len(m.patterns[lo]) == d {
			n, id = d, m.ids[lo]
			if lo++; lo == hi {
				break
			}
		}
		if d == len(s) {
			break
		}
		c := s[d]
		l := lo + sort.Search(hi-lo, func(i int) bool { return m.patterns[lo+i][d] >= c })
		h := lo + sort.Search(hi-lo, func(i int) bool { return m.patterns[lo+i][d] > c })
		lo, hi = l, h
	}
	return n, id
}
