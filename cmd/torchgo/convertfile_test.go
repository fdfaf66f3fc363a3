package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/torchgo/torchgo/internal/testdata"
	"github.com/torchgo/torchgo/pretrained/checkpoint"
)

// A file of weights becomes one of another format, without a model; flags of models are wrong usage, and nothing is written
// where a source is bad.
func TestConvertFile(t *testing.T) {
	loader := testdata.Open(t, "loader")
	dir := t.TempDir()
	safe, bin := filepath.Join(dir, "x.safetensors"), filepath.Join(dir, "x.pt")
	require.Contains(t, succeeds(t, "", "convert", filepath.Join(loader, "bin-sharded"), safe), safe+": ")
	var out map[string]any
	require.NoError(t, json.Unmarshal([]byte(succeeds(t, "", "convert", safe, bin, "--json")), &out))
	st, err := os.Stat(bin)
	require.NoError(t, err)
	require.EqualValues(t, st.Size(), out["bytes"])
	list := func(path string) map[string]string {
		var l checkpoint.Listing
		require.NoError(t, json.Unmarshal([]byte(succeeds(t, "", "inspect", path, "--json", "--digest")), &l))
		m := map[string]string{}
		for _, x := range l.Tensors {
			m[x.Name] = x.DType + x.SHA256
		}
		return m
	}
	want := list(filepath.Join(loader, "bin-sharded"))
	require.NotEmpty(t, want)
	require.Equal(t, want, list(safe))
	require.Equal(t, want, list(bin))

	status, _, stderr := torchgo(t, "", "convert", safe, bin, "--dtype", "float16")
	require.Equal(t, 2, status)
	require.Contains(t, stderr, "--dtype")
	none := filepath.Join(dir, "none.bin")
	status, _, stderr = torchgo(t, "", "convert", filepath.Join(loader, "bin-malicious", "pytorch_model.bin"), none)
	require.Equal(t, 1, status)
	require.Contains(t, stderr, "forbidden")
	require.NoFileExists(t, none)
}
