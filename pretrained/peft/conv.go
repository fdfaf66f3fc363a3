package peft

import (
	"slices"

	"github.com/torchgo/torchgo/torch"
	"github.com/torchgo/torchgo/torch/nn"
)

// conv is the weight of a convolution with adapters.
type conv struct {
	factors
	Base nn.ConvWeight `torch:",inline"`

	geometry *nn.ConvGeometry
}

func (l *conv) base() any { return l.Base }

// Channels implements nn.ConvWeight.
func (l *conv) Channels(g *nn.ConvGeometry) (in, out int) { return l.Base.Channels(g) }

// Convolve implements nn.ConvWeight.
func (l *conv) Convolve(x, bias *torch.Tensor, g *nn.ConvGeometry) *torch.Tensor {
	return l.run(x, func(x *torch.Tensor) *torch.Tensor { return l.Base.Convolve(x, bias, g) },
		func(s *setting, x, y *torch.Tensor) *torch.Tensor {
			if s.dora {
				return l.dora(s, x, y, bias, g)
			}
			return y.Add(l.low(s, l.dropped(s, x), g).MulScalar(torch.Scalar(s.scaling)))
		})
}

// low is x through A, a convolution with the module's kernel size, stride and padding, and B, one of single points.
func (l *conv) low(s *setting, x *torch.Tensor, g *nn.ConvGeometry) *torch.Tensor {
	a, b := l.a(s), l.b(s)
	first, second := *g, *g
	one := slices.Repeat([]int{1}, len(g.Kernel))
	first.Groups, first.Dilation, first.PaddingMode = 1, one, nn.Zeros
	second.Kernel, second.Stride, second.Dilation, second.Padding = one, one, one, slices.Repeat([]int{0}, len(g.Kernel))
	second.Same, second.Valid, second.PaddingMode = false, false, nn.Zeros
	x = (&nn.Kernel{W: a.W}).Convolve(x, nil, &first)
	return (&nn.Kernel{W: b.W}).Convolve(x, b.Bias, &second)
}

func (l *conv) dora(s *setting, x, y, bias *torch.Tensor, g *nn.ConvGeometry) *torch.Tensor {
	dropped := l.dropped(s, x)
	own := y
	switch {
	case dropped != x:
		own = l.Base.Convolve(dropped, nil, g)
	case bias != nil:
		own = y.Sub(bias.View(append([]int{1, -1}, slices.Repeat([]int{1}, len(g.Kernel))...)...))
	}
	scale := l.magnitude(l, s, x.DType())
	return y.Add(scale.SubScalar(1).Mul(own)).Add(scale.Mul(l.low(s, dropped, g)).MulScalar(torch.Scalar(s.scaling)))
}

func (l *conv) shapes(r int) (a, b []int) {
	in, out := l.Channels(l.geometry)
	k := l.geometry.Kernel
	return append([]int{r, in}, k...), append([]int{out, r / l.geometry.Groups}, slices.Repeat([]int{1}, len(k))...)
}

func (l *conv) product(a, b *torch.Tensor) *torch.Tensor {
	in, out := l.Channels(l.geometry)
	return b.Reshape(out, -1).MatMul(a.Reshape(a.Size(0), -1)).Reshape(append([]int{out, in}, l.geometry.Kernel...)...)
}

func (l *conv) norm(w *torch.Tensor) *torch.Tensor {
	dims := make([]int, w.Dim()-1)
	for i := range dims {
		dims[i] = i + 1
	}
	return torch.LinalgVectorNorm(w, torch.LinalgVectorNormOptions{Dim: dims, KeepDim: true}).Transpose(1, 0)
}

func (l *conv) perOutput(v *torch.Tensor) *torch.Tensor { return v.Transpose(0, 1) }

// perInput: a group's kernels have the inputs of their group only.
func (l *conv) perInput(v *torch.Tensor) *torch.Tensor {
	g := l.geometry.Groups
	if g == 1 {
		return v
	}
	in, out := l.Channels(l.geometry)
	rest := slices.Repeat([]int{1}, len(l.geometry.Kernel))
	return v.Reshape(append([]int{g, 1, in / g}, rest...)...).Expand(append([]int{g, out / g, in / g}, rest...)...).
		Reshape(append([]int{out, in / g}, rest...)...)
}

func (l *conv) ia3Shape(feedforward bool) []int {
	in, out := l.Channels(l.geometry)
	n := out
	if feedforward {
		n = in
	}
	return append([]int{1, n}, slices.Repeat([]int{1}, len(l.geometry.Kernel))...)
}
