// Command pack writes a folder as one of the repository's reference archives:
//
//	go run ./tools/pack DIR testdata/GROUP.tar.zst
//
// The same files give the same bytes: names are sorted; times, owners and modes are dropped. Only
// regular files and empty directories are packed; anything else is refused.
package main

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"

	"github.com/klauspost/compress/zstd"
)

func main() {
	if len(os.Args) != 3 {
		fmt.Fprintln(os.Stderr, "usage: pack DIR OUT.tar.zst")
		os.Exit(2)
	}
	if err := run(os.Args[1], os.Args[2]); err != nil {
		fmt.Fprintln(os.Stderr, "pack:", err)
		os.Exit(1)
	}
}

func run(dir, out string) error {
	f, err := os.CreateTemp(filepath.Dir(out), ".pack-*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) // a no-op once it is renamed
	err = pack(f, os.DirFS(dir))
	err = errors.Join(err, f.Chmod(0o644), f.Close())
	if err != nil {
		return err
	}
	return os.Rename(f.Name(), out)
}

func pack(w io.Writer, fsys fs.FS) error {
	// One worker: the split into blocks, and so the bytes, would depend on the number of CPUs.
	zw, err := zstd.NewWriter(w, zstd.WithEncoderConcurrency(1), zstd.WithEncoderLevel(zstd.SpeedBestCompression))
	if err != nil {
		return err
	}
	tw := tar.NewWriter(zw)
	// fs.WalkDir goes in lexical order.
	err = fs.WalkDir(fsys, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || name == "." {
			return err
		}
		h := &tar.Header{Name: path.Clean(name), Format: tar.FormatPAX}
		switch {
		case d.IsDir():
			// Only an empty directory needs an entry.
			if entries, err := fs.ReadDir(fsys, name); err != nil || len(entries) > 0 {
				return err
			}
			h.Typeflag, h.Mode, h.Name = tar.TypeDir, 0o755, h.Name+"/"
			return tw.WriteHeader(h)
		case !d.Type().IsRegular():
			return fmt.Errorf("%s is not a regular file (%v)", name, d.Type())
		}
		data, err := fs.ReadFile(fsys, name)
		if err != nil {
			return err
		}
		h.Typeflag, h.Mode, h.Size = tar.TypeReg, 0o644, int64(len(data))
		if err := tw.WriteHeader(h); err != nil {
			return err
		}
		_, err = tw.Write(data)
		return err
	})
	return errors.Join(err, tw.Close(), zw.Close())
}
