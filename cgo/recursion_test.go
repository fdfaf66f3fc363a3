package cgo

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// Functions of the shim that call a function of their own name, and why that ends after few levels
// whatever the caller passes.
var mayRecur = map[string]string{
	"want_of":        "from the type of a list in an operator's schema to that of its elements",
	"symbolic":       "likewise",
	"enumeration_of": "from an optional type or a list in an operator's schema to what is in it",
	"read":           "from an optional parameter's form to the parameter's: templates, at compile time",
}

var (
	noise    = regexp.MustCompile(`(?s)/\*.*?\*/|//[^\n]*|"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*'|(?m)^#[^\n]*(?:\\\n[^\n]*)*`)
	keyword  = regexp.MustCompile(`^(if|for|while|switch|return|catch|sizeof|new|delete|throw|else|do|case|alignof|decltype|static_cast|reinterpret_cast|dynamic_cast|const_cast)$`)
	typeHead = regexp.MustCompile(`(?s)^\s*(?:template\s*<[^{}]*?>\s*)?(?:struct|class|enum|union)\b`)
	heading  = regexp.MustCompile(`(?s)([~\w]+)\s*\([^;{}]*$`)
	callSite = regexp.MustCompile(`(\.|->)?((?:\w+::)*)(~?\w+)\s*(?:<[\w\s:,&*.]*>)?\s*\(`)
)

// function is a C++ function; overloads with as many parameters count as one.
type function struct {
	name   string
	arity  int
	body   string
	method bool
}

// items counts what commas separate between the parenthesis that text begins with and its partner.
func items(text string) (n int) {
	depth, empty := 0, true
	for i, r := range text {
		switch r {
		case '(', '[', '{':
			depth++
		case ')', ']', '}':
			if depth--; depth == 0 {
				if !empty {
					n++
				}
				return n
			}
		case ',':
			if depth == 1 {
				n++
			}
		}
		if i > 0 && r != ' ' && r != '\n' {
			empty = false
		}
	}
	return n
}

// functionsOf splits C++ into its functions.
func functionsOf(source string) map[string]function {
	text := noise.ReplaceAllStringFunc(source, func(s string) string {
		if s[0] == '"' {
			return `""`
		}
		return " "
	})
	bodies := map[string]function{}
	type level struct {
		name   string // of a function
		arity  int
		isType bool
		start  int
	}
	var open []level
	from := 0 // where the text before the next brace begins
	inside := func() bool { return slices.ContainsFunc(open, func(l level) bool { return l.name != "" }) }
	for i, r := range text {
		switch r {
		case '{':
			l := level{start: i}
			before := text[from:i]
			switch l.isType = typeHead.MatchString(before); {
			case inside() || l.isType:
			default:
				if m := heading.FindStringSubmatch(before); m != nil && !keyword.MatchString(m[1]) {
					l.name, l.arity = firstName(before), items(before[strings.Index(before, "("):])
				}
			}
			open = append(open, l)
			from = i + 1
		case '}':
			if len(open) == 0 {
				continue
			}
			if l := open[len(open)-1]; l.name != "" {
				key := fmt.Sprint(l.name, "/", l.arity)
				f := bodies[key]
				f.name, f.arity = l.name, l.arity
				f.body += text[l.start:i]
				f.method = f.method || len(open) > 1 && open[len(open)-2].isType
				bodies[key] = f
			}
			open = open[:len(open)-1]
			from = i + 1
		case ';':
			from = i + 1
		}
	}
	return bodies
}

// firstName is the name before the first parenthesis of a heading.
func firstName(heading string) string {
	before, _, _ := strings.Cut(heading, "(")
	fields := regexp.MustCompile(`[~\w]+`).FindAllString(before, -1)
	if len(fields) == 0 {
		return ""
	}
	return fields[len(fields)-1]
}

// cycles are the names of functions that can reach themselves.
func cycles(functions map[string]function, ours map[string]bool) (recursive []string) {
	named := map[string][]string{}
	for key, f := range functions {
		named[f.name] = append(named[f.name], key)
	}
	calls := map[string][]string{}
	for key, f := range functions {
		for _, m := range callSite.FindAllStringSubmatchIndex(f.body, -1) {
			part := func(i int) string {
				if m[2*i] < 0 {
					return ""
				}
				return f.body[m[2*i]:m[2*i+1]]
			}
			// A class has no member of its own class by value.
			member := part(1) == "." && strings.HasSuffix(f.body[:m[0]], "_") && part(3) == f.name
			if q := part(2); q != "" && !ours[q] || member { // libtorch's
				continue
			}
			targets := named[part(3)]
			if exact := fmt.Sprint(part(3), "/", items(f.body[m[1]-1:])); slices.Contains(targets, exact) {
				targets = []string{exact} // else a default or a comma in a template: any of them
			}
			for _, to := range targets {
				// x.f() is libtorch's unless one of our classes has an f.
				if part(1) == "" || functions[to].method {
					calls[key] = append(calls[key], to)
				}
			}
		}
	}
	for key := range functions {
		seen := map[string]bool{}
		todo := slices.Clone(calls[key])
		for len(todo) > 0 {
			next := todo[len(todo)-1]
			todo = todo[:len(todo)-1]
			if next == key {
				recursive = append(recursive, functions[key].name)
				break
			}
			if !seen[next] {
				seen[next] = true
				todo = append(todo, calls[next]...)
			}
		}
	}
	slices.Sort(recursive)
	return slices.Compact(recursive)
}

// classes are the qualifiers of the shim's own names.
func classes(source string) map[string]bool {
	all := map[string]bool{"tg::": true}
	for _, m := range regexp.MustCompile(`\b(?:struct|class)\s+(\w+)[^;()]*\{`).FindAllStringSubmatch(source, -1) {
		all[m[1]+"::"] = true
	}
	return all
}

// A C stack that overflows ends the process, and no Go program can recover from that: no function of
// the shim calls itself on the way through what it was given.
func TestShimDoesNotRecur(t *testing.T) {
	var all strings.Builder
	for _, pattern := range []string{"shim/*.cpp", "shim/*/*.cpp", "shim/*.hpp"} {
		paths, err := filepath.Glob(pattern)
		require.NoError(t, err)
		for _, path := range paths {
			text, err := os.ReadFile(path)
			require.NoError(t, err)
			all.Write(text)
		}
	}
	bodies := functionsOf(all.String())
	for _, name := range []string{"decode", "encode", "call", "backward", "guarded", "borrow_all", "tensor_info", "read", "give_back"} {
		require.True(t, has(bodies, name), "the reader has missed %s", name)
	}
	recursive := cycles(bodies, classes(all.String()))
	for name := range mayRecur {
		require.Contains(t, recursive, name, "mayRecur has an entry too many")
	}
	for _, name := range recursive {
		require.NotEmpty(t, mayRecur[name], "%s calls itself: use a loop, or say in mayRecur what bounds it", name)
	}
}

func TestRecursionIsFound(t *testing.T) {
	const source = `
namespace tg { namespace {
int leaf(int x) { return x; }
void direct(const V& v) { for (auto& e : v) { direct(e); } }
void one(V v) { if (leaf(1)) { other(v); } }
struct S { void other(V v) { one(v); } };
void put(int x) { put(x, f(1, 2)); }
void put(int x, int y) { leaf(y); }
template <class T> T fine(T t) noexcept { return guarded([&] { return at::fine(leaf(2)); }); } // fine( in a comment
struct Mine : Engine { void on() { Engine::on(); leaf_.go(); } void go() { leaf_.go(); } };
struct List { List* next; void each() { next->each(); } static void all() { List::all(); } };
}}`
	bodies := functionsOf(source)
	require.Equal(t, []string{"all", "direct", "each", "one", "other"}, cycles(bodies, classes(source)))
	require.True(t, has(bodies, "fine"))
	require.False(t, has(bodies, "if"))
}

func has(functions map[string]function, name string) bool {
	for _, f := range functions {
		if f.name == name {
			return true
		}
	}
	return false
}
