package libtorch_test

import (
	"encoding/json"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/torchgo/torchgo/internal/libtorch"
)

const hash = "0123456789abcdef"

func write(t *testing.T, path, text string) {
	t.Helper()
	require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o755))
	require.NoError(t, os.WriteFile(path, []byte(text), 0o644))
}

// emptyCache clears the environment that Find looks at and returns the cache folder.
func emptyCache(t *testing.T) string {
	t.Helper()
	cache := t.TempDir()
	t.Setenv("TORCHGO_CACHE", cache)
	t.Setenv("TORCHGO_LIB", "")
	t.Setenv("TORCHGO_LIBTORCH", "")
	t.Setenv("TORCHGO_SHIM_CXXFLAGS", "")
	return cache
}

// makeEntry makes a finished entry; libtorch is "torch" or a folder elsewhere.
func makeEntry(t *testing.T, cache, version, device, libtorchDir string) string {
	t.Helper()
	dir := filepath.Join(cache, version+"-"+device)
	r := libtorch.Record{Version: version, Device: device, Libtorch: libtorchDir, Source: "wheels"}
	data, err := json.Marshal(r)
	require.NoError(t, err)
	write(t, filepath.Join(r.LibtorchDir(dir), "lib", "libtorch_cpu.so"), "elf")
	write(t, filepath.Join(dir, "shim-"+hash, libtorch.LibName), "elf")
	write(t, filepath.Join(dir, "shim-"+hash, libtorch.ShimRecord), string(data))
	write(t, filepath.Join(dir, libtorch.RecordName), string(data))
	return dir
}

func TestNothingSetUp(t *testing.T) {
	emptyCache(t)
	_, err := libtorch.Find(hash)
	require.ErrorIs(t, err, libtorch.ErrNotSetUp)
	require.EqualError(t, err, "libtorch is not set up: run `torchgo setup`")
}

func TestDefaultEntry(t *testing.T) {
	cache := emptyCache(t)
	dir := makeEntry(t, cache, "2.15.0", "cpu", "torch")
	write(t, filepath.Join(cache, "default"), "2.15.0-cpu\n")
	in, err := libtorch.Find(hash)
	require.NoError(t, err)
	require.Equal(t, libtorch.Install{
		Version: "2.15.0", Device: "cpu", Dir: filepath.Join(dir, "torch"),
		Lib: filepath.Join(dir, "shim-"+hash, "libtorchgo.so"), Source: "default",
	}, in)
}

func TestEntryElsewhereAndCUDA(t *testing.T) {
	cache := emptyCache(t)
	other := filepath.Join(t.TempDir(), "site-packages", "torch")
	dir := makeEntry(t, cache, "2.15.0", "cu132", other)
	cuda := filepath.Join(dir, "shim-"+hash, "libtorchgo_cuda.so")
	write(t, cuda, "elf")
	t.Setenv("TORCHGO_LIBTORCH", "2.15.0-cu132")
	in, err := libtorch.Find(hash)
	require.NoError(t, err)
	require.Equal(t, other, in.Dir)
	require.Equal(t, cuda, in.CUDALib)
	require.Equal(t, "TORCHGO_LIBTORCH", in.Source)

	require.NoError(t, os.RemoveAll(other))
	_, err = libtorch.Find(hash)
	require.ErrorIs(t, err, libtorch.ErrNotSetUp)
	require.ErrorContains(t, err, "run `torchgo setup --version 2.15.0 --device cuda`")
}

func TestOrder(t *testing.T) {
	cache := emptyCache(t)
	makeEntry(t, cache, "2.15.0", "cpu", "torch")
	old := makeEntry(t, cache, "2.11.0", "cpu", "torch")
	write(t, filepath.Join(cache, "default"), "2.15.0-cpu\n")

	t.Setenv("TORCHGO_LIBTORCH", "2.11.0-cpu")
	in, err := libtorch.Find(hash)
	require.NoError(t, err)
	require.Equal(t, "2.11.0", in.Version)

	// Beside the executable comes before the cache: here beside the test binary.
	exe, err := os.Executable()
	require.NoError(t, err)
	lib := filepath.Join(filepath.Dir(exe), libtorch.LibName)
	write(t, lib, "elf")
	in, err = libtorch.Find(hash)
	require.NoError(t, os.Remove(lib))
	require.NoError(t, err)
	require.Equal(t, lib, in.Lib)
	require.Equal(t, "beside the executable", in.Source)
	require.Empty(t, in.Version)

	// TORCHGO_LIB comes first; the record beside it still tells version and folder.
	t.Setenv("TORCHGO_LIB", filepath.Join(old, "shim-"+hash, libtorch.LibName))
	in, err = libtorch.Find("anyhash")
	require.NoError(t, err)
	require.Equal(t, "TORCHGO_LIB", in.Source)
	require.Equal(t, "2.11.0", in.Version)
	require.Equal(t, filepath.Join(old, "torch"), in.Dir)
}

func TestNamedButMissing(t *testing.T) {
	cache := emptyCache(t)
	makeEntry(t, cache, "2.15.0", "cpu", "torch")
	write(t, filepath.Join(cache, "default"), "2.15.0-cpu\n")

	_, err := libtorch.Find("fedcba9876543210")
	require.ErrorIs(t, err, libtorch.ErrNotSetUp)
	require.ErrorContains(t, err, "lacks the shim of this torchgo: run `torchgo setup --version 2.15.0`")

	t.Setenv("TORCHGO_SHIM_CXXFLAGS", "-fsanitize=address")
	_, err = libtorch.Find(hash)
	require.ErrorIs(t, err, libtorch.ErrNotSetUp)

	t.Setenv("TORCHGO_LIBTORCH", "2.11.0-cpu")
	_, err = libtorch.Find(hash)
	require.ErrorIs(t, err, libtorch.ErrNotSetUp)
	require.ErrorContains(t, err, "run `torchgo setup --version 2.11.0`")

	for _, bad := range []string{"../2.15.0-cpu", "2.15.0", "2.15.0-gpu", "x"} {
		t.Setenv("TORCHGO_LIBTORCH", bad)
		_, err = libtorch.Find(hash)
		require.ErrorContains(t, err, "TORCHGO_LIBTORCH", bad)
		require.NotErrorIs(t, err, libtorch.ErrNotSetUp)
	}

	t.Setenv("TORCHGO_LIB", filepath.Join(cache, "none.so"))
	_, err = libtorch.Find(hash)
	require.ErrorIs(t, err, fs.ErrNotExist)
	require.ErrorContains(t, err, "TORCHGO_LIB")
	t.Setenv("TORCHGO_LIB", cache)
	_, err = libtorch.Find(hash)
	require.ErrorContains(t, err, "not a regular file")
}

func TestUnfinishedAndBroken(t *testing.T) {
	cache := emptyCache(t)
	write(t, filepath.Join(cache, "default"), "2.15.0-cpu\n")
	dir := makeEntry(t, cache, "2.15.0", "cpu", "torch")
	require.NoError(t, os.Remove(filepath.Join(dir, "setup.json")))
	_, err := libtorch.Find(hash)
	require.ErrorIs(t, err, libtorch.ErrNotSetUp)

	write(t, filepath.Join(dir, "setup.json"), "{")
	_, err = libtorch.Find(hash)
	require.ErrorContains(t, err, "setup.json")

	write(t, filepath.Join(cache, "default"), "../../etc\n")
	_, err = libtorch.Find(hash)
	require.ErrorContains(t, err, "default")
}

func TestShimDir(t *testing.T) {
	t.Setenv("TORCHGO_SHIM_CXXFLAGS", "")
	require.Equal(t, "shim-abc", libtorch.ShimDir("abc"))
	t.Setenv("TORCHGO_SHIM_CXXFLAGS", "-fsanitize=address")
	asan := libtorch.ShimDir("abc")
	require.True(t, strings.HasPrefix(asan, "shim-abc-"))
	t.Setenv("TORCHGO_SHIM_CXXFLAGS", " -fsanitize=address  ")
	require.Equal(t, asan, libtorch.ShimDir("abc"))
}

func TestNoCacheFolder(t *testing.T) {
	emptyCache(t)
	t.Setenv("TORCHGO_CACHE", "")
	t.Setenv("HOME", "")
	t.Setenv("XDG_CACHE_HOME", "")
	_, err := libtorch.Find(hash)
	require.ErrorContains(t, err, "TORCHGO_CACHE")
}
