package house

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// What would copy the process, with the threads of libtorch missing in the copy, or leave a descriptor
// to programs that are started.
var forks = map[string]*regexp.Regexp{
	".go": regexp.MustCompile(`\bSYS_(FORK|VFORK|CLONE3?)\b|\bsyscall\.ForkExec\(`),
	".c":  regexp.MustCompile(`\b(v?fork|clone|clone3|daemon|popen|system|open|openat|fopen|socket|accept|pipe|dup2?|eventfd|memfd_create|signal|sigaction|abort|exit)\s*\(`),
}

// TestNothingForks: programs are started by os/exec, which forks and execs in one step, and only Go opens
// files (all of them close-on-exec). The shim installs no signal handlers and ends no process.
func TestNothingForks(t *testing.T) {
	forks[".cpp"], forks[".h"], forks[".hpp"] = forks[".c"], forks[".c"], forks[".c"]
	comment := regexp.MustCompile(`(?s)/\*.*?\*/|//[^\n]*`)
	files := 0
	for _, name := range tracked(t) {
		bad := forks[filepath.Ext(name)]
		if bad == nil || strings.HasPrefix(name, "cgo/internal/") || strings.HasSuffix(name, "_test.go") {
			continue
		}
		text, err := os.ReadFile(filepath.Join(root(t), name))
		require.NoError(t, err)
		files++
		for i, line := range strings.Split(comment.ReplaceAllString(string(text), ""), "\n") {
			for _, m := range bad.FindAllStringIndex(line, -1) {
				if before := line[:m[0]]; strings.HasSuffix(before, ".") || strings.HasSuffix(before, "->") || strings.HasSuffix(before, "void ") {
					continue // a method of something else
				}
				require.Empty(t, line, "%s, line %d without comments", name, i+1)
			}
		}
	}
	require.Greater(t, files, 50)
}
