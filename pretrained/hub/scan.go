package hub

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// CacheInfo is what a cache has.
type CacheInfo struct {
	Dir        string
	Size       int64 // bytes of contents, shared ones once
	Repos      []CachedRepo
	Incomplete []Leftover // of downloads that were interrupted, or that are going on
	Warnings   []string   // what is no repository
}

// CachedRepo is a repository in the cache. Only ID, Type and Path are set before it is scanned.
type CachedRepo struct {
	ID        string
	Type      Type
	Path      string
	Size      int64 // bytes of the contents of all revisions
	Accessed  time.Time
	Modified  time.Time
	Revisions []CachedRevision
}

// CachedRevision is one commit of a repository.
type CachedRevision struct {
	Commit   string
	Path     string
	Refs     []string // branches and tags that were last seen here; none: detached
	Size     int64
	Modified time.Time
	Files    []CachedFile
}

// CachedFile is a file of a revision.
type CachedFile struct {
	Name string
	Size int64

	blob string // path of the content, "" if it could not be followed
}

// Leftover is a part of a download.
type Leftover struct {
	Path string
	Size int64
}

// Refs are the branches and tags of all revisions.
func (r CachedRepo) Refs() []string {
	var list []string
	for _, v := range r.Revisions {
		list = append(list, v.Refs...)
	}
	slices.Sort(list)
	return list
}

// Scan reads what a cache has. Nothing is changed.
func Scan(dir string) (*CacheInfo, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, &Error{File: dir, Detail: "the cache", Err: bare(err)}
	}
	info := &CacheInfo{Dir: dir, Repos: []CachedRepo{}}
	blobs := map[string]int64{}
	for _, e := range entries {
		switch name := e.Name(); name {
		case ".locks", "CACHEDIR.TAG", ".DS_Store", "Thumbs.db", "desktop.ini", "blobs":
			continue
		}
		repo, err := scanRepo(dir, e.Name(), blobs)
		if err != nil {
			info.Warnings = append(info.Warnings, fmt.Sprintf("%s: %v", e.Name(), bare(err)))
			continue
		}
		info.Repos = append(info.Repos, repo)
		parts, _ := filepath.Glob(filepath.Join(repo.Path, "blobs", "*"+partSuffix))
		for _, p := range parts {
			if st, err := os.Lstat(p); err == nil {
				info.Incomplete = append(info.Incomplete, Leftover{p, st.Size()})
			}
		}
	}
	for _, n := range blobs {
		info.Size += n
	}
	slices.SortFunc(info.Repos, func(a, b CachedRepo) int {
		return strings.Compare(string(a.Type)+"/"+strings.ToLower(a.ID), string(b.Type)+"/"+strings.ToLower(b.ID))
	})
	return info, nil
}

// parseFolder takes models--org--name apart.
func parseFolder(name string) (Repo, error) {
	kind, id, ok := strings.Cut(name, "--")
	r := Repo{ID: strings.ReplaceAll(id, "--", "/"), Type: Type(strings.TrimSuffix(kind, "s"))}
	if !ok || !strings.HasSuffix(kind, "s") {
		return r, errors.New("not a repository's folder")
	}
	return r, r.withDefaults().validate()
}

func scanRepo(cache, name string, blobs map[string]int64) (CachedRepo, error) {
	id, err := parseFolder(name)
	r := CachedRepo{ID: id.ID, Type: id.Type, Path: filepath.Join(cache, name), Revisions: []CachedRevision{}}
	if err != nil {
		return r, err
	}
	f, err := openFolder(cache, id, false)
	if err != nil {
		return r, err
	}
	defer f.Close()
	refs := f.refs()
	commits, err := fs.ReadDir(f.FS(), "snapshots")
	if err != nil && !errors.Is(err, fs.ErrNotExist) { // none while the first download is going on
		return r, err
	}
	mine := map[string]int64{}
	for _, c := range commits {
		if !c.IsDir() || !IsCommit(c.Name()) {
			continue
		}
		v := CachedRevision{Commit: c.Name(), Path: filepath.Join(r.Path, "snapshots", c.Name()), Refs: refs[c.Name()], Files: []CachedFile{}}
		own := map[string]int64{}
		err := filepath.WalkDir(v.Path, func(p string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return err
			}
			rel, err := filepath.Rel(v.Path, p)
			if err != nil {
				return err
			}
			file := CachedFile{Name: filepath.ToSlash(rel)}
			if real, err := filepath.EvalSymlinks(p); err == nil {
				if st, err := os.Stat(real); err == nil && st.Mode().IsRegular() {
					file.blob, file.Size = real, st.Size()
					own[real], mine[real], blobs[real] = st.Size(), st.Size(), st.Size()
					v.Modified = later(v.Modified, st.ModTime())
					r.Accessed = later(r.Accessed, accessTime(st))
				}
			}
			v.Files = append(v.Files, file)
			return nil
		})
		if err != nil {
			return r, err
		}
		if st, err := os.Stat(v.Path); err == nil && v.Modified.IsZero() {
			v.Modified = st.ModTime()
		}
		for _, n := range own {
			v.Size += n
		}
		r.Modified = later(r.Modified, v.Modified)
		r.Revisions = append(r.Revisions, v)
	}
	for _, n := range mine {
		r.Size += n
	}
	if r.Modified.IsZero() {
		if st, err := os.Stat(r.Path); err == nil {
			r.Modified = st.ModTime()
		}
	}
	return r, nil
}

func later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}

// refs are the names of revisions by commit.
func (f *folder) refs() map[string][]string {
	byCommit := map[string][]string{}
	_ = fs.WalkDir(f.FS(), "refs", func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || strings.HasSuffix(p, ".tmp") {
			return nil
		}
		name := strings.TrimPrefix(p, "refs/")
		if commit := f.ref(name); commit != "" {
			byCommit[commit] = append(byCommit[commit], name)
		}
		return nil
	})
	return byCommit
}

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

// Verification is what the contents of a snapshot turned out to be.
type Verification struct {
	Repo    string
	Type    Type
	Commit  string
	Checked int
	Bad     []BadFile
	Missing []string // in the list of files of the commit, and not here; known only if the list is in the cache
	Unknown []string // here, and without a hash to compare with
}

// BadFile is a file whose content is another than its hash says.
type BadFile struct{ Name, Expected, Actual string }

// Verify reads every file of a revision in the cache and compares it with its hash. It needs no network.
func Verify(ctx context.Context, cacheDir string, r Repo) (*Verification, error) {
	r = r.withDefaults()
	if err := r.validate(); err != nil {
		return nil, err
	}
	f, err := openFolder(cacheDir, r, false)
	if err != nil {
		return nil, newError(r.ID, ErrOffline, "not in the cache "+cacheDir, nil)
	}
	defer f.Close()
	commit := f.ref(r.Revision)
	if commit == "" {
		return nil, newError(r.String(), ErrOffline, "revision "+r.Revision+" is not in the cache", nil)
	}
	v := &Verification{Repo: r.ID, Type: r.Type, Commit: commit, Bad: []BadFile{}, Missing: []string{}, Unknown: []string{}}
	want := map[string]Entry{}
	list := f.tree(commit)
	for _, e := range list {
		want[e.Name] = e
	}
	base := path.Join("snapshots", commit)
	seen := map[string]bool{}
	err = fs.WalkDir(f.FS(), base, func(p string, d fs.DirEntry, err error) error {
		if err == nil {
			err = ctx.Err()
		}
		if err != nil || d.IsDir() {
			return err
		}
		name := strings.TrimPrefix(p, base+"/")
		seen[name] = true
		hash := f.blobOf(p)
		if e, ok := want[name]; ok {
			hash = e.etag()
		}
		full, err := f.cached(commit, name)
		if err != nil || full == "" {
			v.Bad = append(v.Bad, BadFile{name, hash, "nothing: the link leads nowhere"})
			return nil
		}
		if !isHash(hash) {
			v.Unknown = append(v.Unknown, name)
			return nil
		}
		got, err := hashFile(ctx, full, hash)
		if err != nil {
			return err
		}
		if v.Checked++; got != hash {
			v.Bad = append(v.Bad, BadFile{name, hash, got})
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	for _, e := range list {
		if !seen[e.Name] {
			v.Missing = append(v.Missing, e.Name)
		}
	}
	slices.Sort(v.Missing)
	return v, nil
}

// hashFile is contentHash of a file; it ends early when ctx does.
func hashFile(ctx context.Context, name, want string) (string, error) {
	f, err := os.Open(name)
	if err != nil {
		return "", err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return "", err
	}
	return contentHash(contextReader{ctx, f}, st.Size(), want)
}

type contextReader struct {
	ctx context.Context
	f   *os.File
}

func (r contextReader) Read(p []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, err
	}
	return r.f.Read(p)
}
