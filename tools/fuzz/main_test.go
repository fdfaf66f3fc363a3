package main

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestFind(t *testing.T) {
	targets, err := find(filepath.Join("..", ".."))
	require.NoError(t, err)
	for _, name := range append([]string{"FuzzHeader", "FuzzIndex", "FuzzPlanes", "FuzzGGUF", "FuzzPickle", "FuzzZip", "FuzzAdapter"}, others...) {
		require.True(t, slices.ContainsFunc(targets, func(t target) bool { return t.name == name }), name)
	}

	dir := t.TempDir()
	write := func(name, text string) {
		require.NoError(t, os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o777))
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600))
	}
	const two = "package a\n\nfunc FuzzA(f *testing.F) {}\n\nfunc FuzzB(fuzz *testing.F) {}\n\nfunc Fuzzy() {}\n// func FuzzC(f *testing.F) {}\n"
	write("a/b_test.go", two)
	write("a/b.go", two)
	write("nested/go.mod", "module x\n")
	write("nested/b_test.go", two)
	write("build/b_test.go", two)
	write("a/testdata/b_test.go", two)
	targets, err = find(dir)
	require.NoError(t, err)
	require.Equal(t, []target{{"a", "FuzzA"}, {"a", "FuzzB"}}, targets)
}

func TestRead(t *testing.T) {
	const line = "fuzz: elapsed: 3s, execs: 40304 (13431/sec), new interesting: 104 (total: 108)\n"
	still := strings.Repeat(strings.Replace(line, "13431", "0", 1), stalled)
	const late = "--- FAIL: FuzzX (3.20s)\n    context deadline exceeded\nFAIL\nexit status 1\n"
	for _, c := range []struct {
		name, out    string
		status, fail bool
	}{
		{"passes", line + "PASS\n", false, false},
		{"nothing ran", "testing: warning: no fuzz tests to fuzz\nPASS\n", false, true},
		{"the time is up before the inputs that were kept are through", "fuzz: elapsed: 3s, gathering baseline coverage: 182/1117 completed\nPASS\n", false, false},
		{"fails", line + "--- FAIL: FuzzX (3.20s)\n    --- FAIL: FuzzX (0.00s)\n        x_test.go:3: no\n    \n    Failing input written to testdata/fuzz/FuzzX/1\n", true, true},
		{"does not build", "x_test.go:3: no\nFAIL\n", true, true},
		{"its time ends", line + late, true, false},
		{"its time ends in an input that hangs", line + still + late, true, true},
		{"its time ends before it began", late, true, true},
		{"it goes on after a pause", still + line + late, true, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := read(c.out, c.status)
			require.Equal(t, c.fail, r.failure != "")
			if strings.Contains(c.out, "execs:") {
				require.Equal(t, "40304", r.execs)
				require.Equal(t, "108", r.inputs)
			}
			require.Equal(t, c.fail, strings.Contains(r.String(), "FAILED"))
		})
	}
}
