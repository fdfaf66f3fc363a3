package setup

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"github.com/torchgo/torchgo/internal/wheel"
)

// downloads is the folder of whole, verified wheels. They stay until all are unpacked, so that an
// interrupted setup fetches only what it lacks.
func (o *Options) downloads() string { return filepath.Join(o.Cache, "downloads") }

func (o *Options) removeWheels(wheels []wheel.Wheel) error {
	for _, w := range wheels {
		if err := os.Remove(filepath.Join(o.downloads(), w.File)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	// Another version's wheels may be in it.
	if err := os.Remove(o.downloads()); err != nil && !errors.Is(err, syscall.ENOTEMPTY) && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// download has pip (or uv) fetch the wheels that are not there yet and returns how many bytes they were.
func (o *Options) download(ctx context.Context, wheels []wheel.Wheel, unpacked int64) (int64, error) {
	dir := o.downloads()
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return 0, err
	}
	defer os.Remove(dir) // if nothing is in it
	var missing []wheel.Wheel
	var bytes, largest int64
	for _, w := range wheels {
		path := filepath.Join(dir, w.File)
		if exists(path) {
			if err := wheel.Verify(ctx, path, w); err == nil {
				continue
			} else if ctx.Err() != nil {
				return 0, err
			}
			if err := os.Remove(path); err != nil {
				return 0, err
			}
		}
		missing = append(missing, w)
		bytes += w.Size
		largest = max(largest, w.Size)
	}
	// pip writes a wheel to its temporary folder, ours, and copies it.
	if err := o.needSpace(bytes + largest + unpacked); err != nil {
		return 0, err
	}
	if len(missing) == 0 {
		return 0, nil
	}
	pip, err := wheel.Find(ctx)
	if errors.Is(err, wheel.ErrNoClient) {
		return 0, fmt.Errorf("%w, to download libtorch, or name an unpacked one with --libtorch", err)
	}
	if err != nil {
		return 0, err
	}
	o.Say("downloading %d wheels, %s, with %s", len(missing), size(bytes), pip)
	var done int64
	for _, w := range missing {
		err := pip.Fetch(ctx, w, o.Pins.Python, dir, func(n int64) { o.Progress.Bytes("download", done+n, bytes) })
		if err != nil {
			return done, err
		}
		done += w.Size
		o.Progress.Bytes("download", done, bytes)
	}
	return done, nil
}
