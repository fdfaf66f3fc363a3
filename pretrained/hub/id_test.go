package hub

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/torchgo/torchgo/internal/hubtest"
)

func TestIDs(t *testing.T) {
	long := strings.Repeat("a", 96)
	for _, id := range []string{"foo", "foo/bar", "123", "Foo-BAR_foo.bar123", "_a", "a_", long, long + "/" + long} {
		require.NoError(t, CheckID(id), id)
	}
	for _, id := range []string{"", "/", "a/", "/a", "datasets/foo/bar", ".repo", "repo.", "-a", "a-", "foo--bar", "foo.git", "a/foo.git", "other..repo", "a b", "café",
		"a\x00", "a\\b", "../x", "./x", "a/..", "C:x", long + "a", "a/" + long + "a", "a\n"} {
		require.ErrorIs(t, CheckID(id), ErrBadID, "%q", id)
	}
}

func TestNamesStayInside(t *testing.T) {
	for _, name := range []string{"a", "a/b", "a..b", "..a", "a b", "ä/ö", "con.txt", ".gitattributes", "a/.b"} {
		require.NoError(t, CheckName(name), name)
	}
	bad := []string{"", "..", "../a", "a/../b", "a/..", "/a", `\a`, `a\b`, `..\a`, `\\host\share\a`, "C:/a", "C:a", "a/C:b", "//host/a", "a\x00b", "./a", "a//b", "a/"}
	for _, name := range bad {
		require.ErrorIs(t, CheckName(name), ErrPath, "%q", name)
	}
	// The same from a server's list: nothing is written.
	for _, name := range bad {
		if strings.ContainsRune(name, 0) {
			continue
		}
		s := hubtest.New(t)
		s.Commit("org/name", map[string][]byte{name: []byte("evil"), "ok": nil})
		c := client(t, s, Options{})
		_, err := resolve(t, c, Repo{ID: "org/name"}).Download(t.Context(), Filter{})
		require.ErrorIs(t, err, ErrPath, "%q", name)
		require.Len(t, treeOf(t, c.CacheDir()), 2) // the ref and CACHEDIR.TAG
	}
	for _, rev := range []string{"../x", "/x", "a b", "a:b", "a?b", "a..b/../c", strings.Repeat("a", 300), "x.lock"} {
		c := client(t, nil, Options{Offline: true})
		_, err := c.Resolve(t.Context(), Repo{ID: "org/name", Revision: rev})
		require.ErrorIs(t, err, ErrRevisionNotFound, "%q", rev)
	}
}
