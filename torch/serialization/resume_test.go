package serialization_test

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/torchgo/torchgo/internal/testdata"
	"github.com/torchgo/torchgo/torch"
	"github.com/torchgo/torchgo/torch/nn"
	"github.com/torchgo/torchgo/torch/optim"
	"github.com/torchgo/torchgo/torch/serialization"
)

// optimizers are those of tools/torchsave, with its options; rest are parameters with half the learning rate.
var optimizers = map[string]func(first, rest []*torch.Tensor) optim.Optimizer{
	"SGD": func(first, rest []*torch.Tensor) optim.Optimizer {
		return halved(optim.NewSGD(first, optim.SGDOptions{LR: 0.05, Momentum: 0.9, Nesterov: true, WeightDecay: 0.01}), rest)
	},
	"Adam": func(first, rest []*torch.Tensor) optim.Optimizer {
		return halved(optim.NewAdam(first, optim.AdamOptions{LR: 0.01, AMSGrad: true, WeightDecay: 0.1}), rest)
	},
	"AdamW": func(first, rest []*torch.Tensor) optim.Optimizer {
		return halved(optim.NewAdamW(first, optim.AdamWOptions{LR: 0.01, Betas: torch.Some([2]float64{0.8, 0.95})}), rest)
	},
	"Adagrad": func(first, rest []*torch.Tensor) optim.Optimizer {
		return halved(optim.NewAdagrad(first, optim.AdagradOptions{LR: 0.1, LRDecay: 0.01}), rest)
	},
	"RMSprop": func(first, rest []*torch.Tensor) optim.Optimizer {
		return halved(optim.NewRMSprop(first, optim.RMSpropOptions{LR: 0.01, Momentum: 0.9, Centered: true}), rest)
	},
	"NAdam": func(first, rest []*torch.Tensor) optim.Optimizer {
		return halved(optim.NewNAdam(first, optim.NAdamOptions{LR: 0.01}), rest)
	},
	"RAdam": func(first, rest []*torch.Tensor) optim.Optimizer {
		return halved(optim.NewRAdam(first, optim.RAdamOptions{LR: 0.01}), rest)
	},
	"Adafactor": func(first, rest []*torch.Tensor) optim.Optimizer {
		return halved(optim.NewAdafactor(first, optim.AdafactorOptions{LR: 0.01}), rest)
	},
	"LBFGS": func(first, rest []*torch.Tensor) optim.Optimizer {
		return optim.NewLBFGS(append(first, rest...), optim.LBFGSOptions{LR: 0.5, MaxIter: torch.Some(4), HistorySize: torch.Some(5)})
	},
	"Muon": func(first, rest []*torch.Tensor) optim.Optimizer {
		return halved(optim.NewMuon(first, optim.MuonOptions{LR: 0.01}), rest)
	},
	"Adadelta": func(first, rest []*torch.Tensor) optim.Optimizer {
		return halved(optim.NewAdadelta(first, optim.AdadeltaOptions{LR: 0.5}), rest)
	},
	"Adamax": func(first, rest []*torch.Tensor) optim.Optimizer {
		return halved(optim.NewAdamax(first, optim.AdamaxOptions{LR: 0.01}), rest)
	},
	"ASGD": func(first, rest []*torch.Tensor) optim.Optimizer {
		return halved(optim.NewASGD(first, optim.ASGDOptions{LR: 0.05}), rest)
	},
	"Rprop": func(first, rest []*torch.Tensor) optim.Optimizer {
		return halved(optim.NewRprop(first, optim.RpropOptions{LR: 0.01}), rest)
	},
}

func halved[O any](opt *optim.Base[O], rest []*torch.Tensor) optim.Optimizer {
	g := opt.AddParamGroup(rest)
	g.SetLR(g.LR() / 2)
	return opt
}

// training is a model, its optimizer and a scheduler.
type training struct {
	model *nn.Sequential
	opt   optim.Optimizer
	sched *optim.LRScheduler
	x, y  *torch.Tensor
}

func start(t *testing.T, name string, data *serialization.Loaded) *training {
	b := nn.Builder{DType: torch.Float64}
	bias := nn.LinearOptions{Bias: torch.Some(name != "Muon")}
	m := &training{model: nn.NewSequential(b.Linear(3, 4, bias), nn.NewTanh(), b.Linear(4, 2, bias))}
	state, err := data.StateDict("model")
	require.NoError(t, err)
	require.NoError(t, nn.LoadStateDict(m.model, state, nn.LoadStateDictOptions{Strict: bias.Bias}))
	m.opt = optimizers[name](nn.Parameters(m.model.Layers[0]), nn.Parameters(m.model.Layers[2]))
	t.Cleanup(m.opt.Close)
	m.sched = optim.NewStepLR(m.opt, 3, optim.StepLROptions{Gamma: torch.Some(0.5)})
	for key, to := range map[string]**torch.Tensor{"x": &m.x, "y": &m.y} {
		v, err := data.At(key)
		require.NoError(t, err)
		*to = v.(*torch.Tensor)
	}
	return m
}

func (m *training) steps(n int) (losses []float64) {
	for range n {
		torch.Scope(func() {
			loss := m.opt.Step(func() *torch.Tensor {
				m.opt.ZeroGrad()
				loss := nn.MSE(m.model.Forward(m.x), m.y)
				loss.Backward()
				return loss
			})
			losses = append(losses, torch.Item[float64](loss))
		})
		m.sched.Step()
	}
	return losses
}

func (m *training) save(t *testing.T, path string) {
	require.NoError(t, serialization.Save(ctx, path, map[string]any{
		"model": nn.StateDict(m.model), "optimizer": m.opt.StateDict(), "scheduler": m.sched.StateDict(), "epoch": 5,
	}))
}

func (m *training) resume(t *testing.T, path string) {
	l, err := serialization.Load(ctx, path)
	require.NoError(t, err)
	defer l.Close()
	epoch, err := l.At("epoch")
	require.NoError(t, err)
	require.Equal(t, int64(5), epoch)
	state, err := l.StateDict("model")
	require.NoError(t, err)
	require.NoError(t, nn.LoadStateDict(m.model, state))
	v, err := l.At("optimizer")
	require.NoError(t, err)
	optimizer, err := optim.StateDictOf(v)
	require.NoError(t, err)
	require.NoError(t, m.opt.LoadStateDict(optimizer))
	v, err = l.At("scheduler")
	require.NoError(t, err)
	scheduler, err := optim.StateOf(v)
	require.NoError(t, err)
	require.NoError(t, m.sched.LoadStateDict(scheduler))
}

// verdicts are what tools/torchsave said of the files that these tests leave in TORCHGO_TORCHSAVE.
type verdict struct {
	SHA256 string
	Same   bool
	Losses []float64
}

func verdicts(t *testing.T, dir string) map[string]verdict {
	v := map[string]verdict{}
	if os.Getenv("TORCHGO_TORCHSAVE") == "" {
		readJSON(t, filepath.Join(dir, "verdicts.json"), &v)
	}
	return v
}

func outFolder(t *testing.T) (dir string, judging bool) {
	if dir := os.Getenv("TORCHGO_TORCHSAVE"); dir != "" {
		require.NoError(t, os.MkdirAll(dir, 0o777))
		return dir, true
	}
	return t.TempDir(), false
}

func digest(t *testing.T, path string) string {
	data, err := os.ReadFile(path)
	require.NoError(t, err)
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}

// Training goes on from Python's checkpoint with Python's losses; from the same checkpoint that Go has saved again,
// Python goes on with the same; and from one that Go has trained.
func TestResumes(t *testing.T) {
	dir := testdata.Open(t, "torchsave")
	var losses map[string][]float64
	readJSON(t, filepath.Join(dir, "training", "losses.json"), &losses)
	require.Len(t, losses, len(optimizers))
	judged := verdicts(t, dir)
	out, judging := outFolder(t)
	data := load(t, filepath.Join(dir, "training", "data.pt"))
	for name := range optimizers {
		t.Run(name, func(t *testing.T) {
			resumed := start(t, name, data)
			resumed.resume(t, filepath.Join(dir, "training", name+".pt"))
			again := fmt.Sprintf("resaved-%s.pt", name)
			resumed.save(t, filepath.Join(out, again))
			require.InDeltaSlice(t, losses[name][5:], resumed.steps(5), 1e-9)

			trained := start(t, name, data)
			require.InDeltaSlice(t, losses[name][:5], trained.steps(5), 1e-9)
			mine := fmt.Sprintf("trained-%s.pt", name)
			trained.save(t, filepath.Join(out, mine))
			more := trained.steps(5)
			require.InDeltaSlice(t, losses[name][5:], more, 1e-9)

			// Go reads what Go has written.
			reread := start(t, name, data)
			reread.resume(t, filepath.Join(out, mine))
			require.Equal(t, more, reread.steps(5))

			if !judging {
				require.Equal(t, judged[again].SHA256, digest(t, filepath.Join(out, again)), "the file that was judged")
				require.InDeltaSlice(t, losses[name][5:], judged[again].Losses, 1e-9)
				require.InDeltaSlice(t, more, judged[mine].Losses, 1e-9)
			}
		})
	}
}

// Every kind of value and of tensor, saved again by Go, is the same to Python, mapped or read.
func TestPythonLoadsWhatGoSaved(t *testing.T) {
	dir := testdata.Open(t, "torchsave")
	judged := verdicts(t, dir)
	out, judging := outFolder(t)
	for _, name := range []string{"plain.pt", "values.pt", "statedict.pt", "many.pt"} {
		l := load(t, filepath.Join(dir, name))
		path := filepath.Join(out, name)
		require.NoError(t, serialization.Save(ctx, path, l.Value))
		if !judging {
			require.Equal(t, judged[name].SHA256, digest(t, path), "%s: the file that was judged", name)
			require.True(t, judged[name].Same, name)
		}
	}
}

// A module's state dict that Python has saved is the module's own: all names, buffers too.
func TestLoadsAModule(t *testing.T) {
	l := load(t, filepath.Join(testdata.Open(t, "torchsave"), "statedict.pt"))
	state, err := l.StateDict()
	require.NoError(t, err)
	m := nn.NewSequential(nn.NewLinear(3, 4), nn.NewBatchNorm1d(4))
	require.NoError(t, nn.LoadStateDict(m, state))
	n := 0
	own := map[string]*torch.Tensor{}
	for name, x := range nn.StateDict(m) {
		own[name] = x
	}
	for name, x := range state {
		require.Equal(t, x.Bytes(), own[name].Detach().Bytes(), name)
		n++
	}
	require.Len(t, own, n)
}
