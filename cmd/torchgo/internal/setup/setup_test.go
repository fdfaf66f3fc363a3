package setup

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/torchgo/torchgo/internal/libtorch"
)

// finished is the cache after a setup from wheels.
func finished(version string) []string {
	e := version + "-cpu/"
	return []string{
		e + "nvidia/cu13/lib/libcudart.so.13",
		e + "setup.json",
		e + "shim-0123456789abcdef/libtorchgo.so",
		e + "shim-0123456789abcdef/shim.json",
		e + "torch/include/ATen/core/Tensor.h",
		e + "torch/include/torch/csrc/api/include/torch/torch.h",
		e + "torch/include/torch/headeronly/version.h",
		e + "torch/lib/libc10.so",
		e + "torch/lib/libtorch_cpu.so",
		e + "torch/version.py",
		e + "torch-" + version + ".dist-info/licenses/LICENSE",
		"default",
		"setup.lock",
	}
}

func TestFromWheels(t *testing.T) {
	w := newWorld(t)
	r, err := w.run()
	require.NoError(t, err)
	require.ElementsMatch(t, finished("2.15.0"), w.files())
	require.Equal(t, "wheels", r.Source)
	require.Equal(t, "g++ (fake) 13.1", r.Compiler)
	require.True(t, r.Unpacked)
	require.True(t, r.Compiled)
	require.Positive(t, r.Downloaded)

	in, err := libtorch.Find(w.opts.ShimHash)
	require.NoError(t, err)
	require.Equal(t, libtorch.Install{Version: "2.15.0", Device: "cpu", Dir: r.Libtorch, Lib: r.Shim, Source: "default"}, in)

	pip := w.calls("pip")
	require.Len(t, pip, 2)
	require.Contains(t, pip[0], "download --no-deps --only-binary=:all:")
	require.Contains(t, pip[0], "--python-version 311 --implementation cp --abi cp311 --platform manylinux_2_28_x86_64 torch==2.15.0")
	require.Contains(t, pip[1], "--platform manylinux2014_x86_64 --platform manylinux_2_17_x86_64 nvidia-cuda-runtime==13.15.0")

	cxx := w.calls("g++")
	require.Len(t, cxx, 3, "two sources and a link; the CUDA half needs CUDA")
	for _, flag := range []string{
		"-std=c++20", "-fPIC", "-DUSE_DISTRIBUTED", "-DUSE_C10D_GLOO", "-DUSE_RPC", "-DUSE_TENSORPIPE", "-D_GLIBCXX_USE_CXX11_ABI=1",
	} {
		require.Contains(t, cxx[0], " "+flag+" ")
	}
	require.Contains(t, cxx[2], "-ltorch_cpu -lc10")
	require.NotContains(t, cxx[2], "-ltorch ")
	require.Contains(t, cxx[2], "-rpath,$ORIGIN/../torch/lib:")

	// A second run finds all done.
	r2, err := w.run()
	require.NoError(t, err)
	require.Len(t, w.calls("pip"), 2)
	require.Len(t, w.calls("g++"), 3)
	require.False(t, r2.Unpacked || r2.Compiled)
	require.Zero(t, r2.Downloaded)
	require.Equal(t, r.Shim, r2.Shim)
	require.ElementsMatch(t, finished("2.15.0"), w.files())

	// Another version stands beside it and becomes the default, and back.
	w.opts.Version = "2.11"
	_, err = w.run()
	require.NoError(t, err)
	name, err := libtorch.Default(w.cache)
	require.NoError(t, err)
	require.Equal(t, "2.11.0-cpu", name)
	w.opts.Version = "2.15.0"
	_, err = w.run()
	require.NoError(t, err)
	require.Len(t, w.calls("pip"), 4)
	in, err = libtorch.Find(w.opts.ShimHash)
	require.NoError(t, err)
	require.Equal(t, "2.15.0", in.Version)
}

func TestCUDA(t *testing.T) {
	w := newWorld(t)
	w.opts.Device = "cuda"
	r, err := w.run()
	require.NoError(t, err)
	require.Equal(t, "cu132", r.Device)
	require.FileExists(t, filepath.Join(w.cache, "2.15.0-cu132/torch/lib/libtorch_cuda.so"))
	require.FileExists(t, r.CUDAShim)
	cxx := strings.Join(w.calls("g++"), "\n")
	require.Contains(t, cxx, "-isystem "+filepath.Join(w.cache, "2.15.0-cu132/nvidia/cu13/include"))
	require.Contains(t, cxx, "-ltorch_cuda")
	w.opts.Device = ""
	r, err = w.run()
	require.NoError(t, err)
	require.Equal(t, "cu132", r.Device, "without a device it stays with CUDA")
	require.Len(t, w.calls("pip"), 2)
	w.opts.Device = "cpu"
	r, err = w.run()
	require.NoError(t, err)
	require.Equal(t, "cpu", r.Device)
	w.opts.Device = ""
	r, err = w.run()
	require.NoError(t, err)
	require.Equal(t, "cpu", r.Device)
}

func TestNewShimAndInstrumentedShim(t *testing.T) {
	w := newWorld(t)
	_, err := w.run()
	require.NoError(t, err)
	w.opts.ShimHash = "ffffffffffffffff"
	r, err := w.run()
	require.NoError(t, err)
	require.True(t, r.Compiled)
	require.False(t, r.Unpacked)
	t.Setenv("TORCHGO_SHIM_CXXFLAGS", "-fsanitize=address")
	w.opts.Probe = func(context.Context, string) error { return errors.New("ASan runtime does not come first") }
	r, err = w.run()
	require.NoError(t, err, "only a program with the sanitizer can open it")
	require.True(t, r.Compiled)
	cxx := w.calls("g++")
	require.Len(t, cxx, 9)
	for _, call := range cxx[6:] {
		require.Contains(t, call, "-fsanitize=address")
	}
	in, err := libtorch.Find(w.opts.ShimHash)
	require.NoError(t, err)
	require.Equal(t, r.Shim, in.Lib)
	require.Len(t, w.calls("pip"), 2)
}

func TestFailuresLeaveNothing(t *testing.T) {
	for _, c := range []struct {
		name    string
		prepare func(w *world)
		want    string
		left    []string // beside the lock
	}{
		{"unsupported version", func(w *world) { w.opts.Version = "2.10.0" }, "libtorch 2.10.0 is not supported: there are 2.11.0, 2.15.0", nil},
		{"unpinned patch release", func(w *world) { w.opts.Version = "2.15.7" }, "libtorch 2.15.7 can't be downloaded: pinned are 2.11.0, 2.15.0", nil},
		{"no compiler", func(w *world) { w.remove("g++") }, "no C++20 compiler: install g++", nil},
		{"CXX is none", func(w *world) { w.t.Setenv("CXX", "nonesuch -m64") }, "no C++20 compiler: install g++ 11 or clang++ 14 or later, or set CXX (CXX=nonesuch -m64 is none)", nil},
		{"old compiler", func(w *world) { w.t.Setenv("FAKE_CXX_OLD", "1") }, "no C++20 compiler", nil},
		{"no pip", func(w *world) { w.remove("pip") }, "no pip: install Python's pip, or uv, to download libtorch, or name an unpacked one with --libtorch", nil},
		{"no network", func(w *world) {
			w.t.Setenv("FAKE_PIP_FAIL", `WARNING: Retrying ... NewConnectionError\nERROR: Could not find a version that satisfies the requirement torch==2.15.0 (from versions: none)\nERROR: No matching distribution found for torch==2.15.0\n`)
		}, "torch 2.15.0: pip can't reach its package index (no network?): No matching distribution found for torch==2.15.0", nil},
		{"not in the index", func(w *world) {
			w.t.Setenv("FAKE_PIP_FAIL", `ERROR: No matching distribution found for torch==2.15.0\n`)
		},
			"torch 2.15.0: pip's package index does not have the pinned wheel: No matching distribution found for torch==2.15.0", nil},
		{"disk full in pip", func(w *world) {
			w.t.Setenv("FAKE_PIP_FAIL", `ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device\n`)
		},
			"the disk is full: torch 2.15.0: pip: no space left on device", nil},
		{"disk full before", func(w *world) { w.opts.freeBytes = func(string) (int64, error) { return 1e6, nil } }, "the disk is full: ", nil},
		{"wrong file", func(w *world) { w.rename("torch==2.15.0", "torch-2.15.0-cp311-cp311-linux_x86_64.whl") },
			"torch 2.15.0: pip delivered torch-2.15.0-cp311-cp311-linux_x86_64.whl, not the pinned torch-2.15.0-cp311-cp311-manylinux_2_28_x86_64.whl", nil},
		{"compile error", func(w *world) { w.t.Setenv("FAKE_CXX_FAIL", "1") }, "with g++ (fake) 13.1: shim/ops.cpp:3:1: error: no such thing (all messages: ",
			append(unpackedOnly(), "compile.log")},
		{"shim does not load", func(w *world) {
			w.opts.Probe = func(context.Context, string) error { return errors.New("undefined symbol: x") }
		},
			"does not load: undefined symbol: x", unpackedOnly()},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t)
			c.prepare(w)
			_, err := w.run()
			require.ErrorContains(t, err, c.want)
			require.NotContains(t, err.Error(), "\n")
			files := w.filesIfAny()
			require.ElementsMatch(t, c.left, files)
			require.NoDirExists(t, filepath.Join(w.cache, "downloads"))
			_, err = libtorch.Find(w.opts.ShimHash)
			require.ErrorIs(t, err, libtorch.ErrNotSetUp)
		})
	}
}

// unpackedOnly is finished without shim and default.
func unpackedOnly() []string {
	var list []string
	for _, f := range finished("2.15.0") {
		if !strings.Contains(f, "shim-") && f != "default" && f != "setup.lock" {
			list = append(list, f)
		}
	}
	return list
}

func (w *world) remove(program string) {
	require.NoError(w.t, os.Remove(filepath.Join(w.bin, program)))
}

func (w *world) rename(requirement, file string) {
	dir := filepath.Join(w.wheels, requirement)
	members, err := os.ReadDir(dir)
	require.NoError(w.t, err)
	require.NoError(w.t, os.Rename(filepath.Join(dir, members[0].Name()), filepath.Join(dir, file)))
}

func (w *world) filesIfAny() []string {
	var list []string
	if _, err := os.Stat(w.cache); err != nil {
		return nil
	}
	for _, f := range w.files() {
		if f != "setup.lock" {
			list = append(list, f)
		}
	}
	return list
}

func TestWrongChecksum(t *testing.T) {
	w := newWorld(t)
	file := "nvidia_cuda_runtime-13.15.0-py3-none-manylinux2014_x86_64.manylinux_2_17_x86_64.whl"
	path := filepath.Join(w.wheels, "nvidia-cuda-runtime==13.15.0", file)
	good, err := os.ReadFile(path)
	require.NoError(t, err)
	bad := append([]byte{}, good...)
	bad[len(bad)/2] ^= 1
	require.NoError(t, os.WriteFile(path, bad, 0o644))
	_, err = w.run()
	require.ErrorContains(t, err, file+": wrong checksum: sha256 is ")
	require.ErrorContains(t, err, "pinned is "+w.opts.Pins.Wheels[file].SHA256)
	// The good wheel stays for the next run, the bad one does not.
	torch := "torch-2.15.0-cp311-cp311-manylinux_2_28_x86_64.whl"
	require.Equal(t, []string{"downloads/" + torch}, w.filesIfAny())

	// The next run fetches the missing wheel alone, and a kept one that was damaged again.
	require.NoError(t, os.WriteFile(path, good, 0o644))
	_, err = w.run()
	require.NoError(t, err)
	require.Len(t, w.calls("pip"), 3)
	require.ElementsMatch(t, finished("2.15.0"), w.files())
}

func TestDamagedKeptWheelIsFetchedAgain(t *testing.T) {
	w := newWorld(t)
	torch := "torch-2.15.0-cp311-cp311-manylinux_2_28_x86_64.whl"
	writeTree(t, w.cache, map[string]string{"downloads/" + torch: "half"})
	_, err := w.run()
	require.NoError(t, err)
	require.Len(t, w.calls("pip"), 2)
}

type fullDisk struct {
	writeCloser
	left int
}

func (f *fullDisk) Write(p []byte) (int, error) {
	if len(p) > f.left {
		n, _ := f.writeCloser.Write(p[:f.left])
		return n, &os.PathError{Op: "write", Path: "x", Err: syscall.ENOSPC}
	}
	f.left -= len(p)
	return f.writeCloser.Write(p)
}

func TestDiskFullWhileUnpacking(t *testing.T) {
	w := newWorld(t)
	w.opts.create = func(path string) (writeCloser, error) {
		f, err := createFile(path)
		return &fullDisk{f, 100}, err
	}
	_, err := w.run()
	require.ErrorIs(t, err, syscall.ENOSPC)
	require.ErrorContains(t, err, "the disk is full: torch-2.15.0")
	for _, f := range w.filesIfAny() { // the verified wheels, for the next run
		require.True(t, strings.HasPrefix(f, "downloads/"), f)
	}
	w.opts.create = nil
	_, err = w.run()
	require.NoError(t, err)
	require.Len(t, w.calls("pip"), 2, "nothing is downloaded twice")
	require.ElementsMatch(t, finished("2.15.0"), w.files())
}

func TestHostileWheels(t *testing.T) {
	for name, want := range map[string]string{
		"../evil":               "would leave the folder",
		"torch/../../evil":      "would leave the folder",
		"/evil":                 "would leave the folder",
		`torch\..\evil`:         "would leave the folder",
		"torch//lib/x":          "would leave the folder",
		"torch/lib/libc10.so/x": "torch-2.15.0-cp311-cp311-manylinux_2_28_x86_64.whl: ",
	} {
		t.Run(want+name, func(t *testing.T) {
			w := newWorld(t)
			members := torchMembers("2.15.0")
			members[name] = "evil"
			if strings.HasSuffix(name, "so/x") {
				w.opts.Pins.Unpack["cpu"]["torch"] = []string{"torch/"}
			}
			w.wheel("torch", "2.15.0", "cp311-cp311-manylinux_2_28_x86_64", members)
			_, err := w.run()
			require.ErrorContains(t, err, want)
			for _, f := range w.filesIfAny() {
				require.True(t, strings.HasPrefix(f, "downloads/"), f)
			}
			require.NoFileExists(t, filepath.Join(filepath.Dir(w.cache), "evil"))
		})
	}
}

func TestSymlinkInWheel(t *testing.T) {
	w := newWorld(t)
	data := zipWithLink(t, torchMembers("2.15.0"), "torch/lib/evil.so", "/etc/passwd")
	w.replaceWheel("torch", "2.15.0", data)
	_, err := w.run()
	require.ErrorContains(t, err, `member "torch/lib/evil.so" is neither file nor folder`)
}

func TestNotAZip(t *testing.T) {
	w := newWorld(t)
	w.replaceWheel("torch", "2.15.0", []byte("not a zip"))
	_, err := w.run()
	require.ErrorContains(t, err, "torch-2.15.0-cp311-cp311-manylinux_2_28_x86_64.whl: zip: not a valid zip file")
}

func TestKilledWhileDownloading(t *testing.T) {
	w := newWorld(t)
	pause := filepath.Join(filepath.Dir(w.cache), "paused")
	cmd := w.child("FAKE_PIP_PAUSE=" + pause)
	require.NoError(t, cmd.Start())
	waitFor(t, pause)
	require.NoError(t, cmd.Process.Kill())
	_ = cmd.Wait()
	_, err := w.run()
	require.NoError(t, err)
	require.ElementsMatch(t, finished("2.15.0"), w.files())
}

func TestKilledWhileCompiling(t *testing.T) {
	w := newWorld(t)
	pause := filepath.Join(filepath.Dir(w.cache), "paused")
	cmd := w.child("FAKE_CXX_PAUSE=" + pause)
	require.NoError(t, cmd.Start())
	waitFor(t, pause)
	require.NoError(t, cmd.Process.Kill())
	_ = cmd.Wait()
	_, err := libtorch.Find(w.opts.ShimHash)
	require.ErrorIs(t, err, libtorch.ErrNotSetUp)
	_, err = w.run()
	require.NoError(t, err)
	require.Len(t, w.calls("pip"), 2, "nothing is downloaded twice")
	require.ElementsMatch(t, finished("2.15.0"), w.files())
}

func TestCancelled(t *testing.T) {
	w := newWorld(t)
	pause := filepath.Join(filepath.Dir(w.cache), "paused")
	t.Setenv("FAKE_PIP_PAUSE", pause)
	ctx, cancel := context.WithCancel(t.Context())
	go func() { waitFor(t, pause); cancel() }()
	start := time.Now()
	_, err := Run(ctx, w.opts)
	require.ErrorIs(t, err, context.Canceled)
	require.Less(t, time.Since(start), 30*time.Second)
	require.Empty(t, w.filesIfAny())
}

func waitFor(t testing.TB, path string) {
	for range 3000 {
		if exists(path) {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Error("the fake program was not reached")
}

func TestTwoAtOnce(t *testing.T) {
	w := newWorld(t)
	first, second := w.child(), w.child()
	require.NoError(t, first.Start())
	require.NoError(t, second.Start())
	require.NoError(t, first.Wait())
	require.NoError(t, second.Wait())
	require.Len(t, w.calls("pip"), 2, "one of them did the work")
	require.Len(t, w.calls("g++"), 2)
	require.ElementsMatch(t, finished("2.15.0"), w.files())
}

func TestGivenLibtorch(t *testing.T) {
	w := newWorld(t)
	site := filepath.Join(t.TempDir(), "site-packages")
	writeTree(t, site, torchMembers("2.15.0"))
	dir := filepath.Join(site, "torch")
	for _, c := range []struct{ flag, env, source string }{{dir, "", "--libtorch"}, {"", site, "LIBTORCH"}} {
		w.opts.Libtorch = c.flag
		t.Setenv("LIBTORCH", c.env)
		require.NoError(t, os.RemoveAll(w.cache))
		r, err := w.run()
		require.NoError(t, err)
		require.Equal(t, c.source, r.Source)
		require.Equal(t, dir, r.Libtorch)
		require.Empty(t, w.calls("pip"))
		link := w.calls("g++")
		require.Contains(t, link[len(link)-1], "-rpath,"+filepath.Join(dir, "lib")+":")
		in, err := libtorch.Find(w.opts.ShimHash)
		require.NoError(t, err)
		require.Equal(t, dir, in.Dir)
	}

	// Without naming it, the entry is still good; when the folder is gone, setup looks elsewhere.
	t.Setenv("LIBTORCH", "")
	r, err := w.run()
	require.NoError(t, err)
	require.False(t, r.Compiled)
	require.NoError(t, os.RemoveAll(site))
	r, err = w.run()
	require.NoError(t, err)
	require.Equal(t, "wheels", r.Source)
	require.True(t, r.Compiled, "the RPATH is another one")
	require.ElementsMatch(t, finished("2.15.0"), w.files())
}

func TestGivenLibtorchDoesNotFit(t *testing.T) {
	for name, c := range map[string]struct {
		change  func(m map[string]string)
		device  string
		version string
		want    string
	}{
		"headers":   {func(m map[string]string) { delete(m, "torch/include/ATen/core/Tensor.h") }, "cpu", "", "lacks libtorch's headers"},
		"libraries": {func(m map[string]string) { delete(m, "torch/lib/libtorch_cpu.so") }, "cpu", "", "holds no lib/libtorch_cpu.so"},
		"too old":   {func(m map[string]string) { replace(m, "MINOR 15", "MINOR 10") }, "cpu", "", "libtorch 2.10.0 in"},
		"no CUDA":   {func(m map[string]string) { delete(m, "torch/lib/libtorch_cuda.so") }, "cuda", "", "is without CUDA"},
		"version":   {func(map[string]string) {}, "cpu", "2.11.0", "holds libtorch 2.15.0, not 2.11.0"},
		"not ELF":   {func(m map[string]string) { m["torch/lib/libc10.so"] = "text" }, "cpu", "", "libc10.so: "},
		"no number": {func(m map[string]string) { m["torch/include/torch/headeronly/version.h"] = "" }, "cpu", "", "version.h"},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			members := torchMembers("2.15.0")
			c.change(members)
			site := t.TempDir()
			writeTree(t, site, members)
			w.opts.Libtorch, w.opts.Device, w.opts.Version = filepath.Join(site, "torch"), c.device, c.version
			_, err := w.run()
			require.ErrorContains(t, err, "--libtorch: ")
			require.ErrorContains(t, err, c.want)
			require.Empty(t, w.filesIfAny())
		})
	}
	w := newWorld(t)
	w.opts.Libtorch = filepath.Join(t.TempDir(), "none")
	_, err := w.run()
	require.ErrorIs(t, err, os.ErrNotExist)
}

func replace(m map[string]string, from, to string) {
	for k, v := range m {
		m[k] = strings.ReplaceAll(v, from, to)
	}
}

func TestPythonsTorch(t *testing.T) {
	w := newWorld(t)
	w.program("python3", fakePython)
	site := filepath.Join(t.TempDir(), "site-packages")
	writeTree(t, site, torchMembers("2.11.0"))
	t.Setenv("FAKE_TORCH", filepath.Join(site, "torch", "__init__.py"))
	r, err := w.run()
	require.NoError(t, err)
	require.Equal(t, "python", r.Source)
	require.Equal(t, "2.11.0", r.Version)
	require.Empty(t, w.calls("pip"))

	// A version that was asked for and that it is not.
	w.opts.Version = "2.15.0"
	r, err = w.run()
	require.NoError(t, err)
	require.Equal(t, "wheels", r.Source)

	// One that turns out not to work is passed over.
	require.NoError(t, os.RemoveAll(w.cache))
	w.opts.Version = ""
	w.opts.Probe = func(_ context.Context, lib string) error {
		if strings.Contains(lib, "2.11.0-cpu") {
			return errors.New("needs another libc")
		}
		return nil
	}
	r, err = w.run()
	require.NoError(t, err)
	require.Equal(t, "wheels", r.Source)
	require.Contains(t, strings.Join(w.said, "\n"), "needs another libc")
	require.ElementsMatch(t, finished("2.15.0"), w.files())
}

func TestUnwritableCache(t *testing.T) {
	w := newWorld(t)
	w.opts.Cache = filepath.Join(t.TempDir(), "file")
	require.NoError(t, os.WriteFile(w.opts.Cache, nil, 0o644))
	_, err := w.run()
	require.ErrorContains(t, err, "cache folder: ")
	require.ErrorContains(t, err, w.opts.Cache)
}

func TestCXX11ABI(t *testing.T) {
	dir := t.TempDir()
	for symbol, want := range map[string]bool{"_ZNKSt7__cxx1112basic_stringIcE": true, "_ZNSsC1Ev": false} {
		path := filepath.Join(dir, "lib.so")
		require.NoError(t, os.WriteFile(path, tinyELF(symbol), 0o644))
		got, err := usesCXX11ABI(path)
		require.NoError(t, err)
		require.Equal(t, want, got, symbol)
	}
}

func TestBuildOfCUDA(t *testing.T) {
	for text, want := range map[string]string{
		"__version__ = '2.15.0+cu132'\n":                           "cu132",
		"__version__ = '2.15.0'\ncuda: Optional[str] = '13.0'\n":   "cu130",
		"__version__ = '2.15.0+cpu'\ncuda: Optional[str] = None\n": "",
	} {
		dir := t.TempDir()
		require.NoError(t, os.WriteFile(filepath.Join(dir, "version.py"), []byte(text), 0o644))
		require.Equal(t, want, buildOfCUDA(dir), text)
	}
}

func TestUV(t *testing.T) {
	w := newWorld(t)
	w.remove("pip")
	w.program("uv", strings.Replace(fakePip, "#!/bin/sh\n", "#!/bin/sh\n[ \"$1 $2 $3\" = \"tool run pip\" ] || exit 1\nshift 3\n", 1))
	_, err := w.run()
	require.NoError(t, err)
	require.ElementsMatch(t, finished("2.15.0"), w.files())
}
