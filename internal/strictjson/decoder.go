// Package strictjson reads JSON (RFC 8259) of unknown origin and refuses what lenient readers pass over:
// a name twice in one object, invalid UTF-8, lone surrogates, a second value or NUL bytes after the
// first, nesting beyond a limit. Names are case-sensitive and keep their order.
//
// [Parse] gives a tree of [Value]; a [Decoder] reads large documents without one.
package strictjson

import (
	"errors"
	"fmt"
	"unicode/utf16"
	"unicode/utf8"
)

// The classes of errors, for errors.Is.
var (
	ErrSyntax    = errors.New("invalid JSON")
	ErrDuplicate = errors.New("duplicate name in JSON object")
	ErrLimit     = errors.New("JSON limit exceeded")
	ErrType      = errors.New("unexpected JSON value") // well-formed, but not what was asked for
)

// Error says where in the document the input is refused. It wraps one of the classes.
type Error struct {
	Class   error
	Offset  int // in bytes from the start of the document; -1 if unknown
	Message string
}

func (e *Error) Error() string {
	if e.Offset < 0 {
		return fmt.Sprintf("%v: %s", e.Class, e.Message)
	}
	return fmt.Sprintf("%v: %s at byte %d", e.Class, e.Message, e.Offset)
}

func (e *Error) Unwrap() error { return e.Class }

// Options bound what a document may contain. The zero value is the default.
type Options struct {
	AllowNaN   bool // accept NaN, Infinity and -Infinity, which Python's json writes
	MaxDepth   int  // nested arrays and objects; default 128
	MaxMembers int  // members of all objects that are open at one point; default 2 Mi
	MaxValues  int  // values in a tree; default 4 Mi
}

func (o Options) withDefaults() Options {
	if o.MaxDepth == 0 {
		o.MaxDepth = 128
	}
	if o.MaxMembers == 0 {
		o.MaxMembers = 2 << 20
	}
	if o.MaxValues == 0 {
		o.MaxValues = 4 << 20
	}
	return o
}

// Kind is the type of a JSON value.
type Kind uint8

// The kinds; the zero Kind is no value.
const (
	KindNull Kind = iota + 1
	KindBool
	KindNumber
	KindString
	KindArray
	KindObject
)

func (k Kind) String() string {
	switch k {
	case KindNull:
		return "null"
	case KindBool:
		return "boolean"
	case KindNumber:
		return "number"
	case KindString:
		return "string"
	case KindArray:
		return "array"
	case KindObject:
		return "object"
	}
	return "no value"
}

// Decoder walks through one document. Each method reads the next value, which must be of its kind.
type Decoder struct {
	data    []byte
	pos     int
	opts    Options
	depth   int
	members int // of the objects that are open
	values  int // made by Value
	bad     error
}

// NewDecoder returns a Decoder for data, which must not change while it is read. That data is not UTF-8 is
// reported by the first method called.
func NewDecoder(data []byte, opts Options) *Decoder {
	d := &Decoder{data: data, opts: opts.withDefaults()}
	if !utf8.Valid(data) {
		for i := 0; i < len(data); {
			r, n := utf8.DecodeRune(data[i:])
			if r == utf8.RuneError && n <= 1 {
				d.bad = &Error{ErrSyntax, i, "invalid UTF-8"}
				break
			}
			i += n
		}
	}
	return d
}

// Offset is the position in the document, in bytes.
func (d *Decoder) Offset() int { return d.pos }

func (d *Decoder) fail(class error, format string, args ...any) error {
	return &Error{class, d.pos, fmt.Sprintf(format, args...)}
}

func (d *Decoder) space() {
	for d.pos < len(d.data) {
		switch d.data[d.pos] {
		case ' ', '\t', '\n', '\r':
			d.pos++
		default:
			return
		}
	}
}

// next skips space and returns the byte there, without consuming it.
func (d *Decoder) next() (byte, error) {
	if d.bad != nil {
		return 0, d.bad
	}
	d.space()
	if d.pos == len(d.data) {
		return 0, d.fail(ErrSyntax, "unexpected end")
	}
	return d.data[d.pos], nil
}

// Peek tells the kind of the next value from its first byte.
func (d *Decoder) Peek() (Kind, error) {
	c, err := d.next()
	if err != nil {
		return 0, err
	}
	switch {
	case c == '{':
		return KindObject, nil
	case c == '[':
		return KindArray, nil
	case c == '"':
		return KindString, nil
	case c == 't', c == 'f':
		return KindBool, nil
	case c == 'n':
		return KindNull, nil
	case c == '-', c >= '0' && c <= '9', d.opts.AllowNaN && (c == 'N' || c == 'I'):
		return KindNumber, nil
	}
	return 0, d.fail(ErrSyntax, "unexpected character %q", rune(c))
}

func (d *Decoder) expect(want Kind) error {
	got, err := d.Peek()
	if err == nil && got != want {
		err = d.fail(ErrType, "expected %v, got %v", want, got)
	}
	return err
}

// End checks that only space follows.
func (d *Decoder) End() error {
	if d.bad != nil {
		return d.bad
	}
	d.space()
	if d.pos < len(d.data) {
		return d.fail(ErrSyntax, "unexpected %q after the value", rune(d.data[d.pos]))
	}
	return nil
}

// Null reads null.
func (d *Decoder) Null() error {
	if err := d.expect(KindNull); err != nil {
		return err
	}
	return d.literal("null")
}

// Bool reads true or false.
func (d *Decoder) Bool() (bool, error) {
	if err := d.expect(KindBool); err != nil {
		return false, err
	}
	if d.data[d.pos] == 't' {
		return true, d.literal("true")
	}
	return false, d.literal("false")
}

func (d *Decoder) literal(word string) error {
	if rest := d.data[d.pos:]; len(rest) < len(word) || string(rest[:len(word)]) != word {
		return d.fail(ErrSyntax, "invalid literal, expected %s", word)
	}
	d.pos += len(word)
	return nil
}

// Number reads a number as it is written.
func (d *Decoder) Number() (Number, error) {
	if err := d.expect(KindNumber); err != nil {
		return "", err
	}
	start := d.pos
	if d.opts.AllowNaN {
		for _, word := range []string{"NaN", "Infinity", "-Infinity"} {
			if d.literal(word) == nil {
				return Number(word), nil
			}
		}
	}
	if d.data[d.pos] == '-' {
		d.pos++
	}
	if d.pos < len(d.data) && d.data[d.pos] == '0' {
		d.pos++
		if d.pos < len(d.data) && isDigit(d.data[d.pos]) {
			return "", d.fail(ErrSyntax, "number with a leading zero")
		}
	} else if err := d.digits(); err != nil {
		return "", err
	}
	if d.pos < len(d.data) && d.data[d.pos] == '.' {
		d.pos++
		if err := d.digits(); err != nil {
			return "", err
		}
	}
	if d.pos < len(d.data) && (d.data[d.pos] == 'e' || d.data[d.pos] == 'E') {
		d.pos++
		if d.pos < len(d.data) && (d.data[d.pos] == '+' || d.data[d.pos] == '-') {
			d.pos++
		}
		if err := d.digits(); err != nil {
			return "", err
		}
	}
	return Number(d.data[start:d.pos]), nil
}

func (d *Decoder) digits() error {
	start := d.pos
	for d.pos < len(d.data) && isDigit(d.data[d.pos]) {
		d.pos++
	}
	if d.pos == start {
		return d.fail(ErrSyntax, "number without a digit")
	}
	return nil
}

func isDigit(c byte) bool { return c >= '0' && c <= '9' }

// Text reads a string.
func (d *Decoder) Text() (string, error) {
	if err := d.expect(KindString); err != nil {
		return "", err
	}
	d.pos++
	start := d.pos
	for d.pos < len(d.data) { // most strings have no escape
		switch c := d.data[d.pos]; {
		case c == '"':
			s := string(d.data[start:d.pos])
			d.pos++
			return s, nil
		case c == '\\':
			return d.escaped(append(make([]byte, 0, d.pos-start+32), d.data[start:d.pos]...))
		case c < 0x20:
			return "", d.fail(ErrSyntax, "control character %#02x in a string", c)
		}
		d.pos++
	}
	return "", d.fail(ErrSyntax, "unexpected end in a string")
}

// escaped reads on in a string of which buf is the beginning.
func (d *Decoder) escaped(buf []byte) (string, error) {
	for d.pos < len(d.data) {
		c := d.data[d.pos]
		switch {
		case c == '"':
			d.pos++
			return string(buf), nil
		case c < 0x20:
			return "", d.fail(ErrSyntax, "control character %#02x in a string", c)
		case c != '\\':
			buf = append(buf, c)
			d.pos++
			continue
		}
		if d.pos+1 == len(d.data) {
			break
		}
		const from, to = `"\/bfnrt`, "\"\\/\b\f\n\r\t"
		esc := d.data[d.pos+1]
		if esc == 'u' {
			r, err := d.unicode()
			if err != nil {
				return "", err
			}
			buf = utf8.AppendRune(buf, r)
			continue
		}
		known := false
		for i := range from {
			if from[i] == esc {
				buf, known = append(buf, to[i]), true
			}
		}
		if !known {
			return "", d.fail(ErrSyntax, "invalid escape \\%c", rune(esc))
		}
		d.pos += 2
	}
	return "", d.fail(ErrSyntax, "unexpected end in a string")
}

// unicode reads \uXXXX, or two of them that make up a surrogate pair.
func (d *Decoder) unicode() (rune, error) {
	first, ok := d.hex4(d.pos)
	if !ok {
		return 0, d.fail(ErrSyntax, "invalid \\u escape")
	}
	if !utf16.IsSurrogate(first) {
		d.pos += 6
		return first, nil
	}
	second, ok := d.hex4(d.pos + 6)
	r := utf16.DecodeRune(first, second)
	if !ok || r == utf8.RuneError {
		return 0, d.fail(ErrSyntax, "lone surrogate \\u%04x", first)
	}
	d.pos += 12
	return r, nil
}

func (d *Decoder) hex4(at int) (rune, bool) {
	if at+6 > len(d.data) || d.data[at] != '\\' || d.data[at+1] != 'u' {
		return 0, false
	}
	var r rune
	for _, c := range d.data[at+2 : at+6] {
		switch {
		case isDigit(c):
			c -= '0'
		case c >= 'a' && c <= 'f':
			c -= 'a' - 10
		case c >= 'A' && c <= 'F':
			c -= 'A' - 10
		default:
			return 0, false
		}
		r = r<<4 | rune(c)
	}
	return r, true
}

// Array reads an array: it calls element for each one, which must read exactly one value.
func (d *Decoder) Array(element func(i int) error) error {
	if err := d.open(KindArray); err != nil {
		return err
	}
	for i := 0; ; i++ {
		c, err := d.next()
		if err != nil {
			return err
		}
		if c == ']' && i == 0 {
			break
		}
		if err := element(i); err != nil {
			return err
		}
		if c, err = d.next(); err != nil {
			return err
		}
		if c == ']' {
			break
		}
		if c != ',' {
			return d.fail(ErrSyntax, "expected , or ] and found %q", rune(c))
		}
		d.pos++
		if c, err = d.next(); err != nil {
			return err
		} else if c == ']' {
			return d.fail(ErrSyntax, "comma before ]")
		}
	}
	d.pos++
	d.depth--
	return nil
}

// Object reads an object: it calls member for each name, which must read exactly one value. A name that
// comes twice is an error.
func (d *Decoder) Object(member func(name string) error) error {
	if err := d.open(KindObject); err != nil {
		return err
	}
	var seen seenNames
	for {
		c, err := d.next()
		if err != nil {
			return err
		}
		if c == '}' && seen.n == 0 {
			break
		}
		at := d.pos
		if c != '"' {
			return d.fail(ErrSyntax, "expected a name and found %q", rune(c))
		}
		name, err := d.Text()
		if err != nil {
			return err
		}
		if !seen.add(name) {
			return &Error{ErrDuplicate, at, fmt.Sprintf("%q comes twice", clip(name))}
		}
		if d.members++; d.members > d.opts.MaxMembers {
			return d.fail(ErrLimit, "more than %d members in open objects", d.opts.MaxMembers)
		}
		if c, err = d.next(); err != nil {
			return err
		}
		if c != ':' {
			return d.fail(ErrSyntax, "expected : and found %q", rune(c))
		}
		d.pos++
		if err := member(name); err != nil {
			return err
		}
		if c, err = d.next(); err != nil {
			return err
		}
		if c == '}' {
			break
		}
		if c != ',' {
			return d.fail(ErrSyntax, "expected , or } and found %q", rune(c))
		}
		d.pos++
		if c, err = d.next(); err != nil {
			return err
		} else if c == '}' {
			return d.fail(ErrSyntax, "comma before }")
		}
	}
	d.pos++
	d.depth--
	d.members -= seen.n
	return nil
}

func (d *Decoder) open(k Kind) error {
	if err := d.expect(k); err != nil {
		return err
	}
	if d.depth++; d.depth > d.opts.MaxDepth {
		return d.fail(ErrLimit, "nested deeper than %d", d.opts.MaxDepth)
	}
	d.pos++
	return nil
}

// Skip reads and checks one value of any kind, and drops it.
func (d *Decoder) Skip() error {
	k, err := d.Peek()
	if err != nil {
		return err
	}
	switch k {
	case KindObject:
		return d.Object(func(string) error { return d.Skip() })
	case KindArray:
		return d.Array(func(int) error { return d.Skip() })
	case KindString:
		_, err = d.Text()
	case KindNumber:
		_, err = d.Number()
	case KindBool:
		_, err = d.Bool()
	default:
		err = d.Null()
	}
	return err
}

const smallObject = 8 // up to this size a search is as good as a map

// seenNames finds repeated names.
type seenNames struct {
	n     int
	first [smallObject]string
	more  map[string]struct{} // all names, if there are more than fit into first
}

func (s *seenNames) add(name string) bool {
	if s.more == nil {
		for _, known := range s.first[:s.n] {
			if known == name {
				return false
			}
		}
		if s.n < smallObject {
			s.first[s.n] = name
			s.n++
			return true
		}
		s.more = make(map[string]struct{}, 4*smallObject)
		for _, known := range s.first {
			s.more[known] = struct{}{}
		}
	}
	if _, ok := s.more[name]; ok {
		return false
	}
	s.more[name] = struct{}{}
	s.n++
	return true
}

func clip(s string) string {
	if len(s) > 100 {
		return s[:100] + "…"
	}
	return s
}
