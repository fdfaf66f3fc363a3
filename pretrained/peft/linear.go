package peft

import (
	"github.com/torchgo/torchgo/torch"
	"github.com/torchgo/torchgo/torch/nn"
)

// linear is the weight of a Linear with adapters.
type linear struct {
	factors
	Base nn.LinearWeight `torch:",inline"`
}

func (l *linear) base() any { return l.Base }

// Features implements nn.LinearWeight.
func (l *linear) Features() (in, out int) { return l.Base.Features() }

// Forward implements nn.LinearWeight.
func (l *linear) Forward(x, bias *torch.Tensor) *torch.Tensor {
	return l.run(x, func(x *torch.Tensor) *torch.Tensor { return l.Base.Forward(x, bias) },
		func(s *setting, x, y *torch.Tensor) *torch.Tensor {
			if s.dora {
				return l.dora(s, x, y, bias)
			}
			return y.Add(l.low(s, l.dropped(s, x)).MulScalar(torch.Scalar(s.scaling)))
		})
}

// low is x Aᵀ Bᵀ.
func (l *linear) low(s *setting, x *torch.Tensor) *torch.Tensor {
	a, b := l.a(s), l.b(s)
	return torch.Linear(torch.Linear(x, a.W), b.W, torch.LinearOptions{Bias: b.Bias})
}

func (l *linear) dora(s *setting, x, y, bias *torch.Tensor) *torch.Tensor {
	dropped := l.dropped(s, x)
	own := y
	switch {
	case dropped != x:
		own = l.Base.Forward(dropped, nil)
	case bias != nil:
		own = y.Sub(bias)
	}
	scale := l.magnitude(l, s, x.DType()).View(1, -1)
	return y.Add(scale.SubScalar(1).Mul(own)).Add(scale.Mul(l.low(s, dropped)).MulScalar(torch.Scalar(s.scaling)))
}

func (l *linear) transposed() bool { _, ok := l.Base.(*nn.Transposed); return ok }

func (l *linear) shapes(r int) (a, b []int) {
	in, out := l.Features()
	return []int{r, in}, []int{out, r}
}

func (l *linear) product(a, b *torch.Tensor) *torch.Tensor {
	d := b.MatMul(a)
	if l.transposed() {
		d = d.T()
	}
	return d
}

func (l *linear) norm(w *torch.Tensor) *torch.Tensor {
	if l.transposed() {
		w = w.T()
	}
	return torch.LinalgVectorNorm(w, torch.LinalgVectorNormOptions{Dim: []int{1}})
}

func (l *linear) perOutput(v *torch.Tensor) *torch.Tensor { return l.along(v, !l.transposed()) }
func (l *linear) perInput(v *torch.Tensor) *torch.Tensor  { return l.along(v, l.transposed()) }

func (l *linear) along(v *torch.Tensor, rows bool) *torch.Tensor {
	if rows {
		return v.Reshape(-1, 1)
	}
	return v.Reshape(1, -1)
}

func (l *linear) ia3Shape(feedforward bool) []int {
	in, out := l.Features()
	if feedforward {
		return []int{1, in}
	}
	return []int{out, 1}
}
