// Package setup provisions libtorch and builds torchgo's shim over it (`torchgo setup`).
//
// All of it happens under a lock in the cache folder, each result is made beside its place and
// renamed into it, and what is there already is kept: setup may be killed, repeated and run twice
// at once. The layout is package libtorch's.
package setup

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"

	"github.com/torchgo/torchgo/internal/atomicfile"
	"github.com/torchgo/torchgo/internal/libtorch"
	"github.com/torchgo/torchgo/internal/wheel"
	thirdparty "github.com/torchgo/torchgo/third_party"
)

// Options says what to set up.
type Options struct {
	Device   string // "cpu" or "cuda"; "" for that of the default entry, "cpu" if there is none
	Version  string // "" for what fits best, the pinned default at last
	Libtorch string // a libtorch that is already there, "" to look for one; a torch folder, too

	Cache    string           // the cache folder
	Pins     *thirdparty.Pins // what may be downloaded
	Shim     fs.FS            // the shim's sources: shim/*.cpp, shim/cuda/*.cpp and headers
	ShimHash string           // names the shim's folder

	// Probe opens a finished shim in a process of its own and says why it does not work.
	Probe func(ctx context.Context, lib string) error
	// Say tells a person what happens, one line at a time.
	Say func(format string, args ...any)
	// Progress, if not nil, is told how far a step is.
	Progress Progress

	freeBytes func(dir string) (int64, error)        // for tests
	create    func(path string) (writeCloser, error) // for tests
}

// Progress draws bars.
type Progress interface {
	Bytes(what string, done, total int64)
	Count(what string, done, total int64)
	Clear()
}

type noProgress struct{}

func (noProgress) Bytes(string, int64, int64) {}
func (noProgress) Count(string, int64, int64) {}
func (noProgress) Clear()                     {}

// Result says what is there now and what was done for it.
type Result struct {
	Version    string `json:"version"`
	Device     string `json:"device"`
	Source     string `json:"source"` // "wheels", "--libtorch", "LIBTORCH", "python"
	Libtorch   string `json:"libtorch"`
	Shim       string `json:"shim"`
	CUDAShim   string `json:"cuda_shim,omitempty"`
	Compiler   string `json:"compiler"`
	Downloaded int64  `json:"downloaded_bytes"`
	Unpacked   bool   `json:"unpacked"`
	Compiled   bool   `json:"compiled"`
}

// Run sets up what o asks for and makes it the default.
func Run(ctx context.Context, o Options) (Result, error) {
	r, err := run(ctx, &o)
	o.Progress.Clear()
	if err != nil && errors.Is(err, syscall.ENOSPC) {
		err = fmt.Errorf("the disk is full: %w", err)
	}
	return r, err
}

func run(ctx context.Context, o *Options) (Result, error) {
	if o.Progress == nil {
		o.Progress = noProgress{}
	}
	if o.freeBytes == nil {
		o.freeBytes = freeBytes
	}
	if o.create == nil {
		o.create = createFile
	}
	if o.Version != "" && !o.Pins.Supports(o.Version) {
		return Result{}, fmt.Errorf("libtorch %s is not supported: there are %s", o.Version, strings.Join(o.Pins.Names(), ", "))
	}
	if err := os.MkdirAll(o.Cache, 0o755); err != nil {
		return Result{}, fmt.Errorf("cache folder: %w", err)
	}
	unlock, err := lock(ctx, filepath.Join(o.Cache, "setup.lock"), func() {
		o.Say("another setup is running; waiting for it")
	})
	if err != nil {
		return Result{}, err
	}
	defer unlock()
	if err := removeTemporaries(o.Cache); err != nil {
		return Result{}, err
	}
	if o.Device == "" {
		o.Device = "cpu"
		// A plain setup, as `make` runs it, must not take CUDA away. (A default that can't be read is made anew.)
		if name, _ := libtorch.Default(o.Cache); name != "" && !strings.HasSuffix(name, "-cpu") {
			o.Device = "cuda"
		}
	}
	e, r, err := o.provide(ctx)
	if err != nil {
		return r, err
	}
	return r, o.setDefault(e)
}

// entry is a libtorch in the cache: its folder and record.
type entry struct {
	dir    string
	record libtorch.Record
}

func (e entry) name() string { return filepath.Base(e.dir) }

// provide gets libtorch from the first place that has it, with the shim for it.
func (o *Options) provide(ctx context.Context) (entry, Result, error) {
	dir, source := o.Libtorch, "--libtorch"
	if dir == "" {
		dir, source = os.Getenv("LIBTORCH"), "LIBTORCH"
	}
	if dir != "" {
		found, err := inspect(dir, source)
		if err == nil {
			err = o.fits(found)
		}
		if err != nil {
			return entry{}, Result{}, fmt.Errorf("%s: %w", source, err)
		}
		return o.adopt(ctx, found)
	}
	if e, ok := o.existing(); ok {
		r, err := o.finish(ctx, e, Result{})
		return e, r, err
	}
	for _, found := range pythonTorches(ctx) {
		if err := o.fits(found); err != nil {
			o.Say("not using Python's torch in %s: %v", found.dir, err)
			continue
		}
		e, r, err := o.adopt(ctx, found)
		if err == nil || ctx.Err() != nil || errors.Is(err, errNoCompiler) {
			return e, r, err
		}
		o.Say("not using Python's torch in %s: %v", found.dir, err)
	}
	return o.fetch(ctx)
}

// wanted is the version to look for in the cache and to download.
func (o *Options) wanted() string {
	if o.Version == "" {
		return o.Pins.Default
	}
	return o.Version
}

// existing finds a finished entry for what is asked for.
func (o *Options) existing() (entry, bool) {
	device := "cpu"
	version := o.wanted()
	if v, ok := o.Pins.Find(version); ok {
		version = v.Version
		if o.Device == "cuda" {
			device = v.CUDA
		}
	}
	e := entry{dir: filepath.Join(o.Cache, version+"-"+device)}
	var err error
	if e.record, err = libtorch.ReadRecord(filepath.Join(e.dir, libtorch.RecordName)); err != nil {
		return e, false
	}
	found, err := inspect(e.record.LibtorchDir(e.dir), e.record.Source)
	return e, err == nil && found.version == e.record.Version
}

// fits reports whether a libtorch that is already there is what is asked for.
func (o *Options) fits(f found) error {
	switch {
	case !o.Pins.Supports(f.version):
		return fmt.Errorf("libtorch %s in %s is not supported: there are %s", f.version, f.dir, strings.Join(o.Pins.Names(), ", "))
	case o.Version != "" && f.version != o.Version && !strings.HasPrefix(f.version, o.Version+"."):
		return fmt.Errorf("%s holds libtorch %s, not %s", f.dir, f.version, o.Version)
	case o.Device == "cuda" && f.cuda == "":
		return fmt.Errorf("libtorch %s in %s is without CUDA", f.version, f.dir)
	}
	return nil
}

// adopt makes an entry for a libtorch that lies elsewhere.
func (o *Options) adopt(ctx context.Context, f found) (entry, Result, error) {
	device := "cpu"
	if o.Device == "cuda" {
		device = f.cuda
	}
	e := entry{
		dir: filepath.Join(o.Cache, f.version+"-"+device),
		record: libtorch.Record{
			Version: f.version, Device: device, Libtorch: f.dir, Source: f.source, CXX11ABI: f.cxx11ABI,
		},
	}
	path := filepath.Join(e.dir, libtorch.RecordName)
	old, err := libtorch.ReadRecord(path)
	if err == nil && old.LibtorchDir(e.dir) == f.dir && old.Version == f.version {
		e.record = old
		r, err := o.finish(ctx, e, Result{})
		return e, r, err
	}
	o.Say("using libtorch %s in %s", f.version, f.dir)
	made := errors.Is(err, fs.ErrNotExist)
	if err := os.MkdirAll(e.dir, 0o755); err != nil {
		return e, Result{}, err
	}
	r, err := o.finish(ctx, e, Result{})
	if err == nil {
		err = writeRecord(path, e.record)
	}
	if err != nil && made {
		_ = os.Remove(e.dir) // only if nothing else is in it
	}
	return e, r, err
}

// fetch downloads and unpacks the pinned wheels.
func (o *Options) fetch(ctx context.Context) (entry, Result, error) {
	v, ok := o.Pins.Find(o.wanted())
	if !ok {
		return entry{}, Result{}, fmt.Errorf("libtorch %s can't be downloaded: pinned are %s (or name one that is there with --libtorch)",
			o.wanted(), strings.Join(o.Pins.Names(), ", "))
	}
	if runtime.GOOS != "linux" || runtime.GOARCH != "amd64" {
		return entry{}, Result{}, fmt.Errorf("no libtorch is pinned for %s/%s: name an unpacked one with --libtorch", runtime.GOOS, runtime.GOARCH)
	}
	device := "cpu"
	if o.Device == "cuda" {
		device = v.CUDA
	}
	if _, err := findCompiler(ctx); err != nil { // before half a gigabyte is on its way
		return entry{}, Result{}, err
	}
	e := entry{
		dir: filepath.Join(o.Cache, v.Version+"-"+device),
		record: libtorch.Record{
			Version: v.Version, Device: device, Libtorch: "torch", Source: "wheels",
		},
	}
	set := v.Devices[o.Device]
	wheels := make([]wheel.Wheel, len(set.Wheels))
	for i, file := range set.Wheels {
		wheels[i] = o.Pins.Wheels[file]
	}
	var r Result
	var err error
	if r.Downloaded, err = o.download(ctx, wheels, set.Unpacked); err != nil {
		return e, r, err
	}
	if err := o.install(ctx, &e, wheels); err != nil {
		return e, r, err
	}
	r.Unpacked = true
	if err := o.removeWheels(wheels); err != nil {
		return e, r, err
	}
	r, err = o.finish(ctx, e, r)
	return e, r, err
}

// finish builds the shim for an entry whose libtorch is there.
func (o *Options) finish(ctx context.Context, e entry, r Result) (Result, error) {
	rec, compiled, err := o.buildShim(ctx, e)
	if err != nil {
		return r, err
	}
	dir := filepath.Join(e.dir, libtorch.ShimDir(o.ShimHash))
	r.Version, r.Device, r.Source = rec.Version, rec.Device, rec.Source
	r.Libtorch = e.record.LibtorchDir(e.dir)
	r.Shim = filepath.Join(dir, libtorch.LibName)
	if cuda := filepath.Join(dir, libtorch.CUDALibName); exists(cuda) {
		r.CUDAShim = cuda
	}
	r.Compiler = rec.Compiler
	r.Compiled = compiled
	return r, nil
}

func (o *Options) setDefault(e entry) error {
	if name, err := libtorch.Default(o.Cache); err == nil && name == e.name() {
		return nil
	}
	return writeFile(filepath.Join(o.Cache, libtorch.DefaultName), []byte(e.name()+"\n"))
}

func writeRecord(path string, r libtorch.Record) error {
	data, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	return writeFile(path, append(data, '\n'))
}

func writeFile(path string, data []byte) error { return atomicfile.WriteFile(path, data, 0o644) }
