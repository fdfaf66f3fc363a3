package hub

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// FuzzAnswers: whatever a server or a file of the cache says, reading it neither panics nor gives a name
// that leads out of the cache, a hash that is none, or parts that can't be.
func FuzzAnswers(f *testing.F) {
	hash := strings.Repeat("a", 40)
	for _, seed := range []string{
		`{"sha": "` + hash + `", "siblings": [{"rfilename": "a"}]}`,
		`[{"type": "file", "path": "a/b", "oid": "` + hash + `", "size": 3, "lfs": {"oid": "` + strings.Repeat("b", 64) + `", "size": 9, "pointerSize": 1}, "xetHash": null}]`,
		`[{"type": "directory", "path": "../a"}]`,
		`{"format_version": 1, "files": {"a": {"size": 1, "blob_id": "` + hash + `", "lfs_sha256": null}}}`,
		`{"etag": "e", "size": 10, "host": "h", "validator": "\"v\"", "done": [[0, 5], [7, 10]]}`,
		`{"done": [[5, 1]], "size": 9}`, `[`, `{"a": 1e999}`, "\x00", `{"size": 18446744073709551616}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		if commit, err := parseCommit(data); err == nil {
			require.True(t, IsCommit(commit))
		}
		for _, read := range []func([]byte) ([]Entry, error){parseTree, parseTreeFile} {
			list, err := read(data)
			if err != nil {
				continue
			}
			for _, e := range list {
				require.True(t, filepath.IsLocal(e.Name), "%q", e.Name)
				require.False(t, strings.ContainsAny(e.Name, "\\\x00"))
				require.True(t, isHash(e.etag()))
				require.GreaterOrEqual(t, e.Size, int64(0))
			}
		}
		if s, err := parseState(data); err == nil {
			at := int64(0)
			for _, d := range s.Done {
				require.LessOrEqual(t, at, d[0])
				require.LessOrEqual(t, d[0], d[1])
				require.LessOrEqual(t, d[1], s.Size)
				at = d[1]
			}
		}
		text := string(data)
		if CheckName(text) == nil {
			require.True(t, filepath.IsLocal(text))
		}
		if CheckID(text) == nil {
			require.True(t, filepath.IsLocal(Repo{ID: text, Type: Model}.folder()))
			got, err := parseFolder(Repo{ID: text, Type: Model}.folder())
			require.NoError(t, err)
			require.Equal(t, text, got.ID)
		}
		pattern, name, _ := strings.Cut(text, "\n")
		Filter{Allow: []string{pattern}}.Match(name)
		parseRange(text)
	})
}
