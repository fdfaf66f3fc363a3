package bert_test

import (
	"context"
	"path/filepath"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/torchgo/torchgo/internal/testdata"
	"github.com/torchgo/torchgo/pretrained"
	"github.com/torchgo/torchgo/pretrained/internal/modeltest"
	_ "github.com/torchgo/torchgo/pretrained/models/bert"
	"github.com/torchgo/torchgo/torch"
	"github.com/torchgo/torchgo/torch/nn"
)

func TestReferenceCases(t *testing.T) {
	for group, n := range map[string]int{"models-bert": 6, "bert-heads": 10, "bert-attentions": 1} {
		modeltest.RunAll(t, modeltest.Cases(t, group, n))
	}
}

// A model is read only in evaluation mode: goroutines share it.
func TestConcurrentInference(t *testing.T) {
	dir := filepath.Join(testdata.Open(t, "models-bert"), "bert")
	m, _, err := pretrained.Load(context.Background(), dir, pretrained.Options{})
	require.NoError(t, err)
	defer m.Close()
	ids := torch.FromSlice([]int64{5, 6, 7, 8, 9, 10, 11, 12}, 2, 4)
	forward := func() (values []float32) {
		torch.Inference(func() { values = torch.ToSlice[float32](m.Forward(pretrained.Inputs{InputIDs: ids}).PoolerOutput) })
		return values
	}
	want, live := forward(), torch.LiveTensors()
	var wg sync.WaitGroup
	results := make([][]float32, 64)
	for i := range results {
		wg.Go(func() {
			for range 5 {
				results[i] = forward()
			}
		})
	}
	wg.Wait()
	for _, got := range results {
		require.Equal(t, want, got)
	}
	require.Equal(t, live, torch.LiveTensors())
}

// The whole forward pass keeps the model's dtype, and comes near the float32 one.
func TestHalfPrecision(t *testing.T) {
	dir := filepath.Join(testdata.Open(t, "models-bert"), "bert")
	ref := modeltest.Read(t, dir)
	want := ref.Want["pooler_output"]
	for _, dtype := range []torch.DType{torch.BFloat16, torch.Float16, torch.Float64} {
		for _, attn := range []nn.AttentionKind{nn.SDPA, nn.Eager} {
			m, _, err := pretrained.Load(context.Background(), dir, pretrained.Options{DType: dtype, Attn: attn})
			require.NoError(t, err)
			out := torch.InferenceOf(func() *pretrained.Output { return m.Forward(ref.Tensors(t, false)) })
			require.Equal(t, dtype, out.PoolerOutput.DType())
			for i, v := range torch.ToSlice[float32](out.PoolerOutput.ToDType(torch.Float32)) {
				require.InDelta(t, want[i], v, 0.06, "%v %s", dtype, attn)
			}
			m.Close()
		}
	}
}

func TestDropoutWorksInTrainingOnly(t *testing.T) {
	dir := filepath.Join(testdata.Open(t, "models-bert"), "bert-seqcls")
	m, _, err := pretrained.Load(context.Background(), dir, pretrained.Options{})
	require.NoError(t, err)
	defer m.Close()
	ids := torch.FromSlice([]int64{5, 6, 7, 8}, 1, 4)
	logits := func() []float32 { return torch.ToSlice[float32](m.Forward(pretrained.Inputs{InputIDs: ids}).Logits) }
	first := logits()
	require.Equal(t, first, logits())
	nn.Train(m)
	torch.ManualSeed(1)
	require.NotEqual(t, first, logits())
	nn.Eval(m)
	require.Equal(t, first, logits())
}

func TestBadInputsAreTypedErrors(t *testing.T) {
	dir := filepath.Join(testdata.Open(t, "models-bert"), "bert")
	m, _, err := pretrained.Load(context.Background(), dir, pretrained.Options{})
	require.NoError(t, err)
	defer m.Close()
	ids := torch.FromSlice([]int64{5, 6, 7, 8}, 1, 4)
	for text, in := range map[string]pretrained.Inputs{
		"exactly one of input_ids and inputs_embeds": {},
		"exactly one of":                                       {InputIDs: ids, InputsEmbeds: torch.Zeros([]int{1, 4, 32})},
		"expected 2 dimensions, got shape [4]":                 {InputIDs: ids.View(-1)},
		"longer than the model's 64 positions":                 {InputIDs: torch.Zeros([]int{1, 65}, torch.TensorOptions{DType: torch.Int64})},
		"expected an attention_mask of shape [1 4], got [1 3]": {InputIDs: ids, AttentionMask: torch.Ones([]int{1, 3})},
		"index out of range":                                   {InputIDs: torch.FromSlice([]int64{96}, 1, 1)},
	} {
		err := torch.TryDo(func() { m.Forward(in) })
		var te *torch.Error
		require.ErrorAs(t, err, &te, text)
		require.ErrorContains(t, err, text)
	}
	_, err = pretrained.NewInputs(map[string]*torch.Tensor{"input_idz": ids})
	require.ErrorContains(t, err, `input: expected one of input_ids,`)
}
