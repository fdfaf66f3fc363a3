package nn

import (
	"encoding/base64"
	"encoding/json"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/torchgo/torchgo/torch"
)

func (r refTensor) tensor(t *testing.T) *torch.Tensor {
	dtype, err := torch.ParseDType(r.DType)
	require.NoError(t, err)
	x := torch.Empty(r.Shape, torch.EmptyOptions{DType: dtype})
	data, err := base64.StdEncoding.DecodeString(r.Data)
	require.NoError(t, err)
	copy(x.Bytes(), data)
	return x
}

// near compares by the tolerances of torch.testing.assert_close.
func near(t *testing.T, want refTensor, got *torch.Tensor, what string) {
	t.Helper()
	require.Equal(t, want.Shape, append([]int{}, got.Shape()...), what)
	w := slice(want.tensor(t))
	for i, x := range slice(got.Detach()) {
		require.InDelta(t, w[i], x, 1e-5+1.3e-6*float64(max(w[i], -w[i])), "%s: element %d", what, i)
	}
}

type namedRef struct {
	name string
	t    refTensor
}

func (n *namedRef) UnmarshalJSON(b []byte) error {
	return json.Unmarshal(b, &[2]any{&n.name, &n.t})
}

func dim(d int) WeightNormOptions { return WeightNormOptions{Dim: torch.Some(d)} }

// with makes a layer and changes it.
func with[M any](m M, change func(m any)) any {
	change(m)
	return m
}

var parametrized = map[string]func() any{
	"wn(nn.Linear(4, 3))":             func() any { return with(NewLinear(4, 3), func(m any) { WeightNorm(m) }) },
	"wn(nn.Linear(4, 3), dim=None)":   func() any { return with(NewLinear(4, 3), func(m any) { WeightNorm(m, dim(-1)) }) },
	"wn(nn.Conv1d(4, 6, 3), dim=1)":   func() any { return with(NewConv1d(4, 6, 3), func(m any) { WeightNorm(m, dim(1)) }) },
	"wn(nn.ConvTranspose2d(2, 3, 2))": func() any { return with(NewConvTranspose2d(2, 3, 2), func(m any) { WeightNorm(m) }) },
	"wn(nn.Embedding(5, 3), dim=1)":   func() any { return with(NewEmbedding(5, 3), func(m any) { WeightNorm(m, dim(1)) }) },
	"old_wn(nn.Conv2d(2, 3, 2))": func() any {
		return with(NewConv2d(2, 3, 2), func(m any) { WeightNorm(m, WeightNormOptions{OldNames: true}) })
	},
	"old_wn(nn.Linear(4, 3), dim=1)": func() any {
		return with(NewLinear(4, 3), func(m any) { WeightNorm(m, WeightNormOptions{OldNames: true, Dim: torch.Some(1)}) })
	},
	"sn(nn.Linear(4, 3))": func() any { return with(NewLinear(4, 3), func(m any) { SpectralNorm(m) }) },
	"sn(nn.Conv2d(2, 3, 2), n_power_iterations=2)": func() any {
		return with(NewConv2d(2, 3, 2), func(m any) { SpectralNorm(m, SpectralNormOptions{NPowerIterations: torch.Some(2)}) })
	},
	"sn(nn.ConvTranspose1d(4, 2, 3), eps=1e-6)": func() any {
		return with(NewConvTranspose1d(4, 2, 3), func(m any) { SpectralNorm(m, SpectralNormOptions{Eps: torch.Some(1e-6)}) })
	},
	"sn(nn.Embedding(5, 3))": func() any { return with(NewEmbedding(5, 3), func(m any) { SpectralNorm(m) }) },
}

// Names, order, values and gradients are Python's, in training and in evaluation mode, and removing a norm leaves the
// weight that it had made.
func TestParametrizedWeights(t *testing.T) {
	var ref struct {
		Parametrized map[string]struct {
			Start, After, Grads []namedRef
			In, Weight          refTensor
			Out                 []refTensor
		}
	}
	readNNRef(t, &ref)
	require.Equal(t, len(ref.Parametrized), len(parametrized))
	for expression, want := range ref.Parametrized {
		t.Run(expression, func(t *testing.T) {
			torch.Scope(func() {
				torch.ManualSeed(7)
				m := parametrized[expression]()
				defer func() { Close(m) }()
				check := func(want []namedRef) {
					i := 0
					for name, x := range StateDict(m) {
						require.Less(t, i, len(want))
						require.Equal(t, want[i].name, name)
						near(t, want[i].t, x, name)
						i++
					}
					require.Len(t, want, i)
				}
				check(want.Start)
				layer, x := m.(Layer), want.In.tensor(t)
				near(t, want.Out[0], layer.Forward(x), "first")
				y := layer.Forward(x)
				near(t, want.Out[1], y, "second")
				y.Square().Sum().Backward()
				i := 0
				for name, p := range NamedParameters(m) {
					require.Equal(t, want.Grads[i].name, name)
					near(t, want.Grads[i].t, p.Grad(), "gradient of "+name)
					i++
				}
				require.Len(t, want.Grads, i)
				Eval(m)
				near(t, want.Out[2], layer.Forward(x), "in evaluation mode")
				check(want.After)

				RemoveParametrization(m)
				for name, p := range NamedParameters(m) {
					require.True(t, p.RequiresGrad())
					require.True(t, p.IsLeaf())
					if name == "weight" {
						near(t, want.Weight, p, name)
					}
				}
				near(t, want.Out[2], layer.Forward(x), "without the norm")
			})
		})
	}
	l := NewLinear(2, 2)
	defer Close(l)
	require.Panics(t, func() { RemoveParametrization(l) })
	WeightNorm(l)
	require.Panics(t, func() { WeightNorm(l) }, "it has one")
	require.Panics(t, func() { WeightNorm(NewReLU()) })
	require.Equal(t, "Linear(in_features=2, out_features=2, bias=True)", (&Linear{Weight: l.Weight, Bias: l.Bias}).ModuleName()+"("+l.ExtraRepr()+")")
}

var packedModules = map[string]func() any{
	"nn.LSTM(2, 3, 2, bidirectional=True)": func() any {
		return NewLSTM(2, 3, RNNOptions{NumLayers: torch.Some(2), Bidirectional: true})
	},
	"nn.LSTM(2, 3, proj_size=2, batch_first=True)": func() any { return NewLSTM(2, 3, RNNOptions{ProjSize: 2, BatchFirst: true}) },
	"nn.GRU(2, 3, 2)": func() any { return NewGRU(2, 3, RNNOptions{NumLayers: torch.Some(2)}) },
	"nn.RNN(2, 3)":    func() any { return NewRNN(2, 3) },
}

func TestPackedSequences(t *testing.T) {
	var ref struct {
		Packed map[string]struct {
			In, Data, Out refTensor
			H, HN         []refTensor
			BatchSizes    []int64 `json:"batch_sizes"`
			Sorted        []int64
			Lengths       []int
		}
	}
	readNNRef(t, &ref)
	require.Equal(t, len(ref.Packed), len(packedModules))
	for expression, want := range ref.Packed {
		torch.Scope(func() {
			torch.ManualSeed(7)
			m := packedModules[expression]()
			defer Close(m)
			first := expression == "nn.LSTM(2, 3, proj_size=2, batch_first=True)"
			x := want.In.tensor(t)
			p := PackPaddedSequence(x, []int{3, 5, 1, 4}, PackOptions{BatchFirst: first, EnforceSorted: torch.Some(false)})
			near(t, want.Data, p.Data, "packed data")
			require.Equal(t, want.BatchSizes, torch.ToSlice[int64](p.BatchSizes))
			require.Equal(t, want.Sorted, torch.ToSlice[int64](p.SortedIndices))
			var y PackedSequence
			var hn []*torch.Tensor
			h := want.H[0].tensor(t)
			switch m := m.(type) {
			case *LSTM:
				var cn *torch.Tensor
				y, h, cn = m.ForwardPacked(p, h, want.H[1].tensor(t))
				hn = []*torch.Tensor{h, cn}
			case *GRU:
				y, h = m.ForwardPacked(p, h)
				hn = []*torch.Tensor{h}
			case *RNN:
				y, h = m.ForwardPacked(p, h)
				hn = []*torch.Tensor{h}
			}
			out, lengths := PadPackedSequence(y, PadPackedOptions{BatchFirst: first, PaddingValue: -1, TotalLength: 6})
			near(t, want.Out, out, expression)
			require.Equal(t, want.Lengths, lengths)
			for i := range hn {
				near(t, want.HN[i], hn[i], "state")
			}
		})
	}
}

func TestPackSequence(t *testing.T) {
	a, b := torch.FromSlice([]float32{1, 2, 3}), torch.FromSlice([]float32{4})
	p := PackSequence([]*torch.Tensor{a, b})
	require.Equal(t, []float32{1, 4, 2, 3}, slice(p.Data))
	require.Equal(t, []int64{2, 1, 1}, torch.ToSlice[int64](p.BatchSizes))
	x, lengths := PadPackedSequence(p, PadPackedOptions{BatchFirst: true})
	require.Equal(t, []float32{1, 2, 3, 4, 0, 0}, slice(x))
	require.Equal(t, []int{3, 1}, lengths)
	require.Error(t, torch.TryDo(func() { PackSequence([]*torch.Tensor{b, a}) }), "the lengths must fall")
	q := PackSequence([]*torch.Tensor{b, a}, PackOptions{EnforceSorted: torch.Some(false)})
	require.Equal(t, slice(p.Data), slice(q.Data))
	x, lengths = PadPackedSequence(q, PadPackedOptions{BatchFirst: true})
	require.Equal(t, []float32{4, 0, 0, 1, 2, 3}, slice(x), "in the order they came in")
	require.Equal(t, []int{1, 3}, lengths)
	err := torch.TryDo(func() { PadPackedSequence(p, PadPackedOptions{TotalLength: 2}) })
	require.ErrorContains(t, err, "Expected total_length to be at least the length of the longest sequence in input, but got total_length=2 and max sequence length being 3")
}
