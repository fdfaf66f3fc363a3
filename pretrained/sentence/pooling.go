package sentence

import (
	"maps"
	"math"
	"slices"
	"strings"

	"github.com/torchgo/torchgo/torch"
)

// Pooling names a way to make one vector of a sentence's token vectors.
type Pooling string

// The poolings of sentence-transformers. Padding never counts.
const (
	CLS          Pooling = "cls"           // the first token
	Max          Pooling = "max"           // the largest value in each dimension
	Mean         Pooling = "mean"          // Σ x / n
	MeanSqrtLen  Pooling = "mean_sqrt_len" // Σ x / √n
	WeightedMean Pooling = "weightedmean"  // Σ i·x / Σ i, i = 1, 2, …: later tokens count more
	LastToken    Pooling = "lasttoken"     // the last token
)

// poolings compute (B, T, C) and a mask (B, T, 1) of the same dtype → (B, C).
var poolings = map[Pooling]func(x, mask *torch.Tensor) *torch.Tensor{
	CLS: func(x, _ *torch.Tensor) *torch.Tensor { return x.Select(1, 0) },
	Max: func(x, mask *torch.Tensor) *torch.Tensor {
		return x.MaskedFill(mask.EqScalar(0), math.Inf(-1)).Amax(torch.AmaxOptions{Dim: []int{1}})
	},
	Mean: weighted,
	MeanSqrtLen: func(x, mask *torch.Tensor) *torch.Tensor {
		return sum(x.Mul(mask)).Div(sum(mask).ClampMin(1e-9).Sqrt())
	},
	WeightedMean: func(x, mask *torch.Tensor) *torch.Tensor { return weighted(x, mask.Mul(positions(x))) },
	LastToken: func(x, mask *torch.Tensor) *torch.Tensor {
		at := mask.Mul(positions(x)).Argmax(torch.ArgmaxOptions{Dim: torch.Some(1)}).View(-1, 1, 1) // (B, 1, 1)
		return x.Gather(1, at.Expand(-1, -1, x.Size(2))).SqueezeDim(1)
	},
}

func poolingNames() string {
	var names []string
	for p := range maps.Keys(poolings) {
		names = append(names, string(p))
	}
	slices.Sort(names)
	return strings.Join(names, ", ")
}

func sum(x *torch.Tensor) *torch.Tensor { return x.SumDim([]int{1}) }

// weighted is Σ w·x / Σ w over the tokens.
func weighted(x, w *torch.Tensor) *torch.Tensor { return sum(x.Mul(w)).Div(sum(w).ClampMin(1e-9)) }

// positions are 1, 2, … of the tokens of x: (T, 1).
func positions(x *torch.Tensor) *torch.Tensor {
	return torch.ArangeStart(1, x.Size(1)+1, torch.TensorOptions{DType: x.DType(), Device: x.Device()}).View(-1, 1)
}

// pool makes sentence vectors (B, n·C) of token vectors (B, T, C) and the mask (B, T).
func (e *Encoder) pool(x, mask *torch.Tensor) *torch.Tensor {
	mask = mask.ToDType(x.DType()).Unsqueeze(-1)
	var parts []*torch.Tensor
	for _, p := range e.Pooling {
		parts = append(parts, poolings[p](x, mask))
	}
	y := torch.Cat(parts, torch.CatOptions{Dim: 1})
	if e.Normalize {
		norm := torch.LinalgVectorNorm(y, torch.LinalgVectorNormOptions{Dim: []int{1}, KeepDim: true})
		y = y.Div(norm.ClampMin(1e-12))
	}
	return y
}
