package torch

import (
	"fmt"
	"math"
)

// GradCheckOptions are the options of [GradCheck].
type GradCheckOptions struct {
	Eps       Opt[float64] // step of the differences; default 1e-6
	ATol      Opt[float64] // absolute tolerance; default 1e-5
	RTol      Opt[float64] // relative tolerance; default 1e-3
	NondetTol float64      // how far two runs of backward may differ
}

// GradCheck compares the gradients that autograd computes of fn, at inputs, with central differences
// (torch.autograd.gradcheck):
//
//	|analytical − numerical| ≤ ATol + RTol·|numerical|
//
// for each element of each output and each element of each input that requires a gradient. The defaults
// are meant for float64; complex tensors are not supported. It also checks that two runs of backward agree,
// and that a gradient is zero where that of the output is. The error is nil or says what is wrong. It is
// for testing a [Function].
func GradCheck(fn func(inputs []*Tensor) []*Tensor, inputs []*Tensor, opts ...GradCheckOptions) error {
	c := gradCheck{fn: fn, inputs: inputs, o: one(opts)}
	return TryDo(func() { Scope(func() { EnableGrad(c.run) }) })
}

// GradGradCheck is [GradCheck] for second derivatives (torch.autograd.gradgradcheck): it checks the
// gradients of fn's gradients for random gradients of its outputs.
func GradGradCheck(fn func(inputs []*Tensor) []*Tensor, inputs []*Tensor, opts ...GradCheckOptions) (err error) {
	if e := TryDo(func() {
		Scope(func() {
			var random []*Tensor
			EnableGrad(func() {
				for _, y := range fn(inputs) {
					if y != nil && y.RequiresGrad() {
						random = append(random, RandnLike(y.Detach()).SetRequiresGrad(true))
					}
				}
			})
			n := len(inputs)
			err = GradCheck(func(all []*Tensor) []*Tensor {
				var outputs, wrt, grads []*Tensor
				for _, y := range fn(all[:n]) {
					if y != nil && y.RequiresGrad() {
						outputs = append(outputs, y)
					}
				}
				for _, x := range all[:n] {
					if x != nil && x.RequiresGrad() {
						wrt = append(wrt, x)
					}
				}
				for _, g := range Grad(outputs, wrt, GradOptions{GradOutputs: all[n:], CreateGraph: true, AllowUnused: true}) {
					if g != nil {
						grads = append(grads, g)
					}
				}
				return grads
			}, append(append([]*Tensor{}, inputs...), random...), opts...)
		})
	}); e != nil {
		return e
	}
	return err
}

type gradCheck struct {
	fn     func([]*Tensor) []*Tensor
	inputs []*Tensor
	o      GradCheckOptions
}

func (c *gradCheck) fail(format string, args ...any) {
	panic(&Error{Op: "gradcheck", Kind: ErrRuntime, Message: fmt.Sprintf(format, args...)})
}

func (c *gradCheck) run() {
	var wrt []*Tensor
	var which []int
	for i, x := range c.inputs {
		if x != nil && x.RequiresGrad() {
			if !x.DType().IsFloatingPoint() {
				c.fail("input %d is of dtype %v; only real ones are supported", i, x.DType())
			}
			wrt, which = append(wrt, x), append(which, i)
		}
	}
	if len(wrt) == 0 {
		c.fail("gradcheck expects at least one input tensor to require gradient, but none of the them have requires_grad=True.")
	}
	outputs := c.fn(c.inputs)
	numerical := make([][][][]float64, len(wrt)) // by input, output, element of the input, element of the output
	for j, i := range which {
		numerical[j] = c.numerical(i)
	}
	for k, y := range outputs {
		if y == nil || !y.RequiresGrad() {
			for j := range wrt {
				for _, row := range numerical[j][k] {
					for _, d := range row {
						if d != 0 {
							c.fail("Numerical gradient for function expected to be zero")
						}
					}
				}
			}
			continue
		}
		first, second := c.analytical(y, wrt), c.analytical(y, wrt)
		for j := range wrt {
			for e, row := range numerical[j][k] {
				for o, n := range row {
					a := first[j][e][o]
					if !(math.Abs(a-n) <= c.o.ATol.Or(1e-5)+c.o.RTol.Or(1e-3)*math.Abs(n)) {
						c.fail("Jacobian mismatch for output %d with respect to input %d, element %d of the output and %d of the input: numerical: %v, analytical: %v",
							k, which[j], o, e, n, a)
					}
					if !(math.Abs(a-second[j][e][o]) <= c.o.NondetTol) {
						c.fail("Backward is not reentrant, i.e., running backward with same input and grad_output multiple times gives different values, although analytical gradient matches numerical gradient. The tolerance for nondeterminism was %v.", c.o.NondetTol)
					}
				}
			}
		}
		for _, g := range Grad([]*Tensor{y}, wrt, GradOptions{GradOutputs: []*Tensor{ZerosLike(y)}, RetainGraph: true, AllowUnused: true}) {
			if g != nil && Item[int64](g.CountNonzero()) != 0 {
				c.fail("backward not multiplied by grad_output")
			}
		}
	}
}

// elements are those of a tensor, as float64.
func elements(t *Tensor) []float64 {
	return ToSlice[float64](t.Detach().ToDType(Float64).Contiguous())
}

// numerical is the derivative of every output by each element of input i.
func (c *gradCheck) numerical(i int) [][][]float64 {
	x := c.inputs[i]
	at := elements(x)
	eps := c.o.Eps.Or(1e-6)
	moved := func(e int, by float64) (outputs [][]float64) {
		Scope(func() {
			data := append([]float64{}, at...)
			data[e] += by
			inputs := append([]*Tensor{}, c.inputs...)
			inputs[i] = FromSlice(data, x.Shape()...).To(x.Device()).ToDType(x.DType()).SetRequiresGrad(true)
			for _, y := range c.fn(inputs) {
				if y == nil {
					outputs = append(outputs, nil)
					continue
				}
				outputs = append(outputs, elements(y))
			}
		})
		return outputs
	}
	var all [][][]float64
	for e := range at {
		plus, minus := moved(e, eps), moved(e, -eps)
		if all == nil {
			all = make([][][]float64, len(plus))
		}
		for k := range plus {
			row := make([]float64, len(plus[k]))
			for o := range row {
				row[o] = (plus[k][o] - minus[k][o]) / (2 * eps)
			}
			all[k] = append(all[k], row)
		}
	}
	if all == nil { // no elements, no derivatives
		all = make([][][]float64, len(c.fn(c.inputs)))
	}
	return all
}

// analytical is the derivative of an output by each element of each of the inputs.
func (c *gradCheck) analytical(y *Tensor, wrt []*Tensor) [][][]float64 {
	m := y.Numel()
	all := make([][][]float64, len(wrt))
	for j, x := range wrt {
		all[j] = make([][]float64, x.Numel())
		for e := range all[j] {
			all[j][e] = make([]float64, m)
		}
	}
	for o := range m {
		Scope(func() {
			data := make([]float64, m)
			data[o] = 1
			unit := FromSlice(data, y.Shape()...).To(y.Device()).ToDType(y.DType())
			for j, g := range Grad([]*Tensor{y}, wrt, GradOptions{GradOutputs: []*Tensor{unit}, RetainGraph: true, AllowUnused: true}) {
				if g == nil {
					continue
				}
				if g.DType() != wrt[j].DType() {
					c.fail("Gradient has dtype mismatch")
				}
				for e, v := range elements(g) {
					all[j][e][o] = v
				}
			}
		})
	}
	return all
}
