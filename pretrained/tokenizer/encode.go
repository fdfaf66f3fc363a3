package tokenizer

import (
	"errors"
	"fmt"
	"math"
	"runtime"
	"sync"
	"sync/atomic"
	"unicode/utf8"
)

// Errors of Encode, for errors.Is.
var (
	ErrNoPair   = errors.New("truncation: only_second needs a second text")
	ErrTooShort = errors.New("truncation: the text to shorten is shorter than what must go")
	ErrTooLong  = errors.New("text is too long")
)

// Truncation says which text gives way when the tokens are more than MaxLength.
type Truncation int

const (
	// TruncateAuto is LongestFirst where MaxLength is set and padding does not use it, else DoNotTruncate.
	TruncateAuto Truncation = iota
	DoNotTruncate
	LongestFirst // the longer text, down to the length of the other, then both
	OnlyFirst
	OnlySecond
)

// Padding says to what length a batch is padded.
type Padding int

const (
	DoNotPad     Padding = iota
	PadLongest           // the longest of the batch
	PadMaxLength         // MaxLength
	padFixed             // the length that tokenizer.json fixes
)

// Side is an end of the sequence.
type Side int

const (
	DefaultSide Side = iota // as the tokenizer's files say, else the right
	Right
	Left
)

// EncodeOptions are transformers' arguments to a tokenizer call. The zero value adds special tokens and
// neither truncates nor pads, whatever tokenizer.json says; see Tokenizer.FileOptions for that.
type EncodeOptions struct {
	NoSpecialTokens    bool // leave out the template's tokens ([CLS], [SEP])
	SplitSpecialTokens bool // treat special tokens in the text as plain text

	MaxLength      int // with special tokens; 0 is ModelMaxLength
	Truncation     Truncation
	TruncationSide Side

	Padding         Padding
	PadToMultipleOf int
	PaddingSide     Side
	padFixed        int
}

// plan is EncodeOptions made definite.
type plan struct {
	special, split     bool
	limit              int // tokens of the texts and the template; -1 for none
	how                Truncation
	truncLeft, padLeft bool
	pad                Padding
	padTo, multiple    int
}

func (t *Tokenizer) plan(o EncodeOptions) (plan, error) {
	if o.MaxLength < 0 || o.PadToMultipleOf < 0 {
		return plan{}, fmt.Errorf("encode options: negative length: max length %d, multiple of %d", o.MaxLength, o.PadToMultipleOf)
	}
	length := o.MaxLength
	if length == 0 {
		length = t.modelMaxLength
	}
	p := plan{
		special: !o.NoSpecialTokens, split: o.SplitSpecialTokens, limit: -1, how: o.Truncation,
		truncLeft: o.TruncationSide == Left || o.TruncationSide == DefaultSide && t.truncateLeft,
		padLeft:   o.PaddingSide == Left || o.PaddingSide == DefaultSide && t.padLeft,
		pad:       o.Padding, multiple: o.PadToMultipleOf,
	}
	if p.how == TruncateAuto {
		p.how = DoNotTruncate
		if o.MaxLength > 0 && p.pad != PadMaxLength {
			p.how = LongestFirst
		}
	}
	if p.how != DoNotTruncate && length > 0 {
		p.limit = length
	}
	if p.pad == PadMaxLength {
		if length == 0 {
			return p, errors.New("padding: no max length is given and the model has none")
		}
		if p.padTo = length; length > math.MaxInt32 {
			return p, fmt.Errorf("padding: %w: max length %d", ErrTooLong, length)
		}
	}
	if p.pad == padFixed {
		p.padTo = o.padFixed
	}
	if p.pad != DoNotPad && t.pad.token == "" {
		return p, errors.New("padding: the tokenizer has no padding token")
	}
	return p, nil
}

// Encode tokenizes text. Invalid UTF-8 counts as U+FFFD, a byte each.
func (t *Tokenizer) Encode(text string, o EncodeOptions) (Encoding, error) {
	return t.encodeOne(text, nil, o)
}

// EncodePair tokenizes two texts as one input.
func (t *Tokenizer) EncodePair(text, pair string, o EncodeOptions) (Encoding, error) {
	return t.encodeOne(text, &pair, o)
}

func (t *Tokenizer) encodeOne(text string, pair *string, o EncodeOptions) (Encoding, error) {
	p, err := t.plan(o)
	if err != nil {
		return Encoding{}, err
	}
	e, err := t.encode(text, pair, p)
	if err != nil {
		return Encoding{}, err
	}
	one := []Encoding{e}
	t.padBatch(one, p)
	return one[0], nil
}

// EncodeBatch tokenizes texts, on several cores, and pads them together.
func (t *Tokenizer) EncodeBatch(texts []string, o EncodeOptions) ([]Encoding, error) {
	return t.batch(len(texts), o, func(i int) (string, *string) { return texts[i], nil })
}

// EncodePairBatch is EncodeBatch for pairs.
func (t *Tokenizer) EncodePairBatch(pairs [][2]string, o EncodeOptions) ([]Encoding, error) {
	return t.batch(len(pairs), o, func(i int) (string, *string) { return pairs[i][0], &pairs[i][1] })
}

func (t *Tokenizer) batch(n int, o EncodeOptions, get func(int) (string, *string)) ([]Encoding, error) {
	p, err := t.plan(o)
	if err != nil {
		return nil, err
	}
	out, errs := make([]Encoding, n), make([]error, n)
	one := func(i int) {
		text, pair := get(i)
		out[i], errs[i] = t.encode(text, pair, p)
	}
	const worthIt = 8 // texts a goroutine
	if workers := min(runtime.GOMAXPROCS(0), n/worthIt); workers > 1 {
		var next atomic.Int64
		var wg sync.WaitGroup
		for range workers {
			wg.Go(func() {
				for {
					i := int(next.Add(1)) - 1
					if i >= n {
						return
					}
					one(i)
				}
			})
		}
		wg.Wait()
	} else {
		for i := range n {
			one(i)
		}
	}
	for i, err := range errs {
		if err != nil {
			return nil, fmt.Errorf("text %d: %w", i, err)
		}
	}
	t.padBatch(out, p)
	return out, nil
}

func (t *Tokenizer) padBatch(batch []Encoding, p plan) {
	if p.pad == DoNotPad {
		return
	}
	n := p.padTo
	if p.pad == PadLongest {
		for i := range batch {
			n = max(n, batch[i].Len())
		}
	}
	if p.multiple > 0 && n%p.multiple > 0 {
		n += p.multiple - n%p.multiple
	}
	for i := range batch {
		batch[i].pad(n, t.pad, p.padLeft)
	}
}

func (t *Tokenizer) encode(text string, pair *string, p plan) (Encoding, error) {
	limit := p.limit
	if limit >= 0 && p.special {
		added := t.post.added(pair != nil)
		if limit < added {
			return Encoding{}, fmt.Errorf("truncation: max length %d is less than the %d special tokens", limit, added)
		}
		limit -= added
	}
	// More tokens than the limit are not needed, except to know which text of a pair is the longer one.
	enough := -1
	if p.limit >= 0 && p.how != OnlySecond && pair == nil {
		enough = p.limit
	}
	var a, b sequence
	if err := t.encodeText(&a, text, enough, p); err != nil {
		return Encoding{}, err
	}
	second := (*sequence)(nil)
	if pair != nil {
		if err := t.encodeText(&b, *pair, -1, p); err != nil {
			return Encoding{}, err
		}
		second = &b
	}
	if limit >= 0 {
		if err := truncatePair(&a, second, limit, p.how, p.truncLeft); err != nil {
			return Encoding{}, err
		}
	}
	return t.post.process(&a, second, p.special), nil
}

// scratch is the memory of one encodeText call.
type scratch struct {
	t      text
	a, b   []glyph
	whole  []match
	inside []match
	pieces []piece
	tokens []token
	counts []int
}

var scratches = sync.Pool{New: func() any { return new(scratch) }}

// keepScratch bounds the memory that an idle scratch keeps.
const keepScratch = 1 << 20

func (s *scratch) release() {
	if cap(s.t.bytes) < keepScratch && cap(s.a)+cap(s.b) < keepScratch && cap(s.pieces) < keepScratch {
		scratches.Put(s)
	}
}

// encodeText fills out with the tokens of one text; at least enough of them (-1: all), from the side that
// truncation keeps.
func (t *Tokenizer) encodeText(out *sequence, s string, enough int, p plan) error {
	if len(s) > math.MaxInt32 {
		return fmt.Errorf("%w: %d bytes", ErrTooLong, len(s))
	}
	if !utf8.ValidString(s) {
		s = string([]rune(s))
	}
	scr := scratches.Get().(*scratch)
	defer scr.release()
	pieces := t.split(scr, s, p.split)

	from, to := 0, len(pieces)
	scr.tokens, scr.counts = scr.tokens[:0], scr.counts[:0]
	one := func(w piece) (err error) {
		n := len(scr.tokens)
		if w.added >= 0 {
			scr.tokens = append(scr.tokens, token{w.added, 0, len(w.bytes)})
		} else {
			scr.tokens, err = t.model.tokenize(scr.tokens, w.bytes)
		}
		scr.counts = append(scr.counts, len(scr.tokens)-n)
		return err
	}
	if enough >= 0 && p.truncLeft {
		// Words from the end; their tokens lie in scr.tokens word by word in reverse.
		for from = to; from > 0 && (len(scr.tokens) < enough || from == to); {
			from--
			if err := one(pieces[from]); err != nil {
				return err
			}
		}
		n := len(scr.tokens)
		out.grow(n)
		for i := from; i < to; i++ {
			c := scr.counts[to-1-i]
			out.push(t, pieces[i], scr.tokens[n-c:n])
			n -= c
		}
		return nil
	}
	for i := 0; i < to; i++ {
		if err := one(pieces[i]); err != nil {
			return err
		}
		if enough >= 0 && len(scr.tokens) >= enough {
			to = i + 1
		}
	}
	out.grow(len(scr.tokens))
	n := 0
	for i := range to {
		out.push(t, pieces[i], scr.tokens[n:n+scr.counts[i]])
		n += scr.counts[i]
	}
	return nil
}

func (s *sequence) grow(n int) {
	s.ids, s.tokens, s.spans = make([]int, 0, n), make([]string, 0, n), make([][2]int, 0, n)
}

func (s *sequence) push(t *Tokenizer, w piece, toks []token) {
	for _, tok := range toks {
		name := w.name
		if w.added < 0 {
			name = t.model.vocab().tokens[tok.id]
		}
		s.ids = append(s.ids, tok.id)
		s.tokens = append(s.tokens, name)
		s.spans = append(s.spans, w.span(tok.start, tok.end))
	}
}

// split finds added tokens, normalizes what lies between them, and cuts it into words.
func (t *Tokenizer) split(scr *scratch, s string, splitSpecial bool) []piece {
	scr.pieces = scr.pieces[:0]
	if len(s) == 0 {
		return scr.pieces
	}
	scr.t.setString(s, 0)
	raw := scr.t
	scr.whole = t.added.find(scr.whole[:0], &t.added.raw, raw.bytes, splitSpecial)
	// Normalizing grows and shrinks text, so each part gets memory of its own unless it is the whole.
	for _, w := range scr.whole {
		part := raw.slice(w.lo, w.hi)
		if w.id >= 0 {
			scr.pieces = append(scr.pieces, piece{part, w.id, s[w.lo:w.hi]})
			continue
		}
		if t.normalizer != nil {
			if len(scr.whole) > 1 {
				part = text{append([]byte(nil), part.bytes...), append([]int32(nil), part.pos...)}
			}
			t.normalizer.normalize(&part, scr)
			if len(scr.whole) == 1 {
				scr.t = part
			}
		}
		scr.inside = t.added.find(scr.inside[:0], &t.added.inNormal, part.bytes, splitSpecial)
		inside := "" // one copy, as matches can overlap
		if len(scr.inside) > 0 && (len(scr.inside) > 1 || scr.inside[0].id >= 0) {
			inside = string(part.bytes)
		}
		for _, m := range scr.inside {
			sub := part.slice(m.lo, m.hi)
			switch {
			case m.id >= 0:
				scr.pieces = append(scr.pieces, piece{sub, m.id, inside[m.lo:m.hi]})
			case t.preTokenizer != nil:
				scr.pieces = t.preTokenizer.split(scr.pieces, sub)
			default:
				scr.pieces = append(scr.pieces, words(sub))
			}
		}
	}
	return scr.pieces
}
