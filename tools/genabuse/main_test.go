package main

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestDriverIsCurrent(t *testing.T) {
	header, err := os.ReadFile("../../cgo/shim/torchgo.h")
	require.NoError(t, err)
	functions, err := Parse(string(header))
	require.NoError(t, err)
	want, err := Generate(functions)
	require.NoError(t, err)
	have, err := os.ReadFile(filepath.Join("../..", Output))
	require.NoError(t, err)
	require.Equal(t, string(want), string(have), "run `go generate ./cgo/internal/abuse`")
}

func TestParse(t *testing.T) {
	functions, err := Parse(`
#define TG_FUNCTIONS(F)                   \
  /* F(not, (int this, tg_error* err), (this, err)) */ \
  F(one, (const char* a, int64_t n,       \
          tg_error* err),                 \
    (a, n, err))                          \
  F(two, (tg_error* err), (err))

#define F(other) int`)
	require.NoError(t, err)
	require.Equal(t, []Function{
		{"one", []Param{{"const char*", "a"}, {"int64_t", "n"}, {"tg_error*", "err"}}},
		{"two", []Param{{"tg_error*", "err"}}},
	}, functions)

	_, err = Parse("#define TG_FUNCTIONS(F) \\\n F(one, (void (*f)(int), tg_error* err), (f, err))\n")
	require.Error(t, err, "a function that is not understood is not left out")
	_, err = Generate([]Function{{"f", []Param{{"struct new_thing*", "x"}, {"tg_error*", "err"}}}})
	require.ErrorContains(t, err, "struct new_thing*")
	_, err = Generate([]Function{{"f", []Param{{"int32_t", "x"}}}})
	require.ErrorContains(t, err, "tg_error")
}
