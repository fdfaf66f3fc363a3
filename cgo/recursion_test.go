package cgo

import (
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
	"enumeration_of": "from an optional type or a list in an operator's schema to what is in it",
	"read":           "from an optional parameter's form to the parameter's: templates, at compile time",
	"thread_state":   "the function of the table and the one that it reads",
	"symbolic":       "as enumeration_of",
	"none":           "an overload that looks ahead from where it is",
	"run":            "an overload that names the indices of the parameters",
}

var (
	noise    = regexp.MustCompile(`(?s)/\*.*?\*/|//[^\n]*|"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*'|(?m)^#[^\n]*(?:\\\n[^\n]*)*`)
	keyword  = regexp.MustCompile(`^(if|for|while|switch|return|catch|sizeof|new|delete|throw|else|do|case|alignof|decltype|static_cast|reinterpret_cast|dynamic_cast|const_cast)$`)
	typeHead = regexp.MustCompile(`(?s)^\s*(?:template\s*<[^{}]*?>\s*)?(?:struct|class|enum|union)\b`)
	heading  = regexp.MustCompile(`(?s)([~\w]+)\s*\([^;{}]*$`)
	callSite = regexp.MustCompile(`(\.|->)?((?:\w+::)*)(~?\w+)\s*(?:<[\w\s:,&*.]*>)?\s*\(`)
)

// function is a function's body, those of its overloads included.
type function struct {
	body   string
	method bool
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
					l.name = firstName(before)
				}
			}
			open = append(open, l)
			from = i + 1
		case '}':
			if len(open) == 0 {
				continue
			}
			if l := open[len(open)-1]; l.name != "" {
				f := bodies[l.name]
				f.body += text[l.start:i]
				f.method = f.method || len(open) > 1 && open[len(open)-2].isType
				bodies[l.name] = f
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

// cycles are the functions that can reach themselves.
func cycles(bodies map[string]function) (recursive []string) {
	calls := map[string][]string{}
	for name, f := range bodies {
		for _, m := range callSite.FindAllStringSubmatch(f.body, -1) {
			// x.f() is libtorch's unless one of our classes has an f.
			if g, ours := bodies[m[3]]; ours && !foreign.MatchString(m[2]) && (m[1] == "" || g.method) {
				calls[name] = append(calls[name], m[3])
			}
		}
	}
	for name := range bodies {
		seen := map[string]bool{}
		todo := slices.Clone(calls[name])
		for len(todo) > 0 {
			next := todo[len(todo)-1]
			todo = todo[:len(todo)-1]
			if next == name {
				recursive = append(recursive, name)
				break
			}
			if !seen[next] {
				seen[next] = true
				todo = append(todo, calls[next]...)
			}
		}
	}
	slices.Sort(recursive)
	return recursive
}

var foreign = regexp.MustCompile(`^(at|c10|torch|std)::`)

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
		require.Contains(t, bodies, name, "the reader has missed a function")
	}
	recursive := cycles(bodies)
	for name := range mayRecur {
		require.Contains(t, recursive, name, "mayRecur has an entry too many")
	}
	for _, name := range recursive {
		require.NotEmpty(t, mayRecur[name], "%s calls itself: use a loop, or say in mayRecur what bounds it", name)
	}
}

func TestRecursionIsFound(t *testing.T) {
	bodies := functionsOf(`
namespace tg { namespace {
int leaf(int x) { return x; }
void direct(const V& v) { for (auto& e : v) { direct(e); } }
void one(V v) { if (leaf(1)) { other(v); } }
struct S { void other(V v) { one(v); } };
template <class T> T fine(T t) noexcept { return guarded([&] { return at::fine(leaf(2)); }); } // fine( in a comment
}}`)
	require.Equal(t, []string{"direct", "one", "other"}, cycles(bodies))
	require.Contains(t, bodies, "fine")
	require.NotContains(t, bodies, "if")
}
