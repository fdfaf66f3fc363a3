package hub

import (
	"context"
	"errors"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// Removal is what a deletion will do.
type Removal struct {
	Repos     int // whole ones
	Revisions int // of those and of others
	Files     int // leftovers
	Bytes     int64

	dir       string
	repos     []CachedRepo
	revisions map[string][]CachedRevision // by the repository's folder
	leftovers []Leftover
}

// Remove plans the deletion of revisions by their commits: contents that no other revision has go, too. A
// repository of which nothing remains goes as a whole. An empty list of commits means all.
func (i *CacheInfo) Remove(repos map[string][]string) *Removal {
	d := &Removal{dir: i.Dir, revisions: map[string][]CachedRevision{}}
	for _, r := range i.Repos {
		commits, ok := repos[filepath.Base(r.Path)]
		if !ok {
			continue
		}
		var gone []CachedRevision
		kept := map[string]bool{}
		for _, v := range r.Revisions {
			if len(commits) == 0 || slices.Contains(commits, v.Commit) {
				gone = append(gone, v)
				continue
			}
			for _, f := range v.Files {
				kept[f.blob] = true
			}
		}
		if len(gone) == len(r.Revisions) {
			d.repos, d.Repos, d.Bytes = append(d.repos, r), d.Repos+1, d.Bytes+r.Size
		} else {
			d.revisions[filepath.Base(r.Path)] = gone
			sizes := map[string]int64{}
			for _, v := range gone {
				for _, f := range v.Files {
					if !kept[f.blob] {
						sizes[f.blob] = f.Size
					}
				}
			}
			for _, n := range sizes {
				d.Bytes += n
			}
		}
		d.Revisions += len(gone)
	}
	return d
}

// Prune plans the deletion of revisions that no branch or tag is at, and of leftovers of downloads. Downloads
// that are going on are left alone.
func (i *CacheInfo) Prune() *Removal {
	detached := map[string][]string{}
	for _, r := range i.Repos {
		for _, v := range r.Revisions {
			if len(v.Refs) == 0 {
				detached[filepath.Base(r.Path)] = append(detached[filepath.Base(r.Path)], v.Commit)
			}
		}
	}
	d := i.Remove(detached)
	for _, l := range i.Incomplete {
		_ = abandoned(i.Dir, l, func() error { // what can't be locked stays
			d.leftovers, d.Files, d.Bytes = append(d.leftovers, l), d.Files+1, d.Bytes+l.Size
			return nil
		})
	}
	return d
}

// abandoned calls do, under the lock of a leftover, if nobody is at it: the lock is free, and where locks do
// nothing, it was not written to for long.
func abandoned(cache string, l Leftover, do func() error) error {
	etag, _, _ := strings.Cut(filepath.Base(l.Path), ".")
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
	defer cancel()
	unlock, reliable, err := lockFile(ctx, filepath.Join(cache, ".locks", filepath.Base(filepath.Dir(filepath.Dir(l.Path))), etag+".lock"), false)
	if errors.Is(err, context.DeadlineExceeded) {
		return nil
	}
	if err != nil {
		return err
	}
	defer unlock()
	st, err := os.Lstat(l.Path)
	if err != nil || !reliable && time.Since(st.ModTime()) < time.Hour {
		return nil // it is complete by now, or not known to be abandoned
	}
	return do()
}

// Do deletes. Nothing outside the cache is touched: links are removed, not followed.
func (d *Removal) Do() error {
	root, err := os.OpenRoot(d.dir)
	if err != nil {
		return err
	}
	defer root.Close()
	for _, r := range d.repos {
		name := filepath.Base(r.Path)
		if err := root.RemoveAll(name); err != nil {
			return &Error{File: r.Path, Detail: "removing", Err: bare(err)}
		}
		_ = root.RemoveAll(".locks/" + name)
	}
	for _, name := range slices.Sorted(maps.Keys(d.revisions)) {
		id, err := parseFolder(name)
		if err != nil {
			return err
		}
		if err := removeRevisions(d.dir, id, d.revisions[name]); err != nil {
			return &Error{File: filepath.Join(d.dir, name), Detail: "removing", Err: bare(err)}
		}
	}
	for _, l := range d.leftovers {
		rel, err := filepath.Rel(d.dir, l.Path)
		if err == nil {
			err = abandoned(d.dir, l, func() error { return root.Remove(rel) })
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return &Error{File: l.Path, Detail: "removing", Err: bare(err)}
		}
	}
	return nil
}

// removeRevisions removes snapshots, then the contents that no remaining one links to.
func removeRevisions(cache string, id Repo, gone []CachedRevision) error {
	f, err := openFolder(cache, id, false)
	if err != nil {
		return err
	}
	defer f.Close()
	candidates := map[string]bool{} // blobs that what goes links to
	for _, v := range gone {
		for _, b := range f.blobsOf(v.Commit) {
			candidates[b] = true
		}
		for _, ref := range v.Refs {
			if err := f.Remove(path.Join("refs", ref)); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
		}
		for _, p := range []string{"snapshots/" + v.Commit, ".no_exist/" + v.Commit, "trees/" + v.Commit + ".json"} {
			if err := f.RemoveAll(p); err != nil {
				return err
			}
		}
	}
	left, err := fs.ReadDir(f.FS(), "snapshots")
	if err != nil {
		return err
	}
	for _, c := range left {
		for _, b := range f.blobsOf(c.Name()) {
			delete(candidates, b)
		}
	}
	for b := range candidates {
		if err := f.Remove(path.Join("blobs", b)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// blobsOf lists the blobs that a snapshot links to.
func (f *folder) blobsOf(commit string) (list []string) {
	base := path.Join("snapshots", commit)
	_ = fs.WalkDir(f.FS(), base, func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.Type()&fs.ModeSymlink == 0 {
			return nil
		}
		if b := f.blobOf(p); b != "" {
			list = append(list, b)
		}
		return nil
	})
	return list
}

// blobOf is the name of the blob that a link of a snapshot points to; "" if it is no such link.
func (f *folder) blobOf(pointer string) string {
	target, err := f.Readlink(pointer)
	if err != nil {
		return ""
	}
	dir, name := path.Split(path.Join(path.Dir(pointer), filepath.ToSlash(target)))
	if dir != "blobs/" {
		return ""
	}
	return name
}
