package main

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"
	"github.com/torchgo/torchgo/cgo"
	"github.com/torchgo/torchgo/cmd/torchgo/internal/cli"
	"github.com/torchgo/torchgo/internal/libtorch"
	"github.com/torchgo/torchgo/torch"
)

func init() { cli.Register(newEnv) }

func newEnv(app *cli.App) *cobra.Command {
	return &cobra.Command{
		Use:   "env",
		Short: "Show versions, devices and threads, and where each was found",
		Args:  cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			e := gatherEnv()
			if app.JSON {
				return app.PrintJSON(e)
			}
			return e.print(app.Stdout)
		},
	}
}

// environment is what `env` reports; what is not there is null.
type environment struct {
	Torchgo  envTorchgo   `json:"torchgo"`
	Libtorch *envLibtorch `json:"libtorch"`
	Error    string       `json:"error,omitempty"` // why libtorch is null: one line
	CUDA     *envCUDA     `json:"cuda"`
	NCCL     *envNCCL     `json:"nccl"`
	Devices  []envDevice  `json:"devices"`
	Threads  envThreads   `json:"threads"`
	Cache    envCache     `json:"cache"`
}

type envTorchgo struct {
	Version    string `json:"version"`
	Go         string `json:"go"`
	Platform   string `json:"platform"`
	Executable string `json:"executable"`
}

type envLibtorch struct {
	Version  string `json:"version"`
	Dir      string `json:"dir"` // "" where nothing tells it
	FoundBy  string `json:"found_by"`
	Shim     string `json:"shim"`
	Compiler string `json:"compiler,omitempty"` // of the shim
	Config   string `json:"config"`             // libtorch's own description
}

type envCUDA struct {
	Version string `json:"version"` // that libtorch was built with; "" if it is without CUDA
	Driver  string `json:"driver"`  // "" if there is none
	Loaded  bool   `json:"loaded"`  // libtorch's CUDA library is in use
}

type envNCCL struct {
	Version string `json:"version"`
	Library string `json:"library"`
}

type envDevice struct {
	Name  string `json:"name"` // "cpu", "cuda:0"
	Model string `json:"model"`
}

type envThreads struct {
	IntraOp       int    `json:"intra_op"`    // libtorch's, within an operator; 0 without libtorch
	Concurrency   int    `json:"concurrency"` // scopes that compute at a time; 0 without libtorch
	GOMAXPROCS    int    `json:"gomaxprocs"`
	CPUs          int    `json:"cpus"`
	OMPNumThreads string `json:"omp_num_threads"` // the environment variable
}

type envCache struct {
	Dir     string   `json:"dir"`
	Default string   `json:"default"`
	Entries []string `json:"entries"`
}

func gatherEnv() environment {
	e := environment{
		Torchgo: envTorchgo{Version: cli.Version(), Go: runtime.Version(), Platform: runtime.GOOS + "/" + runtime.GOARCH},
		Devices: []envDevice{{Name: "cpu", Model: firstMatch("/proc/cpuinfo", `(?m)^model name\s*: (.*)`)}},
		Threads: envThreads{GOMAXPROCS: runtime.GOMAXPROCS(0), CPUs: runtime.NumCPU(), OMPNumThreads: os.Getenv("OMP_NUM_THREADS")},
		Cache:   gatherCache(),
	}
	e.Torchgo.Executable, _ = os.Executable()
	driver := firstMatch("/proc/driver/nvidia/version", `(?m)^NVRM version:.*?\s(\d+\.[\d.]+)\s`)
	if driver != "" {
		e.CUDA = &envCUDA{Driver: driver}
	}
	rt, err := torch.RuntimeInfo()
	if err != nil {
		e.Error = cli.OneLine(err.Error())
		return e
	}
	e.Libtorch = &envLibtorch{Version: rt.Version, Dir: rt.LibtorchDir, FoundBy: rt.FoundBy, Shim: rt.Library, Config: strings.TrimSpace(rt.Config)}
	if r, err := libtorch.ReadRecord(filepath.Join(filepath.Dir(rt.Library), libtorch.ShimRecord)); err == nil {
		e.Libtorch.Compiler = r.Compiler
	}
	e.Threads.IntraOp, e.Threads.Concurrency = rt.Threads, rt.Concurrency
	if version := cudaVersion(rt.LibtorchDir); version != "" {
		e.CUDA = &envCUDA{Version: version, Driver: driver, Loaded: rt.CUDA}
	}
	e.NCCL = findNCCL(rt.LibtorchDir)
	models := gpuModels()
	for i := range rt.CUDADevices {
		d := envDevice{Name: torch.CUDA(i).String()}
		if len(models) == rt.CUDADevices { // else some are hidden, and which is which is unknown
			d.Model = models[i]
		}
		e.Devices = append(e.Devices, d)
	}
	return e
}

func gatherCache() envCache {
	c := envCache{Entries: []string{}}
	var err error
	if c.Dir, err = libtorch.Cache(); err != nil {
		return c
	}
	c.Default, _ = libtorch.Default(c.Dir)
	records, _ := filepath.Glob(filepath.Join(c.Dir, "*", libtorch.RecordName))
	for _, r := range records {
		c.Entries = append(c.Entries, filepath.Base(filepath.Dir(r)))
	}
	return c
}

// firstMatch returns the first group of the pattern in a file, "" if there is none.
func firstMatch(path, pattern string) string {
	data, err := os.ReadFile(path)
	if err != nil {
		return ""
	}
	if m := regexp.MustCompile(pattern).FindSubmatch(data); m != nil {
		return strings.TrimSpace(string(m[1]))
	}
	return ""
}

// cudaVersion is the CUDA that a libtorch was built with, where its CUDA half is there.
func cudaVersion(dir string) string {
	if _, err := os.Stat(filepath.Join(dir, "lib", "libtorch_cuda.so")); dir == "" || err != nil {
		return ""
	}
	if v := firstMatch(filepath.Join(dir, "version.py"), `(?m)^cuda[^=\n]*= *'([\d.]+)'`); v != "" {
		return v
	}
	return "unknown"
}

// findNCCL looks where the wheels put it.
func findNCCL(dir string) *envNCCL {
	if dir == "" {
		return nil
	}
	root := filepath.Join(filepath.Dir(dir), "nvidia", "nccl")
	lib := filepath.Join(root, "lib", "libnccl.so.2")
	if _, err := os.Stat(lib); err != nil {
		return nil
	}
	header := filepath.Join(root, "include", "nccl.h")
	var parts []string
	for _, name := range []string{"MAJOR", "MINOR", "PATCH"} {
		if n := firstMatch(header, `(?m)^#define NCCL_`+name+` (\d+)`); n != "" {
			parts = append(parts, n)
		}
	}
	return &envNCCL{Version: strings.Join(parts, "."), Library: lib}
}

func gpuModels() []string {
	files, _ := filepath.Glob("/proc/driver/nvidia/gpus/*/information")
	var models []string
	for _, f := range files {
		models = append(models, firstMatch(f, `(?m)^Model:\s*(.*)`))
	}
	return models
}

func (e environment) print(w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	row := func(name, format string, args ...any) { fmt.Fprintf(t, "%s\t%s\n", name, fmt.Sprintf(format, args...)) }
	row("torchgo", "%s (%s, %s), %s", e.Torchgo.Version, e.Torchgo.Go, e.Torchgo.Platform, e.Torchgo.Executable)
	if l := e.Libtorch; l != nil {
		row("libtorch", "%s, found by %s, %s", l.Version, l.FoundBy, l.Dir)
		row("shim", "%s", l.Shim)
		if l.Compiler != "" {
			row("", "built by %s", l.Compiler)
		}
	} else {
		row("libtorch", "none")
	}
	row("CUDA", "%s", e.CUDA)
	if e.NCCL != nil {
		row("NCCL", "%s, %s", e.NCCL.Version, e.NCCL.Library)
	} else {
		row("NCCL", "none")
	}
	for _, d := range e.Devices {
		row("device", "%s  %s", d.Name, d.Model)
	}
	threads := fmt.Sprintf("GOMAXPROCS %d of %d CPUs", e.Threads.GOMAXPROCS, e.Threads.CPUs)
	if e.Threads.OMPNumThreads != "" {
		threads += ", OMP_NUM_THREADS=" + e.Threads.OMPNumThreads
	}
	if e.Libtorch != nil {
		threads = fmt.Sprintf("%d within an operator, %d scopes at a time; %s", e.Threads.IntraOp, e.Threads.Concurrency, threads)
	}
	row("threads", "%s", threads)
	row("cache", "%s: %s", e.Cache.Dir, strings.Join(e.Cache.marked(), ", "))
	if err := t.Flush(); err != nil {
		return err
	}
	if e.Error != "" {
		_, err := fmt.Fprintln(w, e.Error)
		return err
	}
	return nil
}

func (c *envCUDA) String() string {
	switch {
	case c == nil:
		return "none"
	case c.Version == "":
		return "driver " + c.Driver + "; this libtorch is without CUDA (`torchgo setup --device cuda`)"
	case c.Driver == "" && !cgo.HasCUDADriver():
		return c.Version + ", no driver"
	case !c.Loaded:
		return c.Version + ", driver " + c.Driver + ", not loaded (TORCHGO_DEVICE)"
	}
	return c.Version + ", driver " + c.Driver
}

// marked lists the entries with the default marked.
func (c envCache) marked() []string {
	list := make([]string, 0, len(c.Entries))
	for _, e := range c.Entries {
		if e == c.Default {
			e += " (default)"
		}
		list = append(list, e)
	}
	if len(list) == 0 {
		return []string{"empty"}
	}
	return list
}
