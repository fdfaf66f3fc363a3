package pretrained_test

import (
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/torchgo/torchgo/internal/testdata"
	"github.com/torchgo/torchgo/pretrained"
	"github.com/torchgo/torchgo/torch"
)

// sameModel loads two checkpoints and compares all that the models have.
func sameModel(t *testing.T, want, got string, opts pretrained.Options) {
	t.Helper()
	class := opts.Class
	m, _ := load(t, want, pretrained.Options{Class: class, DType: opts.DType})
	n, r, err := pretrained.Load(ctx, got, opts)
	require.NoError(t, err)
	defer n.Close()
	require.Empty(t, r.MissingKeys)
	require.Empty(t, r.UnexpectedKeys)
	a, b := state(m), state(n)
	require.Len(t, b, len(a))
	for name, x := range a {
		require.Equal(t, x.DType(), b[name].DType(), name)
		require.True(t, x.Equal(b[name]), name)
	}
}

// The parts that ranks wrote make the model that they were cut from (torch.distributed.checkpoint).
func TestLoadsDistributedCheckpoints(t *testing.T) {
	single := loaderCase(t, "single")
	for _, name := range []string{"rows", "grid", "columns"} {
		dir := filepath.Join(testdata.Open(t, "dcp"), name)
		for _, opts := range []pretrained.Options{{}, {DisableMmap: true}, {DType: torch.BFloat16}, {UseSafetensors: torch.Some(true)}} {
			opts.Strict = true
			sameModel(t, single, dir, opts)
		}
		_, _, err := pretrained.Load(ctx, dir, pretrained.Options{UseSafetensors: torch.Some(false)})
		require.ErrorIs(t, err, pretrained.ErrMissingShard)
	}
}
