package models

import (
	"github.com/torchgo/torchgo/torch"
	"github.com/torchgo/torchgo/torch/nn"
)

// ResNet18 is that of He et al., 2015 (https://arxiv.org/abs/1512.03385), with the stem that is usual for
// 32×32 images: one 3×3 convolution, no pooling. Its names are torchvision's.
type ResNet18 struct {
	Conv1  *nn.Conv2d      `torch:"conv1"` // (64, 3, 3, 3)
	BN1    *nn.BatchNorm2d `torch:"bn1"`
	Layer1 *nn.Sequential  `torch:"layer1"` // (B, 64, 32, 32)
	Layer2 *nn.Sequential  `torch:"layer2"` // (B, 128, 16, 16)
	Layer3 *nn.Sequential  `torch:"layer3"` // (B, 256, 8, 8)
	Layer4 *nn.Sequential  `torch:"layer4"` // (B, 512, 4, 4)
	FC     *nn.Linear      `torch:"fc"`     // (classes, 512)
}

// BasicBlock computes relu(bn2(conv2(relu(bn1(conv1(x))))) + x), x downsampled where the shape changes.
type BasicBlock struct {
	Conv1      *nn.Conv2d      `torch:"conv1"`
	BN1        *nn.BatchNorm2d `torch:"bn1"`
	Conv2      *nn.Conv2d      `torch:"conv2"`
	BN2        *nn.BatchNorm2d `torch:"bn2"`
	Downsample *nn.Sequential  `torch:"downsample"` // nil: the identity
}

// NewResNet18 makes one of (B, 3, 32, 32) → (B, classes).
func NewResNet18(classes int) *ResNet18 {
	return &ResNet18{
		Conv1: conv(3, 64, 3, 1), BN1: nn.NewBatchNorm2d(64),
		Layer1: blocks(64, 64, 1), Layer2: blocks(64, 128, 2), Layer3: blocks(128, 256, 2), Layer4: blocks(256, 512, 2),
		FC: nn.NewLinear(512, classes),
	}
}

// conv is a convolution without bias that keeps the size, but for the stride.
func conv(inputs, channels, kernel, stride int) *nn.Conv2d {
	return nn.NewConv2d(inputs, channels, kernel, nn.ConvOptions{Stride: stride, Padding: kernel / 2, Bias: torch.Some(false)})
}

func blocks(inputs, channels, stride int) *nn.Sequential {
	return nn.NewSequential(newBasicBlock(inputs, channels, stride), newBasicBlock(channels, channels, 1))
}

func newBasicBlock(inputs, channels, stride int) *BasicBlock {
	b := &BasicBlock{
		Conv1: conv(inputs, channels, 3, stride), BN1: nn.NewBatchNorm2d(channels),
		Conv2: conv(channels, channels, 3, 1), BN2: nn.NewBatchNorm2d(channels),
	}
	if stride != 1 || inputs != channels {
		b.Downsample = nn.NewSequential(conv(inputs, channels, 1, stride), nn.NewBatchNorm2d(channels))
	}
	return b
}

// Forward maps (B, inputs, H, W) to (B, channels, H/stride, W/stride).
func (b *BasicBlock) Forward(x *torch.Tensor) *torch.Tensor {
	y := b.BN1.Forward(b.Conv1.Forward(x)).Relu()
	y = b.BN2.Forward(b.Conv2.Forward(y))
	if b.Downsample != nil {
		x = b.Downsample.Forward(x)
	}
	return y.Add(x).Relu()
}

// Forward maps (B, 3, 32, 32) to (B, classes).
func (m *ResNet18) Forward(x *torch.Tensor) *torch.Tensor {
	x = m.BN1.Forward(m.Conv1.Forward(x)).Relu()
	for _, layer := range []*nn.Sequential{m.Layer1, m.Layer2, m.Layer3, m.Layer4} {
		x = layer.Forward(x)
	}
	return m.FC.Forward(x.MeanDim([]int{2, 3}))
}
