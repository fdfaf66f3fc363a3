package pickle

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/torchgo/torchgo/internal/fileerr"
	"github.com/torchgo/torchgo/internal/testdata"
)

func hostileCases(t testing.TB) []testdata.HostileCase {
	var cases []testdata.HostileCase
	for format, n := range map[string]int{"torch_zip": 179, "torch_legacy": 26, "torch_tar": 8} {
		of := testdata.Hostile(t, format)
		require.Len(t, of, n, format)
		cases = append(cases, of...)
	}
	return cases
}

// outcome is what happened to one case, in a process of its own.
type outcome struct {
	Tensors map[string][]any // dtype, shape, digest
	Classes []string         // that the error wraps, by their names in the corpus
	Error   string
	Where   bool  // the error names the file, and a place in it or what was found there
	ExtraMB int64 // resident memory over what the process had before
}

const childEnv = "TORCHGO_TEST_PICKLE"

func TestMain(m *testing.M) {
	if path := os.Getenv(childEnv); path != "" {
		hostileChild(path)
		return
	}
	os.Exit(m.Run())
}

// hostileChild reads all that a file has under limits, and prints the outcome.
func hostileChild(path string) {
	before := peakKB()
	limit(syscall.RLIMIT_AS, virtualBytes()+512<<20)
	limit(syscall.RLIMIT_CPU, 2)
	tensors, err := digests(path, Options{})
	out := outcome{Tensors: tensors, ExtraMB: (peakKB() - before) >> 10}
	if err != nil {
		out.Error = err.Error()
		var e *Error
		out.Where = errors.As(err, &e) && e.File == path && (e.Offset > 0 || e.Tensor != "" || e.Detail != "" || e.Actual != "")
		for _, name := range strings.Fields(`truncated bad_magic unsupported_version bad_header bad_shape size_mismatch duplicate checksum bad_zip limit
			bad_pickle forbidden_op forbidden_global bad_args bad_storage bounds path not_regular unsupported bad_value`) {
			if errors.Is(err, fileerr.Class(name)) {
				out.Classes = append(out.Classes, name)
			}
		}
	}
	if err := json.NewEncoder(os.Stdout).Encode(out); err != nil {
		panic(err)
	}
}

// digests reads all tensors of a file.
func digests(path string, o Options) (map[string][]any, error) {
	f, err := OpenWith(path, o)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	out := map[string][]any{}
	for _, t := range f.Tensors() {
		data := make([]byte, t.Bytes)
		if err := f.ReadTensor(t.Name, data); err != nil {
			return nil, err
		}
		sum := sha256.Sum256(data)
		out[t.Name] = []any{t.DType.String(), append([]int{}, t.Shape...), hex.EncodeToString(sum[:16])}
	}
	return out, nil
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

// peakKB is the peak of resident memory.
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

// TestHostileCorpus gives each case to a process of its own with 512 MB of address space and 2 s of CPU.
func TestHostileCorpus(t *testing.T) {
	if _, err := os.Stat("/proc/self/statm"); err != nil {
		t.Skip("needs /proc")
	}
	for _, c := range hostileCases(t) {
		t.Run(c.ID, func(t *testing.T) {
			cmd := exec.Command(os.Args[0])
			cmd.Env = append(os.Environ(), childEnv+"="+c.Path, "GORACE=atexit_sleep_ms=0")
			var stderr bytes.Buffer
			cmd.Stderr = &stderr
			stdout, err := cmd.Output()
			require.NoError(t, err, "%s: the process failed: %.2000s", c.Wrong, stderr.String())
			var out outcome
			require.NoError(t, json.Unmarshal(stdout, &out))
			st, err := os.Stat(c.Path)
			require.NoError(t, err)
			require.LessOrEqual(t, out.ExtraMB, 4*st.Size()>>20+64)
			if out.Error != "" {
				require.True(t, out.Where, out.Error)
			}
			switch {
			case c.Expected == "error":
				require.NotEmpty(t, out.Error, "accepted: %s", c.Wrong)
				require.Contains(t, out.Classes, c.ErrorClass, out.Error)
			case out.Error != "" && c.Alt != "":
				require.Contains(t, out.Classes, c.Alt, out.Error)
			default:
				require.Empty(t, out.Error, c.Wrong)
				want := map[string][]any{}
				for name, w := range c.Tensors { // the corpus joins keys by slashes
					shape := make([]any, len(w.Shape))
					for i, d := range w.Shape {
						shape[i] = float64(d)
					}
					if _, ok := out.Tensors[name]; !ok {
						name = strings.ReplaceAll(name, "/", ".")
					}
					want[name] = []any{w.DType, shape, w.SHA256}
				}
				require.Equal(t, want, out.Tensors)
			}
		})
	}
}

// TestHostileCorpusLeavesNothing: no descriptor stays open, and nothing that the pickles ask for happens, with unknown classes kept either.
func TestHostileCorpusLeavesNothing(t *testing.T) {
	cases := hostileCases(t)
	before := openFiles(t)
	for _, c := range cases {
		_, strict := digests(c.Path, Options{})
		_, kept := digests(c.Path, Options{KeepUnknown: true})
		if strict == nil {
			require.NoError(t, kept, c.ID)
		}
		if errors.Is(strict, ErrForbiddenGlobal) && kept != nil && c.ID != "pt_pk_global_long" {
			require.NotErrorIs(t, kept, ErrForbiddenGlobal, c.ID+": "+kept.Error())
		}
	}
	require.Equal(t, before, openFiles(t))
	for _, dir := range slices.Compact([]string{os.TempDir(), "/tmp"}) {
		require.NoDirExists(t, filepath.Join(dir, "hostile_marker"))
	}
}

func openFiles(t *testing.T) int {
	list, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Skip("needs /proc")
	}
	return len(list)
}
