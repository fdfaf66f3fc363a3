package checkpoint

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/torchgo/torchgo/internal/fileerr"
	"github.com/torchgo/torchgo/internal/testdata"
	"github.com/torchgo/torchgo/pretrained/safetensors"
)

// What PyTorch's ranks wrote of a model is that model, in all three ways to divide it, and any part of a tensor can be
// read alone.
func TestDistributedCheckpoints(t *testing.T) {
	want, err := List(t.Context(), filepath.Join(testdata.Open(t, "loader"), "single"), true)
	require.NoError(t, err)
	for _, name := range []string{"rows", "grid", "columns"} {
		c, err := Open(filepath.Join(testdata.Open(t, "dcp"), name))
		require.NoError(t, err)
		got, err := c.List(t.Context(), true)
		require.NoError(t, err)
		require.Nil(t, got.Metadata)
		sort := func(l *Listing) (sorted []string) {
			for _, x := range l.Tensors {
				sorted = append(sorted, fmt.Sprint(x.Name, x.DType, x.Shape, x.Bytes, x.SHA256))
			}
			slices.Sort(sorted)
			return sorted
		}
		require.Equal(t, sort(want), sort(got), name)
		require.Equal(t, len(want.Tensors), c.Len())
		random := rand.New(rand.NewPCG(1, 2))
		for f, info := range c.All() {
			all := make([]byte, info.Bytes)
			require.NoError(t, f.ReadTensor(info.Name, all))
			for range 20 {
				from := random.IntN(info.Bytes)
				part := make([]byte, random.IntN(info.Bytes-from)+1)
				require.NoError(t, f.ReadPart(info.Name, part, from))
				require.Equal(t, all[from:from+len(part)], part, "%s from %d", info.Name, from)
			}
		}
		require.NoError(t, c.Close())
	}
}

// Rectangles of three dimensions, with rows that are longer than what is read at once and such that are short.
func TestPiecesOfManyShapes(t *testing.T) {
	for _, shape := range [][]int{{7}, {3, 5}, {4, 3, 6}, {2, 3, 100_000}, {3000, 70}, {2, 2, 2, 3}} {
		dir := t.TempDir()
		n := 1
		for _, d := range shape {
			n *= d
		}
		data := make([]byte, n)
		for i := range data {
			data[i] = byte(i*7 + i>>8)
		}
		cuts := make([][]int, len(shape)) // of each dimension
		for d, size := range shape {
			cuts[d] = []int{0, (size + 1) / 3, (size + 1) / 2, size}
		}
		rank := 0
		var divide func(offset, size []int)
		divide = func(offset, size []int) {
			if d := len(offset); d < len(shape) {
				for i := range 3 {
					divide(append(slices.Clip(offset), cuts[d][i]), append(slices.Clip(size), cuts[d][i+1]-cuts[d][i]))
				}
				return
			}
			var part []byte
			for i, b := range data {
				in, rest := true, i
				for d := len(shape) - 1; d >= 0; d-- {
					x := rest%shape[d] - offset[d]
					in, rest = in && x >= 0 && x < size[d], rest/shape[d]
				}
				if in {
					part = append(part, b)
				}
			}
			rank++
			shard(t, dir, rank, safetensors.Source{Name: "t", DType: safetensors.U8, Shape: size, Write: safetensors.Data(part)}, strings.ReplaceAll(fmt.Sprint(offset), " ", ","))
		}
		if n < 1000 || len(shape) == 2 {
			divide(nil, nil)
		} else { // rows that are long
			half := n / 2
			shard(t, dir, 1, safetensors.Source{Name: "t", DType: safetensors.U8, Shape: append([]int{1}, shape[1:]...), Write: safetensors.Data(data[:half])}, "[0,0,0]")
			shard(t, dir, 2, safetensors.Source{Name: "t", DType: safetensors.U8, Shape: append([]int{1}, shape[1:]...), Write: safetensors.Data(data[half:])}, "[1,0,0]")
		}
		c, err := Open(dir)
		require.NoError(t, err)
		f, info, ok := c.Tensor("t")
		require.True(t, ok)
		require.Equal(t, shape, info.Shape)
		got := make([]byte, n)
		require.NoError(t, f.ReadTensor("t", got))
		require.True(t, bytes.Equal(data, got), "%v", shape)
		require.NoError(t, f.ReadPart("t", got[:n/2], n/3))
		require.True(t, bytes.Equal(data[n/3:n/3+n/2], got[:n/2]), "%v", shape)
		require.NoError(t, c.Close())
	}
}

// shard writes a rank's file.
func shard(t *testing.T, dir string, rank int, s safetensors.Source, offsets string) {
	path := filepath.Join(dir, fmt.Sprintf("shard-%05d-model-00001-of-00001.safetensors", rank))
	require.NoError(t, safetensors.WriteFile(t.Context(), path, []safetensors.Source{s}, map[string]string{
		"DCP_VERSION": "1.0", "DCP_SHARDING_INFO": fmt.Sprintf(`{"t": {"saved_offsets": %s}}`, offsets)}))
}

func TestDistributedCheckpointsThatAreWrong(t *testing.T) {
	source := func(dtype safetensors.DType, bytes int, shape ...int) safetensors.Source {
		return safetensors.Source{Name: "t", DType: dtype, Shape: shape, Write: safetensors.Data(make([]byte, bytes))}
	}
	row := source(safetensors.U8, 4, 1, 4)
	for name, c := range map[string]struct {
		second  safetensors.Source
		offsets string
		class   error
	}{
		"right":             {row, "[1,0]", nil},
		"hole":              {row, "[2,0]", fileerr.ErrMissingShard},
		"twice":             {row, "[0,0]", fileerr.ErrConflict},
		"overlap":           {row, "[0,3]", fileerr.ErrConflict},
		"dtype":             {source(safetensors.F32, 16, 1, 4), "[1,0]", fileerr.ErrConflict},
		"dimensions":        {source(safetensors.U8, 4, 4), "[4]", fileerr.ErrConflict},
		"offsets too short": {row, "[1]", fileerr.ErrBadShape},
		"negative":          {row, "[-1,0]", fileerr.ErrBadHeader},
		"fraction":          {row, "[1.5,0]", fileerr.ErrBadHeader},
		"text":              {row, `"x"`, fileerr.ErrBadHeader},
		"no JSON":           {row, "[1,0", fileerr.ErrBadHeader},
		"huge":              {row, "[4611686018427387904,0]", fileerr.ErrBadShape},
		"overflow":          {row, "[4611686018427387900,0]", fileerr.ErrBadShape},
		"over all numbers":  {row, "[99999999999999999999,0]", fileerr.ErrLimit},
	} {
		dir := t.TempDir()
		shard(t, dir, 1, row, "[0,0]")
		shard(t, dir, 2, c.second, c.offsets)
		cp, err := Open(dir)
		if c.class == nil {
			require.NoError(t, err)
			require.NoError(t, cp.Close())
			continue
		}
		require.ErrorIs(t, err, c.class, "%s: %v", name, err)
		require.ErrorContains(t, err, filepath.Base(dir), name)
		if name != "no JSON" {
			require.ErrorContains(t, err, `"t"`, name)
		}
	}
	// A rank's file is not there.
	dir := t.TempDir()
	require.NoError(t, os.CopyFS(dir, os.DirFS(filepath.Join(testdata.Open(t, "dcp"), "rows"))))
	require.NoError(t, os.Remove(filepath.Join(dir, "shard-00002-model-00001-of-00001.safetensors")))
	_, err := Open(dir)
	require.ErrorIs(t, err, fileerr.ErrMissingShard)
}
