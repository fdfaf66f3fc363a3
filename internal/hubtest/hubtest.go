// Package hubtest is a small Hugging Face hub for tests: repositories with commits and branches, the parts
// of its interface that downloads use, and a storage of another origin for large files, as the real one has.
// It can be told to misbehave.
package hubtest

import (
	"bytes"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// Request is one that a Server got.
type Request struct {
	Method, Path string
	Range        string
	Token        string // of the Authorization header
	Storage      bool   // it went to the storage
}

// Hook sees each request first; true says that it has answered.
type Hook func(w http.ResponseWriter, r *http.Request, storage bool) bool

// Server is a hub. Set its fields before the first request.
type Server struct {
	URL     string
	Storage string // address of the storage

	Token    string // what requests to private and gated repositories need
	PageSize int    // entries of a page of a list of files; default 1000

	mu       sync.Mutex
	hook     Hook
	storage  map[string][]byte // contents of LFS files by their hash
	etags    map[string]string // by commit and name
	parts    map[string]map[string][]byte
	pulls    int
	repos    map[string]*repo
	requests []Request
}

type repo struct {
	commits map[string]map[string][]byte
	refs    map[string]string
	gated   bool
	private bool
	moved   string // 307 to this id
}

// signature is in every address of the storage; nobody may show it.
const signature = "X-Signature=SIGNED-SECRET"

// New starts a hub that ends with the test.
func New(t testing.TB) *Server {
	t.Helper()
	s := &Server{repos: map[string]*repo{}, storage: map[string][]byte{}, etags: map[string]string{}, parts: map[string]map[string][]byte{}}
	main := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { s.serve(w, r, false) }))
	storage := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { s.serve(w, r, true) }))
	t.Cleanup(main.Close)
	t.Cleanup(storage.Close)
	s.URL, s.Storage = main.URL, storage.URL
	return s
}

// Commit adds a commit with these files to a repository, moves main there, and gives its hash. Names that end
// with .safetensors or .bin are stored by LFS.
func (s *Server) Commit(id string, files map[string][]byte) string {
	h := sha1.New()
	fmt.Fprintln(h, id)
	for _, name := range slices.Sorted(maps.Keys(files)) {
		fmt.Fprintf(h, "%s %s\n", name, Etag(name, files[name]))
	}
	commit := hex.EncodeToString(h.Sum(nil))
	s.CommitAs(id, commit, files)
	return commit
}

// CommitAs is Commit with a hash of the caller's choice. The id of a dataset begins with "datasets/".
func (s *Server) CommitAs(id, commit string, files map[string][]byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r := s.repos[id]
	if r == nil {
		r = &repo{commits: map[string]map[string][]byte{}, refs: map[string]string{}}
		s.repos[id] = r
	}
	r.commits[commit] = files
	r.refs["main"] = commit
	for name, data := range files {
		e := Etag(name, data)
		s.etags[commit+"/"+name] = e
		if IsLFS(name) {
			s.storage[e] = data
		}
	}
}

func (s *Server) etag(commit, name string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.etags[commit+"/"+name]
}

// Files are those of a commit.
func (s *Server) Files(id, commit string) map[string][]byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.repos[id].commits[commit]
}

// SetRef makes a branch, a tag or refs/pr/N of a repository a commit.
func (s *Server) SetRef(id, ref, commit string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.repos[id].refs[ref] = commit
}

// Restrict makes a repository private or gated.
func (s *Server) Restrict(id string, private, gated bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.repos[id].private, s.repos[id].gated = private, gated
}

// Move makes the hub redirect an old id to a new one.
func (s *Server) Move(old, id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.repos[old] = &repo{moved: id}
}

// SetHook makes the hub misbehave; nil: behave.
func (s *Server) SetHook(h Hook) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.hook = h
}

// Requests are those so far.
func (s *Server) Requests() []Request {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.requests)
}

// Forget begins a new list of requests.
func (s *Server) Forget() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.requests = nil
}

// Etag is the hash that the hub has for a file.
func Etag(name string, data []byte) string {
	if IsLFS(name) {
		sum := sha256.Sum256(data)
		return hex.EncodeToString(sum[:])
	}
	return gitHash(data)
}

// IsLFS tells whether a file is stored by LFS.
func IsLFS(name string) bool {
	return strings.HasSuffix(name, ".safetensors") || strings.HasSuffix(name, ".bin")
}

func gitHash(data []byte) string {
	h := sha1.New()
	fmt.Fprintf(h, "blob %d\x00", len(data))
	h.Write(data)
	return hex.EncodeToString(h.Sum(nil))
}

func (s *Server) serve(w http.ResponseWriter, r *http.Request, storage bool) {
	token := strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")
	s.mu.Lock()
	s.requests = append(s.requests, Request{r.Method, r.URL.EscapedPath(), r.Header.Get("Range"), token, storage})
	hook := s.hook
	s.mu.Unlock()
	if hook != nil && hook(w, r, storage) {
		return
	}
	s.Answer(w, r, storage)
}

// Answer is what a hub that behaves says.
func (s *Server) Answer(w http.ResponseWriter, r *http.Request, storage bool) {
	switch {
	case r.Method == http.MethodPost:
		s.push(w, r)
		return
	case storage && r.Method == http.MethodPut:
		s.store(w, r)
		return
	case storage:
		s.fromStorage(w, r)
		return
	}
	token := strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")
	parts := strings.Split(strings.TrimPrefix(r.URL.EscapedPath(), "/"), "/")
	for i := range parts {
		parts[i], _ = url.PathUnescape(parts[i])
	}
	api := len(parts) > 1 && parts[0] == "api"
	if api {
		parts = parts[1:]
		if parts[0] == "models" {
			parts = parts[1:]
		}
	}
	verb := slices.IndexFunc(parts, func(p string) bool { return p == "resolve" || p == "revision" || p == "tree" })
	if verb < 1 || verb+1 >= len(parts) {
		http.NotFound(w, r)
		return
	}
	id, what, revision, rest := strings.Join(parts[:verb], "/"), parts[verb], parts[verb+1], strings.Join(parts[verb+2:], "/")
	s.mu.Lock()
	re := s.repos[id]
	var commit string
	var files map[string][]byte
	if re != nil {
		if commit = re.refs[revision]; commit == "" {
			commit = revision
		}
		files = re.commits[commit]
	}
	s.mu.Unlock()
	fail := func(status int, code, message string) {
		w.Header().Set("X-Error-Code", code)
		w.Header().Set("X-Error-Message", message)
		w.WriteHeader(status)
	}
	switch {
	case re != nil && re.moved != "":
		w.Header().Set("Location", strings.Replace(r.URL.RequestURI(), id, re.moved, 1))
		w.WriteHeader(http.StatusTemporaryRedirect)
		return
	case token != "" && token != s.Token:
		fail(http.StatusUnauthorized, "", "Invalid credentials in Authorization header")
		return
	case re == nil || re.private && token == "":
		fail(http.StatusUnauthorized, "RepoNotFound", "Repository not found")
		return
	case re.gated && token == "" && what == "resolve":
		fail(http.StatusForbidden, "GatedRepo", "Access to model "+id+" is restricted")
		return
	case files == nil:
		fail(http.StatusNotFound, "RevisionNotFound", "Invalid rev id: "+revision)
		return
	}
	switch what {
	case "revision":
		writeJSON(w, map[string]any{"id": id, "sha": commit, "private": re.private, "siblings": []any{}})
	case "tree":
		s.tree(w, r, files)
	case "resolve":
		s.file(w, r, commit, rest, files)
	}
}

func writeJSON(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	_ = json.NewEncoder(w).Encode(v)
}

func (s *Server) tree(w http.ResponseWriter, r *http.Request, files map[string][]byte) {
	size := s.PageSize
	if size == 0 {
		size = 1000
	}
	names := slices.Sorted(maps.Keys(files))
	from, _ := strconv.Atoi(r.URL.Query().Get("cursor"))
	to := min(from+size, len(names))
	list := []any{}
	folders := map[string]bool{}
	for _, name := range names[min(from, len(names)):to] {
		if dir, _, ok := strings.Cut(name, "/"); ok && !folders[dir] {
			folders[dir] = true
			list = append(list, map[string]any{"type": "directory", "oid": gitHash([]byte(dir)), "size": 0, "path": dir})
		}
		e := map[string]any{"type": "file", "oid": gitHash(files[name]), "size": len(files[name]), "path": name}
		if IsLFS(name) {
			e["oid"] = gitHash([]byte(Etag(name, files[name])))
			e["lfs"] = map[string]any{"oid": Etag(name, files[name]), "size": len(files[name]), "pointerSize": 134}
		}
		list = append(list, e)
	}
	if to < len(names) {
		q := r.URL.Query()
		q.Set("cursor", strconv.Itoa(to))
		w.Header().Set("Link", fmt.Sprintf(`<%s%s?%s>; rel="next"`, s.URL, r.URL.EscapedPath(), q.Encode()))
	}
	writeJSON(w, list)
}

func (s *Server) file(w http.ResponseWriter, r *http.Request, commit, name string, files map[string][]byte) {
	w.Header().Set("X-Repo-Commit", commit)
	data, ok := files[name]
	if !ok {
		w.Header().Set("X-Error-Code", "EntryNotFound")
		w.Header().Set("X-Error-Message", "Entry not found")
		w.WriteHeader(http.StatusNotFound)
		return
	}
	etag := s.etag(commit, name)
	if IsLFS(name) {
		w.Header().Set("X-Linked-Etag", `"`+etag+`"`)
		w.Header().Set("X-Linked-Size", strconv.Itoa(len(data)))
		w.Header().Set("Location", s.Storage+"/"+etag+"?"+signature)
		w.WriteHeader(http.StatusFound)
		return
	}
	w.Header().Set("ETag", `"`+etag+`"`)
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(data))
}

func (s *Server) fromStorage(w http.ResponseWriter, r *http.Request) {
	etag := strings.TrimPrefix(r.URL.Path, "/")
	s.mu.Lock()
	data, ok := s.storage[etag]
	s.mu.Unlock()
	if !ok || r.URL.RawQuery != signature {
		w.WriteHeader(http.StatusForbidden)
		return
	}
	w.Header().Set("ETag", `"storage-`+etag[:8]+`"`)
	w.Header().Set("Content-Type", "application/octet-stream")
	http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(data))
}
