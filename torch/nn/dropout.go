package nn

import "github.com/torchgo/torchgo/torch"

// Dropout zeroes each element with probability P and scales the others by 1/(1-P), in training mode only.
type Dropout struct {
	P float64

	training bool
}

// NewDropout makes one in evaluation mode, in which it passes its input through.
func NewDropout(p float64) *Dropout { return &Dropout{P: p} }

// SetTraining is called by Train and Eval.
func (d *Dropout) SetTraining(on bool) { d.training = on }

// Rate is the probability in force: P in training mode, else 0.
func (d *Dropout) Rate() float64 {
	if d.training {
		return d.P
	}
	return 0
}

// Forward keeps the shape.
func (d *Dropout) Forward(x *torch.Tensor) *torch.Tensor {
	if d.Rate() == 0 {
		return x
	}
	return torch.Dropout(x, d.P, true)
}
