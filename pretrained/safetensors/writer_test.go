package safetensors

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/torchgo/torchgo/internal/testdata"
)

// sources are the tensors of a file, to be written again, in reverse order.
func sources(t *testing.T, f *File) []Source {
	var list []Source
	for _, info := range f.Tensors() {
		list = append([]Source{{info.Name, info.DType, info.Shape, func(w io.Writer) error {
			buf := make([]byte, info.Bytes)
			if err := f.ReadTensor(info.Name, buf); err != nil {
				return err
			}
			half := len(buf) / 2
			if _, err := w.Write(buf[:half]); err != nil {
				return err
			}
			_, err := w.Write(buf[half:])
			return err
		}}}, list...)
	}
	return list
}

// snapshot is the names and contents of a folder.
func snapshot(t *testing.T, dir string) map[string]string {
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	files := map[string]string{}
	for _, e := range entries {
		data, err := os.ReadFile(filepath.Join(dir, e.Name()))
		require.NoError(t, err)
		files[e.Name()] = string(data)
	}
	return files
}

func zeros(name string, n int) Source { return Source{name, U8, []int{n}, Data(make([]byte, n))} }

// The bytes are those of the Python package.
func TestWritesReferenceBytes(t *testing.T) {
	dir := testdata.Open(t, "safetensors")
	for _, name := range []string{"all.safetensors", "empty.safetensors", "sharded-1GB/model.safetensors"} {
		f := open(t, filepath.Join(dir, name))
		path := filepath.Join(t.TempDir(), "x.safetensors")
		require.NoError(t, WriteFile(t.Context(), path, sources(t, f), f.Metadata()))
		want, err := os.ReadFile(f.Path())
		require.NoError(t, err)
		got, err := os.ReadFile(path)
		require.NoError(t, err)
		require.True(t, bytes.Equal(want, got), "%s: other bytes than the reference: %.300q", name, got)
	}
}

func TestWriteFileRefuses(t *testing.T) {
	boom := errors.New("boom")
	for name, c := range map[string]struct {
		tensors []Source
		meta    map[string]string
		want    error
	}{
		"duplicate":        {[]Source{zeros("a", 1), zeros("a", 1)}, nil, ErrDuplicate},
		"reserved name":    {[]Source{zeros("__metadata__", 1)}, nil, ErrBadHeader},
		"name not UTF-8":   {[]Source{zeros("\xff", 1)}, nil, ErrBadHeader},
		"metadata":         {nil, map[string]string{"k": "\xff"}, ErrBadHeader},
		"no dtype":         {[]Source{{Name: "a", Shape: []int{1}, Write: Data([]byte{0})}}, nil, ErrBadDType},
		"negative":         {[]Source{{"a", U8, []int{-1, -1}, Data([]byte{0})}}, nil, ErrBadShape},
		"overflow":         {[]Source{{"a", F64, []int{1 << 31, 1 << 31}, Data(nil)}}, nil, ErrBadShape},
		"sum overflows":    {[]Source{zeros("x", 1), {"a", U8, []int{1<<63 - 1}, Data(nil)}, {"b", U8, []int{1<<63 - 1}, Data(nil)}}, nil, ErrBadShape},
		"half a byte":      {[]Source{{"a", F4, []int{3}, Data([]byte{0, 0})}}, nil, ErrSizeMismatch},
		"65 dimensions":    {[]Source{{"a", U8, make([]int, 65), Data(nil)}}, nil, ErrBadShape},
		"too few bytes":    {[]Source{{"a", U8, []int{4}, Data(make([]byte, 3))}}, nil, ErrSizeMismatch},
		"too many bytes":   {[]Source{{"a", U8, []int{4}, Data(make([]byte, 5))}}, nil, ErrSizeMismatch},
		"bool 2":           {[]Source{{"a", BOOL, []int{2}, Data([]byte{0, 2})}}, nil, ErrBadValue},
		"source fails":     {[]Source{zeros("z", 9), {"a", U8, []int{4}, func(io.Writer) error { return boom }}}, nil, boom},
		"error swallowed":  {[]Source{{"a", U8, []int{4}, func(w io.Writer) error { _, _ = w.Write(make([]byte, 9)); return nil }}}, nil, ErrSizeMismatch},
		"source of nobody": {[]Source{{"a", U8, []int{4}, func(io.Writer) error { return nil }}}, nil, ErrSizeMismatch},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			path := filepath.Join(dir, "x.safetensors")
			require.NoError(t, WriteFile(t.Context(), path, []Source{zeros("old", 3)}, nil))
			before := snapshot(t, dir)
			err := WriteFile(t.Context(), path, c.tensors, c.meta)
			require.ErrorIs(t, err, c.want)
			require.ErrorContains(t, err, path)
			if c.tensors != nil && c.want != boom {
				require.ErrorContains(t, err, "tensor")
			}
			require.Equal(t, before, snapshot(t, dir))
		})
	}
	t.Run("canceled", func(t *testing.T) {
		dir := t.TempDir()
		ctx, cancel := context.WithCancel(t.Context())
		err := WriteFile(ctx, filepath.Join(dir, "x.safetensors"), []Source{{"a", U8, []int{4}, func(w io.Writer) error {
			_, err := w.Write(make([]byte, 2))
			cancel()
			if err == nil {
				_, err = w.Write(make([]byte, 2))
			}
			return err
		}}}, nil)
		require.ErrorIs(t, err, context.Canceled)
		require.Empty(t, snapshot(t, dir))
	})
	t.Run("no folder", func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "no", "x.safetensors")
		err := WriteFile(t.Context(), path, nil, nil)
		require.ErrorIs(t, err, os.ErrNotExist)
		require.ErrorContains(t, err, path)
	})
}

// Saving a model over the file that its weights are mapped from: both the new file and the mapping are right.
func TestWriteOverMappedFile(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "model.safetensors")
	old := bytes.Repeat([]byte{7}, 100_000)
	require.NoError(t, WriteFile(t.Context(), path, []Source{{"w", U8, []int{len(old)}, Data(old)}}, nil))
	f := open(t, path)
	m, err := f.Map()
	require.NoError(t, err)
	view, err := m.Tensor("w")
	require.NoError(t, err)
	view[0] = 8 // trained a little, in memory
	require.NoError(t, WriteFile(t.Context(), path, []Source{
		{"w", U8, []int{len(old)}, Data(view)}, {"more", U8, []int{len(old)}, Data(view)},
	}, nil))
	require.Equal(t, append([]byte{8}, old[1:]...), view)
	f2 := open(t, path)
	for _, name := range []string{"w", "more"} {
		got := make([]byte, len(old))
		require.NoError(t, f2.ReadTensor(name, got))
		require.Equal(t, append([]byte{8}, old[1:]...), got)
	}
	got := make([]byte, len(old))
	require.NoError(t, f.ReadTensor("w", got), "the old file lives on while it is open")
	require.Equal(t, old, got)
	require.NoError(t, m.Release())
}

// bertSources are the tensors of the reference checkpoint in the order of the state dict.
func bertSources(t *testing.T, dir string) ([]Source, int64) {
	var order struct {
		Tensors    [][3]any
		Parameters int64 `json:"num_parameters"`
	}
	readJSON(t, filepath.Join(dir, "order.json"), &order)
	f := open(t, filepath.Join(dir, "sharded-1GB", "model.safetensors"))
	byName := map[string]Source{}
	for _, s := range sources(t, f) {
		byName[s.Name] = s
	}
	var list []Source
	for _, o := range order.Tensors {
		s, ok := byName[o[0].(string)]
		require.True(t, ok)
		list = append(list, s)
	}
	require.Len(t, list, len(byName))
	return list, order.Parameters
}

func TestShardsAreTransformers(t *testing.T) {
	ref := testdata.Open(t, "safetensors")
	tensors, parameters := bertSources(t, ref)
	for _, size := range []string{"1GB", "10KB", "4KB"} {
		limit, err := ParseSize(size)
		require.NoError(t, err)
		dir := t.TempDir()
		names, err := WriteSharded(t.Context(), dir, tensors, ShardOptions{
			MaxShardBytes: limit, Metadata: map[string]string{"format": "pt"}, TotalParameters: parameters,
		})
		require.NoError(t, err)
		want, got := snapshot(t, filepath.Join(ref, "sharded-"+size)), snapshot(t, dir)
		require.Len(t, names, len(want))
		require.Len(t, got, len(want))
		for name, data := range want {
			require.Equal(t, data, got[name], "%s %s", size, name)
		}
		require.Len(t, digests(t, dir), len(tensors))
	}
}

func TestWriteShardedReplacesOldCheckpoint(t *testing.T) {
	ref := testdata.Open(t, "safetensors")
	tensors, _ := bertSources(t, ref)
	dir := t.TempDir()
	other := []string{"config.json", "model-00001-of-00002.bin", "model-1-of-2.safetensors", "model.fp16-00001-of-00002.safetensors", "mymodel-00001-of-00002.safetensors", "model_x.safetensors"}
	for _, name := range other {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte("x"), 0o644))
	}
	for _, limit := range []int64{10_000, 4_000, 4_000, 1 << 40, 10_000, 1 << 40} {
		names, err := WriteSharded(t.Context(), dir, tensors, ShardOptions{MaxShardBytes: limit})
		require.NoError(t, err)
		var have []string
		for name := range snapshot(t, dir) {
			have = append(have, name)
		}
		require.ElementsMatch(t, append(append([]string{}, other...), names...), have)
		require.Len(t, digests(t, dir), len(tensors))
	}
	names, err := WriteSharded(t.Context(), dir, tensors, ShardOptions{Variant: "fp16"})
	require.NoError(t, err)
	require.Equal(t, []string{"model.fp16.safetensors"}, names)
	require.NotContains(t, snapshot(t, dir), "model.fp16-00001-of-00002.safetensors")
	require.Contains(t, snapshot(t, dir), "model.safetensors")
}

// A tensor that can't be read, in any shard, leaves the old checkpoint of the same names byte for byte.
func TestWriteShardedErrorLeavesOldCheckpoint(t *testing.T) {
	ref := testdata.Open(t, "safetensors")
	tensors, _ := bertSources(t, ref)
	dir := t.TempDir()
	_, err := WriteSharded(t.Context(), dir, tensors, ShardOptions{MaxShardBytes: 10_000})
	require.NoError(t, err)
	before := snapshot(t, dir)
	boom := errors.New("boom")
	for i := range tensors {
		broken := append([]Source{}, tensors...)
		broken[i].Write = func(io.Writer) error { return boom }
		_, err := WriteSharded(t.Context(), dir, broken, ShardOptions{MaxShardBytes: 10_000})
		require.ErrorIs(t, err, boom)
		require.Equal(t, before, snapshot(t, dir))
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = WriteSharded(ctx, dir, tensors, ShardOptions{MaxShardBytes: 10_000})
	require.ErrorIs(t, err, context.Canceled)
	_, err = WriteSharded(t.Context(), dir, append(tensors, tensors[0]), ShardOptions{MaxShardBytes: 10_000})
	require.ErrorIs(t, err, ErrDuplicate)
	_, err = WriteSharded(t.Context(), dir, tensors, ShardOptions{Variant: "../x"})
	require.ErrorIs(t, err, ErrPath)
	require.Equal(t, before, snapshot(t, dir))
}

// The source of each shard is read while the shards of the same names are open and mapped.
func TestWriteShardedOverItself(t *testing.T) {
	ref := testdata.Open(t, "safetensors")
	tensors, _ := bertSources(t, ref)
	dir := t.TempDir()
	_, err := WriteSharded(t.Context(), dir, tensors, ShardOptions{MaxShardBytes: 10_000})
	require.NoError(t, err)
	want := digests(t, dir)
	var own []Source
	for _, f := range openAll(t, filepath.Join(dir, "model.safetensors.index.json")) {
		m, err := f.Map()
		require.NoError(t, err)
		defer m.Release()
		for _, info := range f.Tensors() {
			view, err := m.Tensor(info.Name)
			require.NoError(t, err)
			own = append(own, Source{info.Name, info.DType, info.Shape, Data(view)})
		}
	}
	_, err = WriteSharded(t.Context(), dir, own, ShardOptions{MaxShardBytes: 5_000})
	require.NoError(t, err)
	require.Equal(t, want, digests(t, dir))
}

// The expected values and messages are those of max_shard_size in Python; messages count for unknown units.
func TestParseSize(t *testing.T) {
	var want map[string]any
	readJSON(t, filepath.Join(testdata.Open(t, "safetensors"), "sizes.json"), &want)
	require.Len(t, want, 14)
	for text, w := range want {
		got, err := ParseSize(text)
		switch w := w.(type) {
		case float64:
			if w < 0 { // torchgo refuses what makes no sense
				require.Error(t, err, text)
				continue
			}
			require.NoError(t, err, text)
			require.Equal(t, int64(w), got, text)
		case string:
			require.Error(t, err, text)
			if strings.HasPrefix(w, "Unit") {
				require.EqualError(t, err, w)
			}
		}
	}
	for _, text := range []string{"infGB", "nanGB", "1e30TB"} {
		_, err := ParseSize(text)
		require.Error(t, err, text)
	}
}
