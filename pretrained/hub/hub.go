// Package hub downloads models from a Hugging Face hub and keeps them in the cache that Python's
// huggingface_hub has, in its layout: either may fill it, both read it.
//
//	c, err := hub.New(hub.Options{})
//	defer c.Close()
//	s, err := c.Resolve(ctx, hub.Repo{ID: "org/name"}) // main is this commit from now on
//	path, err := s.File(ctx, "config.json")            // in the cache, downloaded if need be
//	dir, err := s.Download(ctx, hub.Filter{Allow: []string{"*.safetensors"}})
//
// A revision becomes a commit once, and every file comes from that commit. Content is checked against the
// hash that the hub gives for it before it gets its name. Interrupted downloads go on where they stopped.
//
// # Environment
//
// HF_HOME, HF_HUB_CACHE, HUGGINGFACE_HUB_CACHE and XDG_CACHE_HOME say where the cache is; HF_HUB_OFFLINE (or
// TRANSFORMERS_OFFLINE) forbids the network; HF_ENDPOINT is the hub; HF_TOKEN, HUGGING_FACE_HUB_TOKEN and
// HF_TOKEN_PATH give the token, HF_HUB_DISABLE_IMPLICIT_TOKEN says not to look for one;
// HF_HUB_DOWNLOAD_TIMEOUT and HF_HUB_ETAG_TIMEOUT are seconds of silence after which a transfer or a question
// is given up; HF_HUB_DISABLE_SYMLINKS makes copies in place of links; HTTPS_PROXY, HTTP_PROXY and NO_PROXY are
// those of net/http.
package hub

import (
	"cmp"
	"context"
	"log/slog"
	"net/http"
	"path/filepath"
	"time"

	"github.com/torchgo/torchgo/internal/xlog"
)

// DefaultEndpoint is the hub if nothing else is asked for.
const DefaultEndpoint = "https://huggingface.co"

// Options are what a Client needs to know. The zero value takes everything from the environment.
type Options struct {
	Endpoint string // the hub's address; default HF_ENDPOINT, else DefaultEndpoint
	CacheDir string // the folder with models--org--name; default see the package's documentation

	Token   Token // default: see FindToken
	NoToken bool  // be anonymous, even if there is a token

	Offline       bool // LocalFilesOnly of from_pretrained: no request is made
	ForceDownload bool // download again what the cache has
	Workers       int  // transfers at a time; default 8

	// Progress is called as bytes arrive, never from two goroutines at once.
	Progress func(Progress)

	transport http.RoundTripper // of tests
	unit      time.Duration     // of waits between tries; tests shorten it
	idle      time.Duration     // silence after which a transfer is given up
	patience  time.Duration     // for an answer to begin
	segment   int64             // bytes of a part of a large file
	noFlock   bool              // tests: a file system whose locks do nothing
	noLinks   bool
}

// Progress says how far a download is. What an earlier try had got counts as done.
type Progress struct {
	File        string // the one that this report is about
	Done, Total int64  // bytes of it
	AllDone     int64  // bytes of all files of this Client so far
	AllTotal    int64
}

// Client talks to one hub and keeps one cache. It may be used by several goroutines at once.
type Client struct {
	opts     Options
	endpoint origin
	http     *http.Client
	slots    chan struct{} // a transfer holds one
	progress meter
}

// New makes a Client. It makes no request and touches no file but the token's.
func New(opts Options) (*Client, error) {
	env, err := readEnvironment()
	if err != nil {
		return nil, err
	}
	if opts.CacheDir != "" {
		if opts.CacheDir, err = expandHome(opts.CacheDir); err != nil {
			return nil, err
		}
	} else if opts.CacheDir, err = CacheDir(); err != nil {
		return nil, err
	}
	if opts.CacheDir, err = filepath.Abs(opts.CacheDir); err != nil {
		return nil, err
	}
	opts.Endpoint = cmp.Or(opts.Endpoint, env.endpoint)
	c := &Client{}
	if c.endpoint, opts.Endpoint, err = parseEndpoint(opts.Endpoint); err != nil {
		return nil, err
	}
	opts.Offline = opts.Offline || env.offline
	opts.noLinks = opts.noLinks || env.noLinks
	if opts.Offline && opts.ForceDownload {
		return nil, &Error{Class: ErrArgument, Detail: "to download again, and to use no network", Expected: "one of them", Actual: "both"}
	}
	if opts.Workers <= 0 {
		opts.Workers = 8
	}
	opts.unit = cmp.Or(opts.unit, time.Second/2)
	opts.idle = cmp.Or(opts.idle, env.downloadTimeout)
	opts.patience = cmp.Or(opts.patience, env.etagTimeout)
	opts.segment = cmp.Or(opts.segment, 64<<20)
	if opts.NoToken {
		opts.Token = Token{}
	} else if opts.Token.IsZero() && !env.noImplicitToken && !opts.Offline {
		if opts.Token, err = FindToken(); err != nil {
			return nil, err
		}
	}
	if err := opts.Token.check(); err != nil {
		return nil, err
	}
	if !opts.Token.IsZero() && !c.endpoint.mayHaveToken() {
		xlog.Logger().LogAttrs(context.Background(), slog.LevelWarn, "the token is not sent, as everyone on the way could read it: the hub's address needs https", slog.String("endpoint", opts.Endpoint))
	}
	c.opts = opts
	c.http = newHTTP(opts.transport)
	c.slots = make(chan struct{}, opts.Workers)
	c.progress.report = opts.Progress
	return c, nil
}

// Close lets go of idle connections. The cache stays.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// CacheDir is the folder that this Client keeps its files in.
func (c *Client) CacheDir() string { return c.opts.CacheDir }

// Offline tells whether this Client makes no requests.
func (c *Client) Offline() bool { return c.opts.Offline }

// acquire waits for a transfer's turn.
func (c *Client) acquire(ctx context.Context) error {
	select {
	case c.slots <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (c *Client) release() { <-c.slots }
