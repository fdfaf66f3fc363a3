package hub

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"sync"
)

// window is what is fetched at once at least: the headers of most files are smaller.
const window = 256 << 10

// RemoteFile reads parts of a file on the hub, which is not downloaded. Nothing verifies them but who reads.
type RemoteFile struct {
	ctx context.Context // of all reads: an io.ReaderAt has none
	d   *download

	mu   sync.Mutex
	data []byte // the part that was read last
	at   int64
}

// Open opens a file of the commit for reading in parts.
func (s *Snapshot) Open(ctx context.Context, name string) (*RemoteFile, error) {
	if err := CheckName(name); err != nil {
		return nil, err
	}
	m, err := s.describe(ctx, name)
	if err != nil {
		return nil, err
	}
	subject := s.Repo.ID + "/" + name
	if m.size < 0 {
		return nil, newError(subject, ErrNotHub, "the hub doesn't say how large it is", nil)
	}
	return &RemoteFile{ctx: ctx, d: &download{c: s.c, s: s, m: m, subject: subject, url: m.url}}, nil
}

// Size is the size in bytes.
func (f *RemoteFile) Size() int64 { return f.d.m.size }

// ReadAt is io.ReaderAt.
func (f *RemoteFile) ReadAt(p []byte, off int64) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	short := error(nil)
	if off < 0 || off >= f.Size() {
		return 0, io.EOF
	}
	if int64(len(p)) > f.Size()-off {
		p, short = p[:f.Size()-off], io.EOF
	}
	if off < f.at || off+int64(len(p)) > f.at+int64(len(f.data)) {
		f.data = nil
		data, err := f.get(off, min(max(int64(len(p)), window), f.Size()-off))
		if err != nil {
			return 0, err
		}
		f.at, f.data = off, data
	}
	return copy(p, f.data[off-f.at:]), short
}

// get fetches n bytes from off.
func (f *RemoteFile) get(off, n int64) ([]byte, error) {
	d, c := f.d, f.d.c
	if err := c.acquire(f.ctx); err != nil {
		return nil, err
	}
	defer c.release()
	for try := 1; ; try++ {
		data, err := f.once(off, n)
		if err == nil {
			return data, nil
		}
		if err = d.relocate(f.ctx, d.url, err); f.ctx.Err() != nil {
			return nil, f.ctx.Err()
		}
		t, ok := err.(*transient)
		if !ok {
			return nil, err
		}
		if try == maxTries {
			return nil, t.error
		}
		if err := c.wait(f.ctx, try, err); err != nil {
			return nil, err
		}
	}
}

func (f *RemoteFile) once(off, n int64) ([]byte, error) {
	d := f.d
	a, err := d.c.do(f.ctx, request{method: http.MethodGet, url: d.url, subject: d.subject,
		header: map[string]string{"Range": fmt.Sprintf("bytes=%d-%d", off, off+n-1)}})
	if err != nil {
		return nil, err
	}
	defer a.close()
	skip := int64(0)
	if a.StatusCode == http.StatusPartialContent {
		first, last, total, ok := parseRange(a.Header.Get("Content-Range"))
		if !ok || first != off || last != off+n-1 || total >= 0 && total != d.m.size {
			return nil, newError(d.subject, ErrNotHub, fmt.Sprintf("%s: asked for bytes %d-%d of %d, got %.60q", showURL(a.url), off, off+n-1, d.m.size, a.Header.Get("Content-Range")), nil)
		}
	} else if skip = off; a.ContentLength >= 0 && a.ContentLength != d.m.size || a.Header.Get("Content-Encoding") != "" {
		return nil, newError(d.subject, ErrNotHub, fmt.Sprintf("%s: expected %d bytes, got %d of %.60q", showURL(a.url), d.m.size, a.ContentLength, a.Header.Get("Content-Type")), nil)
	}
	_, err = io.CopyN(io.Discard, a.Body, skip)
	var data []byte
	if err == nil {
		data, err = io.ReadAll(io.LimitReader(a.Body, n))
	}
	if err == nil && int64(len(data)) < n {
		err = io.ErrUnexpectedEOF
	}
	if err != nil {
		return nil, &transient{error: newError(d.subject, ErrUnavailable, showURL(a.url), err)}
	}
	return data, nil
}
