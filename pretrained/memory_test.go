package pretrained_test

import (
	"fmt"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/torchgo/torchgo/internal/testdata"
	"github.com/torchgo/torchgo/pretrained"
	"github.com/torchgo/torchgo/torch"
)

// planMaps divide the models of placedModels in many ways: over GPUs, to the CPU beside them, to disk.
var planMaps = []pretrained.DeviceMap{
	nil, {"": "cpu"}, {"": "cuda:0"}, {"": "disk"}, {"": "cuda:0", "%s.0": "disk"}, {"": "cuda:0", "%s": "cpu"},
	{"": "cuda:1", "%s.0": "cpu", "%s.1": "disk"}, {"": "disk", "%s.1": "cuda:0"}, {"": "cpu", "%s": "disk"},
	{"": "auto"}, {"": "balanced"}, {"": "balanced_low_0"}, {"": "sequential"},
}

// What a plan says of each device is what the model then has there, to the byte, and what a pass brings in is what it
// plans for.
func TestPlansAreExact(t *testing.T) {
	offloading := 0
	for name, c := range placedModels {
		dir := filepath.Join(testdata.Open(t, c.group), c.dir)
		for k, entries := range append(planMaps, c.split) {
			for _, opts := range []pretrained.Options{{}, {DisableMmap: true}, {DType: torch.BFloat16}, {DType: torch.Float64, OffloadBuffers: true}} {
				t.Run(fmt.Sprintf("%s %d %v %v", name, k, opts.DType, opts.DisableMmap), func(t *testing.T) {
					sim := pretrained.Simulate(t, torch.CPU, torch.CPU)
					if entries != nil {
						opts.DeviceMap = pretrained.DeviceMap{}
						for at, place := range entries {
							if len(at) > 2 && at[:2] == "%s" {
								at = c.layers + at[2:]
							}
							opts.DeviceMap[at] = place
						}
					}
					if place := entries[""]; len(entries) == 1 && place[0] != 'c' && place != "disk" {
						opts.MaxMemory = map[string]int64{"0": 40_000, "1": 50_000, "cpu": 60_000}
					}
					plan, err := pretrained.Plan(ctx, dir, opts)
					require.NoError(t, err)
					m, r := load(t, dir, opts)
					require.Equal(t, plan.DeviceMap, r.DeviceMap)
					planned := map[string]int64{}
					for _, w := range plan.Weights {
						planned[w.Device] += w.Bytes
					}
					require.Equal(t, planned, pretrained.Lying(m))
					require.Equal(t, plan.MemoryFootprint, m.MemoryFootprint())
					var all int64
					for _, bytes := range plan.BytesPerDevice {
						all += bytes
					}
					require.Equal(t, plan.MemoryFootprint, all)
					require.Equal(t, plan.BytesPerDevice["cpu"], plan.BytesMapped+plan.BytesAllocated)

					visits := pretrained.MeasureVisits(t, sim)
					torch.Inference(func() { m.Forward(placedInputs()) })
					main := m.InputDevice().String()
					if main != "cpu" {
						require.Equal(t, visits.Running, plan.PeakPerDevice[main]-plan.BytesPerDevice[main])
					}
					read := plan.PeakPerDevice["cpu"] - plan.BytesPerDevice["cpu"]
					if opts.DType == 0 { // nothing is converted
						require.Equal(t, visits.Reading, read)
					} else {
						require.GreaterOrEqual(t, read, visits.Reading/2)
					}
					if visits.Running > 0 {
						offloading++
					}
				})
			}
		}
	}
	require.Greater(t, offloading, 60)
}
