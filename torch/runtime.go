package torch

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"sync/atomic"

	"github.com/torchgo/torchgo/cgo"
	"github.com/torchgo/torchgo/internal/libtorch"
	"github.com/torchgo/torchgo/torch/internal/bridge"
)

func init() { bridge.Load, bridge.Must = load, must }

// loaded is set once libtorch is there; loadErr is why it is not.
var (
	loaded   atomic.Bool
	loadOnce sync.Once
	loadErr  error
	install  libtorch.Install
	library  cgo.Library
)

// Load opens libtorch. The first operator does so by itself; a program calls Load to get an error
// in place of a panic, which is one line and names the command to run.
//
// Whether CUDA is there is decided here, once: the environment variable TORCHGO_DEVICE=cpu leaves
// libtorch's CUDA library out, which saves its start-up time and memory.
func Load() error {
	loadOnce.Do(func() {
		if loadErr = open(); loadErr == nil {
			loaded.Store(true)
		}
	})
	return loadErr
}

func open() error {
	var err error
	if install, err = libtorch.Find(cgo.ShimHash()); err != nil {
		if errors.Is(err, libtorch.ErrNotSetUp) {
			return err // says what to run
		}
		return fmt.Errorf("%w (run `torchgo setup`)", err)
	}
	library.Shim = install.Lib
	if os.Getenv("TORCHGO_DEVICE") != "cpu" && install.Dir != "" {
		path := filepath.Join(install.Dir, "lib", "libtorch_cuda.so")
		if _, err := os.Stat(path); err == nil && cgo.HasCUDADriver() {
			library.CUDA, library.CUDAShim = path, install.CUDALib
		}
	}
	cgo.Hook = runCallback
	if err := cgo.Load(library); err != nil {
		return fmt.Errorf("%s: %w (run `torchgo setup`)", install.Lib, err)
	}
	// libtorch counts the machine's cores, not what this process may use; Go knows that.
	if os.Getenv("OMP_NUM_THREADS") == "" {
		return cgo.SetNumThreads(runtime.GOMAXPROCS(0))
	}
	return nil
}

// load opens libtorch on behalf of an operator.
func load(op string) {
	if loaded.Load() {
		return
	}
	if err := Load(); err != nil {
		panic(&Error{Op: op, Kind: ErrNotLoaded, Message: err.Error()})
	}
}

// Runtime describes the libtorch in use.
type Runtime struct {
	Version     string // of libtorch, "2.15.0"
	Library     string // the shim that was opened
	LibtorchDir string // libtorch's folder; empty where nothing tells it
	FoundBy     string // how they were found
	CUDA        bool   // its CUDA library is open
	CUDADevices int
	Threads     int    // within an operator
	Concurrency int    // scopes that compute at a time
	Config      string // libtorch's own description of its build
}

// RuntimeInfo opens libtorch and describes it.
func RuntimeInfo() (Runtime, error) {
	if err := Load(); err != nil {
		return Runtime{}, err
	}
	config, err := cgo.ShowConfig()
	if err != nil {
		return Runtime{}, err
	}
	return Runtime{
		Version: cgo.Version(), Library: library.Shim, LibtorchDir: install.Dir, FoundBy: install.Source,
		CUDA: library.CUDA != "", CUDADevices: CUDADeviceCount(), Threads: NumThreads(), Concurrency: cap(permits), Config: config,
	}, nil
}

// Version is libtorch's version, "2.15.0".
func Version() string {
	load("version")
	return cgo.Version()
}

// SetNumThreads sets how many threads libtorch uses within an operator. The default is
// GOMAXPROCS, or OMP_NUM_THREADS where it is set.
func SetNumThreads(n int) {
	load("set_num_threads")
	must("set_num_threads", cgo.SetNumThreads(n))
}

// NumThreads is how many threads libtorch uses within an operator.
func NumThreads() int {
	load("get_num_threads")
	n, err := cgo.NumThreads()
	must("get_num_threads", err)
	return n
}
