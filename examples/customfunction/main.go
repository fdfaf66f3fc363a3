// Command customfunction writes two operations with gradients of their own, checks one against differences, and
// trains a net whose weights are rounded to a few bits.
//
//	go run ./examples/customfunction [-bits 3] [-steps 300]
package main

import (
	"flag"
	"fmt"
	"io"
	"math"
	"os"

	"github.com/torchgo/torchgo/torch"
	"github.com/torchgo/torchgo/torch/nn"
	"github.com/torchgo/torchgo/torch/optim"
)

// swish is y = x·sigmoid(βx). Its backward saves one tensor where the operators one by one would save four.
type swish struct{ beta float64 }

func (f swish) Forward(ctx *torch.FunctionCtx, in ...*torch.Tensor) []*torch.Tensor {
	x := in[0]
	ctx.Save(x)
	return []*torch.Tensor{x.Mul(x.MulScalar(f.beta).Sigmoid())}
}

// dy/dx = s + βx·s·(1−s), with s = sigmoid(βx).
func (f swish) Backward(ctx *torch.FunctionCtx, grads ...*torch.Tensor) []*torch.Tensor {
	x := ctx.Saved()[0]
	s := x.MulScalar(f.beta).Sigmoid()
	slope := s.Add(x.MulScalar(f.beta).Mul(s).Mul(s.Neg().AddScalar(1)))
	return []*torch.Tensor{grads[0].Mul(slope)}
}

// quantize rounds to 2^bits − 1 values between −max|x| and max|x|. Rounding has no useful gradient, so its
// backward lets the gradient through (the straight-through estimator of Bengio, Léonard and Courville, 2013).
type quantize struct{ bits int }

func (f quantize) Forward(ctx *torch.FunctionCtx, in ...*torch.Tensor) []*torch.Tensor {
	x := in[0]
	levels := math.Exp2(float64(f.bits-1)) - 1
	step := x.Abs().Max().DivScalar(levels)
	return []*torch.Tensor{x.Div(step).Round().Mul(step)}
}

func (f quantize) Backward(ctx *torch.FunctionCtx, grads ...*torch.Tensor) []*torch.Tensor {
	return []*torch.Tensor{grads[0]}
}

// net is y = swish(xW₁ + b)·W₂, with W₁ and W₂ rounded.
type net struct {
	W1   *torch.Tensor `torch:"w1"` // (1, 32)
	B    *torch.Tensor `torch:"b"`  // (32,)
	W2   *torch.Tensor `torch:"w2"` // (32, 1)
	bits int
}

func newNet(bits int) *net {
	n := &net{torch.Randn([]int{1, 32}), torch.Randn([]int{32}), torch.Randn([]int{32, 1}).MulScalar(0.2), bits}
	for _, p := range nn.Parameters(n) {
		p.SetRequiresGrad(true)
	}
	return n
}

// Forward maps x (B, 1) to y (B, 1).
func (n *net) Forward(x *torch.Tensor) *torch.Tensor {
	w1, w2 := n.W1, n.W2
	if n.bits > 0 {
		w1, w2 = torch.Apply(quantize{n.bits}, w1)[0], torch.Apply(quantize{n.bits}, w2)[0]
	}
	return torch.Apply(swish{1}, x.MatMul(w1).Add(n.B))[0].MatMul(w2)
}

func main() {
	bits := flag.Int("bits", 3, "bits of a weight")
	steps := flag.Int("steps", 300, "steps of training")
	flag.Parse()
	if err := run(os.Stdout, *bits, *steps); err != nil {
		fmt.Fprintln(os.Stderr, "customfunction:", err)
		os.Exit(1)
	}
}

func run(w io.Writer, bits, steps int) error {
	torch.ManualSeed(0)
	if err := check(w); err != nil {
		return err
	}
	rounded, err := torch.Try(func() float64 { return train(bits, steps) })
	if err != nil {
		return err
	}
	full := train(0, steps)
	fmt.Fprintf(w, "mean squared error after %d steps: %.5f with weights of %d bits, %.5f with float32\n", steps, rounded, bits, full)
	return nil
}

// check compares swish's gradients, and those of its gradients, with differences.
func check(w io.Writer) error {
	x := torch.Randn([]int{8}, torch.TensorOptions{DType: torch.Float64}).SetRequiresGrad(true)
	defer x.Close()
	fn := func(in []*torch.Tensor) []*torch.Tensor { return torch.Apply(swish{1.5}, in...) }
	if err := torch.GradCheck(fn, []*torch.Tensor{x}); err != nil {
		return err
	}
	if err := torch.GradGradCheck(fn, []*torch.Tensor{x}); err != nil {
		return err
	}
	fmt.Fprintln(w, "swish: first and second derivatives agree with differences")
	return nil
}

// train fits sin(3x) on [−1, 1] and returns the last loss.
func train(bits, steps int) (loss float64) {
	torch.ManualSeed(1)
	model := newNet(bits)
	opt := optim.NewAdamW(nn.Parameters(model), optim.AdamWOptions{LR: 1e-2})
	for range steps {
		torch.Scope(func() {
			x := torch.Linspace(-1, 1, 64).Unsqueeze(1)
			l := model.Forward(x).Sub(x.MulScalar(3).Sin()).Square().Mean()
			opt.ZeroGrad()
			l.Backward()
			opt.Step()
			loss = float64(torch.Item[float32](l.Detach()))
		})
	}
	return loss
}
