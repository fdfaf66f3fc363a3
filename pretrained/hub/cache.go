package hub

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"os"
	"path"
	"path/filepath"
	"strings"
	"sync"
	"syscall"

	"github.com/torchgo/torchgo/internal/regular"
	"github.com/torchgo/torchgo/internal/strictjson"
	"github.com/torchgo/torchgo/internal/xlog"
)

// folder is a repository's part of the cache:
//
//	blobs/<hash>                    contents
//	snapshots/<commit>/<name>       links to them
//	refs/<revision>                 the commit that a revision was last seen to be
//	.no_exist/<commit>/<name>       empty: the commit has no such file
//	trees/<commit>.json             the list of the files of a commit
//
// Everything is written through an os.Root, so that no name and no link leads out of it.
type folder struct {
	dir string
	*os.Root
}

// openFolder opens a repository's folder. create makes it if it isn't there; otherwise the error is
// fs.ErrNotExist.
func openFolder(cacheDir string, r Repo, create bool) (*folder, error) {
	dir := filepath.Join(cacheDir, r.folder())
	if create {
		if err := os.MkdirAll(dir, 0o777); err != nil {
			return nil, err
		}
		tagFolder(cacheDir)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	return &folder{dir, root}, nil
}

// tagFolder tells backup programs that a folder is a cache.
func tagFolder(dir string) {
	const tag = "Signature: 8a477f597d28d172789f06886806bc55\n# This is the cache of a Hugging Face hub, see https://bford.info/cachedir/\n"
	f, err := os.OpenFile(filepath.Join(dir, "CACHEDIR.TAG"), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o666)
	if err != nil {
		return // it is there, or nobody may write: both are fine
	}
	_, _ = f.WriteString(tag)
	_ = f.Close()
}

func (f *folder) path(name string) string { return filepath.Join(f.dir, filepath.FromSlash(name)) }

// nonce makes names that no other process makes.
func nonce() string { return fmt.Sprintf("%016x", rand.Uint64()) }

// put replaces a small file in one step.
func put(root *os.Root, name string, data []byte) error {
	if err := root.MkdirAll(path.Dir(name), 0o777); err != nil {
		return err
	}
	temp := fmt.Sprintf("%s.%s.tmp", name, nonce())
	f, err := root.OpenFile(temp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o666)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err = errors.Join(err, f.Close()); err == nil {
		err = root.Rename(temp, name)
	}
	if err != nil {
		_ = root.Remove(temp)
	}
	return err
}

// readSmall reads a small file; what isn't there or isn't a small file is nothing.
func readSmall(root *os.Root, name string, limit int64) []byte {
	st, err := root.Stat(name)
	if err != nil || !st.Mode().IsRegular() || st.Size() > limit {
		return nil
	}
	data, err := root.ReadFile(name)
	if err != nil {
		return nil
	}
	return data
}

// ref is the commit that a revision was last seen to be; "" if it never was.
func (f *folder) ref(revision string) string {
	if IsCommit(revision) {
		return revision
	}
	commit := strings.TrimSpace(string(readSmall(f.Root, path.Join("refs", revision), 1024)))
	if !IsCommit(commit) {
		return ""
	}
	return commit
}

func (f *folder) setRef(revision, commit string) error {
	if revision == commit || f.ref(revision) == commit {
		return nil
	}
	return put(f.Root, path.Join("refs", revision), []byte(commit))
}

// lacks tells whether the commit is known to have no such file.
func (f *folder) lacks(commit, name string) bool {
	st, err := f.Lstat(path.Join(".no_exist", commit, name))
	return err == nil && st.Mode().IsRegular()
}

func (f *folder) setLacks(commit, name string) error {
	return put(f.Root, path.Join(".no_exist", commit, name), nil)
}

// cached is the path of a file of a snapshot, "" if it isn't there. An error says that what is there leads
// elsewhere.
func (f *folder) cached(commit, name string) (string, error) {
	pointer := path.Join("snapshots", commit, name)
	full := f.path(pointer)
	st, err := f.Stat(pointer)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		// Python may keep one copy of a blob for all repositories: blobs/<hash> is then a link to
		// ../../blobs/<xx>/<hash>, which is beside this folder and still in the cache.
		st, err = f.shared(full)
	}
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) {
		return "", nil
	}
	if err == nil {
		err = regular.Check(full, st)
	}
	if err != nil {
		return "", &Error{File: full, Class: ErrPath, Detail: "leads out of the cache, or to no regular file", Err: bare(err), Remedy: "remove it and download it again"}
	}
	return full, nil
}

// shared follows links that leave the repository's folder for the cache's store of shared blobs.
func (f *folder) shared(full string) (fs.FileInfo, error) {
	real, err := filepath.EvalSymlinks(full)
	if err != nil {
		return nil, err
	}
	store, err := filepath.EvalSymlinks(filepath.Join(filepath.Dir(f.dir), "blobs"))
	if err != nil {
		return nil, errors.New("a link that leaves the folder")
	}
	if rel, err := filepath.Rel(store, real); err != nil || !filepath.IsLocal(rel) {
		return nil, errors.New("a link that leaves the folder")
	}
	return os.Stat(real)
}

// bare is the cause without the operation and path that it was wrapped in.
func bare(err error) error {
	var p *fs.PathError
	if errors.As(err, &p) {
		return p.Err
	}
	var l *os.LinkError
	if errors.As(err, &l) {
		return l.Err
	}
	return err
}

var linkWarning sync.Once

// link makes the file of a snapshot a relative link to its blob; where there can be no links, the file itself
// if it is new, else a copy.
func (f *folder) link(commit, name, etag string, isNew, noLinks bool) error {
	pointer, blob := path.Join("snapshots", commit, name), path.Join("blobs", etag)
	if err := f.MkdirAll(path.Dir(pointer), 0o777); err != nil {
		return err
	}
	temp := path.Join(path.Dir(pointer), "."+nonce()+".tmp")
	target := strings.Repeat("../", strings.Count(pointer, "/")) + blob
	err := error(errors.ErrUnsupported)
	if !noLinks {
		err = f.Symlink(filepath.FromSlash(target), temp)
	}
	if err == nil {
		if err = f.Rename(temp, pointer); err != nil {
			_ = f.Remove(temp)
		}
		return err
	}
	if !noLinks {
		linkWarning.Do(func() {
			if !isTrue(os.Getenv("HF_HUB_DISABLE_SYMLINKS_WARNING")) {
				xlog.Logger().LogAttrs(context.Background(), slog.LevelWarn, "the cache can't have symbolic links here: files are kept as copies", slog.Any("error", bare(err)))
			}
		})
	}
	if isNew {
		return f.Rename(blob, pointer)
	}
	src, err := f.Open(blob)
	if err != nil {
		return err
	}
	defer src.Close()
	dst, err := f.OpenFile(temp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o666)
	if err != nil {
		return err
	}
	_, err = dst.ReadFrom(src)
	if err = errors.Join(err, dst.Sync(), dst.Close()); err == nil {
		err = f.Rename(temp, pointer)
	}
	if err != nil {
		_ = f.Remove(temp)
	}
	return err
}

// tree is the list of files of a commit that was kept; nil if there is none.
func (f *folder) tree(commit string) []Entry {
	data := readSmall(f.Root, path.Join("trees", commit+".json"), maxJSON)
	if data == nil {
		return nil
	}
	list, err := parseTreeFile(data)
	if err != nil {
		xlog.Logger().LogAttrs(context.Background(), slog.LevelWarn, "ignoring a list of files that can't be read", slog.String("file", f.path(path.Join("trees", commit+".json"))), slog.Any("error", err))
		return nil
	}
	return list
}

// parseTreeFile reads {"format_version": 1, "files": {name: {"size", "blob_id", "lfs_sha256", "lfs_size", "xet_hash"}}}.
func parseTreeFile(data []byte) ([]Entry, error) {
	d := strictjson.NewDecoder(data, strictjson.Options{})
	list := []Entry{}
	var version int64
	err := d.Object(func(key string) (err error) {
		switch key {
		case "format_version":
			version, err = size(d)
			return err
		case "files":
			return d.Object(func(name string) error {
				e := Entry{Name: name}
				err := d.Object(func(key string) (err error) {
					if k, _ := d.Peek(); k == strictjson.KindNull {
						return d.Null()
					}
					switch key {
					case "size":
						e.Size, err = size(d)
					case "blob_id":
						e.Blob, err = d.Text()
					case "lfs_sha256":
						e.LFS, err = d.Text()
					case "xet_hash":
						e.xet, err = d.Text()
					default:
						err = d.Skip()
					}
					return err
				})
				if err == nil {
					err = e.check()
				}
				list = append(list, e)
				return err
			})
		}
		return d.Skip()
	})
	if err == nil {
		err = d.End()
	}
	if err == nil && version != 1 {
		err = fmt.Errorf("format %d", version)
	}
	return list, err
}

// setTree keeps the list of files of a commit.
func (f *folder) setTree(commit string, list []Entry) error {
	type file struct {
		Size int64  `json:"size"`
		Blob string `json:"blob_id"`
		LFS  string `json:"lfs_sha256,omitempty"`
		LFSN *int64 `json:"lfs_size,omitempty"`
		Xet  string `json:"xet_hash,omitempty"`
	}
	files := make(map[string]file, len(list))
	for _, e := range list {
		x := file{Size: e.Size, Blob: e.Blob, LFS: e.LFS, Xet: e.xet}
		if e.LFS != "" {
			x.LFSN = &e.Size
		}
		if len(x.Xet) != 64 || !isHash(x.Xet) {
			x.Xet = "" // Python would ignore the whole list
		}
		files[e.Name] = x
	}
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", " ")
	if err := enc.Encode(map[string]any{"format_version": 1, "files": files}); err != nil {
		return err
	}
	return put(f.Root, path.Join("trees", commit+".json"), b.Bytes())
}
