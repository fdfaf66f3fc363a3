package nn

import (
	"fmt"
	"math"

	"github.com/torchgo/torchgo/torch"
)

// ClipGradNormOptions are the optional arguments of [ClipGradNorm_] and [GetTotalNorm].
type ClipGradNormOptions struct {
	NormType         torch.Opt[float64] // p; default 2; math.Inf(1): the largest absolute value
	ErrorIfNonfinite bool               // panic if the norm is infinite or not a number
	Foreach          torch.Opt[bool]    // lists of tensors in one call; default true where there is no sparse one
}

// GetTotalNorm is the p-norm of all elements of the tensors together, a tensor of no dimensions: the norm of
// their norms (torch.nn.utils.get_total_norm).
func GetTotalNorm(tensors []*torch.Tensor, opts ...ClipGradNormOptions) *torch.Tensor {
	var o ClipGradNormOptions
	if len(opts) > 0 {
		o = opts[0]
	}
	p := o.NormType.Or(2)
	if len(tensors) == 0 {
		return torch.Zeros([]int{})
	}
	return torch.ScopeOf(func() (total *torch.Tensor) {
		torch.NoGrad(func() {
			var norms []*torch.Tensor
			for _, list := range sameKind(tensors) {
				if o.Foreach.Or(list[0].Layout() == torch.Strided) {
					norms = append(norms, torch.Internal.ForeachNorm(list, torch.InternalForeachNormOptions{Ord: p})...)
					continue
				}
				for _, t := range list {
					norms = append(norms, torch.LinalgVectorNorm(t, torch.LinalgVectorNormOptions{Ord: p}))
				}
			}
			device := tensors[0].Device()
			for i, n := range norms {
				norms[i] = n.To(device)
			}
			total = torch.LinalgVectorNorm(torch.Stack(norms), torch.LinalgVectorNormOptions{Ord: p})
		})
		if o.ErrorIfNonfinite {
			if n := torch.Item[float64](total); math.IsNaN(n) || math.IsInf(n, 0) {
				panic(&torch.Error{Op: "clip_grad_norm_", Kind: torch.ErrRuntime, Message: fmt.Sprintf(
					"The total norm of order %v for gradients from `parameters` is non-finite, so it cannot be clipped. To disable "+
						"this error and scale the gradients by the non-finite norm anyway, set `error_if_nonfinite=False`", p)})
			}
		}
		return total
	})
}

// ClipGradNorm_ scales the gradients of params so that the p-norm of all of them together is at most maxNorm,
// and returns what it was (torch.nn.utils.clip_grad_norm_):
//
//	g ← g · min(1, maxNorm / (‖g‖ₚ + 10⁻⁶))
func ClipGradNorm_(params []*torch.Tensor, maxNorm float64, opts ...ClipGradNormOptions) *torch.Tensor {
	return torch.ScopeOf(func() *torch.Tensor {
		grads := gradsOf(params)
		total := GetTotalNorm(grads, opts...)
		torch.NoGrad(func() {
			by := total.AddScalar(1e-6).Reciprocal().MulScalar(maxNorm).ClampMax(1)
			for _, list := range sameKind(grads) {
				on := by.To(list[0].Device())
				if len(opts) > 0 && !opts[0].Foreach.Or(true) || list[0].Layout() != torch.Strided {
					for _, g := range list {
						g.Mul_(on)
					}
					continue
				}
				torch.Internal.ForeachMulTensor_(list, on)
			}
		})
		return total
	})
}

// ClipGradValueOptions are the optional arguments of [ClipGradValue_].
type ClipGradValueOptions struct {
	Foreach torch.Opt[bool] // default true
}

// ClipGradValue_ limits each element of the gradients of params to [−value, value]
// (torch.nn.utils.clip_grad_value_).
func ClipGradValue_(params []*torch.Tensor, value float64, opts ...ClipGradValueOptions) {
	torch.Scope(func() {
		torch.NoGrad(func() {
			for _, list := range sameKind(gradsOf(params)) {
				if len(opts) > 0 && !opts[0].Foreach.Or(true) {
					for _, g := range list {
						g.Clamp_(torch.ClampOptions{Min: -value, Max: value})
					}
					continue
				}
				torch.Internal.ForeachClampMinScalar_(list, -value)
				torch.Internal.ForeachClampMaxScalar_(list, value)
			}
		})
	})
}

func gradsOf(params []*torch.Tensor) []*torch.Tensor {
	var grads []*torch.Tensor
	for _, p := range params {
		if g := p.Grad(); g != nil {
			grads = append(grads, g)
		}
	}
	return grads
}

// sameKind splits tensors by device, dtype and layout, in the order of first appearance.
func sameKind(tensors []*torch.Tensor) [][]*torch.Tensor {
	type kind struct {
		device torch.Device
		dtype  torch.DType
		layout torch.Layout
	}
	var lists [][]*torch.Tensor
	index := map[kind]int{}
	for _, t := range tensors {
		k := kind{t.Device(), t.DType(), t.Layout()}
		i, ok := index[k]
		if !ok {
			i = len(lists)
			index[k] = i
			lists = append(lists, nil)
		}
		lists[i] = append(lists[i], t)
	}
	return lists
}
