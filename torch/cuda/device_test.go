package cuda

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/torchgo/torchgo/torch"
)

// gpu skips a test that needs a GPU where there is none.
func gpu(t *testing.T) torch.Device {
	if !IsAvailable() {
		t.Skip("needs a GPU that libtorch can use")
	}
	return torch.CUDA(0)
}

// Without a GPU everything says so, in one line, and nothing ends the process.
func TestWithoutAGPU(t *testing.T) {
	if IsAvailable() {
		t.Skip("there is a GPU here")
	}
	require.Zero(t, DeviceCount())
	device := torch.CUDA(0)
	for name, fn := range map[string]func(){
		"CurrentDevice":               func() { CurrentDevice() },
		"WithDevice":                  func() { WithDevice(device, func() { t.Error("ran") }) },
		"Synchronize":                 func() { Synchronize(device) },
		"Synchronize current":         func() { Synchronize(torch.Device{}) },
		"DeviceProperties":            func() { DeviceProperties(device) },
		"NewStream":                   func() { NewStream(device) },
		"CurrentStream":               func() { CurrentStream(device) },
		"DefaultStream":               func() { DefaultStream(torch.Device{}) },
		"NewEvent":                    func() { NewEvent() },
		"MemoryStats":                 func() { MemoryStats(device) },
		"MemoryAllocated":             func() { MemoryAllocated(device) },
		"ResetPeakMemoryStats":        func() { ResetPeakMemoryStats(device) },
		"ResetAccumulatedMemoryStats": func() { ResetAccumulatedMemoryStats(device) },
		"MemGetInfo":                  func() { MemGetInfo(device) },
		"SetPerProcessMemoryFraction": func() { SetPerProcessMemoryFraction(0.5, device) },
		"RNGState":                    func() { RNGState(device) },
		"SetRNGState":                 func() { SetRNGState(nil, device) },
		"ManualSeed":                  func() { ManualSeed(1, device) },
		"NewGraph":                    func() { NewGraph() },
		"GraphPool":                   func() { GraphPool() },
	} {
		err := torch.TryDo(fn)
		require.ErrorIs(t, err, torch.ErrNoDevice, name)
		require.Regexp(t, `^[a-z_]+: cuda(:0)? was asked for, but (libtorch runs without cuda here|there is no cuda device that libtorch can use)$`, err.Error(), name)
	}
	require.Empty(t, RNGStates())
	EmptyCache()
	ManualSeedAll(3)
	torch.Scope(func() {
		x := torch.Ones([]int{2})
		require.False(t, x.IsPinned())
		require.ErrorIs(t, torch.TryDo(func() { x.PinMemory() }), torch.ErrRuntime)
		require.ErrorIs(t, torch.TryDo(func() { x.To(device) }), torch.ErrNoDevice)
	})
}

// These functions are for GPUs; what serves both devices is in package torch.
func TestRefusesOtherDevices(t *testing.T) {
	for name, fn := range map[string]func(){
		"NewStream":        func() { NewStream(torch.CPU) },
		"WithStream":       func() { WithStream(torch.CurrentStream(torch.CPU), func() { t.Error("ran") }) },
		"WithDevice":       func() { WithDevice(torch.CPU, func() { t.Error("ran") }) },
		"Synchronize":      func() { Synchronize(torch.CPU) },
		"DeviceProperties": func() { DeviceProperties(torch.Meta) },
		"MemoryStats":      func() { MemoryStats(torch.CPU) },
		"RNGState":         func() { RNGState(torch.CPU) },
	} {
		err := torch.TryDo(fn)
		require.ErrorIs(t, err, torch.ErrArgument, name)
		require.ErrorContains(t, err, "expected a CUDA device, got ", name)
	}
}

func TestDevice(t *testing.T) {
	device := gpu(t)
	p := DeviceProperties(device)
	t.Logf("%+v", p)
	require.NotEmpty(t, p.Name)
	require.Equal(t, 32, p.WarpSize)
	require.GreaterOrEqual(t, p.Major, 5)
	free, total := MemGetInfo(device)
	require.InEpsilon(t, p.TotalMemory, total, 0.05)
	require.Less(t, free, total)
	require.Equal(t, device, CurrentDevice())
	last := torch.CUDA(DeviceCount() - 1)
	WithDevice(last, func() {
		require.Equal(t, last, CurrentDevice())
		done := make(chan torch.Device)
		torch.Go(func() { done <- CurrentDevice() })
		require.Equal(t, last, <-done)
	})
	require.Equal(t, device, CurrentDevice())
}
