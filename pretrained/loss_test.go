package pretrained_test

import (
	"encoding/json"
	"math"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/torchgo/torchgo/internal/testdata"
	"github.com/torchgo/torchgo/pretrained"
	"github.com/torchgo/torchgo/pretrained/internal/modeltest"
	"github.com/torchgo/torchgo/torch"
)

// The losses of LOSS_MAPPING: shifted, weighted by num_items_in_batch, with all labels ignored, in half precision.
func TestLossesAreTransformers(t *testing.T) {
	var ref []struct {
		Kind, DType, Problem string
		Args                 []modeltest.Value
		NumItemsInBatch      int              `json:"num_items_in_batch"`
		ShiftLabels          *modeltest.Value `json:"shift_labels"`
		Loss                 json.RawMessage
		LossDType            string `json:"loss_dtype"`
	}
	data, err := os.ReadFile(filepath.Join(testdata.Open(t, "llama"), "losses.json"))
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal(data, &ref))
	require.Len(t, ref, 90)
	nans := 0
	for i, c := range ref {
		dtype, err := torch.ParseDType(c.DType)
		require.NoError(t, err)
		args := make([]*torch.Tensor, len(c.Args))
		for i, v := range c.Args {
			if args[i] = v.Tensor(t); args[i].DType().IsFloatingPoint() {
				args[i] = args[i].ToDType(dtype)
			}
		}
		o := pretrained.LossOptions{NumItemsInBatch: c.NumItemsInBatch}
		if c.ShiftLabels != nil {
			o.ShiftLabels = c.ShiftLabels.Tensor(t)
		}
		var loss *torch.Tensor
		switch c.Kind {
		case "ForCausalLM":
			loss = pretrained.CausalLMLoss(args[0], args[1], o)
		case "ForMaskedLM":
			loss = pretrained.MaskedLMLoss(args[0], args[1], o)
		case "ForTokenClassification":
			loss = pretrained.TokenLoss(args[0], args[1], o)
		case "ForSequenceClassification":
			loss = pretrained.SequenceLoss(args[0], args[1], c.Problem)
		case "ForQuestionAnswering":
			loss = pretrained.SpanLoss(args[0], args[1], args[2], args[3], o)
		default:
			t.Fatal(c.Kind)
		}
		require.Equal(t, c.LossDType, loss.DType().String(), "%d: %s", i, c.Kind)
		require.Zero(t, loss.Dim())
		got := float64(torch.Item[float32](loss.ToDType(torch.Float32)))
		if string(c.Loss) == `"NaN"` {
			require.True(t, math.IsNaN(got), "%d: %s", i, c.Kind)
			nans++
			continue
		}
		var want modeltest.Value
		require.NoError(t, json.Unmarshal(c.Loss, &want))
		require.InDelta(t, want.Data[0], got, 1e-6*(1+math.Abs(want.Data[0])), "%d: %s %s", i, c.Kind, c.DType)
	}
	require.Equal(t, 12, nans, "of no labels, or positions in the sequence, the mean is not a number")
}
