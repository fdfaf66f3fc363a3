package checkpoint

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/torchgo/torchgo/internal/fileerr"
	"github.com/torchgo/torchgo/internal/testdata"
)

// digests are what the tensors of a checkpoint are, as Convert sees them.
func digests(t *testing.T, path string) (list []string) {
	c, err := Open(path, OpenOptions{StateDict: true})
	require.NoError(t, err)
	defer c.Close()
	for f, info := range c.All() {
		sum, err := digestOf(t.Context(), info.Bytes, func(dst []byte, off int) error { return f.ReadPart(info.Name, dst, off) })
		require.NoError(t, err)
		list = append(list, fmt.Sprint(info.Name, info.DType, info.Shape, sum))
	}
	slices.Sort(list)
	return list
}

// All valid files of the corpus, and of Python's safetensors, keep their tensors through both formats, there and back.
func TestConvertKeepsTensors(t *testing.T) {
	var sources []string
	for _, format := range []string{"safetensors", "gguf", "torch_zip", "torch_legacy", "torch_tar"} {
		for _, c := range testdata.Hostile(t, format) {
			if c.Expected == "ok" && c.Alt == "" {
				sources = append(sources, c.Path)
			}
		}
	}
	sources = append(sources, filepath.Join(testdata.Open(t, "safetensors"), "all.safetensors"), filepath.Join(testdata.Open(t, "loader"), "bin-sharded"),
		filepath.Join(testdata.Open(t, "dcp"), "grid"))
	done := 0
	for _, src := range sources {
		if c, err := Open(src, OpenOptions{StateDict: true}); err != nil {
			require.ErrorIs(t, err, fileerr.ErrBadPickle, src) // an optimizer's state and the like: no weights
			continue
		} else {
			require.NoError(t, c.Close())
		}
		want := digests(t, src)
		dir := t.TempDir()
		for i, to := range []Format{Safetensors, Pickle, Pickle, Safetensors} {
			dst := filepath.Join(dir, fmt.Sprintf("%d.%s", i, map[Format]string{Safetensors: "safetensors", Pickle: "bin"}[to]))
			err := Convert(t.Context(), src, dst, to)
			if to == Pickle && err != nil { // F6, odd numbers of F4
				require.ErrorIs(t, err, fileerr.ErrUnsupported, src)
				require.ErrorContains(t, err, "PyTorch has no dtype")
				break
			}
			if to == Safetensors && err != nil {
				require.ErrorIs(t, err, fileerr.ErrBadDType, src)
				require.True(t, slices.ContainsFunc(want, func(s string) bool { return strings.Contains(s, "C128") || strings.Contains(s, "C32") }), "%s: %v", src, err)
				continue
			}
			require.NoError(t, err, src)
			require.Equal(t, want, digests(t, dst), "%s as %s", src, to)
			src = dst
			done++
		}
	}
	require.Greater(t, done, 200)
	require.ErrorIs(t, Convert(t.Context(), sources[0], filepath.Join(t.TempDir(), "x.gguf"), GGUF), fileerr.ErrUnsupported)
}

// A conversion onto itself leaves a whole file, one that fails the old one.
func TestConvertInPlace(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x.safetensors")
	data, err := os.ReadFile(filepath.Join(testdata.Open(t, "safetensors"), "all.safetensors"))
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(path, data, 0o644))
	want := digests(t, path)
	require.NoError(t, Convert(t.Context(), path, path, Safetensors))
	require.Equal(t, want, digests(t, path))
	require.NoError(t, os.WriteFile(path, data[:len(data)-1], 0o644))
	require.Error(t, Convert(t.Context(), path, path, Safetensors))
	left, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, data[:len(data)-1], left)
}
