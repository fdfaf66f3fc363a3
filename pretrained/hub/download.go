package hub

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net/http"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"

	"golang.org/x/sync/errgroup"

	"github.com/torchgo/torchgo/internal/atomicfile"
	"github.com/torchgo/torchgo/internal/xlog"
)

// place is where a download goes.
type place struct {
	root     *os.Root
	dir      string                 // of root
	partials string                 // folder below root
	target   string                 // file below root
	lock     string                 // path of the lock file
	done     func(isNew bool) error // called under the lock when target is there
}

// fetch brings a file to its place, unless it is there. It holds the locks of that place.
func (c *Client) fetch(ctx context.Context, s *Snapshot, m remote, to place, force bool) error {
	unlockHere, err := lockHere(ctx, filepath.Join(to.dir, to.target))
	if err != nil {
		return err
	}
	defer unlockHere()
	d := &download{c: c, s: s, m: m, subject: s.Repo.ID + "/" + m.name}
	unlock, alone, err := lockFile(ctx, to.lock, c.opts.noFlock)
	if err != nil {
		return d.diskError(err)
	}
	defer unlock()
	if st, err := to.root.Lstat(to.target); err == nil && !force {
		if m.size < 0 || st.Mode()&fs.ModeSymlink != 0 || st.Size() == m.size {
			c.progress.skip(m.name, m.size) // another file has the same content
			return to.done(false)
		}
		// A blob of another size than the hub says is damaged.
	}
	d.meter = c.progress.file(m.name, m.size)
	if d.p, err = openPartial(to.root, to.partials, m.etag, m.size, alone); err != nil {
		return d.diskError(err)
	}
	if err := d.run(ctx, filepath.Join(to.dir, to.partials)); err != nil {
		return err
	}
	isNew, err := d.p.commit(to.target, force)
	if err != nil {
		d.p.remove()
		return d.diskError(err)
	}
	if err := to.done(isNew); err != nil {
		return d.diskError(err)
	}
	return atomicfile.SyncDir(filepath.Join(to.dir, path.Dir(to.target)))
}

// download is the transfer of one file.
type download struct {
	c       *Client
	s       *Snapshot
	m       remote
	p       *partial
	subject string
	meter   *fileMeter

	mu  sync.Mutex
	url string // where the bytes are now
}

// content is an error about what was sent: trying again once may help, if only a part of it was bad.
type content struct{ error }

func (c *content) Unwrap() error { return c.error }

// errNoRanges says that the server sends whole files only.
var errNoRanges = errors.New("the server ignores ranges")

// run transfers, verifies, and leaves a verified partial that is still open. When it fails, what has come
// is kept if it can be right.
func (d *download) run(ctx context.Context, dir string) error {
	d.url = d.m.url
	if n := d.p.have(); n > 0 {
		d.meter.add(n)
		xlog.Logger().LogAttrs(ctx, slog.LevelDebug, "hub: going on with a download", slog.String("file", d.subject), slog.Int64("bytes", n))
	}
	if free := freeSpace(dir); d.m.size >= 0 && free >= 0 && d.m.size-d.p.have() > free {
		e := newError(d.subject, ErrNoSpace, dir, syscall.ENOSPC)
		e.Expected, e.Actual = fmt.Sprintf("%d bytes", d.m.size-d.p.have()), fmt.Sprint(free)
		d.giveUp()
		return e
	}
	step := d.c.opts.segment
	var bad *content
	for again := false; ; again = true {
		err := d.transfer(ctx, step)
		if errors.Is(err, errNoRanges) {
			step = 1 << 62
			d.restart()
			err = d.transfer(ctx, step)
		}
		if err == nil {
			err = d.p.verify(ctx, d.subject)
			if errors.Is(err, ErrChecksum) || errors.Is(err, ErrSizeMismatch) {
				err = &content{err}
			}
		}
		switch {
		case err == nil:
			return nil
		case ctx.Err() != nil:
			d.p.keep()
			return ctx.Err()
		case !errors.As(err, &bad):
			d.giveUp()
			return err
		case again:
			d.p.remove()
			return bad.error
		}
		xlog.Logger().LogAttrs(ctx, slog.LevelWarn, "hub: downloading again", slog.String("file", d.subject), slog.String("error", err.Error()))
		d.restart()
		step = 1 << 62
	}
}

// giveUp keeps a partial that has something.
func (d *download) giveUp() {
	if d.p.have() == 0 {
		d.p.remove()
		return
	}
	d.p.keep()
}

// restart forgets all that has come.
func (d *download) restart() {
	d.meter.add(-d.p.have())
	d.p.reset()
	_ = d.p.file.Truncate(0)
	d.mu.Lock()
	d.url = d.m.url
	d.mu.Unlock()
}

// transfer fetches what is missing, in spans of at most step bytes at the same time.
func (d *download) transfer(ctx context.Context, step int64) error {
	todo := d.p.missing(step)
	if len(todo) > 1 && d.url == d.own() {
		// One question for all parts, as long as what it gives is valid.
		if err := d.locate(ctx); err != nil && ctx.Err() != nil {
			return err
		}
	}
	if len(todo) == 1 {
		return d.fill(ctx, todo[0], true)
	}
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(d.c.opts.Workers)
	for _, s := range todo {
		g.Go(func() error { return d.fill(ctx, s, false) })
	}
	return g.Wait()
}

// fill fetches one span, trying again as long as bytes come.
func (d *download) fill(ctx context.Context, s *span, only bool) error {
	if err := d.c.acquire(ctx); err != nil {
		return err
	}
	defer d.c.release()
	for failed := 0; ; {
		before := s.at
		err := d.stream(ctx, s, only)
		var t *transient
		switch {
		case err == nil:
			return nil
		case ctx.Err() != nil:
			return ctx.Err()
		case !errors.As(err, &t):
			return err
		}
		if s.at > before {
			failed = 0
		}
		if failed++; failed == maxTries {
			return t.error
		}
		if err := d.c.wait(ctx, failed, err); err != nil {
			return err
		}
	}
}

// stream makes one request for the rest of a span and writes what comes.
func (d *download) stream(ctx context.Context, s *span, only bool) error {
	switch {
	case s.at == s.end:
		return nil
	case s.end < 0: // without a size there is no going on
		d.meter.add(-d.p.back(s))
		if err := d.p.file.Truncate(0); err != nil {
			return d.diskError(err)
		}
	}
	d.mu.Lock()
	address := d.url
	d.mu.Unlock()
	r := request{method: http.MethodGet, url: address, subject: d.subject, header: map[string]string{}}
	ranged := s.end >= 0 && (s.at > 0 || s.end < d.m.size)
	d.p.mu.Lock()
	validator := d.p.validator
	d.p.mu.Unlock()
	if ranged {
		r.header["Range"] = fmt.Sprintf("bytes=%d-%d", s.at, s.end-1)
		if validator != "" {
			r.header["If-Range"] = validator
		}
	}
	a, err := d.c.do(ctx, r)
	if err != nil {
		return d.relocate(ctx, address, err)
	}
	defer a.close()
	bad := func(format string, args ...any) error {
		return &content{newError(d.subject, ErrNotHub, fmt.Sprintf(format, args...), nil)}
	}
	if e := a.Header.Get("Content-Encoding"); e != "" && e != "identity" {
		return bad("%s: sent as %.20q, which was not asked for", showURL(a.url), e)
	}
	tag := a.Header.Get("ETag")
	if strings.HasPrefix(tag, "W/") {
		tag = ""
	}
	switch a.StatusCode {
	case http.StatusPartialContent:
		first, last, total, ok := parseRange(a.Header.Get("Content-Range"))
		if !ok || !ranged || first != s.at || last != s.end-1 || total >= 0 && total != d.m.size {
			return bad("%s: asked for bytes %d-%d of %d, got %.60q", showURL(a.url), s.at, s.end-1, d.m.size, a.Header.Get("Content-Range"))
		}
		if validator != "" && tag != "" && tag != validator {
			return bad("%s: the file changed on the server during the download", showURL(a.url))
		}
	case http.StatusOK:
		if ranged {
			if !only {
				return errNoRanges
			}
			d.meter.add(-d.p.have()) // from the start, then
			d.p.reset()
			s.start, s.at, s.end = 0, 0, d.m.size
			d.p.mu.Lock()
			d.p.spans, validator = []*span{s}, ""
			d.p.mu.Unlock()
		}
		if d.m.size >= 0 && a.ContentLength >= 0 && a.ContentLength != d.m.size {
			return bad("%s: expected %d bytes, got %d of %.60q", showURL(a.url), d.m.size, a.ContentLength, a.Header.Get("Content-Type"))
		}
	default:
		return bad("%s: status %d", showURL(a.url), a.StatusCode)
	}
	if validator == "" && tag != "" {
		d.p.mu.Lock()
		d.p.validator = tag
		d.p.mu.Unlock()
	}
	return d.copy(ctx, a, s)
}

var buffers = sync.Pool{New: func() any { b := make([]byte, 256<<10); return &b }}

// copy writes a body to its span. Fewer bytes than promised are an error that may pass, more are none that may.
func (d *download) copy(ctx context.Context, a *answer, s *span) error {
	held := buffers.Get().(*[]byte)
	defer buffers.Put(held)
	buf := *held
	for {
		n, err := a.Body.Read(buf)
		if s.end >= 0 && int64(n) > s.end-s.at {
			return &content{newError(d.subject, ErrSizeMismatch, fmt.Sprintf("%s: more bytes than the %d of the file", showURL(a.url), d.m.size), nil)}
		}
		if n > 0 {
			if err := d.p.write(s, buf[:n]); err != nil {
				return d.diskError(err)
			}
			d.meter.add(int64(n))
		}
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case err == io.EOF && (s.end < 0 || s.at == s.end):
			return nil
		case err == io.EOF:
			err = io.ErrUnexpectedEOF
		case err == nil:
			continue
		}
		return &transient{error: newError(d.subject, ErrUnavailable, fmt.Sprintf("%s: cut off at byte %d of %d", showURL(a.url), s.at, d.m.size), err)}
	}
}

// relocate asks the hub anew where the bytes are when a storage refuses: signed addresses expire.
func (d *download) relocate(ctx context.Context, old string, cause error) error {
	var t *transient
	if errors.As(cause, &t) || ctx.Err() != nil {
		return cause
	}
	if old == d.own() || !errors.Is(cause, ErrUnavailable) {
		return cause
	}
	if err := d.locate(ctx); err != nil {
		return err
	}
	return &transient{error: cause}
}

// own is the file's address on the hub.
func (d *download) own() string { return d.c.fileURL(d.s.Repo, d.s.Commit, d.m.name) }

// locate asks the hub where the bytes are.
func (d *download) locate(ctx context.Context) error {
	a, err := d.c.do(ctx, request{method: http.MethodHead, url: d.own(), stay: true, subject: d.subject})
	if err != nil {
		return err
	}
	a.close()
	d.mu.Lock()
	d.url = a.url.String()
	d.mu.Unlock()
	return nil
}

// diskError names the file in an error of the file system.
func (d *download) diskError(err error) error {
	var e *Error
	if errors.As(err, &e) || errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	e = &Error{File: d.subject, Detail: "writing to the cache", Err: bare(err)}
	if errors.Is(err, syscall.ENOSPC) {
		e.Class = ErrNoSpace
	}
	if errors.Is(err, fs.ErrPermission) {
		e.Remedy = "check who may write to " + d.c.opts.CacheDir
	}
	return e
}

// parseRange reads "bytes first-last/total"; total may be "*", then it is -1.
func parseRange(s string) (first, last, total int64, ok bool) {
	s, ok = strings.CutPrefix(s, "bytes ")
	window, of, cut := strings.Cut(s, "/")
	from, to, dash := strings.Cut(window, "-")
	if !ok || !cut || !dash {
		return 0, 0, 0, false
	}
	number := func(s string) int64 {
		n, err := strconv.ParseUint(s, 10, 63)
		if err != nil {
			ok = false
		}
		return int64(n)
	}
	first, last, total = number(from), number(to), -1
	if of != "*" {
		total = number(of)
	}
	return first, last, total, ok && first <= last
}
