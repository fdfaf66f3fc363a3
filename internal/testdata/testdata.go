// Package testdata gives tests the reference data of the repository: the archives
// testdata/<group>.tar.zst, which tools/pack writes.
package testdata

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/klauspost/compress/zstd"
)

// maxUnpacked bounds what one archive may unpack to.
const maxUnpacked = 1 << 30

// group is an unpacked archive that the running tests of this process share.
type group struct {
	once  sync.Once
	dir   string
	err   error
	users int // tests that hold it; the last one removes it
}

var (
	mu     sync.Mutex
	groups = map[string]*group{}
)

// Open returns a directory with the files of testdata/<name>.tar.zst. It is unpacked once and shared by
// the tests of the process that use it at the same time, so a test must not change it (see Copy); it
// goes away with the last of them.
func Open(t testing.TB, name string) string {
	t.Helper()
	mu.Lock()
	g := groups[name]
	if g == nil {
		g = &group{}
		groups[name] = g
	}
	g.users++
	mu.Unlock()
	t.Cleanup(func() { g.release(name) })

	g.once.Do(func() {
		if g.dir, g.err = os.MkdirTemp("", "torchgo-testdata-"); g.err == nil {
			g.err = unpackGroup(name, g.dir)
		}
	})
	if g.err != nil {
		t.Fatalf("testdata: %s: %v", name, g.err)
	}
	return g.dir
}

// Copy unpacks testdata/<name>.tar.zst into a directory of the test's own, which it may change.
func Copy(t testing.TB, name string) string {
	t.Helper()
	dir := t.TempDir()
	if err := unpackGroup(name, dir); err != nil {
		t.Fatalf("testdata: %s: %v", name, err)
	}
	return dir
}

func (g *group) release(name string) {
	mu.Lock()
	defer mu.Unlock()
	if g.users--; g.users > 0 {
		return
	}
	delete(groups, name)
	if g.dir != "" {
		_ = os.RemoveAll(g.dir)
	}
}

func unpackGroup(name, dir string) error {
	root, err := moduleRoot()
	if err != nil {
		return err
	}
	f, err := os.Open(filepath.Join(root, "testdata", name+".tar.zst"))
	if err != nil {
		return err
	}
	defer f.Close()
	return unpack(f, dir)
}

// moduleRoot is the nearest directory above the working directory (for a test: its package) with a go.mod
// and a testdata folder.
func moduleRoot() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for {
		_, modErr := os.Stat(filepath.Join(dir, "go.mod"))
		if st, err := os.Stat(filepath.Join(dir, "testdata")); modErr == nil && err == nil && st.IsDir() {
			return dir, nil
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			return "", errors.New("no go.mod beside a testdata folder above the working directory")
		}
		dir = parent
	}
}

// unpack writes the regular files and directories of a tar.zst stream below dir and refuses all else.
func unpack(r io.Reader, dir string) error {
	zr, err := zstd.NewReader(r, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(maxUnpacked))
	if err != nil {
		return err
	}
	defer zr.Close()
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()

	var total int64
	tr := tar.NewReader(zr)
	for {
		h, err := tr.Next()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		if !filepath.IsLocal(h.Name) {
			return fmt.Errorf("entry %q is not a local path", h.Name)
		}
		switch h.Typeflag {
		case tar.TypeDir:
			if err := root.MkdirAll(filepath.Clean(h.Name), 0o755); err != nil {
				return err
			}
		case tar.TypeReg:
			if total += h.Size; total > maxUnpacked {
				return fmt.Errorf("unpacks to more than %d bytes", int64(maxUnpacked))
			}
			if err := writeFile(root, h.Name, tr); err != nil {
				return err
			}
		default:
			return fmt.Errorf("entry %q is neither a file nor a directory (tar type %q)", h.Name, h.Typeflag)
		}
	}
}

func writeFile(root *os.Root, name string, r io.Reader) error {
	if err := root.MkdirAll(filepath.Dir(filepath.Clean(name)), 0o755); err != nil {
		return err
	}
	f, err := root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, r)
	return errors.Join(err, f.Close())
}
