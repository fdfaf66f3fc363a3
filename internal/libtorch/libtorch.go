// Package libtorch knows where libtorch and torchgo's shim over it lie. It opens neither: the
// loader does (package cgo), and `torchgo setup` puts them there.
//
// The cache, by default <user cache>/torchgo, moved by TORCHGO_CACHE:
//
//	default                        the name of the entry that setup last made, one line
//	downloads/                     wheels on their way
//	<version>-<cpu|cuNNN>/         an entry
//	    setup.json                 Record: written last, so an entry without it is unfinished
//	    torch/{lib,include}        libtorch, unless the record names one elsewhere
//	    nvidia/…                   the CUDA libraries it needs, where its RPATH expects them
//	    shim-<hash>/libtorchgo.so  the shim, with shim.json (a Record, too) beside it
package libtorch

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
)

// File names inside the cache.
const (
	LibName     = "libtorchgo.so"
	CUDALibName = "libtorchgo_cuda.so"
	RecordName  = "setup.json"
	ShimRecord  = "shim.json"
	DefaultName = "default"
)

// ErrNotSetUp says that libtorch, or the shim for it, has to be set up first. Errors that wrap it
// are one line that names the command.
var ErrNotSetUp = errors.New("libtorch is not set up")

// Install is a libtorch and the shim built for it.
type Install struct {
	Version string // "2.15.0"; empty where nothing tells it (TORCHGO_LIB without shim.json)
	Device  string // "cpu" or "cuNNN"; empty as above
	Dir     string // libtorch's root, holding lib/ and include/; empty as above
	Lib     string // libtorchgo.so
	CUDALib string // libtorchgo_cuda.so; empty where there is none
	Source  string // how it was found, for people: "TORCHGO_LIB", "beside the executable", …
}

// Record is what setup writes about an entry (setup.json) and about a shim (shim.json).
type Record struct {
	Version  string   `json:"version"`            // "2.15.0"
	Device   string   `json:"device"`             // "cpu" or "cuNNN"
	Libtorch string   `json:"libtorch"`           // relative to the entry, or absolute where it lies elsewhere
	Source   string   `json:"source"`             // "wheels", "--libtorch", "LIBTORCH", "python"
	Compiler string   `json:"compiler,omitempty"` // first line of its --version
	CXX11ABI bool     `json:"cxx11_abi"`
	Flags    []string `json:"flags,omitempty"` // all compiler flags
}

// Cache returns the cache folder, which need not exist.
func Cache() (string, error) {
	if dir := os.Getenv("TORCHGO_CACHE"); dir != "" {
		return filepath.Abs(dir)
	}
	dir, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("no user cache folder (set TORCHGO_CACHE): %w", err)
	}
	return filepath.Join(dir, "torchgo"), nil
}

// ShimDir returns the name of a shim's folder inside its entry. Extra compiler flags
// (TORCHGO_SHIM_CXXFLAGS, for instrumented builds) make another folder.
func ShimDir(shimHash string) string {
	flags := strings.Join(strings.Fields(os.Getenv("TORCHGO_SHIM_CXXFLAGS")), " ")
	if flags == "" {
		return "shim-" + shimHash
	}
	sum := sha256.Sum256([]byte(flags))
	return "shim-" + shimHash + "-" + hex.EncodeToString(sum[:4])
}

// entryName is what an entry may be called; nothing else may leave the cache folder.
var entryName = regexp.MustCompile(`^[0-9]+(\.[0-9]+){1,2}-(cpu|cu[0-9]+)$`)

// Find looks for a shim of the given source hash and its libtorch: the file that TORCHGO_LIB names,
// libtorchgo.so beside the executable, the cache entry that TORCHGO_LIBTORCH names ("2.15.0-cpu"),
// the entry that setup last made. What an environment variable names must be there.
func Find(shimHash string) (Install, error) {
	if lib := os.Getenv("TORCHGO_LIB"); lib != "" {
		abs, err := filepath.Abs(lib)
		if err != nil {
			return Install{}, fmt.Errorf("TORCHGO_LIB: %w", err)
		}
		if err := regularFile(abs); err != nil {
			return Install{}, fmt.Errorf("TORCHGO_LIB: %w", err)
		}
		return beside(abs, "TORCHGO_LIB"), nil
	}
	if exe, err := os.Executable(); err == nil {
		if real, err := filepath.EvalSymlinks(exe); err == nil {
			exe = real
		}
		if lib := filepath.Join(filepath.Dir(exe), LibName); regularFile(lib) == nil {
			return beside(lib, "beside the executable"), nil
		}
	}
	cache, err := Cache()
	if err != nil {
		return Install{}, err
	}
	if name := os.Getenv("TORCHGO_LIBTORCH"); name != "" {
		if !entryName.MatchString(name) {
			return Install{}, fmt.Errorf("TORCHGO_LIBTORCH: %q is not <version>-<cpu|cuNNN>, like 2.15.0-cpu", name)
		}
		return entry(cache, name, shimHash, "TORCHGO_LIBTORCH")
	}
	name, err := Default(cache)
	if err != nil {
		return Install{}, err
	}
	if name == "" {
		return Install{}, fmt.Errorf("%w: run `torchgo setup`", ErrNotSetUp)
	}
	return entry(cache, name, shimHash, "default")
}

// Default returns the name of the entry that setup last made, "" if there is none.
func Default(cache string) (string, error) {
	path := filepath.Join(cache, DefaultName)
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	name := strings.TrimSpace(string(data))
	if !entryName.MatchString(name) {
		return "", fmt.Errorf("%s: %q is not <version>-<cpu|cuNNN>", path, name)
	}
	return name, nil
}

// ReadRecord reads a setup.json or shim.json.
func ReadRecord(path string) (Record, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return Record{}, err
	}
	var r Record
	if err := json.Unmarshal(data, &r); err != nil {
		return Record{}, fmt.Errorf("%s: %w", path, err)
	}
	return r, nil
}

// LibtorchDir resolves r.Libtorch for the entry at dir.
func (r Record) LibtorchDir(dir string) string {
	if filepath.IsAbs(r.Libtorch) {
		return r.Libtorch
	}
	return filepath.Join(dir, r.Libtorch)
}

func entry(cache, name, shimHash, source string) (Install, error) {
	dir := filepath.Join(cache, name)
	version, device, _ := strings.Cut(name, "-")
	command := "torchgo setup --version " + version
	if device != "cpu" {
		command += " --device cuda"
	}
	record, err := ReadRecord(filepath.Join(dir, RecordName))
	if errors.Is(err, fs.ErrNotExist) {
		return Install{}, fmt.Errorf("%w: %s is not in the cache %s: run `%s`", ErrNotSetUp, name, cache, command)
	}
	if err != nil {
		return Install{}, err
	}
	root := record.LibtorchDir(dir)
	if regularFile(filepath.Join(root, "lib", "libtorch_cpu.so")) != nil {
		return Install{}, fmt.Errorf("%w: %s is no longer in %s: run `%s`", ErrNotSetUp, name, root, command)
	}
	lib := filepath.Join(dir, ShimDir(shimHash), LibName)
	if regularFile(lib) != nil {
		return Install{}, fmt.Errorf("%w: %s lacks the shim of this torchgo: run `%s`", ErrNotSetUp, name, command)
	}
	in := Install{Version: record.Version, Device: record.Device, Dir: root, Lib: lib, Source: source}
	in.CUDALib = cudaBeside(lib)
	return in, nil
}

// beside describes a shim outside the cache's search, as far as its shim.json tells.
func beside(lib, source string) Install {
	in := Install{Lib: lib, CUDALib: cudaBeside(lib), Source: source}
	dir := filepath.Dir(lib)
	roots := []string{dir} // a deployment has libtorch's lib folder beside the program
	// A shim that was copied without its record is found as well: its RPATH finds libtorch, and the
	// loader checks their versions.
	if r, err := ReadRecord(filepath.Join(dir, ShimRecord)); err == nil {
		in.Version, in.Device = r.Version, r.Device
		roots = append(roots, r.LibtorchDir(filepath.Dir(dir))) // in the cache the shim's folder is inside the entry
	}
	for _, root := range roots {
		if regularFile(filepath.Join(root, "lib", "libtorch_cpu.so")) == nil {
			in.Dir = root
			break
		}
	}
	return in
}

func cudaBeside(lib string) string {
	cuda := filepath.Join(filepath.Dir(lib), CUDALibName)
	if regularFile(cuda) != nil {
		return ""
	}
	return cuda
}

func regularFile(path string) error {
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() {
		return fmt.Errorf("%s: not a regular file", path)
	}
	return nil
}
