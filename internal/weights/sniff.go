package weights

import (
	"bytes"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/torchgo/torchgo/internal/fileerr"
)

// Sniff tells what a file is that begins with head and isn't what is expected: ErrBadMagic, or nil if it knows no better.
func Sniff(head []byte, expected string) error {
	wrong := func(actual, remedy string) error {
		return &Error{Class: fileerr.ErrBadMagic, Expected: expected, Actual: actual, Remedy: remedy}
	}
	if bytes.HasPrefix(head, []byte("version https://git-lfs")) {
		actual := "a git-lfs pointer"
		if _, rest, ok := bytes.Cut(head, []byte("\nsize ")); ok {
			if digits, _, _ := bytes.Cut(rest, []byte("\n")); len(digits) > 0 && len(digits) < 20 && strings.Trim(string(digits), "0123456789") == "" {
				actual += fmt.Sprintf(" to %s bytes", digits)
			}
		}
		return wrong(actual, "run git lfs pull in its folder, or download the file itself")
	}
	for _, m := range []struct{ magic, what string }{
		{"PK\x03\x04", "a zip archive (a PyTorch .bin file?)"}, {"GGUF", "a GGUF file"}, {"\x89HDF", "an HDF5 file"},
		{"\x1f\x8b", "a gzip file"}, {"\x80\x02", "a pickle (a PyTorch .bin file?)"}, {"\x28\xb5\x2f\xfd", "a zstd file"},
	} {
		if bytes.HasPrefix(head, []byte(m.magic)) {
			return wrong(m.what, "")
		}
	}
	text := bytes.TrimSpace(head)
	if len(text) > 0 && text[0] == '<' {
		return wrong(fmt.Sprintf("HTML or XML: %.30q", text), "the download was answered with a page: log in or check the address")
	}
	if len(text) > 0 && text[0] == '{' {
		return &Error{Class: fileerr.ErrBadHeader, Expected: "the length of the header", Actual: fmt.Sprintf("JSON text: %.30q", text)}
	}
	for i, r := range string(head) {
		if i >= 8 {
			return wrong(fmt.Sprintf("text: %.30q", text), "")
		}
		if r == utf8.RuneError || !unicode.IsPrint(r) && !unicode.IsSpace(r) {
			return nil
		}
	}
	return wrong(fmt.Sprintf("text: %.30q", text), "")
}
