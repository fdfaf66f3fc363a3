package nn

import "github.com/torchgo/torchgo/torch"

// NewPixelShuffle moves channels to space: (…, C·r², H, W) → (…, C, H·r, W·r).
//
// Source: Shi et al., https://arxiv.org/abs/1609.05158.
func NewPixelShuffle(r int) *Func {
	return function("PixelShuffle", "upscale_factor="+itoa(r), func(x *torch.Tensor) *torch.Tensor { return torch.PixelShuffle(x, r) })
}

// NewPixelUnshuffle moves space to channels: (…, C, H·r, W·r) → (…, C·r², H, W).
func NewPixelUnshuffle(r int) *Func {
	return function("PixelUnshuffle", "downscale_factor="+itoa(r), func(x *torch.Tensor) *torch.Tensor { return torch.PixelUnshuffle(x, r) })
}

// NewChannelShuffle mixes the channels of groups: (B, C, …), seen as (B, groups, C/groups, …), with these two
// dimensions exchanged.
//
// Source: Zhang et al., ShuffleNet, https://arxiv.org/abs/1707.01083.
func NewChannelShuffle(groups int) *Func {
	return function("ChannelShuffle", "groups="+itoa(groups), func(x *torch.Tensor) *torch.Tensor { return torch.ChannelShuffle(x, groups) })
}

// FoldOptions are the optional arguments of NewFold and NewUnfold.
type FoldOptions struct {
	Dilation, Padding, Stride Size // default: 1, 0, 1
}

func (o FoldOptions) resolve(kernel Size) (k, dilation, padding, stride []int, args string) {
	k, dilation = sizes("fold", "kernel_size", kernel, 2, 1), sizes("fold", "dilation", o.Dilation, 2, 1)
	padding, stride = sizes("fold", "padding", o.Padding, 2, 0), sizes("fold", "stride", o.Stride, 2, 1)
	return k, dilation, padding, stride, "kernel_size=" + sizeText(k) + ", dilation=" + sizeText(dilation) + ", padding=" + sizeText(padding) + ", stride=" + sizeText(stride)
}

// NewUnfold takes the windows of (B, C, H, W) or (C, H, W) as columns: (B, C·kh·kw, number of windows).
func NewUnfold(kernel Size, opts ...FoldOptions) *Func {
	k, dilation, padding, stride, args := first(opts).resolve(kernel)
	return function("Unfold", args, func(x *torch.Tensor) *torch.Tensor { return torch.Im2col(x, k, dilation, padding, stride...) })
}

// NewFold adds columns (B, C·kh·kw, number of windows) up where they overlap: (B, C, output).
func NewFold(output, kernel Size, opts ...FoldOptions) *Func {
	k, dilation, padding, stride, args := first(opts).resolve(kernel)
	size := sizes("fold", "output_size", output, 2, 1)
	return function("Fold", "output_size="+sizeText(size)+", "+args, func(x *torch.Tensor) *torch.Tensor {
		return torch.Col2im(x, size, k, dilation, padding, stride...)
	})
}
