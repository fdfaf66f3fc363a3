package pretrained

import (
	"fmt"

	"github.com/torchgo/torchgo/torch"
	"github.com/torchgo/torchgo/torch/nn"
)

// To moves the model to a device and converts its floating-point weights and buffers to a dtype; zero values
// leave either as it is. Ties, gradients and an optimizer's references hold, weights that were mapped from a
// file let it go. The config's dtype stays; what is saved has the new one. As in PyTorch, layers that
// Architecture.KeepInFP32 names are converted, too. A device that isn't there is torch.ErrNoDevice, and a
// move that fails leaves the model where it was; a conversion that fails, for lack of memory, leaves it converted in part.
func (p *PreTrainedModel) To(device torch.Device, dtype torch.DType) error {
	switch {
	case dtype != 0 && !dtype.IsFloatingPoint():
		return &Error{Class: ErrArgument, Detail: "dtype", Expected: "a floating-point dtype", Actual: dtype.String()}
	case device == torch.Meta:
		return &Error{Class: ErrArgument, Detail: "device", Actual: "meta", Remedy: "the weights would be lost"}
	case device.Type == torch.DeviceCUDA && device.Index >= torch.CUDADeviceCount():
		return &Error{Class: torch.ErrNoDevice, Detail: device.String(), Expected: fmt.Sprintf("one of the %d GPUs that libtorch sees", torch.CUDADeviceCount())}
	}
	what := "moving " + p.Class()
	if err := p.present(what); err != nil {
		return err
	}
	if p.dispatch != nil && device != (torch.Device{}) {
		return &Error{Class: ErrUnsupported, Detail: what, Actual: "a model on several devices", Remedy: "load it with another device map"}
	}
	if err := torch.TryDo(func() { nn.To(p.self, device, dtype) }); err != nil {
		return &Error{Detail: what, Err: err}
	}
	return nil
}

// present refuses what needs all weights when some have no data here.
func (p *PreTrainedModel) present(what string) error {
	defer p.lock()()
	away := p.offloadedNames()
	for _, s := range nn.Slots(p.self) {
		if away[s.Name] || s.Tensor().Device() == torch.Meta {
			return &Error{Tensor: s.Name, Class: ErrUnsupported, Detail: what, Actual: "a weight that is offloaded",
				Remedy: "load the model without offloading"}
		}
	}
	return nil
}

// CPU moves the model to the CPU.
func (p *PreTrainedModel) CPU() error { return p.To(torch.CPU, 0) }

// CUDA moves the model to a GPU.
func (p *PreTrainedModel) CUDA(index int) error { return p.To(torch.CUDA(index), 0) }

// Half converts the model to float16.
func (p *PreTrainedModel) Half() error { return p.To(torch.Device{}, torch.Float16) }

// BFloat16 converts the model to bfloat16.
func (p *PreTrainedModel) BFloat16() error { return p.To(torch.Device{}, torch.BFloat16) }

// Float converts the model to float32.
func (p *PreTrainedModel) Float() error { return p.To(torch.Device{}, torch.Float32) }

// Double converts the model to float64.
func (p *PreTrainedModel) Double() error { return p.To(torch.Device{}, torch.Float64) }

// Dequantize makes the layers of a quantized model dense; of another it is an error, as in transformers.
func (p *PreTrainedModel) Dequantize(torch.DType) error {
	return &Error{Class: ErrUnsupported, Detail: "dequantizing " + p.Class(), Actual: "a model that is not quantized"}
}
