package hub

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path"
	"path/filepath"
	"strings"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/torchgo/torchgo/internal/xlog"
)

// Snapshot is a repository at one commit. Its methods may be called concurrently.
type Snapshot struct {
	Repo   Repo
	Commit string

	c *Client

	mu     sync.Mutex
	list   map[string]Entry // nil: not known
	asked  map[string]remote
	forced map[string]bool // what ForceDownload has fetched already
}

// Resolve settles which commit a revision is, with one request; none if it is a commit hash, or if the
// Client is offline. When the hub can't be reached, it is the commit that it was last seen to be.
func (c *Client) Resolve(ctx context.Context, r Repo) (*Snapshot, error) {
	r = r.withDefaults()
	if err := r.validate(); err != nil {
		return nil, err
	}
	s := &Snapshot{Repo: r, Commit: r.Revision, c: c, forced: map[string]bool{}, asked: map[string]remote{}}
	if IsCommit(r.Revision) {
		return s, nil
	}
	var err error
	if c.opts.Offline {
		err = newError(r.String(), ErrOffline, "", nil)
	} else {
		s.Commit, err = c.commitOf(ctx, r)
	}
	if err == nil {
		s.remember()
		return s, nil
	}
	if ctx.Err() != nil || !errors.Is(err, ErrOffline) && !errors.Is(err, ErrUnavailable) {
		return nil, err
	}
	if f, openErr := openFolder(c.opts.CacheDir, r, false); openErr == nil {
		s.Commit = f.ref(r.Revision)
		_ = f.Close()
		if s.Commit != "" {
			if !c.opts.Offline {
				xlog.Logger().LogAttrs(ctx, slog.LevelWarn, "the hub can't be reached, the cache is used", slog.String("error", err.Error()))
			}
			return s, nil
		}
	}
	if c.opts.Offline {
		return nil, s.offline("revision " + r.Revision)
	}
	return nil, err
}

// offline says what is missing, and why it can't be had.
func (s *Snapshot) offline(what string) error {
	e := newError(s.Repo.ID, ErrOffline, what, nil)
	e.File = s.Repo.ID
	e.Remedy = "the cache is " + s.c.opts.CacheDir
	if OfflineByEnvironment() {
		e.Remedy += "; unset HF_HUB_OFFLINE and TRANSFORMERS_OFFLINE to download it"
	}
	return e
}

// remember keeps which commit the revision is. A cache that can't be written to still serves.
func (s *Snapshot) remember() {
	if s.Repo.Revision == s.Commit {
		return
	}
	f, err := openFolder(s.c.opts.CacheDir, s.Repo, true)
	if err == nil {
		err = errors.Join(f.setRef(s.Repo.Revision, s.Commit), f.Close())
	}
	if err != nil {
		xlog.Logger().LogAttrs(context.Background(), slog.LevelDebug, "hub: can't write to the cache", slog.String("error", err.Error()))
	}
}

// Dir is the snapshot's folder in the cache. It has the files that were downloaded.
func (s *Snapshot) Dir() string {
	return filepath.Join(s.c.opts.CacheDir, s.Repo.folder(), "snapshots", s.Commit)
}

// Cached is the path of a file if it is in the cache, else "". It makes no request.
func (s *Snapshot) Cached(name string) (string, error) {
	if err := CheckName(name); err != nil {
		return "", err
	}
	f, err := openFolder(s.c.opts.CacheDir, s.Repo, false)
	if err != nil {
		return "", nil
	}
	defer f.Close()
	return f.cached(s.Commit, name)
}

// Has tells whether the commit has a file, with a request if neither the cache nor the list of files knows.
func (s *Snapshot) Has(ctx context.Context, name string) (bool, error) {
	if err := CheckName(name); err != nil {
		return false, err
	}
	f, err := openFolder(s.c.opts.CacheDir, s.Repo, false)
	if err == nil {
		defer f.Close()
		if p, err := f.cached(s.Commit, name); err != nil || p != "" {
			return p != "", err
		}
		if f.lacks(s.Commit, name) {
			return false, nil
		}
		s.useTree(f)
	}
	_, err = s.describe(ctx, name)
	switch {
	case errors.Is(err, ErrEntryNotFound):
		return false, nil
	case errors.Is(err, ErrOffline):
		return false, s.offline(name + " of commit " + s.Commit)
	}
	return err == nil, err
}

// useTree takes the list of files from the cache, if it is there.
func (s *Snapshot) useTree(f *folder) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.list != nil {
		return
	}
	if list := f.tree(s.Commit); list != nil {
		s.setList(list)
	}
}

func (s *Snapshot) setList(list []Entry) {
	s.list = make(map[string]Entry, len(list))
	for _, e := range list {
		s.list[e.Name] = e
	}
}

// Offline tells whether the Client makes no requests.
func (s *Snapshot) Offline() bool { return s.c.Offline() }

// File gives the path of a file in the cache; if it isn't there, it is downloaded. ErrEntryNotFound says that
// the commit has no such file; what is known of that needs no request either.
func (s *Snapshot) File(ctx context.Context, name string) (string, error) {
	if err := CheckName(name); err != nil {
		return "", err
	}
	force := s.c.opts.ForceDownload && !s.c.opts.Offline && s.forceOnce(name)
	f, err := openFolder(s.c.opts.CacheDir, s.Repo, false)
	if err == nil {
		defer func() { _ = f.Close() }()
		if p, err := f.cached(s.Commit, name); err != nil || p != "" && !force {
			return p, err
		}
		if !force && f.lacks(s.Commit, name) {
			return "", s.missing(name)
		}
		s.useTree(f)
	}
	m, err := s.describe(ctx, name)
	if s.c.opts.Offline && !errors.Is(err, ErrEntryNotFound) {
		return "", s.offline(name + " of commit " + s.Commit)
	}
	if err != nil {
		return "", err
	}
	if f == nil {
		if f, err = openFolder(s.c.opts.CacheDir, s.Repo, true); err != nil {
			return "", err
		}
	}
	to := place{root: f.Root, dir: f.dir, partials: "blobs", target: path.Join("blobs", m.etag),
		lock: filepath.Join(s.c.opts.CacheDir, ".locks", s.Repo.folder(), m.etag+".lock")}
	to.done = func(isNew bool) error {
		if p, err := f.cached(s.Commit, name); err != nil || p != "" && !isNew {
			return err
		}
		return f.link(s.Commit, name, m.etag, isNew, s.c.opts.noLinks)
	}
	if err := s.c.fetch(ctx, s, m, to, force); err != nil {
		return "", err
	}
	p, err := f.cached(s.Commit, name)
	if err == nil && p == "" {
		err = newError(s.Repo.ID+"/"+name, ErrConflict, "was removed from the cache while it was downloaded", nil)
	}
	return p, err
}

// forceOnce tells whether a file is still to be downloaded again.
func (s *Snapshot) forceOnce(name string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	again := !s.forced[name]
	s.forced[name] = true
	return again
}

func (s *Snapshot) missing(name string) error {
	return newError(s.Repo.ID+"/"+name, ErrEntryNotFound, "commit "+s.Commit, nil)
}

func (s *Snapshot) setLacks(name string) {
	f, err := openFolder(s.c.opts.CacheDir, s.Repo, true)
	if err != nil {
		return // it saves a request, no more
	}
	defer f.Close()
	_ = f.setLacks(s.Commit, name)
}

// describe says what a file is: from the list of files if that is known, else the hub is asked. That the hub
// has no such file is remembered.
func (s *Snapshot) describe(ctx context.Context, name string) (remote, error) {
	s.mu.Lock()
	list := s.list
	m, known := s.asked[name]
	s.mu.Unlock()
	if known {
		return m, nil
	}
	if list != nil {
		e, ok := list[name]
		if !ok {
			s.setLacks(name)
			return remote{}, s.missing(name)
		}
		return remote{name: name, etag: e.etag(), size: e.Size, url: s.c.fileURL(s.Repo, s.Commit, name)}, nil
	}
	m, err := s.c.headFile(ctx, s.Repo, s.Commit, name)
	if errors.Is(err, ErrEntryNotFound) {
		s.setLacks(name)
	}
	if err == nil {
		s.mu.Lock()
		s.asked[name] = m
		s.mu.Unlock()
	}
	return m, err
}

// List gives the files of the commit, with one request for a thousand; none if the list is in the cache.
func (s *Snapshot) List(ctx context.Context) ([]Entry, error) {
	var list []Entry
	if f, err := openFolder(s.c.opts.CacheDir, s.Repo, false); err == nil {
		list = f.tree(s.Commit)
		_ = f.Close()
	}
	if list == nil {
		if s.c.opts.Offline {
			return nil, s.offline("the list of files of commit " + s.Commit)
		}
		var err error
		if list, err = s.c.listTree(ctx, s.Repo, s.Commit); err != nil {
			return nil, err
		}
		if f, err := openFolder(s.c.opts.CacheDir, s.Repo, true); err == nil {
			_ = f.setTree(s.Commit, list) // it saves a request, no more
			_ = f.Close()
		}
	}
	s.mu.Lock()
	s.setList(list)
	s.mu.Unlock()
	return list, nil
}

// Select lists the files that a Filter chooses.
func (s *Snapshot) Select(ctx context.Context, which Filter) ([]Entry, error) {
	all, err := s.List(ctx)
	if err != nil {
		return nil, err
	}
	chosen := []Entry{}
	for _, e := range all {
		if which.Match(e.Name) {
			chosen = append(chosen, e)
		}
	}
	return chosen, nil
}

// Download brings the chosen files to the cache and gives the snapshot's folder. When the hub can't be
// reached, a snapshot in the cache that has them all will do.
func (s *Snapshot) Download(ctx context.Context, which Filter) (string, error) {
	chosen, err := s.Select(ctx, which)
	switch {
	case err == nil:
	case errors.Is(err, ErrOffline), errors.Is(err, ErrUnavailable) && ctx.Err() == nil:
		// Without a list nobody knows what is missing: what is there is taken, as in Python.
		if st, statErr := os.Stat(s.Dir()); statErr == nil && st.IsDir() {
			return s.Dir(), nil
		}
		return "", err
	default:
		return "", err
	}
	names := make([]string, len(chosen))
	var bytes int64
	for i, e := range chosen {
		names[i] = e.Name
		if p, _ := s.Cached(e.Name); p == "" || s.c.opts.ForceDownload {
			bytes += e.Size
		}
	}
	s.c.progress.plan(bytes)
	if s.c.opts.Offline {
		if err := s.allCached(names); err != nil {
			return "", err
		}
	}
	return s.Dir(), s.Files(ctx, names...)
}

// allCached is an error that names what isn't there.
func (s *Snapshot) allCached(names []string) error {
	var missing []string
	for _, n := range names {
		p, err := s.Cached(n)
		if err != nil {
			return err
		}
		if p == "" {
			missing = append(missing, n)
		}
	}
	if len(missing) == 0 {
		return nil
	}
	shown := strings.Join(missing[:min(3, len(missing))], ", ")
	if len(missing) > 3 {
		shown += fmt.Sprintf(" and %d more", len(missing)-3)
	}
	return s.offline(shown + " of commit " + s.Commit)
}

// Files is File for several, in parallel. The first error stops the rest.
func (s *Snapshot) Files(ctx context.Context, names ...string) error {
	g, running := errgroup.WithContext(ctx)
	g.SetLimit(s.c.opts.Workers)
	for _, name := range names {
		if running.Err() != nil {
			break
		}
		g.Go(func() error {
			_, err := s.File(running, name)
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	return ctx.Err()
}
