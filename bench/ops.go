package main

import "github.com/torchgo/torchgo/torch"

// The works of ops.py, in Go. Both sides have gradients enabled, no tensor that needs one, and one
// thread within an operator.

// scoped is how many operators one scope holds: about what a layer of a model has.
const scoped = 25

func opWorks() map[string]work {
	torch.SetNumThreads(1)
	works := map[string]work{
		"chain": chains(), "collected": collected(), "scope": scopes(),
		"backward": backwards(false), "hooks": backwards(true),
	}
	for name, op := range operators() {
		works[name] = repeat(op)
	}
	return works
}

// operators are single ones, each on operands that fit the caches.
func operators() map[string]func() *torch.Tensor {
	x, y := ramp(2, 2), ramp(2, 2)
	a, b := ramp(64, 64), ramp(64, 64)
	h, gamma, beta := ramp(16, 64), ramp(64), ramp(64)
	row := torch.FromSlice([]int64{3, 1, 2})
	return map[string]func() *torch.Tensor{
		"add": func() *torch.Tensor { return x.Add(y) },
		"mm":  func() *torch.Tensor { return a.Mm(b) },
		"layer_norm": func() *torch.Tensor {
			return torch.LayerNorm(h, []int{64}, torch.LayerNormOptions{Weight: gamma, Bias: beta})
		},
		"cat":    func() *torch.Tensor { return torch.Cat([]*torch.Tensor{x, y}) },
		"view":   func() *torch.Tensor { return h.View(64, 16) },
		"select": func() *torch.Tensor { return h.At(3) },
		"index":  func() *torch.Tensor { return h.At(row) },
	}
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

// repeat runs an operator n times; the scope around frees what several of them made.
func repeat(op func() *torch.Tensor) work {
	return func(n, _ int) (check float64) {
		for i := 0; i < n; i += scoped {
			torch.Scope(func() {
				var z *torch.Tensor
				for range min(scoped, n-i) {
					z = op()
				}
				if i+scoped >= n {
					check = float64(torch.Item[float32](z.Sum()))
				}
			})
		}
		return check
	}
}

// collected makes the same additions without a scope: the collector frees them.
func collected() work {
	x, y := ramp(2, 2), ramp(2, 2)
	return func(n, _ int) float64 {
		var z *torch.Tensor
		for range n {
			z = x.Add(y)
		}
		return float64(torch.Item[float32](z.Sum()))
	}
}

// scopes enters and leaves a scope that makes nothing.
func scopes() work {
	return func(n, _ int) float64 {
		for range n {
			torch.Scope(func() {})
		}
		return 0
	}
}

// hooked is how many tensors of backwards' graph have a hook.
const hooked = 20

// backwards builds a chain of multiplications and runs it backward; with hooks, each product has one
// that looks at its gradient and changes nothing.
func backwards(hooks bool) work {
	x := ramp(2, 2).SetRequiresGrad(true)
	seen := 0
	return func(n, _ int) (check float64) {
		seen = 0
		for range n {
			torch.Scope(func() {
				x.SetGrad(nil)
				y := x
				for range hooked {
					y = y.MulScalar(1.01)
					if hooks {
						y.RegisterHook(func(*torch.Tensor) *torch.Tensor { seen++; return nil })
					}
				}
				y.Sum().Backward()
			})
		}
		if hooks && seen != n*hooked {
			return -1
		}
		return float64(torch.Item[float32](x.Grad().Sum()))
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
