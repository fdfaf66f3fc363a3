package nn

import (
	"sync"

	"github.com/torchgo/torchgo/torch"
)

// lazy makes a layer's tensors when the first input tells how many features or channels it has. Until then the layer
// has none: they are in no state dict and no optimizer. Several goroutines may be first.
type lazy struct {
	builder *Builder // nil: the layer was made whole
	out     int
	bias    bool

	once sync.Once
}

// waits tells that the layer has no tensors yet.
func (l *Linear) waits() bool { return l.Weight == nil }
func (c *Conv) waits() bool   { return c.Weight == nil }

// NewLazyLinear is NewLinear for an input size that the first input tells.
func NewLazyLinear(out int, opts ...LinearOptions) *Linear { return Builder{}.LazyLinear(out, opts...) }

// LazyLinear is Builder.Linear for an input size that the first input tells.
func (b Builder) LazyLinear(out int, opts ...LinearOptions) *Linear {
	return &Linear{lazy: lazy{builder: &b, out: out, bias: first(opts).Bias.Or(true)}}
}

func (l *Linear) materialise(x *torch.Tensor) {
	l.lazy.once.Do(func() { l.lazy.builder.linear(l, x.Size(-1), l.lazy.out, l.lazy.bias) })
}

func (c *Conv) materialise(x *torch.Tensor) {
	c.lazy.once.Do(func() {
		shape, dims := x.Shape(), len(c.Geometry.Kernel)
		if len(shape) != dims+1 && len(shape) != dims+2 {
			fail("conv", "Expected %dD (unbatched) or %dD (batched) input, but got input of size: %v", dims+1, dims+2, shape)
		}
		c.lazy.builder.kernel(c, shape[len(shape)-dims-1], c.lazy.out, c.lazy.bias)
	})
}

// NewLazyConv1d is NewConv1d for a number of input channels that the first input tells.
func NewLazyConv1d(out int, kernel Size, opts ...ConvOptions) *Conv1d {
	return Builder{}.Conv1d(0, out, kernel, opts...)
}

// NewLazyConv2d is NewConv2d for a number of input channels that the first input tells.
func NewLazyConv2d(out int, kernel Size, opts ...ConvOptions) *Conv2d {
	return Builder{}.Conv2d(0, out, kernel, opts...)
}

// NewLazyConv3d is NewConv3d for a number of input channels that the first input tells.
func NewLazyConv3d(out int, kernel Size, opts ...ConvOptions) *Conv3d {
	return Builder{}.Conv3d(0, out, kernel, opts...)
}

// NewLazyConvTranspose1d is NewConvTranspose1d for a number of input channels that the first input tells.
func NewLazyConvTranspose1d(out int, kernel Size, opts ...ConvTransposeOptions) *ConvTranspose1d {
	return Builder{}.ConvTranspose1d(0, out, kernel, opts...)
}

// NewLazyConvTranspose2d is NewConvTranspose2d for a number of input channels that the first input tells.
func NewLazyConvTranspose2d(out int, kernel Size, opts ...ConvTransposeOptions) *ConvTranspose2d {
	return Builder{}.ConvTranspose2d(0, out, kernel, opts...)
}

// NewLazyConvTranspose3d is NewConvTranspose3d for a number of input channels that the first input tells.
func NewLazyConvTranspose3d(out int, kernel Size, opts ...ConvTransposeOptions) *ConvTranspose3d {
	return Builder{}.ConvTranspose3d(0, out, kernel, opts...)
}
