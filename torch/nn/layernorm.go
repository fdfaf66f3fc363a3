package nn

import (
	"github.com/torchgo/torchgo/torch"
	"github.com/torchgo/torchgo/torch/nn/nninit"
)

// LayerNorm computes y = (x - E[x]) / √(Var[x] + ε) · γ + β over the last dimensions: (…, Shape) → (…, Shape).
//
// Source: Ba et al., Layer Normalization, https://arxiv.org/abs/1607.06450.
type LayerNorm struct {
	Hooks

	Weight *torch.Tensor `torch:"weight"` // γ: Shape, nil: 1
	Bias   *torch.Tensor `torch:"bias"`   // β: Shape, nil: 0

	Shape []int // of the normalised dimensions
	Eps   float64
}

// LayerNormOptions are the optional arguments of NewLayerNorm.
type LayerNormOptions struct {
	Eps               torch.Opt[float64] // default: 1e-5
	ElementwiseAffine torch.Opt[bool]    // there are γ and β; default: true
	Bias              torch.Opt[bool]    // there is β; default: true
}

// NewLayerNorm makes a float32 one on the CPU over the last dimension, or those of shape, with γ = 1 and β = 0.
func NewLayerNorm(shape Size, opts ...LayerNormOptions) *LayerNorm {
	return Builder{}.LayerNorm(shape, opts...)
}

// LayerNorm makes a layer norm over the last dimension, or those of shape.
func (b Builder) LayerNorm(shape Size, opts ...LayerNormOptions) *LayerNorm {
	o := first(opts)
	n := &LayerNorm{Shape: shapeOf("layer_norm", shape), Eps: o.Eps.Or(1e-5)}
	n.Weight, n.Bias = b.scaleAndShift(n.Shape, o.ElementwiseAffine.Or(true), o.Bias.Or(true))
	return n
}

// scaleAndShift makes γ = 1 and β = 0, nil where they are not wanted.
func (b Builder) scaleAndShift(shape []int, affine, bias bool) (weight, shift *torch.Tensor) {
	if !affine {
		return nil, nil
	}
	weight = b.Parameter(shape...)
	if bias {
		shift = b.Parameter(shape...)
	}
	b.init(func() {
		nninit.Ones_(weight)
		if shift != nil {
			nninit.Zeros_(shift)
		}
	})
	return weight, shift
}

// Forward keeps the shape.
func (n *LayerNorm) Forward(x *torch.Tensor) *torch.Tensor { return n.Call(x, n.forward) }

func (n *LayerNorm) forward(x *torch.Tensor) *torch.Tensor {
	return torch.LayerNorm(x, n.Shape, torch.LayerNormOptions{Weight: n.Weight, Bias: n.Bias, Eps: torch.Some(n.Eps)})
}

// ExtraRepr is what PyTorch prints in the parentheses.
func (n *LayerNorm) ExtraRepr() string {
	return tuple(n.Shape) + ", eps=" + number(n.Eps) + ", elementwise_affine=" + boolean(n.Weight != nil) + ", bias=" + boolean(n.Bias != nil)
}

// RMSNorm computes y = x / √(E[x²] + ε) · γ over the last dimensions: (…, Shape) → (…, Shape).
//
// Source: Zhang and Sennrich, Root Mean Square Layer Normalization, https://arxiv.org/abs/1910.07467.
type RMSNorm struct {
	Hooks

	Weight *torch.Tensor `torch:"weight"` // γ: Shape, nil: 1

	Shape []int              // of the normalised dimensions
	Eps   torch.Opt[float64] // unset: the machine epsilon of x's dtype
}

// RMSNormOptions are the optional arguments of NewRMSNorm.
type RMSNormOptions struct {
	Eps               torch.Opt[float64] // default: the machine epsilon of the input's dtype
	ElementwiseAffine torch.Opt[bool]    // there is γ; default: true
}

// NewRMSNorm makes a float32 one on the CPU over the last dimension, or those of shape, with γ = 1.
func NewRMSNorm(shape Size, opts ...RMSNormOptions) *RMSNorm {
	return Builder{}.RMSNorm(shape, opts...)
}

// RMSNorm makes an RMS norm over the last dimension, or those of shape.
func (b Builder) RMSNorm(shape Size, opts ...RMSNormOptions) *RMSNorm {
	o := first(opts)
	n := &RMSNorm{Shape: shapeOf("rms_norm", shape), Eps: o.Eps}
	n.Weight, _ = b.scaleAndShift(n.Shape, o.ElementwiseAffine.Or(true), false)
	return n
}

// Forward keeps the shape.
func (n *RMSNorm) Forward(x *torch.Tensor) *torch.Tensor { return n.Call(x, n.forward) }

func (n *RMSNorm) forward(x *torch.Tensor) *torch.Tensor {
	return torch.RmsNorm(x, n.Shape, torch.RmsNormOptions{Weight: n.Weight, Eps: n.Eps})
}

// ExtraRepr is what PyTorch prints in the parentheses.
func (n *RMSNorm) ExtraRepr() string {
	eps := "None"
	if v, ok := n.Eps.Get(); ok {
		eps = number(v)
	}
	return tuple(n.Shape) + ", eps=" + eps + ", elementwise_affine=" + boolean(n.Weight != nil)
}

// GroupNorm computes y = (x - E[x]) / √(Var[x] + ε) · γ + β over each of Groups groups of channels:
// (B, C, …) → (B, C, …), γ and β for each channel.
//
// Source: Wu and He, Group Normalization, https://arxiv.org/abs/1803.08494.
type GroupNorm struct {
	Hooks

	Weight *torch.Tensor `torch:"weight"` // γ: (C), nil: 1
	Bias   *torch.Tensor `torch:"bias"`   // β: (C), nil: 0

	Groups, Channels int
	Eps              float64
}

// GroupNormOptions are the optional arguments of NewGroupNorm.
type GroupNormOptions struct {
	Eps    torch.Opt[float64] // default: 1e-5
	Affine torch.Opt[bool]    // there are γ and β; default: true
	Bias   torch.Opt[bool]    // there is β; default: true
}

// NewGroupNorm makes a float32 one on the CPU with γ = 1 and β = 0.
func NewGroupNorm(groups, channels int, opts ...GroupNormOptions) *GroupNorm {
	return Builder{}.GroupNorm(groups, channels, opts...)
}

// GroupNorm makes a group norm. channels must be a multiple of groups.
func (b Builder) GroupNorm(groups, channels int, opts ...GroupNormOptions) *GroupNorm {
	if groups <= 0 || channels%groups != 0 {
		fail("group_norm", "num_channels (%d) must be divisible by num_groups (%d)", channels, groups)
	}
	o := first(opts)
	n := &GroupNorm{Groups: groups, Channels: channels, Eps: o.Eps.Or(1e-5)}
	n.Weight, n.Bias = b.scaleAndShift([]int{channels}, o.Affine.Or(true), o.Bias.Or(true))
	return n
}

// Forward keeps the shape.
func (n *GroupNorm) Forward(x *torch.Tensor) *torch.Tensor { return n.Call(x, n.forward) }

func (n *GroupNorm) forward(x *torch.Tensor) *torch.Tensor {
	return torch.GroupNorm(x, n.Groups, torch.GroupNormOptions{Weight: n.Weight, Bias: n.Bias, Eps: torch.Some(n.Eps)})
}

// ExtraRepr is what PyTorch prints in the parentheses.
func (n *GroupNorm) ExtraRepr() string {
	return itoa(n.Groups) + ", " + itoa(n.Channels) + ", eps=" + number(n.Eps) + ", affine=" + boolean(n.Weight != nil) + ", bias=" + boolean(n.Bias != nil)
}

// NewLocalResponseNorm divides each value by a measure of its neighbours in the channel dimension:
//
//	y[c] = x[c] / (k + α/n · Σ x[c']²)^β, c' among the n channels around c
//	(B, C, …) → (B, C, …)
//
// The sum counts zeros beyond the channels.
//
// Source: Krizhevsky et al., ImageNet classification with deep convolutional neural networks, 2012.
func NewLocalResponseNorm(size int, opts ...LocalResponseNormOptions) *Func {
	o := first(opts)
	alpha, beta, k := o.Alpha.Or(1e-4), o.Beta.Or(0.75), o.K.Or(1)
	args := itoa(size) + ", alpha=" + number(alpha) + ", beta=" + number(beta) + ", k=" + number(k)
	return function("LocalResponseNorm", args, func(x *torch.Tensor) *torch.Tensor {
		shape := x.Shape()
		if len(shape) < 3 {
			fail("local_response_norm", "Expected 3D or higher dimensionality input (got %d dimensions)", len(shape))
		}
		if x.Numel() == 0 {
			return x
		}
		// The window slides along the channels alone: they are a row of a picture one channel deep.
		square := x.Mul(x).Reshape(shape[0], 1, shape[1], -1)
		square = torch.Pad(square, []int{0, 0, size / 2, (size - 1) / 2})
		mean := torch.AvgPool2d(square, []int{size, 1}, torch.AvgPool2dOptions{Stride: []int{1}}).Reshape(shape...)
		return x.Div(mean.MulScalar(alpha).AddScalar(k).PowScalar(beta))
	})
}

// LocalResponseNormOptions are the optional arguments of NewLocalResponseNorm.
type LocalResponseNormOptions struct {
	Alpha torch.Opt[float64] // default: 1e-4
	Beta  torch.Opt[float64] // default: 0.75
	K     torch.Opt[float64] // default: 1
}
