package nn

import "github.com/torchgo/torchgo/torch"

// Builder makes modules with one dtype on one device. The zero value makes float32 ones on the CPU,
// initialised as PyTorch does. On the meta device nothing is allocated or initialised: the way models are
// built before their weights are read.
//
//	b := nn.Builder{Device: torch.Meta}
//	proj := b.Linear(768, 3072)
type Builder struct {
	DType  torch.DType  // default: float32
	Device torch.Device // default: CPU
	NoInit bool         // leave the values undefined: they will be overwritten
}

func (b Builder) options(dtype torch.DType) torch.EmptyOptions {
	if dtype == 0 {
		dtype = torch.Float32
	}
	return torch.EmptyOptions{DType: dtype, Device: b.Device}
}

// Parameter makes an uninitialised trainable tensor.
func (b Builder) Parameter(shape ...int) *torch.Tensor {
	t := torch.Empty(shape, b.options(b.DType))
	torch.Keep(t)
	return t.SetRequiresGrad(t.DType().IsFloatingPoint())
}

// Empty makes an uninitialised tensor of a given dtype that is not trained: room for a buffer.
func (b Builder) Empty(dtype torch.DType, shape ...int) *torch.Tensor {
	t := torch.Empty(shape, b.options(dtype))
	torch.Keep(t)
	return t
}

// init runs fn without gradients unless the values are not wanted.
func (b Builder) init(fn func()) {
	if b.NoInit || b.Device == torch.Meta {
		return
	}
	torch.Scope(func() { torch.NoGrad(fn) })
}
