package cuda

import (
	"fmt"

	"github.com/torchgo/torchgo/cgo"
	"github.com/torchgo/torchgo/torch"
	"github.com/torchgo/torchgo/torch/internal/bridge"
)

const c10CUDA = 1 // c10::DeviceType::CUDA

// IsAvailable tells whether there is a GPU that libtorch can use.
func IsAvailable() bool { return DeviceCount() > 0 }

// DeviceCount is the number of GPUs that libtorch can use.
func DeviceCount() int { return torch.CUDADeviceCount() }

// index is the number of a device, -1 for the current one.
func index(op string, device torch.Device) int {
	bridge.Load(op)
	switch device.Type {
	case torch.DeviceCUDA:
		return device.Index
	case 0:
		return -1
	}
	panic(&torch.Error{Op: op, Kind: torch.ErrArgument, Message: fmt.Sprintf("expected a CUDA device, got %v", device)})
}

// named is the device itself, for the functions of package torch, where the zero one is the CPU.
func named(op string, device torch.Device) torch.Device {
	n := index(op, device)
	if n < 0 {
		return CurrentDevice()
	}
	return torch.CUDA(n)
}

// CurrentDevice is the device that is current here.
func CurrentDevice() torch.Device {
	const op = "current_device"
	bridge.Load(op)
	n, err := cgo.DeviceCurrent(c10CUDA)
	bridge.Must(op, err)
	return torch.CUDA(n)
}

// WithDevice runs fn with a device as the current one. Operators go where their tensors are; the current
// device is what functions here use where none is given.
func WithDevice(device torch.Device, fn func()) { torch.WithDevice(named("device", device), fn) }

// Synchronize waits for all work of a device.
func Synchronize(device torch.Device) { torch.Synchronize(named("synchronize", device)) }

// Properties of a device (torch.cuda.get_device_properties).
type Properties struct {
	Name                          string
	TotalMemory                   int // bytes
	Major, Minor                  int // compute capability
	MultiProcessorCount           int
	WarpSize                      int // threads
	MaxThreadsPerMultiProcessor   int
	MaxThreadsPerBlock            int
	SharedMemoryPerBlock          int // bytes, without opting in to more
	SharedMemoryPerMultiProcessor int // bytes
	RegistersPerMultiProcessor    int
	L2CacheSize                   int // bytes
	Integrated                    bool
}

// DeviceProperties describes a device.
func DeviceProperties(device torch.Device) Properties {
	const op = "get_device_properties"
	name, w, err := cgo.DeviceProperties(c10CUDA, index(op, device))
	bridge.Must(op, err)
	return Properties{
		Name: name, TotalMemory: w[cgo.PropTotalMemory], Major: w[cgo.PropMajor], Minor: w[cgo.PropMinor],
		MultiProcessorCount: w[cgo.PropMultiprocessors], WarpSize: w[cgo.PropWarpSize],
		MaxThreadsPerMultiProcessor: w[cgo.PropThreadsPerMultiprocessor], MaxThreadsPerBlock: w[cgo.PropThreadsPerBlock],
		SharedMemoryPerBlock: w[cgo.PropSharedPerBlock], SharedMemoryPerMultiProcessor: w[cgo.PropSharedPerMultiprocessor],
		RegistersPerMultiProcessor: w[cgo.PropRegistersPerMultiprocessor], L2CacheSize: w[cgo.PropL2Bytes],
		Integrated: w[cgo.PropIntegrated] != 0,
	}
}
