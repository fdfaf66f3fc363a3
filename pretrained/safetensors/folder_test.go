package safetensors

import (
	"crypto/sha256"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// find gives the weights in a folder, or their index, as a loader does.
func find(dir string) (string, error) {
	for _, name := range []string{"model.safetensors", "model.safetensors.index.json"} {
		if _, err := os.Lstat(filepath.Join(dir, name)); err == nil {
			return filepath.Join(dir, name), nil
		}
	}
	return "", fs.ErrNotExist
}

// openAll opens a file, or the shards of an index, which must hold what it promises and nothing else.
func openAll(t *testing.T, path string) []*File {
	t.Helper()
	if !strings.HasSuffix(path, ".json") {
		return []*File{open(t, path)}
	}
	index, err := ReadIndex(path)
	require.NoError(t, err)
	var files []*File
	n := 0
	for _, name := range index.Files() {
		f := open(t, filepath.Join(filepath.Dir(path), name))
		for _, info := range f.Tensors() {
			require.Equal(t, name, index.WeightMap[info.Name], info.Name)
			n++
		}
		files = append(files, f)
	}
	require.Len(t, index.WeightMap, n)
	return files
}

// digests are the dtypes and digests of the tensors of the checkpoint in a folder.
func digests(t *testing.T, dir string) map[string]string {
	t.Helper()
	path, err := find(dir)
	require.NoError(t, err)
	m := map[string]string{}
	for _, f := range openAll(t, path) {
		for _, info := range f.Tensors() {
			data := make([]byte, info.Bytes)
			require.NoError(t, f.ReadTensor(info.Name, data))
			m[info.Name] = fmt.Sprintf("%v %x", info.DType, sha256.Sum256(data))
		}
	}
	return m
}
