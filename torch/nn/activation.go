package nn

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"

	"github.com/torchgo/torchgo/torch"
)

// Activation is an elementwise function; it keeps the shape.
type Activation func(x *torch.Tensor) *torch.Tensor

// activations are transformers' ACT2FN under its names.
var activations = map[string]Activation{
	"gelu":              gelu,
	"gelu_python":       gelu,
	"gelu_10":           func(x *torch.Tensor) *torch.Tensor { return clamp(gelu(x), -10, 10) },
	"gelu_fast":         func(x *torch.Tensor) *torch.Tensor { return tanhGELU(x, 0.7978845608) },
	"gelu_new":          func(x *torch.Tensor) *torch.Tensor { return tanhGELU(x, math.Sqrt(2/math.Pi)) },
	"gelu_accurate":     func(x *torch.Tensor) *torch.Tensor { return tanhGELU(x, math.Sqrt(2/math.Pi)) },
	"gelu_pytorch_tanh": geluTanh,
	"gelu_python_tanh":  geluTanh,
	"quick_gelu":        func(x *torch.Tensor) *torch.Tensor { return x.Mul(x.MulScalar(1.702).Sigmoid()) },
	"hardswish":         torch.Hardswish,
	"leaky_relu":        func(x *torch.Tensor) *torch.Tensor { return torch.LeakyRelu(x) },
	"linear":            func(x *torch.Tensor) *torch.Tensor { return x },
	"mish":              torch.Mish,
	"relu":              func(x *torch.Tensor) *torch.Tensor { return x.Relu() },
	"relu2":             func(x *torch.Tensor) *torch.Tensor { return x.Relu().Square() },
	"relu6":             func(x *torch.Tensor) *torch.Tensor { return clamp(x, 0, 6) },
	"sigmoid":           func(x *torch.Tensor) *torch.Tensor { return x.Sigmoid() },
	"silu":              torch.Silu,
	"swish":             torch.Silu,
	"tanh":              func(x *torch.Tensor) *torch.Tensor { return x.Tanh() },
}

// ActivationByName returns the function that a config.json's hidden_act means.
func ActivationByName(name string) (Activation, error) {
	if f := activations[name]; f != nil {
		return f, nil
	}
	return nil, fmt.Errorf("activation %q: unknown, want one of %s", name,
		strings.Join(slices.Sorted(maps.Keys(activations)), ", "))
}

// gelu is x Φ(x), exactly.
func gelu(x *torch.Tensor) *torch.Tensor { return torch.Gelu(x) }

// geluTanh is the tanh approximation of gelu in one kernel.
func geluTanh(x *torch.Tensor) *torch.Tensor {
	return torch.Gelu(x, torch.GeluOptions{Approximate: torch.Some("tanh")})
}

// tanhGELU is ½ x (1 + tanh(scale · (x + 0.044715 x³))), step by step as transformers computes it.
func tanhGELU(x *torch.Tensor, scale float64) *torch.Tensor {
	inner := x.Add(x.PowScalar(3).MulScalar(0.044715)).MulScalar(scale)
	return x.MulScalar(0.5).Mul(inner.Tanh().AddScalar(1))
}

func clamp(x *torch.Tensor, lo, hi float64) *torch.Tensor {
	return x.Clamp(torch.ClampOptions{Min: lo, Max: hi})
}
