package nn

import (
	"reflect"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/torchgo/torchgo/torch"
)

// built are layers of every method of Builder.
var built = map[string]func(b Builder) any{
	"Linear":                  func(b Builder) any { return b.Linear(2, 4) },
	"Bilinear":                func(b Builder) any { return b.Bilinear(2, 3, 4) },
	"Embedding":               func(b Builder) any { return b.Embedding(4, 2, EmbeddingOptions{PaddingIdx: torch.Some(1)}) },
	"EmbeddingBag":            func(b Builder) any { return b.EmbeddingBag(4, 2) },
	"LayerNorm":               func(b Builder) any { return b.LayerNorm(4) },
	"RMSNorm":                 func(b Builder) any { return b.RMSNorm(4) },
	"GroupNorm":               func(b Builder) any { return b.GroupNorm(2, 4) },
	"BatchNorm1d":             func(b Builder) any { return b.BatchNorm1d(4) },
	"BatchNorm2d":             func(b Builder) any { return b.BatchNorm2d(4) },
	"BatchNorm3d":             func(b Builder) any { return b.BatchNorm3d(4) },
	"InstanceNorm1d":          func(b Builder) any { return b.InstanceNorm1d(4, InstanceNormOptions{Affine: true}) },
	"InstanceNorm2d":          func(b Builder) any { return b.InstanceNorm2d(4, InstanceNormOptions{TrackRunningStats: true}) },
	"InstanceNorm3d":          func(b Builder) any { return b.InstanceNorm3d(4, InstanceNormOptions{Affine: true}) },
	"Conv1d":                  func(b Builder) any { return b.Conv1d(2, 4, 3) },
	"Conv2d":                  func(b Builder) any { return b.Conv2d(2, 4, 3) },
	"Conv3d":                  func(b Builder) any { return b.Conv3d(2, 4, 3) },
	"ConvTranspose1d":         func(b Builder) any { return b.ConvTranspose1d(2, 4, 3) },
	"ConvTranspose2d":         func(b Builder) any { return b.ConvTranspose2d(2, 4, 3) },
	"ConvTranspose3d":         func(b Builder) any { return b.ConvTranspose3d(2, 4, 3) },
	"RNN":                     func(b Builder) any { return b.RNN(2, 4) },
	"LSTM":                    func(b Builder) any { return b.LSTM(2, 4) },
	"GRU":                     func(b Builder) any { return b.GRU(2, 4) },
	"RNNCell":                 func(b Builder) any { return b.RNNCell(2, 4) },
	"LSTMCell":                func(b Builder) any { return b.LSTMCell(2, 4) },
	"GRUCell":                 func(b Builder) any { return b.GRUCell(2, 4) },
	"LinearCrossEntropyLoss":  func(b Builder) any { return b.LinearCrossEntropyLoss(2, 4) },
	"PReLU":                   func(b Builder) any { return b.PReLU() },
	"MultiheadAttention":      func(b Builder) any { return b.MultiheadAttention(4, 2, MultiheadAttentionOptions{AddBiasKV: true}) },
	"TransformerEncoderLayer": func(b Builder) any { return b.TransformerEncoderLayer(4, 2) },
	"TransformerDecoderLayer": func(b Builder) any { return b.TransformerDecoderLayer(4, 2) },
	"Transformer":             func(b Builder) any { return b.Transformer(4, 2) },
}

// Layers are made with a dtype, on the meta device, or without values, and then draw no numbers.
func TestBuilder(t *testing.T) {
	methods := reflect.TypeFor[Builder]()
	for i := range methods.NumMethod() {
		name := methods.Method(i).Name
		if name != "Parameter" && name != "Empty" && !strings.HasPrefix(name, "Lazy") {
			require.Contains(t, built, name)
		}
	}
	next := func() float32 { return torch.Item[float32](torch.Rand([]int{1})) }
	torch.ManualSeed(3)
	first := next()
	for name, make := range built {
		for _, b := range []Builder{{Device: torch.Meta, DType: torch.BFloat16}, {NoInit: true, DType: torch.Float64}} {
			torch.ManualSeed(3)
			m := make(b)
			require.Equal(t, first, next(), "%s draws numbers", name)
			n := 0
			for _, s := range Slots(m) {
				n++
				x := s.Tensor()
				if s.Name != "num_batches_tracked" {
					require.Equal(t, b.DType, x.DType(), "%s %s", name, s.Name)
				}
				require.Equal(t, b.Device == torch.Meta, x.Device() == torch.Meta, "%s %s", name, s.Name)
				require.Equal(t, s.Kind == Parameter, x.RequiresGrad(), "%s %s", name, s.Name)
			}
			require.Positive(t, n, name)
			Close(m)
		}
	}
}

func TestLazyLayers(t *testing.T) {
	torch.ManualSeed(1)
	want := NewConv2d(3, 4, 2)
	torch.ManualSeed(1)
	lazy := NewLazyConv2d(4, 2)
	require.Empty(t, Slots(lazy))
	c := Clone(lazy)
	x := torch.Ones([]int{1, 3, 5, 5})
	var wait sync.WaitGroup
	for range 8 {
		wait.Go(func() { lazy.Forward(x) })
	}
	wait.Wait()
	require.Equal(t, slice(want.Bias), slice(lazy.Bias), "it starts as the whole layer does")
	require.Equal(t, slice(want.Forward(x)), slice(lazy.Forward(x)))
	require.True(t, c.waits(), "the copy is a layer of its own")
	c.Forward(torch.Ones([]int{7, 5, 5}))
	in, out := c.Weight.Channels(&c.Geometry)
	require.Equal(t, []int{7, 4}, []int{in, out})
	require.Error(t, torch.TryDo(func() { NewLazyConv1d(4, 2).Forward(x) }))
	for _, m := range []any{want, lazy, c} {
		Close(m)
	}
}

// What MultiheadAttention may leave out or average changes nothing else.
func TestAttendOptions(t *testing.T) {
	torch.ManualSeed(2)
	m := NewMultiheadAttention(6, 3, MultiheadAttentionOptions{BatchFirst: true})
	defer Close(m)
	torch.Scope(func() {
		x := torch.Randn([]int{2, 4, 6})
		causal := SquareSubsequentMask(4)
		y, w := m.Forward(x, x, x, AttendOptions{AttnMask: causal})
		same := func(want, got *torch.Tensor, what string) {
			t.Helper()
			require.Equal(t, want.Shape(), got.Shape(), what)
			g := slice(got.Detach())
			for i, v := range slice(want.Detach()) {
				require.InDelta(t, v, g[i], 1e-6, what)
			}
		}
		_, heads := m.Forward(x, x, x, AttendOptions{AttnMask: causal, AverageAttnWeights: torch.Some(false)})
		require.Equal(t, []int{2, 3, 4, 4}, heads.Shape())
		same(heads.MeanDim([]int{1}), w, "the mean of the heads")
		same(torch.Ones([]int{2, 3, 4}), heads.SumDim([]int{-1}), "weights sum to one")
		require.Zero(t, torch.Item[float32](heads.Triu(torch.TriuOptions{Diagonal: 1}).Abs().Max()), "no position sees a later one")
		for name, o := range map[string]AttendOptions{
			"without weights": {AttnMask: causal, NeedWeights: torch.Some(false)},
			"as a hint":       {AttnMask: causal, NeedWeights: torch.Some(false), IsCausal: true},
			"boolean":         {AttnMask: torch.Ones([]int{4, 4}).Triu(torch.TriuOptions{Diagonal: 1}).ToDType(torch.Bool)},
			"a mask a head":   {AttnMask: causal.Expand(6, 4, 4)},
			"padding": {AttnMask: causal, NeedWeights: torch.Some(false),
				KeyPaddingMask: torch.Zeros([]int{2, 4}, torch.TensorOptions{DType: torch.Bool}), IsCausal: true},
		} {
			got, weights := m.Forward(x, x, x, o)
			same(y, got, name)
			require.Equal(t, o.NeedWeights.Or(true), weights != nil)
		}
		one, w1 := m.Forward(x.Select(0, 1), x.Select(0, 1), x.Select(0, 1), AttendOptions{AttnMask: causal})
		same(y.Select(0, 1), one, "without a batch")
		same(w.Select(0, 1), w1, "without a batch")
		require.ErrorContains(t, torch.TryDo(func() { m.Forward(x, x, x, AttendOptions{IsCausal: true}) }), "Need attn_mask if specifying the is_causal hint.")
	})
	require.ErrorContains(t, torch.TryDo(func() { NewMultiheadAttention(5, 2) }), "embed_dim must be divisible by num_heads")
}

// Mistakes are *torch.Error with PyTorch's words.
func TestLayersRefuse(t *testing.T) {
	for message, f := range map[string]func(){
		"groups must be a positive integer":                                    func() { NewConv1d(2, 2, 1, ConvOptions{Groups: torch.Some(0)}) },
		"in_channels must be divisible by groups":                              func() { NewConv1d(3, 2, 1, ConvOptions{Groups: torch.Some(2)}) },
		"out_channels must be divisible by groups":                             func() { NewConv1d(2, 3, 1, ConvOptions{Groups: torch.Some(2)}) },
		"Invalid padding string 'full', should be one of {'same', 'valid'}":    func() { NewConv1d(2, 2, 1, ConvOptions{Padding: "full"}) },
		"padding='same' is not supported for strided convolutions":             func() { NewConv1d(2, 2, 1, ConvOptions{Padding: "same", Stride: 2}) },
		"padding_mode must be one of {'zeros', 'reflect', 'replicate', 'circu": func() { NewConv1d(2, 2, 1, ConvOptions{PaddingMode: "mirror"}) },
		"kernel_size: expected an int or 2 of them, got 3":                     func() { NewConv2d(2, 2, []int{1, 2, 3}) },
		"kernel_size: expected an int or []int, got string":                    func() { NewConv2d(2, 2, "3") },
		"expected 4D input (got 3D input)":                                     func() { NewBatchNorm2d(2).Forward(torch.Ones([]int{2, 2, 2})) },
		"Expected more than 1 value per channel when training, got input size torch.Size([1, 2])": func() {
			NewBatchNorm1d(2).Forward(torch.Ones([]int{1, 2}))
		},
		"Expected more than 1 spatial element when training, got input size torch.Size([1, 2, 1])": func() {
			NewInstanceNorm1d(2).Forward(torch.Ones([]int{1, 2, 1}))
		},
		"num_channels (3) must be divisible by num_groups (2)":          func() { NewGroupNorm(2, 3) },
		"dropout probability has to be between 0 and 1, but got 1.5":    func() { NewDropout(1.5) },
		"Padding_idx must be within num_embeddings":                     func() { NewEmbedding(3, 2, EmbeddingOptions{PaddingIdx: torch.Some(3)}) },
		"proj_size argument is only supported for LSTM, not RNN or GRU": func() { NewGRU(2, 3, RNNOptions{ProjSize: 1}) },
		"input.size(-1) must be equal to input_size. Expected 2, got 3": func() { NewRNN(2, 3).Forward(torch.Ones([]int{1, 1, 3}), nil) },
		"Expected hidden[0] size (1, 4, 3), got [1 1 3]": func() {
			NewLSTM(2, 3).Forward(torch.Ones([]int{1, 4, 2}), torch.Ones([]int{1, 1, 3}), torch.Ones([]int{1, 1, 3}))
		},
		"mode has to be one of sum, mean or max":                                func() { NewEmbeddingBag(2, 2, EmbeddingBagOptions{Mode: "min"}) },
		"per_sample_weights is only supported for mode='sum' (got mode='mean')": func() { NewEmbeddingBag(2, 2).Forward(torch.FromSlice([]int64{0}, 1, 1), nil, torch.Ones([]int{1, 1})) },
		"norm_type must be a non-zero value, but got 0":                         func() { NewLPPool1d(0, 2) },
		`no mode "linear" for a 4D input`:                                       func() { Interpolate(torch.Ones([]int{1, 1, 2, 2}), InterpolateOptions{Mode: "linear", Size: 2}) },
		"either size or scale_factor should be defined":                         func() { Interpolate(torch.Ones([]int{1, 1, 2, 2}), InterpolateOptions{}) },
		"requires specifying either an output size, or a pooling ratio":         func() { NewFractionalMaxPool2d(2, FractionalMaxPoolOptions{}) },
		"output_ratio must be between 0 and 1 (got [1.5 1.5])":                  func() { NewFractionalMaxPool2d(2, FractionalMaxPoolOptions{OutputRatio: []float64{1.5}}) },
		"var has negative entry/entries": func() {
			(&GaussianNLLLoss{}).Forward(torch.Ones([]int{1}), torch.Ones([]int{1}), torch.Ones([]int{1}).Neg())
		},
		"reduction: 3 is not a valid value for reduction": func() { (&MSELoss{Reduction: ReductionBatchMean}).Forward(torch.Ones([]int{1}), torch.Ones([]int{1})) },
		"requested an output size of [9], but size 0 must be from 5 to 6": func() {
			NewConvTranspose1d(1, 1, 3, ConvTransposeOptions{Stride: 2}).ForwardSize(torch.Ones([]int{1, 1, 2}), 9)
		},
		`invalid output_size "(9,)" (dim 0 must be between 2 and 6)`: func() {
			NewMaxUnpool1d(2).Forward(torch.Ones([]int{1, 1, 2}), torch.Zeros([]int{1, 1, 2}).ToDType(torch.Int64), 9)
		},
	} {
		err := torch.TryDo(f)
		require.ErrorIs(t, err, torch.ErrArgument, message)
		require.ErrorContains(t, err, message)
	}
}
