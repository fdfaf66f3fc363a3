package hub

import (
	"bytes"
	"compress/gzip"
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/torchgo/torchgo/internal/hubtest"
)

const weights = "model.safetensors"

// slow makes the storage send so many bytes a second on each connection.
func slow(s *hubtest.Server, perSecond int) hubtest.Hook {
	return func(w http.ResponseWriter, r *http.Request, storage bool) bool {
		if !storage {
			return false
		}
		s.Answer(&slowWriter{w, perSecond}, r, storage)
		return true
	}
}

type slowWriter struct {
	http.ResponseWriter
	perSecond int
}

func (w *slowWriter) Write(p []byte) (n int, err error) {
	const piece = 16 << 10
	for len(p) > 0 && err == nil {
		k := min(piece, len(p))
		if _, err = w.ResponseWriter.Write(p[:k]); err == nil {
			err = http.NewResponseController(w.ResponseWriter).Flush()
		}
		n, p = n+k, p[k:]
		time.Sleep(time.Second * time.Duration(k) / time.Duration(w.perSecond))
	}
	return n, err
}

// cutter aborts the connection after so many bytes of a body.
type cutter struct {
	http.ResponseWriter
	left int
}

func (w *cutter) Write(p []byte) (int, error) {
	k := min(len(p), w.left)
	n, _ := w.ResponseWriter.Write(p[:k])
	w.left -= n
	if n < len(p) {
		_ = http.NewResponseController(w.ResponseWriter).Flush()
		panic(http.ErrAbortHandler)
	}
	return n, nil
}

func repoWith(t testing.TB, data []byte) *hubtest.Server {
	s := hubtest.New(t)
	s.Commit("org/name", map[string][]byte{weights: data, "config.json": []byte("{}")})
	return s
}

// get downloads the weights and compares them.
func get(t testing.TB, c *Client, want []byte) error {
	t.Helper()
	snap, err := c.Resolve(t.Context(), Repo{ID: "org/name"})
	if err != nil {
		return err
	}
	p, err := snap.File(t.Context(), weights)
	if err != nil {
		require.NoFileExists(t, filepath.Join(snap.Dir(), weights))
		require.NotContains(t, err.Error(), "SIGNED")
		require.NotContains(t, err.Error(), theToken)
		require.NotContains(t, err.Error(), "\n")
		return err
	}
	got, err := os.ReadFile(p)
	require.NoError(t, err)
	require.Equal(t, want, got)
	noLitter(t, c.CacheDir())
	return nil
}

// TestCutAtEveryBoundary cuts the connection after each multiple of 64 KiB, and once in between, at every
// request: the rest comes by ranges, and no byte twice.
func TestCutAtEveryBoundary(t *testing.T) {
	data := noise(5, 1<<20+12345)
	s := repoWith(t, data)
	for cut := 64 << 10; cut <= len(data); cut += 64 << 10 {
		for _, at := range []int{cut, cut + 777} {
			for _, step := range []int64{0, 300_000} { // one transfer, and several at once
				var sent atomic.Int64
				s.SetHook(func(w http.ResponseWriter, r *http.Request, storage bool) bool {
					if storage {
						s.Answer(&cutter{w, at}, r, storage)
					}
					return storage
				})
				c := client(t, s, Options{segment: step, Progress: func(p Progress) { sent.Store(p.Done) }})
				require.NoError(t, get(t, c, data), "cut at %d", at)
				require.Equal(t, int64(len(data)), sent.Load())
			}
		}
	}
}

// TestResumeAcrossClients: what one client was cut off from, another goes on with.
func TestResumeAcrossClients(t *testing.T) {
	data := noise(6, 500_000)
	s := repoWith(t, data)
	cache := t.TempDir()
	s.SetHook(func(w http.ResponseWriter, r *http.Request, storage bool) bool {
		if storage && r.Header.Get("Range") != "" {
			panic(http.ErrAbortHandler)
		}
		if storage {
			s.Answer(&cutter{w, 200_000}, r, storage)
		}
		return storage
	})
	err := get(t, client(t, s, Options{CacheDir: cache}), data)
	require.ErrorIs(t, err, ErrUnavailable)
	s.SetHook(nil)
	s.Forget()
	require.NoError(t, get(t, client(t, s, Options{CacheDir: cache}), data))
	var got []string
	for _, r := range s.Requests() {
		if r.Storage {
			got = append(got, r.Range)
		}
	}
	require.Equal(t, []string{"bytes=200000-499999"}, got)
}

// TestCancelled: a context that ends leaves what the next download goes on with.
func TestCancelled(t *testing.T) {
	data := noise(7, 4<<20)
	s := repoWith(t, data)
	s.SetHook(slow(s, 1<<20))
	for _, step := range []int64{0, 1 << 20} {
		cache := t.TempDir()
		ctx, cancel := context.WithCancel(t.Context())
		c := client(t, s, Options{CacheDir: cache, segment: step, Progress: func(p Progress) {
			if p.Done > 300_000 {
				cancel()
			}
		}})
		snap := resolve(t, c, Repo{ID: "org/name"})
		start := time.Now()
		_, err := snap.File(ctx, weights)
		require.ErrorIs(t, err, context.Canceled)
		require.Less(t, time.Since(start), 2*time.Second)
		require.NoFileExists(t, filepath.Join(snap.Dir(), weights))
		var first int64
		c = client(t, s, Options{CacheDir: cache, segment: step, Progress: func(p Progress) {
			if first == 0 {
				first = p.Done
			}
		}})
		s.SetHook(nil)
		require.NoError(t, get(t, c, data))
		require.GreaterOrEqual(t, first, int64(300_000))
		s.SetHook(slow(s, 1<<20))
	}
}

// fault is a way to misbehave at the requests for bytes.
type fault struct {
	name string
	// answer misbehaves; n counts the requests from 1. False: behave.
	answer func(s *hubtest.Server, w http.ResponseWriter, r *http.Request, n int) bool
	class  error // nil: the right content comes in the end
}

func faults(data []byte) []fault {
	first := func(do func(s *hubtest.Server, w http.ResponseWriter, r *http.Request)) func(*hubtest.Server, http.ResponseWriter, *http.Request, int) bool {
		return func(s *hubtest.Server, w http.ResponseWriter, r *http.Request, n int) bool {
			if n > 1 {
				return false
			}
			do(s, w, r)
			return true
		}
	}
	always := func(do func(s *hubtest.Server, w http.ResponseWriter, r *http.Request, n int)) func(*hubtest.Server, http.ResponseWriter, *http.Request, int) bool {
		return func(s *hubtest.Server, w http.ResponseWriter, r *http.Request, n int) bool {
			do(s, w, r, n)
			return true
		}
	}
	status := func(code int) func(*hubtest.Server, http.ResponseWriter, *http.Request, int) {
		return func(_ *hubtest.Server, w http.ResponseWriter, _ *http.Request, _ int) { w.WriteHeader(code) }
	}
	// cutThen sends a first part, then answers what is asked next by do.
	cutThen := func(do func(s *hubtest.Server, w http.ResponseWriter, r *http.Request, n int) bool) func(*hubtest.Server, http.ResponseWriter, *http.Request, int) bool {
		return func(s *hubtest.Server, w http.ResponseWriter, r *http.Request, n int) bool {
			if n == 1 {
				s.Answer(&cutter{w, 100_000}, r, true)
				return true
			}
			return do(s, w, r, n)
		}
	}
	full := func(w http.ResponseWriter, body []byte, length int) {
		w.Header().Set("Content-Length", strconv.Itoa(length))
		_, _ = w.Write(body)
	}
	wrong := append([]byte{}, data...)
	wrong[len(wrong)/2] ^= 1
	html := []byte("<html><body>Please log in to the WiFi</body></html>")
	return []fault{
		{"200 in place of 206", cutThen(func(_ *hubtest.Server, w http.ResponseWriter, _ *http.Request, _ int) bool {
			full(w, data, len(data))
			return true
		}), nil},
		{"range of another start", cutThen(func(_ *hubtest.Server, w http.ResponseWriter, _ *http.Request, n int) bool {
			if n > 2 {
				return false
			}
			w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", 0, len(data)-1, len(data)))
			w.WriteHeader(206)
			_, _ = w.Write(data)
			return true
		}), nil},
		{"range of another start, always", cutThen(func(_ *hubtest.Server, w http.ResponseWriter, r *http.Request, _ int) bool {
			if r.Header.Get("Range") == "" {
				panic(http.ErrAbortHandler)
			}
			w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", 0, len(data)-1, len(data)))
			w.WriteHeader(206)
			_, _ = w.Write(data)
			return true
		}), ErrUnavailable},
		{"206 without Content-Range", cutThen(func(_ *hubtest.Server, w http.ResponseWriter, _ *http.Request, n int) bool {
			if n > 2 {
				return false
			}
			w.WriteHeader(206)
			_, _ = w.Write(data[100_000:])
			return true
		}), nil},
		{"206 of another total", cutThen(func(_ *hubtest.Server, w http.ResponseWriter, _ *http.Request, n int) bool {
			if n > 2 {
				return false
			}
			w.Header().Set("Content-Range", fmt.Sprintf("bytes 100000-%d/%d", len(data)-1, len(data)+5))
			w.WriteHeader(206)
			_, _ = w.Write(data[100_000:])
			return true
		}), nil},
		{"206 that is short", cutThen(func(_ *hubtest.Server, w http.ResponseWriter, _ *http.Request, n int) bool {
			if n > 2 {
				return false
			}
			w.Header().Set("Content-Range", fmt.Sprintf("bytes 100000-%d/%d", len(data)-1, len(data)))
			w.WriteHeader(206)
			_, _ = w.Write(data[100_000:150_000])
			return true
		}), nil},
		{"206 that is long", cutThen(func(_ *hubtest.Server, w http.ResponseWriter, _ *http.Request, n int) bool {
			if n > 2 {
				return false
			}
			w.Header().Set("Content-Range", fmt.Sprintf("bytes 100000-%d/%d", len(data)-1, len(data)))
			w.WriteHeader(206)
			_, _ = w.Write(append(data[100_000:len(data):len(data)], "more"...))
			return true
		}), nil},
		{"another etag and content", cutThen(func(_ *hubtest.Server, w http.ResponseWriter, _ *http.Request, n int) bool {
			if n > 2 {
				return false
			}
			w.Header().Set("ETag", `"other"`)
			w.Header().Set("Content-Range", fmt.Sprintf("bytes 100000-%d/%d", len(data)-1, len(data)))
			w.WriteHeader(206)
			_, _ = w.Write(make([]byte, len(data)-100_000))
			return true
		}), nil},
		{"other content under the same etag", cutThen(func(_ *hubtest.Server, w http.ResponseWriter, _ *http.Request, n int) bool {
			if n > 2 {
				return false
			}
			w.Header().Set("Content-Range", fmt.Sprintf("bytes 100000-%d/%d", len(data)-1, len(data)))
			w.WriteHeader(206)
			_, _ = w.Write(make([]byte, len(data)-100_000))
			return true
		}), nil},
		{"416", cutThen(func(_ *hubtest.Server, w http.ResponseWriter, r *http.Request, _ int) bool {
			if r.Header.Get("Range") != "" {
				w.WriteHeader(416)
				return true
			}
			return false
		}), nil},
		{"gzip", always(func(_ *hubtest.Server, w http.ResponseWriter, _ *http.Request, _ int) {
			w.Header().Set("Content-Encoding", "gzip")
			z := gzip.NewWriter(w)
			_, _ = z.Write(data)
			_ = z.Close()
		}), ErrNotHub},
		{"gzip once", first(func(_ *hubtest.Server, w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Encoding", "gzip")
			z := gzip.NewWriter(w)
			_, _ = z.Write(data)
			_ = z.Close()
		}), nil},
		{"wrong content", always(func(_ *hubtest.Server, w http.ResponseWriter, _ *http.Request, _ int) { full(w, wrong, len(wrong)) }), ErrChecksum},
		{"wrong content once", first(func(_ *hubtest.Server, w http.ResponseWriter, _ *http.Request) { full(w, wrong, len(wrong)) }), nil},
		{"a web page", always(func(_ *hubtest.Server, w http.ResponseWriter, _ *http.Request, _ int) {
			w.Header().Set("Content-Type", "text/html")
			full(w, html, len(html))
		}), ErrNotHub},
		{"short, and says so", always(func(_ *hubtest.Server, w http.ResponseWriter, _ *http.Request, _ int) { full(w, data[:1000], 1000) }), ErrNotHub},
		{"short, chunked", always(func(_ *hubtest.Server, w http.ResponseWriter, _ *http.Request, _ int) {
			_, _ = w.Write(data[:1000])
			_ = http.NewResponseController(w).Flush()
		}), ErrUnavailable},
		{"long, chunked", always(func(_ *hubtest.Server, w http.ResponseWriter, _ *http.Request, _ int) {
			_ = http.NewResponseController(w).Flush()
			_, _ = w.Write(append(data[:len(data):len(data)], make([]byte, 1<<20)...))
		}), ErrSizeMismatch},
		{"429 with Retry-After", first(func(_ *hubtest.Server, w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Retry-After", "0")
			w.WriteHeader(429)
		}), nil},
		{"429 for an hour", always(func(_ *hubtest.Server, w http.ResponseWriter, _ *http.Request, _ int) {
			w.Header().Set("Retry-After", "3600")
			w.WriteHeader(429)
		}), ErrUnavailable},
		{"500 once", first(func(_ *hubtest.Server, w http.ResponseWriter, _ *http.Request) { w.WriteHeader(500) }), nil},
		{"502", always(status(502)), ErrUnavailable},
		{"503", always(status(503)), ErrUnavailable},
		{"504", always(status(504)), ErrUnavailable},
		{"403 once", first(func(_ *hubtest.Server, w http.ResponseWriter, _ *http.Request) { w.WriteHeader(403) }), nil}, // an address that has expired
		{"403", always(status(403)), ErrUnavailable},
		{"404", always(status(404)), ErrUnavailable},
		{"204", always(status(204)), ErrNotHub},
		{"redirects in circles", always(func(_ *hubtest.Server, w http.ResponseWriter, r *http.Request, _ int) {
			w.Header().Set("Location", r.URL.String())
			w.WriteHeader(302)
		}), ErrNotHub},
		{"a redirect to a file", always(func(_ *hubtest.Server, w http.ResponseWriter, _ *http.Request, _ int) {
			w.Header().Set("Location", "file:///etc/passwd")
			w.WriteHeader(302)
		}), ErrNotHub},
		{"a redirect to nowhere", always(status(302)), ErrNotHub},
		{"no answer once", first(func(_ *hubtest.Server, _ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }), nil},
		{"stalls in the middle", first(func(_ *hubtest.Server, w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Length", strconv.Itoa(len(data)))
			_, _ = w.Write(data[:150_000])
			_ = http.NewResponseController(w).Flush()
			<-r.Context().Done()
		}), nil},
		{"closes without a word", first(func(*hubtest.Server, http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }), nil},
	}
}

// TestMisbehavingServer: the right content in the end, or an error of a clear class; nothing half-written is
// ever seen; afterwards, with a server that behaves, all is well.
func TestMisbehavingServer(t *testing.T) {
	data := noise(8, 400_000)
	for _, f := range faults(data) {
		for _, step := range []int64{0, 90_000} {
			t.Run(fmt.Sprintf("%s/%d", f.name, step), func(t *testing.T) {
				t.Parallel()
				s := repoWith(t, data)
				s.Token = theToken
				var n atomic.Int64
				s.SetHook(func(w http.ResponseWriter, r *http.Request, storage bool) bool {
					return storage && f.answer(s, w, r, int(n.Add(1)))
				})
				cache := t.TempDir()
				c := client(t, s, Options{CacheDir: cache, segment: step, Token: NewToken(theToken), idle: 300 * time.Millisecond, patience: 300 * time.Millisecond})
				err := get(t, c, data)
				if f.class == nil {
					require.NoError(t, err)
				} else if err == nil {
					// Several transfers at once see another order: content that is right is right.
					require.NotZero(t, step)
				} else {
					t.Log(err)
					if step == 0 {
						require.ErrorIs(t, err, f.class)
					}
				}
				for _, r := range s.Requests() {
					require.Equal(t, !r.Storage, r.Token == theToken)
				}
				s.SetHook(nil)
				require.NoError(t, get(t, client(t, s, Options{CacheDir: cache}), data))
				requireNoSecret(t, cache)
			})
		}
	}
}

func requireNoSecret(t *testing.T, dir string) {
	t.Helper()
	require.NoError(t, filepath.WalkDir(dir, func(p string, d os.DirEntry, err error) error {
		require.NoError(t, err)
		if d.Type().IsRegular() {
			data, err := os.ReadFile(p)
			require.NoError(t, err)
			require.NotContains(t, string(data), theToken, p)
			require.NotContains(t, string(data), "SIGNED-SECRET", p)
		}
		return nil
	}))
}

// TestHubErrors: what the hub says has its own class, and says what to do.
func TestHubErrors(t *testing.T) {
	s := hubtest.New(t)
	s.Token = theToken
	commit := s.Commit("org/name", fileMap())
	s.Commit("org/private", fileMap())
	s.Commit("org/gated", fileMap())
	s.Restrict("org/private", true, false)
	s.Restrict("org/gated", false, true)
	for name, c := range map[string]struct {
		repo   Repo
		token  string
		file   string
		class  error
		remedy string
	}{
		"none":             {Repo{ID: "org/none"}, "", "", ErrRepoNotFound, "HF_TOKEN"},
		"private":          {Repo{ID: "org/private"}, "", "", ErrRepoNotFound, "HF_TOKEN"},
		"gated":            {Repo{ID: "org/gated"}, "", "config.json", ErrGated, "ask for access"},
		"wrong token":      {Repo{ID: "org/name"}, "hf_wrong", "", ErrUnauthorized, "unset HF_TOKEN"},
		"no revision":      {Repo{ID: "org/name", Revision: "v9"}, "", "", ErrRevisionNotFound, ""},
		"no commit":        {Repo{ID: "org/name", Revision: strings.Repeat("1", 40)}, "", "config.json", ErrRevisionNotFound, ""},
		"no file":          {Repo{ID: "org/name"}, "", "none.json", ErrEntryNotFound, ""},
		"no file, listed":  {Repo{ID: "org/name", Revision: commit}, "", "none.json", ErrEntryNotFound, ""},
		"private, allowed": {Repo{ID: "org/private"}, theToken, "config.json", nil, ""},
		"gated, allowed":   {Repo{ID: "org/gated"}, theToken, weights, nil, ""},
	} {
		t.Run(name, func(t *testing.T) {
			cl := client(t, s, Options{Token: NewToken(c.token), NoToken: c.token == ""})
			snap, err := cl.Resolve(t.Context(), c.repo)
			if err == nil && c.file != "" {
				if strings.HasSuffix(name, "listed") {
					_, err = snap.List(t.Context())
					require.NoError(t, err)
				}
				_, err = snap.File(t.Context(), c.file)
			}
			if c.class == nil {
				require.NoError(t, err)
				return
			}
			require.ErrorIs(t, err, c.class)
			require.ErrorContains(t, err, c.remedy)
			require.ErrorContains(t, err, c.repo.ID)
			require.NotContains(t, err.Error(), "hf_wrong")
		})
	}
}

// TestNotAHub: a web page, a portal, another service.
func TestNotAHub(t *testing.T) {
	s := hubtest.New(t)
	commit := s.Commit("org/name", fileMap())
	for name, answer := range map[string]http.HandlerFunc{
		"web page": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "text/html")
			_, _ = w.Write([]byte("<html>hello</html>"))
		},
		"broken JSON": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			_, _ = w.Write([]byte(`{"sha": "`))
		},
		"bad sha": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			_, _ = w.Write([]byte(`{"sha": "../../../etc"}`))
		},
		"bad entries": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			_, _ = w.Write([]byte(`[{"type": "file", "path": "a", "oid": "../../x", "size": 3}]`))
		},
		"twice": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			_, _ = w.Write([]byte(`[{"type": "file", "path": "a", "size": 3, "path": "b"}]`))
		},
		"endless": func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			w.Header().Set("Link", `<`+r.URL.RequestURI()+`>; rel="next"`)
			_, _ = w.Write([]byte(`[]`))
		},
		"bad etag": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			w.Header().Set("X-Repo-Commit", commit[:39]) // no commit, or the revision would be settled by it
			w.Header().Set("ETag", `"../../../../tmp/x"`)
		},
		"another commit": func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			w.Header().Set("X-Repo-Commit", strings.Repeat("0", 40))
			if strings.Contains(r.URL.Path, "/resolve/main/") {
				w.Header().Del("X-Repo-Commit")
			}
			w.Header().Set("ETag", `"`+strings.Repeat("0", 40)+`"`)
		},
	} {
		t.Run(name, func(t *testing.T) {
			s.SetHook(func(w http.ResponseWriter, r *http.Request, _ bool) bool { answer(w, r); return true })
			defer func() { s.SetHook(nil) }()
			c := client(t, s, Options{})
			_, err := c.Resolve(t.Context(), Repo{ID: "org/name"})
			require.ErrorIs(t, err, ErrNotHub)
			snap := resolve(t, c, Repo{ID: "org/name", Revision: commit})
			_, err = snap.File(t.Context(), "config.json")
			require.ErrorIs(t, err, ErrNotHub)
			if !strings.Contains(name, "bad etag") && !strings.Contains(name, "another") {
				_, err = snap.List(t.Context())
				require.Error(t, err)
			}
			require.NotContains(t, err.Error(), "\n")
			require.Empty(t, treeOf(t, c.CacheDir()))
		})
	}
}

func TestNoSpaceLeft(t *testing.T) {
	s := hubtest.New(t)
	s.Commit("org/name", map[string][]byte{weights: noise(1, 1000)})
	s.SetHook(func(w http.ResponseWriter, r *http.Request, storage bool) bool {
		if r.Method == "HEAD" {
			rec := &sizeLiar{ResponseWriter: w}
			s.Answer(rec, r, storage)
			return true
		}
		return false
	})
	c := client(t, s, Options{})
	_, err := resolve(t, c, Repo{ID: "org/name"}).File(t.Context(), weights)
	require.ErrorIs(t, err, ErrNoSpace)
	noLitter(t, c.CacheDir())
	for _, r := range s.Requests() {
		require.False(t, r.Storage)
	}
}

// sizeLiar says that a file is larger than any disk.
type sizeLiar struct{ http.ResponseWriter }

func (w *sizeLiar) WriteHeader(status int) {
	if w.Header().Get("X-Linked-Size") != "" {
		w.Header().Set("X-Linked-Size", "4000000000000000000")
	}
	w.ResponseWriter.WriteHeader(status)
}

// TestPartialsAreNotShared: two that download the same without locks both end well, and the cache has what is right.
func TestPartialsAreNotShared(t *testing.T) {
	data := noise(11, 2<<20)
	s := repoWith(t, data)
	s.SetHook(slow(s, 4<<20))
	cache := t.TempDir()
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() {
			out, err := child(t, s, cache, true).CombinedOutput()
			if err != nil {
				t.Errorf("%v: %s", err, out)
			}
		})
	}
	most := 0
	done := make(chan struct{})
	go func() { wg.Wait(); close(done) }()
	for end := false; !end; {
		select {
		case <-done:
			end = true
		case <-time.After(10 * time.Millisecond):
		}
		parts, err := filepath.Glob(filepath.Join(cache, "*", "blobs", hubtest.Etag(weights, data)+"*"+stateSuffix))
		require.NoError(t, err)
		most = max(most, len(parts))
	}
	require.Equal(t, 2, most)
	noLitter(t, cache)
}

// TestStaleLeftovers: what nobody will go on with is removed in time.
func TestStaleLeftovers(t *testing.T) {
	data := noise(12, 100_000)
	s := repoWith(t, data)
	etag := hubtest.Etag(weights, data)
	cache := t.TempDir()
	blobs := filepath.Join(cache, "models--org--name", "blobs")
	require.NoError(t, os.MkdirAll(blobs, 0o755))
	leave := func(nonce, host, done string, age time.Duration) (string, string) {
		part, state := filepath.Join(blobs, etag+"."+nonce+partSuffix), filepath.Join(blobs, etag+"."+nonce+stateSuffix)
		require.NoError(t, os.WriteFile(part, make([]byte, 50_000), 0o644))
		require.NoError(t, os.WriteFile(state, fmt.Appendf(nil, `{"etag": %q, "size": %d, "host": %q, "done": %s}`, etag, len(data), host, done), 0o644))
		require.NoError(t, os.Chtimes(part, time.Time{}, time.Now().Add(-age)))
		return part, state
	}
	mine, _ := leave("0000000000000001", hostName(), "[]", 0)
	young, _ := leave("0000000000000002", "elsewhere", "[[0, 50000]]", time.Hour)
	old, oldState := leave("0000000000000003", "elsewhere", "[[0, 50000]]", 48*time.Hour)
	torn, _ := leave("0000000000000004", hostName(), "[[0, ", 48*time.Hour)
	lies, _ := leave("0000000000000005", hostName(), "[[0, 90000]]", 0) // more than the file has
	require.NoError(t, get2(t, client(t, s, Options{CacheDir: cache}), data))
	for _, p := range []string{mine, old, oldState, torn, lies} {
		require.NoFileExists(t, p)
	}
	require.FileExists(t, young)
	for _, r := range s.Requests() {
		require.Empty(t, r.Range) // none of them was gone on with
	}
}

// TestChangedOnTheServer: If-Range has the server send the whole file when it is another one by now; one that
// ignores it is caught by its ETag, before a byte is taken.
func TestChangedOnTheServer(t *testing.T) {
	data := noise(23, 300_000)
	for _, ignores := range []bool{false, true} {
		s := repoWith(t, data)
		var ranges, conditions []string
		s.SetHook(func(w http.ResponseWriter, r *http.Request, storage bool) bool {
			if !storage {
				return false
			}
			ranges, conditions = append(ranges, r.Header.Get("Range")), append(conditions, r.Header.Get("If-Range"))
			etag := `"one"`
			if len(ranges) > 1 {
				etag = `"two"`
			}
			w.Header().Set("ETag", etag)
			switch {
			case len(ranges) == 1:
				w.Header().Set("Content-Length", strconv.Itoa(len(data)))
				_, _ = (&cutter{w, 100_000}).Write(data)
			case ignores && len(ranges) == 2:
				w.Header().Set("Content-Range", fmt.Sprintf("bytes 100000-%d/%d", len(data)-1, len(data)))
				w.WriteHeader(206)
				_, _ = w.Write(data[100_000:])
			default:
				http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(data))
			}
			return true
		})
		before := len(logged.String())
		require.NoError(t, get(t, client(t, s, Options{}), data))
		want := []string{"", "bytes=100000-299999"}
		if ignores {
			want = append(want, "") // once more, whole
		}
		require.Equal(t, ignores, strings.Contains(logged.String()[before:], "the file changed on the server"))
		require.Equal(t, want, ranges)
		require.Equal(t, `"one"`, conditions[1])
	}
}

// get2 is get without the look for litter.
func get2(t testing.TB, c *Client, want []byte) error {
	p, err := resolve(t, c, Repo{ID: "org/name"}).File(t.Context(), weights)
	if err != nil {
		return err
	}
	got, err := os.ReadFile(p)
	require.NoError(t, err)
	require.Equal(t, want, got)
	return nil
}

// TestDamagedResume: a leftover whose content is wrong costs one more transfer, no more.
func TestDamagedResume(t *testing.T) {
	data := noise(13, 100_000)
	s := repoWith(t, data)
	etag := hubtest.Etag(weights, data)
	cache := t.TempDir()
	blobs := filepath.Join(cache, "models--org--name", "blobs")
	require.NoError(t, os.MkdirAll(blobs, 0o755))
	require.NoError(t, os.WriteFile(filepath.Join(blobs, etag+".x"+partSuffix), make([]byte, 50_000), 0o644))
	require.NoError(t, os.WriteFile(filepath.Join(blobs, etag+".x"+stateSuffix),
		fmt.Appendf(nil, `{"etag": %q, "size": %d, "host": %q, "done": [[0, 50000]]}`, etag, len(data), hostName()), 0o644))
	require.NoError(t, get(t, client(t, s, Options{CacheDir: cache}), data))
	var got []string
	for _, r := range s.Requests() {
		if r.Storage {
			got = append(got, r.Range)
		}
	}
	require.Equal(t, []string{"bytes=50000-99999", ""}, got)
}

// TestLinksOutOfTheCache: a link that someone put into the cache is not followed out of it.
func TestLinksOutOfTheCache(t *testing.T) {
	s := repoWith(t, noise(1, 100))
	c := client(t, s, Options{})
	snap := resolve(t, c, Repo{ID: "org/name"})
	outside := filepath.Join(t.TempDir(), "secret")
	require.NoError(t, os.WriteFile(outside, []byte("x"), 0o644))
	require.NoError(t, os.MkdirAll(snap.Dir(), 0o755))
	require.NoError(t, os.Symlink(outside, filepath.Join(snap.Dir(), "config.json")))
	_, err := snap.File(t.Context(), "config.json")
	require.ErrorIs(t, err, ErrPath)
	// The blobs folder itself.
	require.NoError(t, os.Symlink(t.TempDir(), filepath.Join(c.CacheDir(), "models--org--name", "blobs")))
	_, err = snap.File(t.Context(), weights)
	require.Error(t, err)
	require.NoFileExists(t, filepath.Join(snap.Dir(), weights))

	// A whole repository that is kept elsewhere is fine, and so is Python's store of shared blobs.
	other := t.TempDir()
	c = client(t, s, Options{})
	require.NoError(t, os.Symlink(other, filepath.Join(c.CacheDir(), "models--org--name")))
	_, err = resolve(t, c, Repo{ID: "org/name"}).File(t.Context(), weights)
	require.NoError(t, err)
	c = client(t, s, Options{})
	snap = resolve(t, c, Repo{ID: "org/name"})
	hash := strings.Repeat("ab", 32)
	require.NoError(t, os.MkdirAll(filepath.Join(c.CacheDir(), "blobs", "ab"), 0o755))
	require.NoError(t, os.WriteFile(filepath.Join(c.CacheDir(), "blobs", "ab", hash), []byte("shared"), 0o444))
	require.NoError(t, os.MkdirAll(snap.Dir(), 0o755))
	require.NoError(t, os.MkdirAll(filepath.Join(c.CacheDir(), "models--org--name", "blobs"), 0o755))
	require.NoError(t, os.Symlink("../../blobs/ab/"+hash, filepath.Join(c.CacheDir(), "models--org--name", "blobs", "e")))
	require.NoError(t, os.Symlink("../../blobs/e", filepath.Join(snap.Dir(), "shared.bin")))
	p, err := snap.File(t.Context(), "shared.bin")
	require.NoError(t, err)
	require.FileExists(t, p)
	// Beside a store, too, no link leads past it.
	for name, to := range map[string]string{"absolute": outside, "relative": "../../blobs/ab/../../../" + filepath.Base(filepath.Dir(outside)) + "/secret"} {
		require.NoError(t, os.Symlink(to, filepath.Join(c.CacheDir(), "models--org--name", "blobs", name)))
		require.NoError(t, os.Symlink("../../blobs/"+name, filepath.Join(snap.Dir(), name)))
		_, err = snap.File(t.Context(), name)
		require.ErrorIs(t, err, ErrPath, name)
	}
}

func TestRemoteFile(t *testing.T) {
	data := noise(14, 1<<20)
	s := repoWith(t, data)
	c := client(t, s, Options{})
	snap := resolve(t, c, Repo{ID: "org/name"})
	check := func() {
		f, err := snap.Open(t.Context(), weights)
		require.NoError(t, err)
		require.Equal(t, int64(len(data)), f.Size())
		for _, r := range [][2]int{{0, 8}, {8, 1000}, {300_000, 400_000}, {len(data) - 5, 5}, {0, len(data)}} {
			p := make([]byte, r[1])
			n, err := f.ReadAt(p, int64(r[0]))
			require.NoError(t, err)
			require.Equal(t, r[1], n)
			require.Equal(t, data[r[0]:r[0]+r[1]], p)
		}
		_, err = f.ReadAt(make([]byte, 10), int64(len(data)-5))
		require.Error(t, err)
	}
	s.Forget()
	check()
	require.Len(t, s.Requests(), 5) // HEAD and four parts: the second read was there already
	n := 0
	s.SetHook(func(w http.ResponseWriter, r *http.Request, storage bool) bool { // no ranges, and trouble now and then
		if !storage {
			return false
		}
		if n++; n%2 == 1 {
			w.WriteHeader(503)
			return true
		}
		r.Header.Del("Range")
		return false
	})
	check()
	_, err := snap.Open(t.Context(), "none")
	require.ErrorIs(t, err, ErrEntryNotFound)
	require.NoFileExists(t, filepath.Join(snap.Dir(), weights))
}

// TestRemoteFileOfOtherRanges: nothing proves a part but who reads it, so it has to be the very one that was asked for.
func TestRemoteFileOfOtherRanges(t *testing.T) {
	data := noise(16, 1<<20)
	for span, part := range map[string][]byte{
		"bytes 999-263143/1048576":  data[999:263_143],
		"bytes 1000-263143/1048577": data[1000:263_144],
		"bytes 1000-263142/1048576": data[1000:263_143],
		"":                          data[1000:263_144],
	} {
		s := repoWith(t, data)
		s.SetHook(func(w http.ResponseWriter, r *http.Request, storage bool) bool {
			if !storage || r.Method != http.MethodGet {
				return false
			}
			w.Header().Set("Content-Range", span)
			w.WriteHeader(http.StatusPartialContent)
			_, _ = w.Write(part)
			return true
		})
		f, err := resolve(t, client(t, s, Options{}), Repo{ID: "org/name"}).Open(t.Context(), weights)
		require.NoError(t, err)
		_, err = f.ReadAt(make([]byte, 10), 1000)
		require.ErrorIs(t, err, ErrNotHub, span)
		require.ErrorContains(t, err, "asked for bytes 1000-263143 of 1048576")
	}
}

// TestListNamesAFileTwice: on one page or on two, it isn't known which of them is meant.
func TestListNamesAFileTwice(t *testing.T) {
	entry := `{"type": "file", "path": "a", "oid": "` + strings.Repeat("a", 40) + `", "size": 2}`
	for _, pages := range [][]string{{"[" + entry + ", " + entry + "]"}, {"[" + entry + "]", "[" + entry + "]"}} {
		s := hubtest.New(t)
		n := 0
		s.SetHook(func(w http.ResponseWriter, r *http.Request, _ bool) bool {
			w.Header().Set("Content-Type", "application/json")
			if n++; n < len(pages) {
				w.Header().Set("Link", `</more>; rel="next"`)
			}
			_, _ = w.Write([]byte(pages[n-1]))
			return true
		})
		_, err := resolve(t, client(t, s, Options{}), Repo{ID: "org/name", Revision: strings.Repeat("c", 40)}).List(t.Context())
		require.ErrorIs(t, err, ErrConflict)
		require.ErrorContains(t, err, `"a" twice`)
	}
}

// TestParallelRanges: where a connection is slow, several are faster.
func TestParallelRanges(t *testing.T) {
	if testing.Short() {
		t.Skip("measures time")
	}
	data := noise(15, 4<<20)
	s := repoWith(t, data)
	s.SetHook(slow(s, 2<<20))
	took := func(step int64) time.Duration {
		c := client(t, s, Options{segment: step})
		start := time.Now()
		require.NoError(t, get(t, c, data))
		return time.Since(start)
	}
	one, several := took(0), took(512<<10)
	t.Logf("4 MiB at 2 MiB/s a connection: one %v, several %v", one, several)
	require.Less(t, several, one*2/3)
}

// TestOneQuestionForAllParts: the parts of a large file come from one address, which is asked for again when
// it has expired.
func TestOneQuestionForAllParts(t *testing.T) {
	data := noise(22, 1<<20)
	s := repoWith(t, data)
	var n atomic.Int64
	expired := func(w http.ResponseWriter, _ *http.Request, storage bool) bool {
		if storage && n.Add(1) == 3 {
			w.WriteHeader(403)
			return true
		}
		return false
	}
	for _, listed := range []bool{false, true} {
		c := client(t, s, Options{segment: 100_000, Workers: 2})
		snap := resolve(t, c, Repo{ID: "org/name"})
		if listed {
			_, err := snap.List(t.Context())
			require.NoError(t, err)
		}
		s.Forget()
		n.Store(0)
		s.SetHook(expired)
		_, err := snap.File(t.Context(), weights)
		require.NoError(t, err)
		s.SetHook(nil)
		asked, parts := 0, 0
		for _, r := range s.Requests() {
			if r.Storage {
				parts++
			} else {
				asked++
			}
		}
		require.Equal(t, 2, asked)
		require.Equal(t, 12, parts) // 11, and the one that was refused
		noLitter(t, c.CacheDir())
	}
}

// TestMirrors: hubs that serve files and little else, and whose ETags are their own.
func TestMirrors(t *testing.T) {
	body := []byte("some text")
	commit := strings.Repeat("c", 40)
	for name, c := range map[string]struct {
		etag, linked string
		class        error
	}{
		"own":              {`"0123456789abcdef0123456789abcdef"`, "", nil},
		"weak":             {`W/"` + hubtest.Etag("a.txt", body) + `"`, "", nil},
		"linked no sha":    {`"x"`, `"x"`, ErrNotHub},
		"path":             {`"../x"`, "", ErrNotHub},
		"none":             {"", "", ErrNotHub},
		"of other content": {`"` + hubtest.Etag("a.txt", []byte("other")) + `"`, "", ErrChecksum},
	} {
		t.Run(name, func(t *testing.T) {
			s := hubtest.New(t)
			s.SetHook(func(w http.ResponseWriter, r *http.Request, _ bool) bool {
				if !strings.Contains(r.URL.Path, "/resolve/") {
					w.WriteHeader(http.StatusNotFound)
					return true
				}
				w.Header().Set("X-Repo-Commit", commit)
				w.Header().Set("ETag", c.etag)
				if c.linked != "" {
					w.Header().Set("X-Linked-Etag", c.linked)
				}
				w.Header().Set("Content-Length", strconv.Itoa(len(body)))
				if r.Method == http.MethodGet {
					_, _ = w.Write(body)
				}
				return true
			})
			snap := resolve(t, client(t, s, Options{}), Repo{ID: "org/name"})
			require.Equal(t, commit, snap.Commit)
			p, err := snap.File(t.Context(), "a.txt")
			if c.class != nil {
				require.ErrorIs(t, err, c.class)
				return
			}
			require.NoError(t, err)
			got, err := os.ReadFile(p)
			require.NoError(t, err)
			require.Equal(t, body, got)
		})
	}
	require.Contains(t, logged.String(), "can't be verified")
}

// TestRangesWithoutAHash: where no hash proves the content, a part of another place or another file is never put
// beside what has come: all comes anew. A weak ETag does not tell contents apart (RFC 9110, 13.1.5): it is no condition.
func TestRangesWithoutAHash(t *testing.T) {
	body := noise(9, 400_000)
	commit := strings.Repeat("c", 40)
	for name, c := range map[string]struct {
		span, etag string
		part       []byte
		asked      []string
	}{
		"another start": {"bytes 99999-399999/400000", `"mine"`, body[99_999:399_999], []string{"", `bytes=100000-399999 if "mine"`, ""}},
		"another total": {"bytes 100000-399999/400001", `"mine"`, make([]byte, 300_000), []string{"", `bytes=100000-399999 if "mine"`, ""}},
		"another ETag":  {"bytes 100000-399999/400000", `"other"`, make([]byte, 300_000), []string{"", `bytes=100000-399999 if "mine"`, ""}},
		"weak":          {"bytes 100000-399999/400000", `W/"mine"`, body[100_000:], []string{"", `bytes=100000-399999`}},
	} {
		t.Run(name, func(t *testing.T) {
			s := hubtest.New(t)
			var asked []string
			s.SetHook(func(w http.ResponseWriter, r *http.Request, _ bool) bool {
				if !strings.Contains(r.URL.Path, "/resolve/") {
					w.WriteHeader(http.StatusNotFound)
					return true
				}
				h := w.Header()
				h.Set("X-Repo-Commit", commit)
				h.Set("ETag", `"mine"`)
				if name == "weak" {
					h.Set("ETag", c.etag)
				}
				h.Set("Content-Length", strconv.Itoa(len(body)))
				if r.Method != http.MethodGet {
					return true
				}
				question := r.Header.Get("Range")
				if condition := r.Header.Get("If-Range"); condition != "" {
					question += " if " + condition
				}
				switch asked = append(asked, question); len(asked) {
				case 1:
					_, _ = w.Write(body[:100_000])
					panic(http.ErrAbortHandler)
				case 2:
					h.Set("ETag", c.etag)
					h.Set("Content-Range", c.span)
					h.Set("Content-Length", strconv.Itoa(len(c.part)))
					w.WriteHeader(http.StatusPartialContent)
					_, _ = w.Write(c.part)
				default:
					_, _ = w.Write(body)
				}
				return true
			})
			p, err := resolve(t, client(t, s, Options{}), Repo{ID: "org/name"}).File(t.Context(), "a.bin")
			require.NoError(t, err)
			got, err := os.ReadFile(p)
			require.NoError(t, err)
			require.True(t, bytes.Equal(body, got))
			require.Equal(t, c.asked, asked)
		})
	}
}

// TestSpans: what is missing is divided into spans side by side, into a bounded number however large the hub says that
// the file is.
func TestSpans(t *testing.T) {
	for _, size := range []int64{0, 1, 99, 100, 101, 1 << 40, 1<<63 - 1} {
		p := &partial{size: size}
		todo := p.missing(100)
		require.LessOrEqual(t, len(todo), maxSpans+1)
		at := int64(0)
		for _, s := range todo {
			require.Equal(t, []int64{at, at}, []int64{s.start, s.at})
			require.Greater(t, s.end, s.start)
			if size < 1000 {
				require.LessOrEqual(t, s.end-s.start, int64(100))
			}
			at = s.end
		}
		require.Equal(t, size, at)
	}
}

// TestVerifyingIsCancelled: hashing a large file takes a while.
func TestVerifyingIsCancelled(t *testing.T) {
	data := noise(17, 1000)
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "x"), data, 0o644))
	f, err := os.Open(filepath.Join(dir, "x"))
	require.NoError(t, err)
	defer f.Close()
	p := &partial{file: f, etag: hubtest.Etag(weights, data), size: int64(len(data))}
	require.NoError(t, p.verify(t.Context(), "x"))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	require.ErrorIs(t, p.verify(ctx, "x"), context.Canceled)
}
