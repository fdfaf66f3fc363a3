package hub

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/torchgo/torchgo/internal/xlog"
)

const (
	maxRedirects = 20
	maxTries     = 5                 // in a row without a new byte
	maxDials     = 2                 // in a row without a connection: there may be no network at all
	maxWait      = 16                // units between two tries
	maxAsked     = 120 * time.Second // a longer Retry-After is an error that says so
	maxJSON      = 64 << 20          // bytes of one answer
)

func newHTTP(rt http.RoundTripper) *http.Client {
	if rt == nil {
		t := http.DefaultTransport.(*http.Transport).Clone()
		// HTTP/2 puts all streams on one connection, which is what parallel transfers are to avoid.
		t.Protocols = new(http.Protocols)
		t.Protocols.SetHTTP1(true)
		t.MaxIdleConnsPerHost = 16
		t.DisableCompression = true
		rt = t
	}
	// Redirects are followed by hand: net/http would send the token on to subdomains.
	return &http.Client{Transport: rt, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
}

// transient is an error after which trying again may help.
type transient struct {
	error
	after time.Duration // that the server asked for; 0: nothing
}

func (t *transient) Unwrap() error { return t.error }

// answer is what a request led to, after redirects.
type answer struct {
	*http.Response
	stop context.CancelFunc

	hub    http.Header // of the last answer that came from the hub and not from a storage
	status int         // of that
	url    *url.URL    // where the body is, or would be
}

// close frees the connection.
func (a *answer) close() {
	a.stop()
	_ = a.Body.Close()
}

// request is one question to the hub or to where it sends us.
type request struct {
	method  string
	url     string
	header  map[string]string
	stay    bool // don't follow a redirect to another origin: its answer's headers are what is asked for
	subject string

	body func() (io.ReadCloser, error) // nil: none
	size int64                         // of body
}

// do makes a request once, follows redirects, and turns a status that is no success into an error. The token
// goes to the hub's own origin and nowhere else; a redirect from https to http is refused. Reading the body
// fails after the transfer has been silent for too long.
func (c *Client) do(ctx context.Context, r request) (_ *answer, err error) {
	if c.opts.Offline {
		return nil, newError(r.subject, ErrOffline, "", nil)
	}
	u, err := url.Parse(r.url)
	if err != nil {
		return nil, newError(r.subject, ErrNotHub, "an address that can't be read", nil)
	}
	a := &answer{}
	for range maxRedirects {
		if (u.Scheme != "https" && u.Scheme != "http") || u.Host == "" || u.User != nil {
			return nil, newError(r.subject, ErrNotHub, "redirected to an address of another kind: "+showURL(u), nil)
		}
		if a.Response, a.stop, err = c.once(ctx, r, u); err != nil {
			return nil, err
		}
		if originOf(u) == c.endpoint || a.Header.Get("X-Repo-Commit") != "" { // a mirror may send us to the hub
			a.hub, a.status = a.Header, a.StatusCode
		}
		a.url = u
		if a.StatusCode < 300 || a.StatusCode > 399 || a.StatusCode == http.StatusNotModified {
			break
		}
		next, err := u.Parse(a.Header.Get("Location"))
		a.close()
		if err != nil || a.Header.Get("Location") == "" {
			return nil, newError(r.subject, ErrNotHub, "a redirect to nowhere", nil)
		}
		if r.body != nil && a.StatusCode != http.StatusTemporaryRedirect && a.StatusCode != http.StatusPermanentRedirect {
			return nil, newError(r.subject, ErrNotHub, "a redirect that would lose what is sent", nil)
		}
		if u.Scheme == "https" && next.Scheme != "https" {
			return nil, newError(r.subject, ErrNotHub, "refused to go on from https to "+showURL(next), nil)
		}
		if a.url = next; r.stay && originOf(next) != c.endpoint && a.hub.Get("X-Repo-Commit") != "" {
			return a, nil
		}
		u, a.Response = next, nil
	}
	if a.Response == nil {
		return nil, newError(r.subject, ErrNotHub, fmt.Sprintf("more than %d redirects", maxRedirects), nil)
	}
	if a.StatusCode >= 400 || a.StatusCode < 200 {
		defer a.close()
		err := statusError(r.subject, a, c.endpoint)
		if errors.Is(err, ErrExists) {
			body, _ := io.ReadAll(io.LimitReader(a.Body, 64<<10))
			err = &exists{err, body}
		}
		return nil, err
	}
	return a, nil
}

// once sends one request. The headers have to come within the Client's patience.
func (c *Client) once(ctx context.Context, r request, u *url.URL) (*http.Response, context.CancelFunc, error) {
	running, stop := context.WithCancelCause(ctx)
	patience := c.opts.patience
	if r.body != nil {
		patience *= 6 // the hub may have work to do with it
	}
	silent := time.AfterFunc(patience, func() { stop(errSilent) })
	var body io.ReadCloser
	if r.body != nil {
		var err error
		if body, err = r.body(); err != nil {
			silent.Stop()
			stop(nil)
			return nil, nil, err
		}
		moving := &awake{ReadCloser: body, silent: silent, patience: patience}
		defer moving.end()
		body = moving
	}
	req, err := http.NewRequestWithContext(running, r.method, u.String(), body)
	if err == nil && r.body != nil {
		req.ContentLength = r.size
	}
	if err != nil {
		silent.Stop()
		stop(nil)
		return nil, nil, newError(r.subject, ErrNotHub, "an address that can't be asked", nil)
	}
	for k, v := range r.header {
		req.Header.Set(k, v)
	}
	req.Header.Set("Accept-Encoding", "identity")
	req.Header.Set("User-Agent", "torchgo; hub")
	if o := originOf(u); o == c.endpoint && o.mayHaveToken() && !c.opts.Token.IsZero() {
		req.Header.Set("Authorization", "Bearer "+*c.opts.Token.secret)
	}
	xlog.Logger().LogAttrs(ctx, slog.LevelDebug, "hub: request", slog.String("method", r.method), slog.String("url", showURL(u)))
	resp, err := c.http.Do(req)
	silent.Stop()
	if err != nil {
		cause := context.Cause(running)
		stop(nil)
		return nil, nil, c.netError(ctx, r.subject, u, err, cause)
	}
	resp.Body = &watched{body: resp.Body, idle: c.opts.idle, stop: stop, running: running}
	return resp, func() { stop(nil) }, nil
}

// exists is ErrExists with what the hub says about what is there.
type exists struct {
	error
	body []byte
}

func (e *exists) Unwrap() error { return e.error }

// awake is a body that is sent: as long as somebody takes it, nobody is silent.
type awake struct {
	io.ReadCloser
	patience time.Duration

	mu     sync.Mutex
	silent *time.Timer // nil: there was an answer
}

func (a *awake) Read(p []byte) (int, error) {
	n, err := a.ReadCloser.Read(p)
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.silent != nil {
		a.silent.Reset(a.patience)
	}
	return n, err
}

// end comes with the answer, or without one.
func (a *awake) end() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.silent.Stop()
	a.silent = nil
}

var errSilent = errors.New("no answer for too long")

// netError is the error of a connection. It shows neither the query of an address, which may be signed, nor
// what net/http wraps around it.
func (c *Client) netError(ctx context.Context, subject string, u *url.URL, err, cause error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	var ue *url.Error
	if errors.As(err, &ue) {
		err = ue.Err
	}
	if errors.Is(cause, errSilent) {
		err = errSilent
	}
	return &transient{error: newError(subject, ErrUnavailable, showURL(u), err)}
}

// watched is a body whose reader gives up when nothing comes.
type watched struct {
	body    io.ReadCloser
	idle    time.Duration
	stop    context.CancelCauseFunc
	running context.Context
}

func (w *watched) Read(p []byte) (int, error) {
	t := time.AfterFunc(w.idle, func() { w.stop(errSilent) })
	n, err := w.body.Read(p)
	t.Stop()
	if err != nil && err != io.EOF && errors.Is(context.Cause(w.running), errSilent) {
		err = errSilent
	}
	return n, err
}

func (w *watched) Close() error { return w.body.Close() }

// showURL is an address for people: without user, query and fragment.
func showURL(u *url.URL) string {
	shown := url.URL{Scheme: u.Scheme, Host: u.Host, Path: u.Path}
	s := shown.String()
	if u.RawQuery != "" {
		s += "?…"
	}
	if len(s) > 300 {
		s = s[:300] + "…"
	}
	return s
}

// statusError turns an answer that is no success into an error of the class that the hub means.
func statusError(subject string, a *answer, own origin) error {
	status, h := a.StatusCode, a.Header
	detail := fmt.Sprintf("status %d from %s", status, showURL(a.url))
	if m := h.Get("X-Error-Message"); m != "" && originOf(a.url) == own {
		detail += fmt.Sprintf(" (%.200q)", m)
	}
	fail := func(class error) error { return newError(subject, class, detail, nil) }
	switch {
	case status == http.StatusRequestTimeout, status == http.StatusTooManyRequests, status >= 500 && status != http.StatusNotImplemented:
		after := retryAfter(h)
		e := newError(subject, ErrUnavailable, detail, nil)
		if after > maxAsked {
			e.Remedy = fmt.Sprintf("the hub asks to wait for %v", after.Round(time.Second))
			return e
		}
		return &transient{e, after}
	case status == http.StatusRequestedRangeNotSatisfiable:
		return &content{fail(ErrNotHub)}
	case originOf(a.url) != own:
		return fail(ErrUnavailable) // storage: an address that is no longer valid, perhaps
	}
	switch h.Get("X-Error-Code") {
	case "RevisionNotFound":
		return fail(ErrRevisionNotFound)
	case "EntryNotFound":
		return fail(ErrEntryNotFound)
	case "GatedRepo":
		return fail(ErrGated)
	case "RepoNotFound":
		return fail(ErrRepoNotFound)
	}
	switch {
	case strings.HasPrefix(h.Get("X-Error-Message"), "Invalid credentials"):
		return fail(ErrUnauthorized)
	case status == http.StatusUnauthorized: // what the hub says to strangers about repositories that may not exist
		return fail(ErrRepoNotFound)
	case status == http.StatusForbidden, status == http.StatusPaymentRequired:
		return fail(ErrForbidden)
	case status == http.StatusConflict:
		return fail(ErrExists)
	case status == http.StatusNotFound && strings.Contains(a.url.Path, "/resolve/"):
		return fail(ErrEntryNotFound)
	case status == http.StatusNotFound:
		return fail(ErrRepoNotFound)
	}
	return fail(ErrNotHub)
}

// retryAfter is how long an answer asks to wait: Retry-After in seconds or as a date, or RateLimit's t.
func retryAfter(h http.Header) time.Duration {
	if s := strings.TrimSpace(h.Get("Retry-After")); s != "" {
		if n, err := strconv.ParseInt(s, 10, 32); err == nil && n >= 0 {
			return time.Duration(n) * time.Second
		}
		if at, err := http.ParseTime(s); err == nil {
			return max(0, time.Until(at))
		}
	}
	// RateLimit: "api";r=0;t=55
	var left, wait int64 = -1, 0
	for part := range strings.SplitSeq(h.Get("RateLimit"), ";") {
		name, value, _ := strings.Cut(strings.TrimSpace(part), "=")
		n, err := strconv.ParseInt(strings.TrimSpace(value), 10, 32)
		switch {
		case err != nil || n < 0:
		case strings.TrimSpace(name) == "r":
			left = n
		case strings.TrimSpace(name) == "t":
			wait = n
		}
	}
	if left == 0 {
		return time.Duration(wait) * time.Second
	}
	return 0
}

// wait sleeps before try number n (from 1).
func (c *Client) wait(ctx context.Context, n int, err error) error {
	d := c.opts.unit * time.Duration(min(1<<(n-1), maxWait))
	d = d/2 + rand.N(d/2+1)
	var t *transient
	if errors.As(err, &t) && t.after > d {
		d = t.after
	}
	xlog.Logger().LogAttrs(ctx, slog.LevelDebug, "hub: trying again", slog.Duration("after", d), slog.String("error", err.Error()))
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// ask is do, tried again after errors that may pass.
func (c *Client) ask(ctx context.Context, r request) (*answer, error) {
	for try := 1; ; try++ {
		a, err := c.do(ctx, r)
		var t *transient
		if err == nil || !errors.As(err, &t) {
			return a, err
		}
		var op *net.OpError
		if try == maxTries || try >= maxDials && errors.As(err, &op) && op.Op == "dial" {
			return nil, t.error
		}
		if err := c.wait(ctx, try, err); err != nil {
			return nil, err
		}
	}
}

// getJSON reads a JSON answer of the hub. One cut connection is no reason to give up.
func (c *Client) getJSON(ctx context.Context, address, subject string) (data []byte, header http.Header, at *url.URL, err error) {
	if err := c.acquire(ctx); err != nil {
		return nil, nil, nil, err
	}
	defer c.release()
	for try := 1; ; try++ {
		a, err := c.ask(ctx, request{method: http.MethodGet, url: address, subject: subject})
		if err != nil {
			return nil, nil, nil, err
		}
		data, err := io.ReadAll(io.LimitReader(a.Body, maxJSON+1))
		a.close()
		kind := a.Header.Get("Content-Type")
		switch {
		case err != nil && try < maxTries && ctx.Err() == nil:
			if err := c.wait(ctx, try, err); err != nil {
				return nil, nil, nil, err
			}
			continue
		case ctx.Err() != nil:
			return nil, nil, nil, ctx.Err()
		case err != nil:
			return nil, nil, nil, newError(subject, ErrUnavailable, showURL(a.url), err)
		case len(data) > maxJSON:
			return nil, nil, nil, newError(subject, ErrNotHub, fmt.Sprintf("%s: more than %d bytes", showURL(a.url), maxJSON), nil)
		case a.Header.Get("Content-Encoding") != "" && a.Header.Get("Content-Encoding") != "identity":
			return nil, nil, nil, newError(subject, ErrNotHub, showURL(a.url)+": compressed, which was not asked for", nil)
		case strings.Contains(kind, "html"):
			return nil, nil, nil, newError(subject, ErrNotHub, fmt.Sprintf("%s: expected JSON, got %.60q", showURL(a.url), kind), nil)
		}
		return data, a.Header, a.url, nil
	}
}
