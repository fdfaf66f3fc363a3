package hub

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strconv"
	"sync/atomic"

	"golang.org/x/sync/errgroup"

	"github.com/torchgo/torchgo/internal/regular"
	"github.com/torchgo/torchgo/internal/strictjson"
)

// lfsAction is what the hub says about one object.
type lfsAction struct {
	oid            string
	upload, verify string            // addresses; "" for none
	header         map[string]string // of upload: chunk_size, and the address of each part
	problem        string
}

// uploadLFS brings contents to the storage, those that it hasn't.
func (c *Client) uploadLFS(ctx context.Context, r Repo, batch []*pushed, pr bool) error {
	type object struct {
		OID  string `json:"oid"`
		Size int64  `json:"size"`
	}
	var objects []object
	byOID := map[string]*pushed{}
	for _, f := range batch {
		if byOID[f.sha256] == nil {
			objects = append(objects, object{f.sha256, f.size})
		}
		byOID[f.sha256] = f
	}
	question := map[string]any{"operation": "upload", "transfers": []string{"basic", "multipart"}, "objects": objects, "hash_algo": "sha256"}
	if !pr { // its branch isn't there yet
		question["ref"] = map[string]string{"name": r.Revision}
	}
	data, err := c.postAs(ctx, c.opts.Endpoint+r.path()+".git/info/lfs/objects/batch", r.ID, "application/vnd.git-lfs+json", question, true)
	if err != nil {
		return err
	}
	actions, err := parseLFS(data)
	if err != nil {
		return newError(r.ID, ErrNotHub, "where to upload", err)
	}
	g, running := errgroup.WithContext(ctx)
	g.SetLimit(c.opts.Workers)
	for _, a := range actions {
		f := byOID[a.oid]
		if f == nil {
			continue
		}
		delete(byOID, a.oid)
		if a.problem != "" {
			err = newError(r.ID+"/"+f.Name, ErrForbidden, fmt.Sprintf("the storage says %.200q", a.problem), nil)
			break
		}
		if a.upload != "" {
			g.Go(func() error { return c.uploadOne(running, r, f, a) })
		}
	}
	if err := errors.Join(g.Wait(), err); err != nil {
		return err
	}
	for _, f := range byOID {
		return newError(r.ID+"/"+f.Name, ErrNotHub, "no answer where to upload it", nil)
	}
	return nil
}

func parseLFS(data []byte) (list []lfsAction, err error) {
	d := strictjson.NewDecoder(data, strictjson.Options{})
	action := func(into *string, header *map[string]string) error {
		return d.Object(func(name string) (err error) {
			switch name {
			case "href":
				*into, err = d.Text()
			case "header":
				if k, _ := d.Peek(); k != strictjson.KindObject {
					return d.Skip()
				}
				h := map[string]string{}
				err = d.Object(func(name string) error {
					v, err := d.Value()
					if err != nil {
						return err
					}
					if s, textErr := v.AsString(); textErr == nil {
						h[name] = s
					} else if n, intErr := v.AsInt(); intErr == nil {
						h[name] = strconv.FormatInt(n, 10)
					}
					return nil
				})
				if header != nil {
					*header = h
				}
			default:
				err = d.Skip()
			}
			return err
		})
	}
	err = d.Object(func(name string) error {
		if name != "objects" {
			return d.Skip()
		}
		return d.Array(func(int) error {
			var a lfsAction
			err := d.Object(func(name string) (err error) {
				if k, _ := d.Peek(); k == strictjson.KindNull {
					return d.Null()
				}
				switch name {
				case "oid":
					a.oid, err = d.Text()
				case "actions":
					err = d.Object(func(name string) error {
						switch name {
						case "upload":
							return action(&a.upload, &a.header)
						case "verify":
							return action(&a.verify, nil)
						}
						return d.Skip()
					})
				case "error":
					a.problem = "an error"
					err = d.Object(func(name string) (err error) {
						if name != "message" {
							return d.Skip()
						}
						a.problem, err = d.Text()
						return err
					})
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

// uploadOne sends one content, in parts if the storage wants parts, and has the hub look whether it is there.
func (c *Client) uploadOne(ctx context.Context, r Repo, f *pushed, a lfsAction) error {
	subject := r.ID + "/" + f.Name
	m := c.progress.file(f.Name, f.size)
	if size, ok := a.header["chunk_size"]; ok {
		if err := c.uploadParts(ctx, subject, f, a, size, m); err != nil {
			return err
		}
	} else if _, err := c.put(ctx, subject, a.upload, f, 0, f.size, m); err != nil {
		return err
	}
	if a.verify == "" {
		return nil
	}
	_, err := c.post(ctx, a.verify, subject, map[string]any{"oid": f.sha256, "size": f.size}, true)
	return err
}

func (c *Client) uploadParts(ctx context.Context, subject string, f *pushed, a lfsAction, size string, m *fileMeter) error {
	step, err := strconv.ParseInt(size, 10, 64)
	if err != nil || step <= 0 {
		return newError(subject, ErrNotHub, fmt.Sprintf("parts of %.40q bytes", size), nil)
	}
	addresses := map[int64]string{}
	for name, address := range a.header {
		if n, err := strconv.ParseInt(name, 10, 32); err == nil {
			addresses[n] = address
		}
	}
	numbers := slices.Sorted(maps.Keys(addresses))
	want := f.size / step
	if f.size%step != 0 {
		want++
	}
	if int64(len(numbers)) != want {
		return newError(subject, ErrNotHub, fmt.Sprintf("%d addresses for %d bytes in parts of %d", len(numbers), f.size, step), nil)
	}
	type part struct {
		Number int    `json:"partNumber"`
		ETag   string `json:"etag"`
	}
	parts := make([]part, len(numbers))
	g, running := errgroup.WithContext(ctx)
	g.SetLimit(c.opts.Workers)
	for i, n := range numbers {
		g.Go(func() error {
			off := int64(i) * step
			tag, err := c.put(running, subject, addresses[n], f, off, min(step, f.size-off), m)
			if err == nil && tag == "" {
				err = newError(subject, ErrNotHub, fmt.Sprintf("no ETag for part %d", i+1), nil)
			}
			parts[i] = part{i + 1, tag}
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	_, err = c.postAs(ctx, a.upload, subject, "application/vnd.git-lfs+json", map[string]any{"oid": f.sha256, "parts": parts}, true)
	return err
}

// put sends a part of a file to a storage and gives the ETag that it has there.
func (c *Client) put(ctx context.Context, subject, address string, f *pushed, off, n int64, m *fileMeter) (etag string, err error) {
	if err := c.acquire(ctx); err != nil {
		return "", err
	}
	defer c.release()
	if u, err := url.Parse(address); err != nil || c.endpoint.scheme == "https" && u.Scheme != "https" {
		return "", newError(subject, ErrNotHub, "an address to upload to of another kind", nil)
	}
	var last *counted // of the try before
	a, err := c.ask(ctx, request{method: http.MethodPut, url: address, subject: subject, size: n, body: func() (io.ReadCloser, error) {
		if last != nil {
			m.add(-last.sent.Load())
		}
		file, _, err := regular.Open(f.Path)
		if err != nil {
			return nil, err
		}
		last = &counted{Reader: io.NewSectionReader(file, off, n), file: file, m: m}
		return last, nil
	}})
	if err != nil {
		return "", err
	}
	defer a.close()
	return a.Header.Get("ETag"), nil
}

// counted is a part of a file that is sent.
type counted struct {
	io.Reader
	file *os.File
	m    *fileMeter
	sent atomic.Int64
}

func (c *counted) Read(p []byte) (int, error) {
	n, err := c.Reader.Read(p)
	c.sent.Add(int64(n))
	c.m.add(int64(n))
	return n, err
}

func (c *counted) Close() error { return c.file.Close() }
