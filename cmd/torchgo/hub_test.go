package main

import (
	"context"
	"encoding/json"
	"io/fs"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/torchgo/torchgo/cmd/torchgo/internal/cli"
	"github.com/torchgo/torchgo/internal/hubtest"
)

// fakeHub is a hub that the environment names, with an empty cache.
func fakeHub(t *testing.T) (s *hubtest.Server, cache string) {
	s = hubtest.New(t)
	home := t.TempDir()
	t.Setenv("HF_ENDPOINT", s.URL)
	t.Setenv("HF_HOME", home)
	for _, name := range []string{"HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"} {
		t.Setenv(name, "")
	}
	return s, filepath.Join(home, "hub")
}

func filesOf(t *testing.T, dir string) map[string][]byte {
	files := map[string][]byte{}
	require.NoError(t, fs.WalkDir(os.DirFS(dir), ".", func(p string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			files[p], err = os.ReadFile(filepath.Join(dir, p))
		}
		return err
	}))
	return files
}

// fails runs a command line that has to fail with one line that says text.
func fails(t *testing.T, want int, text string, args ...string) {
	t.Helper()
	status, stdout, stderr := torchgo(t, "", args...)
	require.Equal(t, want, status, stderr)
	require.Empty(t, stdout)
	require.Equal(t, 1, strings.Count(stderr, "\n"), stderr)
	require.True(t, strings.HasPrefix(stderr, "torchgo: "), stderr)
	require.Contains(t, stderr, text)
}

func TestDownload(t *testing.T) {
	s, cache := fakeHub(t)
	files := map[string][]byte{"config.json": []byte("{}"), "model.safetensors": []byte("weights"), "model.bin": []byte("old weights"), "sub/a.txt": []byte("a"), "sub/[b].txt": []byte("b")}
	commit := s.Commit("org/name", files)
	old := s.Commit("org/name", map[string][]byte{"config.json": []byte("{}")})
	s.SetRef("org/name", "main", commit)
	s.SetRef("org/name", "v0", old)
	dir := filepath.Join(cache, "models--org--name", "snapshots", commit)
	names := func() []string {
		found, err := filepath.Glob(filepath.Join(dir, "*"))
		require.NoError(t, err)
		for i := range found {
			found[i] = filepath.Base(found[i])
		}
		return found
	}
	require.Equal(t, dir+"/config.json\n", succeeds(t, "", "download", "org/name", "config.json"))
	require.Equal(t, []string{"config.json"}, names())
	require.Equal(t, dir+"\n", succeeds(t, "", "download", "org/name", "--include", "*.safetensors,*.txt", "--exclude", "sub/a*"))
	require.Equal(t, []string{"config.json", "model.safetensors", "sub"}, names())
	require.NoFileExists(t, filepath.Join(dir, "sub", "a.txt"))
	require.Equal(t, dir+"\n", succeeds(t, "", "download", "org/name", "sub/", "config.json"))
	require.FileExists(t, filepath.Join(dir, "sub", "a.txt"))
	require.NoFileExists(t, filepath.Join(dir, "model.bin"))

	out := succeeds(t, "", "download", "org/name", "--dry-run")
	require.Contains(t, out, "Will download 1 files (out of 5) totalling 11.0.")
	require.NoFileExists(t, filepath.Join(dir, "model.bin"))
	require.Equal(t, dir+"\n", succeeds(t, "", "download", "org/name", "--quiet"))
	require.Len(t, names(), 4)
	for name, want := range files {
		got, err := os.ReadFile(filepath.Join(dir, name))
		require.NoError(t, err)
		require.Equal(t, want, got)
	}

	var j downloaded
	require.NoError(t, json.Unmarshal([]byte(succeeds(t, "", "download", "org/name", "--revision", "v0", "--json")), &j))
	require.Equal(t, downloaded{Path: filepath.Join(cache, "models--org--name", "snapshots", old), RepoID: "org/name", RepoType: "model", Revision: "v0",
		Commit: old, Files: []downloadFile{{Name: "config.json", Size: 2}}}, j)

	local := filepath.Join(t.TempDir(), "here")
	require.Equal(t, local+"\n", succeeds(t, "", "download", "org/name", "--local-dir", local))
	require.FileExists(t, filepath.Join(local, "sub", "[b].txt"))
	other := t.TempDir()
	require.Contains(t, succeeds(t, "", "download", "org/name", "--cache-dir", other), other)
	s.Forget()
	require.Equal(t, dir+"\n", succeeds(t, "", "download", "org/name", "--local-files-only"))
	require.Empty(t, s.Requests())

	fails(t, 1, "org/none: no such repository on the hub, or no access to it", "download", "org/none")
	fails(t, 1, "no such file in the repository", "download", "org/name", "none.json")
	fails(t, 1, "no such file in the repository", "download", "org/name", "none/", "config.json")
	fails(t, 1, "no file fits the patterns", "download", "org/name", "--include", "*.none")
	fails(t, 1, "not in the cache, and the network may not be used", "download", "org/none", "--local-files-only")
	fails(t, 2, "requires", "download")
	fails(t, 2, "not a repository's id", "download", "a/b/c")
	fails(t, 2, "expected model, dataset or space", "download", "a/b", "--repo-type", "thing")
	fails(t, 2, "expected one of them", "download", "a/b", "--cache-dir", "x", "--local-dir", "y")
	fails(t, 2, "don't go with names", "download", "a/b", "c", "--include", "d")
	fails(t, 2, "file name", "download", "a/b", "../c")
}

// TestDownloadInterrupted: Ctrl-C is exit status 130, and the next run goes on.
func TestDownloadInterrupted(t *testing.T) {
	s, cache := fakeHub(t)
	s.Commit("org/name", map[string][]byte{"model.safetensors": make([]byte, 4<<20)})
	s.SetHook(func(w http.ResponseWriter, r *http.Request, storage bool) bool {
		if !storage {
			return false
		}
		w.Header().Set("Content-Length", "4194304")
		_, _ = w.Write(make([]byte, 3<<20))
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
		return true
	})
	exe, err := os.Executable()
	require.NoError(t, err)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, exe, "download", "org/name")
	cmd.Env = append(os.Environ(), "TORCHGO_TEST_MAIN=1")
	var stderr strings.Builder
	cmd.Stderr = &stderr
	require.NoError(t, cmd.Start())
	require.Eventually(t, func() bool {
		parts, _ := filepath.Glob(filepath.Join(cache, "*", "blobs", "*.incomplete"))
		for _, p := range parts {
			if st, err := os.Stat(p); err == nil && st.Size() >= 2<<20 {
				return true
			}
		}
		return false
	}, 20*time.Second, 5*time.Millisecond)
	require.NoError(t, cmd.Process.Signal(syscall.SIGINT))
	require.Error(t, cmd.Wait())
	require.Equal(t, cli.Interrupted, cmd.ProcessState.ExitCode())
	require.Equal(t, "torchgo: download: interrupted\n", stderr.String())
	s.SetHook(nil)
	s.Forget()
	succeeds(t, "", "download", "org/name")
	ranges := 0
	for _, r := range s.Requests() {
		if r.Storage {
			require.NotEmpty(t, r.Range)
			ranges++
		}
	}
	require.Equal(t, 1, ranges)
}

func TestCache(t *testing.T) {
	s, cache := fakeHub(t)
	fails(t, 1, "no such file or directory", "cache", "ls")
	first := s.Commit("org/name", map[string][]byte{"a.txt": []byte("a"), "w.bin": []byte("weights")})
	succeeds(t, "", "download", "org/name")
	second := s.Commit("org/name", map[string][]byte{"a.txt": []byte("b"), "w.bin": []byte("weights")})
	succeeds(t, "", "download", "org/name")
	s.Commit("datasets/org/data", map[string][]byte{"x": []byte("data")})
	succeeds(t, "", "download", "org/data", "--repo-type", "dataset")

	out := succeeds(t, "", "cache", "ls")
	require.Contains(t, out, "dataset/org/data")
	require.Contains(t, out, "model/org/name")
	require.Contains(t, out, "Found 2 repo(s) for a total of 3 revision(s) and 13.0 on disk.")
	out = succeeds(t, "", "cache", "ls", "--revisions")
	require.Contains(t, out, first)
	require.Contains(t, out, second)
	var rows []cacheRow
	require.NoError(t, json.Unmarshal([]byte(succeeds(t, "", "cache", "ls", "--json")), &rows))
	require.Len(t, rows, 2)
	require.Equal(t, "model/org/name", rows[1].ID)
	require.Equal(t, int64(9), rows[1].SizeOnDisk)
	require.Equal(t, []string{"main"}, rows[1].Refs)
	require.NoError(t, json.Unmarshal([]byte(succeeds(t, "", "cache", "info", "org/name", "--json")), &rows))
	require.Len(t, rows, 2)
	require.Equal(t, []string{"a.txt", "w.bin"}, rows[0].Files)
	require.Contains(t, succeeds(t, "", "cache", "info"), "repositories: 2\nsize: 13.0\n")
	require.Contains(t, succeeds(t, "", "cache", "info", second), "w.bin  7.0")

	require.Contains(t, succeeds(t, "", "cache", "verify", "org/name"), "2 file(s) checked, 0 damaged, 0 missing")
	require.Contains(t, succeeds(t, "", "cache", "verify", "org/data", "--repo-type", "dataset"), "1 file(s) checked")
	blob, err := filepath.EvalSymlinks(filepath.Join(cache, "models--org--name", "snapshots", second, "w.bin"))
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(blob, []byte("WEIGHTS"), 0o644))
	status, stdout, stderr := torchgo(t, "", "cache", "verify", "org/name", "--json")
	require.Equal(t, 1, status)
	require.Contains(t, stdout, `"path": "w.bin"`)
	require.Equal(t, "torchgo: cache verify: 1 file(s) are damaged: expected other content; download them again with --force-download\n", stderr)
	succeeds(t, "", "download", "org/name", "--force-download")
	succeeds(t, "", "cache", "verify", "org/name")

	// Nothing goes without a yes.
	for _, answer := range []string{"", "n\n", "maybe\n"} {
		status, stdout, stderr := torchgo(t, answer, "cache", "rm", "org/name")
		require.Equal(t, 1, status)
		require.Empty(t, stdout)
		require.Contains(t, stderr, "not confirmed")
	}
	require.Contains(t, succeeds(t, "", "cache", "rm", "org/name", "--dry-run"), "Would remove 1 repo(s), 2 revision(s)")
	require.Contains(t, succeeds(t, "", "cache", "prune", "--dry-run"), "Would remove 0 repo(s), 1 revision(s)")
	require.Contains(t, succeeds(t, "", "cache", "ls"), "3 revision(s)")
	require.Equal(t, "Removed 0 repo(s), 1 revision(s), 0 incomplete file(s), 1.0.\n", succeeds(t, "y\n", "cache", "prune"))
	require.Equal(t, "Nothing to remove.\n", succeeds(t, "", "cache", "prune"))
	require.Contains(t, succeeds(t, "", "cache", "rm", second, "dataset/org/data", "--yes"), "Removed 2 repo(s), 2 revision(s)")
	require.Contains(t, succeeds(t, "", "cache", "ls"), "Found 0 repo(s)")
	fails(t, 1, `"org/name": not in the cache`, "cache", "rm", "org/name", "--yes")
	fails(t, 1, "not in the cache", "cache", "verify", "org/name")
	fails(t, 2, "expected ls, info, verify, rm or prune", "cache")
	fails(t, 2, "unknown", "cache", "nonsense")
	fails(t, 2, "requires", "cache", "rm")
}

// TestModelsByID: load, plan, eval, embed and tokenize take an id of the hub.
func TestModelsByID(t *testing.T) {
	s, cache := fakeHub(t)
	dir := tinyEncoder(t)
	files := filesOf(t, dir)
	files["README.md"] = []byte("#")
	files["onnx/config.json"] = []byte("{}")
	first := s.Commit("org/enc", files)
	s.Commit("org/enc", map[string][]byte{"config.json": []byte("{}")})

	local, byID := succeeds(t, "", "load", dir, "--digest"), succeeds(t, "", "load", "org/enc", "--digest", "--revision", first)
	var a, b struct {
		StateDict json.RawMessage `json:"state_dict"`
	}
	require.NoError(t, json.Unmarshal([]byte(local), &a))
	require.NoError(t, json.Unmarshal([]byte(byID), &b))
	require.JSONEq(t, string(a.StateDict), string(b.StateDict))
	require.Equal(t, succeeds(t, "a cat\n", "tokenize", dir), succeeds(t, "a cat\n", "tokenize", "org/enc", "--revision", first))
	require.Equal(t, succeeds(t, "a cat\n", "embed", dir), succeeds(t, "a cat\n", "embed", "org/enc", "--revision", first))
	require.NoDirExists(t, filepath.Join(cache, "models--org--enc", "snapshots", first, "onnx"))
	require.NoFileExists(t, filepath.Join(cache, "models--org--enc", "snapshots", first, "README.md"))
	s.Forget()
	succeeds(t, "a cat\n", "embed", "org/enc", "--revision", first, "--local-files-only")
	require.Empty(t, s.Requests())
	s.SetRef("org/enc", "main", first)
	succeeds(t, "a cat\n", "embed", "org/enc") // tokenizer, pooling and weights of one commit: one question
	require.Len(t, s.Requests(), 1)

	other := t.TempDir()
	out := succeeds(t, "", "plan", "org/enc", "--cache-dir", other)
	require.Contains(t, out, "BertModel from org/enc")
	found, err := filepath.Glob(filepath.Join(other, "*", "snapshots", "*", "*.safetensors"))
	require.NoError(t, err)
	require.Empty(t, found)

	s.Restrict("org/enc", true, false)
	fails(t, 1, "torchgo: load: org/enc: no such repository on the hub, or no access to it", "load", "org/enc", "--cache-dir", t.TempDir())
	s.Token = "hf_SecretSecret"
	succeeds(t, "", "plan", "org/enc", "--cache-dir", t.TempDir(), "--token", "hf_SecretSecret")
	t.Setenv("HF_TOKEN", "hf_wrongwrong")
	status, _, stderr := torchgo(t, "", "load", "org/enc", "--cache-dir", t.TempDir())
	require.Equal(t, 1, status)
	require.Contains(t, stderr, "the hub refused the token")
	require.NotContains(t, stderr, "hf_wrongwrong")
}

// A cache that can't be written to is the one line of the failure, with no log line before it.
func TestDownloadWithoutACache(t *testing.T) {
	s, _ := fakeHub(t)
	s.Commit("org/name", map[string][]byte{"config.json": []byte("{}")})
	file := filepath.Join(t.TempDir(), "file")
	require.NoError(t, os.WriteFile(file, nil, 0o644))
	status, stdout, stderr := process(t, nil, "", "download", "org/name", "--cache-dir", file)
	require.Equal(t, 1, status)
	require.Empty(t, stdout)
	require.Regexp(t, `^torchgo: download: .*file: not a directory\n$`, stderr)
}
