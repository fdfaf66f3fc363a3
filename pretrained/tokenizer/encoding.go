package tokenizer

import "slices"

// Encoding is what a text became: slices of one length, an entry a token.
type Encoding struct {
	IDs               []int
	Tokens            []string
	Offsets           [][2]int // [start, end) in the text, in Unicode code points; {0, 0} for special tokens
	TypeIDs           []int    // 0 for the first text, 1 for the second
	SpecialTokensMask []int    // 1 for tokens of the template and padding
	AttentionMask     []int    // 0 for padding
}

// Len is the number of tokens.
func (e *Encoding) Len() int { return len(e.IDs) }

func newEncoding(n int) Encoding {
	ints := make([]int, 0, 4*n)
	part := func(i int) []int { return ints[i*n : i*n : (i+1)*n] }
	return Encoding{
		IDs: part(0), TypeIDs: part(1), SpecialTokensMask: part(2), AttentionMask: part(3),
		Tokens: make([]string, 0, n), Offsets: make([][2]int, 0, n),
	}
}

func (e *Encoding) push(id int, tok string, span [2]int, typeID, special, attention int) {
	e.IDs = append(e.IDs, id)
	e.Tokens = append(e.Tokens, tok)
	e.Offsets = append(e.Offsets, span)
	e.TypeIDs = append(e.TypeIDs, typeID)
	e.SpecialTokensMask = append(e.SpecialTokensMask, special)
	e.AttentionMask = append(e.AttentionMask, attention)
}

// sequence is one text's tokens before the template is applied.
type sequence struct {
	ids    []int
	tokens []string
	spans  [][2]int
}

// truncate keeps n tokens: the first ones, or with left the last.
func (s *sequence) truncate(n int, left bool) {
	if n >= len(s.ids) {
		return
	}
	lo, hi := 0, n
	if left {
		lo, hi = len(s.ids)-n, len(s.ids)
	}
	s.ids, s.tokens, s.spans = s.ids[lo:hi], s.tokens[lo:hi], s.spans[lo:hi]
}

// pad fills e up to n tokens.
func (e *Encoding) pad(n int, p padToken, left bool) {
	missing := n - len(e.IDs)
	if missing <= 0 {
		return
	}
	out := newEncoding(n)
	fill := func() {
		for range missing {
			out.push(p.id, p.token, [2]int{}, p.typeID, 1, 0)
		}
	}
	if left {
		fill()
	}
	out.IDs = append(out.IDs, e.IDs...)
	out.Tokens = append(out.Tokens, e.Tokens...)
	out.Offsets = append(out.Offsets, e.Offsets...)
	out.TypeIDs = append(out.TypeIDs, e.TypeIDs...)
	out.SpecialTokensMask = append(out.SpecialTokensMask, e.SpecialTokensMask...)
	out.AttentionMask = append(out.AttentionMask, e.AttentionMask...)
	if !left {
		fill()
	}
	*e = out
}

type padToken struct {
	id, typeID int
	token      string
}

// truncatePair shortens one or both sequences to n tokens in all.
func truncatePair(a, b *sequence, n int, how Truncation, left bool) error {
	total := len(a.ids)
	if b != nil {
		total += len(b.ids)
	}
	remove := total - n
	if remove <= 0 {
		return nil
	}
	if n == 0 {
		a.truncate(0, left)
		if b != nil {
			b.truncate(0, left)
		}
		return nil
	}
	switch how {
	case OnlyFirst, OnlySecond:
		s := a
		if how == OnlySecond {
			s = b
		}
		if s == nil {
			return ErrNoPair
		}
		if len(s.ids) <= remove {
			return ErrTooShort
		}
		s.truncate(len(s.ids)-remove, left)
		return nil
	}
	if b == nil {
		a.truncate(n, left)
		return nil
	}
	// The longer one gives way until they are equal; then both do, the second keeping an odd token.
	short, long := len(a.ids), len(b.ids)
	swapped := short > long
	if swapped {
		short, long = long, short
	}
	if short > n {
		long = short
	} else {
		long = max(short, n-short)
	}
	if short+long > n {
		short = n / 2
		long = short + n%2
	}
	if swapped {
		short, long = long, short
	}
	a.truncate(short, left)
	b.truncate(long, left)
	return nil
}

// clip shortens a token for a message.
func clip(s string) string {
	const most = 64
	r := []rune(s[:min(len(s), 4*most)])
	if len(r) <= most && len(s) <= 4*most {
		return s
	}
	return string(slices.Concat(r[:min(len(r), most)], []rune("…")))
}
