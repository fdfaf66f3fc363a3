package nn

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/torchgo/torchgo/internal/testdata"
	"github.com/torchgo/torchgo/torch"
)

// The reference of tools/moduleinfo: modules of PyTorch's own database on its samples.
type (
	moduleInfo struct {
		Torch          string
		Entries, Extra []moduleEntry
		Skipped        map[string]string

		data []byte
	}
	moduleEntry struct {
		Name    string
		Samples []moduleSample
	}
	moduleSample struct {
		Args    map[string]json.RawMessage
		Train   bool
		DType   string
		State   []namedTensor
		In      []json.RawMessage
		Kw      map[string]json.RawMessage
		Out     []*infoTensor
		Weights []*infoTensor // of each of Out; nil: it takes no part in the gradients
		After   []namedTensor // buffers
		Grads   []*infoTensor // of each input that asks for one
		PGrads  []namedTensor // of parameters
	}
	infoTensor struct {
		D string // dtype
		S []int  // shape
		O int    // offset
		G bool   // a gradient is recorded
	}
	namedTensor struct {
		name string
		t    *infoTensor
	}
)

func (n *namedTensor) UnmarshalJSON(b []byte) error {
	var pair [2]json.RawMessage
	if err := json.Unmarshal(b, &pair); err != nil {
		return err
	}
	return errors.Join(json.Unmarshal(pair[0], &n.name), json.Unmarshal(pair[1], &n.t))
}

func (m *moduleInfo) tensor(x *infoTensor) *torch.Tensor {
	dtype, err := torch.ParseDType(x.D)
	if err != nil {
		panic(err)
	}
	t := torch.Empty(x.S, torch.EmptyOptions{DType: dtype})
	copy(t.Bytes(), m.data[x.O:])
	return t
}

// infoArgs are recorded arguments; what is absent or null has the zero value.
type infoArgs struct {
	ref  *moduleInfo
	args map[string]json.RawMessage
}

func (a infoArgs) has(name string) bool { return a.args[name] != nil && string(a.args[name]) != "null" }

func arg[T any](a infoArgs, name string) (v T) {
	if a.has(name) {
		if err := json.Unmarshal(a.args[name], &v); err != nil {
			panic(fmt.Sprintf("%s: %v", name, err))
		}
	}
	return v
}

func (a infoArgs) int(name string) int       { return arg[int](a, name) }
func (a infoArgs) bool(name string) bool     { return arg[bool](a, name) }
func (a infoArgs) string(name string) string { return arg[string](a, name) }

func (a infoArgs) optInt(name string) (o torch.Opt[int]) {
	if a.has(name) {
		return torch.Some(a.int(name))
	}
	return o
}

func (a infoArgs) optBool(name string) (o torch.Opt[bool]) {
	if a.has(name) {
		return torch.Some(a.bool(name))
	}
	return o
}

// infoFloat is {"f": 0.5}, {"f": "inf"} or an int.
type infoFloat float64

func (f *infoFloat) UnmarshalJSON(b []byte) error {
	var v struct{ F json.RawMessage }
	if b[0] == '{' {
		if err := json.Unmarshal(b, &v); err != nil {
			return err
		}
		b = v.F
	}
	switch string(b) {
	case `"inf"`:
		*f = infoFloat(math.Inf(1))
	case `"-inf"`:
		*f = infoFloat(math.Inf(-1))
	default:
		return json.Unmarshal(b, (*float64)(f))
	}
	return nil
}

func (a infoArgs) float(name string) float64 { return float64(arg[infoFloat](a, name)) }

func (a infoArgs) optFloat(name string) (o torch.Opt[float64]) {
	if a.has(name) {
		return torch.Some(a.float(name))
	}
	return o
}

// floats is one float or a list.
func (a infoArgs) floats(name string) (v []float64) {
	if !a.has(name) {
		return nil
	}
	if a.args[name][0] != '[' {
		return []float64{a.float(name)}
	}
	for _, f := range arg[[]infoFloat](a, name) {
		v = append(v, float64(f))
	}
	return v
}

// size is an int or a list, null in it being Keep.
func (a infoArgs) size(name string) Size {
	switch {
	case !a.has(name):
		return nil
	case a.args[name][0] != '[':
		return a.int(name)
	}
	var v []int
	for _, n := range arg[[]*int](a, name) {
		if n == nil {
			v = append(v, Keep)
		} else {
			v = append(v, *n)
		}
	}
	return v
}

func (a infoArgs) tensor(name string) *torch.Tensor {
	if !a.has(name) {
		return nil
	}
	return a.ref.tensor(arg[struct{ T *infoTensor }](a, name).T)
}

// module is the arguments of a module that is an argument.
func (a infoArgs) module(name string) infoArgs {
	return infoArgs{a.ref, arg[struct{ Args map[string]json.RawMessage }](a, name).Args}
}

func (a infoArgs) reduction() Reduction {
	return map[string]Reduction{"": ReductionMean, "mean": ReductionMean, "sum": ReductionSum, "none": ReductionNone, "batchmean": ReductionBatchMean}[a.string("reduction")]
}

func (a infoArgs) conv() (in, out int, kernel Size, o ConvOptions) {
	o = ConvOptions{Stride: a.size("stride"), Dilation: a.size("dilation"), Groups: a.optInt("groups"), Bias: a.optBool("bias"),
		PaddingMode: PaddingMode(a.string("padding_mode"))}
	if raw := a.args["padding"]; raw != nil && raw[0] == '"' {
		o.Padding = a.string("padding")
	} else {
		o.Padding = a.size("padding")
	}
	return a.int("in_channels"), a.int("out_channels"), a.size("kernel_size"), o
}

func (a infoArgs) convTranspose() (in, out int, kernel Size, o ConvTransposeOptions) {
	return a.int("in_channels"), a.int("out_channels"), a.size("kernel_size"), ConvTransposeOptions{Stride: a.size("stride"), Padding: a.size("padding"),
		OutputPadding: a.size("output_padding"), Groups: a.optInt("groups"), Bias: a.optBool("bias"), Dilation: a.size("dilation")}
}

func (a infoArgs) batchNorm() (int, BatchNormOptions) {
	raw, given := a.args["momentum"]
	return a.int("num_features"), BatchNormOptions{Eps: a.optFloat("eps"), Momentum: a.optFloat("momentum"), Cumulative: given && string(raw) == "null",
		Affine: a.optBool("affine"), Bias: a.optBool("bias"), TrackRunningStats: a.optBool("track_running_stats")}
}

func (a infoArgs) instanceNorm() (int, InstanceNormOptions) {
	return a.int("num_features"), InstanceNormOptions{Eps: a.optFloat("eps"), Momentum: a.optFloat("momentum"), Affine: a.bool("affine"),
		Bias: a.optBool("bias"), TrackRunningStats: a.bool("track_running_stats")}
}

func (a infoArgs) rnn() (in, hidden int, o RNNOptions) {
	return a.int("input_size"), a.int("hidden_size"), RNNOptions{NumLayers: a.optInt("num_layers"), Bias: a.optBool("bias"), BatchFirst: a.bool("batch_first"),
		Dropout: a.float("dropout"), Bidirectional: a.bool("bidirectional"), ProjSize: a.int("proj_size"), Nonlinearity: a.string("nonlinearity")}
}

func (a infoArgs) cell() (in, hidden int, o RNNCellOptions) {
	return a.int("input_size"), a.int("hidden_size"), RNNCellOptions{Bias: a.optBool("bias"), Nonlinearity: a.string("nonlinearity")}
}

func (a infoArgs) pool() (Size, PoolOptions) {
	return a.size("kernel_size"), PoolOptions{Stride: a.size("stride"), Padding: a.size("padding"), Dilation: a.size("dilation"), CeilMode: a.bool("ceil_mode"),
		CountIncludePad: a.optBool("count_include_pad"), DivisorOverride: a.optInt("divisor_override")}
}

func (a infoArgs) fractional() (Size, FractionalMaxPoolOptions) {
	return a.size("kernel_size"), FractionalMaxPoolOptions{OutputSize: a.size("output_size"), OutputRatio: a.floats("output_ratio"), RandomSamples: a.tensor("_random_samples")}
}

func (a infoArgs) fold() FoldOptions {
	return FoldOptions{Dilation: a.size("dilation"), Padding: a.size("padding"), Stride: a.size("stride")}
}

func (a infoArgs) interpolate() InterpolateOptions {
	return InterpolateOptions{Size: a.size("size"), ScaleFactor: a.floats("scale_factor"), Mode: a.string("mode"), AlignCorners: a.bool("align_corners"),
		RecomputeScaleFactor: a.bool("recompute_scale_factor")}
}

func (a infoArgs) linear() LinearOptions { return LinearOptions{Bias: a.optBool("bias")} }

func (a infoArgs) transformerLayer() (dModel, nHead int, o TransformerLayerOptions) {
	o = TransformerLayerOptions{DimFeedforward: a.optInt("dim_feedforward"), Dropout: a.optFloat("dropout"), LayerNormEps: a.optFloat("layer_norm_eps"),
		BatchFirst: a.bool("batch_first"), NormFirst: a.bool("norm_first"), Bias: a.optBool("bias")}
	if a.has("activation") {
		name := arg[struct{ Fn string }](a, "activation").Fn
		var err error
		if o.Activation, err = ActivationByName(name); err != nil {
			panic(err)
		}
	}
	return a.int("d_model"), a.int("nhead"), o
}

func (a infoArgs) norm() *LayerNorm {
	if !a.has("norm") {
		return nil
	}
	n := a.module("norm")
	return NewLayerNorm(n.size("normalized_shape"), LayerNormOptions{Eps: n.optFloat("eps")})
}

// infoModules construct each module of the reference from Python's arguments.
var infoModules = map[string]func(a infoArgs) any{
	"AdaptiveAvgPool1d": func(a infoArgs) any { return NewAdaptiveAvgPool1d(a.size("output_size")) },
	"AdaptiveAvgPool2d": func(a infoArgs) any { return NewAdaptiveAvgPool2d(a.size("output_size")) },
	"AdaptiveAvgPool3d": func(a infoArgs) any { return NewAdaptiveAvgPool3d(a.size("output_size")) },
	"AdaptiveMaxPool1d": func(a infoArgs) any { return NewAdaptiveMaxPool1d(a.size("output_size")) },
	"AdaptiveMaxPool2d": func(a infoArgs) any { return NewAdaptiveMaxPool2d(a.size("output_size")) },
	"AdaptiveMaxPool3d": func(a infoArgs) any { return NewAdaptiveMaxPool3d(a.size("output_size")) },
	"AlphaDropout":      func(a infoArgs) any { return NewAlphaDropout(a.float("p")) },
	"AvgPool1d":         func(a infoArgs) any { k, o := a.pool(); return NewAvgPool1d(k, o) },
	"AvgPool2d":         func(a infoArgs) any { k, o := a.pool(); return NewAvgPool2d(k, o) },
	"AvgPool3d":         func(a infoArgs) any { k, o := a.pool(); return NewAvgPool3d(k, o) },
	"BCELoss":           func(a infoArgs) any { return &BCELoss{Weight: a.tensor("weight"), Reduction: a.reduction()} },
	"BCEWithLogitsLoss": func(a infoArgs) any {
		return &BCEWithLogitsLoss{Weight: a.tensor("weight"), PosWeight: a.tensor("pos_weight"), Reduction: a.reduction()}
	},
	"BatchNorm1d": func(a infoArgs) any { n, o := a.batchNorm(); return NewBatchNorm1d(n, o) },
	"BatchNorm2d": func(a infoArgs) any { n, o := a.batchNorm(); return NewBatchNorm2d(n, o) },
	"BatchNorm3d": func(a infoArgs) any { n, o := a.batchNorm(); return NewBatchNorm3d(n, o) },
	"Bilinear": func(a infoArgs) any {
		return NewBilinear(a.int("in1_features"), a.int("in2_features"), a.int("out_features"), a.linear())
	},
	"CELU": func(a infoArgs) any { return NewCELU(a.optFloat("alpha").Or(1)) },
	"CTCLoss": func(a infoArgs) any {
		return &CTCLoss{Blank: a.int("blank"), ZeroInfinity: a.bool("zero_infinity"), Reduction: a.reduction()}
	},
	"ChannelShuffle":      func(a infoArgs) any { return NewChannelShuffle(a.int("groups")) },
	"CircularPad1d":       func(a infoArgs) any { return NewCircularPad1d(a.size("padding")) },
	"CircularPad2d":       func(a infoArgs) any { return NewCircularPad2d(a.size("padding")) },
	"CircularPad3d":       func(a infoArgs) any { return NewCircularPad3d(a.size("padding")) },
	"ConstantPad1d":       func(a infoArgs) any { return NewConstantPad1d(a.size("padding"), a.float("value")) },
	"ConstantPad2d":       func(a infoArgs) any { return NewConstantPad2d(a.size("padding"), a.float("value")) },
	"ConstantPad3d":       func(a infoArgs) any { return NewConstantPad3d(a.size("padding"), a.float("value")) },
	"Conv1d":              func(a infoArgs) any { i, o, k, opt := a.conv(); return NewConv1d(i, o, k, opt) },
	"Conv2d":              func(a infoArgs) any { i, o, k, opt := a.conv(); return NewConv2d(i, o, k, opt) },
	"Conv3d":              func(a infoArgs) any { i, o, k, opt := a.conv(); return NewConv3d(i, o, k, opt) },
	"ConvTranspose1d":     func(a infoArgs) any { i, o, k, opt := a.convTranspose(); return NewConvTranspose1d(i, o, k, opt) },
	"ConvTranspose2d":     func(a infoArgs) any { i, o, k, opt := a.convTranspose(); return NewConvTranspose2d(i, o, k, opt) },
	"ConvTranspose3d":     func(a infoArgs) any { i, o, k, opt := a.convTranspose(); return NewConvTranspose3d(i, o, k, opt) },
	"CosineEmbeddingLoss": func(a infoArgs) any { return &CosineEmbeddingLoss{Margin: a.float("margin"), Reduction: a.reduction()} },
	"CosineSimilarity":    func(a infoArgs) any { return &CosineSimilarity{Dim: a.optInt("dim"), Eps: a.optFloat("eps")} },
	"CrossEntropyLoss": func(a infoArgs) any {
		return &CrossEntropyLoss{Weight: a.tensor("weight"), IgnoreIndex: a.optInt("ignore_index"), LabelSmoothing: a.float("label_smoothing"), Reduction: a.reduction()}
	},
	"Dropout":   func(a infoArgs) any { return NewDropout(a.float("p")) },
	"Dropout1d": func(a infoArgs) any { return NewDropout1d(a.float("p")) },
	"Dropout2d": func(a infoArgs) any { return NewDropout2d(a.float("p")) },
	"Dropout3d": func(a infoArgs) any { return NewDropout3d(a.float("p")) },
	"ELU":       func(a infoArgs) any { return NewELU(a.optFloat("alpha").Or(1)) },
	"Embedding": func(a infoArgs) any {
		return NewEmbedding(a.int("num_embeddings"), a.int("embedding_dim"), EmbeddingOptions{PaddingIdx: a.optInt("padding_idx"), MaxNorm: a.optFloat("max_norm"),
			NormType: a.optFloat("norm_type"), ScaleGradByFreq: a.bool("scale_grad_by_freq")})
	},
	"EmbeddingBag": func(a infoArgs) any {
		return NewEmbeddingBag(a.int("num_embeddings"), a.int("embedding_dim"), EmbeddingBagOptions{Mode: a.string("mode"), PaddingIdx: a.optInt("padding_idx"),
			MaxNorm: a.optFloat("max_norm"), NormType: a.optFloat("norm_type"), IncludeLastOffset: a.bool("include_last_offset")})
	},
	"FeatureAlphaDropout": func(a infoArgs) any { return NewFeatureAlphaDropout(a.float("p")) },
	"Flatten": func(a infoArgs) any {
		return NewFlatten(FlattenOptions{StartDim: a.optInt("start_dim"), EndDim: a.optInt("end_dim")})
	},
	"Fold":                func(a infoArgs) any { return NewFold(a.size("output_size"), a.size("kernel_size"), a.fold()) },
	"FractionalMaxPool2d": func(a infoArgs) any { k, o := a.fractional(); return NewFractionalMaxPool2d(k, o) },
	"FractionalMaxPool3d": func(a infoArgs) any { k, o := a.fractional(); return NewFractionalMaxPool3d(k, o) },
	"GELU":                func(a infoArgs) any { return NewGELU(GELUOptions{Approximate: a.string("approximate")}) },
	"GLU":                 func(a infoArgs) any { return NewGLU(a.optInt("dim").Or(-1)) },
	"GRU":                 func(a infoArgs) any { i, h, o := a.rnn(); return NewGRU(i, h, o) },
	"GRUCell":             func(a infoArgs) any { i, h, o := a.cell(); return NewGRUCell(i, h, o) },
	"GaussianNLLLoss": func(a infoArgs) any {
		return &GaussianNLLLoss{Full: a.bool("full"), Eps: a.optFloat("eps"), Reduction: a.reduction()}
	},
	"GroupNorm": func(a infoArgs) any {
		return NewGroupNorm(a.int("num_groups"), a.int("num_channels"), GroupNormOptions{Eps: a.optFloat("eps"), Affine: a.optBool("affine"), Bias: a.optBool("bias")})
	},
	"Hardshrink":  func(a infoArgs) any { return NewHardshrink(a.optFloat("lambd").Or(0.5)) },
	"Hardsigmoid": func(infoArgs) any { return NewHardsigmoid() },
	"Hardswish":   func(infoArgs) any { return NewHardswish() },
	"Hardtanh": func(a infoArgs) any {
		return NewHardtanh(HardtanhOptions{a.optFloat("min_val"), a.optFloat("max_val")})
	},
	"HingeEmbeddingLoss": func(a infoArgs) any {
		return &HingeEmbeddingLoss{Margin: a.optFloat("margin"), Reduction: a.reduction()}
	},
	"HuberLoss":      func(a infoArgs) any { return &HuberLoss{Delta: a.optFloat("delta"), Reduction: a.reduction()} },
	"Identity":       func(infoArgs) any { return NewIdentity() },
	"InstanceNorm1d": func(a infoArgs) any { n, o := a.instanceNorm(); return NewInstanceNorm1d(n, o) },
	"InstanceNorm2d": func(a infoArgs) any { n, o := a.instanceNorm(); return NewInstanceNorm2d(n, o) },
	"InstanceNorm3d": func(a infoArgs) any { n, o := a.instanceNorm(); return NewInstanceNorm3d(n, o) },
	"KLDivLoss":      func(a infoArgs) any { return &KLDivLoss{LogTarget: a.bool("log_target"), Reduction: a.reduction()} },
	"L1Loss":         func(a infoArgs) any { return &L1Loss{Reduction: a.reduction()} },
	"LPPool1d":       func(a infoArgs) any { k, o := a.pool(); return NewLPPool1d(a.float("norm_type"), k, o) },
	"LPPool2d":       func(a infoArgs) any { k, o := a.pool(); return NewLPPool2d(a.float("norm_type"), k, o) },
	"LPPool3d":       func(a infoArgs) any { k, o := a.pool(); return NewLPPool3d(a.float("norm_type"), k, o) },
	"LSTM":           func(a infoArgs) any { i, h, o := a.rnn(); return NewLSTM(i, h, o) },
	"LSTMCell":       func(a infoArgs) any { i, h, o := a.cell(); return NewLSTMCell(i, h, o) },
	"LayerNorm": func(a infoArgs) any {
		return NewLayerNorm(a.size("normalized_shape"), LayerNormOptions{Eps: a.optFloat("eps"), ElementwiseAffine: a.optBool("elementwise_affine"), Bias: a.optBool("bias")})
	},
	"LinearCrossEntropyLoss": func(a infoArgs) any {
		return NewLinearCrossEntropyLoss(a.int("in_features"), a.int("num_classes"), LinearCrossEntropyOptions{
			CrossEntropyOptions: CrossEntropyOptions{Weight: a.tensor("weight"), IgnoreIndex: a.optInt("ignore_index"),
				LabelSmoothing: a.float("label_smoothing"), Reduction: a.reduction()},
			OutFeatures: arg[[]int](a, "out_features"), Bias: a.bool("bias")})
	},
	"LazyConv1d":          func(a infoArgs) any { _, o, k, opt := a.conv(); return NewLazyConv1d(o, k, opt) },
	"LazyConv2d":          func(a infoArgs) any { _, o, k, opt := a.conv(); return NewLazyConv2d(o, k, opt) },
	"LazyConv3d":          func(a infoArgs) any { _, o, k, opt := a.conv(); return NewLazyConv3d(o, k, opt) },
	"LazyConvTranspose1d": func(a infoArgs) any { _, o, k, opt := a.convTranspose(); return NewLazyConvTranspose1d(o, k, opt) },
	"LazyConvTranspose2d": func(a infoArgs) any { _, o, k, opt := a.convTranspose(); return NewLazyConvTranspose2d(o, k, opt) },
	"LazyConvTranspose3d": func(a infoArgs) any { _, o, k, opt := a.convTranspose(); return NewLazyConvTranspose3d(o, k, opt) },
	"LazyLinear":          func(a infoArgs) any { return NewLazyLinear(a.int("out_features"), a.linear()) },
	"LeakyReLU":           func(a infoArgs) any { return NewLeakyReLU(a.optFloat("negative_slope").Or(0.01)) },
	"Linear":              func(a infoArgs) any { return NewLinear(a.int("in_features"), a.int("out_features"), a.linear()) },
	"LocalResponseNorm": func(a infoArgs) any {
		return NewLocalResponseNorm(a.int("size"), LocalResponseNormOptions{a.optFloat("alpha"), a.optFloat("beta"), a.optFloat("k")})
	},
	"LogSigmoid":           func(infoArgs) any { return NewLogSigmoid() },
	"LogSoftmax":           func(a infoArgs) any { return NewLogSoftmax(a.int("dim")) },
	"MSELoss":              func(a infoArgs) any { return &MSELoss{Reduction: a.reduction()} },
	"MarginRankingLoss":    func(a infoArgs) any { return &MarginRankingLoss{Margin: a.float("margin"), Reduction: a.reduction()} },
	"MaxPool1d":            func(a infoArgs) any { k, o := a.pool(); return NewMaxPool1d(k, o) },
	"MaxPool2d":            func(a infoArgs) any { k, o := a.pool(); return NewMaxPool2d(k, o) },
	"MaxPool3d":            func(a infoArgs) any { k, o := a.pool(); return NewMaxPool3d(k, o) },
	"MaxUnpool1d":          func(a infoArgs) any { k, o := a.pool(); return NewMaxUnpool1d(k, o) },
	"MaxUnpool2d":          func(a infoArgs) any { k, o := a.pool(); return NewMaxUnpool2d(k, o) },
	"MaxUnpool3d":          func(a infoArgs) any { k, o := a.pool(); return NewMaxUnpool3d(k, o) },
	"Mish":                 func(infoArgs) any { return NewMish() },
	"MultiLabelMarginLoss": func(a infoArgs) any { return &MultiLabelMarginLoss{Reduction: a.reduction()} },
	"MultiLabelSoftMarginLoss": func(a infoArgs) any {
		return &MultiLabelSoftMarginLoss{Weight: a.tensor("weight"), Reduction: a.reduction()}
	},
	"MultiMarginLoss": func(a infoArgs) any {
		return &MultiMarginLoss{Weight: a.tensor("weight"), P: a.optInt("p"), Margin: a.optFloat("margin"), Reduction: a.reduction()}
	},
	"MultiheadAttention": func(a infoArgs) any {
		return NewMultiheadAttention(a.int("embed_dim"), a.int("num_heads"), MultiheadAttentionOptions{Bias: a.optBool("bias"), AddBiasKV: a.bool("add_bias_kv"),
			AddZeroAttn: a.bool("add_zero_attn"), KDim: a.int("kdim"), VDim: a.int("vdim"), BatchFirst: a.bool("batch_first")})
	},
	"NLLLoss": func(a infoArgs) any {
		return &NLLLoss{Weight: a.tensor("weight"), IgnoreIndex: a.optInt("ignore_index"), Reduction: a.reduction()}
	},
	"PReLU": func(a infoArgs) any { return NewPReLU(PReLUOptions{a.optInt("num_parameters"), a.optFloat("init")}) },
	"PairwiseDistance": func(a infoArgs) any {
		return &PairwiseDistance{P: a.optFloat("p"), Eps: a.optFloat("eps"), KeepDim: a.bool("keepdim")}
	},
	"PixelShuffle":   func(a infoArgs) any { return NewPixelShuffle(a.int("upscale_factor")) },
	"PixelUnshuffle": func(a infoArgs) any { return NewPixelUnshuffle(a.int("downscale_factor")) },
	"PoissonNLLLoss": func(a infoArgs) any {
		return &PoissonNLLLoss{LogInput: a.optBool("log_input"), Full: a.bool("full"), Eps: a.optFloat("eps"), Reduction: a.reduction()}
	},
	"RMSNorm": func(a infoArgs) any {
		return NewRMSNorm(a.size("normalized_shape"), RMSNormOptions{Eps: a.optFloat("eps"), ElementwiseAffine: a.optBool("elementwise_affine")})
	},
	"RNN":              func(a infoArgs) any { i, h, o := a.rnn(); return NewRNN(i, h, o) },
	"RNNCell":          func(a infoArgs) any { i, h, o := a.cell(); return NewRNNCell(i, h, o) },
	"RReLU":            func(a infoArgs) any { return NewRReLU(RReLUOptions{a.optFloat("lower"), a.optFloat("upper")}) },
	"ReLU":             func(infoArgs) any { return NewReLU() },
	"ReLU6":            func(infoArgs) any { return NewReLU6() },
	"ReflectionPad1d":  func(a infoArgs) any { return NewReflectionPad1d(a.size("padding")) },
	"ReflectionPad2d":  func(a infoArgs) any { return NewReflectionPad2d(a.size("padding")) },
	"ReflectionPad3d":  func(a infoArgs) any { return NewReflectionPad3d(a.size("padding")) },
	"ReplicationPad1d": func(a infoArgs) any { return NewReplicationPad1d(a.size("padding")) },
	"ReplicationPad2d": func(a infoArgs) any { return NewReplicationPad2d(a.size("padding")) },
	"ReplicationPad3d": func(a infoArgs) any { return NewReplicationPad3d(a.size("padding")) },
	"SELU":             func(infoArgs) any { return NewSELU() },
	"SiLU":             func(infoArgs) any { return NewSiLU() },
	"Sigmoid":          func(infoArgs) any { return NewSigmoid() },
	"SmoothL1Loss":     func(a infoArgs) any { return &SmoothL1Loss{Beta: a.optFloat("beta"), Reduction: a.reduction()} },
	"SoftMarginLoss":   func(a infoArgs) any { return &SoftMarginLoss{Reduction: a.reduction()} },
	"Softmax":          func(a infoArgs) any { return NewSoftmax(a.int("dim")) },
	"Softmax2d":        func(infoArgs) any { return NewSoftmax2d() },
	"Softmin":          func(a infoArgs) any { return NewSoftmin(a.int("dim")) },
	"Softplus":         func(a infoArgs) any { return NewSoftplus(SoftplusOptions{a.optFloat("beta"), a.optFloat("threshold")}) },
	"Softshrink":       func(a infoArgs) any { return NewSoftshrink(a.optFloat("lambd").Or(0.5)) },
	"Softsign":         func(infoArgs) any { return NewSoftsign() },
	"Tanh":             func(infoArgs) any { return NewTanh() },
	"Tanhshrink":       func(infoArgs) any { return NewTanhshrink() },
	"Threshold":        func(a infoArgs) any { return NewThreshold(a.float("threshold"), a.float("value")) },
	"Transformer": func(a infoArgs) any {
		d, h, o := a.transformerLayer()
		return NewTransformer(d, h, TransformerOptions{TransformerLayerOptions: o, NumEncoderLayers: a.optInt("num_encoder_layers"), NumDecoderLayers: a.optInt("num_decoder_layers")})
	},
	"TransformerDecoder": func(a infoArgs) any {
		d, h, o := a.module("decoder_layer").transformerLayer()
		layer := NewTransformerDecoderLayer(d, h, o)
		defer Close(layer)
		return NewTransformerDecoder(layer, a.int("num_layers"), a.norm())
	},
	"TransformerDecoderLayer": func(a infoArgs) any { d, h, o := a.transformerLayer(); return NewTransformerDecoderLayer(d, h, o) },
	"TransformerEncoder": func(a infoArgs) any {
		d, h, o := a.module("encoder_layer").transformerLayer()
		layer := NewTransformerEncoderLayer(d, h, o)
		defer Close(layer)
		return NewTransformerEncoder(layer, a.int("num_layers"), a.norm())
	},
	"TransformerEncoderLayer": func(a infoArgs) any { d, h, o := a.transformerLayer(); return NewTransformerEncoderLayer(d, h, o) },
	"TripletMarginLoss": func(a infoArgs) any {
		return &TripletMarginLoss{Margin: a.optFloat("margin"), P: a.optFloat("p"), Eps: a.optFloat("eps"), Swap: a.bool("swap"), Reduction: a.reduction()}
	},
	"TripletMarginWithDistanceLoss": func(a infoArgs) any {
		return &TripletMarginWithDistanceLoss{Margin: a.optFloat("margin"), Swap: a.bool("swap"), Reduction: a.reduction()}
	},
	"Unflatten":            func(a infoArgs) any { return NewUnflatten(a.int("dim"), arg[[]int](a, "unflattened_size")...) },
	"Unfold":               func(a infoArgs) any { return NewUnfold(a.size("kernel_size"), a.fold()) },
	"Upsample":             func(a infoArgs) any { return NewUpsample(a.interpolate()) },
	"UpsamplingBilinear2d": func(a infoArgs) any { return NewUpsamplingBilinear2d(a.interpolate()) },
	"UpsamplingNearest2d":  func(a infoArgs) any { return NewUpsamplingNearest2d(a.interpolate()) },
	"ZeroPad1d":            func(a infoArgs) any { return NewZeroPad1d(a.size("padding")) },
	"ZeroPad2d":            func(a infoArgs) any { return NewZeroPad2d(a.size("padding")) },
	"ZeroPad3d":            func(a infoArgs) any { return NewZeroPad3d(a.size("padding")) },
}

// inputs makes the tensors of a forward pass, nested lists flattened; a list of ints is an int64 tensor.
func (ref *moduleInfo) inputs(raw json.RawMessage, leaves *[]*torch.Tensor) []*torch.Tensor {
	if string(raw) == "null" {
		return []*torch.Tensor{nil}
	}
	if raw[0] == '[' {
		var ints []int64
		if json.Unmarshal(raw, &ints) == nil {
			return []*torch.Tensor{torch.FromSlice(ints)}
		}
		var list []json.RawMessage
		if err := json.Unmarshal(raw, &list); err != nil {
			panic(err)
		}
		var ts []*torch.Tensor
		for _, r := range list {
			ts = append(ts, ref.inputs(r, leaves)...)
		}
		return ts
	}
	var v struct{ T *infoTensor }
	if err := json.Unmarshal(raw, &v); err != nil {
		panic(err)
	}
	t := ref.tensor(v.T)
	if v.T.G {
		*leaves = append(*leaves, t.SetRequiresGrad(true))
	}
	return []*torch.Tensor{t}
}

// forward calls the module as the sample says.
func (ref *moduleInfo) forward(m any, s *moduleSample, in []*torch.Tensor, kw map[string]*torch.Tensor) []*torch.Tensor {
	switch m := m.(type) {
	case *MultiheadAttention:
		y, w := m.Forward(in[0], in[1], in[2], AttendOptions{KeyPaddingMask: kw["key_padding_mask"], AttnMask: kw["attn_mask"]})
		return []*torch.Tensor{y, w}
	case *TransformerEncoder:
		return []*torch.Tensor{m.Forward(in[0], EncodeOptions{Mask: kw["mask"], KeyPaddingMask: kw["src_key_padding_mask"]})}
	case *TransformerEncoderLayer:
		return []*torch.Tensor{m.Forward(in[0], EncodeOptions{Mask: kw["src_mask"], KeyPaddingMask: kw["src_key_padding_mask"]})}
	case *TransformerDecoderLayer:
		return []*torch.Tensor{m.Forward(in[0], in[1], DecodeOptions{TgtMask: kw["tgt_mask"], MemoryMask: kw["memory_mask"],
			TgtKeyPaddingMask: kw["tgt_key_padding_mask"], MemoryKeyPaddingMask: kw["memory_key_padding_mask"]})}
	case *Transformer:
		return []*torch.Tensor{m.Forward(in[0], in[1], TransformOptions{SrcMask: kw["src_mask"], SrcKeyPaddingMask: kw["src_key_padding_mask"],
			DecodeOptions: DecodeOptions{TgtMask: kw["tgt_mask"], TgtKeyPaddingMask: kw["tgt_key_padding_mask"]}})}
	case *MaxPool:
		if (infoArgs{ref, s.Args}).bool("return_indices") {
			y, i := m.ForwardIndices(in[0])
			return []*torch.Tensor{y, i}
		}
	case *MaxUnpool:
		return []*torch.Tensor{m.Forward(in[0], in[1], sizesOf(in[2:])...)}
	case *ConvTranspose2d:
		if len(in) > 1 {
			return []*torch.Tensor{m.ForwardSize(in[0], sizesOf(in[1:])...)}
		}
	}
	method := reflect.ValueOf(m).MethodByName("Forward")
	var args []reflect.Value
	for i := range method.Type().NumIn() {
		if method.Type().In(i) == tensorType {
			var x *torch.Tensor
			if i < len(in) {
				x = in[i]
			}
			args = append(args, reflect.ValueOf(x))
		}
	}
	var out []*torch.Tensor
	for _, v := range method.Call(args) {
		out = append(out, v.Interface().(*torch.Tensor))
	}
	return out
}

// sizesOf are the sizes that were made a tensor, if there are any.
func sizesOf(in []*torch.Tensor) (sizes []int) {
	for _, t := range in {
		for _, n := range torch.ToSlice[int64](t) {
			sizes = append(sizes, int(n))
		}
	}
	return sizes
}

// The defaults of torch.testing.assert_close, relative and absolute; other dtypes are exact.
var infoTolerances = map[torch.DType][2]float64{torch.Float32: {1.3e-6, 1e-5}, torch.Float64: {1e-7, 1e-7}}

func (ref *moduleInfo) compare(got *torch.Tensor, want *infoTensor) error {
	if (got == nil) != (want == nil) {
		return fmt.Errorf("expected none: %v, got none: %v", want == nil, got == nil)
	}
	if want == nil {
		return nil
	}
	w := ref.tensor(want)
	if got.DType() != w.DType() || !slices.Equal(got.Shape(), w.Shape()) {
		return fmt.Errorf("expected %s%v, got %s%v", w.DType(), w.Shape(), got.DType(), got.Shape())
	}
	tol := infoTolerances[w.DType()]
	g := torch.ToSlice[float64](got.Detach().ToDType(torch.Float64))
	for i, x := range torch.ToSlice[float64](w.ToDType(torch.Float64)) {
		if g[i] != x && !(math.IsNaN(x) && math.IsNaN(g[i])) && !(math.Abs(g[i]-x) <= tol[1]+tol[0]*math.Abs(x)) {
			return fmt.Errorf("%s%v: element %d: expected %v, got %v", w.DType(), w.Shape(), i, x, g[i])
		}
	}
	return nil
}

// replay runs one sample and compares outputs, buffers and gradients.
func (ref *moduleInfo) replay(construct func(infoArgs) any, s *moduleSample) (grads int, err error) {
	dtype, err := torch.ParseDType(s.DType)
	if err != nil {
		return 0, err
	}
	m := construct(infoArgs{ref, s.Args})
	defer func() { Close(m) }()
	var leaves, in []*torch.Tensor
	for _, raw := range s.In {
		in = append(in, ref.inputs(raw, &leaves)...)
	}
	if lazy, ok := m.(interface{ waits() bool }); ok && lazy.waits() {
		m.(Layer).Forward(in[0].Detach().ToDType(torch.Float32)) // makes the parameters
		if lazy.waits() {
			return 0, errors.New("the first input made no parameters")
		}
	}
	To(m, torch.Device{}, dtype)
	state := map[string]*torch.Tensor{}
	for _, n := range s.State {
		state[n.name] = ref.tensor(n.t)
	}
	names := []string{}
	for name := range StateDict(m) {
		names = append(names, name)
	}
	for i, n := range s.State {
		if len(names) != len(s.State) || names[i] != n.name {
			return 0, fmt.Errorf("state dict: got %v, want %s at %d of %d", names, n.name, i, len(s.State))
		}
	}
	if err := LoadStateDict(m, maps.All(state)); err != nil {
		return 0, err
	}
	if !s.Train {
		Eval(m)
	}
	kw := map[string]*torch.Tensor{}
	for _, name := range slices.Sorted(maps.Keys(s.Kw)) {
		kw[name] = ref.inputs(s.Kw[name], &leaves)[0]
	}
	if x := kw["input"]; x != nil {
		in = append(in, x)
	}
	torch.ManualSeed(1)
	out := ref.forward(m, s, in, kw)
	if len(out) != len(s.Out) {
		return 0, fmt.Errorf("expected %d outputs, got %d", len(s.Out), len(out))
	}
	var roots, weights []*torch.Tensor
	for i, want := range s.Out {
		if err := ref.compare(out[i], want); err != nil {
			return 0, fmt.Errorf("output %d: %w", i, err)
		}
		if w := s.Weights[i]; w != nil {
			roots, weights = append(roots, out[i]), append(weights, ref.tensor(w))
		}
	}
	after := map[string]*torch.Tensor{}
	for name, t := range StateDict(m) {
		after[name] = t
	}
	for _, n := range s.After {
		if err := ref.compare(after[n.name], n.t); err != nil {
			return 0, fmt.Errorf("buffer %s afterwards: %w", n.name, err)
		}
	}
	if len(roots) == 0 {
		return 0, nil
	}
	wanted := slices.Clone(s.Grads)
	labels := make([]string, len(leaves))
	for _, n := range s.PGrads {
		leaves, wanted, labels = append(leaves, after[n.name]), append(wanted, n.t), append(labels, n.name)
	}
	found := torch.Grad(roots, leaves, torch.GradOptions{GradOutputs: weights, AllowUnused: true})
	if len(found) != len(wanted) {
		return 0, fmt.Errorf("expected %d gradients, got %d", len(wanted), len(found))
	}
	for i, g := range found {
		if err := ref.compare(g, wanted[i]); err != nil {
			return grads, fmt.Errorf("gradient %d %s: %w", i, labels[i], err)
		}
		grads++
	}
	return grads, nil
}

// PyTorch's own module database is the examiner: every entry of it gives Python's outputs, buffers and gradients from
// its state dict.
func TestModuleInfo(t *testing.T) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	dir := testdata.Open(t, "moduleinfo")
	text, err := os.ReadFile(filepath.Join(dir, "moduleinfo.json"))
	require.NoError(t, err)
	ref := &moduleInfo{}
	require.NoError(t, json.Unmarshal(text, ref))
	ref.data, err = os.ReadFile(filepath.Join(dir, "moduleinfo.bin"))
	require.NoError(t, err)

	live := torch.LiveTensors()
	samples, grads, seen := 0, 0, map[string]bool{}
	run := func(entries []moduleEntry) (passed int) {
		for _, e := range entries {
			name := strings.TrimPrefix(e.Name, "nn.")
			seen[name] = true
			construct := infoModules[name]
			require.NotNil(t, construct, e.Name)
			ok := t.Run(e.Name, func(t *testing.T) {
				for i := range e.Samples {
					var n int
					var err error
					caught := torch.TryDo(func() { torch.Scope(func() { n, err = ref.replay(construct, &e.Samples[i]) }) })
					if err = errors.Join(err, caught); err != nil {
						t.Errorf("sample %d (%s, training %v, %s): %v", i, e.Samples[i].DType, e.Samples[i].Train, e.Samples[i].Args, err)
						continue
					}
					samples++
					grads += n
				}
			})
			if ok {
				passed++
			}
		}
		return passed
	}
	passed := run(ref.Entries)
	extra := run(ref.Extra)
	for name := range infoModules {
		require.Contains(t, seen, name, "the reference lacks it")
	}
	require.Empty(t, ref.Skipped, "entries that the script could not record")
	t.Logf("%d of module_db's %d entries, and %d of %d others: %d samples and %d gradients agree with PyTorch %s",
		passed, len(ref.Entries), extra, len(ref.Extra), samples, grads, ref.Torch)
	require.LessOrEqual(t, torch.LiveTensors(), live, "tensors outlived their scopes")
	require.Equal(t, len(ref.Entries), passed)
	require.Equal(t, len(ref.Extra), extra)
}
