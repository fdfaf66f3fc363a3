package main

import (
	"errors"

	"github.com/torchgo/torchgo/torch"
)

// square is x² with its gradient in Go; every 64th backward pass fails.
type square struct{ fail bool }

func (s square) Forward(ctx *torch.FunctionCtx, in ...*torch.Tensor) []*torch.Tensor {
	ctx.Save(in[0])
	return []*torch.Tensor{in[0].Mul(in[0])}
}

func (s square) Backward(ctx *torch.FunctionCtx, grads ...*torch.Tensor) []*torch.Tensor {
	if s.fail {
		panic(errHook)
	}
	return []*torch.Tensor{ctx.Saved()[0].Mul(grads[0]).MulScalar(2)}
}

// functions differentiates functions written in Go, checkpoints and saved tensors kept elsewhere.
func functions(r *run) {
	for i := 0; r.more(); i++ {
		torch.Scope(func() {
			x := torch.FromSlice([]float32{1, 2, 3}).SetRequiresGrad(true)
			fail := i%64 == 3
			var y *torch.Tensor
			switch i % 4 {
			case 0: // the inner gradient is used, and freed with the graph
				y = torch.Checkpoint(func(x *torch.Tensor) *torch.Tensor { return torch.Apply(square{}, x)[0] }, x)
			case 1:
				torch.SaveOnCPU(func() { y = torch.Apply(square{}, x)[0] })
			case 2:
				torch.SavedTensorHooks(
					func(t *torch.Tensor) []float32 { return torch.ToSlice[float32](t) },
					func(v []float32) *torch.Tensor { return torch.FromSlice(v) },
					func() { y = x.Mul(x) })
			case 3:
				y = torch.Apply(square{fail}, x)[0]
				if i%8 == 3 {
					return // never differentiated
				}
			}
			err := torch.TryDo(func() { y.Sum().Backward() })
			switch {
			case fail && !errors.Is(err, errHook):
				r.failf("a function's panic became %v", err)
			case !fail && err != nil:
				r.failf("backward: %v", err)
			case !fail:
				if g := torch.ToSlice[float32](x.Grad()); g[0] != 2 || g[1] != 4 || g[2] != 6 {
					r.failf("gradient %v", g)
				}
			}
		})
		r.did(10)
	}
}
