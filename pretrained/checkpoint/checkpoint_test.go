package checkpoint

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/torchgo/torchgo/internal/fileerr"
	"github.com/torchgo/torchgo/internal/testdata"
	"github.com/torchgo/torchgo/pretrained/safetensors"
)

func touch(t *testing.T, path string) {
	require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o755))
	require.NoError(t, os.WriteFile(path, nil, 0o644))
}

func TestFind(t *testing.T) {
	dir := t.TempDir()
	_, err := Find(dir, Layout{})
	require.ErrorIs(t, err, fileerr.ErrMissingShard)
	require.ErrorIs(t, err, fs.ErrNotExist)
	require.ErrorContains(t, err, dir)
	touch(t, filepath.Join(dir, "x.gguf"))
	_, err = Find(dir, Layout{})
	require.ErrorContains(t, err, "x.gguf")

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
	require.ErrorIs(t, err, fileerr.ErrMissingShard)
	touch(t, filepath.Join(dir, "model.safetensors.index.fp16.json"))
	require.Equal(t, "model.safetensors.index.fp16.json", find(Layout{Variant: "fp16"}))
	touch(t, filepath.Join(dir, "model.fp16.safetensors"))
	require.Equal(t, "model.fp16.safetensors", find(Layout{Variant: "fp16"}))
	touch(t, filepath.Join(dir, "a", "b", "model.safetensors"))
	require.Equal(t, "a/b/model.safetensors", find(Layout{Subfolder: "a/b"}))

	for _, l := range []Layout{{Subfolder: ".."}, {Subfolder: "/etc"}, {Subfolder: "a/../../b"}, {Variant: "../x"}, {Variant: "a/b"}, {Variant: `a\b`}, {Variant: "a\x00b"}} {
		_, err := Find(dir, l)
		require.ErrorIs(t, err, fileerr.ErrPath, "%+v", l)
	}
	_, err = Find(dir, Layout{Subfolder: "no"})
	require.ErrorIs(t, err, fs.ErrNotExist)
	_, err = Find(dir, Layout{Subfolder: "model.safetensors"})
	require.ErrorContains(t, err, "expected a folder")
	_, err = Open(filepath.Join(dir, "no"))
	require.ErrorIs(t, err, fs.ErrNotExist)
	// What is there but can't be read is not passed over.
	require.NoError(t, os.Remove(filepath.Join(dir, "model.safetensors")))
	require.NoError(t, os.Symlink("nowhere", filepath.Join(dir, "model.safetensors")))
	_, err = Open(dir)
	require.ErrorIs(t, err, fileerr.ErrMissingShard)
	require.ErrorContains(t, err, "symbolic link to nowhere")
	require.NoError(t, os.Remove(filepath.Join(dir, "model.safetensors")))
	require.NoError(t, os.Mkdir(filepath.Join(dir, "model.safetensors"), 0o755))
	_, err = Find(dir, Layout{})
	require.ErrorContains(t, err, "model.safetensors: not a regular file: got a folder")

	dir = t.TempDir()
	touch(t, filepath.Join(dir, "__0_0.distcp"))
	_, err = Open(dir)
	require.ErrorIs(t, err, fileerr.ErrMissingShard)
	require.ErrorContains(t, err, "dcp_to_torch")
}

// A folder of an adapter alone opens as its weights; where a model's are beside it, those are meant.
func TestOpensAdapters(t *testing.T) {
	dir := t.TempDir()
	opens := func(want string) {
		t.Helper()
		c, err := Open(dir)
		require.NoError(t, err)
		require.Equal(t, filepath.Join(dir, want), c.Path())
		require.NoError(t, c.Close())
	}
	_, err := Find(dir, Layout{})
	require.ErrorIs(t, err, fs.ErrNotExist, "a model has no such weights")
	write(t, filepath.Join(dir, "adapter_model.bin"), "a") // told by content
	opens("adapter_model.bin")
	write(t, filepath.Join(dir, "adapter_model.safetensors"), "a")
	opens("adapter_model.safetensors")
	write(t, filepath.Join(dir, "pytorch_model.bin"), "a")
	opens("pytorch_model.bin")
}

// The order of transformers' names, and what use_safetensors and variant make of it.
func TestFindOrder(t *testing.T) {
	dir := t.TempDir()
	for _, variant := range []string{"", "fp16"} {
		v := ""
		if variant != "" {
			v = "." + variant
		}
		names := []string{"pytorch_model.bin.index" + v + ".json", "pytorch_model" + v + ".bin", "model.safetensors.index" + v + ".json", "model" + v + ".safetensors"}
		for i, name := range names { // each takes the place of those before
			touch(t, filepath.Join(dir, name))
			for only, want := range map[Format]string{"": name, Pickle: names[min(i, 1)], Safetensors: name} {
				got, err := Find(dir, Layout{Variant: variant, Only: only})
				if only == Safetensors && i < 2 {
					require.ErrorIs(t, err, fileerr.ErrMissingShard)
					require.ErrorContains(t, err, "there is a "+names[i]+" which use-safetensors=true forbids")
					continue
				}
				require.NoError(t, err)
				require.Equal(t, want, filepath.Base(got))
			}
		}
	}
	for _, name := range []string{"model.safetensors", "model.fp16.safetensors", "model.safetensors.index.json", "model.safetensors.index.fp16.json"} {
		require.NoError(t, os.Remove(filepath.Join(dir, name)))
	}
	_, err := Find(dir, Layout{Variant: "bf16"})
	require.ErrorContains(t, err, "there is a pytorch_model.bin without the variant")
	touch(t, filepath.Join(dir, "shard-00001-model-00001-of-00001.safetensors")) // before all others
	for _, only := range []Format{"", Safetensors} {
		got, err := Find(dir, Layout{Only: only})
		require.NoError(t, err)
		require.Equal(t, dir, got)
	}
	got, err := Find(dir, Layout{Only: Pickle})
	require.NoError(t, err)
	require.Equal(t, "pytorch_model.bin", filepath.Base(got))
}

func write(t *testing.T, path string, names ...string) {
	var tensors []safetensors.Source
	for _, name := range names {
		tensors = append(tensors, safetensors.Source{Name: name, DType: safetensors.F32, Shape: []int{1}, Write: safetensors.Data(make([]byte, 4))})
	}
	require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o755))
	require.NoError(t, safetensors.WriteFile(t.Context(), path, tensors, nil))
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
		"promise broken":   {`{"a":"1.safetensors","b":"1.safetensors"}`, map[string][]string{"1.safetensors": {"a"}}, fileerr.ErrMissingTensor, []string{`"b"`, "1.safetensors", index}},
		"in another shard": {`{"a":"1.safetensors","b":"1.safetensors","c":"2.safetensors"}`, map[string][]string{"1.safetensors": {"a"}, "2.safetensors": {"b", "c"}}, fileerr.ErrConflict, []string{`"b"`, "2.safetensors", index}},
		"in two shards":    {`{"a":"1.safetensors","b":"2.safetensors"}`, map[string][]string{"1.safetensors": {"a"}, "2.safetensors": {"a", "b"}}, fileerr.ErrConflict, []string{`"a"`, "1.safetensors", "2.safetensors"}},
		"not listed":       {`{"a":"1.safetensors"}`, map[string][]string{"1.safetensors": {"a", "b"}}, fileerr.ErrConflict, []string{`"b"`, "1.safetensors", index}},
		"no such shard":    {`{"a":"1.safetensors","b":"2.safetensors"}`, map[string][]string{"1.safetensors": {"a"}}, fileerr.ErrMissingShard, []string{"2.safetensors", index, "no such file"}},
		"other extension":  {`{"a":"1.bin"}`, map[string][]string{"1.bin": {"a"}}, fileerr.ErrBadIndex, []string{"1.bin", index}},
		"outside":          {`{"a":"../1.safetensors"}`, map[string][]string{"../1.safetensors": {"a"}}, fileerr.ErrPath, []string{`"a"`, index}},
		"number":           {`{"a":1}`, nil, fileerr.ErrBadIndex, []string{`"a"`, index, "expected string, got number"}},
		"array":            {`["a"]`, nil, fileerr.ErrBadIndex, []string{index}},
		"twice":            {`{"a":"1.safetensors","a":"1.safetensors"}`, nil, fileerr.ErrDuplicate, []string{`"a"`, index}},
	} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "model")
			require.NoError(t, os.Mkdir(dir, 0o755))
			for file, tensors := range c.shards {
				write(t, filepath.Join(dir, file), tensors...)
			}
			require.NoError(t, os.WriteFile(filepath.Join(dir, index), []byte(`{"metadata":{"total_size":8,"dtype":"float32"},"weight_map":`+c.weights+`}`), 0o644))
			checkpoint, err := Open(dir)
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
		if strings.HasPrefix(e.Name(), "bin-") {
			continue // of another format
		}
		file, err := Find(path, layout)
		if e.Name() == "no-weights" || !e.IsDir() {
			require.Error(t, err, e.Name())
			continue
		}
		require.NoError(t, err, e.Name())
		c, err := Open(file)
		switch e.Name() {
		case "truncated":
			require.ErrorIs(t, err, fileerr.ErrTruncated)
			continue
		case "shard-missing":
			require.ErrorIs(t, err, fileerr.ErrMissingShard)
			require.ErrorContains(t, err, "model-00003-of-00003.safetensors")
			continue
		case "index-key-missing-in-shard":
			require.ErrorIs(t, err, fileerr.ErrMissingTensor)
			continue
		}
		require.NoError(t, err, e.Name())
		require.Positive(t, c.Len())
		require.NoError(t, c.Close())
		opened++
	}
	require.Equal(t, 21, opened)
}
