package main

import (
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/torchgo/torchgo/torch"
	"github.com/wangkuiyi/gotorch/tool/tgz"
)

func TestClassifier(t *testing.T) {
	runtime.LockOSThread()
	before := torch.LiveTensors()
	var out strings.Builder
	require.NoError(t, run(t.Context(), &out, config{dir: t.TempDir(), shards: 2, images: 200, epochs: 4, batch: 25, width: 8, seed: 1}))
	require.Contains(t, out.String(), "400 training and 200 test images of 32×32")
	correct := regexp.MustCompile(`([0-9.]+) %`).FindAllStringSubmatch(out.String(), -1)
	require.Len(t, correct, 5, out.String())
	require.Equal(t, correct[3][1], correct[4][1], "the loaded model is not the saved one")
	percent, err := strconv.ParseFloat(correct[3][1], 64)
	require.NoError(t, err)
	require.Greater(t, percent, 40.0, out.String()) // 25 is chance
	require.Equal(t, before, torch.LiveTensors())
}

func TestShards(t *testing.T) {
	dir := t.TempDir()
	random := rand.New(rand.NewPCG(1, 2))
	for _, name := range []string{"a-0.tar.gz", "a-1.tar.gz"} {
		require.NoError(t, writeShard(filepath.Join(dir, name), 6, random))
	}
	entries, err := tgz.ListFile(filepath.Join(dir, "a-0.tar.gz"))
	require.NoError(t, err)
	require.Len(t, entries, 6)
	require.Equal(t, "triangle/000003.png", entries[3].Name)

	set, err := readShards(t.Context(), filepath.Join(dir, "a-*.tar.gz"))
	require.NoError(t, err)
	defer torch.CloseAll(set)
	require.Equal(t, []int{12, 3, side, side}, set.X.Shape())
	require.Equal(t, []int64{0, 1, 2, 3, 0, 1, 0, 1, 2, 3, 0, 1}, torch.ToSlice[int64](set.Y))

	_, err = readShards(t.Context(), filepath.Join(dir, "none-*"))
	require.ErrorContains(t, err, "no shards")
	shard, err := os.ReadFile(filepath.Join(dir, "a-0.tar.gz"))
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(filepath.Join(dir, "short"), shard[:len(shard)/2], 0o644))
	_, err = readShards(t.Context(), filepath.Join(dir, "short"))
	require.ErrorContains(t, err, "unexpected EOF")
}
