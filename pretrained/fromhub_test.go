package pretrained_test

import (
	"errors"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/torchgo/torchgo/internal/fileerr"
	"github.com/torchgo/torchgo/internal/hubtest"
	"github.com/torchgo/torchgo/internal/testdata"
	"github.com/torchgo/torchgo/pretrained"
	"github.com/torchgo/torchgo/pretrained/hub"
	"github.com/torchgo/torchgo/torch"
)

// newHub is a hub that the environment names, with an empty cache.
func newHub(t *testing.T) (*hubtest.Server, string) {
	s := hubtest.New(t)
	home := t.TempDir()
	t.Setenv("HF_ENDPOINT", s.URL)
	t.Setenv("HF_HOME", home)
	for _, name := range []string{"HF_TOKEN", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_HUB_CACHE"} {
		t.Setenv(name, "")
	}
	return s, filepath.Join(home, "hub")
}

// folder is what a directory has, as the files of a commit.
func folder(t *testing.T, dir string) map[string][]byte {
	files := map[string][]byte{}
	require.NoError(t, fs.WalkDir(os.DirFS(dir), ".", func(p string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			files[p], err = os.ReadFile(filepath.Join(dir, p))
		}
		return err
	}))
	return files
}

// downloads counts requests for whole contents or parts of them, by name.
func downloads(s *hubtest.Server) (n int) {
	for _, r := range s.Requests() {
		if r.Method == "GET" && (r.Storage || strings.Contains(r.Path, "/resolve/")) {
			n++
		}
	}
	return n
}

func sameState(t *testing.T, a, b pretrained.Model) {
	t.Helper()
	want := state(b)
	require.NotEmpty(t, want)
	require.Len(t, state(a), len(want))
	for name, x := range state(a) {
		require.True(t, x.Equal(want[name]), name)
	}
}

// TestHubLoads: a hub id gives what the directory with the same files gives. Only files that a load needs
// are downloaded; the second load asks for the branch alone, one without network for nothing.
func TestHubLoads(t *testing.T) {
	for name, c := range map[string]struct {
		opts  pretrained.Options
		files int // contents that are downloaded
	}{
		"single":    {pretrained.Options{}, 2},
		"sharded":   {pretrained.Options{}, -1},
		"variant":   {pretrained.Options{Variant: "fp16"}, 2},
		"subfolder": {pretrained.Options{Subfolder: "sub"}, 2},
	} {
		t.Run(name, func(t *testing.T) {
			s, cache := newHub(t)
			dir := loaderCase(t, name)
			files := folder(t, dir)
			files["README.md"], files["pytorch_model.bin"], files["flax_model.msgpack"] = []byte("#"), make([]byte, 1000), make([]byte, 1000)
			delete(files, "generation_config.json")
			s.Commit("org/name", files)
			opts := c.opts
			var last hub.Progress
			opts.DownloadProgress = func(p hub.Progress) { last = p }
			m, r := load(t, "org/name", opts)
			local, _ := load(t, dir, c.opts)
			sameState(t, m, local)
			require.Equal(t, "org/name", r.Path)
			want := c.files
			if want < 0 { // config, index, shards
				want = 2
				for name := range files {
					if strings.HasPrefix(name, "model-") {
						want++
					}
				}
			}
			require.Equal(t, want, downloads(s))
			require.Equal(t, last.AllTotal, last.AllDone)
			for _, name := range []string{"README.md", "pytorch_model.bin", "flax_model.msgpack"} {
				found, err := filepath.Glob(filepath.Join(cache, "*", "snapshots", "*", name))
				require.NoError(t, err)
				require.Empty(t, found)
			}
			if name == "sharded" {
				found, err := filepath.Glob(filepath.Join(cache, "*", ".no_exist", "*", "model.safetensors"))
				require.NoError(t, err)
				require.Len(t, found, 1)
			}
			s.Forget()
			m, _ = load(t, "org/name", c.opts)
			sameState(t, m, local)
			require.Len(t, s.Requests(), 1)
			s.Forget()
			off := c.opts
			off.LocalFilesOnly = true
			m, _ = load(t, "org/name", off)
			sameState(t, m, local)
			t.Setenv("HF_HUB_OFFLINE", "1")
			m, _ = load(t, "org/name", c.opts)
			sameState(t, m, local)
			require.Empty(t, s.Requests())
		})
	}
}

// TestHubRevisionIsPinned: everything is of the commit that the branch was at the start, though it moves.
func TestHubRevisionIsPinned(t *testing.T) {
	s, cache := newHub(t)
	dir := loaderCase(t, "sharded")
	files := folder(t, dir)
	first := s.Commit("org/name", files)
	var moved atomic.Bool
	s.SetHook(func(_ http.ResponseWriter, r *http.Request, _ bool) bool {
		if strings.Contains(r.URL.Path, "/resolve/") && moved.CompareAndSwap(false, true) {
			s.Commit("org/name", map[string][]byte{"config.json": []byte("{}"), "model.safetensors": []byte("other")})
		}
		return false
	})
	m, _ := load(t, "org/name", pretrained.Options{})
	require.True(t, moved.Load())
	local, _ := load(t, dir, pretrained.Options{})
	sameState(t, m, local)
	asked := 0
	for _, r := range s.Requests() {
		if strings.Contains(r.Path, "/revision/") {
			asked++
		} else if !r.Storage {
			require.Contains(t, r.Path, first)
		}
	}
	require.Equal(t, 1, asked)
	ref, err := os.ReadFile(filepath.Join(cache, "models--org--name", "refs", "main"))
	require.NoError(t, err)
	require.Equal(t, first, string(ref))

	// By tag, and by commit: then nobody has to be asked.
	s.SetRef("org/name", "v1", first)
	m, _ = load(t, "org/name", pretrained.Options{Revision: "v1", CodeRevision: "main"})
	sameState(t, m, local)
	s.Forget()
	m, _ = load(t, "org/name", pretrained.Options{Revision: first})
	sameState(t, m, local)
	require.Empty(t, s.Requests())
	_, _, err = pretrained.Load(ctx, "org/name", pretrained.Options{Revision: "v2"})
	require.ErrorIs(t, err, hub.ErrRevisionNotFound)
}

func TestHubRefuses(t *testing.T) {
	single := folder(t, loaderCase(t, "single"))
	with := func(change map[string][]byte, without ...string) map[string][]byte {
		files := map[string][]byte{}
		for name, data := range single {
			files[name] = data
		}
		for name, data := range change {
			files[name] = data
		}
		for _, name := range without {
			delete(files, name)
		}
		return files
	}
	bin := map[string][]byte{"pytorch_model.bin": make([]byte, 100_000)}
	for name, c := range map[string]struct {
		files map[string][]byte
		opts  pretrained.Options
		class error
		text  string
	}{
		"no config":            {with(nil, "config.json"), pretrained.Options{}, pretrained.ErrBadConfig, "org/name/config.json"},
		"no weights":           {with(nil, "model.safetensors"), pretrained.Options{}, pretrained.ErrMissingShard, "expected model.safetensors or model.safetensors.index.json"},
		"no variant":           {single, pretrained.Options{Variant: "fp16"}, pretrained.ErrMissingShard, "there is a model.safetensors without the variant"},
		"bin forbidden":        {with(bin, "model.safetensors"), pretrained.Options{UseSafetensors: torch.Some(true)}, pretrained.ErrMissingShard, "which use-safetensors=true forbids"},
		"bin asked for":        {single, pretrained.Options{UseSafetensors: torch.Some(false)}, pretrained.ErrMissingShard, "expected pytorch_model.bin or pytorch_model.bin.index.json"},
		"bad index":            {with(map[string][]byte{"model.safetensors.index.json": []byte(`{"weight_map": {"a": "../../../x.safetensors"}}`)}, "model.safetensors"), pretrained.Options{}, pretrained.ErrPath, "../"},
		"shard missing":        {with(map[string][]byte{"model.safetensors.index.json": []byte(`{"weight_map": {"a": "model-1.safetensors"}}`)}, "model.safetensors"), pretrained.Options{}, pretrained.ErrMissingShard, "named by model.safetensors.index.json"},
		"weights outside":      {with(map[string][]byte{"config.json": []byte(`{"model_type": "bert", "transformers_weights": "../x.safetensors"}`)}), pretrained.Options{}, pretrained.ErrPath, ".."},
		"no subfolder":         {single, pretrained.Options{Subfolder: "sub"}, pretrained.ErrBadConfig, "org/name/sub/config.json"},
		"offline, and nothing": {single, pretrained.Options{LocalFilesOnly: true}, hub.ErrOffline, "revision main"},
	} {
		t.Run(name, func(t *testing.T) {
			s, _ := newHub(t)
			s.Commit("org/name", c.files)
			_, _, err := pretrained.Load(ctx, "org/name", c.opts)
			require.ErrorIs(t, err, c.class)
			require.ErrorContains(t, err, c.text)
			require.NotContains(t, err.Error(), "\n")
			_, planErr := pretrained.Plan(ctx, "org/name", c.opts)
			require.ErrorIs(t, planErr, c.class)
			for _, r := range s.Requests() {
				require.False(t, r.Storage, "weights were downloaded")
			}
		})
	}
	s, _ := newHub(t)
	s.Commit("org/name", single)
	s.Restrict("org/name", false, true)
	_, _, err := pretrained.Load(ctx, "org/name", pretrained.Options{})
	require.ErrorIs(t, err, hub.ErrGated)
	_, _, err = pretrained.Load(ctx, "org/none", pretrained.Options{})
	require.ErrorIs(t, err, hub.ErrRepoNotFound)
}

// TestHubPlan: the plan of a hub id is that of the directory, and costs the headers.
func TestHubPlan(t *testing.T) {
	for _, name := range []string{"single", "sharded"} {
		s, cache := newHub(t)
		dir := loaderCase(t, name)
		files := folder(t, dir)
		s.Commit("org/name", files)
		p, err := pretrained.Plan(ctx, "org/name", pretrained.Options{})
		require.NoError(t, err)
		local, err := pretrained.Plan(ctx, dir, pretrained.Options{})
		require.NoError(t, err)
		local.Path = p.Path
		require.Equal(t, string(local.JSON()), string(p.JSON()))
		found, err := filepath.Glob(filepath.Join(cache, "*", "snapshots", "*", "*.safetensors"))
		require.NoError(t, err)
		require.Empty(t, found)
		shards := 0
		for _, r := range s.Requests() {
			if r.Storage {
				shards++
				require.NotEmpty(t, r.Range)
			}
		}
		require.Positive(t, shards)
		// What is in the cache needs no request.
		m, _ := load(t, "org/name", pretrained.Options{})
		require.NotNil(t, m)
		t.Setenv("HF_HUB_OFFLINE", "1")
		s.Forget()
		p, err = pretrained.Plan(ctx, "org/name", pretrained.Options{})
		require.NoError(t, err)
		require.Equal(t, string(local.JSON()), string(p.JSON()))
		require.Empty(t, s.Requests())
		t.Setenv("HF_HUB_OFFLINE", "")
	}
}

// TestLocalPathNeedsNoHub: what is there as a path is never asked for in the net, and neither is what can't
// be an id.
func TestLocalPathNeedsNoHub(t *testing.T) {
	s, cache := newHub(t)
	files := folder(t, loaderCase(t, "single"))
	t.Chdir(t.TempDir())
	require.NoError(t, os.MkdirAll("org/name", 0o755))
	for name, data := range files {
		require.NoError(t, os.WriteFile(filepath.Join("org/name", name), data, 0o644))
	}
	load(t, "org/name", pretrained.Options{})
	load(t, "org/name/model.safetensors", pretrained.Options{})
	_, err := pretrained.Plan(ctx, "org/name", pretrained.Options{})
	require.NoError(t, err)
	for _, path := range []string{"./nothing", "../org/name", "/org/name", "a/b/c", "org/none.safetensors", "none.gguf", "org/none/", ""} {
		_, _, err := pretrained.Load(ctx, path, pretrained.Options{})
		require.Error(t, err, path)
		require.True(t, errors.Is(err, fs.ErrNotExist), "%q: %v", path, err)
	}
	dir, commit, err := pretrained.DownloadFiles(ctx, "org/name", pretrained.Options{}, "*")
	require.NoError(t, err)
	require.Equal(t, "org/name", dir)
	require.Empty(t, commit)
	require.Empty(t, s.Requests())
	require.NoDirExists(t, cache)
}

// TestHostileRepositories: the hostile folders, from a hub: the same verdicts, and nothing outside the cache.
func TestHostileRepositories(t *testing.T) {
	s, cache := newHub(t)
	cases := testdata.Hostile(t, "hf_dir")
	before := listing(t, filepath.Dir(cases[0].Path))
	n := 0
	for _, c := range cases {
		if len(c.Special) > 0 {
			continue // links and folders, which a hub can't have
		}
		n++
		id := "hostile/" + c.ID
		s.Commit(id, folder(t, c.Path))
		m, _, err := pretrained.Load(ctx, id, pretrained.Options{Strict: true})
		switch {
		case c.Expected == "ok":
			require.NoError(t, err, c.ID)
			require.Len(t, state(m), len(c.Tensors), c.ID)
			m.Close()
		default:
			require.ErrorIs(t, err, fileerr.Class(c.ErrorClass), "%s (%s)", c.ID, c.Wrong)
			require.NotContains(t, err.Error(), "\n", c.ID)
		}
	}
	require.Greater(t, n, 40)
	require.Equal(t, before, listing(t, filepath.Dir(cases[0].Path)))
	for _, p := range listing(t, filepath.Dir(cache)) {
		require.True(t, strings.HasPrefix(p, "hub"), p)
	}
}

func listing(t *testing.T, dir string) (list []string) {
	require.NoError(t, filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err == nil && p != dir {
			p, err = filepath.Rel(dir, p)
			list = append(list, p)
		}
		return err
	}))
	return list
}
