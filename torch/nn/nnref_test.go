package nn

import (
	"encoding/base64"
	"encoding/json"
	"math"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/torchgo/torchgo/internal/testdata"
	"github.com/torchgo/torchgo/torch"
)

// nnref is what tools/nnref recorded of Python's torch.nn.
type nnref struct {
	Modules map[string]struct {
		Repr                string
		Parameters, Modules []string
		State               [][2]json.RawMessage
		Next                string
	}
}

type refTensor struct {
	DType string
	Shape []int
	Data  string
}

func readNNRef(t *testing.T, into any) {
	text, err := os.ReadFile(filepath.Join(testdata.Open(t, "nnref"), "nnref.json"))
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal(text, into))
}

// refModules are the expressions of tools/nnref in Go.
var refModules = map[string]func() any{
	"nn.Linear(5, 3)":             func() any { return NewLinear(5, 3) },
	"nn.Linear(5, 3, bias=False)": func() any { return NewLinear(5, 3, LinearOptions{Bias: torch.Some(false)}) },
	"nn.Linear(100, 20)":          func() any { return NewLinear(100, 20) },
	"nn.LinearCrossEntropyLoss(4, 3, out_features=(2,), bias=True, label_smoothing=0.1)": func() any {
		return NewLinearCrossEntropyLoss(4, 3, LinearCrossEntropyOptions{OutFeatures: []int{2}, Bias: true,
			CrossEntropyOptions: CrossEntropyOptions{LabelSmoothing: 0.1}})
	},
	"nn.LazyLinear(3)":                 func() any { return NewLazyLinear(3) },
	"nn.LazyConv2d(4, 3, bias=False)":  func() any { return NewLazyConv2d(4, 3, ConvOptions{Bias: torch.Some(false)}) },
	"nn.Bilinear(2, 3, 4)":             func() any { return NewBilinear(2, 3, 4) },
	"nn.Bilinear(2, 3, 4, bias=False)": func() any { return NewBilinear(2, 3, 4, LinearOptions{Bias: torch.Some(false)}) },
	"nn.Identity()":                    func() any { return NewIdentity() },
	"nn.Flatten()":                     func() any { return NewFlatten() },
	"nn.Flatten(2, 3)": func() any {
		return NewFlatten(FlattenOptions{StartDim: torch.Some(2), EndDim: torch.Some(3)})
	},
	"nn.Unflatten(1, (2, 3))": func() any { return NewUnflatten(1, 2, 3) },
	"nn.Conv1d(4, 6, 3)":      func() any { return NewConv1d(4, 6, 3) },
	"nn.Conv1d(4, 6, 3, padding='same', dilation=2)": func() any {
		return NewConv1d(4, 6, 3, ConvOptions{Padding: "same", Dilation: 2})
	},
	"nn.Conv2d(3, 8, 3, stride=2, padding=1, bias=False)": func() any {
		return NewConv2d(3, 8, 3, ConvOptions{Stride: 2, Padding: 1, Bias: torch.Some(false)})
	},
	"nn.Conv2d(4, 6, (1, 3), padding=(0, 1), groups=2, padding_mode='reflect')": func() any {
		return NewConv2d(4, 6, []int{1, 3}, ConvOptions{Padding: []int{0, 1}, Groups: torch.Some(2), PaddingMode: Reflect})
	},
	"nn.Conv3d(2, 3, 2)":          func() any { return NewConv3d(2, 3, 2) },
	"nn.ConvTranspose1d(4, 6, 3)": func() any { return NewConvTranspose1d(4, 6, 3) },
	"nn.ConvTranspose2d(4, 6, 3, stride=2, padding=1, output_padding=1, groups=2)": func() any {
		return NewConvTranspose2d(4, 6, 3, ConvTransposeOptions{Stride: 2, Padding: 1, OutputPadding: 1, Groups: torch.Some(2)})
	},
	"nn.ConvTranspose3d(2, 3, 2, dilation=2)": func() any { return NewConvTranspose3d(2, 3, 2, ConvTransposeOptions{Dilation: 2}) },
	"nn.BatchNorm1d(4)":                       func() any { return NewBatchNorm1d(4) },
	"nn.BatchNorm2d(4, momentum=None)":        func() any { return NewBatchNorm2d(4, BatchNormOptions{Cumulative: true}) },
	"nn.BatchNorm3d(4, affine=False)":         func() any { return NewBatchNorm3d(4, BatchNormOptions{Affine: torch.Some(false)}) },
	"nn.BatchNorm2d(4, track_running_stats=False, bias=False)": func() any {
		return NewBatchNorm2d(4, BatchNormOptions{TrackRunningStats: torch.Some(false), Bias: torch.Some(false)})
	},
	"nn.InstanceNorm1d(4)": func() any { return NewInstanceNorm1d(4) },
	"nn.InstanceNorm2d(4, affine=True, track_running_stats=True)": func() any {
		return NewInstanceNorm2d(4, InstanceNormOptions{Affine: true, TrackRunningStats: true})
	},
	"nn.InstanceNorm3d(4)": func() any { return NewInstanceNorm3d(4) },
	"nn.GroupNorm(2, 6)":   func() any { return NewGroupNorm(2, 6) },
	"nn.LayerNorm(6)":      func() any { return NewLayerNorm(6) },
	"nn.LayerNorm([2, 3], eps=1e-6, bias=False)": func() any {
		return NewLayerNorm([]int{2, 3}, LayerNormOptions{Eps: torch.Some(1e-6), Bias: torch.Some(false)})
	},
	"nn.LayerNorm(6, elementwise_affine=False)": func() any {
		return NewLayerNorm(6, LayerNormOptions{ElementwiseAffine: torch.Some(false)})
	},
	"nn.RMSNorm(6)":                func() any { return NewRMSNorm(6) },
	"nn.RMSNorm([2, 3], eps=1e-6)": func() any { return NewRMSNorm([]int{2, 3}, RMSNormOptions{Eps: torch.Some(1e-6)}) },
	"nn.LocalResponseNorm(5)":      func() any { return NewLocalResponseNorm(5) },
	"nn.Embedding(7, 3)":           func() any { return NewEmbedding(7, 3) },
	"nn.Embedding(7, 3, padding_idx=-2, max_norm=1.0)": func() any {
		return NewEmbedding(7, 3, EmbeddingOptions{PaddingIdx: torch.Some(-2), MaxNorm: torch.Some(1.0)})
	},
	"nn.EmbeddingBag(7, 3)": func() any { return NewEmbeddingBag(7, 3) },
	"nn.EmbeddingBag(7, 3, mode='sum', padding_idx=2)": func() any {
		return NewEmbeddingBag(7, 3, EmbeddingBagOptions{Mode: "sum", PaddingIdx: torch.Some(2)})
	},
	"nn.RNN(3, 4)": func() any { return NewRNN(3, 4) },
	"nn.RNN(3, 4, num_layers=2, nonlinearity='relu', bias=False)": func() any {
		return NewRNN(3, 4, RNNOptions{NumLayers: torch.Some(2), Nonlinearity: "relu", Bias: torch.Some(false)})
	},
	"nn.LSTM(3, 4, num_layers=2, bidirectional=True, batch_first=True, dropout=0.2)": func() any {
		return NewLSTM(3, 4, RNNOptions{NumLayers: torch.Some(2), Bidirectional: true, BatchFirst: true, Dropout: 0.2})
	},
	"nn.LSTM(3, 4, proj_size=2, num_layers=2)": func() any {
		return NewLSTM(3, 4, RNNOptions{ProjSize: 2, NumLayers: torch.Some(2)})
	},
	"nn.GRU(3, 4, num_layers=2, bidirectional=True)": func() any {
		return NewGRU(3, 4, RNNOptions{NumLayers: torch.Some(2), Bidirectional: true})
	},
	"nn.RNNCell(3, 4)": func() any { return NewRNNCell(3, 4) },
	"nn.RNNCell(3, 4, bias=False, nonlinearity='relu')": func() any {
		return NewRNNCell(3, 4, RNNCellOptions{Bias: torch.Some(false), Nonlinearity: "relu"})
	},
	"nn.LSTMCell(3, 4)":           func() any { return NewLSTMCell(3, 4) },
	"nn.GRUCell(3, 4)":            func() any { return NewGRUCell(3, 4) },
	"nn.PReLU()":                  func() any { return NewPReLU() },
	"nn.PReLU(3)":                 func() any { return NewPReLU(PReLUOptions{NumParameters: torch.Some(3)}) },
	"nn.Dropout(0.5)":             func() any { return NewDropout(0.5) },
	"nn.Dropout1d(0.1)":           func() any { return NewDropout1d(0.1) },
	"nn.Dropout2d(0.1)":           func() any { return NewDropout2d(0.1) },
	"nn.Dropout3d(0.1)":           func() any { return NewDropout3d(0.1) },
	"nn.AlphaDropout(0.1)":        func() any { return NewAlphaDropout(0.1) },
	"nn.FeatureAlphaDropout(0.1)": func() any { return NewFeatureAlphaDropout(0.1) },
	"nn.MaxPool1d(3)":             func() any { return NewMaxPool1d(3) },
	"nn.MaxPool2d((3, 2), stride=2, padding=1, ceil_mode=True)": func() any {
		return NewMaxPool2d([]int{3, 2}, PoolOptions{Stride: 2, Padding: 1, CeilMode: true})
	},
	"nn.AvgPool1d(3)":                          func() any { return NewAvgPool1d(3) },
	"nn.AvgPool2d(3, stride=2)":                func() any { return NewAvgPool2d(3, PoolOptions{Stride: 2}) },
	"nn.AvgPool3d((3, 2, 2))":                  func() any { return NewAvgPool3d([]int{3, 2, 2}) },
	"nn.LPPool2d(2.0, 3)":                      func() any { return NewLPPool2d(2, 3) },
	"nn.AdaptiveAvgPool2d((3, None))":          func() any { return NewAdaptiveAvgPool2d([]int{3, Keep}) },
	"nn.AdaptiveMaxPool1d(4)":                  func() any { return NewAdaptiveMaxPool1d(4) },
	"nn.FractionalMaxPool2d(2, output_size=3)": func() any { return NewFractionalMaxPool2d(2, FractionalMaxPoolOptions{OutputSize: 3}) },
	"nn.MaxUnpool2d(2)":                        func() any { return NewMaxUnpool2d(2) },
	"nn.ConstantPad1d(2, 3.5)":                 func() any { return NewConstantPad1d(2, 3.5) },
	"nn.ZeroPad2d((1, 2, 3, 4))":               func() any { return NewZeroPad2d([]int{1, 2, 3, 4}) },
	"nn.ReflectionPad1d(2)":                    func() any { return NewReflectionPad1d(2) },
	"nn.ReplicationPad3d(1)":                   func() any { return NewReplicationPad3d(1) },
	"nn.CircularPad2d((1, 2, 3, 4))":           func() any { return NewCircularPad2d([]int{1, 2, 3, 4}) },
	"nn.Upsample(scale_factor=2.0)":            func() any { return NewUpsample(InterpolateOptions{ScaleFactor: []float64{2}}) },
	"nn.Upsample(size=(4, 5), mode='bilinear')": func() any {
		return NewUpsample(InterpolateOptions{Size: []int{4, 5}, Mode: "bilinear"})
	},
	"nn.PixelShuffle(2)":          func() any { return NewPixelShuffle(2) },
	"nn.PixelUnshuffle(2)":        func() any { return NewPixelUnshuffle(2) },
	"nn.ChannelShuffle(2)":        func() any { return NewChannelShuffle(2) },
	"nn.Unfold(3)":                func() any { return NewUnfold(3) },
	"nn.Fold((4, 5), 2)":          func() any { return NewFold([]int{4, 5}, 2) },
	"nn.ReLU()":                   func() any { return NewReLU() },
	"nn.ReLU6()":                  func() any { return NewReLU6() },
	"nn.Sigmoid()":                func() any { return NewSigmoid() },
	"nn.Tanh()":                   func() any { return NewTanh() },
	"nn.Tanhshrink()":             func() any { return NewTanhshrink() },
	"nn.SiLU()":                   func() any { return NewSiLU() },
	"nn.Mish()":                   func() any { return NewMish() },
	"nn.Hardswish()":              func() any { return NewHardswish() },
	"nn.Hardsigmoid()":            func() any { return NewHardsigmoid() },
	"nn.LogSigmoid()":             func() any { return NewLogSigmoid() },
	"nn.Softsign()":               func() any { return NewSoftsign() },
	"nn.SELU()":                   func() any { return NewSELU() },
	"nn.GELU()":                   func() any { return NewGELU() },
	"nn.GELU(approximate='tanh')": func() any { return NewGELU(GELUOptions{Approximate: "tanh"}) },
	"nn.ELU()":                    func() any { return NewELU() },
	"nn.CELU(2.0)":                func() any { return NewCELU(2) },
	"nn.LeakyReLU(0.2)":           func() any { return NewLeakyReLU(0.2) },
	"nn.Hardshrink()":             func() any { return NewHardshrink() },
	"nn.Softshrink(0.25)":         func() any { return NewSoftshrink(0.25) },
	"nn.Hardtanh(-2.0, 2.0)":      func() any { return NewHardtanh(HardtanhOptions{MinVal: torch.Some(-2.0), MaxVal: torch.Some(2.0)}) },
	"nn.Softplus(2.0, 10.0)":      func() any { return NewSoftplus(SoftplusOptions{Beta: torch.Some(2.0), Threshold: torch.Some(10.0)}) },
	"nn.Threshold(0.1, 20.0)":     func() any { return NewThreshold(0.1, 20) },
	"nn.RReLU()":                  func() any { return NewRReLU() },
	"nn.GLU()":                    func() any { return NewGLU() },
	"nn.Softmax(1)":               func() any { return NewSoftmax(1) },
	"nn.Softmin(-1)":              func() any { return NewSoftmin(-1) },
	"nn.LogSoftmax(0)":            func() any { return NewLogSoftmax(0) },
	"nn.Softmax2d()":              func() any { return NewSoftmax2d() },
	"nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.ReLU(), nn.Flatten(), nn.Linear(8, 3))": func() any {
		return NewSequential(NewConv2d(1, 2, 3), NewBatchNorm2d(2), NewReLU(), NewFlatten(), NewLinear(8, 3))
	},
	"nn.Sequential(nn.Sequential(nn.Linear(2, 2), nn.Tanh()), nn.Linear(2, 1))": func() any {
		return NewSequential(NewSequential(NewLinear(2, 2), NewTanh()), NewLinear(2, 1))
	},
	"nn.MultiheadAttention(4, 2)": func() any { return NewMultiheadAttention(4, 2) },
	"nn.MultiheadAttention(4, 2, bias=False, add_bias_kv=True, batch_first=True)": func() any {
		return NewMultiheadAttention(4, 2, MultiheadAttentionOptions{Bias: torch.Some(false), AddBiasKV: true, BatchFirst: true})
	},
	"nn.MultiheadAttention(4, 2, kdim=3, vdim=5)": func() any {
		return NewMultiheadAttention(4, 2, MultiheadAttentionOptions{KDim: 3, VDim: 5})
	},
	"nn.TransformerEncoderLayer(4, 2, 8)": func() any {
		return NewTransformerEncoderLayer(4, 2, TransformerLayerOptions{DimFeedforward: torch.Some(8)})
	},
	"nn.TransformerEncoder(nn.TransformerEncoderLayer(4, 2, 8, bias=False), 2, nn.LayerNorm(4))": func() any {
		layer := NewTransformerEncoderLayer(4, 2, TransformerLayerOptions{DimFeedforward: torch.Some(8), Bias: torch.Some(false)})
		defer Close(layer)
		return NewTransformerEncoder(layer, 2, NewLayerNorm(4))
	},
	"nn.TransformerDecoderLayer(4, 2, 8, layer_norm_eps=1e-6)": func() any {
		return NewTransformerDecoderLayer(4, 2, TransformerLayerOptions{DimFeedforward: torch.Some(8), LayerNormEps: torch.Some(1e-6)})
	},
	"nn.TransformerDecoder(nn.TransformerDecoderLayer(4, 2, 8), 2)": func() any {
		layer := NewTransformerDecoderLayer(4, 2, TransformerLayerOptions{DimFeedforward: torch.Some(8)})
		defer Close(layer)
		return NewTransformerDecoder(layer, 2, nil)
	},
	"nn.Transformer(4, 2, 2, 1, 8, dropout=0.2)": func() any {
		return NewTransformer(4, 2, TransformerOptions{NumEncoderLayers: torch.Some(2), NumDecoderLayers: torch.Some(1),
			TransformerLayerOptions: TransformerLayerOptions{DimFeedforward: torch.Some(8), Dropout: torch.Some(0.2)}})
	},
	"nn.ModuleList([nn.Linear(2, 2), nn.Linear(2, 2), nn.Linear(2, 2), nn.Tanh()])": func() any {
		return NewModuleList(NewLinear(2, 2), NewLinear(2, 2), NewLinear(2, 2), NewTanh())
	},
	"nn.ModuleDict({'b': nn.Linear(2, 1), 'a': nn.ReLU()})": func() any {
		d := NewModuleDict()
		d.Set("b", NewLinear(2, 1))
		d.Set("a", NewReLU())
		return d
	},
}

func base64Of(x *torch.Tensor) string {
	return base64.StdEncoding.EncodeToString(x.Contiguous().Bytes())
}

// The initial values are Python's, bit by bit, and as many numbers are drawn.
func TestModulesStartAsPythons(t *testing.T) {
	var ref nnref
	readNNRef(t, &ref)
	require.Equal(t, len(ref.Modules), len(refModules))
	for expression, want := range ref.Modules {
		t.Run(expression, func(t *testing.T) {
			torch.Scope(func() {
				construct := refModules[expression]
				require.NotNil(t, construct)
				torch.ManualSeed(7)
				m := construct()
				defer Close(m)
				require.Equal(t, want.Next, base64Of(torch.Rand([]int{1})), "numbers drawn")
				names := []string{}
				for _, entry := range want.State {
					var name string
					var x refTensor
					require.NoError(t, json.Unmarshal(entry[0], &name))
					require.NoError(t, json.Unmarshal(entry[1], &x))
					names = append(names, name)
					for got, tensor := range StateDict(m) {
						if got == name {
							require.Equal(t, x.DType, tensor.DType().String(), name)
							require.Equal(t, x.Shape, append([]int{}, tensor.Shape()...), name)
							require.Equal(t, x.Data, base64Of(tensor.Detach()), name)
						}
					}
				}
				got := []string{}
				for name := range StateDict(m) {
					got = append(got, name)
				}
				require.Equal(t, names, got)
				got = []string{}
				for name := range NamedParameters(m) {
					got = append(got, name)
				}
				require.Equal(t, want.Parameters, got)
				got = []string{}
				for name := range NamedModules(m) {
					got = append(got, name)
				}
				require.Equal(t, want.Modules, got)
			})
		})
	}
}

// String prints what Python does.
func TestStringIsPythonsRepr(t *testing.T) {
	var ref nnref
	readNNRef(t, &ref)
	for expression, want := range ref.Modules {
		m := refModules[expression]()
		require.Equal(t, want.Repr, String(m), expression)
		Close(m)
	}
}

func TestNumbersPrintAsInPython(t *testing.T) {
	for want, x := range map[string]float64{"0.0": 0, "1.0": 1, "0.1": 0.1, "1e-05": 1e-5, "0.0001": 1e-4, "-2.0": -2, "1e+16": 1e16,
		"1000000000000000.0": 1e15, "inf": math.Inf(1), "0.3333333333333333": 1.0 / 3} {
		require.Equal(t, want, number(x))
	}
}
