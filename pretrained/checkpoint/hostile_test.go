package checkpoint

import (
	"context"
	"maps"
	"os"
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

func TestMain(m *testing.M) {
	testdata.ServeLimited(func(_, path string) (map[string]testdata.HostileTensor, error) {
		l, err := List(context.Background(), path, true)
		if err != nil {
			return nil, err
		}
		tensors := map[string]testdata.HostileTensor{}
		for _, x := range l.Tensors {
			tensors[x.Name] = testdata.HostileTensor{DType: x.DType, Shape: x.Shape, SHA256: x.SHA256[:32]}
		}
		return tensors, nil
	})
	os.Exit(m.Run())
}

// TestHostileCorpus gives each case to a process of its own with 512 MB of address space and 2 s of CPU.
func TestHostileCorpus(t *testing.T) {
	total, right := map[string]int{}, map[string]int{}
	for _, c := range hostileCases(t) {
		total[c.Format+" "+c.Strictness]++
		if t.Run(c.ID, func(t *testing.T) { c.Check(t, testdata.RunLimited(t, "", c.Path, 2)) }) {
			right[c.Format+" "+c.Strictness]++
		}
	}
	for _, kind := range slices.Sorted(maps.Keys(total)) {
		t.Logf("%s: %d of %d", kind, right[kind], total[kind])
	}
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
