package hub

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"flag"
	"fmt"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"sort"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/torchgo/torchgo/internal/hubtest"
	"github.com/torchgo/torchgo/internal/xlog"
)

// theToken is a token that tests look for in everything.
const theToken = "hf_SecretSecretSecretSecret"

// TestMain makes sure that no test reaches a real hub, that nothing that is logged has a secret, and that no
// goroutine stays behind.
func TestMain(m *testing.M) {
	if os.Getenv("HUB_TEST_CHILD") != "" {
		childDownload()
		return
	}
	for _, name := range []string{"HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE",
		"HF_TOKEN_PATH", "HF_HUB_DISABLE_IMPLICIT_TOKEN", "HF_HUB_DISABLE_SYMLINKS", "HF_HUB_ETAG_TIMEOUT", "HF_HUB_DOWNLOAD_TIMEOUT", "HTTP_PROXY", "http_proxy"} {
		_ = os.Unsetenv(name)
	}
	dir, err := os.MkdirTemp("", "hub-test-")
	if err != nil {
		panic(err)
	}
	_ = os.Setenv("HF_HOME", dir)
	_ = os.Setenv("HF_ENDPOINT", "http://127.0.0.1:1")
	xlog.SetHandler(slog.NewTextHandler(&logged, &slog.HandlerOptions{Level: xlog.LevelTrace}))
	before := runtime.NumGoroutine()
	code := m.Run()
	_ = os.RemoveAll(dir)
	if text := logged.String(); strings.Contains(text, theToken) || strings.Contains(text, "SIGNED-SECRET") {
		fmt.Println("FAIL: a secret was logged")
		code = 1
	}
	for end := time.Now().Add(2 * time.Second); runtime.NumGoroutine() > before && time.Now().Before(end); {
		time.Sleep(10 * time.Millisecond)
	}
	if n := runtime.NumGoroutine(); n > before && flag.Lookup("test.fuzz").Value.String() == "" {
		buf := make([]byte, 1<<20)
		fmt.Printf("FAIL: %d goroutines stayed behind\n%s\n", n-before, buf[:runtime.Stack(buf, true)])
		code = 1
	}
	os.Exit(code)
}

var logged lockedBuffer

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// client is one with a cache of the test's own that doesn't wait for long.
func client(t testing.TB, s *hubtest.Server, o Options) *Client {
	t.Helper()
	if o.Endpoint == "" && s != nil {
		o.Endpoint = s.URL
	}
	if o.CacheDir == "" {
		o.CacheDir = t.TempDir()
	}
	if o.unit == 0 {
		o.unit = time.Millisecond
	}
	if o.idle == 0 {
		o.idle = 2 * time.Second
	}
	if o.patience == 0 {
		o.patience = 2 * time.Second
	}
	c, err := New(o)
	require.NoError(t, err)
	t.Cleanup(c.Close)
	return c
}

func noise(seed uint64, n int) []byte {
	src := rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8)})
	data := make([]byte, n)
	_, _ = src.Read(data)
	return data
}

// fileMap is a small model.
func fileMap() map[string][]byte {
	return map[string][]byte{
		"config.json":       []byte(`{"model_type": "bert"}`),
		"model.safetensors": noise(1, 300_000),
		"sub/tokenizer.txt": []byte("a\nb\n"),
		"empty.txt":         {},
		"README.md":         []byte("# Model\n"),
		"copy.json":         []byte(`{"model_type": "bert"}`), // of config.json
	}
}

func resolve(t testing.TB, c *Client, r Repo) *Snapshot {
	t.Helper()
	s, err := c.Resolve(context.Background(), r)
	require.NoError(t, err)
	return s
}

// treeOf is a cache as lines: paths, link targets, hashes of contents. Locks and times are left out.
func treeOf(t testing.TB, dir string) []string {
	t.Helper()
	var lines []string
	require.NoError(t, filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		require.NoError(t, err)
		rel, err := filepath.Rel(dir, p)
		require.NoError(t, err)
		rel = filepath.ToSlash(rel)
		switch {
		case d.IsDir() && rel == ".locks":
			return fs.SkipDir
		case d.IsDir():
		case d.Type()&fs.ModeSymlink != 0:
			target, err := os.Readlink(p)
			require.NoError(t, err)
			lines = append(lines, rel+" -> "+target)
		default:
			data, err := os.ReadFile(p)
			require.NoError(t, err)
			sum := sha256.Sum256(data)
			lines = append(lines, rel+" "+hex.EncodeToString(sum[:8]))
		}
		return nil
	}))
	sort.Strings(lines)
	return lines
}

// noLitter is an assertion that a cache has no temporary file, and blobs that are what their names say.
func noLitter(t testing.TB, dir string) {
	t.Helper()
	_ = filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		require.NoError(t, err)
		require.NotContains(t, p, ".tmp")
		require.NotContains(t, p, ".incomplete")
		if filepath.Base(filepath.Dir(p)) == "blobs" && d.Type().IsRegular() {
			f, err := os.Open(p)
			require.NoError(t, err)
			defer f.Close()
			st, err := f.Stat()
			require.NoError(t, err)
			got, err := contentHash(f, st.Size(), d.Name())
			require.NoError(t, err)
			require.Equal(t, d.Name(), got)
		}
		return nil
	})
}

func TestDownloadLayout(t *testing.T) {
	s := hubtest.New(t)
	s.PageSize = 2
	files := fileMap()
	commit := s.Commit("org/name", files)
	var last Progress
	c := client(t, s, Options{Progress: func(p Progress) { last = p }})
	snap := resolve(t, c, Repo{ID: "org/name"})
	require.Equal(t, commit, snap.Commit)
	dir, err := snap.Download(t.Context(), Filter{})
	require.NoError(t, err)
	require.Equal(t, filepath.Join(c.CacheDir(), "models--org--name", "snapshots", commit), dir)
	for name, want := range files {
		got, err := os.ReadFile(filepath.Join(dir, name))
		require.NoError(t, err)
		require.Equal(t, want, got, name)
		target, err := os.Readlink(filepath.Join(dir, name))
		require.NoError(t, err)
		require.Equal(t, strings.Repeat("../", 2+strings.Count(name, "/"))+"blobs/"+hubtest.Etag(name, want), target)
	}
	ref, err := os.ReadFile(filepath.Join(c.CacheDir(), "models--org--name", "refs", "main"))
	require.NoError(t, err)
	require.Equal(t, commit, string(ref))
	noLitter(t, c.CacheDir())
	require.Equal(t, last.AllTotal, last.AllDone)
	require.Greater(t, last.AllTotal, int64(300_000))

	// Again: one request for the branch, none for a commit.
	s.Forget()
	again := resolve(t, c, Repo{ID: "org/name"})
	_, err = again.Download(t.Context(), Filter{})
	require.NoError(t, err)
	require.Len(t, s.Requests(), 1)
	s.Forget()
	_, err = resolve(t, c, Repo{ID: "org/name", Revision: commit}).Download(t.Context(), Filter{})
	require.NoError(t, err)
	require.Empty(t, s.Requests())
}

func TestRevisionIsPinned(t *testing.T) {
	s := hubtest.New(t)
	first := s.Commit("org/name", map[string][]byte{"a.txt": []byte("first a"), "b.txt": []byte("first b"), "w.bin": noise(3, 1000)})
	c := client(t, s, Options{})
	snap := resolve(t, c, Repo{ID: "org/name"})
	_, err := snap.File(t.Context(), "a.txt")
	require.NoError(t, err)
	second := s.Commit("org/name", map[string][]byte{"a.txt": []byte("second"), "b.txt": []byte("second"), "w.bin": noise(4, 1000)})
	require.NotEqual(t, first, second)
	p, err := snap.File(t.Context(), "b.txt")
	require.NoError(t, err)
	data, err := os.ReadFile(p)
	require.NoError(t, err)
	require.Equal(t, "first b", string(data))
	for _, r := range s.Requests() {
		if strings.Contains(r.Path, "/resolve/") {
			require.Contains(t, r.Path, first)
		}
	}

	// Branches with a slash, tags, pull requests.
	for _, ref := range []string{"feature/x", "v1.0", "refs/pr/7"} {
		s.SetRef("org/name", ref, first)
		snap := resolve(t, c, Repo{ID: "org/name", Revision: ref})
		require.Equal(t, first, snap.Commit)
		data, err := os.ReadFile(filepath.Join(c.CacheDir(), "models--org--name", "refs", ref))
		require.NoError(t, err)
		require.Equal(t, first, string(data))
	}
}

func TestOffline(t *testing.T) {
	s := hubtest.New(t)
	s.Commit("org/name", fileMap())
	c := client(t, s, Options{})
	snap := resolve(t, c, Repo{ID: "org/name"})
	_, err := snap.File(t.Context(), "config.json")
	require.NoError(t, err)
	_, err = snap.File(t.Context(), "nothing.json")
	require.ErrorIs(t, err, ErrEntryNotFound)
	require.FileExists(t, filepath.Join(c.CacheDir(), "models--org--name", ".no_exist", snap.Commit, "nothing.json"))
	s.Forget()
	_, err = snap.File(t.Context(), "nothing.json")
	require.ErrorIs(t, err, ErrEntryNotFound)
	require.Empty(t, s.Requests())

	check := func(off *Client) {
		snap := resolve(t, off, Repo{ID: "org/name"})
		p, err := snap.File(t.Context(), "config.json")
		require.NoError(t, err)
		require.FileExists(t, p)
		_, err = snap.File(t.Context(), "model.safetensors")
		require.ErrorIs(t, err, ErrOffline)
		require.ErrorContains(t, err, "model.safetensors")
		require.ErrorContains(t, err, off.CacheDir())
		_, err = snap.File(t.Context(), "nothing.json")
		require.ErrorIs(t, err, ErrEntryNotFound)
		_, err = off.Resolve(t.Context(), Repo{ID: "org/other"})
		require.ErrorIs(t, err, ErrOffline)
		_, err = off.Resolve(t.Context(), Repo{ID: "org/name", Revision: "v9"})
		require.ErrorIs(t, err, ErrOffline)
		require.ErrorContains(t, err, "v9")
		_, err = snap.Download(t.Context(), Filter{})
		require.NoError(t, err) // no list of files is there: what is, is taken
	}
	check(client(t, s, Options{CacheDir: c.CacheDir(), Offline: true}))
	for _, name := range []string{"HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"} {
		t.Setenv(name, "yes")
		check(client(t, s, Options{CacheDir: c.CacheDir()}))
		t.Setenv(name, "")
	}
	require.Empty(t, s.Requests())

	_, err = New(Options{CacheDir: c.CacheDir(), Offline: true, ForceDownload: true})
	require.ErrorIs(t, err, ErrArgument)

	// With a list of files, half a snapshot is refused.
	_, err = snap.List(t.Context())
	require.NoError(t, err)
	off := client(t, s, Options{CacheDir: c.CacheDir(), Offline: true})
	_, err = resolve(t, off, Repo{ID: "org/name"}).Download(t.Context(), Filter{})
	require.ErrorIs(t, err, ErrOffline)
	require.ErrorContains(t, err, "README.md, copy.json, empty.txt and 2 more")
	_, err = resolve(t, off, Repo{ID: "org/name"}).Download(t.Context(), Filter{Allow: []string{"c*g.json"}})
	require.NoError(t, err)

	// A hub that is down is as good as none.
	gone := client(t, nil, Options{CacheDir: c.CacheDir(), Endpoint: "http://127.0.0.1:1"})
	p, err := resolve(t, gone, Repo{ID: "org/name"}).File(t.Context(), "config.json")
	require.NoError(t, err)
	require.FileExists(t, p)
	_, err = gone.Resolve(t.Context(), Repo{ID: "org/other"})
	require.ErrorIs(t, err, ErrUnavailable)
}

func TestCacheDir(t *testing.T) {
	home := t.TempDir()
	t.Setenv("HOME", home)
	t.Setenv("HF_HOME", "")
	t.Setenv("XDG_CACHE_HOME", "")
	t.Setenv("MY_DIR", "/mine")
	for _, step := range []struct{ name, value, want string }{
		{"", "", filepath.Join(home, ".cache/huggingface/hub")},
		{"XDG_CACHE_HOME", "/xdg", "/xdg/huggingface/hub"},
		{"HF_HOME", "~/hf", filepath.Join(home, "hf/hub")},
		{"HF_HOME", "$MY_DIR/$NONE", "/mine/$NONE/hub"},
		{"HUGGINGFACE_HUB_CACHE", "/old", "/old"},
		{"HF_HUB_CACHE", "/new", "/new"},
	} {
		if step.name != "" {
			t.Setenv(step.name, step.value)
		}
		got, err := CacheDir()
		require.NoError(t, err)
		require.Equal(t, step.want, got)
		c := client(t, nil, Options{CacheDir: got})
		require.Equal(t, step.want, c.CacheDir())
	}
	t.Chdir(home)
	require.Equal(t, filepath.Join(home, "here"), client(t, nil, Options{CacheDir: "here"}).CacheDir())
	require.Equal(t, filepath.Join(home, "there"), client(t, nil, Options{CacheDir: "~/there"}).CacheDir())
	for _, name := range []string{"HF_HUB_ETAG_TIMEOUT", "HF_HUB_DOWNLOAD_TIMEOUT"} {
		t.Setenv(name, "soon")
		_, err := New(Options{})
		require.ErrorIs(t, err, ErrArgument)
		require.ErrorContains(t, err, name)
		t.Setenv(name, "0")
		c, err := New(Options{})
		require.NoError(t, err)
		require.Equal(t, 10*time.Second, c.opts.idle)
		t.Setenv(name, "3")
		c, err = New(Options{})
		require.NoError(t, err)
		require.True(t, c.opts.idle == 3*time.Second || c.opts.patience == 3*time.Second)
		t.Setenv(name, "")
	}
}

func TestForceDownload(t *testing.T) {
	s := hubtest.New(t)
	files := fileMap()
	s.Commit("org/name", files)
	c := client(t, s, Options{})
	p, err := resolve(t, c, Repo{ID: "org/name"}).File(t.Context(), "model.safetensors")
	require.NoError(t, err)
	blob, err := filepath.EvalSymlinks(p)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(blob, []byte("damaged"), 0o644))
	force := client(t, s, Options{CacheDir: c.CacheDir(), ForceDownload: true})
	snap := resolve(t, force, Repo{ID: "org/name"})
	s.Forget()
	for range 2 { // the second time it has been
		_, err = snap.File(t.Context(), "model.safetensors")
		require.NoError(t, err)
	}
	require.Len(t, s.Requests(), 2) // HEAD, and GET from the storage
	got, err := os.ReadFile(p)
	require.NoError(t, err)
	require.Equal(t, files["model.safetensors"], got)
	noLitter(t, c.CacheDir())
}

func TestNoLinks(t *testing.T) {
	s := hubtest.New(t)
	files := fileMap()
	first := s.Commit("org/name", files)
	t.Setenv("HF_HUB_DISABLE_SYMLINKS", "1")
	c := client(t, s, Options{})
	dir, err := resolve(t, c, Repo{ID: "org/name"}).Download(t.Context(), Filter{})
	require.NoError(t, err)
	for name, want := range files {
		st, err := os.Lstat(filepath.Join(dir, name))
		require.NoError(t, err)
		require.True(t, st.Mode().IsRegular())
		got, err := os.ReadFile(filepath.Join(dir, name))
		require.NoError(t, err)
		require.Equal(t, want, got)
	}
	s.Forget()
	_, err = resolve(t, c, Repo{ID: "org/name", Revision: first}).Download(t.Context(), Filter{})
	require.NoError(t, err)
	require.Empty(t, s.Requests())
}

func TestLocalDir(t *testing.T) {
	s := hubtest.New(t)
	files := fileMap()
	commit := s.Commit("org/name", files)
	c := client(t, s, Options{})
	dir := t.TempDir()
	snap := resolve(t, c, Repo{ID: "org/name"})
	require.NoError(t, snap.DownloadTo(t.Context(), dir, Filter{Ignore: []string{"*.md"}}))
	require.NoFileExists(t, filepath.Join(dir, "README.md"))
	for name, want := range files {
		if name == "README.md" {
			continue
		}
		got, err := os.ReadFile(filepath.Join(dir, name))
		require.NoError(t, err)
		require.Equal(t, want, got)
		meta, err := os.ReadFile(filepath.Join(dir, ".cache/huggingface/download", name+".metadata"))
		require.NoError(t, err)
		require.True(t, strings.HasPrefix(string(meta), commit+"\n"+hubtest.Etag(name, want)+"\n"), string(meta))
	}
	s.Forget()
	require.NoError(t, snap.DownloadTo(t.Context(), dir, Filter{Ignore: []string{"*.md"}}))
	require.Empty(t, s.Requests())
	// A changed file comes back; what the cache has is copied.
	require.NoError(t, os.WriteFile(filepath.Join(dir, "config.json"), []byte("mine"), 0o644))
	_, err := snap.File(t.Context(), "config.json")
	require.NoError(t, err)
	s.Forget()
	require.NoError(t, snap.DownloadTo(t.Context(), dir, Filter{}))
	got, err := os.ReadFile(filepath.Join(dir, "config.json"))
	require.NoError(t, err)
	require.Equal(t, files["config.json"], got)
	require.Len(t, s.Requests(), 1) // README.md
}

// What was noted about a file holds until the file is modified; then its content counts, as in Python
// (huggingface_hub's read_download_metadata). A second is too short to tell.
func TestLocalDirModified(t *testing.T) {
	s := hubtest.New(t)
	files := fileMap()
	s.Commit("org/name", files)
	c := client(t, s, Options{})
	dir := t.TempDir()
	snap := resolve(t, c, Repo{ID: "org/name"})
	require.NoError(t, snap.DownloadTo(t.Context(), dir, Filter{}))
	path := filepath.Join(dir, "config.json")
	other := bytes.Repeat([]byte("x"), len(files["config.json"]))
	for _, c := range []struct {
		name    string
		content []byte
		after   time.Duration
		want    []byte
	}{
		{"other content of the same size", other, 5 * time.Second, files["config.json"]},
		{"the same content", files["config.json"], 5 * time.Second, files["config.json"]},
		{"too short to tell", other, 500 * time.Millisecond, other},
	} {
		t.Run(c.name, func(t *testing.T) {
			require.NoError(t, os.WriteFile(path, c.content, 0o644))
			require.NoError(t, os.Chtimes(path, time.Time{}, time.Now().Add(c.after)))
			require.NoError(t, snap.DownloadTo(t.Context(), dir, Filter{}))
			got, err := os.ReadFile(path)
			require.NoError(t, err)
			require.Equal(t, c.want, got)
		})
	}
}
