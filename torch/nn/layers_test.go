package nn

import (
	"math"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/torchgo/torchgo/torch"
)

func slice(x *torch.Tensor) []float32 { return torch.ToSlice[float32](x) }

func TestLinear(t *testing.T) {
	l := NewLinear(2, 3)
	defer Close(l)
	torch.NoGrad(func() {
		l.Weight.(*Dense).W.Copy_(torch.FromSlice([]float32{1, 2, 3, 4, 5, 6}, 3, 2))
		l.Bias.Copy_(torch.FromSlice([]float32{10, 20, 30}))
	})
	y := l.Forward(torch.FromSlice([]float32{1, -1}, 1, 2))
	require.Equal(t, []float32{9, 19, 29}, slice(y))
	y.Sum().Backward()
	require.Equal(t, []float32{1, -1, 1, -1, 1, -1}, slice(l.Weight.(*Dense).W.Grad()))
}

// The bounds are PyTorch's: U(-1/√in, 1/√in) for both weight and bias.
func TestLinearInitialisation(t *testing.T) {
	torch.ManualSeed(7)
	l := NewLinear(100, 400)
	defer Close(l)
	for _, x := range [][]float32{slice(l.Weight.(*Dense).W), slice(l.Bias)} {
		var lo, hi float64
		for _, v := range x {
			lo, hi = math.Min(lo, float64(v)), math.Max(hi, float64(v))
		}
		require.InDelta(t, -0.1, lo, 0.002)
		require.InDelta(t, 0.1, hi, 0.002)
	}
}

func TestEmbedding(t *testing.T) {
	e := NewEmbedding(4, 2, EmbeddingOptions{PaddingIdx: torch.Some(1)})
	defer Close(e)
	y := e.Forward(torch.FromSlice([]int64{1, 3}))
	require.Equal(t, []int{2, 2}, y.Shape())
	require.Equal(t, []float32{0, 0}, slice(y)[:2])
	y.Sum().Backward()
	require.Equal(t, []float32{0, 0, 0, 0, 0, 0, 1, 1}, slice(e.Weight.(*Table).W.Grad()), "no gradient for the padding row")
}

func TestLayerNorm(t *testing.T) {
	n := NewLayerNorm(4, LayerNormOptions{Eps: torch.Some(0.0)})
	defer Close(n)
	y := slice(n.Forward(torch.FromSlice([]float32{1, 2, 3, 4}, 1, 4)))
	for i, want := range []float64{-3, -1, 1, 3} { // (x - 2.5) / √1.25
		require.InDelta(t, want/math.Sqrt(5), y[i], 1e-6)
	}
}

func TestDropout(t *testing.T) {
	torch.ManualSeed(3)
	d := NewDropout(0.25)
	x := torch.Ones([]int{10000})
	d.SetTraining(false)
	require.Same(t, x, d.Forward(x))
	d.SetTraining(true)
	zeros := 0
	for _, v := range slice(d.Forward(x)) {
		if v == 0 {
			zeros++
		} else {
			require.InDelta(t, 1/0.75, v, 1e-6)
		}
	}
	require.InDelta(t, 2500, zeros, 150)
}

// Expectations are by the definitions, evaluated in float64.
func TestActivations(t *testing.T) {
	sigmoid := func(x float64) float64 { return 1 / (1 + math.Exp(-x)) }
	gelu := func(x float64) float64 { return x * 0.5 * (1 + math.Erf(x/math.Sqrt2)) }
	tanhGELU := func(x float64) float64 {
		return 0.5 * x * (1 + math.Tanh(math.Sqrt(2/math.Pi)*(x+0.044715*x*x*x)))
	}
	relu := func(x float64) float64 { return math.Max(x, 0) }
	clip := func(x, lo, hi float64) float64 { return math.Min(math.Max(x, lo), hi) }
	want := map[string]func(float64) float64{
		"gelu": gelu, "gelu_python": gelu, "gelu_10": func(x float64) float64 { return clip(gelu(x), -10, 10) },
		"gelu_new": tanhGELU, "gelu_fast": tanhGELU, "gelu_accurate": tanhGELU, "gelu_pytorch_tanh": tanhGELU,
		"gelu_python_tanh": tanhGELU, "quick_gelu": func(x float64) float64 { return x * sigmoid(1.702*x) },
		"hardswish":  func(x float64) float64 { return x * clip(x+3, 0, 6) / 6 },
		"leaky_relu": func(x float64) float64 { return math.Max(x, 0.01*x) },
		"linear":     func(x float64) float64 { return x },
		"mish":       func(x float64) float64 { return x * math.Tanh(math.Log1p(math.Exp(x))) },
		"relu":       relu, "relu2": func(x float64) float64 { return relu(x) * relu(x) },
		"relu6": func(x float64) float64 { return clip(x, 0, 6) }, "sigmoid": sigmoid,
		"silu": func(x float64) float64 { return x * sigmoid(x) }, "swish": func(x float64) float64 { return x * sigmoid(x) },
		"tanh": math.Tanh,
	}
	require.Len(t, want, len(activations))
	xs := []float32{-12, -3, -1, -0.1, 0, 0.1, 1, 3, 7, 12}
	for name, f := range want {
		act, err := ActivationByName(name)
		require.NoError(t, err)
		for i, y := range slice(act(torch.FromSlice(xs))) {
			x := f(float64(xs[i]))
			require.InDelta(t, x, y, 1e-6+1e-5*math.Abs(x), "%s(%v)", name, xs[i])
		}
	}
	_, err := ActivationByName("nope")
	require.ErrorContains(t, err, `activation "nope": unknown, want one of gelu,`)
}

// attend is the definition of attention for one head, in float64.
func attend(q, k, v []float32, T, S, D int, seen func(t, s int) bool) []float64 {
	out := make([]float64, T*D)
	for t := range T {
		w, sum := make([]float64, S), 0.0
		for s := range S {
			if !seen(t, s) {
				continue
			}
			var dot float64
			for d := range D {
				dot += float64(q[t*D+d]) * float64(k[s*D+d])
			}
			w[s] = math.Exp(dot / math.Sqrt(float64(D)))
			sum += w[s]
		}
		for s := range S {
			for d := range D {
				out[t*D+d] += w[s] / sum * float64(v[s*D+d])
			}
		}
	}
	return out
}

func TestAttention(t *testing.T) {
	torch.ManualSeed(5)
	const B, H, T, D = 2, 3, 5, 4
	q, k, v := torch.Randn([]int{B, H, T, D}), torch.Randn([]int{B, H, T, D}), torch.Randn([]int{B, H, T, D})
	padding := torch.Ones([]int{B, 1, 1, T}, torch.TensorOptions{DType: torch.Bool})
	padding.Select(0, 1).Narrow(2, 3, 2).Fill_(false)
	for name, c := range map[string]struct {
		mask   *torch.Tensor
		causal bool
		seen   func(b, t, s int) bool
	}{
		"all":     {seen: func(_, _, _ int) bool { return true }},
		"padding": {mask: padding, seen: func(b, _, s int) bool { return b == 0 || s < 3 }},
		"causal":  {causal: true, seen: func(_, t, s int) bool { return s <= t }},
	} {
		for _, kind := range []AttentionKind{"", SDPA, Eager} {
			y := slice(Attention(q, k, v, c.mask, AttentionOptions{Kind: kind, Causal: c.causal})) // (B, T, H·D)
			for b := range B {
				for h := range H {
					at := (b*H + h) * T * D
					want := attend(slice(q)[at:at+T*D], slice(k)[at:at+T*D], slice(v)[at:at+T*D], T, T, D,
						func(t, s int) bool { return c.seen(b, t, s) })
					for i := range T {
						for d := range D {
							require.InDelta(t, want[i*D+d], y[((b*T+i)*H+h)*D+d], 1e-5, "%s %s", name, kind)
						}
					}
				}
			}
		}
	}
	require.Panics(t, func() { Attention(q, k, v, nil, AttentionOptions{Kind: "flash_attention_9"}) })
}

// Groups of heads that share keys and values are heads with copies of them.
func TestAttentionSharesHeads(t *testing.T) {
	torch.ManualSeed(6)
	const B, H, G, T, D = 2, 6, 2, 5, 8
	q, k, v := torch.Randn([]int{B, H, T, D}), torch.Randn([]int{B, G, T, D}), torch.Randn([]int{B, G, T, D})
	head := func(x *torch.Tensor, h int) *torch.Tensor { return x.Narrow(1, h, 1) }
	mask := CausalMask(T, T, torch.CPU).View(1, 1, T, T)
	for name, opt := range map[string]AttentionOptions{
		"all": {}, "causal": {Causal: true}, "eager": {Kind: Eager, Causal: true}, "float32 softmax": {Kind: Eager, Float32Softmax: true},
	} {
		for _, m := range []*torch.Tensor{nil, mask} {
			y, weights := AttentionWithWeights(q, k, v, m, opt)
			require.Equal(t, opt.Kind == Eager, weights != nil)
			for h := range H {
				one, w := AttentionWithWeights(head(q, h), head(k, h/(H/G)), head(v, h/(H/G)), m, opt)
				require.True(t, y.Narrow(2, h*D, D).Allclose(one), "%s, head %d", name, h)
				if w != nil {
					require.True(t, head(weights, h).Allclose(w))
					require.True(t, w.SumDim([]int{-1}).Allclose(torch.Ones([]int{B, 1, T})))
				}
			}
		}
	}
	// A softmax in float32 shows in a float64 model: its weights are float32 numbers.
	double := func(x *torch.Tensor) *torch.Tensor { return x.ToDType(torch.Float64) }
	for _, single := range []bool{true, false} {
		_, w := AttentionWithWeights(double(q), double(k), double(v), nil, AttentionOptions{Kind: Eager, Float32Softmax: single})
		require.Equal(t, torch.Float64, w.DType())
		require.Equal(t, single, double(w.ToDType(torch.Float32)).Equal(w))
	}
	err := torch.TryDo(func() { Attention(q, torch.Randn([]int{B, 4, T, D}), v, nil) })
	require.ErrorContains(t, err, "6 heads of queries can't share 4 heads of keys")
}

func TestLosses(t *testing.T) {
	logits := torch.FromSlice([]float32{1, 2, 3, 3, 2, 1}, 2, 3)
	first := math.Log(math.Exp(-2) + math.Exp(-1) + 1) // of target 2: -log softmax
	second := first + 2                                // of target 2 in the second row
	got := CrossEntropy(logits, torch.FromSlice([]int64{2, 2}))
	require.InDelta(t, (first+second)/2, torch.Item[float32](got), 1e-6)
	got = CrossEntropy(logits, torch.FromSlice([]int64{2, -100}))
	require.InDelta(t, first, torch.Item[float32](got), 1e-6)
	got = CrossEntropy(logits, torch.FromSlice([]int64{2, 3}), CrossEntropyOptions{IgnoreIndex: torch.Some(3)})
	require.InDelta(t, first, torch.Item[float32](got), 1e-6)
	require.InDelta(t, 2.5, torch.Item[float32](MSE(torch.FromSlice([]float32{1, 4}), torch.FromSlice([]float32{2, 2}))), 1e-6)
	got = BCEWithLogits(torch.FromSlice([]float32{0, 2}), torch.FromSlice([]float32{1, 0}))
	require.InDelta(t, (math.Ln2+2+math.Log1p(math.Exp(-2)))/2, torch.Item[float32](got), 1e-6)
}

// The weight of transformers' Conv1D computes x W + b.
func TestTransposed(t *testing.T) {
	w, b := torch.Randn([]int{4, 3}), torch.Randn([]int{3})
	l := &Linear{Weight: &Transposed{W: w}, Bias: b}
	x := torch.Randn([]int{2, 5, 4})
	require.True(t, x.MatMul(w).Add(b).Allclose(l.Forward(x)))
	require.Equal(t, "Linear(in_features=4, out_features=3, bias=True)", String(l))
	for name, p := range StateDict(l) {
		require.Contains(t, []string{"weight", "bias"}, name)
		require.NotNil(t, p)
	}
}
