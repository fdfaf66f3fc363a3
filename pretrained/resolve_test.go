package pretrained_test

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/torchgo/torchgo/pretrained"
)

// A folder that changes while it is looked at is looked at again; one that does so each time is an error in the end,
// not a model without its weights.
func TestACheckpointThatChanges(t *testing.T) {
	dir := piecesCheckpoint(t, 10)
	looks, changes, now := 0, 0, time.Unix(0, 0)
	flatConfigMade = func() {
		if looks++; looks <= changes {
			now = now.Add(time.Second)
			require.NoError(t, os.Chtimes(filepath.Join(dir, "config.json"), now, now))
		}
	}
	defer func() { flatConfigMade = func() {} }()
	for _, changes = range []int{0, 1, 9} {
		looks = 0
		m, r := load(t, dir, pretrained.Options{Strict: true})
		require.Equal(t, changes+1, looks)
		require.Positive(t, r.BytesRead)
		isPieces(t, m)
	}
	looks, changes = 0, 1000
	_, _, err := pretrained.Load(ctx, dir, pretrained.Options{})
	require.ErrorIs(t, err, pretrained.ErrConflict)
	require.ErrorContains(t, err, dir)
}

// AllowDefaultConfig is for folders without a config, not for a path that was given and is wrong.
func TestAConfigPathThatIsNotThere(t *testing.T) {
	path := filepath.Join(t.TempDir(), "other.json")
	_, _, err := pretrained.Load(ctx, loaderCase(t, "single"), pretrained.Options{Class: "BertForMaskedLM", ConfigPath: path, AllowDefaultConfig: true})
	require.ErrorIs(t, err, pretrained.ErrBadConfig)
	require.ErrorIs(t, err, os.ErrNotExist)
	require.ErrorContains(t, err, path)
}
