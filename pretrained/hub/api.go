package hub

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"regexp"
	"strconv"
	"strings"

	"github.com/torchgo/torchgo/internal/strictjson"
	"github.com/torchgo/torchgo/internal/xlog"
)

const (
	maxPages   = 10_000
	maxEntries = 2_000_000
)

// Entry is one file of a repository.
type Entry struct {
	Name string
	Size int64
	Blob string // git's SHA-1 of the file, or of its LFS pointer
	LFS  string // SHA-256; "" unless the file is stored by LFS

	xet string // kept for Python, which uses it
}

// etag is the name of the file's blob in the cache.
func (e Entry) etag() string {
	if e.LFS != "" {
		return e.LFS
	}
	return e.Blob
}

// commitOf asks which commit a revision is. Some mirrors serve files and nothing else: they say it with any file.
func (c *Client) commitOf(ctx context.Context, r Repo) (string, error) {
	commit, err := c.describeRevision(ctx, r)
	if !errors.Is(err, ErrNotHub) && !errors.Is(err, ErrRepoNotFound) {
		return commit, err
	}
	a, headErr := c.do(ctx, request{method: http.MethodHead, url: c.fileURL(r, r.Revision, "config.json"), stay: true, subject: r.String()})
	if headErr != nil {
		return "", err
	}
	a.close()
	if commit = a.hub.Get("X-Repo-Commit"); !IsCommit(commit) {
		return "", err
	}
	return commit, nil
}

func (c *Client) describeRevision(ctx context.Context, r Repo) (string, error) {
	address := c.opts.Endpoint + "/api/" + string(r.Type) + "s/" + r.ID + "/revision/" + url.PathEscape(r.Revision)
	data, _, _, err := c.getJSON(ctx, address, r.String())
	if err != nil {
		return "", err
	}
	commit, err := parseCommit(data)
	if err != nil {
		return "", newError(r.String(), ErrNotHub, "revision", err)
	}
	return commit, nil
}

// parseCommit reads the sha of the description of a revision.
func parseCommit(data []byte) (commit string, err error) {
	d := strictjson.NewDecoder(data, strictjson.Options{})
	err = d.Object(func(name string) error {
		if name != "sha" {
			return d.Skip()
		}
		commit, err = d.Text()
		return err
	})
	if err == nil {
		err = d.End()
	}
	if err == nil && !IsCommit(commit) {
		err = fmt.Errorf("expected a commit hash as sha, got %.60q", commit)
	}
	return commit, err
}

// listTree asks for the files of a commit, page by page.
func (c *Client) listTree(ctx context.Context, r Repo, commit string) ([]Entry, error) {
	next := c.opts.Endpoint + "/api/" + string(r.Type) + "s/" + r.ID + "/tree/" + commit + "?recursive=true&expand=false"
	var list []Entry
	names, seen := map[string]bool{}, map[string]bool{}
	for range maxPages {
		if seen[next] {
			return nil, newError(r.String(), ErrNotHub, "the pages of the list of files go round in circles", nil)
		}
		seen[next] = true
		data, header, at, err := c.getJSON(ctx, next, r.String())
		if err != nil {
			return nil, err
		}
		page, err := parseTree(data)
		if err != nil {
			return nil, newError(r.String(), ErrNotHub, "list of files", err)
		}
		for _, e := range page {
			if names[e.Name] {
				return nil, newError(r.String(), ErrConflict, fmt.Sprintf("the list of files names %.100q twice", e.Name), nil)
			}
			names[e.Name] = true
		}
		if list = append(list, page...); len(list) > maxEntries {
			break
		}
		link := nextPage(header)
		if link == "" {
			return list, nil
		}
		to, err := at.Parse(link)
		if err != nil || at.Scheme == "https" && to.Scheme != "https" {
			return nil, newError(r.String(), ErrNotHub, "the next page of the list of files has an address of another kind", nil)
		}
		next = to.String()
	}
	return nil, newError(r.String(), ErrNotHub, fmt.Sprintf("the list of files is longer than %d pages or %d files", maxPages, maxEntries), nil)
}

// nextPage is the target of the Link header whose relation is next.
func nextPage(h http.Header) string {
	for _, value := range h.Values("Link") {
		for link := range strings.SplitSeq(value, ",") {
			target, params, ok := strings.Cut(strings.TrimSpace(link), ">")
			if !ok || !strings.HasPrefix(target, "<") {
				continue
			}
			for p := range strings.SplitSeq(params, ";") {
				k, v, _ := strings.Cut(strings.TrimSpace(p), "=")
				if strings.EqualFold(k, "rel") && strings.Trim(v, `"`) == "next" {
					return target[1:]
				}
			}
		}
	}
	return ""
}

// parseTree reads a page of the list of files. Names that could leave the cache are refused.
func parseTree(data []byte) (list []Entry, err error) {
	d := strictjson.NewDecoder(data, strictjson.Options{})
	err = d.Array(func(int) error {
		var e Entry
		kind := ""
		err := d.Object(func(name string) (err error) {
			switch name {
			case "type":
				kind, err = d.Text()
			case "path":
				e.Name, err = d.Text()
			case "oid":
				e.Blob, err = d.Text()
			case "size":
				e.Size, err = size(d)
			case "lfs":
				if k, _ := d.Peek(); k == strictjson.KindNull {
					return d.Null()
				}
				var lfsSize int64 = -1
				err = d.Object(func(name string) (err error) {
					switch name {
					case "oid":
						e.LFS, err = d.Text()
					case "size":
						lfsSize, err = size(d)
					default:
						err = d.Skip()
					}
					return err
				})
				if lfsSize >= 0 {
					e.Size = lfsSize
				}
			case "xetHash":
				if k, _ := d.Peek(); k == strictjson.KindNull {
					return d.Null()
				}
				e.xet, err = d.Text()
			default:
				err = d.Skip()
			}
			return err
		})
		if err != nil || kind != "file" {
			return err
		}
		if err := e.check(); err != nil {
			return err
		}
		list = append(list, e)
		return nil
	})
	if err == nil {
		err = d.End()
	}
	return list, err
}

func (e Entry) check() error {
	if err := CheckName(e.Name); err != nil {
		return err
	}
	if e.Size < 0 || !isHash(e.Blob) || e.LFS != "" && len(e.LFS) != 64 || e.LFS != "" && !isHash(e.LFS) {
		return fmt.Errorf("%.100q has no proper size and hashes", e.Name)
	}
	return nil
}

// isHash tells whether s is the hexadecimal form of a SHA-1 or SHA-256.
func isHash(s string) bool {
	if len(s) != 40 && len(s) != 64 {
		return false
	}
	return strings.Trim(s, "0123456789abcdef") == ""
}

func size(d *strictjson.Decoder) (int64, error) {
	n, err := d.Number()
	if err != nil {
		return 0, err
	}
	return n.Int64()
}

// remote is what the hub says about a file.
type remote struct {
	name string
	etag string // hash of the content, as a rule, and name of the blob
	size int64  // -1: unknown
	url  string // where the bytes are: the hub, or a storage that it signs addresses for
}

// headFile asks about one file of a commit.
func (c *Client) headFile(ctx context.Context, r Repo, commit, name string) (remote, error) {
	subject := r.ID + "/" + name
	if err := c.acquire(ctx); err != nil {
		return remote{}, err
	}
	defer c.release()
	a, err := c.ask(ctx, request{method: http.MethodHead, url: c.fileURL(r, commit, name), stay: true, subject: subject})
	if err != nil {
		return remote{}, err
	}
	a.close()
	h := a.hub
	m := remote{name: name, size: -1, url: a.url.String()}
	if h == nil || h.Get("X-Repo-Commit") == "" {
		return m, newError(subject, ErrNotHub, showURL(a.url)+": no X-Repo-Commit in the answer", nil)
	}
	if got := h.Get("X-Repo-Commit"); got != commit {
		return m, newError(subject, ErrNotHub, fmt.Sprintf("asked for commit %s, got %.60q", commit, got), nil)
	}
	linked := bareETag(h.Get("X-Linked-Etag"))
	m.etag = cmp.Or(linked, bareETag(h.Get("ETag")))
	switch {
	case isHash(m.etag):
	case linked == "" && plainETag.MatchString(m.etag):
		// A mirror's own: it names the content, and can't prove it.
		xlog.Logger().LogAttrs(ctx, slog.LevelWarn, "the hub gives no hash, so that the content can't be verified", slog.String("file", subject))
	default:
		return m, newError(subject, ErrNotHub, fmt.Sprintf("%s: expected a SHA-1 or SHA-256 as ETag, got %.80q", showURL(a.url), m.etag), nil)
	}
	length := h.Get("X-Linked-Size")
	if length == "" && a.status < 300 && h.Get("Content-Encoding") == "" {
		length = h.Get("Content-Length")
	}
	if length != "" {
		if m.size, err = strconv.ParseInt(length, 10, 64); err != nil || m.size < 0 {
			return m, newError(subject, ErrNotHub, fmt.Sprintf("%s: bad size %.40q", showURL(a.url), length), nil)
		}
	}
	return m, nil
}

// plainETag is what may be the name of a blob though it is no hash.
var plainETag = regexp.MustCompile(`^[A-Za-z0-9_-]{1,128}$`)

func bareETag(s string) string {
	return strings.Trim(strings.TrimPrefix(strings.TrimSpace(s), "W/"), `"`)
}

// fileURL is the address of a file at a commit.
func (c *Client) fileURL(r Repo, commit, name string) string {
	parts := strings.Split(name, "/")
	for i, p := range parts {
		parts[i] = url.PathEscape(p)
	}
	return c.opts.Endpoint + r.path() + "/resolve/" + url.PathEscape(commit) + "/" + strings.Join(parts, "/")
}
