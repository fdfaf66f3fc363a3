package hub

import (
	"context"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"
)

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
	r   io.Reader
}

func (r contextReader) Read(p []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, err
	}
	return r.r.Read(p)
}
