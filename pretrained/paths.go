package pretrained

import (
	"errors"
	"fmt"
	"io/fs"
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

// readSmall reads a whole regular file of at most limit bytes. It never blocks on a pipe or device.
func readSmall(path string, limit int64) ([]byte, error) {
	st, err := statRegular(path)
	if err != nil {
		return nil, err
	}
	if st.Size() > limit {
		return nil, &Error{File: path, Class: ErrLimit, Expected: bytesText(limit) + " at most", Actual: bytesText(st.Size())}
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, &Error{File: path, Err: err}
	}
	return data, nil
}

// statRegular follows symbolic links (the hub's cache is made of them) and insists on a regular file.
func statRegular(path string) (fs.FileInfo, error) {
	st, err := os.Stat(path)
	if err != nil {
		err = pathCause(err)
		if !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, fs.ErrPermission) { // a loop of links, say
			return nil, &Error{File: path, Class: ErrNotRegular, Err: err}
		}
		return nil, &Error{File: path, Err: err}
	}
	if !st.Mode().IsRegular() {
		return nil, &Error{File: path, Class: ErrNotRegular, Expected: "a regular file", Actual: kindOf(st.Mode())}
	}
	return st, nil
}

func kindOf(m fs.FileMode) string {
	switch {
	case m.IsDir():
		return "a directory"
	case m&fs.ModeNamedPipe != 0:
		return "a named pipe"
	case m&fs.ModeSocket != 0:
		return "a socket"
	case m&fs.ModeDevice != 0:
		return "a device"
	}
	return "something else"
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}
