package pretrained_test

import (
	"encoding/json"
	"maps"
	"math"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/torchgo/torchgo/internal/testdata"
	"github.com/torchgo/torchgo/pretrained"
	"github.com/torchgo/torchgo/pretrained/peft"
	"github.com/torchgo/torchgo/torch"
	"github.com/torchgo/torchgo/torch/nn"
	"github.com/torchgo/torchgo/torch/optim"
)

// trainingRun is what peft recorded of 20 steps in float64.
type trainingRun struct {
	Case, Base  string
	LR          float64
	WeightDecay float64 `json:"weight_decay"`
	Data        []struct {
		InputIDs      [][]int64       `json:"input_ids"`
		AttentionMask [][]int64       `json:"attention_mask"`
		Labels        json.RawMessage // a number a sequence, or a token
	}
	Losses    []float64
	GradNorms []float64 `json:"grad_norms"`
	Trainable []string
}

func matrixOf(rows [][]int64) *torch.Tensor {
	var all []int64
	for _, r := range rows {
		all = append(all, r...)
	}
	return torch.FromSlice(all, len(rows), len(rows[0]))
}

// inputs is the batch of a step.
func (r *trainingRun) inputs(t *testing.T, step int) pretrained.Inputs {
	d := r.Data[step]
	named := map[string]*torch.Tensor{"input_ids": matrixOf(d.InputIDs), "attention_mask": matrixOf(d.AttentionMask)}
	var each [][]int64
	var one []int64
	if json.Unmarshal(d.Labels, &each) == nil {
		named["labels"] = matrixOf(each)
	} else {
		require.NoError(t, json.Unmarshal(d.Labels, &one))
		named["labels"] = torch.FromSlice(one, len(one))
	}
	in, err := pretrained.NewInputs(named)
	require.NoError(t, err)
	return in
}

// TestTrainingAdaptersAsInPeft: 20 steps of AdamW from an adapter that peft saved: losses, gradients and the adapter at
// the end are peft's. The model is float64; Llama's norms and rotary angles are float32 in Python and here.
func TestTrainingAdaptersAsInPeft(t *testing.T) {
	dir := testdata.Open(t, "peft")
	data, err := os.ReadFile(filepath.Join(dir, "training.json"))
	require.NoError(t, err)
	var runs []trainingRun
	require.NoError(t, json.Unmarshal(data, &runs))
	require.Len(t, runs, 6)
	for _, r := range runs {
		t.Run(r.Case, func(t *testing.T) { r.check(t, dir) })
	}
}

func (r *trainingRun) check(t *testing.T, dir string) {
	require.Len(t, r.Losses, 20)
	opts := pretrained.Options{DType: torch.Float64, Attn: nn.Eager}
	if filepath.Base(r.Base)[:4] == "bert" {
		opts.Config = map[string]any{"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
	}
	m, _ := load(t, baseDir(t, r.Base), opts)
	config, err := peft.ReadConfig(filepath.Join(dir, "adapters", r.Case))
	require.NoError(t, err)
	config.LoraDropout = 0
	start, err := pretrained.LoadFile(ctx, filepath.Join(dir, "adapters", r.Case, "adapter_model.safetensors"))
	require.NoError(t, err)
	_, err = m.LoadAdapter(ctx, "", pretrained.LoadAdapterOptions{Config: config, StateDict: maps.All(start), IsTrainable: true, Strict: true})
	require.NoError(t, err)
	m.Train()
	own := map[string]string{}
	var trained []*torch.Tensor
	for _, p := range nn.Parameters(m) {
		if p.RequiresGrad() {
			require.Equal(t, torch.Float64, p.DType())
			trained = append(trained, p)
		}
	}
	require.Len(t, trained, len(r.Trainable))
	for name, p := range nn.StateDict(m) {
		if !p.RequiresGrad() {
			own[name] = string(p.Bytes())
		}
	}
	opt := optim.NewAdamW(trained, optim.AdamWOptions{LR: r.LR, WeightDecay: torch.Some(r.WeightDecay)})
	defer opt.Close()
	const tolerance = 1e-6
	for step := range r.Losses {
		torch.Scope(func() {
			opt.ZeroGrad()
			loss := m.Forward(r.inputs(t, step)).Loss
			loss.Backward()
			norm := 0.0
			for _, p := range trained {
				norm += torch.Item[float64](p.Grad().Square().Sum())
			}
			require.InEpsilon(t, r.Losses[step], torch.Item[float64](loss.Detach()), tolerance, "loss of step %d", step)
			require.InEpsilon(t, r.GradNorms[step], math.Sqrt(norm), tolerance*10, "gradients of step %d", step)
			opt.Step()
		})
	}
	want, err := pretrained.LoadFile(ctx, filepath.Join(dir, "training", r.Case+".safetensors"))
	require.NoError(t, err)
	got, err := m.GetAdapterStateDict("")
	require.NoError(t, err)
	require.Len(t, got, len(want))
	for name, w := range want {
		x := got[name[len("base_model.model."):]]
		require.NotNil(t, x, name)
		require.LessOrEqual(t, far(t, w, x), 1e-5, name)
	}
	for name, p := range nn.StateDict(m) {
		if text, ok := own[name]; ok {
			require.Equal(t, text, string(p.Bytes()), "%s is not trained", name)
		}
	}
}
