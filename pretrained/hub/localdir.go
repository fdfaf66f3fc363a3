package hub

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
)

// metaDir is where Python, too, keeps what it knows about the files that it put into a folder.
const metaDir = ".cache/huggingface"

// DownloadTo puts the chosen files into a folder outside the cache, as files. What is there and still right
// stays; what the cache has is copied from it.
func (s *Snapshot) DownloadTo(ctx context.Context, dir string, which Filter) error {
	chosen, err := s.Select(ctx, which)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o777); err != nil {
		return err
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	if err := root.MkdirAll(metaDir+"/download", 0o777); err != nil {
		return err
	}
	tagFolder(filepath.Join(dir, metaDir))
	if _, err := root.Lstat(metaDir + "/.gitignore"); err != nil {
		_ = put(root, metaDir+"/.gitignore", []byte("*"))
	}
	g, running := errgroup.WithContext(ctx)
	g.SetLimit(s.c.opts.Workers)
	for _, e := range chosen {
		if running.Err() != nil {
			break
		}
		g.Go(func() error { return s.fileTo(running, root, dir, e) })
	}
	if err := g.Wait(); err != nil {
		return err
	}
	return ctx.Err()
}

func (s *Snapshot) fileTo(ctx context.Context, root *os.Root, dir string, e Entry) error {
	if e.Name == metaDir || strings.HasPrefix(e.Name, metaDir+"/") {
		return newError(s.Repo.ID+"/"+e.Name, ErrPath, "this name is taken", nil)
	}
	subject := s.Repo.ID + "/" + e.Name
	meta := path.Join(metaDir, "download", e.Name+".metadata")
	note := func() error {
		return put(root, meta, fmt.Appendf(nil, "%s\n%s\n%.3f\n", s.Commit, e.etag(), float64(time.Now().UnixMilli())/1000))
	}
	if !s.c.opts.ForceDownload {
		if st, err := root.Stat(e.Name); err == nil && st.Mode().IsRegular() && st.Size() == e.Size {
			known := metaETag(readSmall(root, meta, 4096), st.ModTime())
			if known == "" {
				if known, err = hashIn(ctx, root, e); err != nil {
					return err
				}
			}
			if known == e.etag() {
				return note()
			}
		}
	}
	if err := root.MkdirAll(path.Dir(e.Name), 0o777); err != nil {
		return err
	}
	if cached, err := s.Cached(e.Name); err == nil && cached != "" && !s.c.opts.ForceDownload {
		src, err := os.Open(cached)
		if err != nil {
			return err
		}
		defer src.Close()
		temp := path.Join(metaDir, "download", nonce()+".tmp")
		dst, err := root.OpenFile(temp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o666)
		if err != nil {
			return err
		}
		_, err = dst.ReadFrom(src)
		if err = errors.Join(err, dst.Sync(), dst.Close()); err == nil {
			err = root.Rename(temp, e.Name)
		}
		if err != nil {
			_ = root.Remove(temp)
			return &Error{File: subject, Detail: "copying from the cache", Err: bare(err)}
		}
		return note()
	}
	m, err := s.describe(ctx, e.Name)
	if err != nil {
		return err
	}
	to := place{root: root, dir: dir, partials: metaDir + "/download", target: e.Name,
		lock: filepath.Join(dir, filepath.FromSlash(metaDir), "download", m.etag+".lock"), done: func(bool) error { return nil }}
	if err := s.c.fetch(ctx, s, m, to, true); err != nil {
		return err
	}
	return note()
}

// metaETag is the second line of a metadata file, the hash of the file when it was put there; "" if the file was
// modified since, which the third line tells.
func metaETag(data []byte, modified time.Time) string {
	lines := strings.Split(string(data), "\n")
	if len(lines) < 3 {
		return ""
	}
	noted, err := strconv.ParseFloat(strings.TrimSpace(lines[2]), 64)
	if err != nil || float64(modified.UnixMilli())/1000-1 > noted { // as in Python, which allows for coarse clocks
		return ""
	}
	return strings.TrimSpace(lines[1])
}

func hashIn(ctx context.Context, root *os.Root, e Entry) (string, error) {
	f, err := root.Open(e.Name)
	if err != nil {
		return "", err
	}
	defer f.Close()
	return contentHash(contextReader{ctx, f}, e.Size, e.etag())
}
