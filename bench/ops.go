package main

import "github.com/torchgo/torchgo/torch"

// The works of ops.py, in Go. Both sides have gradients enabled, no tensor that needs one, and one
// thread within an operator.

// scoped is how many additions one scope holds.
const scoped = 100

func opWorks() map[string]work {
	torch.SetNumThreads(1)
	return map[string]work{"add": additions(), "chain": chains()}
}

// ramp is a deterministic tensor with values around 0.
func ramp(shape ...int) *torch.Tensor {
	n := 1
	for _, s := range shape {
		n *= s
	}
	data := make([]float32, n)
	for i := range data {
		data[i] = float32((i*7)%13)/13 - 0.4
	}
	return torch.FromSlice(data, shape...)
}

func additions() work {
	x, y := ramp(2, 2), ramp(2, 2)
	return func(n, _ int) (check float64) {
		for i := 0; i < n; i += scoped {
			torch.Scope(func() {
				var z *torch.Tensor
				for range min(scoped, n-i) {
					z = x.Add(y)
				}
				if i+scoped >= n {
					check = float64(torch.Item[float32](z.Sum()))
				}
			})
		}
		return check
	}
}

func chains() work {
	x, w, v, b := ramp(8, 8), ramp(8, 8), ramp(8, 8), ramp(8)
	return func(n, _ int) (check float64) {
		for i := range n {
			torch.Scope(func() {
				z := chain(x, w, v, b)
				if i == n-1 {
					check = float64(torch.Item[float32](z))
				}
			})
		}
		return check
	}
}

// chain runs 30 operators on small tensors: x, w and v are (8, 8), b is (8).
func chain(x, w, v, b *torch.Tensor) *torch.Tensor {
	h := x.MatMul(w).Add(b).Relu()                                           // 3
	q := h.MatMul(v).Mul(x)                                                  // 5
	p := q.Reshape(4, 16).Softmax(-1).View(8, 8)                             // 8
	c := torch.Cat([]*torch.Tensor{p, h}, torch.CatOptions{Dim: 1})          // 9
	l := c.At(torch.All, torch.To(8))                                        // 10
	m := l.Transpose(0, 1).MatMul(x).Sub(l)                                  // 13
	d := m.Div(m.SumDim([]int{1}, torch.SumDimOptions{KeepDim: true}).Exp()) // 16
	e := d.Tanh().Unsqueeze(0).Permute(1, 0, 2)                              // 19
	f := e.Contiguous().View(64).MulScalar(0.5).AddScalar(1)                 // 23
	g := f.Sigmoid().Maximum(f).Reshape(8, 8)                                // 26
	return g.At(0).Neg().Abs().Mean()                                        // 30
}
