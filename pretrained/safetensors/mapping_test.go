package safetensors

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"github.com/stretchr/testify/require"
)

// Forget gives back the pages that a tensor has for itself: what was written there is the file's again, what was
// written to its neighbours stays.
func TestForget(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("elsewhere it is advice that the system need not take")
	}
	page := os.Getpagesize()
	path := filepath.Join(t.TempDir(), "x.safetensors")
	size := 4*page + 100
	var sources []Source
	for _, name := range []string{"a", "b", "c"} {
		data := bytes.Repeat([]byte(name), size)
		sources = append(sources, Source{Name: name, DType: U8, Shape: []int{size}, Write: Data(data)})
	}
	require.NoError(t, WriteFile(context.Background(), path, sources, nil))
	f := open(t, path)
	m, err := f.Map()
	require.NoError(t, err)
	tensor := func(name string) []byte {
		data, err := m.Tensor(name)
		require.NoError(t, err)
		return data
	}
	for _, name := range []string{"a", "b", "c"} {
		copy(tensor(name), bytes.Repeat([]byte("x"), size))
	}
	m.Forget("b")
	m.Forget("nothing")
	require.Equal(t, size, bytes.Count(tensor("a"), []byte("x")))
	require.Equal(t, size, bytes.Count(tensor("c"), []byte("x")))
	require.GreaterOrEqual(t, bytes.Count(tensor("b"), []byte("b")), 3*page)
	require.NoError(t, m.Release())
	m.Forget("b")
}
