package nn

import "github.com/torchgo/torchgo/torch"

// Layer is a module with one input and one output: what Sequential chains.
type Layer interface {
	Forward(x *torch.Tensor) *torch.Tensor
}

// Func is a layer without tensors of its own: an activation, pooling, padding, a change of shape. The
// constructors of this package that return one are named as PyTorch's classes are; String gives PyTorch's text.
type Func struct {
	Hooks
	Mode

	name, args string
	fn         func(x *torch.Tensor, training bool) *torch.Tensor
}

// NewFunc makes a layer of a function, to stand in a Sequential.
func NewFunc(name string, fn func(x *torch.Tensor) *torch.Tensor) *Func {
	return function(name, "", fn)
}

func function(name, args string, fn func(x *torch.Tensor) *torch.Tensor) *Func {
	return &Func{name: name, args: args, fn: func(x *torch.Tensor, _ bool) *torch.Tensor { return fn(x) }}
}

// Forward applies the function.
func (f *Func) Forward(x *torch.Tensor) *torch.Tensor {
	return f.Call(x, f.forward)
}

func (f *Func) forward(x *torch.Tensor) *torch.Tensor { return f.fn(x, f.Training()) }

// ModuleName is the name of PyTorch's class.
func (f *Func) ModuleName() string { return f.name }

// ExtraRepr is what PyTorch prints in the parentheses.
func (f *Func) ExtraRepr() string { return f.args }

// NewIdentity passes its input through.
func NewIdentity() *Func {
	return function("Identity", "", func(x *torch.Tensor) *torch.Tensor { return x })
}

// FlattenOptions are the optional arguments of NewFlatten.
type FlattenOptions struct {
	StartDim torch.Opt[int] // default: 1
	EndDim   torch.Opt[int] // default: -1
}

// NewFlatten joins the dimensions from StartDim to EndDim: (B, C, H, W) → (B, C·H·W).
func NewFlatten(opts ...FlattenOptions) *Func {
	o := first(opts)
	start, end := o.StartDim.Or(1), o.EndDim.Or(-1)
	return function("Flatten", "start_dim="+itoa(start)+", end_dim="+itoa(end), func(x *torch.Tensor) *torch.Tensor {
		return x.Flatten(torch.FlattenOptions{StartDim: start, EndDim: torch.Some(end)})
	})
}

// NewUnflatten splits a dimension into several; one of sizes may be -1: (B, C·H) → (B, C, H).
func NewUnflatten(dim int, sizes ...int) *Func {
	return function("Unflatten", "dim="+itoa(dim)+", unflattened_size="+tuple(sizes), func(x *torch.Tensor) *torch.Tensor {
		return x.Unflatten(dim, sizes...)
	})
}
