package nninit

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/torchgo/torchgo/torch"
)

// Options are the arguments of an initialiser that is called by name; each takes those that it knows. The names
// and defaults are Python's, so what is not set depends on the function.
type Options struct {
	A, B, Mean, Std, Gain torch.Opt[float64]
	Value                 float64 // of constant_
	Sparsity              float64 // of sparse_
	Groups                torch.Opt[int]
	FanOut                bool
	Nonlinearity          string
	Generator             *torch.Generator
}

// Initializer fills a tensor.
type Initializer func(t *torch.Tensor, o Options) *torch.Tensor

func (o Options) gain() GainOptions { return GainOptions{o.Gain, o.Generator} }

func (o Options) kaiming() KaimingOptions {
	return KaimingOptions{o.A.Or(0), o.FanOut, o.Nonlinearity, o.Generator}
}

// functions are the names that transformers looks up in torch.nn.init (TORCH_INIT_FUNCTIONS).
var functions = map[string]Initializer{
	"uniform_": func(t *torch.Tensor, o Options) *torch.Tensor {
		return Uniform_(t, o.A.Or(0), o.B.Or(1), o.Generator)
	},
	"normal_": func(t *torch.Tensor, o Options) *torch.Tensor {
		return Normal_(t, o.Mean.Or(0), o.Std.Or(1), o.Generator)
	},
	"constant_":        func(t *torch.Tensor, o Options) *torch.Tensor { return Constant_(t, o.Value) },
	"ones_":            func(t *torch.Tensor, _ Options) *torch.Tensor { return Ones_(t) },
	"zeros_":           func(t *torch.Tensor, _ Options) *torch.Tensor { return Zeros_(t) },
	"eye_":             func(t *torch.Tensor, _ Options) *torch.Tensor { return Eye_(t) },
	"dirac_":           func(t *torch.Tensor, o Options) *torch.Tensor { return Dirac_(t, DiracOptions{o.Groups}) },
	"xavier_uniform_":  func(t *torch.Tensor, o Options) *torch.Tensor { return XavierUniform_(t, o.gain()) },
	"xavier_normal_":   func(t *torch.Tensor, o Options) *torch.Tensor { return XavierNormal_(t, o.gain()) },
	"kaiming_uniform_": func(t *torch.Tensor, o Options) *torch.Tensor { return KaimingUniform_(t, o.kaiming()) },
	"kaiming_normal_":  func(t *torch.Tensor, o Options) *torch.Tensor { return KaimingNormal_(t, o.kaiming()) },
	"trunc_normal_": func(t *torch.Tensor, o Options) *torch.Tensor {
		return TruncNormal_(t, TruncNormalOptions{o.Mean.Or(0), o.Std, o.A, o.B, o.Generator})
	},
	"orthogonal_": func(t *torch.Tensor, o Options) *torch.Tensor { return Orthogonal_(t, o.gain()) },
	"sparse_": func(t *torch.Tensor, o Options) *torch.Tensor {
		return Sparse_(t, o.Sparsity, SparseOptions{o.Std, o.Generator})
	},
}

// Names lists what [ByName] knows, sorted.
func Names() []string { return slices.Sorted(maps.Keys(functions)) }

// ByName returns the function of torch.nn.init with that name: "kaiming_uniform_".
func ByName(name string) (Initializer, error) {
	if f := functions[name]; f != nil {
		return f, nil
	}
	return nil, fmt.Errorf("initialiser %q: unknown, want one of %s", name, strings.Join(Names(), ", "))
}
