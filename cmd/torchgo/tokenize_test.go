package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/torchgo/torchgo/cmd/torchgo/internal/cli"
	"github.com/torchgo/torchgo/internal/testdata"
)

// tokenRow is a row of the tokenizer's reference: what Python made of a text.
type tokenRow struct {
	Text    string
	With    struct{ IDs []int }
	Without struct{ IDs []int }
	Decoded string
	Skipped string
}

func sentences(t *testing.T, dir string) []tokenRow {
	f, err := os.Open(filepath.Join(dir, "sentences.jsonl"))
	require.NoError(t, err)
	defer f.Close()
	var rows []tokenRow
	d := json.NewDecoder(f)
	for d.More() {
		var row tokenRow
		require.NoError(t, d.Decode(&row))
		rows = append(rows, row)
	}
	return rows
}

func jsonLines[T any](t *testing.T, rows []tokenRow, value func(tokenRow) T) string {
	var b strings.Builder
	for _, r := range rows {
		line, err := json.Marshal(value(r))
		require.NoError(t, err)
		fmt.Fprintf(&b, "%s\n", line)
	}
	return b.String()
}

func TestTokenizeIsPythons(t *testing.T) {
	dir := testdata.Open(t, "tokenizer")
	model := filepath.Join(dir, "minilm")
	rows := sentences(t, dir)
	require.GreaterOrEqual(t, len(rows), 1000)

	texts := jsonLines(t, rows, func(s tokenRow) string { return s.Text })
	for _, special := range []bool{true, false} {
		out := strings.Split(succeeds(t, texts, "tokenize", model, "--jsonl", fmt.Sprintf("--add-special-tokens=%v", special)), "\n")
		require.Len(t, out, len(rows)+1)
		for i, row := range rows {
			var got struct{ IDs []int }
			require.NoError(t, json.Unmarshal([]byte(out[i]), &got))
			want := row.With.IDs
			if !special {
				want = row.Without.IDs
			}
			require.Equal(t, want, got.IDs, "%q", row.Text)
		}
	}
	ids := jsonLines(t, rows, func(s tokenRow) []int { return s.With.IDs })
	for _, skip := range []bool{true, false} {
		out := strings.Split(succeeds(t, ids, "tokenize", model, "--decode", "--jsonl", fmt.Sprintf("--skip-special-tokens=%v", skip)), "\n")
		for i, row := range rows {
			var got struct{ Text string }
			require.NoError(t, json.Unmarshal([]byte(out[i]), &got))
			want := row.Decoded
			if skip {
				want = row.Skipped
			}
			require.Equal(t, want, got.Text, "%q", row.Text)
		}
	}
	require.Equal(t, "101 7592 2088 102\n101 102\n", succeeds(t, "Hello world\n\n", "tokenize", model))
	require.Equal(t, "[CLS] hello world [SEP]\n", succeeds(t, "101 7592, 2088 102", "tokenize", model, "--decode"))
	var document []struct{ IDs []int }
	require.NoError(t, json.Unmarshal([]byte(succeeds(t, "Hello world\n\n", "tokenize", model, "--json")), &document))
	require.Len(t, document, 2)
	require.Equal(t, []int{101, 7592, 2088, 102}, document[0].IDs)
	require.JSONEq(t, `[{"text": "[CLS] hello world [SEP]"}]`, succeeds(t, "101 7592 2088 102", "tokenize", model, "--decode", "--json"))

	status, out, line := torchgo(t, "\"ok\"\nnot json\n", "tokenize", model, "--jsonl")
	require.Equal(t, 1, status)
	require.Equal(t, 1, strings.Count(out, "\n"), "what came before the error is printed")
	require.Contains(t, line, "torchgo: tokenize: line 2: ")
	require.Equal(t, "101 102\n", succeeds(t, "\n", "tokenize", filepath.Join(model, "vocab.txt")), "a file: its folder's")
	require.Equal(t, "101 102\n", succeeds(t, "\n", "tokenize", dir, "--subfolder", "minilm"))
	status, out, line = torchgo(t, "ok\n\xff\n", "tokenize", model)
	require.Equal(t, 1, status)
	require.Equal(t, "101 7929 102\n", out)
	require.Equal(t, "torchgo: tokenize: line 2: not UTF-8\n", line)
	status, _, line = torchgo(t, "x", "tokenize", t.TempDir())
	require.Equal(t, 1, status)
	require.Contains(t, line, "tokenizer.json")
}

// A person types a line, sees its answer, and leaves with Ctrl-C while the next line is awaited.
func TestTokenizeAnswersAtOnceAndStops(t *testing.T) {
	model := filepath.Join(testdata.Open(t, "tokenizer"), "minilm")
	ctx, interrupt := context.WithCancel(t.Context())
	stdin, ask := io.Pipe()
	answers, stdout := io.Pipe()
	var stderr bytes.Buffer
	status := make(chan int, 1)
	go func() {
		status <- cli.Run(ctx, &cli.App{Stdin: stdin, Stdout: stdout, Stderr: &stderr}, []string{"tokenize", model})
	}()
	_, err := io.WriteString(ask, "ok\n")
	require.NoError(t, err)
	line, err := bufio.NewReader(answers).ReadString('\n')
	require.NoError(t, err)
	require.Equal(t, "101 7929 102\n", line)
	interrupt()
	require.Equal(t, cli.Interrupted, <-status)
	require.Equal(t, "torchgo: tokenize: interrupted\n", stderr.String())
	require.NoError(t, ask.Close()) // lets the reader go
}
