package nn

import (
	"math"
	"slices"

	"github.com/torchgo/torchgo/torch"
)

// MaxPool is a layer that takes maxima and can say where they were: MaxPool, AdaptiveMaxPool and
// FractionalMaxPool over one to three dimensions.
type MaxPool struct {
	Hooks

	// RandomSamples is of FractionalMaxPool: where the windows are; nil: drawn for each call.
	RandomSamples *torch.Tensor `torch:"_random_samples,buffer"` // (B, C, dims) in [0, 1)

	name, args string
	fn         func(x *torch.Tensor) *torch.Tensor // nil: the first result of both
	both       func(x, samples *torch.Tensor) (y, indices *torch.Tensor)
}

// Forward gives the maxima.
func (p *MaxPool) Forward(x *torch.Tensor) *torch.Tensor { return p.Call(x, p.forward) }

func (p *MaxPool) forward(x *torch.Tensor) *torch.Tensor {
	if p.fn != nil {
		return p.fn(x)
	}
	y, _ := p.both(x, p.RandomSamples)
	return y
}

// ForwardIndices also gives their places in the input's flattened dimensions, which MaxUnpool takes
// (PyTorch's return_indices).
func (p *MaxPool) ForwardIndices(x *torch.Tensor) (y, indices *torch.Tensor) {
	out := p.CallAll([]*torch.Tensor{x}, func(in []*torch.Tensor) []*torch.Tensor {
		y, i := p.both(in[0], p.RandomSamples)
		return []*torch.Tensor{y, i}
	})
	return out[0], out[1]
}

// ModuleName is the name of PyTorch's class.
func (p *MaxPool) ModuleName() string { return p.name }

// ExtraRepr is what PyTorch prints in the parentheses.
func (p *MaxPool) ExtraRepr() string { return p.args }

// PoolOptions are the optional arguments of pooling layers; each uses those that it has in PyTorch.
type PoolOptions struct {
	Stride          Size            // default: the kernel's size
	Padding         Size            // default: 0
	Dilation        Size            // of MaxPool: distance of the window's elements; default: 1
	CeilMode        bool            // the last window may reach beyond the edge
	CountIncludePad torch.Opt[bool] // of AvgPool: zeros of the padding count; default: true
	DivisorOverride torch.Opt[int]  // of AvgPool2d and 3d: what sums are divided by; default: the window's size
}

func (o PoolOptions) resolve(op string, dims int, kernel Size) (k, stride, padding, dilation []int) {
	k = sizes(op, "kernel_size", kernel, dims, 1)
	stride = k
	if o.Stride != nil {
		stride = sizes(op, "stride", o.Stride, dims, 1)
	}
	return k, stride, sizes(op, "padding", o.Padding, dims, 0), sizes(op, "dilation", o.Dilation, dims, 1)
}

// sizeText is how Python prints a size as it was given: 2 or (2, 3).
func sizeText(v []int) string {
	if len(v) > 0 && slices.Min(v) == slices.Max(v) {
		return itoa(v[0])
	}
	return tuple(v)
}

// NewMaxPool1d takes the maximum of each window: (B, C, L) or (C, L) → (B, C, L'),
// L' = ⌊(L + 2·Padding - Dilation·(kernel-1) - 1) / Stride⌋ + 1.
func NewMaxPool1d(kernel Size, opts ...PoolOptions) *MaxPool { return maxPool(1, kernel, first(opts)) }

// NewMaxPool2d is NewMaxPool1d over (B, C, H, W) or (C, H, W).
func NewMaxPool2d(kernel Size, opts ...PoolOptions) *MaxPool { return maxPool(2, kernel, first(opts)) }

// NewMaxPool3d is NewMaxPool1d over (B, C, D, H, W) or (C, D, H, W).
func NewMaxPool3d(kernel Size, opts ...PoolOptions) *MaxPool { return maxPool(3, kernel, first(opts)) }

func maxPool(dims int, kernel Size, opt PoolOptions) *MaxPool {
	k, stride, padding, dilation := opt.resolve("max_pool", dims, kernel)
	p := &MaxPool{name: "MaxPool" + itoa(dims) + "d", args: "kernel_size=" + sizeText(k) + ", stride=" + sizeText(stride) +
		", padding=" + sizeText(padding) + ", dilation=" + sizeText(dilation) + ", ceil_mode=" + boolean(opt.CeilMode)}
	o := torch.MaxPool1dOptions{Stride: stride, Padding: padding, Dilation: dilation, CeilMode: opt.CeilMode}
	switch dims {
	case 1:
		p.fn = func(x *torch.Tensor) *torch.Tensor { return torch.MaxPool1d(x, k, o) }
		p.both = func(x, _ *torch.Tensor) (y, i *torch.Tensor) {
			return torch.MaxPool1dWithIndices(x, k, torch.MaxPool1dWithIndicesOptions(o))
		}
	case 2:
		p.fn = func(x *torch.Tensor) *torch.Tensor { return torch.MaxPool2d(x, k, torch.MaxPool2dOptions(o)) }
		p.both = func(x, _ *torch.Tensor) (y, i *torch.Tensor) {
			return torch.MaxPool2dWithIndices(x, k, torch.MaxPool2dWithIndicesOptions(o))
		}
	case 3:
		p.fn = func(x *torch.Tensor) *torch.Tensor { return torch.MaxPool3d(x, k, torch.MaxPool3dOptions(o)) }
		p.both = func(x, _ *torch.Tensor) (y, i *torch.Tensor) {
			return torch.MaxPool3dWithIndices(x, k, torch.MaxPool3dWithIndicesOptions(o))
		}
	}
	return p
}

// NewAvgPool1d takes the mean of each window: (B, C, L) or (C, L) → (B, C, L'),
// L' = ⌊(L + 2·Padding - kernel) / Stride⌋ + 1.
func NewAvgPool1d(kernel Size, opts ...PoolOptions) *Func { return avgPool(1, kernel, first(opts)) }

// NewAvgPool2d is NewAvgPool1d over (B, C, H, W) or (C, H, W).
func NewAvgPool2d(kernel Size, opts ...PoolOptions) *Func { return avgPool(2, kernel, first(opts)) }

// NewAvgPool3d is NewAvgPool1d over (B, C, D, H, W) or (C, D, H, W).
func NewAvgPool3d(kernel Size, opts ...PoolOptions) *Func { return avgPool(3, kernel, first(opts)) }

func avgPool(dims int, kernel Size, opt PoolOptions) *Func {
	k, stride, padding, _ := opt.resolve("avg_pool", dims, kernel)
	args := "kernel_size=" + sizeText(k) + ", stride=" + sizeText(stride) + ", padding=" + sizeText(padding)
	if dims == 1 { // PyTorch's AvgPool1d keeps tuples
		args = "kernel_size=" + tuple(k) + ", stride=" + tuple(stride) + ", padding=" + tuple(padding)
	}
	o := torch.AvgPool2dOptions{Stride: stride, Padding: padding, CeilMode: opt.CeilMode, CountIncludePad: opt.CountIncludePad,
		DivisorOverride: opt.DivisorOverride}
	return function("AvgPool"+itoa(dims)+"d", args, func(x *torch.Tensor) *torch.Tensor {
		switch dims {
		case 1:
			return torch.AvgPool1d(x, k, torch.AvgPool1dOptions{Stride: stride, Padding: padding, CeilMode: o.CeilMode, CountIncludePad: o.CountIncludePad})
		case 2:
			return torch.AvgPool2d(x, k, o)
		}
		return torch.AvgPool3d(x, k, torch.AvgPool3dOptions(o))
	})
}

// NewLPPool1d takes the p-norm of each window: y = (Σ xᵖ)^(1/p). p may be ±Inf: the greatest or least magnitude.
func NewLPPool1d(p float64, kernel Size, opts ...PoolOptions) *Func {
	return lpPool(1, p, kernel, first(opts))
}

// NewLPPool2d is NewLPPool1d over (B, C, H, W) or (C, H, W).
func NewLPPool2d(p float64, kernel Size, opts ...PoolOptions) *Func {
	return lpPool(2, p, kernel, first(opts))
}

// NewLPPool3d is NewLPPool1d over (B, C, D, H, W) or (C, D, H, W).
func NewLPPool3d(p float64, kernel Size, opts ...PoolOptions) *Func {
	return lpPool(3, p, kernel, first(opts))
}

func lpPool(dims int, p float64, kernel Size, opt PoolOptions) *Func {
	if p == 0 {
		fail("lp_pool", "norm_type must be a non-zero value, but got 0")
	}
	opt.Padding, opt.Dilation, opt.CountIncludePad, opt.DivisorOverride = nil, nil, torch.Opt[bool]{}, torch.Opt[int]{}
	k, stride, _, _ := opt.resolve("lp_pool", dims, kernel)
	strides := "None"
	if opt.Stride != nil {
		strides = sizeText(stride)
	}
	args := "norm_type=" + number(p) + ", kernel_size=" + sizeText(k) + ", stride=" + strides + ", ceil_mode=" + boolean(opt.CeilMode)
	name := "LPPool" + itoa(dims) + "d"
	if math.IsInf(p, 0) {
		greatest := maxPool(dims, kernel, opt)
		return function(name, args, func(x *torch.Tensor) *torch.Tensor {
			if p < 0 {
				return greatest.fn(x.Abs().Neg()).Neg()
			}
			return greatest.fn(x.Abs())
		})
	}
	mean, count := avgPool(dims, kernel, opt), 1
	for _, n := range k {
		count *= n
	}
	return function(name, args, func(x *torch.Tensor) *torch.Tensor {
		y := mean.forward(x.PowScalar(p))
		return y.Sign().Mul(y.Abs().Relu()).MulScalar(count).PowScalar(1 / p)
	})
}

// Keep, as an output size of adaptive pooling, is that of the input (PyTorch's None).
const Keep = -1

// NewAdaptiveAvgPool1d divides its input into size windows and takes the mean of each: (B, C, L) or (C, L) →
// (B, C, size).
func NewAdaptiveAvgPool1d(size Size) *Func { return adaptiveAvg(1, size, torch.AdaptiveAvgPool1d) }

// NewAdaptiveAvgPool2d is NewAdaptiveAvgPool1d over (B, C, H, W) or (C, H, W). A size may be Keep.
func NewAdaptiveAvgPool2d(size Size) *Func { return adaptiveAvg(2, size, torch.AdaptiveAvgPool2d) }

// NewAdaptiveAvgPool3d is NewAdaptiveAvgPool1d over (B, C, D, H, W) or (C, D, H, W). A size may be Keep.
func NewAdaptiveAvgPool3d(size Size) *Func { return adaptiveAvg(3, size, torch.AdaptiveAvgPool3d) }

func adaptiveAvg(dims int, size Size, op func(*torch.Tensor, ...int) *torch.Tensor) *Func {
	s := sizes("adaptive_avg_pool", "output_size", size, dims, 1)
	return function("AdaptiveAvgPool"+itoa(dims)+"d", "output_size="+adaptiveText(s), func(x *torch.Tensor) *torch.Tensor {
		return op(x, kept(x, s)...)
	})
}

// NewAdaptiveMaxPool1d divides its input into size windows and takes the maximum of each: (B, C, L) or (C, L) →
// (B, C, size).
func NewAdaptiveMaxPool1d(size Size) *MaxPool { return adaptiveMax(1, size, torch.AdaptiveMaxPool1d) }

// NewAdaptiveMaxPool2d is NewAdaptiveMaxPool1d over (B, C, H, W) or (C, H, W). A size may be Keep.
func NewAdaptiveMaxPool2d(size Size) *MaxPool { return adaptiveMax(2, size, torch.AdaptiveMaxPool2d) }

// NewAdaptiveMaxPool3d is NewAdaptiveMaxPool1d over (B, C, D, H, W) or (C, D, H, W). A size may be Keep.
func NewAdaptiveMaxPool3d(size Size) *MaxPool { return adaptiveMax(3, size, torch.AdaptiveMaxPool3d) }

func adaptiveMax(dims int, size Size, op func(*torch.Tensor, ...int) (*torch.Tensor, *torch.Tensor)) *MaxPool {
	s := sizes("adaptive_max_pool", "output_size", size, dims, 1)
	return indexed("AdaptiveMaxPool"+itoa(dims)+"d", "output_size="+adaptiveText(s), func(x, _ *torch.Tensor) (y, i *torch.Tensor) {
		return op(x, kept(x, s)...)
	})
}

func indexed(name, args string, both func(x, samples *torch.Tensor) (y, indices *torch.Tensor)) *MaxPool {
	return &MaxPool{name: name, args: args, both: both}
}

func adaptiveText(s []int) string {
	if slices.Contains(s, Keep) {
		text := ""
		for i, n := range s {
			if i > 0 {
				text += ", "
			}
			if n == Keep {
				text += "None"
			} else {
				text += itoa(n)
			}
		}
		return "(" + text + ")"
	}
	return sizeText(s)
}

// kept puts x's own sizes where s says so.
func kept(x *torch.Tensor, s []int) []int {
	if !slices.Contains(s, Keep) {
		return s
	}
	s, shape := slices.Clone(s), x.Shape()
	for i := range s {
		if s[i] == Keep && len(shape) >= len(s) {
			s[i] = shape[len(shape)-len(s)+i]
		}
	}
	return s
}

// FractionalMaxPoolOptions say how large the output is: one of the first two fields has to be set.
type FractionalMaxPoolOptions struct {
	OutputSize    Size
	OutputRatio   []float64     // of the input's sizes, each in (0, 1); one for all or one for each
	RandomSamples *torch.Tensor // (B, C, dims) in [0, 1): where the windows are; default: drawn for each call
}

// NewFractionalMaxPool2d takes the maximum of windows at random places that divide (B, C, H, W) or (C, H, W) into
// a grid of the output's size.
//
// Source: Graham, Fractional Max-Pooling, https://arxiv.org/abs/1412.6071.
func NewFractionalMaxPool2d(kernel Size, o FractionalMaxPoolOptions) *MaxPool {
	return fractionalMax(2, kernel, o, torch.FractionalMaxPool2d)
}

// NewFractionalMaxPool3d is NewFractionalMaxPool2d over (B, C, D, H, W) or (C, D, H, W).
func NewFractionalMaxPool3d(kernel Size, o FractionalMaxPoolOptions) *MaxPool {
	return fractionalMax(3, kernel, o, torch.FractionalMaxPool3d)
}

func fractionalMax(dims int, kernel Size, o FractionalMaxPoolOptions,
	op func(x *torch.Tensor, kernel, size []int, samples *torch.Tensor) (*torch.Tensor, *torch.Tensor)) *MaxPool {
	k := sizes("fractional_max_pool", "kernel_size", kernel, dims, 1)
	ratio := o.OutputRatio
	if len(ratio) == 1 {
		ratio = slices.Repeat(ratio, dims)
	}
	switch {
	case (o.OutputSize == nil) == (ratio == nil):
		fail("fractional_max_pool", "requires specifying either an output size, or a pooling ratio")
	case ratio != nil && (len(ratio) != dims || slices.Min(ratio) <= 0 || slices.Max(ratio) >= 1):
		fail("fractional_max_pool", "output_ratio must be between 0 and 1 (got %v)", ratio)
	}
	p := indexed("FractionalMaxPool"+itoa(dims)+"d", "", func(x, samples *torch.Tensor) (y, i *torch.Tensor) {
		shape := x.Shape()
		if len(shape) != dims+1 && len(shape) != dims+2 {
			fail("fractional_max_pool", "expected %dD or %dD input (got %dD input)", dims+1, dims+2, len(shape))
		}
		space := shape[len(shape)-dims:]
		var size []int
		if ratio == nil {
			size = sizes("fractional_max_pool", "output_size", o.OutputSize, dims, 1)
		}
		for d := range ratio {
			size = append(size, int(float64(space[d])*ratio[d]))
		}
		if samples == nil {
			batch := 1
			if len(shape) == dims+2 {
				batch = shape[0]
			}
			samples = torch.Rand([]int{batch, shape[len(shape)-dims-1], dims}, torch.TensorOptions{DType: x.DType(), Device: x.Device()})
		}
		return op(x, k, size, samples)
	})
	torch.Keep(o.RandomSamples)
	p.RandomSamples = o.RandomSamples
	return p
}

// MaxUnpool puts values back where a MaxPool took them from, zeros elsewhere.
type MaxUnpool struct {
	Hooks

	Kernel, Stride, Padding []int // an element for each dimension
}

// NewMaxUnpool1d undoes NewMaxPool1d.
func NewMaxUnpool1d(kernel Size, opts ...PoolOptions) *MaxUnpool {
	return maxUnpool(1, kernel, first(opts))
}

// NewMaxUnpool2d undoes NewMaxPool2d.
func NewMaxUnpool2d(kernel Size, opts ...PoolOptions) *MaxUnpool {
	return maxUnpool(2, kernel, first(opts))
}

// NewMaxUnpool3d undoes NewMaxPool3d.
func NewMaxUnpool3d(kernel Size, opts ...PoolOptions) *MaxUnpool {
	return maxUnpool(3, kernel, first(opts))
}

func maxUnpool(dims int, kernel Size, opt PoolOptions) *MaxUnpool {
	k, stride, padding, _ := opt.resolve("max_unpool", dims, kernel)
	return &MaxUnpool{Kernel: k, Stride: stride, Padding: padding}
}

// Forward maps (B, C, L'…) and the indices to (B, C, L…). Without sizes L is the least that the pooling may have
// started from: (L'-1)·Stride - 2·Padding + Kernel.
func (p *MaxUnpool) Forward(x, indices *torch.Tensor, size ...int) *torch.Tensor {
	return p.call2(x, indices, func(x, indices *torch.Tensor) *torch.Tensor { return p.forward(x, indices, size) })
}

func (p *MaxUnpool) forward(x, indices *torch.Tensor, size []int) *torch.Tensor {
	dims, shape := len(p.Kernel), x.Shape()
	if len(size) == dims+2 {
		size = size[2:]
	}
	if len(shape) < dims || size != nil && len(size) != dims {
		fail("max_unpool", "output_size should be a sequence containing %d or %d elements, but it has a length of '%d'", dims, dims+2, len(size))
	}
	least := make([]int, dims)
	for d := range dims {
		least[d] = (shape[len(shape)-dims+d]-1)*p.Stride[d] + p.Kernel[d] - 2*p.Padding[d]
		if size != nil && (size[d] <= least[d]-p.Stride[d] || size[d] >= least[d]+p.Stride[d]) {
			fail("max_unpool", "invalid output_size %q (dim %d must be between %d and %d)", tuple(size), d, least[d]-p.Stride[d], least[d]+p.Stride[d])
		}
	}
	if size == nil {
		size = least
	}
	switch dims {
	case 1:
		return torch.MaxUnpool2d(x.Unsqueeze(-1), indices.Unsqueeze(-1), append(slices.Clone(size), 1)...).SqueezeDim(-1)
	case 2:
		return torch.MaxUnpool2d(x, indices, size...)
	}
	return torch.MaxUnpool3d(x, indices, size, p.Stride, p.Padding...)
}

// ModuleName is the name of PyTorch's class.
func (p *MaxUnpool) ModuleName() string { return "MaxUnpool" + itoa(len(p.Kernel)) + "d" }

// ExtraRepr is what PyTorch prints in the parentheses.
func (p *MaxUnpool) ExtraRepr() string {
	return "kernel_size=" + tuple(p.Kernel) + ", stride=" + tuple(p.Stride) + ", padding=" + tuple(p.Padding)
}
