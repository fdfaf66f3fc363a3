package models_test

import (
	"encoding/json"
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/torchgo/torchgo/bench/models"
	"github.com/torchgo/torchgo/internal/testdata"
	"github.com/torchgo/torchgo/torch"
	"github.com/torchgo/torchgo/torch/nn"
)

// tolerance is how far a loss may be from Python's, relatively.
var tolerance = map[torch.DType]float64{torch.Float64: 1e-9, torch.Float32: 1e-4}

// recorded is a run of tools/trainref/trainref.py.
type recorded struct {
	Model  string
	DType  string
	Env    map[string]string // what the libraries read when they are loaded
	Losses []float64
}

func runs(t *testing.T) (all []recorded) {
	text, err := os.ReadFile(filepath.Join(testdata.Open(t, "training"), "training.json"))
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal(text, &all))
	return all
}

// child is the environment variable that tells a process of this test which run it is.
const child = "TORCHGO_TEST_TRAINING"

// TestTrainingFollowsPython trains each model for 100 steps. The environment of a run has to be there
// before libtorch is loaded, so each has a process of its own.
func TestTrainingFollowsPython(t *testing.T) {
	if os.Getenv(child) != "" {
		t.Skip("this is the process of one run")
	}
	all := runs(t)
	for name := range models.Cases {
		for dtype := range tolerance {
			require.True(t, slices.ContainsFunc(all, func(r recorded) bool {
				return r.Model == name && r.DType == dtype.String() && len(r.Losses) == 100
			}), "no record of %s in %v", name, dtype)
		}
	}
	for i, r := range all {
		t.Run(r.Model+"/"+r.DType, func(t *testing.T) {
			if testing.Short() && r.Model == "resnet18" {
				t.Skip("takes up to a minute")
			}
			t.Parallel()
			cmd := exec.Command(os.Args[0], "-test.run=^TestOneRun$", "-test.count=1")
			cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%d", child, i), "TORCHGO_DEVICE=cpu")
			for k, v := range r.Env {
				cmd.Env = append(cmd.Env, k+"="+v)
			}
			out, err := cmd.CombinedOutput()
			require.NoError(t, err, "%s", out)
			line, _, _ := strings.Cut(string(out), "\n")
			require.Contains(t, line, "100 steps followed")
			t.Log(line)
		})
	}
}

// TestOneRun is the child's part.
func TestOneRun(t *testing.T) {
	if os.Getenv(child) == "" {
		t.Skip("runs in the processes of TestTrainingFollowsPython")
	}
	runtime.LockOSThread()
	var i int
	_, err := fmt.Sscan(os.Getenv(child), &i)
	require.NoError(t, err)
	r := runs(t)[i]
	dtype, err := torch.ParseDType(r.DType)
	require.NoError(t, err)
	worst := 0.0
	for step, loss := range train(models.Cases[r.Model], dtype, len(r.Losses)) {
		off := math.Abs(loss-r.Losses[step]) / r.Losses[step]
		require.LessOrEqual(t, off, tolerance[dtype], "step %d: loss %v, Python's %v", step, loss, r.Losses[step])
		worst = max(worst, off)
	}
	fmt.Printf("%s in %s: 100 steps followed, at most %.1e apart\n", r.Model, r.DType, worst)
}

// train gives the loss before each step.
func train(c models.Case, dtype torch.DType, steps int) (losses []float64) {
	model := c.Build()
	nn.To(model, torch.Device{}, dtype) // before Fill: half of the weights are no float32
	models.Fill(model)
	nn.Train(model)
	opt := c.Optimizer(nn.Parameters(model))
	defer opt.Close()
	for step := range steps {
		torch.Scope(func() {
			x, y := c.Data(step)
			if x.DType().IsFloatingPoint() {
				x = x.ToDType(dtype)
			}
			losses = append(losses, models.Step(model, opt, x, y))
		})
	}
	return losses
}
