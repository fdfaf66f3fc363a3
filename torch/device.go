package torch

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/torchgo/torchgo/cgo"
)

// DeviceType is a kind of device. The zero value means "not given".
type DeviceType int8

// Kinds of devices.
const (
	DeviceCPU  DeviceType = 1
	DeviceCUDA DeviceType = 2
	DeviceMeta DeviceType = 3
)

// deviceTypes has PyTorch's names and c10's numbers.
var deviceTypes = map[DeviceType]struct {
	name string
	c10  int
}{
	DeviceCPU: {"cpu", 0}, DeviceCUDA: {"cuda", 1}, DeviceMeta: {"meta", 14},
}

// Device is where a tensor's data lies. The zero value means "not given": the CPU.
type Device struct {
	Type  DeviceType
	Index int // of a GPU; 0 elsewhere
}

// Devices without an index.
var (
	CPU  = Device{Type: DeviceCPU}
	Meta = Device{Type: DeviceMeta} // shapes and dtypes without data
)

// CUDA is the GPU of that index.
func CUDA(index int) Device { return Device{Type: DeviceCUDA, Index: index} }

// String is PyTorch's name: "cpu", "cuda:0".
func (d Device) String() string {
	row, ok := deviceTypes[d.Type]
	switch {
	case d == Device{}:
		return "default"
	case !ok:
		return fmt.Sprintf("device(%d)", d.Type)
	case d.Type == DeviceCUDA:
		return row.name + ":" + strconv.Itoa(d.Index)
	}
	return row.name
}

// ParseDevice reads PyTorch's name of a device.
func ParseDevice(name string) (Device, error) {
	kind, index, indexed := strings.Cut(name, ":")
	for t, row := range deviceTypes {
		if row.name != kind {
			continue
		}
		n := 0
		if indexed {
			var err error
			if n, err = strconv.Atoi(index); err != nil || n < 0 || n > 127 || (t != DeviceCUDA && n > 0) {
				break
			}
		}
		return Device{Type: t, Index: n}, nil
	}
	return Device{}, fmt.Errorf("device: expected cpu, cuda, cuda:N or meta, got %q", name)
}

// isCPU tells whether d is the CPU, named or by default.
func (d Device) isCPU() bool { return d.Type == DeviceCPU || d == Device{} }

// c10 is the number that libtorch knows a kind of device by.
func (t DeviceType) c10(op string) int {
	row, ok := deviceTypes[t]
	if !ok {
		invalid(op, "unknown device type %d", t)
	}
	return row.c10
}

// c10 are the two numbers that libtorch knows a device by; an index of -1 is "the current one".
func (d Device) c10(op string) (kind, index int) {
	if d.Type == DeviceCUDA {
		return d.Type.c10(op), d.Index
	}
	return d.Type.c10(op), -1
}

func deviceFromC10(kind, index int) Device {
	for t, row := range deviceTypes {
		if row.c10 == kind {
			return Device{Type: t, Index: max(index, 0)}
		}
	}
	return Device{Type: DeviceType(kind + 1), Index: max(index, 0)}
}

// CUDADeviceCount is the number of GPUs that libtorch can use; 0 without its CUDA library.
func CUDADeviceCount() int {
	load("device_count")
	n, err := cgo.DeviceCount(deviceTypes[DeviceCUDA].c10)
	must("device_count", err)
	return n
}

// Layout is how a tensor's elements are stored. The zero value means "not given".
type Layout int8

// Layouts.
const (
	Strided Layout = iota + 1
	Sparse
	SparseCSR
	MKLDNNLayout
	SparseCSC
	SparseBSR
	SparseBSC
	Jagged
)

// MemoryFormat is the order of a strided tensor's dimensions in memory. The zero value means "not
// given".
type MemoryFormat int8

// Memory formats.
const (
	ContiguousFormat MemoryFormat = iota + 1
	PreserveFormat
	ChannelsLast   // (N, H, W, C) in memory
	ChannelsLast3D // (N, D, H, W, C) in memory
)
