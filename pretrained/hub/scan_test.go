package hub

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/torchgo/torchgo/internal/hubtest"
)

// twoRevisions is a cache of a repository at two commits that share a file, and of another repository.
func twoRevisions(t *testing.T) (c *Client, first, second string) {
	s := hubtest.New(t)
	shared := noise(20, 1000)
	first = s.Commit("org/name", map[string][]byte{"w.bin": shared, "a.txt": []byte("first"), "d/b.txt": []byte("same")})
	c = client(t, s, Options{})
	_, err := resolve(t, c, Repo{ID: "org/name"}).Download(t.Context(), Filter{})
	require.NoError(t, err)
	second = s.Commit("org/name", map[string][]byte{"w.bin": shared, "a.txt": []byte("the second"), "d/b.txt": []byte("same")})
	_, err = resolve(t, c, Repo{ID: "org/name"}).Download(t.Context(), Filter{})
	require.NoError(t, err)
	s.SetRef("org/name", "v2", second)
	resolve(t, c, Repo{ID: "org/name", Revision: "v2"})
	s.Commit("other", map[string][]byte{"x": []byte("12345")})
	_, err = resolve(t, c, Repo{ID: "other"}).Download(t.Context(), Filter{})
	require.NoError(t, err)
	return c, first, second
}

func TestScan(t *testing.T) {
	c, first, second := twoRevisions(t)
	require.NoError(t, os.MkdirAll(filepath.Join(c.CacheDir(), "rubbish"), 0o755))
	part := filepath.Join(c.CacheDir(), "models--other", "blobs", strings.Repeat("a", 64)+".0123.incomplete")
	require.NoError(t, os.WriteFile(part, make([]byte, 77), 0o644))
	info, err := Scan(c.CacheDir())
	require.NoError(t, err)
	require.Len(t, info.Repos, 2)
	require.Len(t, info.Warnings, 1)
	require.Contains(t, info.Warnings[0], "rubbish")
	require.Equal(t, []Leftover{{part, 77}}, info.Incomplete)
	r := info.Repos[0]
	require.Equal(t, "org/name", r.ID)
	require.Equal(t, Model, r.Type)
	require.Equal(t, int64(1000+5+10+4), r.Size)
	require.Equal(t, []string{"main", "v2"}, r.Refs())
	require.Len(t, r.Revisions, 2)
	for _, v := range r.Revisions {
		require.Len(t, v.Files, 3)
		if v.Commit == first {
			require.Empty(t, v.Refs)
			require.Equal(t, int64(1009), v.Size)
		} else {
			require.Equal(t, second, v.Commit)
			require.Equal(t, []string{"main", "v2"}, v.Refs)
			require.Equal(t, int64(1014), v.Size)
		}
		require.WithinDuration(t, time.Now(), v.Modified, time.Minute)
	}
	require.Equal(t, r.Size+5, info.Size)
	_, err = Scan(filepath.Join(c.CacheDir(), "none"))
	require.ErrorIs(t, err, os.ErrNotExist)
}
