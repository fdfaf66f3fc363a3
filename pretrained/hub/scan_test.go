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

func TestVerify(t *testing.T) {
	c, _, second := twoRevisions(t)
	snap := filepath.Join(c.CacheDir(), "models--org--name", "snapshots", second)
	v, err := Verify(t.Context(), c.CacheDir(), Repo{ID: "org/name"})
	require.NoError(t, err)
	require.Equal(t, &Verification{Repo: "org/name", Type: Model, Commit: second, Checked: 3, Bad: []BadFile{}, Missing: []string{}, Unknown: []string{}}, v)

	blob, err := filepath.EvalSymlinks(filepath.Join(snap, "w.bin"))
	require.NoError(t, err)
	data, err := os.ReadFile(blob)
	require.NoError(t, err)
	data[500] ^= 1
	require.NoError(t, os.WriteFile(blob, data, 0o644))
	require.NoError(t, os.Remove(filepath.Join(snap, "d", "b.txt")))
	require.NoError(t, os.WriteFile(filepath.Join(snap, "mine.txt"), nil, 0o644))
	require.NoError(t, os.Symlink("../../blobs/none", filepath.Join(snap, "gone.txt")))
	v, err = Verify(t.Context(), c.CacheDir(), Repo{ID: "org/name", Revision: second})
	require.NoError(t, err)
	require.Equal(t, 2, v.Checked)
	require.Len(t, v.Bad, 2)
	require.Equal(t, "gone.txt", v.Bad[0].Name)
	require.Equal(t, "w.bin", v.Bad[1].Name)
	require.Equal(t, filepath.Base(blob), v.Bad[1].Expected)
	require.Equal(t, []string{"d/b.txt"}, v.Missing)
	require.Equal(t, []string{"mine.txt"}, v.Unknown)
	_, err = Verify(t.Context(), c.CacheDir(), Repo{ID: "org/none"})
	require.ErrorIs(t, err, ErrOffline)
}
