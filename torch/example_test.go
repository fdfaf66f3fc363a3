package torch_test

import (
	"errors"
	"fmt"

	"github.com/torchgo/torchgo/torch"
)

// Everything that is made in a scope is freed at its end.
func Example() {
	torch.Scope(func() {
		x := torch.FromSlice([]float32{1, 2, 3, 4}, 2, 2)
		fmt.Println(x.MatMul(x.T()))
	})
	// Output:
	// tensor([[ 5., 11.],
	//         [11., 25.]])
}

// What a scope returns survives it, and is freed by its new owner or by the collector.
func ExampleScopeOf() {
	y := torch.ScopeOf(func() *torch.Tensor {
		x := torch.FromSlice([]float32{1, 2, 3})
		return x.Square().Sum()
	})
	defer y.Close()
	fmt.Println(torch.Item[float32](y))
	// Output: 14
}

// A tensor from Go's memory and back.
func ExampleFromSlice() {
	torch.Scope(func() {
		x := torch.FromSlice([]int64{1, 2, 3, 4, 5, 6}, 2, 3)
		fmt.Println(x.Shape(), x.DType())
		fmt.Println(torch.ToSlice[int64](x.T()))
	})
	// Output:
	// [2 3] int64
	// [1 4 2 5 3 6]
}

// An operator has a functional form, one in place and one that writes to a given tensor. Optional
// arguments are a struct behind the others.
func ExampleTensor_Add() {
	torch.Scope(func() {
		x, y := torch.FromSlice([]float32{1, 2}), torch.FromSlice([]float32{10, 20})
		fmt.Println(x.Add(y))                               // x + y
		fmt.Println(x.Add(y, torch.AddOptions{Alpha: 0.5})) // x + 0.5 y
		fmt.Println(x.AddScalar(1))                         // x + 1
		out := torch.Empty([]int{2})
		torch.AddOut(out, x, y)
		x.Add_(y) // x += y
		fmt.Println(x, out)
	})
	// Output:
	// tensor([11., 22.])
	// tensor([ 6., 12.])
	// tensor([2., 3.])
	// tensor([11., 22.]) tensor([11., 22.])
}

// Where PyTorch's default is not Go's zero value, an option is set with Some, and zero means zero.
func ExampleConv2d() {
	torch.Scope(func() {
		image, kernel := torch.Ones([]int{1, 2, 8, 8}), torch.Ones([]int{4, 1, 3, 3})
		y := torch.Conv2d(image, kernel, torch.Conv2dOptions{Stride: []int{2, 2}, Padding: []int{1, 1}, Groups: torch.Some(2)})
		fmt.Println(y.Shape())
		fmt.Println(torch.ToSlice[float32](y.At(0, 0, 1)))
	})
	// Output:
	// [1 4 4 4]
	// [6 9 9 9]
}

// Indexing, as x[1:, 0] and x[x > 4] do in Python.
func ExampleTensor_At() {
	torch.Scope(func() {
		x := torch.Arange(6).Reshape(2, 3)
		fmt.Println(x.At(1, torch.From(1)))
		fmt.Println(x.At(x.GtScalar(2)))
		x.SetAt(-1, torch.All, 0)
		fmt.Println(x)
	})
	// Output:
	// tensor([4, 5])
	// tensor([3, 4, 5])
	// tensor([[-1,  1,  2],
	//         [-1,  4,  5]])
}

// Gradients: d/dx Σ x³ = 3x².
func ExampleTensor_Backward() {
	torch.Scope(func() {
		x := torch.FromSlice([]float32{1, 2, 3})
		x.SetRequiresGrad(true)
		x.PowScalar(3).Sum().Backward()
		fmt.Println(x.Grad())
	})
	// Output: tensor([ 3., 12., 27.])
}

// Gradients as results, of any order: the second derivative of x³ is 6x.
func ExampleGrad() {
	torch.Scope(func() {
		x := torch.FromSlice([]float32{1, 2})
		x.SetRequiresGrad(true)
		y := x.PowScalar(3).Sum()
		first := torch.Grad([]*torch.Tensor{y}, []*torch.Tensor{x}, torch.GradOptions{CreateGraph: true})[0]
		second := torch.Grad([]*torch.Tensor{first.Sum()}, []*torch.Tensor{x})[0]
		fmt.Println(torch.ToSlice[float32](first.Detach()), second)
	})
	// Output: [3 12] tensor([ 6., 12.])
}

// Tensor math panics with an *Error; Try makes an error of it.
func ExampleTry() {
	torch.Scope(func() {
		x, y := torch.Ones([]int{2, 3}), torch.Ones([]int{2, 3})
		_, err := torch.Try(func() *torch.Tensor { return x.MatMul(y) })
		var e *torch.Error
		fmt.Println(errors.As(err, &e), e.Op, e.Shapes)
	})
	// Output: true matmul [(2, 3) (2, 3)]
}

// Inference is a scope without gradients: the fast way to run a model.
func ExampleInferenceOf() {
	weight := torch.FromSlice([]float32{1, 0, 0, 2}, 2, 2)
	defer weight.Close()
	weight.SetRequiresGrad(true)
	p := torch.InferenceOf(func() *torch.Tensor {
		logits := torch.Linear(torch.Ones([]int{1, 2}), weight)
		return logits.Softmax(-1)
	})
	defer p.Close()
	fmt.Println(p.RequiresGrad(), p)
	// Output: false tensor([[0.2689, 0.7311]])
}

// Random numbers are PyTorch's, for the same seed.
func ExampleManualSeed() {
	torch.Scope(func() {
		torch.ManualSeed(0)
		x := torch.Randn([]int{2, 2})
		torch.ManualSeed(0)
		fmt.Println(x.Equal(torch.Randn([]int{2, 2})), x)
	})
	// Output:
	// true tensor([[ 1.5410, -0.2934],
	//         [-2.1788,  0.5684]])
}

// Any operator of the dispatcher can be called by name, with all its arguments.
func ExampleCall() {
	torch.Scope(func() {
		x := torch.FromSlice([]float32{3, 1, 2})
		results := torch.Call("aten::sort", x, -1, false) // dim, descending
		fmt.Println(results[0], results[1])
	})
	// Output: tensor([1., 2., 3.]) tensor([1, 2, 0])
}
