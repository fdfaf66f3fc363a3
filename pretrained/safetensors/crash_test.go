package safetensors

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// Processes of their own that save over a checkpoint and are stopped.

const writeEnv = "TORCHGO_TEST_WRITE"

// writeChild saves a checkpoint of 4 shards into dir and, as the environment says, waits in the third or
// may not write files of more than 50,000 bytes.
func writeChild(dir string) {
	tensors := crashTensors(2)
	switch os.Getenv(writeEnv + "_HOW") {
	case "wait":
		tensors[2].Write = func(w io.Writer) error {
			if _, err := w.Write(make([]byte, 50_000)); err != nil {
				return err
			}
			fmt.Println("ready")
			time.Sleep(time.Minute)
			return errors.New("nobody killed this process")
		}
	case "limit":
		if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &syscall.Rlimit{Cur: 50_000, Max: 50_000}); err != nil {
			panic(err)
		}
	}
	if _, err := WriteSharded(context.Background(), dir, tensors, ShardOptions{MaxShardBytes: 100_000}); err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
}

func crashTensors(value byte) []Source {
	var tensors []Source
	for i := range 4 {
		tensors = append(tensors, Source{fmt.Sprint("t", i), U8, []int{100_000}, Data(bytes.Repeat([]byte{value}, 100_000))})
	}
	return tensors
}

func TestKilledWhileSaving(t *testing.T) {
	dir := t.TempDir()
	_, err := WriteSharded(t.Context(), dir, crashTensors(1), ShardOptions{MaxShardBytes: 100_000})
	require.NoError(t, err)
	before := snapshot(t, dir)
	require.Len(t, before, 5)

	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), writeEnv+"="+dir, writeEnv+"_HOW=wait")
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	line := make([]byte, 6)
	_, err = io.ReadFull(out, line)
	require.NoError(t, err)
	require.Equal(t, "ready\n", string(line))
	require.NoError(t, cmd.Process.Kill())
	require.Error(t, cmd.Wait())

	left := 0
	for name, data := range snapshot(t, dir) {
		if strings.HasPrefix(name, ".") {
			left++ // what a killed process can't remove; no loader looks at it
			continue
		}
		require.Equal(t, before[name], data, name)
	}
	require.Equal(t, 3, left)
	require.NotEmpty(t, digests(t, dir))
}

func TestFileSizeLimitWhileSaving(t *testing.T) {
	dir := t.TempDir()
	_, err := WriteSharded(t.Context(), dir, crashTensors(1), ShardOptions{MaxShardBytes: 100_000})
	require.NoError(t, err)
	before := snapshot(t, dir)
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), writeEnv+"="+dir, writeEnv+"_HOW=limit")
	out, err := cmd.CombinedOutput()
	require.Error(t, err)
	require.Equal(t, filepath.Join(dir, "model-00001-of-00004.safetensors")+": write: file too large\n", string(out))
	require.Equal(t, before, snapshot(t, dir))
}
