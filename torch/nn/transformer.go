package nn

import (
	"math"

	"github.com/torchgo/torchgo/torch"
	"github.com/torchgo/torchgo/torch/nn/nninit"
)

// TransformerLayerOptions are the optional arguments of NewTransformerEncoderLayer and NewTransformerDecoderLayer.
type TransformerLayerOptions struct {
	DimFeedforward torch.Opt[int]     // inner size of the feed-forward network; default: 2048
	Dropout        torch.Opt[float64] // default: 0.1
	Activation     Activation         // of the feed-forward network; default: relu
	LayerNormEps   torch.Opt[float64] // default: 1e-5
	BatchFirst     bool               // (B, T, C), not (T, B, C)
	NormFirst      bool               // layer norms before, not after, attention and feed-forward network
	Bias           torch.Opt[bool]    // of linear layers and norms; default: true
}

func (o TransformerLayerOptions) attention(b Builder, dModel, nHead int) *MultiheadAttention {
	return b.MultiheadAttention(dModel, nHead, MultiheadAttentionOptions{Dropout: o.Dropout.Or(0.1), Bias: o.Bias, BatchFirst: o.BatchFirst})
}

func (o TransformerLayerOptions) norm(b Builder, dModel int) *LayerNorm {
	return b.LayerNorm(dModel, LayerNormOptions{Eps: o.LayerNormEps, Bias: o.Bias})
}

func (o TransformerLayerOptions) act() Activation {
	if o.Activation != nil {
		return o.Activation
	}
	return func(x *torch.Tensor) *torch.Tensor { return x.Relu() }
}

// TransformerEncoderLayer is self-attention and a feed-forward network, each with dropout, a residual connection and
// a layer norm: (T, B, C) or (T, C), same shape.
//
// Source: Vaswani et al., Attention Is All You Need, https://arxiv.org/abs/1706.03762.
type TransformerEncoderLayer struct {
	Hooks
	Mode

	SelfAttn *MultiheadAttention `torch:"self_attn"`
	Linear1  *Linear             `torch:"linear1"` // (inner, C)
	Dropout  *Dropout            `torch:"dropout"`
	Linear2  *Linear             `torch:"linear2"` // (C, inner)
	Norm1    *LayerNorm          `torch:"norm1"`
	Norm2    *LayerNorm          `torch:"norm2"`
	Dropout1 *Dropout            `torch:"dropout1"`
	Dropout2 *Dropout            `torch:"dropout2"`

	Activation Activation
	NormFirst  bool
}

// NewTransformerEncoderLayer makes a float32 layer on the CPU, initialised as PyTorch's nn.TransformerEncoderLayer.
func NewTransformerEncoderLayer(dModel, nHead int, opts ...TransformerLayerOptions) *TransformerEncoderLayer {
	return Builder{}.TransformerEncoderLayer(dModel, nHead, opts...)
}

// TransformerEncoderLayer makes an encoder layer.
func (b Builder) TransformerEncoderLayer(dModel, nHead int, opts ...TransformerLayerOptions) *TransformerEncoderLayer {
	o := first(opts)
	p, inner, bias := o.Dropout.Or(0.1), o.DimFeedforward.Or(2048), LinearOptions{Bias: o.Bias}
	return &TransformerEncoderLayer{SelfAttn: o.attention(b, dModel, nHead),
		Linear1: b.Linear(dModel, inner, bias), Dropout: NewDropout(p), Linear2: b.Linear(inner, dModel, bias),
		Norm1: o.norm(b, dModel), Norm2: o.norm(b, dModel), Dropout1: NewDropout(p), Dropout2: NewDropout(p),
		Activation: o.act(), NormFirst: o.NormFirst}
}

// EncodeOptions are the optional arguments of an encoder's Forward; see AttendOptions for the masks.
type EncodeOptions struct {
	Mask           *torch.Tensor // (T, T) or (B·H, T, T)
	KeyPaddingMask *torch.Tensor // (B, T) or (T)
	IsCausal       bool          // Mask is the causal one; it may go unread
}

// Forward keeps the shape.
func (l *TransformerEncoderLayer) Forward(x *torch.Tensor, opts ...EncodeOptions) *torch.Tensor {
	o := first(opts)
	return l.call3(x, o.Mask, o.KeyPaddingMask, func(x, mask, padding *torch.Tensor) *torch.Tensor {
		attend := func(x *torch.Tensor) *torch.Tensor {
			y, _ := l.SelfAttn.Forward(x, x, x, AttendOptions{AttnMask: mask, KeyPaddingMask: padding, IsCausal: o.IsCausal, NeedWeights: torch.Some(false)})
			return l.Dropout1.Forward(y)
		}
		if l.NormFirst {
			x = x.Add(attend(l.Norm1.Forward(x)))
			return x.Add(l.feed(l.Norm2.Forward(x)))
		}
		x = l.Norm1.Forward(x.Add(attend(x)))
		return l.Norm2.Forward(x.Add(l.feed(x)))
	})
}

func (l *TransformerEncoderLayer) feed(x *torch.Tensor) *torch.Tensor {
	return l.Dropout2.Forward(l.Linear2.Forward(l.Dropout.Forward(l.Activation(l.Linear1.Forward(x)))))
}

// TransformerEncoder is a stack of encoder layers, with a norm at the end if Norm is not nil.
type TransformerEncoder struct {
	Hooks
	Mode

	Layers []*TransformerEncoderLayer `torch:"layers"`
	Norm   *LayerNorm                 `torch:"norm"`
}

// NewTransformerEncoder stacks n copies of a layer, which start alike, as in PyTorch; layer itself is not one of them.
// norm may be nil.
func NewTransformerEncoder(layer *TransformerEncoderLayer, n int, norm *LayerNorm) *TransformerEncoder {
	e := &TransformerEncoder{Norm: norm}
	for range n {
		e.Layers = append(e.Layers, Clone(layer))
	}
	return e
}

// Forward keeps the shape.
func (e *TransformerEncoder) Forward(x *torch.Tensor, opts ...EncodeOptions) *torch.Tensor {
	o := first(opts)
	return e.call3(x, o.Mask, o.KeyPaddingMask, func(x, mask, padding *torch.Tensor) *torch.Tensor {
		for _, l := range e.Layers {
			x = l.Forward(x, EncodeOptions{mask, padding, o.IsCausal})
		}
		if e.Norm != nil {
			x = e.Norm.Forward(x)
		}
		return x
	})
}

// TransformerDecoderLayer is self-attention, attention to an encoder's output and a feed-forward network, each with
// dropout, a residual connection and a layer norm: (T, B, C) or (T, C), same shape.
type TransformerDecoderLayer struct {
	Hooks
	Mode

	SelfAttn      *MultiheadAttention `torch:"self_attn"`
	MultiheadAttn *MultiheadAttention `torch:"multihead_attn"`
	Linear1       *Linear             `torch:"linear1"` // (inner, C)
	Dropout       *Dropout            `torch:"dropout"`
	Linear2       *Linear             `torch:"linear2"` // (C, inner)
	Norm1         *LayerNorm          `torch:"norm1"`
	Norm2         *LayerNorm          `torch:"norm2"`
	Norm3         *LayerNorm          `torch:"norm3"`
	Dropout1      *Dropout            `torch:"dropout1"`
	Dropout2      *Dropout            `torch:"dropout2"`
	Dropout3      *Dropout            `torch:"dropout3"`

	Activation Activation
	NormFirst  bool
}

// NewTransformerDecoderLayer makes a float32 layer on the CPU, initialised as PyTorch's nn.TransformerDecoderLayer.
func NewTransformerDecoderLayer(dModel, nHead int, opts ...TransformerLayerOptions) *TransformerDecoderLayer {
	return Builder{}.TransformerDecoderLayer(dModel, nHead, opts...)
}

// TransformerDecoderLayer makes a decoder layer.
func (b Builder) TransformerDecoderLayer(dModel, nHead int, opts ...TransformerLayerOptions) *TransformerDecoderLayer {
	o := first(opts)
	p, inner, bias := o.Dropout.Or(0.1), o.DimFeedforward.Or(2048), LinearOptions{Bias: o.Bias}
	return &TransformerDecoderLayer{SelfAttn: o.attention(b, dModel, nHead), MultiheadAttn: o.attention(b, dModel, nHead),
		Linear1: b.Linear(dModel, inner, bias), Dropout: NewDropout(p), Linear2: b.Linear(inner, dModel, bias),
		Norm1: o.norm(b, dModel), Norm2: o.norm(b, dModel), Norm3: o.norm(b, dModel),
		Dropout1: NewDropout(p), Dropout2: NewDropout(p), Dropout3: NewDropout(p), Activation: o.act(), NormFirst: o.NormFirst}
}

// DecodeOptions are the optional arguments of a decoder's Forward; see AttendOptions for the masks. Tgt is for
// self-attention, Memory for attention to the S positions of the encoder's output.
type DecodeOptions struct {
	TgtMask              *torch.Tensor // (T, T) or (B·H, T, T)
	MemoryMask           *torch.Tensor // (T, S) or (B·H, T, S)
	TgtKeyPaddingMask    *torch.Tensor // (B, T) or (T)
	MemoryKeyPaddingMask *torch.Tensor // (B, S) or (S)
	TgtIsCausal          bool          // TgtMask is the causal one; it may go unread
	MemoryIsCausal       bool          // MemoryMask is the causal one; it may go unread
}

func (o DecodeOptions) inputs(x, memory *torch.Tensor) []*torch.Tensor {
	return []*torch.Tensor{x, memory, o.TgtMask, o.MemoryMask, o.TgtKeyPaddingMask, o.MemoryKeyPaddingMask}
}

func (o DecodeOptions) with(in []*torch.Tensor) DecodeOptions {
	o.TgtMask, o.MemoryMask, o.TgtKeyPaddingMask, o.MemoryKeyPaddingMask = in[2], in[3], in[4], in[5]
	return o
}

// Forward maps x (T, B, C) and memory (S, B, C) to x's shape.
func (l *TransformerDecoderLayer) Forward(x, memory *torch.Tensor, opts ...DecodeOptions) *torch.Tensor {
	o := first(opts)
	return l.CallAll(o.inputs(x, memory), func(in []*torch.Tensor) []*torch.Tensor {
		return []*torch.Tensor{l.forward(in[0], in[1], o.with(in))}
	})[0]
}

func (l *TransformerDecoderLayer) forward(x, memory *torch.Tensor, o DecodeOptions) *torch.Tensor {
	self := func(x *torch.Tensor) *torch.Tensor {
		y, _ := l.SelfAttn.Forward(x, x, x, AttendOptions{AttnMask: o.TgtMask, KeyPaddingMask: o.TgtKeyPaddingMask, IsCausal: o.TgtIsCausal, NeedWeights: torch.Some(false)})
		return l.Dropout1.Forward(y)
	}
	cross := func(x *torch.Tensor) *torch.Tensor {
		y, _ := l.MultiheadAttn.Forward(x, memory, memory, AttendOptions{AttnMask: o.MemoryMask, KeyPaddingMask: o.MemoryKeyPaddingMask, IsCausal: o.MemoryIsCausal, NeedWeights: torch.Some(false)})
		return l.Dropout2.Forward(y)
	}
	feed := func(x *torch.Tensor) *torch.Tensor {
		return l.Dropout3.Forward(l.Linear2.Forward(l.Dropout.Forward(l.Activation(l.Linear1.Forward(x)))))
	}
	for _, part := range []struct {
		norm *LayerNorm
		fn   func(*torch.Tensor) *torch.Tensor
	}{{l.Norm1, self}, {l.Norm2, cross}, {l.Norm3, feed}} {
		if l.NormFirst {
			x = x.Add(part.fn(part.norm.Forward(x)))
		} else {
			x = part.norm.Forward(x.Add(part.fn(x)))
		}
	}
	return x
}

// TransformerDecoder is a stack of decoder layers, with a norm at the end if Norm is not nil.
type TransformerDecoder struct {
	Hooks
	Mode

	Layers []*TransformerDecoderLayer `torch:"layers"`
	Norm   *LayerNorm                 `torch:"norm"`
}

// NewTransformerDecoder stacks n copies of a layer, which start alike, as in PyTorch; layer itself is not one of them.
// norm may be nil.
func NewTransformerDecoder(layer *TransformerDecoderLayer, n int, norm *LayerNorm) *TransformerDecoder {
	d := &TransformerDecoder{Norm: norm}
	for range n {
		d.Layers = append(d.Layers, Clone(layer))
	}
	return d
}

// Forward maps x (T, B, C) and memory (S, B, C) to x's shape.
func (d *TransformerDecoder) Forward(x, memory *torch.Tensor, opts ...DecodeOptions) *torch.Tensor {
	o := first(opts)
	return d.CallAll(o.inputs(x, memory), func(in []*torch.Tensor) []*torch.Tensor {
		x, o := in[0], o.with(in)
		for _, l := range d.Layers {
			x = l.Forward(x, in[1], o)
		}
		if d.Norm != nil {
			x = d.Norm.Forward(x)
		}
		return []*torch.Tensor{x}
	})[0]
}

// Transformer is an encoder and a decoder: source (S, B, C) and target (T, B, C) → (T, B, C).
//
// Source: Vaswani et al., Attention Is All You Need, https://arxiv.org/abs/1706.03762.
type Transformer struct {
	Hooks
	Mode

	Encoder *TransformerEncoder `torch:"encoder"`
	Decoder *TransformerDecoder `torch:"decoder"`
}

// TransformerOptions are the optional arguments of NewTransformer.
type TransformerOptions struct {
	TransformerLayerOptions

	NumEncoderLayers torch.Opt[int] // default: 6
	NumDecoderLayers torch.Opt[int] // default: 6
}

// NewTransformer makes a float32 model on the CPU, initialised as PyTorch's nn.Transformer; PyTorch's defaults of dModel
// and nHead are 512 and 8.
func NewTransformer(dModel, nHead int, opts ...TransformerOptions) *Transformer {
	return Builder{}.Transformer(dModel, nHead, opts...)
}

// Transformer makes an encoder and a decoder; matrices start from Xavier's uniform distribution.
func (b Builder) Transformer(dModel, nHead int, opts ...TransformerOptions) *Transformer {
	o := first(opts)
	layer := b.TransformerEncoderLayer(dModel, nHead, o.TransformerLayerOptions)
	defer Close(layer)
	t := &Transformer{Encoder: NewTransformerEncoder(layer, o.NumEncoderLayers.Or(6), o.norm(b, dModel))}
	other := b.TransformerDecoderLayer(dModel, nHead, o.TransformerLayerOptions)
	defer Close(other)
	t.Decoder = NewTransformerDecoder(other, o.NumDecoderLayers.Or(6), o.norm(b, dModel))
	b.init(func() {
		for _, p := range NamedParameters(t) {
			if p.Dim() > 1 {
				nninit.XavierUniform_(p)
			}
		}
	})
	return t
}

// TransformOptions are the optional arguments of Transformer.Forward: Src is for the encoder, the others for the
// decoder.
type TransformOptions struct {
	DecodeOptions

	SrcMask           *torch.Tensor // (S, S) or (B·H, S, S)
	SrcKeyPaddingMask *torch.Tensor // (B, S) or (S)
	SrcIsCausal       bool          // SrcMask is the causal one; it may go unread
}

// Forward maps source (S, B, C) and target (T, B, C) to (T, B, C).
func (t *Transformer) Forward(src, tgt *torch.Tensor, opts ...TransformOptions) *torch.Tensor {
	o := first(opts)
	in := append(o.inputs(src, tgt), o.SrcMask, o.SrcKeyPaddingMask)
	return t.CallAll(in, func(in []*torch.Tensor) []*torch.Tensor {
		memory := t.Encoder.Forward(in[0], EncodeOptions{in[6], in[7], o.SrcIsCausal})
		return []*torch.Tensor{t.Decoder.Forward(in[1], memory, o.with(in))}
	})[0]
}

// SquareSubsequentMask is the (n, n) mask that is added to scores so that a position sees none after it: -∞ above
// the diagonal, else 0 (Transformer.generate_square_subsequent_mask).
func SquareSubsequentMask(n int, opts ...torch.TensorOptions) *torch.Tensor {
	return torch.Full([]int{n, n}, math.Inf(-1), opts...).Triu(torch.TriuOptions{Diagonal: 1})
}
