package main

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"strings"
	"unicode"
)

// Type is an argument's or a result's type as a schema writes it.
type Type struct {
	Base     string // "Tensor", "int", "ScalarType", ...; SymInt is int, SymBool is bool
	ElemOpt  bool   // "?" before "[]": elements may be None
	List     bool
	N        string // length in "[2]", "" in "[]"
	Nested   bool   // "[][]"
	Optional bool   // "?" at the end
	Mutable  bool   // alias annotation with "!"
}

// Arg is an argument or a result.
type Arg struct {
	Name       string
	Type       Type
	Default    string // as written
	HasDefault bool
	KwOnly     bool
}

// Schema is one operator.
type Schema struct {
	Text      string // all of it
	Namespace string
	Base      string // name without namespace
	Overload  string
	Args      []Arg
	Returns   []Arg
	Vararg    bool // "..." among the arguments or results

	Variants []string // "function", "method": how PyTorch offers it; none for what only torch.ops has
	Module   string   // PyTorch's module: "nn", "linalg", "fft", ...
}

// Name is the name with namespace and overload, "aten::add.Tensor".
func (s *Schema) Name() string {
	if s.Overload == "" {
		return s.Namespace + "::" + s.Base
	}
	return s.Namespace + "::" + s.Base + "." + s.Overload
}

// Mutates tells whether an argument is written to.
func (s *Schema) Mutates() bool {
	for _, a := range s.Args {
		if a.Type.Mutable {
			return true
		}
	}
	return false
}

func (s *Schema) hasVariant(v string) bool {
	for _, x := range s.Variants {
		if x == v {
			return true
		}
	}
	return false
}

type parser struct {
	s   string
	pos int
}

func (p *parser) rest() string { return p.s[p.pos:] }
func (p *parser) eat(t string) bool {
	if strings.HasPrefix(p.rest(), t) {
		p.pos += len(t)
		return true
	}
	return false
}
func (p *parser) spaces() {
	for p.eat(" ") {
	}
}
func (p *parser) fail(what string) error {
	return fmt.Errorf("schema %q: column %d: %s", p.s, p.pos+1, what)
}

func (p *parser) word(more string) string {
	start := p.pos
	for _, r := range p.rest() {
		if r != '_' && !unicode.IsLetter(r) && !unicode.IsDigit(r) && !strings.ContainsRune(more, r) {
			break
		}
		p.pos += len(string(r))
	}
	return p.s[start:p.pos]
}

// ParseSchema reads a schema as libtorch prints it.
func ParseSchema(text string) (*Schema, error) {
	p := &parser{s: text}
	s := &Schema{Text: text}
	s.Namespace = p.word("")
	if !p.eat("::") {
		return nil, p.fail("expected ::")
	}
	s.Base = p.word("")
	if p.eat(".") {
		s.Overload = p.word("")
	}
	if s.Base == "" || !p.eat("(") {
		return nil, p.fail("expected (")
	}
	kwOnly := false
	for p.spaces(); !p.eat(")"); p.spaces() {
		switch {
		case p.eat("*,"):
			kwOnly = true
			continue
		case p.eat("..."):
			s.Vararg = true
		default:
			a, err := p.arg()
			if err != nil {
				return nil, err
			}
			a.KwOnly = kwOnly
			s.Args = append(s.Args, a)
		}
		if !p.eat(",") && !strings.HasPrefix(p.rest(), ")") {
			return nil, p.fail("expected , or )")
		}
	}
	if !p.eat(" -> ") {
		return nil, p.fail("expected ->")
	}
	switch {
	case p.eat("..."):
		s.Vararg = true
	case p.eat("("):
		for !p.eat(")") {
			if p.eat("...") {
				s.Vararg = true
				continue
			}
			a, err := p.arg()
			if err != nil {
				return nil, err
			}
			s.Returns = append(s.Returns, a)
			if p.eat(",") {
				p.spaces()
			}
		}
	default:
		a, err := p.arg()
		if err != nil {
			return nil, err
		}
		s.Returns = append(s.Returns, a)
	}
	if p.rest() != "" {
		return nil, p.fail("unexpected text at the end")
	}
	return s, nil
}

func (p *parser) arg() (Arg, error) {
	var a Arg
	a.Type.Base = p.word(".")
	if a.Type.Base == "" {
		return a, p.fail("expected a type")
	}
	switch a.Type.Base {
	case "SymInt":
		a.Type.Base = "int"
	case "SymBool":
		a.Type.Base = "bool"
	}
	if a.Type.Base == "Dict" {
		i := strings.IndexByte(p.rest(), ')')
		if i < 0 {
			return a, p.fail("expected )")
		}
		p.pos += i + 1
	}
	for {
		switch {
		case p.eat("("):
			i := strings.IndexByte(p.rest(), ')')
			if i < 0 {
				return a, p.fail("expected )")
			}
			if strings.Contains(p.rest()[:i], "!") {
				a.Type.Mutable = true
			}
			p.pos += i + 1
		case p.eat("["):
			n := p.word("")
			if !p.eat("]") {
				return a, p.fail("expected ]")
			}
			if a.Type.List {
				a.Type.Nested = true
			}
			if a.Type.Optional {
				a.Type.Optional, a.Type.ElemOpt = false, true
			}
			a.Type.List, a.Type.N = true, n
		case p.eat("?"):
			a.Type.Optional = true
		default:
			if p.eat(" ") {
				a.Name = p.word("")
			}
			if p.eat("=") {
				a.HasDefault = true
				a.Default = p.value()
			}
			return a, nil
		}
	}
}

// value reads a default: up to the comma or parenthesis that ends the argument.
func (p *parser) value() string {
	start, depth, quoted := p.pos, 0, false
	for p.pos < len(p.s) {
		switch c := p.s[p.pos]; {
		case quoted && c == '\\':
			p.pos++
		case c == '"':
			quoted = !quoted
		case quoted:
		case c == '[':
			depth++
		case c == ']':
			depth--
		case depth == 0 && (c == ',' || c == ')'):
			return p.s[start:p.pos]
		}
		p.pos++
	}
	return p.s[start:]
}

// ReadList reads a list of operators: one a line, the schema, a tab, "function,method" and, where it
// has one, " module=nn". Lines that start with # are comments.
func ReadList(r io.Reader) ([]*Schema, error) {
	var list []*Schema
	sc := bufio.NewScanner(r)
	for sc.Scan() {
		line := sc.Text()
		if line == "" || line[0] == '#' {
			continue
		}
		text, flags, _ := strings.Cut(line, "\t")
		s, err := ParseSchema(text)
		if err != nil {
			return nil, err
		}
		for _, f := range strings.Fields(flags) {
			if m, ok := strings.CutPrefix(f, "module="); ok {
				s.Module = m
			} else {
				s.Variants = strings.Split(f, ",")
			}
		}
		list = append(list, s)
	}
	return list, sc.Err()
}

// ReadListFile is ReadList of a file.
func ReadListFile(path string) ([]*Schema, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	list, err := ReadList(f)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return list, nil
}
