package hub

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"path"
	"slices"
	"strings"

	"github.com/torchgo/torchgo/internal/regular"
	"github.com/torchgo/torchgo/internal/strictjson"
)

const (
	pushBatch  = 256      // files of one question
	maxRegular = 64 << 20 // bytes of a file that travels in the commit itself
)

// Upload is a file for a commit.
type Upload struct {
	Name string // in the repository
	Path string // of the content
}

// CommitOptions are the optional arguments of Commit.
type CommitOptions struct {
	Message     string // default "Upload files"
	Description string
	CreatePR    bool // open a pull request in place of moving the branch
}

// CommitInfo is what a commit became. All is empty if nothing differs from what the repository has.
type CommitInfo struct {
	Commit      string `json:"commit"`
	URL         string `json:"url"`
	PullRequest string `json:"pull_request,omitempty"` // its address
}

// CreateRepo makes a repository, unless it is there, and gives its whole id: of a name without an
// organisation, the hub knows whose it is. private nil leaves it to the hub.
func (c *Client) CreateRepo(ctx context.Context, r Repo, private *bool) (id string, err error) {
	r = r.withDefaults()
	if err := r.validate(); err != nil {
		return "", err
	}
	org, name, ok := strings.Cut(r.ID, "/")
	body := map[string]any{"name": name, "organization": org}
	if !ok {
		body["name"], body["organization"] = r.ID, nil
	}
	if r.Type != Model {
		body["type"] = r.Type
	}
	if private != nil {
		body["visibility"] = map[bool]string{true: "private", false: "public"}[*private]
	}
	data, err := c.post(ctx, c.opts.Endpoint+"/api/repos/create", r.ID, body, false)
	var there *exists
	switch {
	case errors.As(err, &there):
		data = there.body
	case ok && errors.Is(err, ErrForbidden):
		// Perhaps it is there, and only making it is forbidden.
		if _, unknown := c.commitOf(ctx, r); unknown != nil {
			return "", err
		}
		return r.ID, nil
	case err != nil:
		return "", err
	}
	where, err := field(data, "url")
	if err != nil {
		return "", newError(r.ID, ErrNotHub, "the new repository", err)
	}
	u, err := url.Parse(where)
	if err != nil {
		return "", newError(r.ID, ErrNotHub, "the new repository's address", nil)
	}
	parts := strings.Split(strings.Trim(u.Path, "/"), "/")
	id = strings.Join(parts[max(0, len(parts)-2):], "/")
	if CheckID(id) != nil || !strings.HasSuffix(id, "/"+path.Base(r.ID)) {
		return "", newError(r.ID, ErrNotHub, fmt.Sprintf("the new repository is called %.100q", id), nil)
	}
	return id, nil
}

// CreateBranch makes a branch of the main one, unless it is there.
func (c *Client) CreateBranch(ctx context.Context, r Repo, branch string) error {
	r = r.withDefaults()
	if err := errors.Join(r.validate(), checkRevision(branch)); err != nil {
		return err
	}
	_, err := c.post(ctx, c.api(r)+"/branch/"+url.PathEscape(branch), r.ID, map[string]any{}, false)
	if errors.Is(err, ErrExists) {
		return nil
	}
	return err
}

// api is the address of what the hub says about a repository.
func (c *Client) api(r Repo) string { return c.opts.Endpoint + "/api/" + string(r.Type) + "s/" + r.ID }

// pushed is a file on its way.
type pushed struct {
	Upload
	size   int64
	sha256 string
	mode   string // "lfs" or "regular"
	same   bool   // the repository has this content
	ignore bool
}

// Commit uploads files and makes one commit of them. What the repository has already is not sent.
func (c *Client) Commit(ctx context.Context, r Repo, files []Upload, o CommitOptions) (*CommitInfo, error) {
	r = r.withDefaults()
	if err := r.validate(); err != nil {
		return nil, err
	}
	if c.opts.Token.IsZero() {
		return nil, newError(r.ID, ErrUnauthorized, "there is no token", nil)
	}
	list := make([]*pushed, len(files))
	for i, f := range files {
		if err := CheckName(f.Name); err != nil {
			return nil, err
		}
		list[i] = &pushed{Upload: f}
	}
	for batch := range slices.Chunk(list, pushBatch) {
		if err := c.preupload(ctx, r, batch, o.CreatePR); err != nil {
			return nil, err
		}
	}
	var large, all []*pushed
	for _, f := range list {
		if f.ignore {
			continue
		}
		if f.mode == "lfs" {
			large = append(large, f)
		}
		if !f.same {
			all = append(all, f)
		}
	}
	for batch := range slices.Chunk(large, pushBatch) {
		if err := c.uploadLFS(ctx, r, batch, o.CreatePR); err != nil {
			return nil, err
		}
	}
	if len(all) == 0 {
		return &CommitInfo{}, nil
	}
	return c.sendCommit(ctx, r, all, o)
}

// preupload asks how each file is to be sent, and whether the repository has it.
func (c *Client) preupload(ctx context.Context, r Repo, batch []*pushed, pr bool) error {
	type question struct {
		Path   string `json:"path"`
		Sample string `json:"sample"`
		Size   int64  `json:"size"`
	}
	var questions []question
	byName := map[string]*pushed{}
	for _, f := range batch {
		if byName[f.Name] != nil {
			return newError(r.ID+"/"+f.Name, ErrArgument, "is there twice", nil)
		}
		byName[f.Name] = f
		file, st, err := regular.Open(f.Path)
		if err != nil {
			return err
		}
		f.size = st.Size()
		sample := make([]byte, min(512, f.size))
		_, err = io.ReadFull(file, sample)
		if err == nil {
			_, err = file.Seek(0, io.SeekStart)
		}
		if err == nil {
			f.sha256, err = contentHash(file, f.size, strings.Repeat("0", 64))
		}
		if err = errors.Join(err, file.Close()); err != nil {
			return &Error{File: f.Path, Err: bare(err)}
		}
		questions = append(questions, question{f.Name, base64.StdEncoding.EncodeToString(sample), f.size})
	}
	address := c.api(r) + "/preupload/" + url.PathEscape(r.Revision)
	if pr {
		address += "?create_pr=1"
	}
	data, err := c.post(ctx, address, r.ID, map[string]any{"files": questions}, true)
	if err != nil {
		return err
	}
	answers, err := parsePreupload(data)
	if err != nil {
		return newError(r.ID, ErrNotHub, "how to upload", err)
	}
	for _, a := range answers {
		f := byName[a.path]
		if f == nil {
			continue
		}
		f.mode, f.ignore = a.mode, a.ignore
		if f.size == 0 {
			f.mode = "regular" // storages take no empty file
		}
		local := f.sha256
		if f.mode == "regular" && a.oid != "" {
			if local, err = hashFile(ctx, f.Path, strings.Repeat("0", 40)); err != nil {
				return err
			}
		}
		f.same = a.oid != "" && a.oid == local
	}
	for _, f := range batch {
		switch f.mode {
		case "lfs":
		case "regular":
			if f.size > maxRegular {
				return newError(r.ID+"/"+f.Name, ErrNotHub, fmt.Sprintf("asked to send %d bytes in the commit itself", f.size), nil)
			}
		default:
			return newError(r.ID+"/"+f.Name, ErrNotHub, fmt.Sprintf("expected lfs or regular as way to upload, got %.40q", f.mode), nil)
		}
	}
	return nil
}

type preuploadAnswer struct {
	path, mode, oid string
	ignore          bool
}

func parsePreupload(data []byte) (list []preuploadAnswer, err error) {
	d := strictjson.NewDecoder(data, strictjson.Options{})
	err = d.Object(func(name string) error {
		if name != "files" {
			return d.Skip()
		}
		return d.Array(func(int) error {
			var a preuploadAnswer
			err := d.Object(func(name string) (err error) {
				if k, _ := d.Peek(); k == strictjson.KindNull {
					return d.Null()
				}
				switch name {
				case "path":
					a.path, err = d.Text()
				case "uploadMode":
					a.mode, err = d.Text()
				case "oid":
					a.oid, err = d.Text()
				case "shouldIgnore":
					a.ignore, err = d.Bool()
				default:
					err = d.Skip()
				}
				return err
			})
			list = append(list, a)
			return err
		})
	})
	if err == nil {
		err = d.End()
	}
	return list, err
}

// sendCommit makes the commit. It is not tried again: the first try may have worked.
func (c *Client) sendCommit(ctx context.Context, r Repo, files []*pushed, o CommitOptions) (*CommitInfo, error) {
	if o.Message == "" {
		o.Message = "Upload files"
	}
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	line := func(key string, value any) error { return enc.Encode(map[string]any{"key": key, "value": value}) }
	if err := line("header", map[string]string{"summary": o.Message, "description": o.Description}); err != nil {
		return nil, err
	}
	for _, f := range files {
		var err error
		if f.mode == "lfs" {
			err = line("lfsFile", map[string]any{"path": f.Name, "algo": "sha256", "oid": f.sha256, "size": f.size})
		} else {
			var data []byte
			if data, err = regular.Read(f.Path, maxRegular); err != nil {
				return nil, err
			}
			err = line("file", map[string]string{"content": base64.StdEncoding.EncodeToString(data), "path": f.Name, "encoding": "base64"})
		}
		if err != nil {
			return nil, err
		}
	}
	address := c.api(r) + "/commit/" + url.PathEscape(r.Revision)
	if o.CreatePR {
		address += "?create_pr=1"
	}
	data, err := c.send(ctx, address, r.ID, "application/x-ndjson", b.Bytes(), false)
	if err != nil {
		return nil, err
	}
	info := &CommitInfo{}
	if info.Commit, err = field(data, "commitOid"); err == nil {
		info.URL, err = field(data, "commitUrl")
	}
	if err == nil && o.CreatePR {
		info.PullRequest, err = field(data, "pullRequestUrl")
	}
	if err != nil {
		return nil, newError(r.ID, ErrNotHub, "the commit", err)
	}
	return info, nil
}

// field is a text member of a JSON object.
func field(data []byte, name string) (string, error) {
	v, err := strictjson.Parse(data, strictjson.Options{})
	if err != nil {
		return "", err
	}
	o, err := v.AsObject()
	if err != nil {
		return "", err
	}
	m, ok := o.Get(name)
	if !ok {
		return "", fmt.Errorf("no %s", name)
	}
	return m.AsString()
}

func (c *Client) post(ctx context.Context, address, subject string, body any, again bool) ([]byte, error) {
	return c.postAs(ctx, address, subject, "application/json", body, again)
}

func (c *Client) postAs(ctx context.Context, address, subject, kind string, body any, again bool) ([]byte, error) {
	data, err := json.Marshal(body)
	if err != nil {
		return nil, err
	}
	return c.send(ctx, address, subject, kind, data, again)
}

// send posts a document and reads the answer. again: trying twice does no harm.
func (c *Client) send(ctx context.Context, address, subject, kind string, body []byte, again bool) ([]byte, error) {
	r := request{method: http.MethodPost, url: address, subject: subject, size: int64(len(body)), header: map[string]string{"Content-Type": kind},
		body: func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(body)), nil }}
	if strings.Contains(kind, "git-lfs") {
		r.header["Accept"] = kind
	}
	do := c.do
	if again {
		do = c.ask
	}
	a, err := do(ctx, r)
	if err != nil {
		var t *transient
		if errors.As(err, &t) {
			err = t.error
		}
		return nil, err
	}
	defer a.close()
	data, err := io.ReadAll(io.LimitReader(a.Body, maxJSON))
	if err != nil {
		return nil, newError(subject, ErrUnavailable, showURL(a.url), err)
	}
	return data, nil
}
