package torch

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/torchgo/torchgo/internal/libtorch"
)

// fakeShim compiles a library whose table says what the caller wants.
func fakeShim(t *testing.T, source string) string {
	cc, err := exec.LookPath("cc")
	if err != nil {
		t.Skip("no C compiler")
	}
	header, err := filepath.Abs("../cgo/shim")
	require.NoError(t, err)
	dir := t.TempDir()
	file, lib := filepath.Join(dir, "fake.c"), filepath.Join(dir, libtorch.LibName)
	require.NoError(t, os.WriteFile(file, []byte(source), 0o600))
	out, err := exec.Command(cc, "-shared", "-fPIC", "-I", header, "-o", lib, file).CombinedOutput()
	require.NoError(t, err, string(out))
	return lib
}

const fakeTable = `
#include "torchgo.h"
static const char* runtime(void) { return "2.14.0"; }
static tg_api api;
const tg_api* torchgo_api(void) {
  api.abi = TG_ABI; api.size = sizeof api; api.libtorch = "2.15.0"; api.runtime = runtime;
`

// What a program says when libtorch can't be opened: one line, the command to run in it, and no
// panic but that of an operator, which has the same line.
func TestLoadErrors(t *testing.T) {
	if os.Getenv("TORCHGO_LOAD_CHILD") != "" {
		err := Load()
		require.Error(t, err)
		os.Stderr.WriteString("error: " + err.Error() + "\n")
		require.Equal(t, err, Load(), "the error stays")
		_, info := RuntimeInfo()
		require.Equal(t, err, info)
		for _, fn := range []func(){
			func() { Scope(func() {}) }, func() { Ones([]int{1}) }, func() { FromSlice([]int64{1}) }, func() { Version() },
			func() { Inference(func() {}) }, func() { ManualSeed(1) }, func() { NumThreads() }, func() { CUDADeviceCount() },
			func() { FromBlob(nil, 0, []int{0}, Float32, nil) }, func() { NewGenerator(CPU, 1) }, func() { Call("aten::nosuchthing") },
			func() { GradEnabled() }, func() { Go(func() {}) }, func() { RNGState() }, func() { SetNumThreads(1) },
			func() { Autocast(DeviceCPU, AutocastOptions{}, func() {}) }, func() { AutocastEnabled(DeviceCUDA) },
			func() { NewStream(CPU) }, func() { NewEvent(CPU) }, func() { Synchronize(CUDA(0)) }, func() { DefaultGenerator(CPU) },
			func() { WithDevice(CUDA(0), func() {}) }, func() { UseDeterministicAlgorithms(true) }, func() { CUDNNEnabled.On() },
		} {
			e := TryDo(fn)
			require.ErrorIs(t, e, ErrNotLoaded)
			require.ErrorContains(t, e, err.Error())
		}
		Collect()
		require.Zero(t, LiveTensors())
		return
	}
	dir := t.TempDir()
	garbage := filepath.Join(dir, "garbage.so")
	require.NoError(t, os.WriteFile(garbage, []byte("this is no library"), 0o600))
	cases := []struct {
		name, env string
		want      []string
	}{
		{"nothing set up", "TORCHGO_CACHE=" + dir, []string{"libtorch is not set up"}},
		{"entry missing", "TORCHGO_LIBTORCH=2.15.0-cpu", []string{"2.15.0-cpu"}},
		{"entry unreadable", "TORCHGO_LIBTORCH=../../etc", []string{"../../etc"}},
		{"no such file", "TORCHGO_LIB=" + filepath.Join(dir, "missing.so"), []string{"missing.so", "no such file"}},
		{"a folder", "TORCHGO_LIB=" + dir, []string{"not a regular file"}},
		{"garbage", "TORCHGO_LIB=" + garbage, []string{"garbage.so", "can't open the shim"}},
		{"no shim", "TORCHGO_LIB=" + fakeShim(t, "int other;"), []string{"not a torchgo shim"}},
		{"no table", "TORCHGO_LIB=" + fakeShim(t, "const void* torchgo_api(void) { return 0; }"), []string{"not a torchgo shim"}},
		{"other ABI", "TORCHGO_LIB=" + fakeShim(t, fakeTable+"api.abi = 99; return &api; }"), []string{"ABI 99", "this program needs ABI 2"}},
		{"other size", "TORCHGO_LIB=" + fakeShim(t, fakeTable+"api.size = 8; return &api; }"), []string{"8 bytes"}},
		{"other libtorch", "TORCHGO_LIB=" + fakeShim(t, fakeTable+"return &api; }"), []string{"compiled against libtorch 2.15.0", "libtorch 2.14.0 was found"}},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			child := exec.Command(os.Args[0], "-test.run=^TestLoadErrors$")
			for _, v := range os.Environ() {
				if !strings.HasPrefix(v, "TORCHGO_") {
					child.Env = append(child.Env, v)
				}
			}
			child.Env = append(child.Env, "TORCHGO_LOAD_CHILD=1", "TORCHGO_CACHE="+dir, c.env)
			out, err := child.CombinedOutput()
			require.NoError(t, err, string(out))
			var lines []string
			for line := range strings.Lines(string(out)) {
				if text, ok := strings.CutPrefix(line, "error: "); ok {
					lines = append(lines, strings.TrimSpace(text))
				}
			}
			require.Len(t, lines, 1, "one line: %s", out)
			require.Contains(t, lines[0], "`torchgo setup")
			for _, want := range c.want {
				require.Contains(t, lines[0], want)
			}
			t.Log(lines[0])
		})
	}
}

// Without a CUDA library there are no CUDA devices, and asking for one is an error.
func TestNoCUDA(t *testing.T) {
	info, err := RuntimeInfo()
	require.NoError(t, err)
	if info.CUDA {
		t.Skip("this machine has CUDA")
	}
	require.Zero(t, CUDADeviceCount())
	for _, fn := range []func(){
		func() { Ones([]int{1}, TensorOptions{Device: CUDA(0)}) }, func() { ones(1).To(CUDA(3)) }, func() { NewGenerator(CUDA(0), 1) },
	} {
		err := TryDo(fn)
		require.ErrorIs(t, err, ErrNoDevice)
		require.ErrorContains(t, err, "was asked for, but libtorch runs without cuda here")
	}
	Collect()
}
