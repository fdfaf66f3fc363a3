package nn

import (
	"fmt"
	"slices"

	"github.com/torchgo/torchgo/torch"
	"github.com/torchgo/torchgo/torch/nn/nninit"
)

// Parametrized is the weight of a Linear, a Conv, a ConvTranspose or an Embedding that is computed from other tensors
// each time it is used. WeightNorm and SpectralNorm put one in a layer.
type Parametrized struct {
	Source WeightSource `torch:",inline"`
}

// WeightSource computes a weight. It is a module: its tags name its own state-dict entries.
type WeightSource interface {
	Compute() *torch.Tensor
	Shape() []int
}

// Forward implements LinearWeight.
func (p *Parametrized) Forward(x, bias *torch.Tensor) *torch.Tensor {
	return torch.Linear(x, p.Source.Compute(), torch.LinearOptions{Bias: bias})
}

// Features implements LinearWeight.
func (p *Parametrized) Features() (in, out int) { s := p.Source.Shape(); return s[1], s[0] }

// Convolve implements ConvWeight.
func (p *Parametrized) Convolve(x, bias *torch.Tensor, g *ConvGeometry) *torch.Tensor {
	return convolve(x, p.Source.Compute(), bias, g)
}

// Channels implements ConvWeight.
func (p *Parametrized) Channels(g *ConvGeometry) (in, out int) { return g.channels(p.Source.Shape()) }

// Lookup implements EmbeddingWeight.
func (p *Parametrized) Lookup(indices *torch.Tensor, e *Embedding) *torch.Tensor {
	return lookup(p.Source.Compute(), indices, e)
}

// Rows implements EmbeddingWeight.
func (p *Parametrized) Rows() (rows, dim int) { s := p.Source.Shape(); return s[0], s[1] }

// place is where a layer holds its weight.
type place struct {
	dense *torch.Tensor // nil: it is not stored as it is
	now   any
	set   func(p *Parametrized)
	back  func(w *torch.Tensor)
}

func placeOf(m any) place {
	p := place{}
	switch l := m.(type) {
	case *Linear:
		p = place{now: l.Weight, set: func(w *Parametrized) { l.Weight = w }, back: func(w *torch.Tensor) { l.Weight = &Dense{w} }}
	case *Embedding:
		p = place{now: l.Weight, set: func(w *Parametrized) { l.Weight = w }, back: func(w *torch.Tensor) { l.Weight = &Table{w} }}
	case interface{ conv() *Conv }:
		c := l.conv()
		p = place{now: c.Weight, set: func(w *Parametrized) { c.Weight = w }, back: func(w *torch.Tensor) { c.Weight = &Kernel{w} }}
	default:
		panic(fmt.Sprintf("nn: the weight of a %T can't be computed from others: want a Linear, Conv, ConvTranspose or Embedding", m))
	}
	if d, ok := p.now.(interface{ Dense() *torch.Tensor }); ok {
		p.dense = d.Dense()
	}
	return p
}

func (c *Conv) conv() *Conv { return c }

// reparametrize puts what source makes of m's weight in its place; the weight is closed.
func reparametrize(m any, source func(w *torch.Tensor) WeightSource) {
	p := placeOf(m)
	if p.dense == nil {
		panic(fmt.Sprintf("nn: the weight of the %T is a %T already", m, p.now))
	}
	var s WeightSource
	torch.Scope(func() { torch.NoGrad(func() { s = source(p.dense) }) })
	p.set(&Parametrized{s})
	p.dense.Close()
}

// RemoveParametrization gives a layer the weight that is computed now as a parameter of its own
// (parametrize.remove_parametrizations, remove_weight_norm).
func RemoveParametrization(m any) {
	p := placeOf(m)
	w, ok := p.now.(*Parametrized)
	if !ok {
		panic(fmt.Sprintf("nn: the weight of the %T is not parametrized", m))
	}
	var made *torch.Tensor
	torch.NoGrad(func() { made = parameter(w.Source.Compute().Clone()) })
	p.back(made)
	Close(w)
}

// parameter takes a tensor out of its scope, to be trained.
func parameter(t *torch.Tensor) *torch.Tensor {
	torch.Keep(t)
	return t.SetRequiresGrad(true)
}

// WeightNormOptions are the optional arguments of WeightNorm.
type WeightNormOptions struct {
	Dim torch.Opt[int] // norms are of what is left when this dimension is fixed; -1: one norm of all; default: 0
	// OldNames are weight_g and weight_v, those of torch.nn.utils.weight_norm. The others,
	// parametrizations.weight.original0 and 1, are of torch.nn.utils.parametrizations.weight_norm.
	OldNames bool
}

// WeightNorm splits the weight of a layer into length and direction, which are trained apart: W = g · v / ‖v‖. It
// changes the layer and nothing of what it computes.
//
// Source: Salimans and Kingma, Weight Normalization, https://arxiv.org/abs/1602.07868.
func WeightNorm(m any, opts ...WeightNormOptions) {
	o := first(opts)
	dim := o.Dim.Or(0)
	reparametrize(m, func(w *torch.Tensor) WeightSource {
		g := parameter(torch.NormExceptDim(w, torch.NormExceptDimOptions{Dim: dim}))
		v := parameter(w.Clone())
		if o.OldNames {
			return &oldWeightNorm{g, v, dim}
		}
		return &weightNorm{&lengthAndDirection{g, v}, dim}
	})
}

type lengthAndDirection struct {
	G *torch.Tensor `torch:"original0"`
	V *torch.Tensor `torch:"original1"`
}

type weightNorm struct {
	P *lengthAndDirection `torch:"parametrizations.weight"`

	dim int
}

func (n *weightNorm) Compute() *torch.Tensor { return normalized(n.P.G, n.P.V, n.dim) }
func (n *weightNorm) Shape() []int           { return n.P.V.Shape() }

type oldWeightNorm struct {
	G *torch.Tensor `torch:"weight_g,late"`
	V *torch.Tensor `torch:"weight_v,late"`

	dim int
}

func (n *oldWeightNorm) Compute() *torch.Tensor { return normalized(n.G, n.V, n.dim) }
func (n *oldWeightNorm) Shape() []int           { return n.V.Shape() }

func normalized(g, v *torch.Tensor, dim int) *torch.Tensor {
	return torch.Internal.WeightNorm(v, g, torch.InternalWeightNormOptions{Dim: dim})
}

// SpectralNormOptions are the optional arguments of SpectralNorm.
type SpectralNormOptions struct {
	NPowerIterations torch.Opt[int]     // in each forward pass in training mode; default: 1
	Eps              torch.Opt[float64] // default: 1e-12
	Dim              torch.Opt[int]     // that of the outputs; default: 1 for a ConvTranspose, else 0
}

// SpectralNorm divides the weight of a layer, seen as a matrix of outputs and all else, by its largest singular value:
// W = V / σ, σ ≈ uᵀ V v, where power iterations in training mode keep u and v up to date. The state dict has
// parametrizations.weight.original and the buffers 0._u and 0._v below that.
//
// Source: Miyato et al., Spectral Normalization, https://arxiv.org/abs/1802.05957.
func SpectralNorm(m any, opts ...SpectralNormOptions) {
	o := first(opts)
	dim := 0
	if c, ok := m.(interface{ conv() *Conv }); ok && c.conv().Geometry.Transposed {
		dim = 1
	}
	reparametrize(m, func(w *torch.Tensor) WeightSource {
		s := &spectral{V: parameter(w.Clone()), dim: o.Dim.Or(dim), iterations: o.NPowerIterations.Or(1), eps: o.Eps.Or(1e-12)}
		if s.iterations <= 0 {
			fail("spectral_norm", "Expected n_power_iterations to be positive, but got n_power_iterations=%d", s.iterations)
		}
		mat := s.matrix()
		start := func(n int) *torch.Tensor {
			x := torch.Empty([]int{n}, torch.EmptyOptions{DType: w.DType(), Device: w.Device()})
			nninit.Normal_(x, 0, 1)
			return x
		}
		u, v := start(mat.Size(0)), start(mat.Size(1))
		s.Left, s.Right = s.unit(u), s.unit(v)
		torch.Keep(s.Left, s.Right)
		s.iterate(mat, 15+s.iterations) // PyTorch computes the weight once when it registers the norm
		return &spectralNorm{s}
	})
}

// spectral is a module of its own, so that Train and Eval reach it.
type spectral struct {
	Mode

	V     *torch.Tensor `torch:"original"`
	Left  *torch.Tensor `torch:"0._u,buffer"`
	Right *torch.Tensor `torch:"0._v,buffer"`

	dim, iterations int
	eps             float64
}

type spectralNorm struct {
	P *spectral `torch:"parametrizations.weight"`
}

func (n *spectralNorm) Shape() []int { return n.P.V.Shape() }

func (n *spectralNorm) Compute() *torch.Tensor {
	s := n.P
	mat := s.matrix()
	if s.Training() {
		torch.NoGrad(func() { s.iterate(mat, s.iterations) })
	}
	// Copies: the next pass changes the buffers, and this one's graph holds what it used.
	u, v := s.Left.Clone(), s.Right.Clone()
	return s.V.Div(u.Dot(mat.Mv(v)))
}

// matrix is V as (outputs, all else).
func (s *spectral) matrix() *torch.Tensor {
	order := []int{s.dim}
	for d := range s.V.Dim() {
		if d != s.dim {
			order = append(order, d)
		}
	}
	m := s.V
	if !slices.IsSorted(order) {
		m = m.Permute(order...)
	}
	return m.Flatten(torch.FlattenOptions{StartDim: 1})
}

func (s *spectral) unit(x *torch.Tensor) *torch.Tensor { return x.Div(x.Norm().ClampMin(s.eps)) }

// iterate brings Left and Right nearer to the singular vectors of the largest singular value.
func (s *spectral) iterate(mat *torch.Tensor, n int) {
	for range n {
		s.Left.Copy_(s.unit(mat.Mv(s.Right)))
		s.Right.Copy_(s.unit(mat.T().Mv(s.Left)))
	}
}
