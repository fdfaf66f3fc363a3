package fileerr

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestFileNames(t *testing.T) {
	for _, name := range []string{"model-00001-of-00002.safetensors", "sub/dir/x.safetensors", "..a", "a..b", "...a", "ünï", "con_x", "COMA", "a b"} {
		require.NoError(t, CheckName(name), name)
	}
	for _, name := range []string{
		"", ".", "..", "a/..", "../a", "a/../b", "a/./b", "./a", "a//b", "a/", "/a", "//a/b", `\a`, `a\b`, `..\a`, `\\host\share`, "C:", "C:a", "C:/a",
		"a:stream", "file:///etc/passwd", "http://x/y", "a\x00b", "a\nb", "a\x7f", "\x1b[2J", "a.", "a ", "a. /b", "CON", "con.safetensors", "nul", "x/AUX.txt", "com1",
		"LPT9.safetensors", "COM¹", "conin$", "PRN .x", strings.Repeat("a", 1025), "a\u0085b", "a\xffb",
	} {
		require.ErrorIs(t, CheckName(name), ErrPath, "%q", name)
	}
}
