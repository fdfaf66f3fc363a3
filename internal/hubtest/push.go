package hubtest

import (
	"bufio"
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"strconv"
	"strings"
)

// partBytes is how much of a large content goes in one request; more than this is large.
const partBytes = 100

// push answers what a client asks that uploads.
func (s *Server) push(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	if token := strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer "); s.Token == "" || token != s.Token {
		w.Header().Set("X-Error-Message", "Invalid credentials in Authorization header")
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	path := strings.TrimPrefix(r.URL.EscapedPath(), "/")
	switch {
	case path == "api/repos/create":
		s.create(w, body)
	case strings.HasSuffix(path, ".git/info/lfs/objects/batch"):
		s.batch(w, body)
	case strings.HasPrefix(path, "api/complete/"):
		s.complete(w, strings.TrimPrefix(path, "api/complete/"), body)
	case strings.HasPrefix(path, "api/verify/"):
		s.mu.Lock()
		defer s.mu.Unlock()
		if _, ok := s.storage[strings.TrimPrefix(path, "api/verify/")]; !ok {
			w.WriteHeader(http.StatusNotFound)
		}
	case path == "api/validate-yaml":
		writeJSON(w, map[string]any{"errors": []any{}, "warnings": []any{}})
	default:
		s.toRepo(w, r, strings.Split(path, "/"), body)
	}
}

func (s *Server) create(w http.ResponseWriter, body []byte) {
	var q struct{ Name, Organization, Visibility string }
	if err := json.Unmarshal(body, &q); err != nil {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	if q.Organization == "" {
		q.Organization = "me"
	}
	id := q.Organization + "/" + q.Name
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.repos[id] != nil {
		w.WriteHeader(http.StatusConflict)
		_ = json.NewEncoder(w).Encode(map[string]any{"error": "You already created this model repo", "url": s.URL + "/" + id})
		return
	}
	empty := strings.Repeat("0", 40)
	s.repos[id] = &repo{commits: map[string]map[string][]byte{empty: {}}, refs: map[string]string{"main": empty}, private: q.Visibility == "private"}
	writeJSON(w, map[string]any{"url": s.URL + "/" + id, "name": id})
}

// toRepo is api/models/org/name/(preupload|commit|branch)/revision.
func (s *Server) toRepo(w http.ResponseWriter, r *http.Request, parts []string, body []byte) {
	if len(parts) != 6 || parts[0] != "api" || parts[1] != "models" {
		w.WriteHeader(http.StatusNotFound)
		return
	}
	id := parts[2] + "/" + parts[3]
	revision, _ := url.PathUnescape(parts[5])
	s.mu.Lock()
	defer s.mu.Unlock()
	re := s.repos[id]
	if re == nil {
		w.WriteHeader(http.StatusNotFound)
		return
	}
	commit := re.refs[revision]
	switch parts[4] {
	case "branch":
		if commit != "" {
			w.WriteHeader(http.StatusConflict)
			return
		}
		re.refs[revision] = re.refs["main"]
	case "preupload":
		var q struct {
			Files []struct {
				Path string
				Size int
			}
		}
		if err := json.Unmarshal(body, &q); err != nil {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		answers := []any{}
		for _, f := range q.Files {
			a := map[string]any{"path": f.Path, "uploadMode": "regular", "shouldIgnore": strings.HasSuffix(f.Path, ".ignored")}
			if IsLFS(f.Path) {
				a["uploadMode"] = "lfs"
			}
			if data, ok := re.commits[commit][f.Path]; ok {
				a["oid"] = Etag(f.Path, data)
			}
			answers = append(answers, a)
		}
		writeJSON(w, map[string]any{"files": answers})
	case "commit":
		s.commit(w, r, id, re, revision, body)
	default:
		w.WriteHeader(http.StatusNotFound)
	}
}

func (s *Server) commit(w http.ResponseWriter, r *http.Request, id string, re *repo, revision string, body []byte) {
	files := maps.Clone(re.commits[re.refs[revision]])
	if files == nil {
		files = map[string][]byte{}
	}
	lines := bufio.NewScanner(bytes.NewReader(body))
	lines.Buffer(nil, len(body)+1)
	for lines.Scan() {
		var line struct {
			Key   string
			Value struct {
				Path, Content, OID string
				Size               int
			}
		}
		if err := json.Unmarshal(lines.Bytes(), &line); err != nil {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		switch line.Key {
		case "file":
			files[line.Value.Path], _ = base64.StdEncoding.DecodeString(line.Value.Content)
		case "lfsFile":
			data, ok := s.storage[line.Value.OID]
			if !ok || len(data) != line.Value.Size {
				w.WriteHeader(http.StatusBadRequest)
				return
			}
			files[line.Value.Path] = data
		}
	}
	commit := gitHash(fmt.Appendf(nil, "%s %d %s", id, len(re.commits), body))
	re.commits[commit] = files
	for name, data := range files {
		s.etags[commit+"/"+name] = Etag(name, data)
	}
	answer := map[string]any{"commitOid": commit, "commitUrl": s.URL + "/" + id + "/commit/" + commit, "success": true}
	if r.URL.Query().Get("create_pr") != "" {
		s.pulls++
		re.refs[fmt.Sprintf("refs/pr/%d", s.pulls)] = commit
		answer["pullRequestUrl"] = fmt.Sprintf("%s/%s/discussions/%d", s.URL, id, s.pulls)
	} else {
		re.refs[revision] = commit
	}
	writeJSON(w, answer)
}

func (s *Server) batch(w http.ResponseWriter, body []byte) {
	var q struct {
		Objects []struct {
			OID  string
			Size int
		}
	}
	if err := json.Unmarshal(body, &q); err != nil {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	objects := []any{}
	for _, o := range q.Objects {
		answer := map[string]any{"oid": o.OID, "size": o.Size}
		if _, ok := s.storage[o.OID]; !ok {
			upload := map[string]any{"href": s.Storage + "/" + o.OID + "?" + signature}
			if n := (o.Size + partBytes - 1) / partBytes; n > 1 {
				header := map[string]any{"chunk_size": strconv.Itoa(partBytes)}
				for i := range n {
					header[strconv.Itoa(i+1)] = fmt.Sprintf("%s/%s?part=%d&%s", s.Storage, o.OID, i+1, signature)
				}
				upload = map[string]any{"href": s.URL + "/api/complete/" + o.OID, "header": header}
			}
			answer["actions"] = map[string]any{"upload": upload, "verify": map[string]any{"href": s.URL + "/api/verify/" + o.OID}}
		}
		objects = append(objects, answer)
	}
	writeJSON(w, map[string]any{"transfer": "multipart", "objects": objects})
}

// store takes a content, or a part of one.
func (s *Server) store(w http.ResponseWriter, r *http.Request) {
	data, err := io.ReadAll(r.Body)
	if err != nil || !strings.Contains(r.URL.RawQuery, signature) || r.Header.Get("Authorization") != "" {
		w.WriteHeader(http.StatusForbidden)
		return
	}
	oid, part := strings.TrimPrefix(r.URL.Path, "/"), r.URL.Query().Get("part")
	s.mu.Lock()
	defer s.mu.Unlock()
	if part == "" {
		s.keep(w, oid, data)
		return
	}
	if s.parts[oid] == nil {
		s.parts[oid] = map[string][]byte{}
	}
	s.parts[oid][part] = data
	w.Header().Set("ETag", `"part-`+part+`"`)
}

func (s *Server) complete(w http.ResponseWriter, oid string, body []byte) {
	var q struct {
		Parts []struct {
			PartNumber int
			ETag       string
		}
	}
	if err := json.Unmarshal(body, &q); err != nil {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	var data []byte
	for i, p := range q.Parts {
		if p.PartNumber != i+1 || p.ETag != fmt.Sprintf(`"part-%d"`, i+1) {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		data = append(data, s.parts[oid][strconv.Itoa(i+1)]...)
	}
	s.keep(w, oid, data)
}

func (s *Server) keep(w http.ResponseWriter, oid string, data []byte) {
	if Etag(".bin", data) != oid {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	s.storage[oid] = data
}
