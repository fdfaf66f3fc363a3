package main

import "strings"

// pythonNames are the places of operators that Python has under another name.
var pythonNames = map[string]string{
	"cross_entropy_loss": "torch.nn.functional.cross_entropy",
	"log_sigmoid":        "torch.nn.functional.logsigmoid",
	"nll_loss_nd":        "torch.nn.functional.nll_loss",
	"im2col":             "torch.nn.functional.unfold",
	"col2im":             "torch.nn.functional.fold",
	"numpy_T":            "Tensor.T",
	"matrix_H":           "Tensor.H",
	"pad_sequence":       "torch.nn.utils.rnn.pad_sequence",
}

// inFunctional are the operators of PyTorch's C++ module nn that torch.nn.functional has by that name.
var inFunctional = set(`adaptive_avg_pool2d adaptive_avg_pool3d adaptive_max_pool2d adaptive_max_pool3d avg_pool2d
	avg_pool3d binary_cross_entropy elu elu_ fractional_max_pool2d fractional_max_pool3d gelu glu hardsigmoid hardswish
	hardtanh hardtanh_ huber_loss l1_loss leaky_relu leaky_relu_ linear max_pool2d_with_indices max_pool3d_with_indices
	max_unpool2d max_unpool3d mish mse_loss multi_margin_loss multilabel_margin_loss nll_loss one_hot pad relu6
	scaled_dot_product_attention silu smooth_l1_loss soft_margin_loss softplus softshrink`)

// onlyOps are operators that native_functions.yaml offers to Python, but Python has in torch.ops alone.
var onlyOps = set(`alias convolution_overrideable copy copy_sparse_to_sparse_ fake_quantize_per_channel_affine_cachemask
	fake_quantize_per_tensor_affine_cachemask index lift lift_fresh lift_fresh_copy nested_to_padded_tensor nonzero_numpy
	normal_functional slice sparse_sampled_addmm unique_dim unique_dim_consecutive`)

// python is where PyTorch's Python API has the operator.
func (f *Func) python() string {
	s := f.Schema
	base := s.Base
	if p, ok := pythonNames[base]; ok {
		return p
	}
	switch m := s.Module; {
	case s.Namespace != "aten":
		return "torch.ops." + s.Namespace + "." + base
	case len(s.Variants) == 0, onlyOps[base], strings.HasPrefix(base, "_"), strings.Contains(base, "_backward"):
		return "torch.ops.aten." + base
	case m == "nn" && inFunctional[base]:
		return "torch.nn.functional." + base
	case m == "nn":
		return "torch.ops.aten." + base
	case m == "linalg" || m == "fft" || m == "special":
		if rest, ok := strings.CutPrefix(base, m+"_"); ok {
			return "torch." + m + "." + rest
		}
	case f.Receiver == "Tensor", f.Kind != Out && !s.hasVariant("function"):
		return "Tensor." + base
	}
	return "torch." + base
}
