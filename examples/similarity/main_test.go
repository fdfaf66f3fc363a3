package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/torchgo/torchgo/pretrained/sentence"
)

func TestTable(t *testing.T) {
	got := table([]string{"a", "b"}, [][]float32{{1, 0}, {0.6, 0.8}})
	require.Equal(t, "           1     2\n   1    1.00  0.60   a\n   2    0.60  1.00   b\n", got)
}

func TestSimilarity(t *testing.T) {
	dir := os.Getenv("TORCHGO_TEST_MINILM")
	if dir == "" {
		dir = filepath.Join("..", "..", "build", "models", "all-MiniLM-L6-v2")
	}
	if _, err := os.Stat(dir); err != nil {
		t.Skip("all-MiniLM-L6-v2 is not here: `make model` fetches it")
	}
	var out strings.Builder
	require.NoError(t, run(t.Context(), &out, dir, defaults))
	require.Equal(t, len(defaults)+3, strings.Count(out.String(), "\n"), out.String())

	model, err := sentence.Load(t.Context(), dir, sentence.Options{})
	require.NoError(t, err)
	defer model.Close()
	v, err := model.Encode(t.Context(), defaults)
	require.NoError(t, err)
	cats, markets, apart := dot(v[0], v[1]), dot(v[3], v[4]), dot(v[0], v[3])
	require.Greater(t, cats, 0.4)
	require.Greater(t, markets, 0.4)
	require.Less(t, apart, 0.2)
}

func TestNoModel(t *testing.T) {
	require.Error(t, run(t.Context(), &strings.Builder{}, filepath.Join(t.TempDir(), "none"), defaults))
}
