package hub

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
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
