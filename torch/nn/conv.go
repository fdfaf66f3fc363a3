package nn

import (
	"slices"

	"github.com/torchgo/torchgo/torch"
)

// Conv is what Conv1d, Conv2d and Conv3d have in common: y[b, o] = b[o] + Σᵢ W[o, i] ⋆ x[b, i], where ⋆ is
// cross-correlation and i runs over the input channels of o's group.
//
//	(B, in, L…) or (in, L…) → (B, out, L'…),  L' = ⌊(L + 2·Padding - Dilation·(K-1) - 1) / Stride⌋ + 1
type Conv struct {
	Hooks

	Weight ConvWeight    `torch:",inline"`
	Bias   *torch.Tensor `torch:"bias"` // (out), nil: none

	Geometry ConvGeometry

	lazy lazy
}

// ConvGeometry is how a kernel moves over its input. There is an element for each dimension.
type ConvGeometry struct {
	Kernel, Stride, Padding, Dilation []int

	OutputPadding []int // of a transposed convolution: added to one side of the output
	Groups        int   // inputs and outputs that are kept apart
	Transposed    bool
	Same          bool        // pad so that the length stays; Padding is then 0
	Valid         bool        // written padding="valid"; Padding is then 0
	PaddingMode   PaddingMode // what is beyond the edges
}

// PaddingMode names what is beyond the edges of an input.
type PaddingMode string

// The padding modes; the zero value means Zeros.
const (
	Zeros     PaddingMode = "zeros"
	Reflect   PaddingMode = "reflect"   // c b | a b c | b a
	Replicate PaddingMode = "replicate" // a a | a b c | c c
	Circular  PaddingMode = "circular"  // b c | a b c | a b
)

// ConvWeight is the kernel of a convolution. It is a module: its tags name its own state-dict entries.
type ConvWeight interface {
	// Convolve computes the convolution of x, plus bias where it is not nil.
	Convolve(x, bias *torch.Tensor, g *ConvGeometry) *torch.Tensor
	// Channels are the numbers of input and output channels.
	Channels(g *ConvGeometry) (in, out int)
}

// Kernel is a ConvWeight stored as it is.
type Kernel struct {
	W *torch.Tensor `torch:"weight"` // (out, in/groups, K…); transposed: (in, out/groups, K…)
}

// Convolve implements ConvWeight.
func (k *Kernel) Convolve(x, bias *torch.Tensor, g *ConvGeometry) *torch.Tensor {
	return convolve(x, k.W, bias, g)
}

// Channels implements ConvWeight.
func (k *Kernel) Channels(g *ConvGeometry) (in, out int) { return g.channels(k.W.Shape()) }

func (g *ConvGeometry) channels(shape []int) (in, out int) {
	if g.Transposed {
		return shape[0], shape[1] * g.Groups
	}
	return shape[1] * g.Groups, shape[0]
}

// Dense is the kernel, for weights that are computed from it.
func (k *Kernel) Dense() *torch.Tensor { return k.W }

// convolve is the operator for the geometry.
func convolve(x, w, bias *torch.Tensor, g *ConvGeometry) *torch.Tensor {
	groups := torch.Some(g.Groups)
	if g.Transposed {
		o := torch.ConvTranspose1dOptions{Bias: bias, Stride: g.Stride, Padding: g.Padding, OutputPadding: g.OutputPadding,
			Groups: groups, Dilation: g.Dilation}
		switch len(g.Kernel) {
		case 1:
			return torch.ConvTranspose1d(x, w, o)
		case 2:
			return torch.ConvTranspose2d(x, w, torch.ConvTranspose2dOptions(o))
		}
		return torch.ConvTranspose3d(x, w, torch.ConvTranspose3dOptions(o))
	}
	if g.Same && g.zeros() {
		o := torch.Conv1dPaddingOptions{Bias: bias, Stride: g.Stride, Padding: torch.Some("same"), Dilation: g.Dilation, Groups: groups}
		switch len(g.Kernel) {
		case 1:
			return torch.Conv1dPadding(x, w, o)
		case 2:
			return torch.Conv2dPadding(x, w, torch.Conv2dPaddingOptions(o))
		}
		return torch.Conv3dPadding(x, w, torch.Conv3dPaddingOptions(o))
	}
	o := torch.Conv1dOptions{Bias: bias, Stride: g.Stride, Padding: g.Padding, Dilation: g.Dilation, Groups: groups}
	if !g.zeros() {
		if around := g.around(); slices.Max(around) > 0 {
			x = torch.Pad(x, around, torch.PadOptions{Mode: torch.Some(string(g.PaddingMode))})
		}
		o.Padding = []int{0}
	}
	switch len(g.Kernel) {
	case 1:
		return torch.Conv1d(x, w, o)
	case 2:
		return torch.Conv2d(x, w, torch.Conv2dOptions(o))
	}
	return torch.Conv3d(x, w, torch.Conv3dOptions(o))
}

func (g *ConvGeometry) zeros() bool { return g.PaddingMode == "" || g.PaddingMode == Zeros }

// around is the padding as the operator pad takes it: left and right of the last dimension first.
func (g *ConvGeometry) around() []int {
	var pad []int
	for i := len(g.Kernel) - 1; i >= 0; i-- {
		left, right := g.Padding[i], g.Padding[i]
		if g.Same {
			total := g.Dilation[i] * (g.Kernel[i] - 1)
			left, right = total/2, total-total/2
		}
		pad = append(pad, left, right)
	}
	return pad
}

// ConvOptions are the optional arguments of NewConv1d, NewConv2d and NewConv3d.
type ConvOptions struct {
	Stride      Size            // default: 1
	Padding     any             // a Size, "valid" (none) or "same" (the length stays; stride 1 only); default: 0
	Dilation    Size            // distance of the kernel's elements; default: 1
	Groups      torch.Opt[int]  // default: 1
	Bias        torch.Opt[bool] // default: true
	PaddingMode PaddingMode     // default: Zeros
}

// Conv1d is a Conv over (B, in, L).
type Conv1d struct{ Conv }

// Conv2d is a Conv over (B, in, H, W).
type Conv2d struct{ Conv }

// Conv3d is a Conv over (B, in, D, H, W).
type Conv3d struct{ Conv }

// NewConv1d makes a float32 layer on the CPU, initialised as PyTorch's nn.Conv1d.
func NewConv1d(in, out int, kernel Size, opts ...ConvOptions) *Conv1d {
	return Builder{}.Conv1d(in, out, kernel, opts...)
}

// NewConv2d makes a float32 layer on the CPU, initialised as PyTorch's nn.Conv2d.
func NewConv2d(in, out int, kernel Size, opts ...ConvOptions) *Conv2d {
	return Builder{}.Conv2d(in, out, kernel, opts...)
}

// NewConv3d makes a float32 layer on the CPU, initialised as PyTorch's nn.Conv3d.
func NewConv3d(in, out int, kernel Size, opts ...ConvOptions) *Conv3d {
	return Builder{}.Conv3d(in, out, kernel, opts...)
}

// Conv1d makes a convolution over one dimension.
func (b Builder) Conv1d(in, out int, kernel Size, opts ...ConvOptions) *Conv1d {
	c := &Conv1d{}
	b.conv(&c.Conv, 1, in, out, kernel, first(opts))
	return c
}

// Conv2d makes a convolution over two dimensions.
func (b Builder) Conv2d(in, out int, kernel Size, opts ...ConvOptions) *Conv2d {
	c := &Conv2d{}
	b.conv(&c.Conv, 2, in, out, kernel, first(opts))
	return c
}

// Conv3d makes a convolution over three dimensions.
func (b Builder) Conv3d(in, out int, kernel Size, opts ...ConvOptions) *Conv3d {
	c := &Conv3d{}
	b.conv(&c.Conv, 3, in, out, kernel, first(opts))
	return c
}

func (b Builder) conv(c *Conv, dims, in, out int, kernel Size, o ConvOptions) {
	g := &c.Geometry
	*g = ConvGeometry{Groups: o.Groups.Or(1), PaddingMode: o.PaddingMode}
	padding := o.Padding
	switch name, _ := padding.(string); name {
	case "":
	case "same":
		g.Same, padding = true, nil
	case "valid":
		g.Valid, padding = true, nil
	default:
		fail("conv", "Invalid padding string '%s', should be one of {'same', 'valid'}", name)
	}
	switch g.PaddingMode {
	case "", Zeros, Reflect, Replicate, Circular:
	default:
		fail("conv", "padding_mode must be one of {'zeros', 'reflect', 'replicate', 'circular'}, but got padding_mode='%s'", g.PaddingMode)
	}
	g.set("conv", dims, kernel, o.Stride, padding, o.Dilation)
	if g.Same && slices.Max(g.Stride) > 1 {
		fail("conv", "padding='same' is not supported for strided convolutions")
	}
	b.whole(c, in, out, o.Bias.Or(true))
}

func (g *ConvGeometry) set(op string, dims int, kernel, stride, padding, dilation Size) {
	g.Kernel = sizes(op, "kernel_size", kernel, dims, 1)
	g.Stride = sizes(op, "stride", stride, dims, 1)
	g.Padding = sizes(op, "padding", padding, dims, 0)
	g.Dilation = sizes(op, "dilation", dilation, dims, 1)
}

// whole makes the tensors of a layer whose geometry is set; later, if in is 0.
func (b Builder) whole(c *Conv, in, out int, bias bool) {
	if in == 0 {
		c.lazy.builder, c.lazy.out, c.lazy.bias = &b, out, bias
		return
	}
	b.kernel(c, in, out, bias)
}

func (b Builder) kernel(c *Conv, in, out int, bias bool) {
	g := &c.Geometry
	switch {
	case g.Groups <= 0:
		fail("conv", "groups must be a positive integer")
	case in%g.Groups != 0:
		fail("conv", "in_channels must be divisible by groups")
	case out%g.Groups != 0:
		fail("conv", "out_channels must be divisible by groups")
	}
	shape := []int{out, in / g.Groups}
	if g.Transposed {
		shape = []int{in, out / g.Groups}
	}
	w := b.Parameter(append(shape, g.Kernel...)...)
	c.Weight = &Kernel{w}
	if bias {
		c.Bias = b.Parameter(out)
	}
	b.init(func() { resetAffine(w, c.Bias) })
}

// Forward maps (B, in, L…) to (B, out, L'…).
func (c *Conv) Forward(x *torch.Tensor) *torch.Tensor { return c.Call(x, c.forward) }

func (c *Conv) forward(x *torch.Tensor) *torch.Tensor { return c.convolve(x, &c.Geometry) }

func (c *Conv) convolve(x *torch.Tensor, g *ConvGeometry) *torch.Tensor {
	if c.lazy.builder != nil {
		c.materialise(x)
	}
	return c.Weight.Convolve(x, c.Bias, g)
}

// ExtraRepr is what PyTorch prints in the parentheses.
func (c *Conv) ExtraRepr() string {
	g := &c.Geometry
	in, out, bias := 0, c.lazy.out, c.lazy.bias
	if c.Weight != nil {
		in, out = c.Weight.Channels(g)
		bias = c.Bias != nil
	}
	s := itoa(in) + ", " + itoa(out) + ", kernel_size=" + tuple(g.Kernel) + ", stride=" + tuple(g.Stride)
	switch {
	case g.Same:
		s += ", padding=same"
	case g.Valid:
		s += ", padding=valid"
	case slices.Max(g.Padding) > 0:
		s += ", padding=" + tuple(g.Padding)
	}
	if slices.Max(g.Dilation) > 1 {
		s += ", dilation=" + tuple(g.Dilation)
	}
	if len(g.OutputPadding) > 0 && slices.Max(g.OutputPadding) > 0 {
		s += ", output_padding=" + tuple(g.OutputPadding)
	}
	if g.Groups != 1 {
		s += ", groups=" + itoa(g.Groups)
	}
	if !bias {
		s += ", bias=False"
	}
	if !g.zeros() {
		s += ", padding_mode=" + string(g.PaddingMode)
	}
	return s
}

// ConvTranspose is what ConvTranspose1d, ConvTranspose2d and ConvTranspose3d have in common: the gradient of a
// convolution with respect to its input, as a layer.
//
//	(B, in, L…) or (in, L…) → (B, out, L'…)
//	L' = (L-1)·Stride - 2·Padding + Dilation·(K-1) + OutputPadding + 1
type ConvTranspose struct{ Conv }

// ConvTransposeOptions are the optional arguments of NewConvTranspose1d, NewConvTranspose2d and
// NewConvTranspose3d.
type ConvTransposeOptions struct {
	Stride        Size            // default: 1
	Padding       Size            // Dilation·(K-1) - Padding zeros are added to both sides of the input; default: 0
	OutputPadding Size            // added to one side of the output; default: 0
	Groups        torch.Opt[int]  // default: 1
	Bias          torch.Opt[bool] // default: true
	Dilation      Size            // distance of the kernel's elements; default: 1
}

// ConvTranspose1d is a ConvTranspose over (B, in, L).
type ConvTranspose1d struct{ ConvTranspose }

// ConvTranspose2d is a ConvTranspose over (B, in, H, W).
type ConvTranspose2d struct{ ConvTranspose }

// ConvTranspose3d is a ConvTranspose over (B, in, D, H, W).
type ConvTranspose3d struct{ ConvTranspose }

// NewConvTranspose1d makes a float32 layer on the CPU, initialised as PyTorch's nn.ConvTranspose1d.
func NewConvTranspose1d(in, out int, kernel Size, opts ...ConvTransposeOptions) *ConvTranspose1d {
	return Builder{}.ConvTranspose1d(in, out, kernel, opts...)
}

// NewConvTranspose2d makes a float32 layer on the CPU, initialised as PyTorch's nn.ConvTranspose2d.
func NewConvTranspose2d(in, out int, kernel Size, opts ...ConvTransposeOptions) *ConvTranspose2d {
	return Builder{}.ConvTranspose2d(in, out, kernel, opts...)
}

// NewConvTranspose3d makes a float32 layer on the CPU, initialised as PyTorch's nn.ConvTranspose3d.
func NewConvTranspose3d(in, out int, kernel Size, opts ...ConvTransposeOptions) *ConvTranspose3d {
	return Builder{}.ConvTranspose3d(in, out, kernel, opts...)
}

// ConvTranspose1d makes a transposed convolution over one dimension.
func (b Builder) ConvTranspose1d(in, out int, kernel Size, opts ...ConvTransposeOptions) *ConvTranspose1d {
	c := &ConvTranspose1d{}
	b.convTranspose(&c.Conv, 1, in, out, kernel, first(opts))
	return c
}

// ConvTranspose2d makes a transposed convolution over two dimensions.
func (b Builder) ConvTranspose2d(in, out int, kernel Size, opts ...ConvTransposeOptions) *ConvTranspose2d {
	c := &ConvTranspose2d{}
	b.convTranspose(&c.Conv, 2, in, out, kernel, first(opts))
	return c
}

// ConvTranspose3d makes a transposed convolution over three dimensions.
func (b Builder) ConvTranspose3d(in, out int, kernel Size, opts ...ConvTransposeOptions) *ConvTranspose3d {
	c := &ConvTranspose3d{}
	b.convTranspose(&c.Conv, 3, in, out, kernel, first(opts))
	return c
}

func (b Builder) convTranspose(c *Conv, dims, in, out int, kernel Size, o ConvTransposeOptions) {
	g := &c.Geometry
	*g = ConvGeometry{Groups: o.Groups.Or(1), Transposed: true}
	g.set("conv_transpose", dims, kernel, o.Stride, o.Padding, o.Dilation)
	g.OutputPadding = sizes("conv_transpose", "output_padding", o.OutputPadding, dims, 0)
	b.whole(c, in, out, o.Bias.Or(true))
}

// ForwardSize is Forward with the lengths L' of the output: of those that a convolution with a stride makes
// alike, the one that is wanted. The output padding follows from them.
func (c *ConvTranspose) ForwardSize(x *torch.Tensor, size ...int) *torch.Tensor {
	g := c.Geometry
	shape := x.Shape()
	if len(size) != len(g.Kernel) || len(shape) < len(size) {
		fail("conv_transpose", "expected %d sizes, got %d", len(g.Kernel), len(size))
	}
	g.OutputPadding = make([]int, len(size))
	for i, length := range shape[len(shape)-len(size):] {
		least := (length-1)*g.Stride[i] - 2*g.Padding[i] + g.Dilation[i]*(g.Kernel[i]-1) + 1
		if size[i] < least || size[i] >= least+g.Stride[i] {
			fail("conv_transpose", "requested an output size of %v, but size %d must be from %d to %d", size, i, least, least+g.Stride[i]-1)
		}
		g.OutputPadding[i] = size[i] - least
	}
	return c.Call(x, func(x *torch.Tensor) *torch.Tensor { return c.convolve(x, &g) })
}
