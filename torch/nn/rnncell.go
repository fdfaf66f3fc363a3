package nn

import (
	"math"

	"github.com/torchgo/torchgo/torch"
)

// RNNCellBase is what RNNCell, LSTMCell and GRUCell have in common: one step of one layer.
type RNNCellBase struct {
	Hooks

	WeightIH *torch.Tensor `torch:"weight_ih"` // (gates·H, I)
	WeightHH *torch.Tensor `torch:"weight_hh"` // (gates·H, H)
	BiasIH   *torch.Tensor `torch:"bias_ih"`   // (gates·H), nil: none
	BiasHH   *torch.Tensor `torch:"bias_hh"`   // (gates·H), nil: none

	InputSize, HiddenSize int

	relu bool
}

// RNNCell is h' = tanh(W_ih x + b_ih + W_hh h + b_hh), or relu.
type RNNCell struct{ RNNCellBase }

// LSTMCell is one step of an LSTM.
type LSTMCell struct{ RNNCellBase }

// GRUCell is one step of a GRU.
type GRUCell struct{ RNNCellBase }

// RNNCellOptions are the optional arguments of NewRNNCell, NewLSTMCell and NewGRUCell.
type RNNCellOptions struct {
	Bias         torch.Opt[bool] // default: true
	Nonlinearity string          // of an RNNCell: "tanh" (the default) or "relu"
}

// NewRNNCell makes a float32 cell on the CPU, initialised as PyTorch's nn.RNNCell.
func NewRNNCell(input, hidden int, opts ...RNNCellOptions) *RNNCell {
	return Builder{}.RNNCell(input, hidden, opts...)
}

// NewLSTMCell makes a float32 cell on the CPU, initialised as PyTorch's nn.LSTMCell.
func NewLSTMCell(input, hidden int, opts ...RNNCellOptions) *LSTMCell {
	return Builder{}.LSTMCell(input, hidden, opts...)
}

// NewGRUCell makes a float32 cell on the CPU, initialised as PyTorch's nn.GRUCell.
func NewGRUCell(input, hidden int, opts ...RNNCellOptions) *GRUCell {
	return Builder{}.GRUCell(input, hidden, opts...)
}

// RNNCell makes one step of an Elman network.
func (b Builder) RNNCell(input, hidden int, opts ...RNNCellOptions) *RNNCell {
	c := &RNNCell{}
	b.cell(&c.RNNCellBase, 1, input, hidden, first(opts))
	return c
}

// LSTMCell makes one step of an LSTM.
func (b Builder) LSTMCell(input, hidden int, opts ...RNNCellOptions) *LSTMCell {
	c := &LSTMCell{}
	b.cell(&c.RNNCellBase, 4, input, hidden, first(opts))
	return c
}

// GRUCell makes one step of a GRU.
func (b Builder) GRUCell(input, hidden int, opts ...RNNCellOptions) *GRUCell {
	c := &GRUCell{}
	b.cell(&c.RNNCellBase, 3, input, hidden, first(opts))
	return c
}

func (b Builder) cell(c *RNNCellBase, gates, input, hidden int, o RNNCellOptions) {
	c.InputSize, c.HiddenSize, c.relu = input, hidden, o.Nonlinearity == "relu"
	if !c.relu && o.Nonlinearity != "" && o.Nonlinearity != "tanh" {
		fail("rnn_cell", "Unknown nonlinearity: %s", o.Nonlinearity)
	}
	c.WeightIH, c.WeightHH = b.Parameter(gates*hidden, input), b.Parameter(gates*hidden, hidden)
	if o.Bias.Or(true) {
		c.BiasIH, c.BiasHH = b.Parameter(gates*hidden), b.Parameter(gates*hidden)
	}
	bound := 0.0
	if hidden > 0 {
		bound = 1 / math.Sqrt(float64(hidden))
	}
	b.init(func() { uniformAll(bound, c.WeightIH, c.WeightHH, c.BiasIH, c.BiasHH) })
}

// run calls step with a batch and a state; states that are nil are zeros.
func (c *RNNCellBase) run(in []*torch.Tensor, step func(x *torch.Tensor, states []*torch.Tensor) []*torch.Tensor) []*torch.Tensor {
	return c.CallAll(in, func(in []*torch.Tensor) []*torch.Tensor {
		x, states := in[0], append([]*torch.Tensor{}, in[1:]...)
		d := x.Dim()
		if d != 1 && d != 2 {
			fail("rnn_cell", "Expected input to be 1D or 2D, got %dD instead", d)
		}
		if d == 1 {
			x = x.Unsqueeze(0)
		}
		for i, s := range states {
			switch {
			case s == nil:
				states[i] = torch.Zeros([]int{x.Size(0), c.HiddenSize}, torch.TensorOptions{DType: x.DType(), Device: x.Device()})
			case d == 1:
				states[i] = s.Unsqueeze(0)
			}
		}
		out := step(x, states)
		if d == 1 {
			for i := range out {
				out[i] = out[i].SqueezeDim(0)
			}
		}
		return out
	})
}

// Forward maps x (B, I) or (I), and h (B, H) or (H), nil for zeros, to the next h.
func (c *RNNCell) Forward(x, h *torch.Tensor) *torch.Tensor {
	return c.run([]*torch.Tensor{x, h}, func(x *torch.Tensor, s []*torch.Tensor) []*torch.Tensor {
		if c.relu {
			return []*torch.Tensor{torch.RnnReluCell(x, s[0], c.WeightIH, c.WeightHH, torch.RnnReluCellOptions{BIh: c.BiasIH, BHh: c.BiasHH})}
		}
		return []*torch.Tensor{torch.RnnTanhCell(x, s[0], c.WeightIH, c.WeightHH, torch.RnnTanhCellOptions{BIh: c.BiasIH, BHh: c.BiasHH})}
	})[0]
}

// Forward maps x (B, I) or (I), and h and c (B, H) or (H), nil for zeros, to the next h and c.
func (c *LSTMCell) Forward(x, h, cell *torch.Tensor) (hn, cn *torch.Tensor) {
	out := c.run([]*torch.Tensor{x, h, cell}, func(x *torch.Tensor, s []*torch.Tensor) []*torch.Tensor {
		h, cell := torch.LstmCell(x, s, c.WeightIH, c.WeightHH, torch.LstmCellOptions{BIh: c.BiasIH, BHh: c.BiasHH})
		return []*torch.Tensor{h, cell}
	})
	return out[0], out[1]
}

// Forward maps x (B, I) or (I), and h (B, H) or (H), nil for zeros, to the next h.
func (c *GRUCell) Forward(x, h *torch.Tensor) *torch.Tensor {
	return c.run([]*torch.Tensor{x, h}, func(x *torch.Tensor, s []*torch.Tensor) []*torch.Tensor {
		return []*torch.Tensor{torch.GruCell(x, s[0], c.WeightIH, c.WeightHH, torch.GruCellOptions{BIh: c.BiasIH, BHh: c.BiasHH})}
	})[0]
}

// ExtraRepr is what PyTorch prints in the parentheses.
func (c *RNNCellBase) ExtraRepr() string {
	s := itoa(c.InputSize) + ", " + itoa(c.HiddenSize)
	if c.BiasIH == nil {
		s += ", bias=False"
	}
	if c.relu {
		s += ", nonlinearity=relu"
	}
	return s
}
