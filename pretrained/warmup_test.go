package pretrained_test

import (
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/torchgo/torchgo/internal/testdata"
	"github.com/torchgo/torchgo/pretrained"
	"github.com/torchgo/torchgo/torch"
)

// The rows are printed by tools/warmupref: what transformers allocates.
func TestWarmUpBytes(t *testing.T) {
	const gib = 1 << 30
	for _, c := range []struct{ need, unused, free, total, want int }{
		{6 * gib, 0, 70 * gib, 80 * gib, 6 * gib},
		{100, 0, 70 * gib, 80 * gib, 100},
		{6 * gib, 2 * gib, 70 * gib, 80 * gib, 4 * gib},
		{6 * gib, 3 * gib, 70 * gib, 80 * gib, 3 * gib},
		{6 * gib, 4 * gib, 70 * gib, 80 * gib, 4 * gib},
		{6 * gib, 4 * gib, 3 * gib, 80 * gib, 0},
		{6 * gib, 5 * gib, 70 * gib, 80 * gib, 0},
		{6 * gib, 1 * gib, 70 * gib, 80 * gib, 5 * gib},
		{6 * gib, 9 * gib, 70 * gib, 80 * gib, 0},
		{7 * gib, 0, 8 * gib, 8 * gib, 6*gib + 858993458},
		{90 * gib, 1 * gib, 78 * gib, 80 * gib, 78*gib + 858993458},
		{90 * gib, 60 * gib, 19 * gib, 80 * gib, 0},
		{3*gib + 7, 3, 70 * gib, 80 * gib, 3*gib + 4},
	} {
		require.Equal(t, c.want, pretrained.WarmUpBytes(c.need, c.unused, c.free, c.total), "%+v", c)
	}
}

// Each GPU is asked once for the bytes of what will be there, tied weights counted once.
func TestGPUsAreWarmedUp(t *testing.T) {
	for name, c := range placedModels {
		t.Run(name, func(t *testing.T) {
			sim := pretrained.Simulate(t, torch.CPU, torch.CPU)
			m, _ := load(t, filepath.Join(testdata.Open(t, c.group), c.dir), pretrained.Options{DeviceMap: c.split})
			want := map[torch.Device]int{}
			seen := map[*torch.Tensor]bool{}
			for _, x := range state(m) {
				if !seen[x] {
					want[sim.Where(x)] += x.Numel() * x.DType().ItemSize()
				}
				seen[x] = true
			}
			require.Len(t, want, 2)
			require.Equal(t, want, sim.Reserved)
		})
	}
}
