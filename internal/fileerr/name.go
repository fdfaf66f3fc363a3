package fileerr

import (
	"fmt"
	"strings"
	"unicode"
)

// CheckName refuses names that lead out of the folder, or mean something else than a file in it, on
// any system: an index is safe or not wherever it is read.
func CheckName(name string) error {
	bad := func(why string) error {
		return &Error{Class: ErrPath, Detail: why, Expected: "a name inside the folder of the index", Actual: fmt.Sprintf("%.80q", name)}
	}
	switch {
	case name == "":
		return bad("empty file name")
	case len(name) > 1024:
		return bad("file name is too long")
	case strings.ContainsFunc(name, func(r rune) bool { return r == unicode.ReplacementChar || unicode.IsControl(r) }):
		return bad("control character in a file name")
	case strings.ContainsAny(name, `\:`): // Windows: separators, drives, streams; and URLs
		return bad("backslash or colon in a file name")
	case strings.HasPrefix(name, "/"):
		return bad("absolute file name")
	}
	for part := range strings.SplitSeq(name, "/") {
		switch stem, _, _ := strings.Cut(part, "."); {
		case part == "" || part == "." || part == "..":
			return bad("file name is not plain")
		case strings.HasSuffix(part, ".") || strings.HasSuffix(part, " "):
			return bad("file name ends with a dot or space") // Windows drops them
		case isDeviceName(stem):
			return bad("device name of Windows")
		}
	}
	return nil
}

func isDeviceName(stem string) bool {
	stem = strings.ToUpper(strings.TrimRight(stem, " "))
	switch stem {
	case "CON", "PRN", "AUX", "NUL", "CONIN$", "CONOUT$":
		return true
	}
	if rest, ok := strings.CutPrefix(stem, "COM"); ok {
		stem = rest
	} else if stem, ok = strings.CutPrefix(stem, "LPT"); !ok {
		return false
	}
	return len(stem) == 1 && stem[0] >= '0' && stem[0] <= '9' || stem == "¹" || stem == "²" || stem == "³"
}
