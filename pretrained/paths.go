package pretrained

import (
	"fmt"
	"os"
	"strings"
)

// checkRelative refuses file names that could leave the model's directory, by the rules of POSIX and of
// Windows on every system.
func checkRelative(name string) error {
	bad := func(why string) error {
		return &Error{Class: ErrPath, Detail: fmt.Sprintf("%q %s", shorten(name), why)}
	}
	switch {
	case name == "" || name == ".":
		return bad("is no file name")
	case strings.ContainsRune(name, 0):
		return bad("has a NUL byte")
	case strings.Contains(name, "://"):
		return bad("is a URL")
	case strings.HasPrefix(name, "/") || strings.HasPrefix(name, `\`) || len(name) > 1 && name[1] == ':':
		return bad("is absolute")
	case len(name) > 4096:
		return bad("is too long")
	}
	for _, part := range strings.FieldsFunc(name, func(r rune) bool { return r == '/' || r == '\\' }) {
		if part == ".." {
			return bad("contains ..")
		}
	}
	if strings.Contains(name, `\`) {
		return bad("contains a backslash")
	}
	return nil
}

func shorten(s string) string {
	if len(s) > 100 {
		s = s[:97] + "..."
	}
	return strings.ToValidUTF8(s, "?")
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}
