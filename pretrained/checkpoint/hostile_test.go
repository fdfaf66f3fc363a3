package checkpoint

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/torchgo/torchgo/internal/fileerr"
	"github.com/torchgo/torchgo/internal/testdata"
)

// The cases of folders that are about something else than weights and their index.
var otherFolderCases = map[string]string{
	"hf_model_needs": "the model", "hf_shape_vs_config": "the model", "hf_shape_transposed": "the model", "hf_dtype_int": "the model",
}

func hostileCases(t testing.TB) (cases []testdata.HostileCase) {
	for format, n := range map[string]int{"safetensors": 88, "gguf": 72, "torch_zip": 179, "torch_legacy": 26, "torch_tar": 8} {
		found := testdata.Hostile(t, format)
		require.Len(t, found, n)
		cases = append(cases, found...)
	}
	folders := 0
	for _, c := range testdata.Hostile(t, "hf_dir") {
		if otherFolderCases[c.ID] != "" || strings.HasPrefix(c.ID, "hf_cfg_") {
			continue
		}
		folders++
		cases = append(cases, c)
	}
	require.Equal(t, 55-len(otherFolderCases)-11, folders)
	return cases
}

// outcome is what happened to one case, in a process of its own.
type outcome struct {
	Listing *Listing `json:",omitempty"`
	Classes []string // names of the classes that the error wraps
	Error   string
	ExtraMB int64 // resident memory over what the process had before
}

const (
	childEnv   = "TORCHGO_TEST_HOSTILE"
	noRaceWait = "GORACE=atexit_sleep_ms=0" // a second a process, under -race
)

func TestMain(m *testing.M) {
	if path := os.Getenv(childEnv); path != "" {
		hostileChild(path)
		return
	}
	os.Exit(m.Run())
}

// hostileChild reads a checkpoint with all its tensors under limits, and prints the outcome.
func hostileChild(path string) {
	before := peakKB()
	limit(syscall.RLIMIT_AS, virtualBytes()+512<<20)
	limit(syscall.RLIMIT_CPU, 2)
	l, err := List(context.Background(), path, true)
	out := outcome{Listing: l, ExtraMB: (peakKB() - before) >> 10}
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

// TestHostileCorpus gives each case to a process of its own with 512 MB of address space and 2 s of CPU.
func TestHostileCorpus(t *testing.T) {
	if _, err := os.Stat("/proc/self/statm"); err != nil {
		t.Skip("needs /proc")
	}
	total, right := map[string]int{}, map[string]int{}
	for _, c := range hostileCases(t) {
		total[c.Format+" "+c.Strictness]++
		if t.Run(c.ID, func(t *testing.T) {
			cmd := exec.Command(os.Args[0])
			cmd.Env = append(os.Environ(), childEnv+"="+c.Path, noRaceWait)
			var stderr bytes.Buffer
			cmd.Stderr = &stderr
			stdout, err := cmd.Output()
			require.NoError(t, err, "%s: the process failed: %.2000s", c.Wrong, stderr.String())
			var got outcome
			require.NoError(t, json.Unmarshal(stdout, &got))
			checkOutcome(t, c, got)
			st, err := os.Stat(c.Path)
			require.NoError(t, err)
			require.LessOrEqual(t, got.ExtraMB, 64+4*st.Size()>>20)
		}) {
			right[c.Format+" "+c.Strictness]++
		}
	}
	for _, kind := range slices.Sorted(maps.Keys(total)) {
		t.Logf("%s: %d of %d", kind, right[kind], total[kind])
	}
}

// joined is a name with one separator: the manifest joins the keys of a pickle's dicts by another than we do.
func joined(c testdata.HostileCase, name string) string {
	if strings.HasPrefix(c.Format, "torch_") {
		return strings.ReplaceAll(name, "/", ".")
	}
	return name
}

func checkOutcome(t *testing.T, c testdata.HostileCase, got outcome) {
	if c.Expected == "ok" && got.Error != "" && c.Alt != "" {
		require.Equal(t, []string{c.Alt}, got.Classes, got.Error)
		return
	}
	if c.Expected == "ok" {
		require.Empty(t, got.Error, c.Wrong)
		if c.Tensors == nil {
			return
		}
		tensors := map[string]testdata.HostileTensor{}
		for _, l := range got.Listing.Tensors {
			tensors[joined(c, l.Name)] = testdata.HostileTensor{DType: l.DType, Shape: l.Shape, SHA256: l.SHA256[:32]}
		}
		want := map[string]testdata.HostileTensor{}
		for name, x := range c.Tensors {
			want[joined(c, name)] = x
		}
		require.Equal(t, want, tensors)
		return
	}
	require.NotEmpty(t, got.Error, "accepted: %s", c.Wrong)
	require.NotNil(t, fileerr.Class(c.ErrorClass))
	require.Contains(t, got.Classes, c.ErrorClass, got.Error)
	require.LessOrEqual(t, len(got.Classes), 2) // a forbidden name by a forbidden opcode
	require.Contains(t, got.Error, filepath.Base(c.Path), "names the file or its folder")
	require.NotContains(t, got.Error, "\n")
}

func openDescriptors(t *testing.T) []string {
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Skip("needs /proc")
	}
	var list []string
	for _, e := range entries {
		target, err := os.Readlink("/proc/self/fd/" + e.Name())
		if err == nil && !strings.Contains(target, "/fd") && !strings.Contains(target, "anon_inode") && !strings.Contains(target, "pipe") {
			list = append(list, target)
		}
	}
	slices.Sort(list)
	return list
}

func TestNoDescriptorLeaks(t *testing.T) {
	cases := hostileCases(t)
	before := openDescriptors(t)
	for _, c := range cases {
		_, _ = List(t.Context(), c.Path, true)
		if cp, err := Open(c.Path); err == nil {
			require.NoError(t, cp.Close())
		}
	}
	require.Equal(t, before, openDescriptors(t))
}

// A FIFO in the place of a shard does not block.
func TestFIFOAsShard(t *testing.T) {
	for _, c := range testdata.Hostile(t, "hf_dir") {
		if c.ID != "hf_ok_sharded" {
			continue
		}
		shard := filepath.Join(c.Path, "model-00002-of-00002.safetensors")
		require.NoError(t, os.Remove(shard))
		require.NoError(t, syscall.Mkfifo(shard, 0o600))
		done := make(chan error)
		go func() {
			_, err := Open(c.Path)
			done <- err
		}()
		select {
		case err := <-done:
			require.ErrorIs(t, err, fileerr.ErrNotRegular)
			require.ErrorContains(t, err, shard)
		case <-time.After(5 * time.Second):
			t.Fatal("blocked")
		}
	}
}
