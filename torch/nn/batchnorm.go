package nn

import (
	"github.com/torchgo/torchgo/torch"
	"github.com/torchgo/torchgo/torch/nn/nninit"
)

// BatchNorm is what BatchNorm1d, BatchNorm2d and BatchNorm3d have in common: y = (x - E[x]) / √(Var[x] + ε) · γ + β
// for each channel: (B, C, …) → (B, C, …). In training mode E and Var are those of the batch, and the running
// ones move towards them: r ← (1-m)·r + m·batch (with the unbiased variance). In evaluation mode they are the
// running ones, or the batch's where those are not tracked.
//
// Source: Ioffe and Szegedy, Batch Normalization, https://arxiv.org/abs/1502.03167.
type BatchNorm struct {
	Hooks
	Mode

	Weight            *torch.Tensor `torch:"weight"`                     // γ: (C), nil: 1
	Bias              *torch.Tensor `torch:"bias"`                       // β: (C), nil: 0
	RunningMean       *torch.Tensor `torch:"running_mean,buffer"`        // (C), nil: not tracked
	RunningVar        *torch.Tensor `torch:"running_var,buffer"`         // (C), nil: not tracked
	NumBatchesTracked *torch.Tensor `torch:"num_batches_tracked,buffer"` // () int64, nil: not tracked

	Channels   int
	Eps        float64
	Momentum   float64 // m
	Cumulative bool    // m is 1/number of batches: the running values are plain means (PyTorch's momentum=None)
}

// BatchNormOptions are the optional arguments of NewBatchNorm1d, NewBatchNorm2d and NewBatchNorm3d.
type BatchNormOptions struct {
	Eps               torch.Opt[float64] // default: 1e-5
	Momentum          torch.Opt[float64] // default: 0.1
	Cumulative        bool               // plain means in place of moving ones (PyTorch's momentum=None)
	Affine            torch.Opt[bool]    // there are γ and β; default: true
	Bias              torch.Opt[bool]    // there is β; default: true
	TrackRunningStats torch.Opt[bool]    // default: true
}

// BatchNorm1d is a BatchNorm over (B, C) or (B, C, L).
type BatchNorm1d struct{ BatchNorm }

// BatchNorm2d is a BatchNorm over (B, C, H, W).
type BatchNorm2d struct{ BatchNorm }

// BatchNorm3d is a BatchNorm over (B, C, D, H, W).
type BatchNorm3d struct{ BatchNorm }

// NewBatchNorm1d makes a float32 one on the CPU with γ = 1 and β = 0.
func NewBatchNorm1d(channels int, opts ...BatchNormOptions) *BatchNorm1d {
	return Builder{}.BatchNorm1d(channels, opts...)
}

// NewBatchNorm2d makes a float32 one on the CPU with γ = 1 and β = 0.
func NewBatchNorm2d(channels int, opts ...BatchNormOptions) *BatchNorm2d {
	return Builder{}.BatchNorm2d(channels, opts...)
}

// NewBatchNorm3d makes a float32 one on the CPU with γ = 1 and β = 0.
func NewBatchNorm3d(channels int, opts ...BatchNormOptions) *BatchNorm3d {
	return Builder{}.BatchNorm3d(channels, opts...)
}

// BatchNorm1d makes a batch norm over (B, C) or (B, C, L).
func (b Builder) BatchNorm1d(channels int, opts ...BatchNormOptions) *BatchNorm1d {
	n := &BatchNorm1d{}
	b.batchNorm(&n.BatchNorm, channels, first(opts), true)
	return n
}

// BatchNorm2d makes a batch norm over (B, C, H, W).
func (b Builder) BatchNorm2d(channels int, opts ...BatchNormOptions) *BatchNorm2d {
	n := &BatchNorm2d{}
	b.batchNorm(&n.BatchNorm, channels, first(opts), true)
	return n
}

// BatchNorm3d makes a batch norm over (B, C, D, H, W).
func (b Builder) BatchNorm3d(channels int, opts ...BatchNormOptions) *BatchNorm3d {
	n := &BatchNorm3d{}
	b.batchNorm(&n.BatchNorm, channels, first(opts), true)
	return n
}

// batchNorm fills n in; on is whether it is affine and tracks unless the options say so.
func (b Builder) batchNorm(n *BatchNorm, channels int, o BatchNormOptions, on bool) {
	n.Channels, n.Eps, n.Momentum, n.Cumulative = channels, o.Eps.Or(1e-5), o.Momentum.Or(0.1), o.Cumulative
	n.Weight, n.Bias = b.scaleAndShift([]int{channels}, o.Affine.Or(on), o.Bias.Or(true))
	if !o.TrackRunningStats.Or(on) {
		return
	}
	n.RunningMean, n.RunningVar = b.Empty(b.DType, channels), b.Empty(b.DType, channels)
	n.NumBatchesTracked = b.Empty(torch.Int64)
	b.init(func() {
		nninit.Zeros_(n.RunningMean)
		nninit.Ones_(n.RunningVar)
		n.NumBatchesTracked.Zero_()
	})
}

func (n *BatchNorm) tracks() bool { return n.RunningMean != nil }

// Forward keeps the shape.
func (n *BatchNorm1d) Forward(x *torch.Tensor) *torch.Tensor { return n.checked(x, "2D or 3D", 2, 3) }

// Forward keeps the shape.
func (n *BatchNorm2d) Forward(x *torch.Tensor) *torch.Tensor { return n.checked(x, "4D", 4, 4) }

// Forward keeps the shape.
func (n *BatchNorm3d) Forward(x *torch.Tensor) *torch.Tensor { return n.checked(x, "5D", 5, 5) }

// checked is Forward for inputs with least to most dimensions.
func (n *BatchNorm) checked(x *torch.Tensor, want string, least, most int) *torch.Tensor {
	if d := x.Dim(); d < least || d > most {
		fail("batch_norm", "expected %s input (got %dD input)", want, d)
	}
	return n.Call(x, n.forward)
}

func (n *BatchNorm) forward(x *torch.Tensor) *torch.Tensor {
	factor := n.Momentum
	if n.Cumulative {
		factor = 0
	}
	train := n.Training()
	if train && n.tracks() && n.NumBatchesTracked != nil {
		n.NumBatchesTracked.AddScalar_(1)
		if n.Cumulative {
			factor = 1 / float64(torch.Item[int64](n.NumBatchesTracked))
		}
	}
	if train {
		onePerChannel("batch_norm", x.Shape())
	}
	return torch.BatchNorm(x, n.Weight, n.Bias, n.RunningMean, n.RunningVar, train || !n.tracks(), factor, n.Eps, true)
}

// onePerChannel refuses a batch whose variance would be that of single values.
func onePerChannel(op string, shape []int) {
	values := shape[0]
	for _, s := range shape[2:] {
		values *= s
	}
	if values == 1 {
		fail(op, "Expected more than 1 value per channel when training, got input size %v", torchSize(shape))
	}
}

// ExtraRepr is what PyTorch prints in the parentheses.
func (n *BatchNorm) ExtraRepr() string {
	momentum := number(n.Momentum)
	if n.Cumulative {
		momentum = "None"
	}
	return itoa(n.Channels) + ", eps=" + number(n.Eps) + ", momentum=" + momentum + ", affine=" + boolean(n.Weight != nil) +
		", bias=" + boolean(n.Bias != nil) + ", track_running_stats=" + boolean(n.tracks())
}

// InstanceNorm is what InstanceNorm1d, InstanceNorm2d and InstanceNorm3d have in common: y = (x - E[x]) /
// √(Var[x] + ε) · γ + β for each channel of each sample: (B, C, …) or (C, …), same shape. γ and β are there only
// if Affine is set. With TrackRunningStats, evaluation mode uses running statistics as batch norm does.
//
// Source: Ulyanov et al., Instance Normalization, https://arxiv.org/abs/1607.08022.
type InstanceNorm struct{ BatchNorm }

// InstanceNorm1d is an InstanceNorm over (B, C, L) or (C, L).
type InstanceNorm1d struct{ InstanceNorm }

// InstanceNorm2d is an InstanceNorm over (B, C, H, W) or (C, H, W).
type InstanceNorm2d struct{ InstanceNorm }

// InstanceNorm3d is an InstanceNorm over (B, C, D, H, W) or (C, D, H, W).
type InstanceNorm3d struct{ InstanceNorm }

// InstanceNormOptions are the optional arguments of NewInstanceNorm1d, NewInstanceNorm2d and NewInstanceNorm3d.
type InstanceNormOptions struct {
	Eps               torch.Opt[float64] // default: 1e-5
	Momentum          torch.Opt[float64] // default: 0.1
	Affine            bool               // there are γ and β
	Bias              torch.Opt[bool]    // there is β if there is γ; default: true
	TrackRunningStats bool
}

// NewInstanceNorm1d makes a float32 one on the CPU.
func NewInstanceNorm1d(channels int, opts ...InstanceNormOptions) *InstanceNorm1d {
	return Builder{}.InstanceNorm1d(channels, opts...)
}

// NewInstanceNorm2d makes a float32 one on the CPU.
func NewInstanceNorm2d(channels int, opts ...InstanceNormOptions) *InstanceNorm2d {
	return Builder{}.InstanceNorm2d(channels, opts...)
}

// NewInstanceNorm3d makes a float32 one on the CPU.
func NewInstanceNorm3d(channels int, opts ...InstanceNormOptions) *InstanceNorm3d {
	return Builder{}.InstanceNorm3d(channels, opts...)
}

// InstanceNorm1d makes an instance norm over (B, C, L) or (C, L).
func (b Builder) InstanceNorm1d(channels int, opts ...InstanceNormOptions) *InstanceNorm1d {
	n := &InstanceNorm1d{}
	b.instanceNorm(&n.InstanceNorm, channels, first(opts))
	return n
}

// InstanceNorm2d makes an instance norm over (B, C, H, W) or (C, H, W).
func (b Builder) InstanceNorm2d(channels int, opts ...InstanceNormOptions) *InstanceNorm2d {
	n := &InstanceNorm2d{}
	b.instanceNorm(&n.InstanceNorm, channels, first(opts))
	return n
}

// InstanceNorm3d makes an instance norm over (B, C, D, H, W) or (C, D, H, W).
func (b Builder) InstanceNorm3d(channels int, opts ...InstanceNormOptions) *InstanceNorm3d {
	n := &InstanceNorm3d{}
	b.instanceNorm(&n.InstanceNorm, channels, first(opts))
	return n
}

func (b Builder) instanceNorm(n *InstanceNorm, channels int, o InstanceNormOptions) {
	b.batchNorm(&n.BatchNorm, channels, BatchNormOptions{Eps: o.Eps, Momentum: o.Momentum, Affine: torch.Some(o.Affine),
		Bias: o.Bias, TrackRunningStats: torch.Some(o.TrackRunningStats)}, false)
}

// Forward keeps the shape.
func (n *InstanceNorm1d) Forward(x *torch.Tensor) *torch.Tensor { return n.checked(x, 2) }

// Forward keeps the shape.
func (n *InstanceNorm2d) Forward(x *torch.Tensor) *torch.Tensor { return n.checked(x, 3) }

// Forward keeps the shape.
func (n *InstanceNorm3d) Forward(x *torch.Tensor) *torch.Tensor { return n.checked(x, 4) }

// checked is Forward for inputs whose samples have dims dimensions.
func (n *InstanceNorm) checked(x *torch.Tensor, dims int) *torch.Tensor {
	d := x.Dim()
	if d != dims && d != dims+1 {
		fail("instance_norm", "expected %dD or %dD input (got %dD input)", dims, dims+1, d)
	}
	if c := x.Size(d - dims); n.Weight != nil && c != n.Channels {
		fail("instance_norm", "expected input's size at dim=%d to match num_features (%d), but got: %d.", d-dims, n.Channels, c)
	}
	return n.Call(x, func(x *torch.Tensor) *torch.Tensor {
		if d == dims {
			return n.forward(x.Unsqueeze(0)).SqueezeDim(0)
		}
		return n.forward(x)
	})
}

func (n *InstanceNorm) forward(x *torch.Tensor) *torch.Tensor {
	own := n.Training() || !n.tracks()
	if shape := x.Shape(); own {
		values := 1
		for _, s := range shape[2:] {
			values *= s
		}
		if values == 1 {
			fail("instance_norm", "Expected more than 1 spatial element when training, got input size %v", torchSize(shape))
		}
	}
	return torch.InstanceNorm(x, n.Weight, n.Bias, n.RunningMean, n.RunningVar, own, n.Momentum, n.Eps, true)
}
