package main

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestMain makes the test binary the command itself when process (below) starts it.
func TestMain(m *testing.M) {
	if os.Getenv("TORCHGO_TEST_MAIN") != "" {
		main()
	}
	_ = os.Setenv("HF_ENDPOINT", "http://127.0.0.1:1") // no test reaches a real hub
	os.Exit(m.Run())
}

// process runs a command line in a process of its own, with env added to the environment.
func process(t *testing.T, env []string, stdin string, args ...string) (status int, stdout, stderr string) {
	t.Helper()
	exe, err := os.Executable()
	require.NoError(t, err)
	cmd := exec.CommandContext(t.Context(), exe, args...)
	cmd.Env = append(append(os.Environ(), "TORCHGO_TEST_MAIN=1"), env...)
	cmd.Stdin = bytes.NewReader([]byte(stdin))
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err = cmd.Run()
	var exit *exec.ExitError
	if !errors.As(err, &exit) {
		require.NoError(t, err)
	}
	return cmd.ProcessState.ExitCode(), out.String(), errs.String()
}
