package setup

import (
	"archive/zip"
	"bytes"
	"context"
	"crypto/sha256"
	"debug/elf"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/stretchr/testify/require"
	"github.com/torchgo/torchgo/internal/wheel"
	thirdparty "github.com/torchgo/torchgo/third_party"
)

// Scripts that stand in for the programs that setup runs. Each call is a line of $FAKE_LOG.
const (
	fakePip = `#!/bin/sh
echo "pip $*" >>"$FAKE_LOG"
case "$1" in --version) echo "pip 99"; exit 0;; esac
[ -n "$FAKE_PIP_PAUSE" ] && { : >"$FAKE_PIP_PAUSE"; /bin/sleep 600; }
[ -n "$FAKE_PIP_FAIL" ] && { printf '%b' "$FAKE_PIP_FAIL" >&2; exit 1; }
while [ $# -gt 0 ]; do
	[ "$1" = --dest ] && dest=$2
	last=$1
	shift
done
/bin/cp "$FAKE_WHEELS/$last"/* "$dest/"
`
	fakeCXX = `#!/bin/sh
echo "g++ $*" >>"$FAKE_LOG"
case "$*" in
*--version*) echo "g++ (fake) 13.1"; echo more; exit 0;;
*-fsyntax-only*) [ -z "$FAKE_CXX_OLD" ]; exit;;
esac
[ -n "$FAKE_CXX_PAUSE" ] && { : >"$FAKE_CXX_PAUSE"; /bin/sleep 600; }
[ -n "$FAKE_CXX_FAIL" ] && { printf 'In file included\nshim/ops.cpp:3:1: error: no such thing\nmore\n' >&2; exit 1; }
while [ $# -gt 0 ]; do
	[ "$1" = -o ] && out=$2
	shift
done
echo object >"$out"
`
	fakePython = `#!/bin/sh
echo "python $*" >>"$FAKE_LOG"
[ "$1" = -c ] && { echo "$FAKE_TORCH"; exit 0; }
exit 1
`
)

// world is a machine: a cache, a PATH with fake programs, and an index of tiny wheels.
type world struct {
	t      testing.TB
	cache  string
	bin    string
	wheels string
	log    string
	opts   Options
	said   []string
}

const fakeVersion = "2.15.0"

func newWorld(t testing.TB) *world {
	dir := t.TempDir()
	w := &world{t: t, cache: filepath.Join(dir, "cache"), bin: filepath.Join(dir, "bin"), wheels: filepath.Join(dir, "wheels"), log: filepath.Join(dir, "log")}
	require.NoError(t, os.MkdirAll(w.bin, 0o755))
	setenv(t, map[string]string{
		"PATH": w.bin, "FAKE_LOG": w.log, "FAKE_WHEELS": w.wheels, "FAKE_PIP_PAUSE": "", "FAKE_PIP_FAIL": "", "FAKE_CXX_FAIL": "",
		"FAKE_CXX_PAUSE": "", "FAKE_CXX_OLD": "", "FAKE_TORCH": "", "LIBTORCH": "", "CXX": "", "VIRTUAL_ENV": "", "CONDA_PREFIX": "", "CUDA_HOME": "",
		"TORCHGO_SHIM_CXXFLAGS": "", "TORCHGO_LIB": "", "TORCHGO_LIBTORCH": "", "TORCHGO_CACHE": w.cache,
	})
	w.program("pip", fakePip)
	w.program("g++", fakeCXX)
	pins := &thirdparty.Pins{
		Default: fakeVersion,
		Unpack: map[string]map[string][]string{
			"cpu": {
				"torch":               {"torch/lib/libc10.so", "torch/lib/libtorch_cpu.so", "torch/include/", "torch/version.py", "*.dist-info/licenses/"},
				"nvidia-cuda-runtime": {"nvidia/*/lib/libcudart.so*"},
			},
			"cuda": {"torch": {"torch/lib/*.so", "torch/include/", "torch/version.py"}, "nvidia-*": {"nvidia/"}},
		},
		Wheels: map[string]wheel.Wheel{},
	}
	pins.Python = wheel.Python{Version: "311", Implementation: "cp", ABI: "cp311"}
	w.opts = Options{
		Device: "cpu", Cache: w.cache, Pins: pins, ShimHash: "0123456789abcdef",
		Shim: fstest.MapFS{
			"shim/ops.cpp":       {Data: []byte("// ops")},
			"shim/tensor.cpp":    {Data: []byte("// tensor")},
			"shim/common.hpp":    {Data: []byte("// common")},
			"shim/cuda/nccl.cpp": {Data: []byte("// nccl")},
		},
		Probe: func(context.Context, string) error { return nil },
		Say:   func(format string, args ...any) { w.said = append(w.said, fmt.Sprintf(format, args...)) },
	}
	for _, version := range []string{"2.11.0", fakeVersion} {
		torch := w.wheel("torch", version, "cp311-cp311-manylinux_2_28_x86_64", torchMembers(version))
		cudart := w.wheel("nvidia-cuda-runtime", "13."+version[2:], "py3-none-manylinux2014_x86_64.manylinux_2_17_x86_64", map[string]string{
			"nvidia/cu13/lib/libcudart.so.13": "cudart", "nvidia/cu13/include/cuda_runtime.h": "// cuda",
		})
		pins.Versions = append(pins.Versions, thirdparty.Version{Version: version, CUDA: "cu132", Devices: map[string]thirdparty.WheelSet{
			"cpu":  {Unpacked: 10000, Wheels: []string{torch, cudart}},
			"cuda": {Unpacked: 10000, Wheels: []string{torch, cudart}},
		}})
	}
	return w
}

func setenv(t testing.TB, env map[string]string) {
	for k, v := range env {
		t.Setenv(k, v)
	}
}

func (w *world) program(name, text string) {
	require.NoError(w.t, os.WriteFile(filepath.Join(w.bin, name), []byte(text), 0o755))
}

// wheel puts a wheel into the index and its pin into the table.
func (w *world) wheel(project, version, tags string, members map[string]string) (file string) {
	file = strings.ReplaceAll(project, "-", "_") + "-" + version + "-" + tags + ".whl"
	data := zipOf(w.t, members)
	dir := filepath.Join(w.wheels, project+"=="+version) // as the requirement names it
	require.NoError(w.t, os.MkdirAll(dir, 0o755))
	require.NoError(w.t, os.WriteFile(filepath.Join(dir, file), data, 0o644))
	sum := sha256.Sum256(data)
	w.opts.Pins.Wheels[file] = wheel.Wheel{File: file, Project: project, Version: version, Size: int64(len(data)), SHA256: hex.EncodeToString(sum[:])}
	return file
}

func zipOf(t testing.TB, members map[string]string) []byte {
	var b bytes.Buffer
	z := zip.NewWriter(&b)
	names := make([]string, 0, len(members))
	for name := range members {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		f, err := z.Create(name)
		require.NoError(t, err)
		_, err = f.Write([]byte(members[name]))
		require.NoError(t, err)
	}
	require.NoError(t, z.Close())
	return b.Bytes()
}

func torchMembers(version string) map[string]string {
	p := strings.Split(version, ".")
	return map[string]string{
		"torch/lib/libc10.so":                                string(tinyELF("_ZNKSt7__cxx1112basic_stringIcE")),
		"torch/lib/libtorch_cpu.so":                          strings.Repeat("cpu ", 1000),
		"torch/lib/libtorch_cuda.so":                         "cuda",
		"torch/lib/libtorch_python.so":                       "python",
		"torch/version.py":                                   "__version__ = '" + version + "+cu132'\ncuda: Optional[str] = '13.2'\n",
		"torch/__init__.py":                                  "",
		"torch/include/ATen/core/Tensor.h":                   "// Tensor",
		"torch/include/torch/csrc/api/include/torch/torch.h": "// torch",
		"torch/include/torch/headeronly/version.h":           fmt.Sprintf("#define TORCH_VERSION_MAJOR %s\n#define TORCH_VERSION_MINOR %s\n#define TORCH_VERSION_PATCH %s\n", p[0], p[1], p[2]),
		"torch-" + version + ".dist-info/licenses/LICENSE":   "BSD",
		"torch-" + version + ".dist-info/RECORD":             "…",
	}
}

// tree writes members below dir, an installed torch.
func writeTree(t testing.TB, dir string, members map[string]string) {
	for name, text := range members {
		path := filepath.Join(dir, filepath.FromSlash(name))
		require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o755))
		require.NoError(t, os.WriteFile(path, []byte(text), 0o644))
	}
}

// tinyELF is a shared library that defines one dynamic symbol and nothing else.
func tinyELF(symbol string) []byte {
	strtab := append([]byte{0}, symbol+"\x00"...)
	shstr := []byte("\x00.dynsym\x00.dynstr\x00.shstrtab\x00")
	var b bytes.Buffer
	put := func(v any) { _ = binary.Write(&b, binary.LittleEndian, v) }
	symOff := uint64(64)
	strOff := symOff + 2*elf.Sym64Size
	shstrOff := strOff + uint64(len(strtab))
	shOff := shstrOff + uint64(len(shstr))
	h := elf.Header64{
		Type: uint16(elf.ET_DYN), Machine: uint16(elf.EM_X86_64), Version: 1, Shoff: shOff, Ehsize: 64, Shentsize: 64, Shnum: 4, Shstrndx: 3,
	}
	copy(h.Ident[:], "\x7fELF\x02\x01\x01")
	put(h)
	put(elf.Sym64{})
	put(elf.Sym64{Name: 1, Info: 0x12, Shndx: 1})
	b.Write(strtab)
	b.Write(shstr)
	put(elf.Section64{})
	put(elf.Section64{Name: 1, Type: uint32(elf.SHT_DYNSYM), Off: symOff, Size: 2 * elf.Sym64Size, Link: 2, Info: 1, Entsize: elf.Sym64Size})
	put(elf.Section64{Name: 9, Type: uint32(elf.SHT_STRTAB), Off: strOff, Size: uint64(len(strtab))})
	put(elf.Section64{Name: 17, Type: uint32(elf.SHT_STRTAB), Off: shstrOff, Size: uint64(len(shstr))})
	return b.Bytes()
}

func (w *world) run() (Result, error) { return Run(w.t.Context(), w.opts) }

// calls returns the log's lines that begin with prefix, without the --version ones.
func (w *world) calls(prefix string) []string {
	data, _ := os.ReadFile(w.log)
	var list []string
	for line := range strings.Lines(string(data)) {
		if strings.HasPrefix(line, prefix) && !strings.Contains(line, "--version\n") && !strings.Contains(line, "-fsyntax-only") {
			list = append(list, strings.TrimSpace(line))
		}
	}
	return list
}

// files lists the cache, folders left out.
func (w *world) files() []string {
	list := []string{}
	err := filepath.WalkDir(w.cache, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(w.cache, path)
		if err != nil {
			return err
		}
		require.NotContains(w.t, rel, tempPrefix, "a temporary was left")
		if !d.IsDir() {
			list = append(list, filepath.ToSlash(rel))
		}
		return nil
	})
	require.NoError(w.t, err)
	return list
}

// child starts setup in a process of its own; TestMain runs it.
func (w *world) child(env ...string) *exec.Cmd {
	data, err := json.Marshal(w.opts.Pins)
	require.NoError(w.t, err)
	path := filepath.Join(filepath.Dir(w.cache), "pins.json")
	require.NoError(w.t, os.WriteFile(path, data, 0o644))
	exe, err := os.Executable()
	require.NoError(w.t, err)
	cmd := exec.Command(exe)
	cmd.Env = append(append(os.Environ(), "SETUP_TEST_PINS="+path), env...)
	cmd.Stderr = os.Stderr
	return cmd
}

func TestMain(m *testing.M) {
	path := os.Getenv("SETUP_TEST_PINS")
	if path == "" {
		os.Exit(m.Run())
	}
	data, err := os.ReadFile(path)
	if err != nil {
		panic(err)
	}
	pins, err := thirdparty.Parse(data)
	if err != nil {
		panic(err)
	}
	_, err = Run(context.Background(), Options{
		Device: "cpu", Cache: os.Getenv("TORCHGO_CACHE"), Pins: pins, ShimHash: "0123456789abcdef",
		Shim:  fstest.MapFS{"shim/ops.cpp": {Data: []byte("// ops")}},
		Probe: func(context.Context, string) error { return nil },
		Say:   func(string, ...any) {},
	})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

// zipWithLink is zipOf with one symbolic link.
func zipWithLink(t testing.TB, members map[string]string, name, target string) []byte {
	var b bytes.Buffer
	z := zip.NewWriter(&b)
	for name, text := range members {
		f, err := z.Create(name)
		require.NoError(t, err)
		_, err = f.Write([]byte(text))
		require.NoError(t, err)
	}
	h := &zip.FileHeader{Name: name}
	h.SetMode(fs.ModeSymlink | 0o777)
	f, err := z.CreateHeader(h)
	require.NoError(t, err)
	_, err = f.Write([]byte(target))
	require.NoError(t, err)
	require.NoError(t, z.Close())
	return b.Bytes()
}

// replaceWheel changes the bytes of torch's wheel and its pin.
func (w *world) replaceWheel(project, version string, data []byte) {
	for file, pin := range w.opts.Pins.Wheels {
		if pin.Project == project && pin.Version == version {
			require.NoError(w.t, os.WriteFile(filepath.Join(w.wheels, project+"=="+version, file), data, 0o644))
			sum := sha256.Sum256(data)
			pin.Size, pin.SHA256 = int64(len(data)), hex.EncodeToString(sum[:])
			w.opts.Pins.Wheels[file] = pin
		}
	}
}
