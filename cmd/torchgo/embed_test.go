package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"io"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/torchgo/torchgo/cmd/torchgo/internal/cli"
	"github.com/torchgo/torchgo/internal/testdata"
)

// tinyEncoder is the reference BERT (hidden size 32) with a vocabulary of a few words.
func tinyEncoder(t *testing.T) string {
	from, dir := filepath.Join(testdata.Open(t, "models-bert"), "bert"), t.TempDir()
	for _, name := range []string{"config.json", "model.safetensors"} {
		data, err := os.ReadFile(filepath.Join(from, name))
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), data, 0o666))
	}
	vocab := "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\na\ncat\ndog\nsits\nruns\n##s\n"
	require.NoError(t, os.WriteFile(filepath.Join(dir, "vocab.txt"), []byte(vocab), 0o666))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "tokenizer_config.json"),
		[]byte(`{"tokenizer_class": "BertTokenizer", "do_lower_case": true}`), 0o666))
	return dir
}

func vectors(t *testing.T, out string) [][]float64 {
	var rows [][]float64
	for line := range strings.Lines(out) {
		var v []float64
		require.NoError(t, json.Unmarshal([]byte(line), &v))
		rows = append(rows, v)
	}
	return rows
}

func norm(v []float64) (sum float64) {
	for _, x := range v {
		sum += x * x
	}
	return math.Sqrt(sum)
}

func TestEmbed(t *testing.T) {
	dir := tinyEncoder(t)
	in := "A cat sits\n\na dog runs a cat sits a dog\ncats"
	rows := vectors(t, succeeds(t, in, "embed", dir))
	require.Len(t, rows, 4)
	one := vectors(t, succeeds(t, in, "embed", dir, "--batch-size", "1"))
	for i, v := range rows {
		require.Len(t, v, 32)
		require.InDeltaSlice(t, one[i], v, 1e-5, "padding changes nothing")
	}
	require.NotEqual(t, rows[0], rows[3])
	for _, v := range vectors(t, succeeds(t, in, "embed", dir, "--normalize")) {
		require.InDelta(t, 1, norm(v), 1e-5)
	}
	both := vectors(t, succeeds(t, in, "embed", dir, "--pooling", "mean+cls"))
	require.Len(t, both[0], 64)
	require.InDeltaSlice(t, rows[0], both[0][:32], 1e-5)

	require.Equal(t, rows, vectors(t, succeeds(t, in, "embed", filepath.Join(dir, "model.safetensors"))))
	var document [][]float64
	require.NoError(t, json.Unmarshal([]byte(succeeds(t, in, "embed", dir, "--json")), &document))
	require.Len(t, document, 4)
	require.InDeltaSlice(t, rows[3], document[3], 1e-5)
	require.Equal(t, "[]\n", succeeds(t, "", "embed", dir, "--json"))

	require.Empty(t, succeeds(t, "", "embed", dir))
	for _, c := range []struct {
		status      int
		stdin, line string
		args        []string
	}{
		{1, "", "pooling", []string{"embed", dir, "--pooling", "median"}},
		{2, "", "--batch-size", []string{"embed", dir, "--batch-size", "0"}},
		{1, "ok\n\xff\n", "line 2: not UTF-8", []string{"embed", dir}},
		{1, "", "no such file", []string{"embed", "nosuchmodel"}},
	} {
		status, _, stderr := torchgo(t, c.stdin, c.args...)
		require.Equal(t, c.status, status, stderr)
		require.Contains(t, stderr, c.line)
		require.Equal(t, 1, strings.Count(stderr, "\n"))
	}
}

// A program may write a line and wait for the answer.
func TestEmbedAnswersAtOnce(t *testing.T) {
	stdin, ask := io.Pipe()
	answers, stdout := io.Pipe()
	var stderr bytes.Buffer
	status := make(chan int, 1)
	go func() {
		status <- cli.Run(t.Context(), &cli.App{Stdin: stdin, Stdout: stdout, Stderr: &stderr}, []string{"embed", tinyEncoder(t)})
		stdout.Close()
	}()
	lines := bufio.NewReader(answers)
	for range 3 {
		_, err := io.WriteString(ask, "a cat\n")
		require.NoError(t, err)
		line, err := lines.ReadString('\n')
		require.NoError(t, err)
		require.Len(t, vectors(t, line), 1)
	}
	require.NoError(t, ask.Close())
	require.Equal(t, 0, <-status, stderr.String())
}
