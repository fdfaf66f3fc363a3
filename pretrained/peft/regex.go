package peft

import (
	"errors"
	"fmt"
	"regexp"
	"regexp/syntax"
	"strings"
)

// maxExpression bounds the size of one expression, in instructions: the time to match a name is proportional to it.
const maxExpression = 1 << 14

// compile makes a regular expression of Python's into one of Go's, which takes time linear in its input (RE2):
// there is no pattern that hangs. before and after are put around it, as peft does: an alternative in the pattern
// takes them apart there, too.
//
// A pattern that Python refuses, or would read otherwise, is ErrBadConfig; one that RE2 has no way to match
// (look-around, back-references, possessive and atomic groups, …) is ErrUnsupported.
func compile(before, pattern, after string) (*regexp.Regexp, error) {
	fail := func(class error, reason string) error {
		return &Error{Class: class, Detail: "the pattern " + quoted(pattern), Actual: reason}
	}
	if len(pattern) > maxExpression {
		return nil, fail(ErrUnsupported, fmt.Sprintf("more than %d characters", maxExpression))
	}
	translated, err := fromPython(pattern, before == whole)
	switch {
	case err == errClass:
		return nil, fail(ErrUnsupported, err.Error())
	case err != nil:
		return nil, fail(ErrBadConfig, err.Error())
	}
	tree, err := syntax.Parse(translated, syntax.Perl)
	if err == nil {
		tree, err = syntax.Parse(before+translated+after, syntax.Perl)
	}
	if e := (*syntax.Error)(nil); errors.As(err, &e) {
		switch e.Code {
		case syntax.ErrInvalidNamedCapture:
			if strings.HasPrefix(e.Expr, "(?<") {
				return nil, fail(ErrUnsupported, "look-behind "+quoted(e.Expr[:4]))
			}
		case syntax.ErrInvalidPerlOp, syntax.ErrInvalidRepeatSize, syntax.ErrNestingDepth, syntax.ErrLarge:
			return nil, fail(ErrUnsupported, fmt.Sprintf("%s %s", e.Code, quoted(e.Expr)))
		case syntax.ErrInvalidEscape:
			if c := e.Expr[len(e.Expr)-1]; c >= '0' && c <= '9' || strings.IndexByte("NuU", c) >= 0 {
				return nil, fail(ErrUnsupported, fmt.Sprintf("%s %s", e.Code, quoted(e.Expr)))
			}
		case syntax.ErrInvalidRepeatOp:
			if strings.HasSuffix(e.Expr, "+") {
				return nil, fail(ErrUnsupported, "possessive repetition "+quoted(e.Expr))
			}
		}
		return nil, fail(ErrBadConfig, fmt.Sprintf("%s %s", e.Code, quoted(e.Expr)))
	} else if err != nil {
		return nil, fail(ErrBadConfig, err.Error())
	}
	if size(tree) > maxExpression {
		return nil, fail(ErrUnsupported, fmt.Sprintf("more than %d steps", maxExpression))
	}
	re, err := regexp.Compile(before + translated + after)
	if err != nil {
		return nil, fail(ErrBadConfig, err.Error())
	}
	return re, nil
}

const whole = `\A(?:` // before an expression that matches whole names

// fullMatch is Python's re.fullmatch.
func fullMatch(pattern string) (*regexp.Regexp, error) { return compile(whole, pattern, `)\z`) }

// size is about how many instructions an expression has, repetitions counted out.
func size(re *syntax.Regexp) int {
	n := 1 + len(re.Rune)
	for _, sub := range re.Sub {
		n = min(n+size(sub), 2*maxExpression)
	}
	if re.Op == syntax.OpRepeat {
		n *= max(re.Min, re.Max, 1)
	}
	return min(n, 2*maxExpression)
}

// fromPython writes a pattern in Go's syntax where the two differ, and refuses what Go alone has. first: it is the
// beginning of an expression, where Python takes flags for the whole of it.
func fromPython(pattern string, first bool) (string, error) {
	var b strings.Builder
	inClass := false
	for i := 0; i < len(pattern); i++ {
		c := pattern[i]
		rest := pattern[i:]
		switch {
		case c == '\\' && i+1 < len(pattern):
			i++
			switch next := pattern[i]; {
			case next == 'Z' && !inClass:
				b.WriteString(`\z`)
			case strings.IndexByte("zZQECpP", next) >= 0, strings.HasPrefix(rest, `\x{`):
				return "", fmt.Errorf("bad escape \\%c", next)
			default:
				b.WriteString(rest[:2])
			}
			continue
		case inClass && strings.HasPrefix(rest, "[:"):
			return "", errClass
		case inClass:
			inClass = c != ']'
		case c == '[':
			inClass = true
			n := 1
			if strings.HasPrefix(rest[n:], "^") {
				n++
			}
			if strings.HasPrefix(rest[n:], "]") { // the first one is itself
				n++
			}
			b.WriteString(rest[:n])
			i += n - 1
			continue
		case strings.HasPrefix(rest, "{,") && closes(rest[2:]):
			b.WriteString("{0,")
			i++
			continue
		case goGroup.MatchString(rest):
			return "", errors.New("unknown extension " + goGroup.FindString(rest))
		case (i > 0 || !first) && flags.MatchString(rest):
			return "", errors.New("flags not at the start of the expression")
		}
		b.WriteByte(c)
	}
	return b.String(), nil
}

// errClass: what Python takes for two characters begins a class of characters in Go.
var errClass = errors.New("[: in a set")

// goGroup is what may follow an opening parenthesis in Go alone: the flag U, and names in brackets without a P.
var goGroup = regexp.MustCompile(`\A\(\?(?:[a-zA-Z-]*U|<[^=!])`)

// flags are those of a whole expression.
var flags = regexp.MustCompile(`\A\(\?[a-zA-Z]+\)`)

// closes reports whether digits and a closing brace follow.
func closes(s string) bool {
	digits := strings.TrimLeft(s, "0123456789")
	return strings.HasPrefix(digits, "}")
}
