package pretrained

import "github.com/torchgo/torchgo/torch"

// devices is all that placing asks of GPUs; tests simulate them by it.
var devices deviceOps = realDevices{}

type deviceOps interface {
	count() int                                          // of GPUs
	of(t *torch.Tensor) torch.Device                     // where t lies
	move(t *torch.Tensor, to torch.Device) *torch.Tensor // a copy of t there
	reserve(d torch.Device, bytes int)                   // prepares d's allocator for so much
	memory(d torch.Device) torch.Device                  // what tensors of d are allocated on
	ran(m *module, given, in, out []*torch.Tensor)       // is told of each module that ran: inputs, as it was given them and as it had them
}

type realDevices struct{}

func (realDevices) count() int                                                     { return torch.CUDADeviceCount() }
func (realDevices) of(t *torch.Tensor) torch.Device                                { return t.Device() }
func (realDevices) move(t *torch.Tensor, to torch.Device) *torch.Tensor            { return t.To(to) }
func (realDevices) memory(d torch.Device) torch.Device                             { return d }
func (realDevices) ran(*module, []*torch.Tensor, []*torch.Tensor, []*torch.Tensor) {}

// moved are tensors on a device, those that are there already as they are; nil ones stay nil.
func moved(in []*torch.Tensor, to torch.Device) []*torch.Tensor {
	out := make([]*torch.Tensor, len(in))
	for i, t := range in {
		out[i] = t
		if t != nil && devices.of(t) != to {
			out[i] = devices.move(t, to)
		}
	}
	return out
}
