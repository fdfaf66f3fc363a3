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

// A file that is broken has no config beside it either, as a folder of GGUF files: the error is about what helps.
func TestWithoutAConfig(t *testing.T) {
	dir := t.TempDir()
	put := func(name, content string) string {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600))
		return filepath.Join(dir, name)
	}
	const pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 12345\n"
	for _, name := range []string{"x.gguf", "x.bin", "x.pt", "x.safetensors"} {
		for content, want := range map[string]string{pointer: "run git lfs pull", "": "again"} {
			for _, err := range []error{
				func() error { _, _, err := pretrained.Load(ctx, put(name, content), pretrained.Options{}); return err }(),
				func() error { _, err := pretrained.Plan(ctx, put(name, content), pretrained.Options{}); return err }(),
			} {
				require.ErrorContains(t, err, name, "%s: %q", name, content)
				require.ErrorContains(t, err, want, "%s: %q", name, content)
			}
		}
	}
	_, _, err := pretrained.Load(ctx, dir, pretrained.Options{})
	require.ErrorIs(t, err, pretrained.ErrMissingShard)
	require.ErrorContains(t, err, "(gguf-file): x.gguf")
	dir = t.TempDir()
	for _, path := range []string{dir, put("x.safetensors", "\x02\x00\x00\x00\x00\x00\x00\x00{}")} {
		_, _, err = pretrained.Load(ctx, path, pretrained.Options{})
		require.ErrorIs(t, err, pretrained.ErrBadConfig)
		require.ErrorContains(t, err, "config.json")
	}
}
