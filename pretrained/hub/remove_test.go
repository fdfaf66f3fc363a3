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

func TestRemove(t *testing.T) {
	c, first, second := twoRevisions(t)
	dir := filepath.Join(c.CacheDir(), "models--org--name")
	scan := func() *CacheInfo {
		info, err := Scan(c.CacheDir())
		require.NoError(t, err)
		return info
	}
	// The detached one: what it alone has goes.
	d := scan().Prune()
	require.Equal(t, 1, d.Revisions)
	require.Equal(t, 0, d.Repos)
	require.Equal(t, int64(5), d.Bytes)
	require.NoError(t, d.Do())
	require.NoDirExists(t, filepath.Join(dir, "snapshots", first))
	require.NoFileExists(t, filepath.Join(dir, "trees", first+".json"))
	info := scan()
	require.Len(t, info.Repos[0].Revisions, 1)
	require.Equal(t, int64(1014), info.Repos[0].Size)
	v, err := Verify(t.Context(), c.CacheDir(), Repo{ID: "org/name"})
	require.NoError(t, err)
	require.Equal(t, 3, v.Checked)
	require.Empty(t, v.Bad)
	blobs, err := os.ReadDir(filepath.Join(dir, "blobs"))
	require.NoError(t, err)
	require.Len(t, blobs, 3)

	// The last one: all of it goes.
	d = scan().Remove(map[string][]string{"models--org--name": {second}})
	require.Equal(t, 1, d.Repos)
	require.NoError(t, d.Do())
	require.NoDirExists(t, dir)
	require.NoDirExists(t, filepath.Join(c.CacheDir(), ".locks", "models--org--name"))
	require.Len(t, scan().Repos, 1)
}

// TestRemoveStaysInside: links that lead out of the cache are removed, what they lead to is not.
func TestRemoveStaysInside(t *testing.T) {
	c, first, _ := twoRevisions(t)
	outside := t.TempDir()
	precious := filepath.Join(outside, "precious")
	require.NoError(t, os.WriteFile(precious, []byte("x"), 0o644))
	dir := filepath.Join(c.CacheDir(), "models--org--name")
	require.NoError(t, os.Symlink(precious, filepath.Join(dir, "snapshots", first, "out")))
	require.NoError(t, os.Symlink(outside, filepath.Join(dir, "snapshots", first, "outdir")))
	require.NoError(t, os.Symlink("../../../../"+filepath.Base(outside), filepath.Join(dir, "snapshots", first, "up")))
	require.NoError(t, os.Symlink(outside, filepath.Join(dir, "refs", "evil")))
	require.NoError(t, os.Symlink(outside, filepath.Join(c.CacheDir(), "models--evil--link")))
	info, err := Scan(c.CacheDir())
	require.NoError(t, err)
	require.NoError(t, info.Prune().Do())
	require.NoDirExists(t, filepath.Join(dir, "snapshots", first))
	require.FileExists(t, precious)
	info, err = Scan(c.CacheDir())
	require.NoError(t, err)
	all := map[string][]string{}
	for _, r := range info.Repos {
		all[filepath.Base(r.Path)] = nil
	}
	require.NoError(t, info.Remove(all).Do())
	require.FileExists(t, precious)
	left, err := filepath.Glob(filepath.Join(c.CacheDir(), "models--*"))
	require.NoError(t, err)
	require.LessOrEqual(t, len(left), 1) // the link itself may stay: it is no repository
}

// TestPruneLeavesDownloadsAlone: a download that is going on keeps its parts.
func TestPruneLeavesDownloadsAlone(t *testing.T) {
	data := noise(21, 1<<20)
	s := repoWith(t, data)
	s.SetHook(slow(s, 1<<20))
	cache := t.TempDir()
	cmd := child(t, s, cache, false)
	require.NoError(t, cmd.Start())
	require.Eventually(t, func() bool {
		parts, _ := filepath.Glob(filepath.Join(cache, "*", "blobs", hubtest.Etag(weights, data)+"*"))
		return len(parts) > 1
	}, 10*time.Second, time.Millisecond)
	info, err := Scan(cache)
	require.NoError(t, err)
	require.NotEmpty(t, info.Incomplete)
	d := info.Prune()
	require.Zero(t, d.Files)
	require.NoError(t, d.Do())
	require.NoError(t, cmd.Wait())
	noLitter(t, cache)
}

// TestPruneLooksAgain: a download that began after the plan was made keeps its parts, too.
func TestPruneLooksAgain(t *testing.T) {
	c, _, _ := twoRevisions(t)
	etag := strings.Repeat("a", 64)
	part := filepath.Join(c.CacheDir(), "models--other", "blobs", etag+".0123.incomplete")
	require.NoError(t, os.WriteFile(part, make([]byte, 77), 0o644))
	info, err := Scan(c.CacheDir())
	require.NoError(t, err)
	d := info.Prune()
	require.Equal(t, 1, d.Files)
	unlock, reliable, err := lockFile(t.Context(), filepath.Join(c.CacheDir(), ".locks", "models--other", etag+".lock"), false)
	require.NoError(t, err)
	require.True(t, reliable)
	require.NoError(t, d.Do())
	require.FileExists(t, part)
	unlock()
	info, err = Scan(c.CacheDir())
	require.NoError(t, err)
	require.NoError(t, info.Prune().Do())
	require.NoFileExists(t, part)
}
