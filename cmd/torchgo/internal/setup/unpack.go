package setup

import (
	"archive/zip"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/torchgo/torchgo/internal/libtorch"
	"github.com/torchgo/torchgo/internal/wheel"
)

// install unpacks the wheels into a folder beside the entry and moves it into place.
func (o *Options) install(ctx context.Context, e *entry, wheels []wheel.Wheel) error {
	tmp, err := os.MkdirTemp(o.Cache, tempPrefix)
	if err != nil {
		return err
	}
	defer os.RemoveAll(tmp)
	if err := os.Chmod(tmp, 0o755); err != nil { // MkdirTemp's 0700 would keep other users out
		return err
	}
	var done, total int64
	plans := make([][]*zip.File, len(wheels))
	for i, w := range wheels {
		r, err := zip.OpenReader(filepath.Join(o.downloads(), w.File))
		if err != nil {
			return fmt.Errorf("%s: %w", w.File, err)
		}
		defer r.Close()
		if plans[i], err = wheel.Plan(&r.Reader, func(name string) bool { return o.Pins.Wanted(o.Device, w.Project, name) }); err != nil {
			return fmt.Errorf("%s: %w", w.File, err)
		}
		for _, f := range plans[i] {
			total += int64(f.UncompressedSize64)
		}
	}
	if err := o.needSpace(total); err != nil {
		return err
	}
	o.Say("unpacking %s", size(total))
	made := map[string]bool{}
	for i, w := range wheels {
		for _, f := range plans[i] {
			if err := ctx.Err(); err != nil {
				return err
			}
			path := filepath.Join(tmp, filepath.FromSlash(f.Name))
			if dir := filepath.Dir(path); !made[dir] {
				if err := os.MkdirAll(dir, 0o755); err != nil {
					return fmt.Errorf("%s: %w", w.File, err)
				}
				made[dir] = true
			}
			err := o.extract(ctx, f, path, func(n int64) {
				done += n
				o.Progress.Bytes("unpack", done, total)
			})
			if err != nil {
				return fmt.Errorf("%s: %s: %w", w.File, f.Name, err)
			}
		}
	}
	f, err := inspect(filepath.Join(tmp, "torch"), "wheels")
	if err != nil {
		return err
	}
	if f.version != e.record.Version {
		return fmt.Errorf("the wheel of libtorch %s holds %s", e.record.Version, f.version)
	}
	e.record.CXX11ABI = f.cxx11ABI
	if err := writeRecord(filepath.Join(tmp, libtorch.RecordName), e.record); err != nil {
		return err
	}
	if err := moveInto(tmp, e.dir); err != nil {
		return err
	}
	o.Say("libtorch %s is in %s", f.version, filepath.Join(e.dir, "torch"))
	return nil
}

type writeCloser interface {
	io.WriteCloser
	Sync() error
}

func createFile(path string) (writeCloser, error) {
	return os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
}

// extract writes one member to path.
func (o *Options) extract(ctx context.Context, f *zip.File, path string, progress func(int64)) (err error) {
	w, err := o.create(path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, w.Close()) }()
	if err := wheel.Extract(ctx, f, w, progress); err != nil {
		return err
	}
	if f.UncompressedSize64 > 1<<20 { // the libraries: whole on the disk before they have their name
		return w.Sync()
	}
	return nil
}

// moveInto makes tmp the folder dir. If dir is there (with shims, or a record of a libtorch
// elsewhere), tmp's members replace those of their names in it, the record last.
func moveInto(tmp, dir string) error {
	if err := os.Rename(tmp, dir); err == nil || !exists(dir) {
		return err
	}
	record := filepath.Join(dir, libtorch.RecordName)
	if err := os.Remove(record); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	members, err := os.ReadDir(tmp)
	if err != nil {
		return err
	}
	for _, m := range members {
		if m.Name() == libtorch.RecordName {
			continue
		}
		to := filepath.Join(dir, m.Name())
		if err := os.RemoveAll(to); err != nil {
			return err
		}
		if err := os.Rename(filepath.Join(tmp, m.Name()), to); err != nil {
			return err
		}
	}
	return os.Rename(filepath.Join(tmp, libtorch.RecordName), record)
}
