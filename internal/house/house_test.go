// Package house holds the tests that keep the repository as docs/rationale.md describes it.
package house

import (
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

const module = "github.com/torchgo/torchgo"

// A room is a folder with rules. The longest prefix decides which room a package is in.
var rooms = []struct {
	folder string
	leaf   bool     // needs no libtorch, may be imported from every room
	may    []string // rooms it may import, besides leaves and itself
}{
	{folder: "internal", leaf: true},
	{folder: "third_party", leaf: true},
	{folder: "cgo", may: []string{"internal"}},
	{folder: "torch", may: []string{"cgo", "internal"}},
	{folder: "quant", may: []string{"torch"}},
	{folder: "distributed", may: []string{"torch"}},
	{folder: "distributed/launch", leaf: true},
	{folder: "pretrained", may: []string{"cgo", "torch", "quant", "distributed"}},
	{folder: "pretrained/hub", leaf: true},
	{folder: "pretrained/safetensors", leaf: true},
	{folder: "pretrained/checkpoint", leaf: true, may: []string{"pretrained/safetensors", "pretrained/pickle", "pretrained/gguf"}},
	{folder: "pretrained/pickle", leaf: true},
	{folder: "pretrained/gguf", leaf: true},
	{folder: "pretrained/tokenizer", leaf: true},
	{folder: "pretrained/chattemplate", leaf: true},
	{folder: "cmd", may: []string{"cgo", "torch", "quant", "distributed", "pretrained", "third_party"}},
	{folder: "examples", may: []string{"torch", "quant", "distributed", "pretrained"}},
	{folder: "bench", may: []string{"torch", "quant", "distributed", "pretrained"}},
	{folder: "tools", may: []string{"cgo", "torch", "pretrained", "third_party"}},
}

func roomOf(path string) int {
	best, length := -1, -1
	for i, r := range rooms {
		if (path == r.folder || strings.HasPrefix(path, r.folder+"/")) && len(r.folder) > length {
			best, length = i, len(r.folder)
		}
	}
	return best
}

func allowed(from, to int) bool {
	switch {
	case from == to || rooms[to].folder == "internal":
		return true
	case rooms[from].leaf:
		return slices.Contains(rooms[from].may, rooms[to].folder)
	case rooms[to].leaf && rooms[to].folder != "third_party":
		return true
	}
	for _, name := range rooms[from].may {
		if name == rooms[to].folder {
			return true
		}
	}
	return false
}

type listed struct {
	ImportPath                         string
	Imports, TestImports, XTestImports []string
	GoFiles, CgoFiles                  []string
}

func root(t *testing.T) string {
	dir, err := os.Getwd()
	require.NoError(t, err)
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir
		}
		require.NotEqual(t, filepath.Dir(dir), dir, "no go.mod above the test")
		dir = filepath.Dir(dir)
	}
}

func packages(t *testing.T) []listed {
	cmd := exec.Command("go", "list", "-json=ImportPath,Imports,TestImports,XTestImports,GoFiles,CgoFiles", "./...")
	cmd.Dir = root(t)
	out, err := cmd.Output()
	require.NoError(t, err)
	var all []listed
	for dec := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p listed
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			return all
		} else {
			require.NoError(t, err)
		}
		all = append(all, p)
	}
}

func TestImportsFollowTheRooms(t *testing.T) {
	all := packages(t)
	require.Greater(t, len(all), 10)
	for _, p := range all {
		path := strings.TrimPrefix(strings.TrimPrefix(p.ImportPath, module), "/")
		from := roomOf(path)
		require.GreaterOrEqual(t, from, 0, "%s is in no room: add it to the table", path)
		if len(p.CgoFiles) > 0 {
			require.Equal(t, "cgo", rooms[from].folder, "%s says import \"C\"; only cgo/ may", path)
		}
		imports := append(append(append([]string{}, p.Imports...), p.TestImports...), p.XTestImports...)
		for _, imp := range imports {
			if imp == "github.com/golang/glog" {
				require.True(t, strings.HasPrefix(path, "internal/xlog") || rooms[from].folder == "cmd", "%s imports glog; it belongs behind internal/xlog", path)
			}
			if !strings.HasPrefix(imp, module+"/") {
				continue
			}
			target := strings.TrimPrefix(imp, module+"/")
			to := roomOf(target)
			require.GreaterOrEqual(t, to, 0, "%s is in no room", target)
			require.True(t, allowed(from, to), "%s (%s) imports %s (%s)", path, rooms[from].folder, target, rooms[to].folder)
		}
	}
}

// Leaves work where there is no C compiler.
func TestLeavesBuildWithoutCgo(t *testing.T) {
	var leaves []string
	for _, p := range packages(t) {
		path := strings.TrimPrefix(p.ImportPath, module+"/")
		if r := roomOf(path); r >= 0 && rooms[r].leaf && len(p.GoFiles) > 0 {
			leaves = append(leaves, p.ImportPath)
		}
	}
	require.NotEmpty(t, leaves)
	cmd := exec.Command("go", append([]string{"build"}, leaves...)...)
	cmd.Dir, cmd.Env = root(t), append(os.Environ(), "CGO_ENABLED=0")
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, string(out))
}

func tracked(t *testing.T) []string {
	cmd := exec.Command("git", "ls-files", "-z")
	cmd.Dir = root(t)
	out, err := cmd.Output()
	if err != nil {
		t.Skip("not a git checkout: the files that belong to the repository are unknown")
	}
	return strings.Split(strings.TrimRight(string(out), "\x00"), "\x00")
}

func TestRepositoryStaysSmall(t *testing.T) {
	var total int64
	for _, name := range tracked(t) {
		info, err := os.Lstat(filepath.Join(root(t), name))
		if err != nil {
			continue
		}
		total += info.Size()
		require.Less(t, info.Size(), int64(8<<20), name)
	}
	require.Less(t, total, int64(40<<20), "the tree has to travel to a GPU machine")
}

var generated = regexp.MustCompile(`(^|/)zz_[^/]*$`)

func TestGeneratedFilesSaySo(t *testing.T) {
	for _, name := range tracked(t) {
		if !generated.MatchString(name) {
			continue
		}
		data, err := os.ReadFile(filepath.Join(root(t), name))
		require.NoError(t, err)
		line, _, _ := strings.Cut(string(data), "\n")
		require.Regexp(t, `Code generated .* DO NOT EDIT\.`, line, name)
	}
}

var (
	compatFolder = regexp.MustCompile("`((?:bench|cgo|cmd|internal|pretrained|tools|torch|examples)[a-z0-9/]*)`")
	compatTest   = regexp.MustCompile(`\bTest[A-Z]\w+`)
)

// TestCompatNamesRealTests keeps docs/compat.md and docs/reliability.md honest: each test that they name
// is there.
func TestCompatNamesRealTests(t *testing.T) {
	require.Greater(t, namedTests(t, "docs/compat.md"), 50)
	require.Greater(t, namedTests(t, "docs/reliability.md"), 20)
}

// namedTests counts the tests that a page's tables name after their folders, as `torch` TestAdd.
func namedTests(t *testing.T, page string) (named int) {
	data, err := os.ReadFile(filepath.Join(root(t), page))
	require.NoError(t, err)
	for row := range strings.Lines(string(data)) {
		if !strings.HasPrefix(row, "|") {
			continue
		}
		places := compatFolder.FindAllStringSubmatchIndex(row, -1)
		for i, place := range places {
			end := len(row)
			if i+1 < len(places) {
				end = places[i+1][0]
			}
			folder := row[place[2]:place[3]]
			files, err := filepath.Glob(filepath.Join(root(t), folder, "*_test.go"))
			require.NoError(t, err)
			var source strings.Builder
			for _, f := range files {
				text, err := os.ReadFile(f)
				require.NoError(t, err)
				source.Write(text)
			}
			for _, name := range compatTest.FindAllString(row[place[1]:end], -1) {
				named++
				require.Contains(t, source.String(), "func "+name+"(", "%s names %s in %s", page, name, folder)
			}
		}
	}
	return named
}
