package hub

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/torchgo/torchgo/internal/hubtest"
	"github.com/torchgo/torchgo/internal/testdata"
)

// sent is a request as tools/hubref records it.
type sent struct {
	Method, Path string
	Body         any
	Storage      bool
}

func (s sent) line(t testing.TB) string {
	data, err := json.Marshal(s)
	require.NoError(t, err)
	return string(data)
}

// parseSent reads what was sent: a document, or one a line.
func parseSent(body []byte) any {
	var v any
	if json.Unmarshal(body, &v) == nil {
		return v
	}
	var list []any
	for line := range bytes.Lines(body) {
		var v any
		if json.Unmarshal(line, &v) != nil {
			return nil
		}
		list = append(list, v)
	}
	return list
}

// TestPushesWhatPythonPushes: commit by commit the requests that huggingface_hub made for the same.
func TestPushesWhatPythonPushes(t *testing.T) {
	dir := testdata.Open(t, "hub")
	var steps []struct {
		Repo, Message, Description, Revision string
		CreatePR                             bool `json:"create_pr"`
		Private                              *bool
		Files                                json.RawMessage
		Requests                             []sent
	}
	readJSON(t, &steps, dir, "push.json")
	require.Len(t, steps, 6)
	s := hubtest.New(t)
	s.Token = theToken
	var mu sync.Mutex
	var got []string
	s.SetHook(func(_ http.ResponseWriter, r *http.Request, storage bool) bool {
		if r.Method != "POST" && r.Method != "PUT" {
			return false
		}
		body, _ := io.ReadAll(r.Body)
		r.Body = io.NopCloser(bytes.NewReader(body))
		uri := strings.NewReplacer("?X-Signature=SIGNED-SECRET", "", "&X-Signature=SIGNED-SECRET", "").Replace(r.URL.RequestURI())
		x := sent{r.Method, uri, parseSent(body), storage}
		if storage {
			sum := sha256.Sum256(body)
			x.Body = hex.EncodeToString(sum[:])
		}
		mu.Lock()
		defer mu.Unlock()
		got = append(got, x.line(t))
		return false
	})
	c := client(t, s, Options{Token: NewToken(theToken)})
	for _, step := range steps {
		got = nil
		id, err := c.CreateRepo(t.Context(), Repo{ID: step.Repo}, step.Private)
		require.NoError(t, err)
		r := Repo{ID: id, Revision: step.Revision}
		if step.Revision != "" {
			require.NoError(t, c.CreateBranch(t.Context(), r, step.Revision))
		}
		var files []Upload
		d := json.NewDecoder(bytes.NewReader(step.Files)) // in order
		_, err = d.Token()
		require.NoError(t, err)
		for d.More() {
			name, err := d.Token()
			require.NoError(t, err)
			file, err := d.Token()
			require.NoError(t, err)
			files = append(files, Upload{name.(string), filepath.Join(dir, "files", file.(string))})
		}
		info, err := c.Commit(t.Context(), r, files, CommitOptions{Message: step.Message, Description: step.Description, CreatePR: step.CreatePR})
		require.NoError(t, err)
		require.True(t, IsCommit(info.Commit))
		require.Equal(t, step.CreatePR, info.PullRequest != "")
		var want []string
		for _, r := range step.Requests {
			want = append(want, r.line(t))
		}
		slices.Sort(want)
		slices.Sort(got)
		require.Equal(t, want, got, step.Message)

		// And what was pushed comes back.
		if step.CreatePR {
			r.Revision = "refs/pr/1"
		}
		snap, err := client(t, s, Options{Token: NewToken(theToken)}).Resolve(t.Context(), r)
		require.NoError(t, err)
		require.Equal(t, info.Commit, snap.Commit)
		for _, f := range files {
			if strings.HasSuffix(f.Name, ".ignored") {
				continue
			}
			p, err := snap.File(t.Context(), f.Name)
			require.NoError(t, err)
			a, err := os.ReadFile(p)
			require.NoError(t, err)
			b, err := os.ReadFile(f.Path)
			require.NoError(t, err)
			require.Equal(t, b, a, f.Name)
		}
	}
	for _, r := range s.Requests() {
		require.Equal(t, !r.Storage, r.Token == theToken)
	}
}

func TestPushFails(t *testing.T) {
	s := hubtest.New(t)
	s.Token = theToken
	dir := t.TempDir()
	a, b := filepath.Join(dir, "a"), filepath.Join(dir, "b")
	require.NoError(t, os.WriteFile(a, []byte("text"), 0o644))
	require.NoError(t, os.WriteFile(b, noise(1, 250), 0o644))
	files := []Upload{{"a.txt", a}, {"b.bin", b}}
	c := client(t, s, Options{Token: NewToken(theToken)})
	_, err := c.CreateRepo(t.Context(), Repo{ID: "org/name"}, nil)
	require.NoError(t, err)
	r := Repo{ID: "org/name"}

	_, err = client(t, s, Options{NoToken: true}).Commit(t.Context(), r, files, CommitOptions{})
	require.ErrorIs(t, err, ErrUnauthorized)
	_, err = client(t, s, Options{Token: NewToken("hf_wrong")}).Commit(t.Context(), r, files, CommitOptions{})
	require.ErrorIs(t, err, ErrUnauthorized)
	_, err = client(t, s, Options{Token: NewToken(theToken), Offline: true}).Commit(t.Context(), r, files, CommitOptions{})
	require.ErrorIs(t, err, ErrOffline)
	for _, bad := range [][]Upload{{{"../a", a}}, {{"a", filepath.Join(dir, "none")}}, {{"a", a}, {"a", b}}, {{"a", dir}}} {
		_, err = c.Commit(t.Context(), r, bad, CommitOptions{})
		require.Error(t, err)
	}

	// A storage that fails now and then, and a commit that must not be made twice.
	n, commits := 0, 0
	var mu sync.Mutex
	s.SetHook(func(w http.ResponseWriter, r *http.Request, storage bool) bool {
		mu.Lock()
		defer mu.Unlock()
		if strings.Contains(r.URL.Path, "/commit/") {
			commits++
			w.WriteHeader(500)
			return true
		}
		if n++; storage && n%2 == 0 {
			_, _ = io.CopyN(io.Discard, r.Body, 10)
			w.WriteHeader(503)
			return true
		}
		return false
	})
	_, err = c.Commit(t.Context(), r, files, CommitOptions{})
	require.ErrorIs(t, err, ErrUnavailable)
	require.Equal(t, 1, commits)
	s.SetHook(nil)
	info, err := c.Commit(t.Context(), r, files, CommitOptions{})
	require.NoError(t, err)
	require.True(t, IsCommit(info.Commit))
	again, err := c.Commit(t.Context(), r, files, CommitOptions{})
	require.NoError(t, err)
	require.Equal(t, &CommitInfo{}, again)

	// A storage elsewhere gets no token; a hub that sends to plain http is refused.
	for _, x := range s.Requests() {
		if x.Storage {
			require.Empty(t, x.Token)
		}
	}
	for _, answer := range []string{
		`{"objects": [{"oid": "` + hubtest.Etag(".bin", noise(2, 250)) + `", "error": {"code": 403, "message": "too\nlarge"}}]}`, `{"objects": []}`, `<html>`, `{"objects": 3}`,
		`{"objects": [{"oid": "` + hubtest.Etag(".bin", noise(2, 250)) + `", "actions": {"upload": {"href": "file:///x"}}}]}`,
		`{"objects": [{"oid": "` + hubtest.Etag(".bin", noise(2, 250)) + `", "actions": {"upload": {"href": "` + s.URL + `", "header": {"chunk_size": "0"}}}}]}`,
		`{"objects": [{"oid": "` + hubtest.Etag(".bin", noise(2, 250)) + `", "actions": {"upload": {"href": "` + s.URL + `", "header": {"chunk_size": 100, "1": "x"}}}}]}`,
		`{"objects": [{"oid": "` + hubtest.Etag(".bin", noise(2, 250)) + `", "actions": {"upload": {"href": "` + s.URL + `", "header": {"chunk_size": "9223372036854775807"}}}}]}`,
	} {
		require.NoError(t, os.WriteFile(b, noise(2, 250), 0o644))
		s.SetHook(func(w http.ResponseWriter, r *http.Request, _ bool) bool {
			if strings.HasSuffix(r.URL.Path, "/batch") {
				_, _ = io.WriteString(w, answer)
				return true
			}
			return false
		})
		_, err = c.Commit(t.Context(), r, files, CommitOptions{})
		require.Error(t, err, answer)
		require.NotContains(t, err.Error(), "\n")
		if strings.Contains(answer, "9223372036854775807") {
			require.ErrorContains(t, err, "0 addresses for 250 bytes")
		}
	}
}
