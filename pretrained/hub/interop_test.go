package hub

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/torchgo/torchgo/internal/hubtest"
	"github.com/torchgo/torchgo/internal/testdata"
)

func readJSON(t testing.TB, into any, parts ...string) {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(parts...))
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal(data, into))
}

// refHub serves the repositories of the reference data, and gives where the data are.
func refHub(t *testing.T) (*hubtest.Server, string) {
	dir := testdata.Copy(t, "hub")
	var links map[string]string
	readJSON(t, &links, dir, "links.json")
	for name, target := range links {
		p := filepath.Join(dir, name)
		require.NoError(t, os.MkdirAll(filepath.Dir(p), 0o755))
		require.NoError(t, os.Symlink(target, p))
	}
	var repos map[string]struct {
		Commits map[string]map[string]string
		Refs    map[string]string
	}
	readJSON(t, &repos, dir, "repos.json")
	s := hubtest.New(t)
	for id, r := range repos {
		for commit, names := range r.Commits {
			files := map[string][]byte{}
			for name, file := range names {
				data, err := os.ReadFile(filepath.Join(dir, "files", file))
				require.NoError(t, err)
				files[name] = data
			}
			s.CommitAs(id, commit, files)
		}
		for ref, commit := range r.Refs {
			s.SetRef(id, ref, commit)
		}
	}
	return s, dir
}

// fillReference downloads what tools/hubref has Python judge.
func fillReference(t *testing.T, c *Client) {
	ctx := t.Context()
	download := func(r Repo, which Filter) {
		_, err := resolve(t, c, r).Download(ctx, which)
		require.NoError(t, err)
	}
	download(Repo{ID: "org/tiny-bert"}, Filter{})
	_, err := resolve(t, c, Repo{ID: "org/tiny-bert"}).File(ctx, "pytorch_model.bin")
	require.ErrorIs(t, err, ErrEntryNotFound)
	download(Repo{ID: "org/tiny-bert", Revision: "v1"}, Filter{Allow: []string{"*.json"}})
	_, err = resolve(t, c, Repo{ID: "org/tiny-bert", Revision: "refs/pr/1"}).File(ctx, "README.md")
	require.NoError(t, err)
	download(Repo{ID: "single"}, Filter{})
	download(Repo{ID: "org/data.set_1", Type: Dataset}, Filter{})
}

// TestPythonAcceptsOurCache: huggingface_hub and transformers judged a cache that this package filled, link
// by link and byte by byte the one that is filled here. tools/hubref runs this test with HUB_REF_URL and
// HUB_REF_CACHE to have it filled, and records the verdict.
func TestPythonAcceptsOurCache(t *testing.T) {
	if url := os.Getenv("HUB_REF_URL"); url != "" {
		fillReference(t, client(t, nil, Options{Endpoint: url, CacheDir: os.Getenv("HUB_REF_CACHE")}))
		return
	}
	s, dir := refHub(t)
	var verdict struct {
		Checks map[string]bool
		Digest string
		Tree   []string
	}
	readJSON(t, &verdict, dir, "verdict.json")
	require.Greater(t, len(verdict.Checks), 15)
	for name, ok := range verdict.Checks {
		require.True(t, ok, name)
	}
	c := client(t, s, Options{})
	fillReference(t, c)
	lines := treeOf(t, c.CacheDir())
	require.Equal(t, verdict.Tree, lines)
	sum := sha256.Sum256([]byte(strings.Join(lines, "\n")))
	require.Equal(t, verdict.Digest, hex.EncodeToString(sum[:]))
}

// TestReadsPythonsCache: a cache that huggingface_hub filled needs no request for what is in it.
func TestReadsPythonsCache(t *testing.T) {
	s, dir := refHub(t)
	cache := filepath.Join(dir, "python-cache")
	before := treeOf(t, cache)
	same := func(snapshot string, r Repo, names ...string) {
		id := r.ID
		if r.Type != "" {
			id = string(r.Type) + "s/" + id
		}
		files := s.Files(id, filepath.Base(snapshot))
		require.NotEmpty(t, files)
		for name, want := range files {
			if len(names) > 0 && !strings.Contains(strings.Join(names, " "), name) {
				continue
			}
			got, err := os.ReadFile(filepath.Join(snapshot, name))
			require.NoError(t, err)
			require.Equal(t, want, got)
		}
	}
	check := func(c *Client) {
		for _, r := range []Repo{{ID: "org/tiny-bert"}, {ID: "single"}, {ID: "org/data.set_1", Type: Dataset}} {
			d, err := resolve(t, c, r).Download(t.Context(), Filter{})
			require.NoError(t, err)
			same(d, r)
		}
		d, err := resolve(t, c, Repo{ID: "org/tiny-bert", Revision: "v1"}).Download(t.Context(), Filter{Allow: []string{"*.json"}})
		require.NoError(t, err)
		same(d, Repo{ID: "org/tiny-bert"}, "config.json")
		_, err = resolve(t, c, Repo{ID: "org/tiny-bert", Revision: "refs/pr/1"}).File(t.Context(), "README.md")
		require.NoError(t, err)
		_, err = resolve(t, c, Repo{ID: "org/tiny-bert"}).File(t.Context(), "pytorch_model.bin")
		require.ErrorIs(t, err, ErrEntryNotFound)
	}
	off := client(t, s, Options{CacheDir: cache, Offline: true})
	check(off)
	_, err := resolve(t, off, Repo{ID: "org/tiny-bert", Revision: "v1"}).Download(t.Context(), Filter{})
	require.ErrorIs(t, err, ErrOffline)
	require.ErrorContains(t, err, "model.safetensors")
	require.Empty(t, s.Requests())
	check(client(t, s, Options{CacheDir: cache}))
	for _, r := range s.Requests() {
		require.Contains(t, r.Path, "/revision/")
	}
	require.Equal(t, before, treeOf(t, cache), "reading changed it")

	// And a folder.
	local := filepath.Join(dir, "python-local")
	s.Forget()
	snap := resolve(t, client(t, s, Options{}), Repo{ID: "org/tiny-bert"})
	require.NoError(t, snap.DownloadTo(t.Context(), local, Filter{}))
	for _, r := range s.Requests() {
		require.NotContains(t, r.Path, "/resolve/")
	}
	require.NoError(t, fs.WalkDir(os.DirFS(local), ".", func(p string, d fs.DirEntry, err error) error {
		require.NotContains(t, p, ".incomplete")
		return err
	}))
}

// TestRulesArePythons: ids, file names and patterns as huggingface_hub takes them. What it takes as a name
// and is refused here can't be in a git repository, or would have another meaning on Windows.
func TestRulesArePythons(t *testing.T) {
	var rules struct {
		IDs      map[string]bool
		Names    map[string]bool
		Texts    []string
		Patterns map[string]string
	}
	readJSON(t, &rules, testdata.Open(t, "hub"), "rules.json")
	require.Greater(t, len(rules.IDs), 500)
	for id, fine := range rules.IDs {
		require.Equal(t, fine, CheckID(id) == nil, "%q", id)
	}
	require.Greater(t, len(rules.Names), 300)
	stricter := 0
	for name, fine := range rules.Names {
		switch got := CheckName(name) == nil; {
		case got == fine:
		case got:
			require.Fail(t, "Python refuses it", "%q", name)
		default:
			stricter++
			odd := strings.Contains(name, `\`) || name == "." || strings.HasPrefix(name, "./") || strings.HasSuffix(name, "/.")
			require.True(t, odd, "%q", name)
		}
	}
	t.Logf("%d names that only Python takes", stricter)
	require.Greater(t, len(rules.Patterns), 300)
	for p, row := range rules.Patterns {
		for i, text := range rules.Texts {
			require.Equal(t, row[i] == '1', Filter{Allow: []string{p}}.Match(text), "%q %q", p, text)
		}
	}
}
