package pretrained

import (
	"math"
	"strings"

	"github.com/torchgo/torchgo/torch"
	"github.com/torchgo/torchgo/torch/nn"
	"github.com/torchgo/torchgo/torch/nn/nninit"
)

// layer gives a layer of package nn its first values: those of transformers' _init_weights, and for kinds that
// this has no rule for, PyTorch's.
func (in *Init) layer(module any) {
	switch l := module.(type) {
	case *nn.Linear:
		in.normalAll(l.Weight, l.Bias)
	case *nn.Conv1d:
		in.normalAll(l.Weight, l.Bias)
	case *nn.Conv2d:
		in.normalAll(l.Weight, l.Bias)
	case *nn.Conv3d:
		in.normalAll(l.Weight, l.Bias)
	case *nn.ConvTranspose1d:
		in.normalAll(l.Weight, l.Bias)
	case *nn.ConvTranspose2d:
		in.normalAll(l.Weight, l.Bias)
	case *nn.ConvTranspose3d:
		in.normalAll(l.Weight, l.Bias)
	case *nn.Embedding:
		for _, s := range nn.Slots(l.Weight) {
			in.rows(s.Tensor(), in.Std, l.PaddingIdx)
		}
	case *nn.EmbeddingBag:
		in.rows(l.Weight, 1, l.Options.PaddingIdx.Or(-1))
	case *nn.BatchNorm1d:
		in.norm(&l.BatchNorm)
	case *nn.BatchNorm2d:
		in.norm(&l.BatchNorm)
	case *nn.BatchNorm3d:
		in.norm(&l.BatchNorm)
	case *nn.InstanceNorm1d:
		in.norm(&l.BatchNorm)
	case *nn.InstanceNorm2d:
		in.norm(&l.BatchNorm)
	case *nn.InstanceNorm3d:
		in.norm(&l.BatchNorm)
	case *nn.GroupNorm:
		in.Fill(l.Weight, 1)
		in.Fill(l.Bias, 0)
	case *nn.LayerNorm:
		in.Fill(l.Weight, 1)
		in.Fill(l.Bias, 0)
	case *nn.RMSNorm:
		in.Fill(l.Weight, 1)
	case *nn.MultiheadAttention:
		for _, w := range []*torch.Tensor{l.InProjWeight, l.QProjWeight, l.KProjWeight, l.VProjWeight} {
			in.Set(w, func() { nninit.XavierUniform_(w) })
		}
		in.Fill(l.InProjBias, 0)
		in.Set(l.BiasK, func() { nninit.XavierNormal_(l.BiasK) })
		in.Set(l.BiasV, func() { nninit.XavierNormal_(l.BiasV) })
	case *nn.LSTM:
		for _, s := range nn.Slots(l) {
			t := s.Tensor()
			if strings.HasPrefix(s.Name, "bias") {
				in.Fill(t, 0)
			} else {
				in.Set(t, func() { nninit.XavierUniform_(t) })
			}
		}
	case *nn.RNN:
		in.uniformAll(l, l.HiddenSize)
	case *nn.GRU:
		in.uniformAll(l, l.HiddenSize)
	case *nn.RNNCell:
		in.uniformAll(l, l.WeightHH.Size(1))
	case *nn.GRUCell:
		in.uniformAll(l, l.WeightHH.Size(1))
	case *nn.LSTMCell:
		in.uniformAll(l, l.WeightHH.Size(1))
	case *nn.Bilinear:
		in.uniformAll(l, l.Weight.Size(1))
	case *nn.PReLU:
		in.Fill(l.Weight, 0.25)
	}
}

// normalAll is the rule of layers with a matrix or a kernel. A weight that is computed (weight norm, say) has
// tensors of its own.
func (in *Init) normalAll(weight any, bias *torch.Tensor) {
	for _, s := range nn.Slots(weight) {
		in.Normal(s.Tensor())
	}
	in.Fill(bias, 0)
}

// rows is the rule of tables, whose row for padding is zero.
func (in *Init) rows(t *torch.Tensor, std float64, padding int) {
	in.Set(t, func() {
		t.Normal_(torch.NormalInPlaceOptions{Std: torch.Some(std)})
		if padding >= 0 {
			t.Select(0, padding).Zero_()
		}
	})
}

func (in *Init) norm(l *nn.BatchNorm) {
	in.Fill(l.Weight, 1)
	in.Fill(l.Bias, 0)
	in.Fill(l.RunningMean, 0)
	in.Fill(l.RunningVar, 1)
	in.Fill(l.NumBatchesTracked, 0)
}

// uniformAll draws all tensors of m from U(-1/√n, 1/√n).
func (in *Init) uniformAll(m any, n int) {
	bound := 1 / math.Sqrt(float64(max(n, 1)))
	for _, s := range nn.Slots(m) {
		in.Set(s.Tensor(), func() { nninit.Uniform_(s.Tensor(), -bound, bound) })
	}
}
