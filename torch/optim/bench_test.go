package optim_test

import (
	"fmt"
	"testing"

	"github.com/torchgo/torchgo/torch"
	"github.com/torchgo/torchgo/torch/optim"
)

// BenchmarkStep is a step on 52 small parameters, as a four-layer GPT has, beside tools/optimref/bench.py.
func BenchmarkStep(b *testing.B) {
	on, off := torch.Some(true), torch.Some(false)
	for _, how := range []struct {
		name    string
		foreach torch.Opt[bool]
		fused   torch.Opt[bool]
	}{{"default", torch.Opt[bool]{}, torch.Opt[bool]{}}, {"forloop", off, off}, {"foreach", on, torch.Opt[bool]{}}} {
		for _, make := range []func(ps []*torch.Tensor) (string, optim.Optimizer){
			func(ps []*torch.Tensor) (string, optim.Optimizer) {
				return "AdamW", optim.NewAdamW(ps, optim.AdamWOptions{Foreach: how.foreach, Fused: how.fused})
			},
			func(ps []*torch.Tensor) (string, optim.Optimizer) {
				return "SGD", optim.NewSGD(ps, optim.SGDOptions{Momentum: 0.9, Foreach: how.foreach, Fused: how.fused})
			},
		} {
			params := smallModel()
			name, opt := make(params)
			b.Run(fmt.Sprintf("%s/%s", name, how.name), func(b *testing.B) {
				torch.Scope(func() {
					for b.Loop() {
						opt.Step()
					}
				})
			})
			opt.Close()
			for _, p := range params {
				p.Close()
			}
		}
	}
}

// BenchmarkZeroGrad removes the gradients of 52 parameters, where there are none.
func BenchmarkZeroGrad(b *testing.B) {
	opt := optim.NewSGD(smallModel())
	for b.Loop() {
		opt.ZeroGrad()
	}
}

// smallModel are 52 parameters with gradients.
func smallModel() []*torch.Tensor {
	var ps []*torch.Tensor
	for i := range 52 {
		shape := []int{32, 32}
		if i%2 == 1 {
			shape = []int{32}
		}
		p := torch.Zeros(shape).SetRequiresGrad(true)
		p.SetGrad(torch.Ones(shape))
		ps = append(ps, p)
	}
	return ps
}
