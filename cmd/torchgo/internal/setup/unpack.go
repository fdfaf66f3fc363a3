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
	"strings"

	"github.com/torchgo/torchgo/internal/libtorch"
	thirdparty "github.com/torchgo/torchgo/third_party"
)

// maxMembers and maxUnpacked bound a wheel; the largest pinned one has 20,000 members and 1.3 GB.
const (
	maxMembers  = 200_000
	maxUnpacked = 8 << 30
)

// install unpacks the wheels into a folder beside the entry and moves it into place.
func (o *Options) install(ctx context.Context, e *entry, wheels []thirdparty.Wheel) error {
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
		if plans[i], err = o.plan(&r.Reader, w); err != nil {
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

// plan picks the members to unpack and refuses a wheel with any member that could leave its folder.
func (o *Options) plan(r *zip.Reader, w thirdparty.Wheel) ([]*zip.File, error) {
	if len(r.File) > maxMembers {
		return nil, fmt.Errorf("%d members, at most %d are allowed", len(r.File), maxMembers)
	}
	device := o.Device
	var files []*zip.File
	var total uint64
	seen := map[string]bool{}
	for _, f := range r.File {
		name := strings.TrimSuffix(f.Name, "/")
		if !filepath.IsLocal(name) || strings.ContainsAny(name, "\\\x00") || filepath.ToSlash(filepath.Clean(name)) != name {
			return nil, fmt.Errorf("member %q would leave the folder", f.Name)
		}
		if mode := f.Mode(); !mode.IsRegular() && !mode.IsDir() {
			return nil, fmt.Errorf("member %q is neither file nor folder but %s", f.Name, mode.Type())
		}
		if f.Mode().IsDir() || !o.Pins.Wanted(device, w.Project, f.Name) {
			continue
		}
		if seen[f.Name] {
			return nil, fmt.Errorf("member %q is there twice", f.Name)
		}
		seen[f.Name] = true
		if total += f.UncompressedSize64; f.UncompressedSize64 > maxUnpacked || total > maxUnpacked {
			return nil, fmt.Errorf("unpacks to more than %s", size(maxUnpacked))
		}
		files = append(files, f)
	}
	return files, nil
}

type writeCloser interface {
	io.WriteCloser
	Sync() error
}

func createFile(path string) (writeCloser, error) {
	return os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
}

// extract writes one member; archive/zip compares its size and CRC.
func (o *Options) extract(ctx context.Context, f *zip.File, path string, progress func(int64)) (err error) {
	r, err := f.Open()
	if err != nil {
		return err
	}
	defer r.Close()
	w, err := o.create(path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, w.Close()) }()
	buf := make([]byte, 1<<20)
	for {
		n, err := contextReader{ctx, r}.Read(buf)
		if n > 0 {
			if _, err := w.Write(buf[:n]); err != nil {
				return err
			}
			progress(int64(n))
		}
		if err == io.EOF {
			if f.UncompressedSize64 > 1<<20 { // the libraries: whole on the disk before they have their name
				return w.Sync()
			}
			return nil
		}
		if err != nil {
			return err
		}
	}
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
