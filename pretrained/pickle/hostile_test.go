package pickle

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

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

func TestMain(m *testing.M) {
	testdata.ServeLimited(func(_, path string) (map[string]testdata.HostileTensor, error) { return digests(path, Options{}) })
	os.Exit(m.Run())
}

// digests reads all tensors of a file.
func digests(path string, o Options) (map[string]testdata.HostileTensor, error) {
	f, err := OpenWith(path, o)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	out := map[string]testdata.HostileTensor{}
	for _, t := range f.Tensors() {
		data := make([]byte, t.Bytes)
		if err := f.ReadTensor(t.Name, data); err != nil {
			return nil, err
		}
		sum := sha256.Sum256(data)
		out[t.Name] = testdata.HostileTensor{DType: t.DType.String(), Shape: append([]int{}, t.Shape...), SHA256: hex.EncodeToString(sum[:16])}
	}
	return out, nil
}

// TestHostileCorpus gives each case to a process of its own with 512 MB of address space and 2 s of CPU.
func TestHostileCorpus(t *testing.T) {
	for _, c := range hostileCases(t) {
		t.Run(c.ID, func(t *testing.T) { c.Check(t, testdata.RunLimited(t, "", c.Path, 2)) })
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
