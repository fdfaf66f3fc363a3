package house

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"go/ast"
	"go/importer"
	"go/parser"
	"go/token"
	"go/types"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// typed is a package with its syntax and types.
type typed struct {
	path  string
	files []*ast.File
	info  *types.Info
}

// typecheck reads packages as they are built here, with cgo, without their tests.
func typecheck(t *testing.T, fset *token.FileSet, patterns ...string) (all []typed) {
	cmd := exec.Command("go", append([]string{"list", "-export", "-deps", "-json=ImportPath,Dir,Export,GoFiles,DepOnly"}, patterns...)...)
	cmd.Dir = root(t)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	require.NoError(t, err, stderr.String())
	type listing struct {
		ImportPath, Dir, Export string
		GoFiles                 []string
		DepOnly                 bool
	}
	exports := map[string]string{}
	var wanted []listing
	for dec := json.NewDecoder(bytes.NewReader(out)); ; {
		var p listing
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else {
			require.NoError(t, err)
		}
		exports[p.ImportPath] = p.Export
		if !p.DepOnly {
			wanted = append(wanted, p)
		}
	}
	imports := importer.ForCompiler(fset, "gc", func(path string) (io.ReadCloser, error) { return os.Open(exports[path]) })
	for _, p := range wanted {
		var files []*ast.File
		for _, name := range p.GoFiles {
			file, err := parser.ParseFile(fset, filepath.Join(p.Dir, name), nil, parser.ParseComments|parser.SkipObjectResolution)
			require.NoError(t, err)
			files = append(files, file)
		}
		info := &types.Info{Selections: map[*ast.SelectorExpr]*types.Selection{}, Types: map[ast.Expr]types.TypeAndValue{}}
		config := types.Config{Importer: imports, IgnoreFuncBodies: false}
		_, err := config.Check(p.ImportPath, fset, files, info)
		require.NoError(t, err, p.ImportPath)
		all = append(all, typed{p.ImportPath, files, info})
	}
	return all
}

// rootOf is the variable that an expression like a.b[i].c begins with.
func rootOf(e ast.Expr) string {
	switch e := e.(type) {
	case *ast.Ident:
		return e.Name
	case *ast.SelectorExpr:
		return rootOf(e.X)
	case *ast.IndexExpr:
		return rootOf(e.X)
	case *ast.StarExpr:
		return rootOf(e.X)
	case *ast.ParenExpr:
		return rootOf(e.X)
	}
	return ""
}

// immortal are handles that no cleanup frees: an operator stays, a guard ends where it began.
var immortal = map[string]bool{"Op": true, "Guard": true}

// handleFields finds where a field that holds a handle of package cgo is read and not kept alive:
// the collector may free what it stands for as soon as the variable is not used any more, even while
// C works on it.
func handleFields(fset *token.FileSet, p typed) (reads int, faults []string) {
	for _, file := range p.files {
		excused := map[int]bool{} // lines with a comment that says why
		for _, group := range file.Comments {
			for _, c := range group.List {
				if strings.Contains(c.Text, "alive:") {
					excused[fset.Position(c.Pos()).Line] = true
				}
			}
		}
		for _, decl := range file.Decls {
			fn, ok := decl.(*ast.FuncDecl)
			if !ok || fn.Body == nil {
				continue
			}
			skip := map[ast.Expr]bool{}    // written or compared only
			kept := map[string]token.Pos{} // variable → the last place that keeps it
			keep := func(name string, at token.Pos) { kept[name] = max(kept[name], at) }
			ast.Inspect(fn.Body, func(n ast.Node) bool {
				switch n := n.(type) {
				case *ast.AssignStmt:
					for _, e := range n.Lhs {
						skip[e] = true
					}
				case *ast.BinaryExpr:
					if n.Op == token.EQL || n.Op == token.NEQ {
						skip[n.X], skip[n.Y] = true, true
					}
				case *ast.DeferStmt:
					if name := keeps(n.Call); name != "" {
						keep(name, fn.End())
					}
				case *ast.CallExpr:
					if name := keeps(n); name != "" {
						keep(name, n.Pos())
					}
				}
				return true
			})
			ast.Inspect(fn.Body, func(n ast.Node) bool {
				sel, ok := n.(*ast.SelectorExpr)
				if !ok || skip[sel] {
					return true
				}
				s := p.info.Selections[sel]
				if s == nil || s.Kind() != types.FieldVal {
					return true
				}
				named, ok := s.Type().(*types.Named)
				if !ok || named.Obj().Pkg() == nil || named.Obj().Pkg().Path() != module+"/cgo" || immortal[named.Obj().Name()] {
					return true
				}
				if basic, ok := named.Underlying().(*types.Basic); !ok || basic.Kind() != types.Uintptr {
					return true
				}
				reads++
				at := fset.Position(sel.Pos())
				if name := rootOf(sel.X); (name == "" || kept[name] <= sel.Pos()) && !excused[at.Line] {
					faults = append(faults, fmt.Sprintf("%s:%d: %s: %s is read, but nothing after it keeps %s alive: use it between use and unuse, call runtime.KeepAlive, or say why not in a comment `// alive: …`",
						filepath.Base(at.Filename), at.Line, fn.Name.Name, types.ExprString(sel), types.ExprString(sel.X)))
				}
				return true
			})
		}
	}
	return reads, faults
}

// keeps is the variable that a call keeps alive until then.
func keeps(call *ast.CallExpr) string {
	sel, ok := call.Fun.(*ast.SelectorExpr)
	switch {
	case !ok:
		return ""
	case sel.Sel.Name == "KeepAlive" && rootOf(sel.X) == "runtime" && len(call.Args) == 1:
		return rootOf(call.Args[0])
	case sel.Sel.Name == "unuse":
		return rootOf(sel.X)
	}
	return ""
}

func TestHandlesOutliveTheirCalls(t *testing.T) {
	if out, err := exec.Command("go", "env", "CGO_ENABLED").Output(); err != nil || strings.TrimSpace(string(out)) != "1" {
		t.Skip("without cgo there are no handles")
	}
	fset := token.NewFileSet()
	reads := 0
	for _, p := range typecheck(t, fset, "./torch/...") {
		n, faults := handleFields(fset, p)
		reads += n
		require.Empty(t, faults, p.path)
	}
	require.Greater(t, reads, 10)
}

// The check finds what it is there for.
func TestForgottenHandleIsFound(t *testing.T) {
	fset := token.NewFileSet()
	const source = `package p
import ("runtime"; "` + module + `/cgo")
type T struct { handle cgo.Tensor; op cgo.Op }
func (t *T) unuse() {}
func use(cgo.Tensor) {}
func bad(t *T) { runtime.KeepAlive(t); use(t.handle) }
func bad2(a, b *T) { defer a.unuse(); use(b.handle) }
func good(t *T) { use(t.handle); runtime.KeepAlive(t) }
func good2(t *T) { defer t.unuse(); func() { use(t.handle) }() }
func good3(t *T) bool { t.handle = 0; _ = t.op; return t.handle == 0 }
func good4(t *T) {
	use(t.handle) // alive: for a reason
}
`
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "p.go"), []byte(source), 0o600))
	file, err := parser.ParseFile(fset, filepath.Join(dir, "p.go"), nil, parser.ParseComments)
	require.NoError(t, err)
	handles := types.NewPackage(module+"/cgo", "cgo")
	for _, name := range []string{"Tensor", "Op"} {
		obj := types.NewTypeName(token.NoPos, handles, name, nil)
		types.NewNamed(obj, types.Typ[types.Uintptr], nil)
		handles.Scope().Insert(obj)
	}
	handles.MarkComplete()
	// From its export data: a test that was built with -trimpath does not know where the sources are.
	std := importer.ForCompiler(fset, "gc", func(path string) (io.ReadCloser, error) {
		out, err := exec.Command("go", "list", "-export", "-f", "{{.Export}}", path).Output()
		if err != nil {
			return nil, err
		}
		return os.Open(strings.TrimSpace(string(out)))
	})
	info := &types.Info{Selections: map[*ast.SelectorExpr]*types.Selection{}}
	config := types.Config{Importer: importFunc(func(path string) (*types.Package, error) {
		if path == handles.Path() {
			return handles, nil
		}
		return std.Import(path)
	})}
	_, err = config.Check("p", fset, []*ast.File{file}, info)
	require.NoError(t, err)
	reads, faults := handleFields(fset, typed{"p", []*ast.File{file}, info})
	require.Equal(t, 5, reads)
	require.Len(t, faults, 2)
	require.Contains(t, faults[0], "bad: t.handle")
	require.Contains(t, faults[1], "bad2: b.handle")
}

type importFunc func(string) (*types.Package, error)

func (f importFunc) Import(path string) (*types.Package, error) { return f(path) }
