package hub

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/torchgo/torchgo/internal/hubtest"
)

// childDownload is what TestMain does in a process that a test has started.
func childDownload() {
	c, err := New(Options{Endpoint: os.Getenv("HUB_TEST_URL"), CacheDir: os.Getenv("HUB_TEST_CACHE"), noFlock: os.Getenv("HUB_TEST_NO_FLOCK") != "",
		segment: 64 << 10, unit: 10 * time.Millisecond})
	if err == nil {
		var s *Snapshot
		if s, err = c.Resolve(context.Background(), Repo{ID: "org/name"}); err == nil {
			_, err = s.Download(context.Background(), Filter{})
		}
	}
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
}

func child(t *testing.T, s *hubtest.Server, cache string, noFlock bool) *exec.Cmd {
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "HUB_TEST_CHILD=1", "HUB_TEST_URL="+s.URL, "HUB_TEST_CACHE="+cache)
	if noFlock {
		cmd.Env = append(cmd.Env, "HUB_TEST_NO_FLOCK=1")
	}
	return cmd
}

// TestManyDownloadOnce: processes and goroutines that want the same model at once all get it, and there is
// one copy. Where locks work, it is transferred once.
func TestManyDownloadOnce(t *testing.T) {
	for name, noFlock := range map[string]bool{"locks": false, "no locks": true} {
		t.Run(name, func(t *testing.T) {
			s := hubtest.New(t)
			files := fileMap()
			commit := s.Commit("org/name", files)
			cache := t.TempDir()
			var wg sync.WaitGroup
			processes := 16
			if testing.Short() {
				processes = 4
			}
			for range processes {
				wg.Go(func() {
					out, err := child(t, s, cache, noFlock).CombinedOutput()
					if err != nil {
						t.Errorf("%v: %s", err, out)
					}
				})
			}
			for range 16 {
				wg.Go(func() {
					c := client(t, s, Options{CacheDir: cache, noFlock: noFlock})
					snap, err := c.Resolve(t.Context(), Repo{ID: "org/name"})
					if err == nil {
						_, err = snap.Download(t.Context(), Filter{})
					}
					if err != nil {
						t.Error(err)
					}
				})
			}
			wg.Wait()
			noLitter(t, cache)
			blobs, err := os.ReadDir(filepath.Join(cache, "models--org--name", "blobs"))
			require.NoError(t, err)
			require.Len(t, blobs, len(files)-1) // two have the same content
			for name, want := range files {
				got, err := os.ReadFile(filepath.Join(cache, "models--org--name", "snapshots", commit, name))
				require.NoError(t, err)
				require.Equal(t, want, got)
			}
			if noFlock {
				return
			}
			gets, ranges := 0, map[string]int{}
			for _, r := range s.Requests() {
				if r.Storage && r.Method == "GET" {
					gets++
					ranges[r.Range]++
				}
			}
			for r, n := range ranges {
				require.Equal(t, 1, n, "range %q was fetched %d times", r, n)
			}
			require.Positive(t, gets)
		})
	}
}

// TestLockThatIsRemoved: who gets the lock of a file that was removed meanwhile doesn't have the lock.
func TestLockThatIsRemoved(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	first, reliable, err := lockFile(t.Context(), path, false)
	require.NoError(t, err)
	require.True(t, reliable)
	got := make(chan func())
	go func() {
		unlock, reliable, err := lockFile(t.Context(), path, false)
		if err != nil || !reliable {
			t.Errorf("%v %v", reliable, err)
		}
		got <- unlock
	}()
	time.Sleep(30 * time.Millisecond) // it waits
	require.NoError(t, os.Remove(path))
	third, reliable, err := lockFile(t.Context(), path, false) // a new file
	require.NoError(t, err)
	require.True(t, reliable)
	first()
	select {
	case <-got:
		t.Fatal("two have the lock")
	case <-time.After(500 * time.Millisecond):
	}
	third()
	(<-got)()
}

// TestKilledDownload: a process that is killed while it downloads leaves what the next one goes on with.
func TestKilledDownload(t *testing.T) {
	if testing.Short() {
		t.Skip("starts processes")
	}
	s := hubtest.New(t)
	files := map[string][]byte{"model.safetensors": noise(9, 16<<20)}
	commit := s.Commit("org/name", files)
	cache := t.TempDir()
	s.SetHook(slow(s, 512<<10))
	// got is what the sidecar says has come.
	got := func() (n int64) {
		states, err := filepath.Glob(filepath.Join(cache, "models--org--name", "blobs", "*"+stateSuffix))
		require.NoError(t, err)
		require.LessOrEqual(t, len(states), 1)
		for _, p := range states {
			data, err := os.ReadFile(p)
			if err != nil {
				return 0
			}
			st, err := parseState(data)
			require.NoError(t, err) // never torn
			for _, d := range st.Done {
				n += d[1] - d[0]
			}
		}
		return n
	}
	saved := int64(0)
	for range 3 {
		cmd := child(t, s, cache, false)
		require.NoError(t, cmd.Start())
		for end := time.Now().Add(20 * time.Second); got() <= saved && time.Now().Before(end); {
			time.Sleep(5 * time.Millisecond)
		}
		require.NoError(t, cmd.Process.Kill())
		_ = cmd.Wait()
		require.NoFileExists(t, filepath.Join(cache, "models--org--name", "snapshots", commit, "model.safetensors"))
		require.Greater(t, got(), saved)
		saved = got()
	}
	require.Positive(t, saved)
	s.SetHook(nil)
	s.Forget()
	c := client(t, s, Options{CacheDir: cache})
	p, err := resolve(t, c, Repo{ID: "org/name"}).File(t.Context(), "model.safetensors")
	require.NoError(t, err)
	data, err := os.ReadFile(p)
	require.NoError(t, err)
	require.Equal(t, files["model.safetensors"], data)
	noLitter(t, cache)
	ranges := 0
	for _, r := range s.Requests() {
		if strings.HasPrefix(r.Range, "bytes=") {
			ranges++
		}
	}
	require.Positive(t, ranges, "it did not go on where it stopped")
}

// TestProxy: the environment's proxy is used, and a token doesn't travel in clear text over it.
func TestProxy(t *testing.T) {
	s := hubtest.New(t)
	s.Token = theToken
	files := fileMap()
	commit := s.Commit("org/name", files)
	cache := t.TempDir()
	cmd := child(t, s, cache, false)
	cmd.Env = append(cmd.Env, "HUB_TEST_URL=http://hub.test", "HTTP_PROXY="+s.URL, "NO_PROXY=", "HF_TOKEN="+theToken)
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, string(out))
	require.FileExists(t, filepath.Join(cache, "models--org--name", "snapshots", commit, "config.json"))
	require.NotEmpty(t, s.Requests())
	for _, r := range s.Requests() {
		require.Empty(t, r.Token)
	}
	cmd = child(t, s, t.TempDir(), false)
	cmd.Env = append(cmd.Env, "HUB_TEST_URL=http://hub.test", "HTTP_PROXY="+s.URL, "NO_PROXY=hub.test")
	out, err = cmd.CombinedOutput()
	require.Error(t, err, "there is no such host")
	require.Contains(t, string(out), "the hub can't be reached")
}
