package nn

import "github.com/torchgo/torchgo/torch"

// Dropout zeroes each element with probability P and scales the others by 1/(1-P), in training mode only.
//
// Source: Hinton et al., Improving neural networks by preventing co-adaptation of feature detectors,
// https://arxiv.org/abs/1207.0580.
type Dropout struct {
	Hooks
	Mode

	P float64
}

// NewDropout makes a dropout; PyTorch's default of p is 0.5.
func NewDropout(p float64) *Dropout {
	checkProbability(p)
	return &Dropout{P: p}
}

func checkProbability(p float64) {
	if !(p >= 0 && p <= 1) {
		fail("dropout", "dropout probability has to be between 0 and 1, but got %s", number(p))
	}
}

// Rate is the probability in force: P in training mode, else 0.
func (d *Dropout) Rate() float64 {
	if d.Training() {
		return d.P
	}
	return 0
}

// Forward keeps the shape.
func (d *Dropout) Forward(x *torch.Tensor) *torch.Tensor { return d.Call(x, d.forward) }

func (d *Dropout) forward(x *torch.Tensor) *torch.Tensor {
	if d.Rate() == 0 {
		return x
	}
	return torch.Dropout(x, d.P, true)
}

// ExtraRepr is what PyTorch prints in the parentheses.
func (d *Dropout) ExtraRepr() string { return dropoutArgs(d.P) }

func dropoutArgs(p float64) string { return "p=" + number(p) + ", inplace=False" }

// dropping is a kind of dropout that works on whole channels, or keeps mean and variance.
func dropping(name string, p float64, drop func(x *torch.Tensor, p float64, train bool) *torch.Tensor) *Func {
	checkProbability(p)
	return &Func{name: name, args: dropoutArgs(p), fn: func(x *torch.Tensor, training bool) *torch.Tensor {
		return drop(x, p, training)
	}}
}

// channels drops whole channels of n-dimensional maps; without a batch the first dimension is the channel.
func channels(n int) func(x *torch.Tensor, p float64, train bool) *torch.Tensor {
	return func(x *torch.Tensor, p float64, train bool) *torch.Tensor {
		if x.Dim() != n+1 {
			return torch.FeatureDropout(x, p, train)
		}
		return torch.FeatureDropout(x.Unsqueeze(0), p, train).SqueezeDim(0)
	}
}

// NewDropout1d zeroes whole channels of (B, C, L) or (C, L) with probability p, in training mode only.
func NewDropout1d(p float64) *Func { return dropping("Dropout1d", p, channels(1)) }

// NewDropout2d zeroes whole channels of (B, C, H, W) with probability p, in training mode only. As in PyTorch,
// a three-dimensional input is (B, C, L).
func NewDropout2d(p float64) *Func { return dropping("Dropout2d", p, torch.FeatureDropout) }

// NewDropout3d zeroes whole channels of (B, C, D, H, W) or (C, D, H, W) with probability p, in training mode only.
func NewDropout3d(p float64) *Func { return dropping("Dropout3d", p, channels(3)) }

// NewAlphaDropout sets elements to SELU's lower limit with probability p and keeps mean 0 and variance 1.
//
// Source: Klambauer et al., Self-Normalizing Neural Networks, https://arxiv.org/abs/1706.02515.
func NewAlphaDropout(p float64) *Func { return dropping("AlphaDropout", p, torch.AlphaDropout) }

// NewFeatureAlphaDropout is NewAlphaDropout for whole channels of (B, C, …).
func NewFeatureAlphaDropout(p float64) *Func {
	return dropping("FeatureAlphaDropout", p, torch.FeatureAlphaDropout)
}
