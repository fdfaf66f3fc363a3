package cgo

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// compiler is the first of the commands that is there.
func compiler(t *testing.T, names ...string) string {
	for _, name := range names {
		if path, err := exec.LookPath(name); name != "" && err == nil {
			return path
		}
	}
	t.Skipf("none of the compilers %v is installed", names)
	return ""
}

func TestHeaderCompilesAsC(t *testing.T) {
	cc := compiler(t, os.Getenv("CC"), "gcc", "cc")
	out, err := exec.Command(cc, "-std=c11", "-Wall", "-Wextra", "-Wpedantic", "-Werror", "-fsyntax-only", "-x", "c", "shim/torchgo.h").CombinedOutput()
	require.NoError(t, err, string(out))
}

func TestHeaderCompilesAsCxx(t *testing.T) {
	cxx := compiler(t, os.Getenv("CXX"), "g++", "c++")
	out, err := exec.Command(cxx, "-std=c++20", "-Wall", "-Wextra", "-Wpedantic", "-Werror", "-fsyntax-only", "-x", "c++", "shim/torchgo.h").CombinedOutput()
	require.NoError(t, err, string(out))
}

// A C++ exception that leaves a function ends the process, so every function of the table has
// guarded() around all that it does.
func TestEveryFunctionIsGuarded(t *testing.T) {
	header, err := os.ReadFile("shim/torchgo.h")
	require.NoError(t, err)
	sources, err := filepath.Glob("shim/*.cpp")
	require.NoError(t, err)
	var all strings.Builder
	for _, path := range sources {
		text, err := os.ReadFile(path)
		require.NoError(t, err)
		all.Write(text)
	}
	names := regexp.MustCompile(`(?m)^  F\((\w+),`).FindAllStringSubmatch(string(header), -1)
	require.Greater(t, len(names), 30)
	for _, name := range names {
		body := regexp.MustCompile(`(?m)^int32_t ` + name[1] + `\([^{]*\) noexcept \{\n  return guarded\(err, \[&\] \{`)
		require.Len(t, body.FindAllString(all.String(), -1), 1, "%s: expected one definition: noexcept, with nothing but guarded() in it", name[1])
	}
}
