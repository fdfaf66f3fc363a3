package nn

import (
	"slices"

	"github.com/torchgo/torchgo/torch"
)

// pad is a layer that pads n dimensions, the last first: an int, or left and right of each.
func pad(kind string, n int, padding Size, o torch.PadOptions, args func(p string) string) *Func {
	name := kind + "Pad" + itoa(n) + "d"
	around := sizes(name, "padding", padding, 2*n, 0)
	return function(name, args(tuple(around)), func(x *torch.Tensor) *torch.Tensor {
		if d := x.Dim(); kind == "Circular" && d != n+1 && d != n+2 {
			fail("circular_pad", "expected %dD or %dD input (got %dD input)", n+1, n+2, d)
		}
		return torch.Pad(x, slices.Clone(around), o)
	})
}

func constantPad(kind string, n int, padding Size, value float64) *Func {
	return pad(kind, n, padding, torch.PadOptions{Value: torch.Some(value)}, func(p string) string {
		if kind == "Zero" {
			return p
		}
		return "padding=" + p + ", value=" + number(value)
	})
}

func modePad(kind string, mode PaddingMode, n int, padding Size) *Func {
	return pad(kind, n, padding, torch.PadOptions{Mode: torch.Some(string(mode))}, func(p string) string { return p })
}

// NewConstantPad1d adds value at both ends of (…, L): padding is an int, or left and right. What is negative is
// cut off.
func NewConstantPad1d(padding Size, value float64) *Func {
	return constantPad("Constant", 1, padding, value)
}

// NewConstantPad2d pads the last two dimensions: padding is an int, or left, right, top, bottom.
func NewConstantPad2d(padding Size, value float64) *Func {
	return constantPad("Constant", 2, padding, value)
}

// NewConstantPad3d pads the last three dimensions: padding is an int, or left, right, top, bottom, front, back.
func NewConstantPad3d(padding Size, value float64) *Func {
	return constantPad("Constant", 3, padding, value)
}

// NewZeroPad1d is NewConstantPad1d with 0.
func NewZeroPad1d(padding Size) *Func { return constantPad("Zero", 1, padding, 0) }

// NewZeroPad2d is NewConstantPad2d with 0.
func NewZeroPad2d(padding Size) *Func { return constantPad("Zero", 2, padding, 0) }

// NewZeroPad3d is NewConstantPad3d with 0.
func NewZeroPad3d(padding Size) *Func { return constantPad("Zero", 3, padding, 0) }

// NewReflectionPad1d mirrors (B, C, L) or (C, L) at its ends: padding is an int, or left and right.
func NewReflectionPad1d(padding Size) *Func { return modePad("Reflection", Reflect, 1, padding) }

// NewReflectionPad2d mirrors (B, C, H, W) or (C, H, W): padding is an int, or left, right, top, bottom.
func NewReflectionPad2d(padding Size) *Func { return modePad("Reflection", Reflect, 2, padding) }

// NewReflectionPad3d mirrors (B, C, D, H, W) or (C, D, H, W): padding is an int, or left, right, top, bottom, front,
// back.
func NewReflectionPad3d(padding Size) *Func { return modePad("Reflection", Reflect, 3, padding) }

// NewReplicationPad1d repeats the ends of (B, C, L) or (C, L): padding is an int, or left and right.
func NewReplicationPad1d(padding Size) *Func { return modePad("Replication", Replicate, 1, padding) }

// NewReplicationPad2d repeats the edges of (B, C, H, W) or (C, H, W): padding is an int, or left, right, top, bottom.
func NewReplicationPad2d(padding Size) *Func { return modePad("Replication", Replicate, 2, padding) }

// NewReplicationPad3d repeats the edges of (B, C, D, H, W) or (C, D, H, W): padding is an int, or left, right, top,
// bottom, front, back.
func NewReplicationPad3d(padding Size) *Func { return modePad("Replication", Replicate, 3, padding) }

// NewCircularPad1d continues (B, C, L) or (C, L) from its other end: padding is an int, or left and right.
func NewCircularPad1d(padding Size) *Func { return modePad("Circular", Circular, 1, padding) }

// NewCircularPad2d continues (B, C, H, W) or (C, H, W): padding is an int, or left, right, top, bottom.
func NewCircularPad2d(padding Size) *Func { return modePad("Circular", Circular, 2, padding) }

// NewCircularPad3d continues (B, C, D, H, W) or (C, D, H, W): padding is an int, or left, right, top, bottom, front,
// back.
func NewCircularPad3d(padding Size) *Func { return modePad("Circular", Circular, 3, padding) }
