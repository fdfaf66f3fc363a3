package safetensors

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/torchgo/torchgo/internal/testdata"
)

func touch(t *testing.T, path string) {
	require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o755))
	require.NoError(t, os.WriteFile(path, nil, 0o644))
}

func TestFind(t *testing.T) {
	dir := t.TempDir()
	_, err := Find(dir, Layout{})
	require.ErrorIs(t, err, ErrMissingShard)
	require.ErrorIs(t, err, fs.ErrNotExist)
	require.ErrorContains(t, err, dir)
	touch(t, filepath.Join(dir, "pytorch_model.bin"))
	_, err = Find(dir, Layout{})
	require.ErrorContains(t, err, "convert pytorch_model.bin to safetensors")

	find := func(l Layout) string {
		path, err := Find(dir, l)
		require.NoError(t, err)
		rel, err := filepath.Rel(dir, path)
		require.NoError(t, err)
		return filepath.ToSlash(rel)
	}
	touch(t, filepath.Join(dir, "model.safetensors.index.json"))
	require.Equal(t, "model.safetensors.index.json", find(Layout{}))
	touch(t, filepath.Join(dir, "model.safetensors"))
	require.Equal(t, "model.safetensors", find(Layout{}))
	_, err = Find(dir, Layout{Variant: "fp16"})
	require.ErrorIs(t, err, ErrMissingShard)
	touch(t, filepath.Join(dir, "model.safetensors.index.fp16.json"))
	require.Equal(t, "model.safetensors.index.fp16.json", find(Layout{Variant: "fp16"}))
	touch(t, filepath.Join(dir, "model.fp16.safetensors"))
	require.Equal(t, "model.fp16.safetensors", find(Layout{Variant: "fp16"}))
	touch(t, filepath.Join(dir, "a", "b", "model.safetensors"))
	require.Equal(t, "a/b/model.safetensors", find(Layout{Subfolder: "a/b"}))

	for _, l := range []Layout{{Subfolder: ".."}, {Subfolder: "/etc"}, {Subfolder: "a/../../b"}, {Variant: "../x"}, {Variant: "a/b"}, {Variant: `a\b`}, {Variant: "a\x00b"}} {
		_, err := Find(dir, l)
		require.ErrorIs(t, err, ErrPath, "%+v", l)
	}
	_, err = Find(dir, Layout{Subfolder: "no"})
	require.ErrorIs(t, err, fs.ErrNotExist)
	_, err = Find(dir, Layout{Subfolder: "model.safetensors"})
	require.ErrorContains(t, err, "expected a folder")
	_, err = OpenCheckpoint(filepath.Join(dir, "no"))
	require.ErrorIs(t, err, fs.ErrNotExist)
	// What is there but can't be read is not passed over.
	require.NoError(t, os.Remove(filepath.Join(dir, "model.safetensors")))
	require.NoError(t, os.Symlink("nowhere", filepath.Join(dir, "model.safetensors")))
	_, err = OpenCheckpoint(dir)
	require.ErrorIs(t, err, ErrMissingShard)
	require.ErrorContains(t, err, "symbolic link to nowhere")
}

func TestFileNames(t *testing.T) {
	for _, name := range []string{"model-00001-of-00002.safetensors", "sub/dir/x.safetensors", "..a", "a..b", "...a", "ünï", "con_x", "COMA", "a b"} {
		require.NoError(t, checkFileName(name), name)
	}
	for _, name := range []string{
		"", ".", "..", "a/..", "../a", "a/../b", "a/./b", "./a", "a//b", "a/", "/a", "//a/b", `\a`, `a\b`, `..\a`, `\\host\share`, "C:", "C:a", "C:/a",
		"a:stream", "file:///etc/passwd", "http://x/y", "a\x00b", "a\nb", "a\x7f", "\x1b[2J", "a.", "a ", "a. /b", "CON", "con.safetensors", "nul", "x/AUX.txt", "com1",
		"LPT9.safetensors", "COM¹", "conin$", "PRN .x", strings.Repeat("a", 1025), "a\u0085b", "a\xffb",
	} {
		require.ErrorIs(t, checkFileName(name), ErrPath, "%q", name)
	}
}

func write(t *testing.T, path string, names ...string) {
	var tensors []Source
	for _, name := range names {
		tensors = append(tensors, zeros(name, 4))
	}
	require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o755))
	require.NoError(t, WriteFile(t.Context(), path, tensors, nil))
}

func TestIndexAgainstShards(t *testing.T) {
	const index = "model.safetensors.index.json"
	for name, c := range map[string]struct {
		weights string
		shards  map[string][]string
		want    error
		names   []string // in the message
	}{
		"right":            {`{"a":"1.safetensors","b":"s/2.safetensors"}`, map[string][]string{"1.safetensors": {"a"}, "s/2.safetensors": {"b"}}, nil, nil},
		"promise broken":   {`{"a":"1.safetensors","b":"1.safetensors"}`, map[string][]string{"1.safetensors": {"a"}}, ErrMissingTensor, []string{`"b"`, "1.safetensors", index}},
		"in another shard": {`{"a":"1.safetensors","b":"1.safetensors","c":"2.safetensors"}`, map[string][]string{"1.safetensors": {"a"}, "2.safetensors": {"b", "c"}}, ErrConflict, []string{`"b"`, "2.safetensors", index}},
		"in two shards":    {`{"a":"1.safetensors","b":"2.safetensors"}`, map[string][]string{"1.safetensors": {"a"}, "2.safetensors": {"a", "b"}}, ErrConflict, []string{`"a"`, "1.safetensors", "2.safetensors"}},
		"not listed":       {`{"a":"1.safetensors"}`, map[string][]string{"1.safetensors": {"a", "b"}}, ErrConflict, []string{`"b"`, "1.safetensors", index}},
		"no such shard":    {`{"a":"1.safetensors","b":"2.safetensors"}`, map[string][]string{"1.safetensors": {"a"}}, ErrMissingShard, []string{"2.safetensors", index, "no such file"}},
		"other extension":  {`{"a":"1.bin"}`, map[string][]string{"1.bin": {"a"}}, ErrBadIndex, []string{"1.bin", index}},
		"outside":          {`{"a":"../1.safetensors"}`, map[string][]string{"../1.safetensors": {"a"}}, ErrPath, []string{`"a"`, index}},
		"number":           {`{"a":1}`, nil, ErrBadIndex, []string{`"a"`, index, "expected string, got number"}},
		"array":            {`["a"]`, nil, ErrBadIndex, []string{index}},
		"twice":            {`{"a":"1.safetensors","a":"1.safetensors"}`, nil, ErrDuplicate, []string{`"a"`, index}},
	} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "model")
			require.NoError(t, os.Mkdir(dir, 0o755))
			for file, tensors := range c.shards {
				write(t, filepath.Join(dir, file), tensors...)
			}
			require.NoError(t, os.WriteFile(filepath.Join(dir, index), []byte(`{"metadata":{"total_size":8,"dtype":"float32"},"weight_map":`+c.weights+`}`), 0o644))
			checkpoint, err := OpenCheckpoint(dir)
			if c.want == nil {
				require.NoError(t, err)
				f, info, ok := checkpoint.Tensor("b")
				require.True(t, ok)
				require.Equal(t, "b", info.Name)
				require.Equal(t, filepath.Join(dir, "s", "2.safetensors"), f.Path())
				_, _, ok = checkpoint.Tensor("x")
				require.False(t, ok)
				require.Equal(t, "float32", checkpoint.Index().Metadata["dtype"])
				l, err := checkpoint.List(t.Context(), true)
				require.NoError(t, err)
				require.Equal(t, filepath.Join("s", "2.safetensors"), l.Tensors[1].File)
				require.NoError(t, checkpoint.Close())
				return
			}
			require.ErrorIs(t, err, c.want)
			for _, name := range c.names {
				require.ErrorContains(t, err, name)
			}
		})
	}
}

// The safetensors cases of the loader references open; those that are made wrong on purpose say why.
func TestLoaderReferences(t *testing.T) {
	dir := testdata.Open(t, "loader")
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	opened := 0
	for _, e := range entries {
		path, layout := filepath.Join(dir, e.Name()), Layout{}
		switch e.Name() {
		case "variant":
			layout.Variant = "fp16"
		case "subfolder":
			layout.Subfolder = "sub"
		}
		file, err := Find(path, layout)
		if strings.HasPrefix(e.Name(), "bin-") || e.Name() == "no-weights" || !e.IsDir() {
			require.Error(t, err, e.Name())
			continue
		}
		require.NoError(t, err, e.Name())
		c, err := OpenCheckpoint(file)
		switch e.Name() {
		case "truncated":
			require.ErrorIs(t, err, ErrTruncated)
			continue
		case "shard-missing":
			require.ErrorIs(t, err, ErrMissingShard)
			require.ErrorContains(t, err, "model-00003-of-00003.safetensors")
			continue
		case "index-key-missing-in-shard":
			require.ErrorIs(t, err, ErrMissingTensor)
			continue
		}
		require.NoError(t, err, e.Name())
		require.Positive(t, c.Len())
		require.NoError(t, c.Close())
		opened++
	}
	require.Equal(t, 21, opened)
}
