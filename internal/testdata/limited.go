//go:build unix

package testdata

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/torchgo/torchgo/internal/fileerr"
)

// A file that was made to do harm is read in a process of its own, the test's binary again: with 512 MB of address space over
// what the process began with, and few seconds of processor time.

// Outcome is what came of it.
type Outcome struct {
	Tensors map[string]HostileTensor // what read gave
	Classes []string                 // of fileerr that the error wraps, by their names in the corpus
	Error   string
	ExtraMB int64 // resident memory over what the process had before
}

const limitedEnv = "TORCHGO_TEST_LIMITED"

// ServeLimited is called first in a TestMain. In a process that RunLimited started it reads the file, prints what came of it
// and exits; else it returns.
func ServeLimited(read func(what, path string) (map[string]HostileTensor, error)) {
	path, limited := os.LookupEnv(limitedEnv)
	if !limited {
		return
	}
	seconds, err := strconv.ParseUint(os.Getenv(limitedEnv+"_SECONDS"), 10, 64)
	if err != nil {
		panic(err)
	}
	before := peakKB()
	limit(syscall.RLIMIT_AS, virtualBytes()+512<<20)
	limit(syscall.RLIMIT_CPU, seconds)
	var out Outcome
	out.Tensors, err = read(os.Getenv(limitedEnv+"_WHAT"), path)
	out.ExtraMB = (peakKB() - before) >> 10
	if err != nil {
		out.Error = err.Error()
		for _, name := range fileerr.ClassNames() {
			if errors.Is(err, fileerr.Class(name)) {
				out.Classes = append(out.Classes, name)
			}
		}
	}
	if err := json.NewEncoder(os.Stdout).Encode(out); err != nil {
		panic(err)
	}
	os.Exit(0)
}

// RunLimited reads a file in a process of its own. The test fails if that doesn't end by itself, and skips where the
// system doesn't tell what a process takes. what is for read.
func RunLimited(t *testing.T, what, path string, seconds int) (out Outcome) {
	t.Helper()
	if _, err := os.Stat("/proc/self/statm"); err != nil {
		t.Skip("needs /proc")
	}
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), limitedEnv+"="+path, limitedEnv+"_WHAT="+what, fmt.Sprintf("%s_SECONDS=%d", limitedEnv, seconds),
		"GORACE=atexit_sleep_ms=0") // a second a process, under -race
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	stdout, err := cmd.Output()
	require.NoError(t, err, "the process failed: %.2000s", stderr.String())
	require.NoError(t, json.Unmarshal(stdout, &out))
	return out
}

// Check compares what came of a case with its verdict: the class of the error, which names the file, or the tensors. Memory is
// within 64 MB and four times the file.
func (c *HostileCase) Check(t *testing.T, out Outcome) {
	t.Helper()
	st, err := os.Stat(c.Path)
	require.NoError(t, err)
	require.LessOrEqual(t, out.ExtraMB, 64+4*st.Size()>>20)
	if c.Expected == "ok" && (out.Error == "" || c.Alt == "") {
		require.Empty(t, out.Error, c.Wrong)
		if c.Tensors != nil {
			require.Equal(t, c.joined(c.Tensors), c.joined(out.Tensors))
		}
		return
	}
	class := c.ErrorClass
	if c.Expected == "ok" { // a valid file with something that may be refused
		class = c.Alt
	}
	require.NotEmpty(t, out.Error, "accepted: %s", c.Wrong)
	require.NotNil(t, fileerr.Class(class))
	require.Contains(t, out.Classes, class, out.Error)
	require.LessOrEqual(t, len(out.Classes), 2, out.Error) // a forbidden name by a forbidden opcode
	require.Contains(t, out.Error, filepath.Base(c.Path), "names the file or its folder")
	require.True(t, strings.Count(out.Error, ": ") > 1 || strings.Contains(out.Error, "(at byte "), "says more than the class: %s", out.Error)
	require.NotContains(t, out.Error, "\n")
}

// joined has names with one separator: the manifest joins the keys of a pickle's dicts by another than we do.
func (c *HostileCase) joined(tensors map[string]HostileTensor) map[string]HostileTensor {
	out := map[string]HostileTensor{}
	for name, x := range tensors {
		if strings.HasPrefix(c.Format, "torch_") {
			name = strings.ReplaceAll(name, "/", ".")
		}
		out[name] = x
	}
	return out
}

func limit(what int, n uint64) {
	if err := syscall.Setrlimit(what, &syscall.Rlimit{Cur: n, Max: n}); err != nil {
		panic(err)
	}
}

func virtualBytes() uint64 {
	data, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		panic(err)
	}
	var pages uint64
	if _, err := fmt.Sscan(string(data), &pages); err != nil {
		panic(err)
	}
	return pages * uint64(os.Getpagesize())
}

// peakKB is the peak of resident memory. (Getrusage's also counts the parent's at the fork.)
func peakKB() int64 {
	data, err := os.ReadFile("/proc/self/status")
	if err != nil {
		panic(err)
	}
	_, rest, _ := strings.Cut(string(data), "VmHWM:")
	var kb int64
	if _, err := fmt.Sscan(rest, &kb); err != nil {
		panic(err)
	}
	return kb
}
