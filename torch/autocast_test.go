package torch

import (
	"encoding/json"
	"math"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/torchgo/torchgo/internal/testdata"
)

// refTensor is a tensor in the reference of tools/autocastref.
type refTensor struct {
	DType  string    `json:"d"`
	Shape  []int     `json:"s"`
	Values []float64 `json:"v"`
}

func (r *refTensor) tensor(t *testing.T) *Tensor {
	dtype, err := ParseDType(r.DType)
	require.NoError(t, err)
	return FromSlice(r.Values, r.Shape...).ToDType(dtype)
}

// equal compares with PyTorch's tolerances for the dtype.
func (r *refTensor) equal(t *testing.T, got *Tensor, what string) {
	dtype, err := ParseDType(r.DType)
	require.NoError(t, err)
	require.Equal(t, dtype, got.DType(), what)
	require.Equal(t, r.Shape, got.Shape(), what)
	tolerance := map[DType]float64{Float16: 1e-3, BFloat16: 1.6e-2, Float32: 1.3e-6}[dtype]
	for i, v := range ToSlice[float64](got.Detach().ToDType(Float64)) {
		require.LessOrEqual(t, math.Abs(v-r.Values[i]), 1e-5+tolerance*math.Abs(r.Values[i]), "%s: element %d: expected %v, got %v", what, i, r.Values[i], v)
	}
}

// What tools/autocastref does, in Go.
var autocastCases = map[string]func(x []*Tensor) []*Tensor{
	"linear":  func(x []*Tensor) []*Tensor { return list(Linear(x[0], x[1], LinearOptions{Bias: x[2]})) },
	"matmul":  func(x []*Tensor) []*Tensor { return list(x[0].MatMul(x[1])) },
	"mm":      func(x []*Tensor) []*Tensor { return list(x[0].Mm(x[1])) },
	"bmm":     func(x []*Tensor) []*Tensor { return list(x[0].Bmm(x[1])) },
	"addmm":   func(x []*Tensor) []*Tensor { return list(x[0].Addmm(x[1], x[2])) },
	"baddbmm": func(x []*Tensor) []*Tensor { return list(x[0].Baddbmm(x[1], x[2])) },
	"conv1d": func(x []*Tensor) []*Tensor {
		return list(Conv1d(x[0], x[1], Conv1dOptions{Bias: x[2], Padding: []int{1}}))
	},
	"conv2d": func(x []*Tensor) []*Tensor {
		return list(Conv2d(x[0], x[1], Conv2dOptions{Bias: x[2], Stride: []int{2}}))
	},
	"conv_transpose2d": func(x []*Tensor) []*Tensor { return list(ConvTranspose2d(x[0], x[1])) },
	"attention":        func(x []*Tensor) []*Tensor { return list(ScaledDotProductAttention(x[0], x[1], x[2])) },

	"softmax":     func(x []*Tensor) []*Tensor { return list(x[0].Softmax(-1)) },
	"log_softmax": func(x []*Tensor) []*Tensor { return list(x[0].LogSoftmax(-1)) },
	"layer_norm": func(x []*Tensor) []*Tensor {
		return list(LayerNorm(x[0], []int{4}, LayerNormOptions{Weight: x[1], Bias: x[2]}))
	},
	"exp":                  func(x []*Tensor) []*Tensor { return list(x[0].Exp()) },
	"sum":                  func(x []*Tensor) []*Tensor { return list(x[0].SumDim([]int{-1})) },
	"gelu":                 func(x []*Tensor) []*Tensor { return list(Gelu(x[0])) },
	"mse_loss":             func(x []*Tensor) []*Tensor { return list(MseLoss(x[0], x[1])) },
	"binary_cross_entropy": func(x []*Tensor) []*Tensor { return list(BinaryCrossEntropy(x[0], x[1])) },
	"cross_entropy":        func(x []*Tensor) []*Tensor { return list(CrossEntropyLoss(x[0], x[1])) },

	"softmax_of_mm":  func(x []*Tensor) []*Tensor { return list(x[0].Mm(x[1]).Softmax(-1)) },
	"exp_of_mm":      func(x []*Tensor) []*Tensor { return list(x[0].Mm(x[1]).Exp()) },
	"mse_loss_of_mm": func(x []*Tensor) []*Tensor { return list(MseLoss(x[0].Mm(x[1]), x[2])) },
	"add_to_mm":      func(x []*Tensor) []*Tensor { return list(x[0].Mm(x[1]).Add(x[2])) },
	"gelu_of_mm":     func(x []*Tensor) []*Tensor { return list(Gelu(x[0].Mm(x[1]))) },

	"cat":   func(x []*Tensor) []*Tensor { return list(Cat(list(x[0].Mm(x[1]), x[2]))) },
	"stack": func(x []*Tensor) []*Tensor { return list(Stack(list(x[2], x[0].Mm(x[1])))) },

	"mlp": func(x []*Tensor) []*Tensor {
		h := Linear(x[0], x[1], LinearOptions{Bias: x[2]}).Relu()
		logits := Linear(h, x[3], LinearOptions{Bias: x[4]})
		return list(logits, CrossEntropyLoss(logits, x[5]))
	},
	"twice": func(x []*Tensor) []*Tensor { return list(x[0].Mm(x[1]), x[0].Mm(x[1]).Mm(x[1])) },
	"nested": func(x []*Tensor) (out []*Tensor) {
		out = list(x[0].Mm(x[1]))
		Autocast(DeviceCPU, AutocastOptions{Enabled: Some(false)}, func() { out = append(out, x[0].Mm(x[1])) })
		return append(out, x[0].Mm(x[1]))
	},
	"other": func(x []*Tensor) (out []*Tensor) {
		swap := map[DType]DType{BFloat16: Float16, Float16: BFloat16}[AutocastDType(DeviceCPU)]
		out = list(x[0].Mm(x[1]))
		Autocast(DeviceCPU, AutocastOptions{DType: swap}, func() { out = append(out, x[0].Mm(x[1])) })
		return out
	},
}

func list(t ...*Tensor) []*Tensor { return t }

// Results, dtypes and gradients are Python's.
func TestAutocastIsPyTorchs(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(testdata.Open(t, "autocast"), "autocast.json"))
	require.NoError(t, err)
	var ref struct {
		Cases []struct {
			Name    string       `json:"name"`
			DType   string       `json:"dtype"`
			In      []*refTensor `json:"in"`
			Out     []*refTensor `json:"out"`
			Weights []*refTensor `json:"weights"`
			Grads   []*refTensor `json:"grads"`
		} `json:"cases"`
	}
	require.NoError(t, json.Unmarshal(text, &ref))
	require.Len(t, ref.Cases, 2*len(autocastCases))
	grads := 0
	for _, c := range ref.Cases {
		Scope(func() {
			what := c.Name + " in " + c.DType
			fn := autocastCases[c.Name]
			require.NotNil(t, fn, what)
			dtype, err := ParseDType(c.DType)
			require.NoError(t, err)
			var in, out, leaves, weights []*Tensor
			for _, r := range c.In {
				x := r.tensor(t)
				if x.DType().IsFloatingPoint() {
					leaves = append(leaves, x.SetRequiresGrad(true))
				}
				in = append(in, x)
			}
			Autocast(DeviceCPU, AutocastOptions{DType: dtype}, func() { out = fn(in) })
			require.Len(t, out, len(c.Out), what)
			for i, r := range c.Out {
				r.equal(t, out[i], what)
				weights = append(weights, c.Weights[i].tensor(t).ToDType(out[i].DType()))
			}
			found := Grad(out, leaves, GradOptions{GradOutputs: weights, AllowUnused: true})
			for i := range in {
				if !in[i].DType().IsFloatingPoint() {
					require.Nil(t, c.Grads[i])
					continue
				}
				g := found[0]
				found = found[1:]
				if c.Grads[i] == nil {
					require.Nil(t, g, what)
					continue
				}
				c.Grads[i].equal(t, g, what+": gradient")
				grads++
			}
		})
	}
	require.Greater(t, grads, 100)
}

func TestAutocastNests(t *testing.T) {
	require.False(t, AutocastEnabled(DeviceCPU))
	require.Equal(t, BFloat16, AutocastDType(DeviceCPU))
	require.Equal(t, Float16, AutocastDType(DeviceCUDA))
	Autocast(DeviceCPU, AutocastOptions{DType: Float16, CacheEnabled: Some(false)}, func() {
		require.True(t, AutocastEnabled(DeviceCPU))
		require.False(t, AutocastEnabled(DeviceCUDA))
		require.Equal(t, Float16, AutocastDType(DeviceCPU))
		require.False(t, AutocastCacheEnabled())
		_ = TryDo(func() {
			Autocast(DeviceCPU, AutocastOptions{Enabled: Some(false)}, func() {
				require.False(t, AutocastEnabled(DeviceCPU))
				Autocast(DeviceCUDA, AutocastOptions{DType: BFloat16}, func() {
					require.True(t, AutocastEnabled(DeviceCUDA))
					require.Equal(t, BFloat16, AutocastDType(DeviceCUDA))
					panic(&Error{})
				})
			})
		})
		require.True(t, AutocastEnabled(DeviceCPU))
		require.False(t, AutocastEnabled(DeviceCUDA))
		require.Equal(t, Float16, AutocastDType(DeviceCUDA))
		require.Equal(t, Float16, AutocastDType(DeviceCPU))
	})
	require.False(t, AutocastEnabled(DeviceCPU))
	require.Equal(t, BFloat16, AutocastDType(DeviceCPU))
	require.True(t, AutocastCacheEnabled())

	for _, o := range []AutocastOptions{{DType: Float32}, {DType: Int64}, {DType: Float64}} {
		require.ErrorIs(t, TryDo(func() { Autocast(DeviceCPU, o, func() {}) }), ErrArgument, o.DType)
	}
	require.NoError(t, TryDo(func() { Autocast(DeviceCPU, AutocastOptions{DType: Float32, Enabled: Some(false)}, func() {}) }))
	require.ErrorIs(t, TryDo(func() { Autocast(DeviceMeta, AutocastOptions{}, func() {}) }), ErrArgument)
	require.ErrorIs(t, TryDo(func() { Autocast(0, AutocastOptions{}, func() {}) }), ErrArgument)
}

// One code for both devices: Autocast for CUDA leaves the CPU's tensors alone, and the other way round.
func TestAutocastIsForOneKindOfDevice(t *testing.T) {
	Scope(func() {
		x := Ones([]int{2, 2})
		dtype := func(device DeviceType) (d DType) {
			Autocast(device, AutocastOptions{}, func() { d = x.Mm(x).DType() })
			return d
		}
		require.Equal(t, BFloat16, dtype(x.Device().Type))
		require.Equal(t, Float32, dtype(DeviceCUDA))
	})
}

// A parameter is cast once until the outermost Autocast ends: a change in between is not seen, which is
// how Python shows it, too.
func TestAutocastKeepsCastsOfParameters(t *testing.T) {
	Scope(func() {
		x := Ones([]int{1, 1})
		run := func(cache bool) (seen []float64) {
			w := Ones([]int{1, 1}).SetRequiresGrad(true)
			look := func() { seen = append(seen, Item[float64](x.Mm(w).Detach().ToDType(Float64))) }
			Autocast(DeviceCPU, AutocastOptions{CacheEnabled: Some(cache)}, func() {
				look()
				NoGrad(func() { w.Fill_(2) })
				Autocast(DeviceCPU, AutocastOptions{}, look)
				look() // the inner one's end is not the outermost's
			})
			Autocast(DeviceCPU, AutocastOptions{CacheEnabled: Some(cache)}, look)
			return seen
		}
		require.Equal(t, []float64{1, 1, 1, 2}, run(true))
		require.Equal(t, []float64{1, 2, 2, 2}, run(false))
	})
}

// The casts that an inference made don't lose another goroutine's gradients, though libtorch keeps them
// for all threads together.
func TestAutocastTrainsBesideInference(t *testing.T) {
	w := Ones([]int{8, 8}).SetRequiresGrad(true)
	defer w.Close()
	var wg sync.WaitGroup
	stop := make(chan struct{})
	for range 2 {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
					NoGrad(func() {
						Autocast(DeviceCPU, AutocastOptions{}, func() { Scope(func() { Ones([]int{2, 8}).Mm(w) }) })
					})
				}
			}
		})
	}
	for range 100 {
		Scope(func() {
			var y *Tensor
			Autocast(DeviceCPU, AutocastOptions{}, func() { y = Ones([]int{2, 8}).Mm(w) })
			g := Grad(list(y.Sum()), list(w))[0]
			require.Equal(t, Float32, g.DType())
			require.Equal(t, 128.0, Item[float64](g.ToDType(Float64).Sum()))
		})
	}
	close(stop)
	wait(t, &wg)
}
