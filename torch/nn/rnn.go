package nn

import (
	"fmt"
	"math"

	"github.com/torchgo/torchgo/torch"
)

// RNNBase is what RNN, LSTM and GRU have in common. Letters: T steps, B batch, I input size, H hidden size (the
// projection's, if there is one), L layers, D directions (2 if bidirectional).
//
// The parameters are, for layer k and direction after direction, weight_ih_l{k} (G·H, I or D·H),
// weight_hh_l{k} (G·H, H), bias_ih_l{k}, bias_hh_l{k} (G·H) and weight_hr_l{k} (projection, H), G being the number
// of gates; the names of the backward direction end in _reverse.
type RNNBase struct {
	Hooks
	Mode

	Params *ParameterDict `torch:",inline"`

	InputSize, HiddenSize, NumLayers int
	ProjSize                         int // of an LSTM: h is projected to this size; 0: not
	Bias, BatchFirst, Bidirectional  bool
	Dropout                          float64 // between layers, in training mode

	kind rnnKind
}

// rnnKind is a kind of recurrence.
type rnnKind struct {
	name  string
	gates int
	// padded and packed are the operators; an LSTM has none here.
	padded func(x, h *torch.Tensor, params []*torch.Tensor, bias bool, layers int, dropout float64, train, bidirectional, batchFirst bool) (*torch.Tensor, *torch.Tensor)
	packed func(data, batchSizes, h *torch.Tensor, params []*torch.Tensor, bias bool, layers int, dropout float64, train, bidirectional bool) (*torch.Tensor, *torch.Tensor)
}

// RNNOptions are the optional arguments of NewRNN, NewLSTM and NewGRU.
type RNNOptions struct {
	NumLayers     torch.Opt[int]  // default: 1
	Bias          torch.Opt[bool] // default: true
	BatchFirst    bool            // inputs and outputs are (B, T, …), not (T, B, …); states are (L·D, B, …) always
	Dropout       float64         // of the outputs of all layers but the last, in training mode
	Bidirectional bool
	ProjSize      int    // of an LSTM: h is projected to this size; 0: not
	Nonlinearity  string // of an RNN: "tanh" (the default) or "relu"
}

// RNN is a layered Elman network: h' = tanh(W_ih x + b_ih + W_hh h + b_hh), or relu.
type RNN struct{ RNNBase }

// LSTM is a layered long short-term memory:
//
//	i, f, o = σ(W x + b + U h + d), one each;  g = tanh(W x + b + U h + d)
//	c' = f ⊙ c + i ⊙ g;  h' = o ⊙ tanh(c'), times W_hr where it is projected
//
// The weights hold the gates in the order i, f, g, o.
//
// Source: Sak et al., https://arxiv.org/abs/1402.1128 (with projection).
type LSTM struct{ RNNBase }

// GRU is a layered gated recurrent unit:
//
//	r, z = σ(W x + b + U h + d), one each;  n = tanh(W x + b + r ⊙ (U h + d));  h' = (1-z) ⊙ n + z ⊙ h
//
// The weights hold the gates in the order r, z, n.
//
// Source: Cho et al., https://arxiv.org/abs/1406.1078.
type GRU struct{ RNNBase }

// NewRNN makes a float32 network on the CPU, initialised as PyTorch's nn.RNN.
func NewRNN(input, hidden int, opts ...RNNOptions) *RNN { return Builder{}.RNN(input, hidden, opts...) }

// NewLSTM makes a float32 network on the CPU, initialised as PyTorch's nn.LSTM.
func NewLSTM(input, hidden int, opts ...RNNOptions) *LSTM {
	return Builder{}.LSTM(input, hidden, opts...)
}

// NewGRU makes a float32 network on the CPU, initialised as PyTorch's nn.GRU.
func NewGRU(input, hidden int, opts ...RNNOptions) *GRU { return Builder{}.GRU(input, hidden, opts...) }

// RNN makes a layered Elman network.
func (b Builder) RNN(input, hidden int, opts ...RNNOptions) *RNN {
	o := first(opts)
	kind := rnnKind{name: "rnn", gates: 1, padded: torch.RnnTanh, packed: torch.RnnTanhData}
	switch o.Nonlinearity {
	case "", "tanh":
	case "relu":
		kind.padded, kind.packed = torch.RnnRelu, torch.RnnReluData
	default:
		fail("rnn", "Unknown nonlinearity '%s'. Select from 'tanh' or 'relu'.", o.Nonlinearity)
	}
	n := &RNN{}
	b.rnn(&n.RNNBase, kind, input, hidden, o)
	return n
}

// LSTM makes a layered LSTM.
func (b Builder) LSTM(input, hidden int, opts ...RNNOptions) *LSTM {
	n := &LSTM{}
	b.rnn(&n.RNNBase, rnnKind{name: "lstm", gates: 4}, input, hidden, first(opts))
	return n
}

// GRU makes a layered GRU.
func (b Builder) GRU(input, hidden int, opts ...RNNOptions) *GRU {
	n := &GRU{}
	b.rnn(&n.RNNBase, rnnKind{name: "gru", gates: 3, padded: torch.Gru, packed: torch.GruData}, input, hidden, first(opts))
	return n
}

func (b Builder) rnn(n *RNNBase, kind rnnKind, input, hidden int, o RNNOptions) {
	n.kind, n.InputSize, n.HiddenSize, n.NumLayers, n.ProjSize = kind, input, hidden, o.NumLayers.Or(1), o.ProjSize
	n.Bias, n.BatchFirst, n.Bidirectional, n.Dropout = o.Bias.Or(true), o.BatchFirst, o.Bidirectional, o.Dropout
	switch {
	case input <= 0:
		fail(kind.name, "input_size must be greater than zero")
	case hidden <= 0:
		fail(kind.name, "hidden_size must be greater than zero")
	case n.NumLayers <= 0:
		fail(kind.name, "num_layers must be greater than zero")
	case n.ProjSize < 0:
		fail(kind.name, "proj_size should be a positive integer or zero to disable projections")
	case n.ProjSize > 0 && kind.gates != 4:
		fail(kind.name, "proj_size argument is only supported for LSTM, not RNN or GRU")
	case n.ProjSize >= hidden:
		fail(kind.name, "proj_size has to be smaller than hidden_size")
	case !(n.Dropout >= 0 && n.Dropout <= 1):
		fail(kind.name, "dropout should be a number in range [0, 1] representing the probability of an element being zeroed")
	}
	n.Params = NewParameterDict()
	gates := kind.gates * hidden
	for layer := range n.NumLayers {
		in := input
		if layer > 0 {
			in = n.outputSize() * n.directions()
		}
		for direction := range n.directions() {
			suffix := fmt.Sprintf("_l%d%s", layer, []string{"", "_reverse"}[direction])
			n.Params.Set("weight_ih"+suffix, b.Parameter(gates, in))
			n.Params.Set("weight_hh"+suffix, b.Parameter(gates, n.outputSize()))
			if n.Bias {
				n.Params.Set("bias_ih"+suffix, b.Parameter(gates))
				n.Params.Set("bias_hh"+suffix, b.Parameter(gates))
			}
			if n.ProjSize > 0 {
				n.Params.Set("weight_hr"+suffix, b.Parameter(n.ProjSize, hidden))
			}
		}
	}
	b.init(func() { uniformAll(1/math.Sqrt(float64(hidden)), n.Params.values...) })
}

func (n *RNNBase) directions() int {
	if n.Bidirectional {
		return 2
	}
	return 1
}

// outputSize is the size of h.
func (n *RNNBase) outputSize() int {
	if n.ProjSize > 0 {
		return n.ProjSize
	}
	return n.HiddenSize
}

// steps is a sequence, padded or packed, with what its state has to look like.
type steps struct {
	data       *torch.Tensor
	batchSizes *torch.Tensor // nil: padded
	single     bool          // without a batch dimension
	batch      int
}

// padded checks a padded input, (T, B, I), (B, T, I) or (T, I).
func (n *RNNBase) padded(x *torch.Tensor) steps {
	shape := x.Shape()
	if len(shape) != 2 && len(shape) != 3 {
		fail(n.kind.name, "Expected input to be 2D or 3D, got %dD instead", len(shape))
	}
	n.checkInput(shape[len(shape)-1])
	if len(shape) == 2 {
		return steps{data: x.Unsqueeze(n.batchDim()), single: true, batch: 1}
	}
	return steps{data: x, batch: shape[n.batchDim()]}
}

func (n *RNNBase) batchDim() int {
	if n.BatchFirst {
		return 0
	}
	return 1
}

func (n *RNNBase) checkInput(size int) {
	if size != n.InputSize {
		fail(n.kind.name, "input.size(-1) must be equal to input_size. Expected %d, got %d", n.InputSize, size)
	}
}

func (n *RNNBase) packedSteps(p PackedSequence) steps {
	n.checkInput(p.Data.Size(-1))
	return steps{data: p.Data, batchSizes: p.BatchSizes, batch: int(torch.Item[int64](p.BatchSizes.Select(0, 0)))}
}

// state is h of the given size as the operator takes it: zeros for nil.
func (n *RNNBase) state(s steps, h *torch.Tensor, size int, what string) *torch.Tensor {
	want := []int{n.NumLayers * n.directions(), s.batch, size}
	if h == nil {
		return torch.Zeros(want, torch.TensorOptions{DType: s.data.DType(), Device: s.data.Device()})
	}
	if s.single {
		if h.Dim() != 2 {
			fail(n.kind.name, "For unbatched 2-D input, hx should also be 2-D but got %d-D tensor", h.Dim())
		}
		h = h.Unsqueeze(1)
	}
	shape := h.Shape()
	if len(shape) != 3 {
		fail(n.kind.name, "For batched 3-D input, hx should also be 3-D but got %d-D tensor", len(shape))
	}
	for i := range want {
		if shape[i] != want[i] {
			fail(n.kind.name, "Expected hidden%s size (%d, %d, %d), got %v", what, want[0], want[1], want[2], shape)
		}
	}
	return h
}

// step runs an RNN or GRU.
func (n *RNNBase) step(s steps, h *torch.Tensor) (y, hn *torch.Tensor) {
	h = n.state(s, h, n.HiddenSize, "")
	if s.batchSizes == nil {
		y, hn = n.kind.padded(s.data, h, n.Params.values, n.Bias, n.NumLayers, n.Dropout, n.Training(), n.Bidirectional, n.BatchFirst)
	} else {
		y, hn = n.kind.packed(s.data, s.batchSizes, h, n.Params.values, n.Bias, n.NumLayers, n.Dropout, n.Training(), n.Bidirectional)
	}
	if s.single {
		y, hn = y.SqueezeDim(n.batchDim()), hn.SqueezeDim(1)
	}
	return y, hn
}

func (n *RNNBase) forward(x, h *torch.Tensor) (y, hn *torch.Tensor) {
	out := n.CallAll([]*torch.Tensor{x, h}, func(in []*torch.Tensor) []*torch.Tensor {
		y, hn := n.step(n.padded(in[0]), in[1])
		return []*torch.Tensor{y, hn}
	})
	return out[0], out[1]
}

func (n *RNNBase) forwardPacked(p PackedSequence, h *torch.Tensor) (PackedSequence, *torch.Tensor) {
	out := n.CallAll([]*torch.Tensor{p.Data, h}, func(in []*torch.Tensor) []*torch.Tensor {
		q := p
		q.Data = in[0]
		y, hn := n.step(n.packedSteps(q), p.sorted(in[1]))
		return []*torch.Tensor{y, p.unsorted(hn)}
	})
	p.Data = out[0]
	return p, out[1]
}

// Forward maps a sequence (T, B, I), (B, T, I) with BatchFirst, or (T, I), and the state (L·D, B, H) or (L·D, H) it
// starts from, nil for zeros, to the last layer's states (T, B, D·H), shaped like the input, and every layer's last.
func (n *RNN) Forward(x, h *torch.Tensor) (y, hn *torch.Tensor) { return n.forward(x, h) }

// ForwardPacked is Forward for a packed sequence.
func (n *RNN) ForwardPacked(p PackedSequence, h *torch.Tensor) (y PackedSequence, hn *torch.Tensor) {
	return n.forwardPacked(p, h)
}

// Forward maps a sequence (T, B, I), (B, T, I) with BatchFirst, or (T, I), and the state (L·D, B, H) or (L·D, H) it
// starts from, nil for zeros, to the last layer's states (T, B, D·H), shaped like the input, and every layer's last.
func (n *GRU) Forward(x, h *torch.Tensor) (y, hn *torch.Tensor) { return n.forward(x, h) }

// ForwardPacked is Forward for a packed sequence.
func (n *GRU) ForwardPacked(p PackedSequence, h *torch.Tensor) (y PackedSequence, hn *torch.Tensor) {
	return n.forwardPacked(p, h)
}

// Forward maps a sequence (T, B, I), (B, T, I) with BatchFirst, or (T, I), and the states h (L·D, B, H) and c
// (L·D, B, HiddenSize) it starts from, nil for zeros, to the last layer's h (T, B, D·H), shaped like the input, and
// every layer's last h and c. (Without a batch the states lack B.)
func (n *LSTM) Forward(x, h, c *torch.Tensor) (y, hn, cn *torch.Tensor) {
	out := n.CallAll([]*torch.Tensor{x, h, c}, func(in []*torch.Tensor) []*torch.Tensor {
		return n.step(n.padded(in[0]), in[1], in[2])
	})
	return out[0], out[1], out[2]
}

// ForwardPacked is Forward for a packed sequence.
func (n *LSTM) ForwardPacked(p PackedSequence, h, c *torch.Tensor) (y PackedSequence, hn, cn *torch.Tensor) {
	out := n.CallAll([]*torch.Tensor{p.Data, h, c}, func(in []*torch.Tensor) []*torch.Tensor {
		q := p
		q.Data = in[0]
		out := n.step(n.packedSteps(q), p.sorted(in[1]), p.sorted(in[2]))
		out[1], out[2] = p.unsorted(out[1]), p.unsorted(out[2])
		return out
	})
	p.Data = out[0]
	return p, out[1], out[2]
}

func (n *LSTM) step(s steps, h, c *torch.Tensor) []*torch.Tensor {
	if (h == nil) != (c == nil) {
		fail("lstm", "expected both states or none")
	}
	hx := []*torch.Tensor{n.state(s, h, n.outputSize(), "[0]"), n.state(s, c, n.HiddenSize, "[1]")}
	var y, hn, cn *torch.Tensor
	if s.batchSizes == nil {
		y, hn, cn = torch.Lstm(s.data, hx, n.Params.values, n.Bias, n.NumLayers, n.Dropout, n.Training(), n.Bidirectional, n.BatchFirst)
	} else {
		y, hn, cn = torch.LstmData(s.data, s.batchSizes, hx, n.Params.values, n.Bias, n.NumLayers, n.Dropout, n.Training(), n.Bidirectional)
	}
	if s.single {
		y, hn, cn = y.SqueezeDim(n.batchDim()), hn.SqueezeDim(1), cn.SqueezeDim(1)
	}
	return []*torch.Tensor{y, hn, cn}
}

// ExtraRepr is what PyTorch prints in the parentheses.
func (n *RNNBase) ExtraRepr() string {
	s := itoa(n.InputSize) + ", " + itoa(n.HiddenSize)
	for _, part := range []struct {
		show bool
		text string
	}{
		{n.ProjSize > 0, "proj_size=" + itoa(n.ProjSize)}, {n.NumLayers != 1, "num_layers=" + itoa(n.NumLayers)},
		{!n.Bias, "bias=False"}, {n.BatchFirst, "batch_first=True"}, {n.Dropout != 0, "dropout=" + number(n.Dropout)},
		{n.Bidirectional, "bidirectional=True"},
	} {
		if part.show {
			s += ", " + part.text
		}
	}
	return s
}
