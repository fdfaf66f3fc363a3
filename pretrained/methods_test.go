package pretrained_test

import (
	"encoding/json"
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/torchgo/torchgo/internal/testdata"
	"github.com/torchgo/torchgo/internal/xlog"
	"github.com/torchgo/torchgo/pretrained"
	"github.com/torchgo/torchgo/torch"
	"github.com/torchgo/torchgo/torch/nn"
)

// methodsCase is what transformers' methods say of a checkpoint.
type methodsCase struct {
	Class, DType, Device string
	Counts               counts
	FrozenBase           counts `json:"frozen_base"` // after the base model was frozen
	Paths                map[string]*string
	CanGenerate          bool `json:"can_generate"`
	SupportsCheckpoints  bool `json:"supports_activation_checkpointing"`
	Half                 struct {
		DTypes map[string]string
		Config string
	}
	Resize         []resizeCase
	SingularIsMean bool `json:"singular_is_mean"`

	dir string
}

type counts struct {
	All            int64
	OnlyTrainable  int64 `json:"only_trainable"`
	NoEmbeddings   int64 `json:"exclude_embeddings"`
	Both           int64
	Footprint      int64
	WithoutBuffers int64 `json:"without_buffers"`
}

type resizeCase struct {
	N       int
	Pad     int
	Mean    bool
	Tied    bool
	Changed map[string]struct {
		Shape []int
		Far   *float64 // of new rows from the mean of the old; nil: there are none
		Zero  bool
		Is    string // another entry's tensor
	}
	Shared             [][]string
	NotSaved           []string `json:"not_saved"`
	VocabSize          int      `json:"vocab_size"`
	NumEmbeddings      int      `json:"num_embeddings"`
	PaddingIdx         *int     `json:"padding_idx"`
	OutFeatures        *int     `json:"out_features"`
	InputRequiresGrad  bool     `json:"input_requires_grad"`
	OutputRequiresGrad *bool    `json:"output_requires_grad"`
}

// methodsCases are the cases that tools/methodsref recorded.
func methodsCases(t *testing.T) map[string]methodsCase {
	data, err := os.ReadFile(filepath.Join(testdata.Open(t, "methods"), "methods.json"))
	require.NoError(t, err)
	var cases map[string]methodsCase
	require.NoError(t, json.Unmarshal(data, &cases))
	require.GreaterOrEqual(t, len(cases), 25)
	for group, kind := range map[string]string{"models-bert": "bert/", "bert-heads": "bert/", "models-llama": "llama/", "llama": "llama/"} {
		dirs, err := filepath.Glob(filepath.Join(testdata.Open(t, group), "*", "inputs.json"))
		require.NoError(t, err)
		for _, dir := range dirs {
			dir = filepath.Dir(dir)
			name := kind + filepath.Base(dir)
			if c, ok := cases[name]; ok {
				c.dir = dir
				cases[name] = c
			}
		}
	}
	for name, c := range cases {
		require.NotEmpty(t, c.dir, name)
	}
	return cases
}

func countsOf(m pretrained.Model) counts {
	n := func(o pretrained.NumParametersOptions) int64 { return m.NumParameters(o) }
	return counts{
		All: m.NumParameters(), OnlyTrainable: n(pretrained.NumParametersOptions{OnlyTrainable: true}),
		NoEmbeddings:   n(pretrained.NumParametersOptions{ExcludeEmbeddings: true}),
		Both:           n(pretrained.NumParametersOptions{OnlyTrainable: true, ExcludeEmbeddings: true}),
		Footprint:      m.MemoryFootprint(),
		WithoutBuffers: m.MemoryFootprint(pretrained.MemoryFootprintOptions{ReturnBuffers: torch.Some(false)}),
	}
}

func TestCountsAreTransformers(t *testing.T) {
	for name, c := range methodsCases(t) {
		m, _ := load(t, c.dir, pretrained.Options{DType: torch.Float32})
		require.Equal(t, c.Class, m.Class())
		require.Equal(t, c.Counts, countsOf(m), name)
		require.Equal(t, c.DType, "torch."+m.DType().String(), name)
		require.Equal(t, c.Device, m.Device().String(), name)
		m.BaseModel().SetRequiresGrad(false)
		require.Equal(t, c.FrozenBase, countsOf(m), name)
		m.SetRequiresGrad(true)
		require.Equal(t, c.Counts, countsOf(m), name)
	}
}

func TestAccessorsAreTransformers(t *testing.T) {
	for name, c := range methodsCases(t) {
		m, _ := load(t, c.dir, pretrained.Options{})
		for part, module := range map[string]any{"base_model": m.BaseModel(), "encoder": m.GetEncoder(), "decoder": m.GetDecoder(),
			"input_embeddings": m.InputEmbeddings(), "output_embeddings": m.OutputEmbeddings()} {
			want, ok := c.Paths[part]
			require.True(t, ok, part)
			if want == nil {
				require.Nil(t, module, "%s of %s", part, name)
				continue
			}
			found, err := nn.GetSubmodule(m, *want)
			require.NoError(t, err)
			require.Same(t, found, module, "%s of %s", part, name)
		}
		require.Equal(t, c.CanGenerate, m.CanGenerate(), name)
		require.True(t, c.SupportsCheckpoints)
		require.NoError(t, m.ActivationCheckpointingEnable())
	}
}

func TestSetEmbeddings(t *testing.T) {
	m, _ := load(t, loaderCase(t, "single"), pretrained.Options{})
	old, head := m.InputEmbeddings(), m.OutputEmbeddings()
	rows, dim := old.Weight.Rows()
	require.Len(t, m.TiedKeys(), 2)
	e := nn.NewEmbedding(rows, dim)
	require.NoError(t, m.SetInputEmbeddings(e))
	require.Same(t, e, m.InputEmbeddings())
	require.Same(t, e, m.BaseModel().InputEmbeddings())
	require.Equal(t, map[string]string{"cls.predictions.decoder.bias": "cls.predictions.bias"}, m.TiedKeys(), "the decoder has the former table")
	dir := t.TempDir()
	require.NoError(t, pretrained.SavePretrained(ctx, m, dir, pretrained.SaveOptions{}))
	again, r := load(t, dir, pretrained.Options{Strict: true})
	equalModels(t, m, again)
	require.Len(t, r.Warnings, 1, "differing tables stay apart")

	require.NoError(t, m.TieWeights())
	require.Len(t, m.TiedKeys(), 2)
	require.Same(t, e.Weight.(*nn.Table).W, head.Weight.(*nn.Dense).W)

	l := nn.NewLinear(dim, rows)
	require.NoError(t, m.SetOutputEmbeddings(l))
	require.Same(t, l, m.OutputEmbeddings())
	bias := l.Bias
	require.Equal(t, map[string]string{"cls.predictions.decoder.bias": "cls.predictions.bias"}, m.TiedKeys())
	require.NoError(t, m.TieWeights())
	require.Len(t, m.TiedKeys(), 2)
	require.Same(t, bias, l.Bias)
	require.Same(t, e.Weight.(*nn.Table).W, l.Weight.(*nn.Dense).W)

	require.NoError(t, m.SetOutputEmbeddings(nn.NewLinear(dim, rows+2, nn.LinearOptions{Bias: torch.Some(false)})))
	require.NoError(t, m.TieWeights())
	require.Same(t, e.Weight.(*nn.Table).W, m.OutputEmbeddings().Weight.(*nn.Dense).W)
	wide := nn.NewLinear(dim, rows+2)
	require.NoError(t, m.SetOutputEmbeddings(wide))
	require.NoError(t, m.TieWeights())
	require.Equal(t, []int{rows}, wide.Bias.Shape(), "the bias fits the table")

	base := m.BaseModel()
	require.Nil(t, base.OutputEmbeddings())
	require.ErrorIs(t, base.SetOutputEmbeddings(l), pretrained.ErrUnsupported)
}

// A head's own bias is cut, or filled up with zeros, where tying gives it a table of another size (transformers'
// _adjust_bias).
func TestTyingFitsTheBias(t *testing.T) {
	m, _ := load(t, filepath.Join(testdata.Open(t, "models-llama"), "llama-tied-rope-llama3"), pretrained.Options{DType: torch.Float32})
	rows, dim := m.InputEmbeddings().Weight.Rows()
	for _, n := range []int{rows - 2, rows, rows + 2} {
		head := nn.NewLinear(dim, n)
		torch.NoGrad(func() { head.Bias.Fill_(3) })
		require.NoError(t, m.SetOutputEmbeddings(head))
		require.NoError(t, m.TieWeights())
		require.Same(t, m.InputEmbeddings().Weight.(*nn.Table).W, head.Weight.(*nn.Dense).W)
		want := slices.Repeat([]float32{3}, rows)
		if n < rows {
			clear(want[n:])
		}
		torch.Scope(func() { require.Equal(t, want, torch.ToSlice[float32](head.Bias.Detach())) })
		require.True(t, head.Bias.RequiresGrad())
	}
}

// Conversions touch floating-point tensors only, buffers too; the config keeps its dtype.
func TestConversionsAreTransformers(t *testing.T) {
	for name, c := range methodsCases(t) {
		m, _ := load(t, c.dir, pretrained.Options{DType: torch.Float32})
		require.NoError(t, m.Half())
		require.Equal(t, c.Half.Config, "torch."+m.Config().Base().DType)
		for _, s := range nn.Slots(m) {
			require.Equal(t, c.Half.DTypes[s.Name], s.Tensor().DType().String(), "%s of %s", s.Name, name)
		}
		require.Len(t, nn.Slots(m), len(c.Half.DTypes))
		for want, convert := range map[torch.DType]func() error{torch.BFloat16: m.BFloat16, torch.Float32: m.Float, torch.Float64: m.Double} {
			require.NoError(t, convert())
			require.Equal(t, want, m.DType())
		}
	}
}

func TestMoves(t *testing.T) {
	dir := loaderCase(t, "single")
	m, _ := load(t, dir, pretrained.Options{})
	want := state(m)
	table := m.InputEmbeddings().Weight.(*nn.Table).W
	inFile := func() bool { return inMappingOf(t, table.DataPtr(), filepath.Join(dir, "model.safetensors")) }
	require.True(t, inFile())
	values := torch.ToSlice[float32](table)
	require.NoError(t, m.CPU())
	require.True(t, inFile(), "nothing to do")

	if torch.CUDADeviceCount() == 0 {
		require.ErrorIs(t, m.CUDA(0), torch.ErrNoDevice)
		require.ErrorIs(t, m.To(torch.CUDA(3), torch.Float16), torch.ErrNoDevice)
		require.True(t, inFile(), "the model is unchanged")
		require.Equal(t, torch.CPU, m.Device())
		require.Equal(t, torch.Float32, m.DType())
	}
	require.ErrorIs(t, m.To(torch.Meta, 0), pretrained.ErrArgument)
	require.ErrorIs(t, m.To(torch.CPU, torch.Int64), pretrained.ErrArgument)
	require.ErrorContains(t, m.Dequantize(0), "not quantized")

	require.NoError(t, m.Double())
	require.Same(t, want["bert.embeddings.word_embeddings.weight"], table, "tensors stay themselves")
	for i, x := range torch.ToSlice[float64](table) {
		require.Equal(t, float64(values[i]), x)
	}
	maps, err := os.ReadFile("/proc/self/maps")
	if err == nil {
		require.NotContains(t, string(maps), filepath.Join(dir, "model.safetensors"), "the file is let go")
	}
}

// On a GPU, too, ties are one tensor, gradients the same, and what is left of the CPU's memory is nothing.
func TestMovesToAGPU(t *testing.T) {
	if torch.CUDADeviceCount() == 0 {
		t.Skip("needs a GPU that libtorch can use")
	}
	for class, c := range tiedCases(t) {
		m, _ := load(t, c.dir, pretrained.Options{DType: torch.Float32})
		before := nn.Clone(m)
		defer before.Close()
		require.NoError(t, m.CUDA(0))
		require.Equal(t, torch.CUDA(0), m.Device())
		require.ErrorIs(t, m.CUDA(99), torch.ErrNoDevice)
		requireTied(t, m, c.ties, class+": cuda")
		require.False(t, inMappingOf(t, m.InputEmbeddings().Weight.(*nn.Table).W.DataPtr(), "model.safetensors"))
		_, err := m.ResizeTokenEmbeddings(100)
		require.NoError(t, err)
		require.Equal(t, torch.CUDA(0), m.InputEmbeddings().Weight.(*nn.Table).W.Device())
		requireTied(t, m, c.ties, class+": resize on cuda")
		m.Train()
		want, grads := tiedStep(m)
		for _, o := range []pretrained.ActivationCheckpointingOptions{{}, {Offload: true}} {
			require.NoError(t, m.ActivationCheckpointingEnable(o))
			got, again := tiedStep(m)
			require.Equal(t, want, got)
			equalGrads(t, grads, again, class)
		}
		rows, _ := before.InputEmbeddings().Weight.Rows()
		_, err = m.ResizeTokenEmbeddings(rows)
		require.NoError(t, err)
		require.NoError(t, m.CPU())
		equalModels(t, before, m)
	}
}

func TestModelTags(t *testing.T) {
	m, _ := load(t, loaderCase(t, "single"), pretrained.Options{})
	require.Empty(t, m.ModelTags())
	m.AddModelTags("a", "b")
	m.AddModelTags("b", "c")
	require.Equal(t, []string{"a", "b", "c"}, m.ModelTags())
}

func TestTrainAndEval(t *testing.T) {
	m, _ := load(t, loaderCase(t, "single"), pretrained.Options{})
	require.False(t, m.Training())
	m.Train()
	require.True(t, m.Training())
	require.True(t, m.BaseModel().Training())
	m.Eval()
	require.False(t, m.BaseModel().Training())
}

func TestWarnIfPadding(t *testing.T) {
	var log strings.Builder
	xlog.SetHandler(slog.NewTextHandler(&log, nil))
	defer xlog.SetHandler(nil)
	pretrained.ForgetWarnings()
	m, _ := load(t, loaderCase(t, "single"), pretrained.Options{Config: map[string]any{"pad_token_id": int64(7)}})
	ids := func(v ...int64) *torch.Tensor { return torch.FromSlice(v, 2, len(v)/2) }
	padded := ids(1, 2, 3, 4, 5, 7)
	m.WarnIfPaddingAndNoAttentionMask(ids(1, 7, 3, 4, 7, 6), nil)
	m.WarnIfPaddingAndNoAttentionMask(padded, torch.Ones([]int{2, 3}))
	m.WarnIfPaddingAndNoAttentionMask(torch.Zeros([]int{0, 0}, torch.TensorOptions{DType: torch.Int64}), nil)
	require.Empty(t, log.String(), "padding inside does not count, and a mask is all that is wanted")
	m.WarnIfPaddingAndNoAttentionMask(padded, nil)
	m.WarnIfPaddingAndNoAttentionMask(ids(7, 2, 3, 4), nil)
	require.Equal(t, 1, strings.Count(log.String(), "pass an attention_mask"), log.String())
	require.NotContains(t, log.String(), "ignore this")

	same, _ := load(t, loaderCase(t, "single"), pretrained.Options{Config: map[string]any{"pad_token_id": int64(7), "eos_token_id": int64(7)}})
	same.WarnIfPaddingAndNoAttentionMask(padded, nil)
	require.Contains(t, log.String(), "eos_token_id is pad_token_id (7)")

	none, _ := load(t, loaderCase(t, "single"), pretrained.Options{Config: map[string]any{"pad_token_id": nil}})
	log.Reset()
	none.WarnIfPaddingAndNoAttentionMask(padded, nil)
	require.Empty(t, log.String())
}

// Without new rows, and with them, what transformers says of the model afterwards.
func TestResizeIsTransformers(t *testing.T) {
	for name, c := range methodsCases(t) {
		for _, r := range c.Resize {
			m, _ := load(t, c.dir, pretrained.Options{DType: torch.Float32, Config: map[string]any{"tie_word_embeddings": r.Tied}})
			ties := m.TiedKeys()
			m.InputEmbeddings().Weight.(*nn.Table).W.SetRequiresGrad(false)
			old := map[string]*torch.Tensor{}
			for key, x := range state(m) {
				old[key] = x.Clone()
			}
			e, err := m.ResizeTokenEmbeddings(r.N, pretrained.ResizeOptions{PadToMultipleOf: r.Pad, MeanResizing: torch.Some(r.Mean)})
			require.NoError(t, err)
			require.Same(t, m.InputEmbeddings(), e)
			rows, _ := e.Weight.Rows()
			require.Equal(t, r.NumEmbeddings, rows)
			require.Equal(t, r.InputRequiresGrad, e.Weight.(*nn.Table).W.RequiresGrad())
			if r.PaddingIdx == nil {
				require.Equal(t, -1, e.PaddingIdx)
			} else {
				require.Equal(t, *r.PaddingIdx, e.PaddingIdx)
			}
			if head := m.OutputEmbeddings(); r.OutFeatures != nil {
				_, out := head.Weight.Features()
				require.Equal(t, *r.OutFeatures, out)
				if r.Tied == (len(ties) > 0) { // else transformers ties, when it resizes, what differs in the checkpoint
					require.Equal(t, *r.OutputRequiresGrad, head.Weight.(*nn.Dense).W.RequiresGrad(), name)
				}
			}
			if r.Tied && len(ties) > 0 {
				for _, group := range r.Shared {
					for _, key := range group[1:] {
						require.Same(t, state(m)[group[0]], state(m)[key])
					}
				}
			}
			require.Equal(t, ties, m.TiedKeys(), name)
			base := m.Config()
			data, err := json.Marshal(base)
			require.NoError(t, err)
			var config struct {
				VocabSize int `json:"vocab_size"`
			}
			require.NoError(t, json.Unmarshal(data, &config))
			require.Equal(t, r.VocabSize, config.VocabSize)

			for key, x := range state(m) {
				want, changed := r.Changed[key]
				if !changed {
					require.True(t, old[key].Equal(x), key)
					continue
				}
				require.Equal(t, want.Shape, x.Shape(), key)
				kept := min(x.Size(0), old[key].Size(0))
				require.True(t, old[key].Narrow(0, 0, kept).Equal(x.Narrow(0, 0, kept)), "%s of %s", key, name)
				if want.Is != "" || want.Far == nil {
					continue
				}
				added := x.Detach().Narrow(0, kept, x.Size(0)-kept).ToDType(torch.Float64)
				far := torch.Item[float64](added.Sub(old[key].ToDType(torch.Float64).MeanDim([]int{0})).Abs().Max())
				switch {
				case want.Zero:
					require.Zero(t, torch.Item[float64](added.Abs().Max()), key)
				case !r.Mean:
					require.Greater(t, far, 0.01)
				case *want.Far == 0:
					require.Zero(t, far, "%s of %s", key, name)
				default: // the same distribution, other draws: the farthest is neither rounding nor beyond 6.5 deviations
					rows := old[key].ToDType(torch.Float64)
					if rows.Dim() == 1 { // a bias: 1e-9 of its deviation, which rounding to float32 hides
						require.Less(t, far, 6.5e-9*torch.Item[float64](rows.Std())+1.2e-7*math.Abs(torch.Item[float64](rows.Mean())), "%s of %s", key, name)
						continue
					}
					variance := rows.Sub(rows.MeanDim([]int{0})).Square().MeanDim([]int{0}) // of each column
					deviation := math.Sqrt(1e-9 * torch.Item[float64](variance.Max()))
					require.Less(t, far, 6.5*deviation, "%s of %s", key, name)
					require.Greater(t, far, deviation/20, "%s of %s", key, name)
					require.Less(t, *want.Far, 6.5*deviation, "Python's, too")
				}
			}

			dir := t.TempDir()
			require.NoError(t, pretrained.SavePretrained(ctx, m, dir, pretrained.SaveOptions{}))
			again, report := load(t, dir, pretrained.Options{Strict: true})
			equalModels(t, m, again)
			require.Equal(t, len(ties), len(report.TiedKeys))
		}
	}
}

// Many new rows have the mean of the old ones, and 1e-9 of their covariance.
func TestResizeDrawsFromTheOldRows(t *testing.T) {
	const added = 20000
	for _, dtype := range []torch.DType{torch.Float32, torch.Float64} {
		m, _ := load(t, filepath.Join(testdata.Open(t, "models-bert"), "bert-mlm"), pretrained.Options{DType: dtype, Config: map[string]any{"tie_word_embeddings": false}})
		torch.ManualSeed(7)
		tables := func() []*torch.Tensor {
			return []*torch.Tensor{m.InputEmbeddings().Weight.(*nn.Table).W, m.OutputEmbeddings().Weight.(*nn.Dense).W}
		}
		var before []*torch.Tensor
		for _, w := range tables() {
			before = append(before, w.Detach().Clone().ToDType(torch.Float64))
		}
		v := before[0].Size(0)
		_, err := m.ResizeTokenEmbeddings(v + added)
		require.NoError(t, err)
		for n, w := range tables() {
			old := before[n]
			require.Equal(t, dtype, w.DType())
			mean := old.MeanDim([]int{0})
			centred := old.Sub(mean)
			covariance := torch.ToSlice[float64](centred.T().MatMul(centred).DivScalar(v))
			fresh := w.Detach().ToDType(torch.Float64).Narrow(0, v, added).Sub(mean)
			got := torch.ToSlice[float64](fresh.T().MatMul(fresh).DivScalar(added))
			c := old.Size(1)
			for i := range c {
				for j := range c {
					// The error of a covariance from n draws is √((σᵢ²σⱼ² + σᵢⱼ²)/n); rounding to float32 adds its own.
					sigma := math.Sqrt((covariance[i*c+i]*covariance[j*c+j] + covariance[i*c+j]*covariance[i*c+j]) / added)
					require.InDelta(t, covariance[i*c+j], got[i*c+j]*1e9, 6*sigma+1e-4*covariance[i*c+i], "%d: %d %d", n, i, j)
				}
			}
		}
	}
}

// With fewer rows than columns the covariance is singular: new rows are the mean.
func TestResizeOfFewRows(t *testing.T) {
	for name, c := range methodsCases(t) {
		require.True(t, c.SingularIsMean)
		m, _ := load(t, c.dir, pretrained.Options{DType: torch.Float32})
		_, err := m.ResizeTokenEmbeddings(8)
		require.NoError(t, err)
		mean := m.InputEmbeddings().Weight.(*nn.Table).W.Detach().MeanDim([]int{0})
		_, err = m.ResizeTokenEmbeddings(12)
		require.NoError(t, err)
		w := m.InputEmbeddings().Weight.(*nn.Table).W
		for i := 8; i < 12; i++ {
			require.True(t, mean.Equal(w.Select(0, i)), name)
		}
	}
}

func TestResizeRefuses(t *testing.T) {
	m, _ := load(t, loaderCase(t, "single"), pretrained.Options{})
	before := map[string][]int{}
	for key, x := range state(m) {
		before[key] = x.Shape()
	}
	for _, n := range []int{0, -3, pretrained.MaxSize + 1} {
		_, err := m.ResizeTokenEmbeddings(n)
		require.ErrorIs(t, err, pretrained.ErrArgument)
	}
	_, err := m.ResizeTokenEmbeddings(5, pretrained.ResizeOptions{PadToMultipleOf: -1})
	require.ErrorIs(t, err, pretrained.ErrArgument)
	e := m.InputEmbeddings()
	table := e.Weight
	e.Weight = &otherTable{}
	_, err = m.ResizeTokenEmbeddings(5)
	require.ErrorIs(t, err, pretrained.ErrUnsupported)
	require.ErrorContains(t, err, "*pretrained_test.otherTable")
	e.Weight = table
	meta := torch.Empty(before["bert.embeddings.word_embeddings.weight"], torch.EmptyOptions{Device: torch.Meta})
	e.Weight = &nn.Table{W: meta}
	_, err = m.ResizeTokenEmbeddings(5)
	require.ErrorIs(t, err, pretrained.ErrUnsupported)
	require.ErrorContains(t, err, "offloaded")
	require.ErrorContains(t, m.Half(), "offloaded")
	e.Weight = table
	for key, x := range state(m) {
		require.Equal(t, before[key], x.Shape(), "nothing has changed")
	}
}

// Of a model with offloaded layers, what is here can be changed, and the rest says why not.
func TestMethodsOfAnOffloadedModel(t *testing.T) {
	for name, c := range placedModels {
		dir := filepath.Join(testdata.Open(t, c.group), c.dir)
		plain, _ := load(t, dir, pretrained.Options{})
		m, _ := load(t, dir, pretrained.Options{DeviceMap: pretrained.DeviceMap{"": "cpu", c.layers + ".1": "disk"}})
		require.Equal(t, plain.NumParameters(), m.NumParameters())
		for _, err := range []error{m.CPU(), m.Half(), m.SetInputEmbeddings(m.InputEmbeddings())} {
			require.ErrorIs(t, err, pretrained.ErrUnsupported, name)
		}
		require.ErrorContains(t, m.Half(), c.layers+".1")
		require.ErrorIs(t, torch.TryDo(func() { nn.Clone(m) }), torch.ErrArgument)
		require.NoError(t, m.TieWeights())
		require.NoError(t, m.InitWeights())
		require.Equal(t, plain.TiedKeys(), m.TiedKeys())
		rows, _ := m.InputEmbeddings().Weight.Rows()
		want := torch.InferenceOf(func() *torch.Tensor { return plain.Forward(placedInputs()).Logits })
		_, err := m.ResizeTokenEmbeddings(rows + 5)
		require.NoError(t, err)
		got := torch.InferenceOf(func() *torch.Tensor { return m.Forward(placedInputs()).Logits })
		require.True(t, torch.Item[bool](want.Isclose(got.Narrow(-1, 0, rows), torch.IscloseOptions{Atol: torch.Some(1e-6)}).All()), name)

		gone, _ := load(t, dir, pretrained.Options{DeviceMap: pretrained.DeviceMap{"": "disk"}})
		_, err = gone.ResizeTokenEmbeddings(rows + 5)
		require.ErrorIs(t, err, pretrained.ErrUnsupported)
		require.ErrorContains(t, err, "offloaded")
		require.NoError(t, gone.TieWeights())
		require.Equal(t, plain.TiedKeys(), gone.TiedKeys())
	}
}

type otherTable struct{ nn.Table }

// A padding index that is cut off is dropped, in the config, too: the model could not be loaded again.
func TestResizeCutsThePaddingIndex(t *testing.T) {
	m, _ := load(t, loaderCase(t, "single"), pretrained.Options{Config: map[string]any{"pad_token_id": int64(20)}})
	require.Equal(t, 20, m.InputEmbeddings().PaddingIdx)
	_, err := m.ResizeTokenEmbeddings(21)
	require.NoError(t, err)
	require.Equal(t, 20, m.InputEmbeddings().PaddingIdx)
	_, err = m.ResizeTokenEmbeddings(20)
	require.NoError(t, err)
	require.Equal(t, -1, m.InputEmbeddings().PaddingIdx)
	dir := t.TempDir()
	require.NoError(t, pretrained.SavePretrained(ctx, m, dir, pretrained.SaveOptions{}))
	again, _ := load(t, dir, pretrained.Options{Strict: true})
	require.Equal(t, -1, again.InputEmbeddings().PaddingIdx)
}

// What is resized lets the mapped file go, and can be trained although the graph of an earlier step is there.
func TestResizeOfAMappedModelInTraining(t *testing.T) {
	dir := loaderCase(t, "single")
	m, _ := load(t, dir, pretrained.Options{})
	file := filepath.Join(dir, "model.safetensors")
	table := func() *torch.Tensor { return m.InputEmbeddings().Weight.(*nn.Table).W }
	require.True(t, inMappingOf(t, table().DataPtr(), file))
	ids := torch.FromSlice([]int64{1, 2, 3, 4}, 1, 4)
	m.Train()
	loss := m.Forward(pretrained.Inputs{InputIDs: ids, Labels: ids}).Loss
	loss.Backward()
	n, live := table().Size(0), torch.LiveTensors()
	_, err := m.ResizeTokenEmbeddings(n + 3)
	require.NoError(t, err)
	require.LessOrEqual(t, torch.LiveTensors(), live)
	w := table()
	require.Nil(t, w.Grad())
	require.False(t, inMappingOf(t, w.DataPtr(), file))
	last := torch.FromSlice([]int64{1, int64(n + 2)}, 1, 2)
	m.Forward(pretrained.Inputs{InputIDs: last, Labels: last}).Loss.Backward()
	require.Equal(t, w.Shape(), w.Grad().Shape())
	require.NotZero(t, torch.Item[float32](w.Grad().Select(0, n+2).Abs().Sum()))
	require.Contains(t, nn.Parameters(m), w)
	loss.Close()
}
