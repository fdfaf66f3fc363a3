package fileerr

import (
	"errors"
	"io/fs"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestErrorIsOneLineWithEverything(t *testing.T) {
	err := &Error{
		Class: ErrSizeMismatch, File: "m.safetensors", Tensor: "a\nb", Offset: 105, Detail: "shape [2,2] of F32",
		Expected: "16 bytes", Actual: "12", Remedy: "download it again", Err: errors.New("cause\nof two lines"),
	}
	require.Equal(t, `m.safetensors: size mismatch: tensor "a\nb": shape [2,2] of F32: expected 16 bytes, got 12 (at byte 105): "cause\nof two lines"; download it again`, err.Error())
	require.Equal(t, "file is truncated: got 3 bytes", (&Error{Class: ErrTruncated, Actual: "3 bytes"}).Error())
}

func TestErrorWrapsClassAndCause(t *testing.T) {
	var err error = &Error{Class: ErrMissingShard, Err: fs.ErrNotExist}
	require.ErrorIs(t, err, ErrMissingShard)
	require.ErrorIs(t, err, fs.ErrNotExist)
	require.NotErrorIs(t, err, ErrTruncated)
}

func TestClassesAreTheCorpus28(t *testing.T) {
	require.Len(t, classes, 28)
	seen := map[error]string{}
	for name, err := range classes {
		require.NotContains(t, seen, err, name)
		seen[err] = name
	}
	require.Equal(t, ErrBadHeader, Class("bad_header"))
	require.NoError(t, Class("no such class"))
}
