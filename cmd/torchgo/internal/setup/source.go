package setup

import (
	"bytes"
	"context"
	"debug/elf"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/torchgo/torchgo/internal/proc"
)

// found is a libtorch on this machine.
type found struct {
	dir      string // holds lib/ and include/
	version  string // "2.15.0"
	cuda     string // "cu132"; empty without libtorch_cuda.so
	cxx11ABI bool
	source   string
}

var (
	versionParts = regexp.MustCompile(`(?m)^#define TORCH_VERSION_(MAJOR|MINOR|PATCH) (\d+)`)
	buildCUDA    = regexp.MustCompile(`\+cu(\d+)|cuda[^=\n]*= *'(\d+)\.(\d+)'`)
)

// inspect looks at an unpacked libtorch, a torch folder of a Python environment, or the
// environment itself.
func inspect(dir, source string) (found, error) {
	f := found{source: source}
	abs, err := filepath.Abs(dir)
	if err != nil {
		return f, err
	}
	roots := []string{abs, filepath.Join(abs, "torch")}
	if sites, _ := filepath.Glob(filepath.Join(abs, "lib", "python3*", "site-packages", "torch")); len(sites) > 0 {
		roots = append(roots, sites...)
	}
	for _, root := range roots {
		_, err := os.Stat(filepath.Join(root, "lib", "libtorch_cpu.so"))
		if err == nil {
			f.dir = root
			break
		}
		if !errors.Is(err, fs.ErrNotExist) {
			return f, err
		}
	}
	if f.dir == "" {
		if _, err := os.Stat(abs); err != nil {
			return f, err
		}
		return f, fmt.Errorf("%s holds no lib/libtorch_cpu.so", abs)
	}
	for _, header := range []string{"include/torch/csrc/api/include/torch/torch.h", "include/ATen/core/Tensor.h"} {
		if _, err := os.Stat(filepath.Join(f.dir, header)); err != nil {
			return f, fmt.Errorf("%s lacks libtorch's headers: %w", f.dir, err)
		}
	}
	if f.version, err = headerVersion(f.dir); err != nil {
		return f, err
	}
	if exists(filepath.Join(f.dir, "lib", "libtorch_cuda.so")) {
		f.cuda = buildOfCUDA(f.dir)
	}
	f.cxx11ABI, err = usesCXX11ABI(filepath.Join(f.dir, "lib", "libc10.so"))
	return f, err
}

func headerVersion(dir string) (string, error) {
	var lastErr error
	for _, name := range []string{"include/torch/headeronly/version.h", "include/torch/csrc/api/include/torch/version.h"} {
		path := filepath.Join(dir, name)
		data, err := os.ReadFile(path)
		if err != nil {
			lastErr = err
			continue
		}
		parts := map[string]string{}
		for _, m := range versionParts.FindAllStringSubmatch(string(data), -1) {
			parts[m[1]] = m[2]
		}
		if len(parts) == 3 {
			return parts["MAJOR"] + "." + parts["MINOR"] + "." + parts["PATCH"], nil
		}
		lastErr = fmt.Errorf("%s: no version in it", path)
	}
	return "", lastErr
}

// buildOfCUDA reads "cu132" from version.py (wheels) or build-version (the zip).
func buildOfCUDA(dir string) string {
	for _, name := range []string{"version.py", "build-version"} {
		data, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			continue
		}
		if m := buildCUDA.FindSubmatch(data); m != nil {
			return "cu" + string(m[1]) + string(m[2]) + string(m[3])
		}
	}
	return ""
}

// usesCXX11ABI tells which std::string a libtorch was built with, from the names that libc10
// exports.
func usesCXX11ABI(libc10 string) (bool, error) {
	f, err := elf.Open(libc10)
	if err != nil {
		return false, fmt.Errorf("%s: %w", libc10, err)
	}
	defer f.Close()
	symbols, err := f.DynamicSymbols()
	if err != nil {
		return false, fmt.Errorf("%s: %w", libc10, err)
	}
	for _, s := range symbols {
		if s.Section != elf.SHN_UNDEF && strings.Contains(s.Name, "__cxx1112basic_string") {
			return true, nil
		}
	}
	return false, nil
}

// pythonTorches finds the torch of each Python that an active environment or PATH offers, without
// importing it.
func pythonTorches(ctx context.Context) []found {
	var pythons []string
	for _, v := range []string{"VIRTUAL_ENV", "CONDA_PREFIX"} {
		if dir := os.Getenv(v); dir != "" {
			pythons = append(pythons, filepath.Join(dir, "bin", "python"))
		}
	}
	pythons = append(pythons, "python3", "python")
	const ask = `import importlib.util as u; s = u.find_spec("torch"); print(s.origin if s and s.origin else "")`
	var list []found
	seen := map[string]bool{}
	for _, python := range pythons {
		path, err := exec.LookPath(python)
		if err != nil {
			continue
		}
		cmd := proc.Command(ctx, path, "-c", ask)
		cmd.Dir = os.TempDir() // a folder named torch in the current one is none of ours
		out, err := cmd.Output()
		origin := string(bytes.TrimSpace(out))
		if err != nil || origin == "" || seen[origin] {
			continue
		}
		seen[origin] = true
		if f, err := inspect(filepath.Dir(origin), "python"); err == nil {
			list = append(list, f)
		}
	}
	return list
}
