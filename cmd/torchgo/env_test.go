package main

import (
	"encoding/json"
	"runtime"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/torchgo/torchgo/cgo"
	"github.com/torchgo/torchgo/internal/libtorch"
)

func TestEnvWithoutLibtorch(t *testing.T) {
	nothing := []string{"TORCHGO_CACHE=" + t.TempDir(), "TORCHGO_LIB=", "TORCHGO_LIBTORCH="}
	status, stdout, stderr := process(t, nothing, "", "env")
	require.Equal(t, 0, status)
	require.Empty(t, stderr)
	require.Contains(t, stdout, runtime.Version())
	lines := strings.Split(strings.TrimSpace(stdout), "\n")
	require.Equal(t, "libtorch is not set up: run `torchgo setup`", lines[len(lines)-1])

	status, stdout, _ = process(t, nothing, "", "env", "--json")
	require.Equal(t, 0, status)
	var e map[string]any
	require.NoError(t, json.Unmarshal([]byte(stdout), &e))
	require.Nil(t, e["libtorch"])
	require.Equal(t, "libtorch is not set up: run `torchgo setup`", e["error"])
	require.Equal(t, []any{}, e["cache"].(map[string]any)["entries"])
}

func TestEnv(t *testing.T) {
	in, err := libtorch.Find(cgo.ShimHash())
	if err != nil {
		t.Skip("needs libtorch: ", err)
	}
	status, stdout, stderr := process(t, []string{"OMP_NUM_THREADS=1"}, "", "env", "--json")
	require.Equal(t, 0, status, stderr)
	var e environment
	require.NoError(t, json.Unmarshal([]byte(stdout), &e))
	require.Empty(t, e.Error)
	if in.Version == "" {
		in.Version = e.Libtorch.Version // TORCHGO_LIB: only the library itself tells
	}
	require.Equal(t, in.Version, e.Libtorch.Version)
	require.Equal(t, in.Lib, e.Libtorch.Shim)
	require.Equal(t, in.Dir, e.Libtorch.Dir)
	require.Equal(t, 1, e.Threads.IntraOp)
	require.Equal(t, "1", e.Threads.OMPNumThreads)
	require.Equal(t, "cpu", e.Devices[0].Name)

	status, stdout, _ = process(t, nil, "", "env")
	require.Equal(t, 0, status)
	require.Contains(t, stdout, in.Version+", found by "+in.Source)
}

func TestSetupUsage(t *testing.T) {
	for args, want := range map[string]string{
		"setup --device tpu": "torchgo: setup: --device \"tpu\": want cpu or cuda (see `torchgo setup --help`)\n",
		"setup extra":        "torchgo: setup: unknown command \"extra\" for \"torchgo setup\" (see `torchgo setup --help`)\n",
		"setup --no-such":    "torchgo: setup: unknown flag: --no-such (see `torchgo setup --help`)\n",
		"no-such":            "torchgo: unknown command \"no-such\" for \"torchgo\" (see `torchgo --help`)\n",
	} {
		status, stdout, stderr := process(t, nil, "", strings.Fields(args)...)
		require.Equal(t, 2, status, args)
		require.Empty(t, stdout)
		require.Equal(t, want, stderr)
	}
	status, stdout, stderr := process(t, []string{"TORCHGO_CACHE=" + t.TempDir()}, "", "setup", "--version", "2.10.0")
	require.Equal(t, 1, status)
	require.Empty(t, stdout)
	require.Equal(t, "torchgo: setup: libtorch 2.10.0 is not supported: there are 2.11.0, 2.12.1, 2.13.0, 2.14.1, 2.15.0\n", stderr)
}
