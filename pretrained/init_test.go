package pretrained_test

import (
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/torchgo/torchgo/internal/testdata"
	"github.com/torchgo/torchgo/pretrained"
	"github.com/torchgo/torchgo/pretrained/safetensors"
	"github.com/torchgo/torchgo/torch"
	"github.com/torchgo/torchgo/torch/nn"
	"github.com/torchgo/torchgo/torch/nn/nninit"
)

// zooModel has one layer of each kind.
type zooModel struct {
	pretrained.PreTrainedModel
	Linear          *nn.Linear             `torch:"linear"`
	Conv1d          *nn.Conv1d             `torch:"conv1d"`
	Conv2d          *nn.Conv2d             `torch:"conv2d"`
	Conv3d          *nn.Conv3d             `torch:"conv3d"`
	ConvTranspose1d *nn.ConvTranspose1d    `torch:"conv_transpose1d"`
	ConvTranspose2d *nn.ConvTranspose2d    `torch:"conv_transpose2d"`
	ConvTranspose3d *nn.ConvTranspose3d    `torch:"conv_transpose3d"`
	Embedding       *nn.Embedding          `torch:"embedding"`
	EmbeddingBag    *nn.EmbeddingBag       `torch:"embedding_bag"`
	BatchNorm1d     *nn.BatchNorm1d        `torch:"batch_norm1d"`
	BatchNorm2d     *nn.BatchNorm2d        `torch:"batch_norm2d"`
	BatchNorm3d     *nn.BatchNorm3d        `torch:"batch_norm3d"`
	InstanceNorm1d  *nn.InstanceNorm1d     `torch:"instance_norm1d"`
	InstanceNorm2d  *nn.InstanceNorm2d     `torch:"instance_norm2d"`
	InstanceNorm3d  *nn.InstanceNorm3d     `torch:"instance_norm3d"`
	GroupNorm       *nn.GroupNorm          `torch:"group_norm"`
	LayerNorm       *nn.LayerNorm          `torch:"layer_norm"`
	RMSNorm         *nn.RMSNorm            `torch:"rms_norm"`
	Attention       *nn.MultiheadAttention `torch:"attention"`
	LSTM            *nn.LSTM               `torch:"lstm"`
	GRU             *nn.GRU                `torch:"gru"`
	RNN             *nn.RNN                `torch:"rnn"`
	RNNCell         *nn.RNNCell            `torch:"rnn_cell"`
	LSTMCell        *nn.LSTMCell           `torch:"lstm_cell"`
	GRUCell         *nn.GRUCell            `torch:"gru_cell"`
	Bilinear        *nn.Bilinear           `torch:"bilinear"`
	PReLU           *nn.PReLU              `torch:"prelu"`
	Own             *torch.Tensor          `torch:"own"`
}

func (m *zooModel) Forward(pretrained.Inputs) *pretrained.Output { panic("a zoo computes nothing") }

func (m *zooModel) InitParameters(in *pretrained.Init) {
	if err := in.Apply("trunc_normal_", m.Own, nninit.Options{Std: torch.Some(3.0)}); err != nil {
		panic(err)
	}
}

type zooConfig struct {
	pretrained.ConfigBase
	InitializerRange float64 `json:"initializer_range"`
}

func (*zooConfig) Validate() error { return nil }

func newZoo(b nn.Builder, _ *zooConfig) *zooModel {
	yes := torch.Some(true)
	return &zooModel{
		Linear: b.Linear(64, 64), Conv1d: b.Conv1d(32, 32, 3), Conv2d: b.Conv2d(16, 16, 3), Conv3d: b.Conv3d(8, 8, 3),
		ConvTranspose1d: b.ConvTranspose1d(32, 32, 3), ConvTranspose2d: b.ConvTranspose2d(16, 16, 3), ConvTranspose3d: b.ConvTranspose3d(8, 8, 3),
		Embedding:    b.Embedding(100, 32, nn.EmbeddingOptions{PaddingIdx: torch.Some(7)}),
		EmbeddingBag: b.EmbeddingBag(100, 32, nn.EmbeddingBagOptions{PaddingIdx: torch.Some(7)}),
		BatchNorm1d:  b.BatchNorm1d(9), BatchNorm2d: b.BatchNorm2d(9), BatchNorm3d: b.BatchNorm3d(9),
		InstanceNorm1d: b.InstanceNorm1d(9, nn.InstanceNormOptions{Affine: true, TrackRunningStats: true}),
		InstanceNorm2d: b.InstanceNorm2d(9, nn.InstanceNormOptions{Affine: true, TrackRunningStats: true}),
		InstanceNorm3d: b.InstanceNorm3d(9, nn.InstanceNormOptions{Affine: true, TrackRunningStats: true}),
		GroupNorm:      b.GroupNorm(3, 9), LayerNorm: b.LayerNorm(9), RMSNorm: b.RMSNorm(9),
		Attention: b.MultiheadAttention(32, 4, nn.MultiheadAttentionOptions{AddBiasKV: true}),
		LSTM:      b.LSTM(24, 32), GRU: b.GRU(24, 32), RNN: b.RNN(24, 32),
		RNNCell: b.RNNCell(24, 32), LSTMCell: b.LSTMCell(24, 32), GRUCell: b.GRUCell(24, 32),
		Bilinear: b.Bilinear(12, 12, 12, nn.LinearOptions{Bias: yes}), PReLU: b.PReLU(), Own: b.Parameter(50, 50),
	}
}

func init() {
	pretrained.Register(pretrained.Architecture{ModelType: "zoo", NewConfig: func() pretrained.Config {
		return &zooConfig{ConfigBase: pretrained.ConfigBase{ModelType: "zoo"}, InitializerRange: 0.02}
	}, Classes: []pretrained.Class{{Name: "Zoo", New: pretrained.Build(newZoo)}}})
}

// spread is what a new tensor must look like.
type spread struct {
	std    float64 // of a normal distribution with mean 0
	bound  float64 // of a uniform one
	value  float64 // of a constant
	padded bool    // row 7 is zero
}

func xavier(out, in int) spread { return spread{bound: math.Sqrt(6 / float64(out+in))} }

// zooSpreads are transformers' _init_weights; those of kinds that it leaves alone, PyTorch's reset_parameters.
func zooSpread(name string, std float64) spread {
	layer, tensor, _ := strings.Cut(name, ".")
	switch {
	case name == "own":
		return spread{std: 3 * 0.7765} // cut at ±2, where σ is 3: of a normal one between ±2/3 σ that is 1.132
	case layer == "attention" && tensor == "in_proj_weight":
		return xavier(96, 32)
	case layer == "attention" && strings.HasPrefix(tensor, "bias_"):
		return spread{std: math.Sqrt(2 / float64(32+32))} // xavier_normal_ of (1, 1, 32): fans 32 and 32
	case layer == "attention" && tensor == "out_proj.weight":
		return spread{std: std}
	case layer == "lstm" && tensor == "weight_ih_l0":
		return xavier(128, 24)
	case layer == "lstm" && tensor == "weight_hh_l0":
		return xavier(128, 32)
	case layer == "lstm":
		return spread{}
	case slices.Contains([]string{"gru", "rnn", "rnn_cell", "lstm_cell", "gru_cell"}, layer):
		return spread{bound: 1 / math.Sqrt(32)}
	case layer == "bilinear":
		return spread{bound: 1 / math.Sqrt(12)}
	case layer == "prelu":
		return spread{value: 0.25}
	case layer == "embedding":
		return spread{std: std, padded: true}
	case layer == "embedding_bag":
		return spread{std: 1, padded: true}
	case strings.Contains(layer, "norm"):
		if tensor == "weight" || tensor == "running_var" {
			return spread{value: 1}
		}
		return spread{}
	case tensor == "weight":
		return spread{std: std}
	}
	return spread{}
}

// check compares a new tensor with its distribution: mean and deviation within five standard errors.
func (s spread) check(t *testing.T, name string, x *torch.Tensor) {
	t.Helper()
	var values []float64
	torch.Scope(func() { values = torch.ToSlice[float64](x.ToDType(torch.Float64).Reshape(-1)) })
	if s.padded {
		width := x.Size(1)
		for _, v := range values[7*width : 8*width] {
			require.Zero(t, v, name)
		}
		values = slices.Delete(values, 7*width, 8*width)
	}
	if s.std == 0 && s.bound == 0 {
		for _, v := range values {
			require.Equal(t, s.value, v, name)
		}
		return
	}
	std := s.std
	if s.bound > 0 {
		std = s.bound / math.Sqrt(3)
		for _, v := range values {
			require.LessOrEqual(t, math.Abs(v), s.bound*1.000001, name)
		}
	}
	var sum, squares float64
	for _, v := range values {
		require.False(t, math.IsNaN(v) || math.IsInf(v, 0), name)
		sum += v
		squares += v * v
	}
	n := float64(len(values))
	require.InDelta(t, 0, sum/n, 5*std/math.Sqrt(n), "mean of %s", name)
	require.InDelta(t, std, math.Sqrt(squares/n), 5*std/math.Sqrt(2*n), "deviation of %s", name)
	require.NotEqual(t, values[0], values[len(values)-1], name)
}

func TestFirstValuesOfEveryLayer(t *testing.T) {
	truncated := truncatedDeviation(3, 2)
	for _, std := range []float64{0.02, 0.5} {
		config, err := pretrained.NewConfig("zoo", map[string]any{"initializer_range": std})
		require.NoError(t, err)
		torch.ManualSeed(5)
		m, err := pretrained.FromConfig(config, pretrained.Options{Class: "Zoo"})
		require.NoError(t, err)
		dir := writeCheckpoint(t, `{"model_type": "zoo"}`, []safetensors.Source{{Name: "layer_norm.weight", DType: safetensors.F32, Shape: []int{9}, Write: safetensors.Data(make([]byte, 36))}})
		loaded, r := load(t, dir, pretrained.Options{Class: "Zoo", Config: map[string]any{"initializer_range": std}})
		require.Len(t, r.MissingKeys, len(state(m))-1)
		for name, x := range nn.StateDict(m) {
			want := zooSpread(name, std)
			if name == "own" {
				want.std = truncated
			}
			want.check(t, name, x)
			if name == "layer_norm.weight" { // from the file: its rule passes over it
				want = spread{}
			}
			want.check(t, name, state(loaded)[name])
		}
		torch.ManualSeed(5)
		again, err := pretrained.FromConfig(config, pretrained.Options{Class: "Zoo"})
		require.NoError(t, err)
		equalModels(t, m, again)
		m.Close()
		again.Close()
	}
}

// truncatedDeviation is that of a normal distribution with deviation s, cut at ±limit.
func truncatedDeviation(s, limit float64) float64 {
	a := limit / s
	phi := math.Exp(-a*a/2) / math.Sqrt(2*math.Pi)
	return s * math.Sqrt(1-2*a*phi/math.Erf(a/math.Sqrt2))
}

// No tensor without data survives a load, whatever is missing; what was missing has the values that its kind
// starts with, and what was there is unchanged.
func TestNoMetaTensorSurvivesALoad(t *testing.T) {
	rounds := 120
	if testing.Short() {
		rounds = 20
	}
	r := rand.New(rand.NewPCG(3, 7))
	cases := []struct {
		group   string
		classes []string
		shape   func() map[string]any
	}{
		{"models-bert/bert", []string{"BertModel", "BertForMaskedLM", "BertForPreTraining", "BertForSequenceClassification", "BertForQuestionAnswering"},
			func() map[string]any { return map[string]any{"num_labels": 2} }},
		{"models-llama/llama", []string{"LlamaModel", "LlamaForCausalLM", "LlamaForSequenceClassification"},
			func() map[string]any { return map[string]any{"tie_word_embeddings": r.IntN(2) == 0} }},
	}
	for round := range rounds {
		c := cases[round%len(cases)]
		group, folder, _ := strings.Cut(c.group, "/")
		dir := filepath.Join(testdata.Open(t, group), folder)
		file, err := pretrained.LoadFile(ctx, filepath.Join(dir, "model.safetensors"))
		require.NoError(t, err)
		names := slices.Sorted(maps.Keys(file))
		kept := map[string]*torch.Tensor{}
		for _, name := range names {
			switch p := r.IntN(10); {
			case p < 2+round%8: // fewer and fewer
			case p == 9 && file[name].Dim() > 0: // of another shape
				shape := file[name].Shape()
				shape[0]++
				kept[name] = torch.Zeros(shape)
			default:
				kept[name] = file[name]
			}
		}
		out := t.TempDir()
		require.NoError(t, pretrained.SaveFile(ctx, filepath.Join(out, "model.safetensors"), kept, nil))
		opts := pretrained.Options{Class: c.classes[r.IntN(len(c.classes))], ConfigPath: dir, Config: c.shape(), IgnoreMismatchedSizes: true,
			DisableMmap: r.IntN(2) == 0, DType: []torch.DType{torch.Float32, torch.Float64, torch.Float16, torch.BFloat16}[r.IntN(4)]}
		m, report, err := pretrained.Load(ctx, out, opts)
		require.NoError(t, err, "round %d", round)
		fresh := append(slices.Clone(report.MissingKeys), keysOf(report.MismatchedKeys)...)
		got := state(m)
		for _, s := range nn.Slots(m) {
			x := s.Tensor()
			require.NotEqual(t, torch.Meta, x.Device(), s.Name)
			torch.Scope(func() {
				require.True(t, torch.Item[bool](x.ToDType(torch.Float32).Isfinite().All()), "round %d: %s is not finite", round, s.Name)
			})
		}
		for _, name := range fresh {
			x := got[name]
			source := name
			if s := report.TiedKeys[name]; s != "" {
				source = s
			}
			if x == nil || slices.Contains(names, source) && !slices.Contains(fresh, source) && source != name {
				continue
			}
			checkFirstValue(t, source, x)
		}
		for name, x := range kept { // what was loaded is what the file has
			key, target := name, got[name]
			for _, prefix := range []string{"bert.", "model."} {
				if target == nil {
					key = strings.TrimPrefix(name, prefix)
					target = got[key]
				}
				if target == nil {
					key = prefix + name
					target = got[key]
				}
			}
			if target != nil && !slices.Contains(fresh, key) && report.TiedKeys[key] == "" {
				torch.Scope(func() { require.True(t, x.ToDType(opts.DType).Equal(target), "round %d: %s", round, name) })
			}
		}
		m.Close()
		for _, x := range kept {
			x.Close()
		}
		for _, x := range file {
			x.Close()
		}
	}
}

// checkFirstValue knows BERT's and Llama's names. Their tiny configs have initializer_range 0.02.
func checkFirstValue(t *testing.T, name string, x *torch.Tensor) {
	t.Helper()
	switch {
	case strings.HasSuffix(name, "bias"):
		spread{}.check(t, name, x)
	case strings.Contains(name, "LayerNorm.weight") || strings.HasSuffix(name, "norm.weight"):
		spread{value: 1}.check(t, name, x)
	default:
		var values []float64
		torch.Scope(func() { values = torch.ToSlice[float64](x.ToDType(torch.Float64).Reshape(-1)) })
		if strings.Contains(name, "word_embeddings") || strings.Contains(name, "embed_tokens") { // row 0 is padding
			values = values[x.Size(1):]
		}
		var squares float64
		for _, v := range values {
			squares += v * v
		}
		n := float64(len(values))
		require.InDelta(t, 0.02, math.Sqrt(squares/n), 6*0.02/math.Sqrt(2*n)+0.0005, fmt.Sprintf("%s %v", name, x.Shape()))
	}
}

// Which key of the config is the standard deviation of new weights, as transformers' _init_weights chooses it.
func TestStdOfNewWeights(t *testing.T) {
	for text, want := range map[string]float64{
		``:                           0.02,
		`"initializer_range": 0.5,`:  0.5,
		`"initializer_range": 0,`:    0.02,
		`"initializer_range": null,`: 0.02,
		`"init_std": 0.25,`:          0.25,
		`"initializer_factor": 2,`:   2,
		`"initializer_range": 0.5, "init_std": 0.25, "initializer_factor": 2,`: 0.5,
		`"initializer_range": 0, "init_std": 0.25,`:                            0.02,
		`"init_std": 0.25, "initializer_factor": 2,`:                           0.25,
	} {
		dir := writeCheckpoint(t, `{"model_type": "FlatPieces", "architectures": ["FlatPieces"], `+text+` "params": [["a", [10000]], ["b", [1]]]}`,
			[]safetensors.Source{{Name: "b", DType: safetensors.F32, Shape: []int{1}, Write: safetensors.Data(make([]byte, 4))}})
		m, _ := load(t, dir, pretrained.Options{})
		torch.Scope(func() {
			require.InEpsilon(t, want, torch.Item[float32](state(m)["a"].Std()), 0.05, text)
		})
	}
}
