package tokenizer

import (
	"bufio"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/require"

	"github.com/torchgo/torchgo/internal/testdata"
)

// codePoint is what the reference does with one code point.
type codePoint struct {
	flags      string
	lower, nfd string
}

func codePoints(t *testing.T) map[rune]codePoint {
	t.Helper()
	f, err := os.Open(filepath.Join(testdata.Open(t, "tokenizer"), "codepoints.txt"))
	require.NoError(t, err)
	defer f.Close()
	text := func(s string) string {
		var b strings.Builder
		for part := range strings.SplitSeq(s, "+") {
			if part != "" {
				c, err := strconv.ParseUint(part, 16, 32)
				require.NoError(t, err)
				b.WriteRune(rune(c))
			}
		}
		return b.String()
	}
	out := map[rune]codePoint{}
	sc := bufio.NewScanner(f)
	for sc.Scan() {
		if strings.HasPrefix(sc.Text(), "#") {
			continue
		}
		p := strings.Split(sc.Text(), "\t")
		require.Len(t, p, 4)
		out[[]rune(text(p[0]))[0]] = codePoint{p[1], text(p[2]), text(p[3])}
	}
	require.NoError(t, sc.Err())
	require.Greater(t, len(out), 100_000)
	return out
}

func normalized(n normalizer, s string) string {
	var t text
	t.setString(s, 0)
	n.normalize(&t, &scratch{})
	return string(t.bytes)
}

// Every code point goes through each step of the pipeline as it does in the reference.
func TestEveryCodePoint(t *testing.T) {
	ref := codePoints(t)
	off := false
	step := func(set func(*bertNormalizer)) normalizer {
		n := &bertNormalizer{stripAccents: &off}
		set(n)
		return n.build()
	}
	on := true
	clean := step(func(n *bertNormalizer) { n.cleanText = true })
	cjk := step(func(n *bertNormalizer) { n.handleChinese = true })
	strip := step(func(n *bertNormalizer) { n.stripAccents = &on })
	lower := step(func(n *bertNormalizer) { n.lowercase = true })
	u := loadUnicode()
	for c := rune(0); c <= utf8.MaxRune; c++ {
		if c >= 0xD800 && c < 0xE000 {
			continue
		}
		s, want := string(c), ref[c]
		has := func(letter string) bool { return strings.Contains(want.flags, letter) }
		middle := func(in string) string { return "a" + in + "b" }

		expect := s
		switch {
		case has("d"):
			expect = ""
		case has("s"):
			expect = " "
		}
		if got := normalized(clean, middle(s)); got != middle(expect) {
			require.Equal(t, middle(expect), got, "clean %x", c)
		}
		expect = s
		if has("c") {
			expect = " " + s + " "
		}
		if got := normalized(cjk, middle(s)); got != middle(expect) {
			require.Equal(t, middle(expect), got, "cjk %x", c)
		}
		expect = s
		if want.lower != "" {
			expect = want.lower
		}
		if got := normalized(lower, s); got != expect {
			require.Equal(t, expect, got, "lower %x", c)
		}
		expect = s
		if want.nfd != "" {
			expect = want.nfd
		}
		if got := normalized(nfdNormalizer{u}, s); got != expect {
			require.Equal(t, expect, got, "nfd %x", c)
		}
		kept := ""
		for _, r := range expect {
			if !strings.Contains(ref[r].flags, "m") {
				kept += string(r)
			}
		}
		if got := normalized(strip, s); got != kept {
			require.Equal(t, kept, got, "strip %x", c)
		}
		words := []string{middle(s)}
		switch {
		case has("p"):
			words = []string{"a", s, "b"}
		case has("w"):
			words = []string{"a", "b"}
		}
		var in text
		in.setString(middle(s), 0)
		got := bertPreTokenizer{u}.split(nil, in)
		if len(got) != len(words) {
			require.Len(t, got, len(words), "pre-tokenizer %x", c)
		}
		for i := range got {
			if string(got[i].bytes) != words[i] {
				require.Equal(t, words[i], string(got[i].bytes), "pre-tokenizer %x", c)
			}
		}
		if f := u.of(c); has("W") != (f&flagWord != 0) || has("S") != (f&flagRegexSpace != 0) {
			require.Failf(t, "word or space", "%x: %q %b", c, want.flags, f)
		}
	}
}
