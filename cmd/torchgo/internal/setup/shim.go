package setup

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"

	"github.com/torchgo/torchgo/internal/libtorch"
	"github.com/torchgo/torchgo/internal/proc"
	"golang.org/x/sync/errgroup"
)

// defines are libtorch's own, of all its translation units: its headers differ without them.
var defines = []string{"-DUSE_DISTRIBUTED", "-DUSE_C10D_GLOO", "-DUSE_RPC", "-DUSE_TENSORPIPE"}

// bytesPerCompiler is what one compiler takes for a file that includes libtorch's headers.
const bytesPerCompiler = 3 << 29

// compiler is a C++20 compiler.
type compiler struct {
	args    []string // of $CXX, which may hold flags
	version string   // first line of --version
}

var errNoCompiler = errors.New("no C++20 compiler: install g++ 11 or clang++ 14 or later, or set CXX")

func findCompiler(ctx context.Context) (compiler, error) {
	candidates := [][]string{{"g++"}, {"clang++"}, {"c++"}}
	explicit := strings.Fields(os.Getenv("CXX"))
	if len(explicit) > 0 {
		candidates = [][]string{explicit}
	}
	for _, args := range candidates {
		if _, err := exec.LookPath(args[0]); err != nil {
			continue
		}
		out, err := proc.Command(ctx, args[0], append(args[1:len(args):len(args)], "--version")...).Output()
		if ctx.Err() != nil {
			return compiler{}, ctx.Err()
		}
		if err != nil {
			continue
		}
		line, _, _ := strings.Cut(string(out), "\n")
		c := compiler{args, strings.TrimSpace(line)}
		try := c.command(ctx, "-std=c++20", "-fsyntax-only", "-x", "c++", "-")
		try.Stdin = strings.NewReader("#include <concepts>\n#include <string>\nstatic_assert(std::integral<int>);\n")
		if err := try.Run(); err == nil {
			return c, nil
		} else if ctx.Err() != nil {
			return compiler{}, ctx.Err()
		}
	}
	if len(explicit) > 0 {
		return compiler{}, fmt.Errorf("%w (CXX=%s is none)", errNoCompiler, strings.Join(explicit, " "))
	}
	return compiler{}, errNoCompiler
}

func (c compiler) command(ctx context.Context, args ...string) *exec.Cmd {
	return proc.Command(ctx, c.args[0], append(c.args[1:len(c.args):len(c.args)], args...)...)
}

// buildShim compiles the shim for an entry unless it is there, and returns its record.
func (o *Options) buildShim(ctx context.Context, e entry) (libtorch.Record, bool, error) {
	dir := filepath.Join(e.dir, libtorch.ShimDir(o.ShimHash))
	old, err := libtorch.ReadRecord(filepath.Join(dir, libtorch.ShimRecord))
	if err == nil && old.Libtorch == e.record.Libtorch && old.Version == e.record.Version && exists(filepath.Join(dir, libtorch.LibName)) {
		return old, false, nil
	}
	c, err := findCompiler(ctx)
	if err != nil {
		return e.record, false, err
	}
	// The temporary folder lies where the final one will, so that the library's relative RPATH can be tried out.
	tmp, err := os.MkdirTemp(e.dir, tempPrefix)
	if err != nil {
		return e.record, false, err
	}
	defer os.RemoveAll(tmp)
	if err := os.Chmod(tmp, 0o755); err != nil {
		return e.record, false, err
	}
	b := builder{o: o, c: c, entry: e, dir: tmp, src: filepath.Join(tmp, "src")}
	if err := b.writeSources(); err != nil {
		return e.record, false, err
	}
	if err := b.build(ctx); err != nil {
		return e.record, false, err
	}
	lib := filepath.Join(tmp, libtorch.LibName)
	// A library with a sanitizer can be opened only by a program that has it, too.
	sanitized := strings.Contains(strings.Join(extraFlags(), " "), "-fsanitize")
	if sanitized {
		o.Say("the shim has a sanitizer and is not tried out")
	} else if err := o.Probe(ctx, lib); err != nil {
		return e.record, false, fmt.Errorf("the shim for libtorch %s in %s does not load: %w", e.record.Version, e.record.LibtorchDir(e.dir), err)
	}
	rec := e.record
	rec.Compiler, rec.Flags = c.version, b.flags()
	if err := os.RemoveAll(b.src); err != nil {
		return e.record, false, err
	}
	if err := writeRecord(filepath.Join(tmp, libtorch.ShimRecord), rec); err != nil {
		return e.record, false, err
	}
	if exists(dir) { // for a libtorch in another place, or broken
		old, err := os.MkdirTemp(e.dir, tempPrefix)
		if err != nil {
			return e.record, false, err
		}
		defer os.RemoveAll(old)
		if err := os.Rename(dir, filepath.Join(old, "shim")); err != nil {
			return e.record, false, err
		}
	}
	if err := os.Rename(tmp, dir); err != nil {
		return e.record, false, err
	}
	if err := os.Remove(b.log()); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return e.record, false, err
	}
	return rec, true, nil
}

// builder compiles one shim in dir.
type builder struct {
	o     *Options
	c     compiler
	entry entry
	dir   string
	src   string
}

func (b *builder) writeSources() error {
	return fs.WalkDir(b.o.Shim, "shim", func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		to := filepath.Join(b.src, filepath.FromSlash(name))
		if d.IsDir() {
			return os.MkdirAll(to, 0o755)
		}
		data, err := fs.ReadFile(b.o.Shim, name)
		if err != nil {
			return err
		}
		return os.WriteFile(to, data, 0o644)
	})
}

// log keeps the compiler's messages after a failure.
func (b *builder) log() string { return filepath.Join(b.o.Cache, "compile.log") }

// root is libtorch's folder.
func (b *builder) root() string { return b.entry.record.LibtorchDir(b.entry.dir) }

func extraFlags() []string { return strings.Fields(os.Getenv("TORCHGO_SHIM_CXXFLAGS")) }

// flags are those of a compilation, without the include folders.
func (b *builder) flags() []string {
	abi := "0"
	if b.entry.record.CXX11ABI {
		abi = "1"
	}
	flags := append([]string{"-std=c++20", "-O2", "-fPIC", "-fvisibility=hidden", "-D_GLIBCXX_USE_CXX11_ABI=" + abi}, defines...)
	return append(flags, extraFlags()...)
}

func (b *builder) build(ctx context.Context) error {
	include := filepath.Join(b.root(), "include")
	flags := append(b.flags(), "-I"+filepath.Join(b.src, "shim"), "-isystem", include, "-isystem", filepath.Join(include, "torch", "csrc", "api", "include"))
	main, err := fs.Glob(b.o.Shim, "shim/*.cpp")
	if err != nil {
		return err
	}
	cuda, cudaFlags, err := b.cudaSources()
	if err != nil {
		return err
	}
	if len(main) == 0 {
		return errors.New("this torchgo was built without the shim's sources")
	}
	b.o.Say("compiling the shim for libtorch %s with %s", b.entry.record.Version, b.c.version)
	total := int64(len(main) + len(cuda) + 1)
	var done atomic.Int64
	b.o.Progress.Count("compile", 0, total)
	group, gctx := errgroup.WithContext(ctx)
	group.SetLimit(parallel(len(main) + len(cuda)))
	for _, name := range slices.Concat(main, cuda) {
		args := flags
		if slices.Contains(cuda, name) {
			args = slices.Concat(flags, cudaFlags)
		}
		group.Go(func() error {
			args := append(slices.Clip(args), "-c", filepath.Join(b.src, filepath.FromSlash(name)), "-o", b.object(name))
			if err := b.run(gctx, "compiling "+path.Base(name), args); err != nil {
				return err
			}
			b.o.Progress.Count("compile", done.Add(1), total)
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		return err
	}
	// libtorch.so would bring all of CUDA in; the CPU needs these two alone.
	if err := b.link(ctx, libtorch.LibName, main, "-ltorch_cpu", "-lc10"); err != nil {
		return err
	}
	if len(cuda) > 0 {
		if err := b.link(ctx, libtorch.CUDALibName, cuda, "-l:"+libtorch.LibName, "-ltorch_cuda", "-lc10_cuda", "-ltorch_cpu", "-lc10"); err != nil {
			return err
		}
	}
	b.o.Progress.Count("compile", total, total)
	return nil
}

func (b *builder) object(source string) string {
	return filepath.Join(b.src, strings.ReplaceAll(strings.TrimSuffix(source, ".cpp"), "/", "_")+".o")
}

// cudaSources returns the sources of the CUDA half and the flags to find CUDA's headers; none for
// a CPU entry or where the headers are missing.
func (b *builder) cudaSources() (sources, flags []string, err error) {
	if b.entry.record.Device == "cpu" {
		return nil, nil, nil
	}
	if sources, err = fs.Glob(b.o.Shim, "shim/cuda/*.cpp"); err != nil || len(sources) == 0 {
		return nil, nil, err
	}
	site := filepath.Join(filepath.Dir(b.root()), "nvidia")
	dirs, err := filepath.Glob(filepath.Join(site, "*", "include"))
	if err != nil {
		return nil, nil, err
	}
	for _, home := range []string{os.Getenv("CUDA_HOME"), "/usr/local/cuda"} {
		if home != "" {
			dirs = append(dirs, filepath.Join(home, "include"))
		}
	}
	hasRuntime := false
	for _, dir := range dirs {
		hasRuntime = hasRuntime || exists(filepath.Join(dir, "cuda_runtime.h"))
		for _, d := range []string{dir, filepath.Join(dir, "cccl")} {
			if exists(d) {
				flags = append(flags, "-isystem", d)
			}
		}
	}
	if !hasRuntime {
		b.o.Say("no CUDA headers (nvidia-cuda-runtime, nvidia-cuda-crt): %s is left out", libtorch.CUDALibName)
		return nil, nil, nil
	}
	return sources, flags, nil
}

// link makes a shared library. Its RPATH finds a libtorch in the cache wherever the cache is moved;
// DT_RPATH, so that another libtorch on LD_LIBRARY_PATH does not come first.
func (b *builder) link(ctx context.Context, name string, sources []string, libs ...string) error {
	lib := filepath.Join(b.root(), "lib")
	rpath := lib
	if !filepath.IsAbs(b.entry.record.Libtorch) {
		rpath = "$ORIGIN/../" + b.entry.record.Libtorch + "/lib"
	}
	args := []string{"-shared", "-o", filepath.Join(b.dir, name)}
	for _, s := range sources {
		args = append(args, b.object(s))
	}
	args = append(args, "-L"+lib, "-L"+b.dir, "-Wl,--disable-new-dtags", "-Wl,-rpath,"+rpath+":$ORIGIN:$ORIGIN/lib")
	args = append(args, extraFlags()...)
	return b.run(ctx, "linking "+name, append(args, libs...))
}

// run runs the compiler. Its messages are kept in a file if it fails.
func (b *builder) run(ctx context.Context, what string, args []string) error {
	cmd := b.c.command(ctx, args...)
	cmd.Env = append(os.Environ(), "LC_ALL=C", "TMPDIR="+b.src)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err := cmd.Run()
	if err == nil {
		return nil
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if strings.Contains(out.String(), "No space left on device") {
		return noSpace(what)
	}
	why := err.Error()
	for line := range strings.Lines(out.String()) {
		if strings.Contains(line, "error:") || strings.Contains(line, "undefined reference") || strings.Contains(line, "cannot find") {
			why = strings.TrimSpace(strings.ReplaceAll(line, b.src+string(filepath.Separator), ""))
			break
		}
	}
	log := b.log()
	text := strings.Join(cmd.Args, " ") + "\n\n" + out.String()
	if err := writeFile(log, []byte(text)); err != nil {
		return fmt.Errorf("%s with %s: %s", what, b.c.version, why)
	}
	return fmt.Errorf("%s with %s: %s (all messages: %s)", what, b.c.version, why, log)
}

// parallel is how many compilers may run at once.
func parallel(files int) int {
	n := min(files, runtime.GOMAXPROCS(0))
	if free := availableMemory(); free > 0 {
		n = min(n, int(free/bytesPerCompiler))
	}
	return max(n, 1)
}
