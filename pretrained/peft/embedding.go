package peft

import (
	"github.com/torchgo/torchgo/torch"
	"github.com/torchgo/torchgo/torch/nn"
)

// embedding is the weight of an Embedding with adapters.
type embedding struct {
	factors
	Base nn.EmbeddingWeight `torch:",inline"`
}

func (l *embedding) base() any { return l.Base }

// Rows implements nn.EmbeddingWeight.
func (l *embedding) Rows() (rows, dim int) { return l.Base.Rows() }

// Lookup implements nn.EmbeddingWeight.
func (l *embedding) Lookup(indices *torch.Tensor, e *nn.Embedding) *torch.Tensor {
	y := l.Base.Lookup(indices, e)
	dtype := y.DType()
	for _, s := range l.on {
		var scale *torch.Tensor
		if s.dora { // before a lookup that scales rows of A down (MaxNorm)
			scale = l.magnitude(l, s, dtype)
			y = scale.Mul(y)
		}
		a := nn.Table{W: l.EmbedA.Get(s.name).T()}
		low := a.Lookup(indices, e).MatMul(l.EmbedB.Get(s.name).T())
		if scale != nil {
			low = scale.Mul(low)
		}
		y = y.Add(low.MulScalar(torch.Scalar(s.scaling)))
	}
	return y.ToDType(dtype)
}

func (l *embedding) shapes(r int) (a, b []int) {
	rows, dim := l.Rows()
	return []int{r, rows}, []int{dim, r}
}

func (l *embedding) product(a, b *torch.Tensor) *torch.Tensor { return b.MatMul(a).T() }

func (l *embedding) norm(w *torch.Tensor) *torch.Tensor {
	return torch.LinalgVectorNorm(w.T(), torch.LinalgVectorNormOptions{Dim: []int{1}})
}

func (l *embedding) perOutput(v *torch.Tensor) *torch.Tensor { return v.Reshape(1, -1) }
func (l *embedding) perInput(v *torch.Tensor) *torch.Tensor  { return v.Reshape(-1, 1) }

func (l *embedding) ia3Shape(bool) []int { return nil }
