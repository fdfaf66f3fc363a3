package hub

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

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
