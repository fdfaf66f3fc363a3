package nninit

import (
	"encoding/base64"
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/torchgo/torchgo/internal/testdata"
	"github.com/torchgo/torchgo/torch"
)

// The expressions of tools/nnref in Go; those that are not here run by name with the defaults.
var calls = map[string]func(t *torch.Tensor){
	"init.uniform_(t, -2, 3)":         func(t *torch.Tensor) { Uniform_(t, -2, 3) },
	"init.normal_(t, 1, 0.5)":         func(t *torch.Tensor) { Normal_(t, 1, 0.5) },
	"init.constant_(t, 0.3)":          func(t *torch.Tensor) { Constant_(t, 0.3) },
	"init.dirac_(t, 2)":               func(t *torch.Tensor) { Dirac_(t, DiracOptions{torch.Some(2)}) },
	"init.dirac_(t, 3)":               func(t *torch.Tensor) { Dirac_(t, DiracOptions{torch.Some(3)}) },
	"init.xavier_uniform_(t, gain=2)": func(t *torch.Tensor) { XavierUniform_(t, GainOptions{Gain: torch.Some(2.0)}) },
	"init.xavier_normal_(t, gain=init.calculate_gain('relu'))": func(t *torch.Tensor) {
		XavierNormal_(t, GainOptions{Gain: torch.Some(CalculateGain("relu"))})
	},
	"init.kaiming_uniform_(t, a=0.2, mode='fan_out')": func(t *torch.Tensor) { KaimingUniform_(t, KaimingOptions{A: 0.2, FanOut: true}) },
	"init.kaiming_uniform_(t, nonlinearity='tanh')":   func(t *torch.Tensor) { KaimingUniform_(t, KaimingOptions{Nonlinearity: "tanh"}) },
	"init.kaiming_normal_(t, mode='fan_out', nonlinearity='relu')": func(t *torch.Tensor) {
		KaimingNormal_(t, KaimingOptions{FanOut: true, Nonlinearity: "relu"})
	},
	"init.trunc_normal_(t, std=0.02)": func(t *torch.Tensor) { TruncNormal_(t, TruncNormalOptions{Std: torch.Some(0.02)}) },
	"init.trunc_normal_(t, mean=1, std=2, a=-1, b=1.5)": func(t *torch.Tensor) {
		TruncNormal_(t, TruncNormalOptions{Mean: 1, Std: torch.Some(2.0), A: torch.Some(-1.0), B: torch.Some(1.5)})
	},
	"init.trunc_normal_(t, a=1, b=2)":   func(t *torch.Tensor) { TruncNormal_(t, TruncNormalOptions{A: torch.Some(1.0), B: torch.Some(2.0)}) },
	"init.trunc_normal_(t, a=2.5, b=4)": func(t *torch.Tensor) { TruncNormal_(t, TruncNormalOptions{A: torch.Some(2.5), B: torch.Some(4.0)}) },
	"init.orthogonal_(t, gain=3)":       func(t *torch.Tensor) { Orthogonal_(t, GainOptions{Gain: torch.Some(3.0)}) },
	"init.orthogonal_(t, gain=0.5)":     func(t *torch.Tensor) { Orthogonal_(t, GainOptions{Gain: torch.Some(0.5)}) },
	"init.sparse_(t, 0.3)":              func(t *torch.Tensor) { Sparse_(t, 0.3) },
	"init.sparse_(t, 0.5, std=2)":       func(t *torch.Tensor) { Sparse_(t, 0.5, SparseOptions{Std: torch.Some(2.0)}) },
}

var plainCall = regexp.MustCompile(`^init\.(\w+)\(t\)$`)

// One seed gives Python's numbers, bit by bit, and as many are drawn.
func TestInitialisersDrawPythonsNumbers(t *testing.T) {
	var ref struct {
		Init map[string]struct {
			Shape      []int
			Data, Next string
		}
	}
	text, err := os.ReadFile(filepath.Join(testdata.Open(t, "nnref"), "nnref.json"))
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal(text, &ref))
	require.Greater(t, len(ref.Init), 25)
	of := func(x *torch.Tensor) string { return base64.StdEncoding.EncodeToString(x.Bytes()) }
	named := 0
	for expression, want := range ref.Init {
		t.Run(expression, func(t *testing.T) {
			x := torch.Empty(want.Shape)
			defer x.Close()
			torch.ManualSeed(7)
			if m := plainCall.FindStringSubmatch(expression); m != nil {
				named++
				fill, err := ByName(m[1])
				require.NoError(t, err)
				require.Same(t, x, fill(x, Options{}))
			} else {
				require.NotNil(t, calls[expression])
				calls[expression](x)
			}
			require.Equal(t, want.Data, of(x))
			require.Equal(t, want.Next, of(torch.Rand([]int{1})))
		})
	}
	require.Greater(t, named, 10)
}

// What transformers asks for by name is there, and its arguments arrive.
func TestInitialisersByName(t *testing.T) {
	require.Equal(t, []string{"constant_", "dirac_", "eye_", "kaiming_normal_", "kaiming_uniform_", "normal_", "ones_", "orthogonal_",
		"sparse_", "trunc_normal_", "uniform_", "xavier_normal_", "xavier_uniform_", "zeros_"}, Names())
	o := Options{A: torch.Some(0.25), B: torch.Some(0.5), Mean: torch.Some(0.1), Std: torch.Some(0.5), Gain: torch.Some(2.0), Value: 3,
		Sparsity: 0.5, Groups: torch.Some(2), FanOut: true, Nonlinearity: "leaky_relu"}
	direct := map[string]func(x *torch.Tensor){
		"constant_":        func(x *torch.Tensor) { Constant_(x, 3) },
		"kaiming_normal_":  func(x *torch.Tensor) { KaimingNormal_(x, KaimingOptions{A: 0.25, FanOut: true}) },
		"kaiming_uniform_": func(x *torch.Tensor) { KaimingUniform_(x, KaimingOptions{A: 0.25, FanOut: true}) },
		"normal_":          func(x *torch.Tensor) { Normal_(x, 0.1, 0.5) },
		"orthogonal_":      func(x *torch.Tensor) { Orthogonal_(x, GainOptions{Gain: torch.Some(2.0)}) },
		"sparse_":          func(x *torch.Tensor) { Sparse_(x, 0.5, SparseOptions{Std: torch.Some(0.5)}) },
		"trunc_normal_": func(x *torch.Tensor) {
			TruncNormal_(x, TruncNormalOptions{Mean: 0.1, Std: torch.Some(0.5), A: torch.Some(0.25), B: torch.Some(0.5)})
		},
		"uniform_":        func(x *torch.Tensor) { Uniform_(x, 0.25, 0.5) },
		"xavier_normal_":  func(x *torch.Tensor) { XavierNormal_(x, GainOptions{Gain: torch.Some(2.0)}) },
		"xavier_uniform_": func(x *torch.Tensor) { XavierUniform_(x, GainOptions{Gain: torch.Some(2.0)}) },
	}
	for name, f := range direct {
		x, y := torch.Empty([]int{4, 6}), torch.Empty([]int{4, 6})
		fill, err := ByName(name)
		require.NoError(t, err)
		torch.ManualSeed(1)
		fill(x, o)
		torch.ManualSeed(1)
		f(y)
		require.Equal(t, torch.ToSlice[float32](y), torch.ToSlice[float32](x), name)
		torch.ManualSeed(1)
		fill(y, Options{})
		require.NotEqual(t, torch.ToSlice[float32](y), torch.ToSlice[float32](x), "%s: the options count", name)
	}
	fill, err := ByName("dirac_")
	require.NoError(t, err)
	x, y := torch.Empty([]int{4, 2, 3}), torch.Empty([]int{4, 2, 3})
	fill(x, o)
	Dirac_(y, DiracOptions{torch.Some(2)})
	require.Equal(t, torch.ToSlice[float32](y), torch.ToSlice[float32](x))
	_, err = ByName("nope_")
	require.ErrorContains(t, err, `initialiser "nope_": unknown, want one of constant_,`)
}

func TestInitialisersLeaveMetaTensorsAndGradientsAlone(t *testing.T) {
	live := torch.LiveTensors()
	for _, name := range Names() {
		shape := []int{4, 6}
		if name == "dirac_" {
			shape = []int{4, 6, 3}
		}
		fill, err := ByName(name)
		require.NoError(t, err)
		meta := torch.Empty(shape, torch.EmptyOptions{Device: torch.Meta})
		fill(meta, Options{Sparsity: 0.5})
		meta.Close()
		x := torch.Empty(shape).SetRequiresGrad(true)
		fill(x, Options{Sparsity: 0.5})
		require.True(t, x.IsLeaf(), name)
		require.Empty(t, x.GradFn(), name)
		x.Close()
	}
	require.Equal(t, live, torch.LiveTensors())
}

func TestInitialisersRefuse(t *testing.T) {
	for message, f := range map[string]func(x *torch.Tensor){
		"eye_: Only tensors with 2 dimensions are supported":                                  func(x *torch.Tensor) { Eye_(x) },
		"dirac_: Only tensors with 3, 4, or 5 dimensions are supported":                       func(x *torch.Tensor) { Dirac_(x) },
		"fan: Fan in and fan out can not be computed for tensor with fewer than 2 dimensions": func(x *torch.Tensor) { XavierNormal_(x) },
		"orthogonal_: Only tensors with 2 or more dimensions are supported":                   func(x *torch.Tensor) { Orthogonal_(x) },
		"sparse_: Only tensors with 2 dimensions are supported":                               func(x *torch.Tensor) { Sparse_(x, 0.5) },
		"calculate_gain: Unsupported nonlinearity softmax":                                    func(*torch.Tensor) { CalculateGain("softmax") },
	} {
		err := torch.TryDo(func() { f(torch.Empty([]int{3})) })
		require.ErrorIs(t, err, torch.ErrArgument)
		require.ErrorContains(t, err, message)
	}
	for name, want := range map[string]float64{"linear": 1, "conv_transpose2d": 1, "sigmoid": 1, "tanh": 5.0 / 3, "selu": 0.75} {
		require.Equal(t, want, CalculateGain(name), name)
	}
}
