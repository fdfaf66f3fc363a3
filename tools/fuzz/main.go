// Command fuzz runs every fuzz target of the repository, one after the other.
//
//	go run ./tools/fuzz                           60 s for what reads weights, 10 s for others
//	go run ./tools/fuzz -seconds 1800 FuzzGGUF    this one, half an hour
//
// It finds the targets by itself, prints a line for each, and exits with 1 if one failed. Inputs that are interesting
// stay in Go's build cache; only one that fails is written beside its test, as Go does, and printed.
package main

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"os/signal"
	"path"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"time"
)

// others are the targets that read no weights.
var others = []string{"FuzzAnswers", "FuzzEncode", "FuzzGenerationConfig", "FuzzParse", "FuzzRoPE", "FuzzTokenizerJSON"}

func main() {
	seconds := flag.Int("seconds", 60, "how long each target that reads weights runs")
	short := flag.Int("others", 10, "how long each other one runs")
	parallel := flag.Int("parallel", runtime.GOMAXPROCS(0), "processes of a target")
	verbose := flag.Bool("v", false, "show what go test prints")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	targets, err := find(".")
	if err != nil {
		fmt.Fprintln(os.Stderr, "fuzz:", err)
		os.Exit(1)
	}
	names := flag.Args()
	for _, name := range names {
		if !slices.ContainsFunc(targets, func(t target) bool { return t.name == name }) {
			fmt.Fprintf(os.Stderr, "fuzz: there is no target %q\n", name)
			os.Exit(2)
		}
	}
	failed := 0
	for _, t := range targets {
		if len(names) > 0 && !slices.Contains(names, t.name) {
			continue
		}
		length := time.Duration(*seconds) * time.Second
		if slices.Contains(others, t.name) {
			length = time.Duration(*short) * time.Second
		}
		start := time.Now()
		r := t.run(ctx, length, *parallel, *verbose)
		if ctx.Err() != nil {
			os.Exit(130)
		}
		fmt.Printf("%-22s ./%-26s from %s for %4.0f s: %s\n", t.name, t.dir, start.Format("15:04:05"), time.Since(start).Seconds(), r)
		if r.failure != "" {
			failed++
		}
	}
	if failed > 0 {
		fmt.Fprintf(os.Stderr, "fuzz: %d failed\n", failed)
		os.Exit(1)
	}
}

// target is a fuzz function.
type target struct{ dir, name string }

var function = regexp.MustCompile(`(?m)^func (Fuzz\w+)\(\w+ \*testing\.F\)`)

// find lists the targets of the module in dir, by folder and name.
func find(dir string) (targets []target, err error) {
	err = fs.WalkDir(os.DirFS(dir), ".", func(name string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir():
			_, nested := os.Stat(filepath.Join(dir, name, "go.mod"))
			if base := d.Name(); name != "." && (nested == nil || base == "build" || base == "testdata" || strings.HasPrefix(base, ".")) {
				return fs.SkipDir
			}
		case strings.HasSuffix(name, "_test.go"):
			data, err := os.ReadFile(filepath.Join(dir, name))
			if err != nil {
				return err
			}
			for _, m := range function.FindAllSubmatch(data, -1) {
				targets = append(targets, target{path.Dir(name), string(m[1])})
			}
		}
		return nil
	})
	return targets, err
}

// result is what came of a run.
type result struct {
	execs, inputs string // as Go counts them: of inputs the interesting ones
	failure       string
	cpu           time.Duration // the build's included
}

func (r result) String() string {
	text := fmt.Sprintf("%s executions in %.0f s of CPU time, %s inputs kept", r.execs, r.cpu.Seconds(), r.inputs)
	if r.failure != "" {
		return text + ", FAILED\n" + r.failure
	}
	return text + ", no finding"
}

func (t target) run(ctx context.Context, length time.Duration, parallel int, verbose bool) result {
	// Making inputs smaller that are not findings may take most of the time: a minute each by default.
	cmd := exec.CommandContext(ctx, "go", "test", "-run", "^$", "-fuzz", "^"+t.name+"$", "-fuzztime", length.String(), "-parallel", fmt.Sprint(parallel),
		"-fuzzminimizetime", "100x", "-timeout", "0", "./"+t.dir)
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = 10 * time.Second
	var out bytes.Buffer
	cmd.Stdout = &out
	if verbose {
		cmd.Stdout = io.MultiWriter(&out, os.Stderr)
	}
	cmd.Stderr = cmd.Stdout
	err := cmd.Run()
	r := read(out.String(), err != nil)
	if s := cmd.ProcessState; s != nil {
		r.cpu = s.UserTime() + s.SystemTime()
	}
	if m := regexp.MustCompile(`Failing input written to (\S+)`).FindStringSubmatch(r.failure); m != nil {
		input, _ := os.ReadFile(filepath.Join(t.dir, m[1]))
		r.failure += fmt.Sprintf("\n%s:\n%.4096s", m[1], input)
	}
	return r
}

var (
	progress = regexp.MustCompile(`(?m)^fuzz: elapsed: .*, execs: (\d+) \((\d+)/sec\), new interesting: \d+ \(total: (\d+)\)$`)
	deadline = regexp.MustCompile(`(?m)^--- FAIL: Fuzz\w+ \([0-9.]+s\)\n {4}context deadline exceeded$`)
)

// stalled is the number of reports without progress, three seconds each, that make a hang of an input. A machine that is
// busy goes without any for 20 s.
const stalled = 10

// read understands the output of go test.
func read(out string, failed bool) result {
	r := result{execs: "0", inputs: "0"}
	still := 0
	for _, m := range progress.FindAllStringSubmatch(out, -1) {
		if r.execs, r.inputs = m[1], m[3]; m[2] == "0" {
			still++
		} else {
			still = 0
		}
	}
	switch {
	case !failed && strings.Contains(out, "fuzz: elapsed: "): // a busy machine may get no further than to the inputs that were kept
	// Go before 1.27 may take the end of its time for a failure (go.dev/issue/75804). If the last input didn't end, that is one.
	case failed && deadline.MatchString(out) && still < stalled && r.execs != "0":
	default:
		lines := strings.Split(out, "\n")
		seen := len(lines)
		lines = slices.DeleteFunc(lines, func(line string) bool { return strings.HasPrefix(line, "fuzz: elapsed: ") })
		r.failure = fmt.Sprintf("(%d reports of progress, the last %d of them without any)\n", seen-len(lines), still) +
			strings.Join(lines[max(0, len(lines)-60):], "\n")
	}
	return r
}
