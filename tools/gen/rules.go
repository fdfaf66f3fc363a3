package main

import (
	"maps"
	"regexp"
	"strings"
)

// An exclusion says which operators get no function, and why.
type exclusion struct {
	match  func(s *Schema) bool
	what   string // for people: which operators
	reason string
	dead   bool // there is no kernel to call
}

func set(names string) map[string]bool {
	m := map[string]bool{}
	for _, n := range strings.Fields(names) {
		m[n] = true
	}
	return m
}

func named(names ...string) func(*Schema) bool {
	m := set(strings.Join(names, " "))
	return func(s *Schema) bool { return m[s.Name()] }
}

func pattern(re string) func(*Schema) bool {
	r := regexp.MustCompile(`^(?:` + re + `)$`)
	return func(s *Schema) bool { return r.MatchString(s.Name()) }
}

func uses(ok func(Type) bool) func(*Schema) bool {
	return func(s *Schema) bool {
		for _, list := range [][]Arg{s.Args, s.Returns} {
			for _, a := range list {
				if ok(a.Type) {
					return true
				}
			}
		}
		return false
	}
}

// exclusions, the first that matches counts. Everything here can still be reached by torch.Call, if its
// values have a Go form.
var exclusions = []exclusion{
	// What has no Go form.
	{uses(func(t Type) bool { return t.Base == "Storage" }), "arguments of type Storage", "a storage has no Go type; torch.Call takes a tensor for its own; set_.source_Tensor does the same", false},
	{uses(func(t Type) bool { return t.Base == "Stream" }), "arguments of type Stream", "hand-written: Tensor.RecordStream", false},
	{uses(func(t Type) bool { return t.Base == "Dict" }), "results of type Dict", "a dictionary has no Go type; TorchScript's distributed autograd alone uses it", false},
	{func(s *Schema) bool {
		for _, a := range s.Args {
			if a.Type.Base == "Any" && !anyStrings[a.Name] {
				return true
			}
		}
		return len(s.Returns) > 0 && s.Returns[0].Type.Base == "Any"
	}, "Any, other than a name", "no Go type says what is in it; here it stands for packed weights", false},
	{uses(func(t Type) bool { return t.Base == "QScheme" }), "results of type QScheme", "a quantization scheme has no Go type; torch.Call returns its number", false},

	// What would not work.
	{pattern(`static_runtime::.*`), "static_runtime", "the kernels live in TorchScript's static runtime, the dispatcher has none", true},
	{pattern(`inductor_prims::.*`), "inductor_prims", "the kernel is Python code", true},
	{pattern(`_test::.*|aten::_test_.*`), "_test and aten::_test_*", "exists for PyTorch's own tests", false},

	// What would only confuse.
	{pattern(`aten::sym_(size\.int|stride\.int|numel|storage_offset|is_contiguous)`), "aten::sym_*", "the symbolic twin, for tracers; the plain one is there", false},
	{pattern(`aten::range(\..*)?`), "range", "PyTorch has deprecated it for arange; torch.Range is a part of an index", false},
	{pattern(`quantized::(add|mul)(_relu)?\.(Scalar|Scalar_out|out)`), "quantized::add.Scalar, add.out and their kin", "registered twice: quantized::add_scalar, add_out", false},
	{pattern(`aten::__(and|or|xor|lshift|rshift|iand|ior|ixor|ilshift|irshift)__\..*`), "aten::__and__ and its kin", "Python's spelling of bitwise_and and its kin", false},

	// What is hand-written.
	{named("aten::size.int", "aten::stride.int", "aten::numel", "aten::dim"), "size, stride, numel, dim", "hand-written: Tensor.Shape, Size, Stride, Numel, Dim, without a call to an operator", false},
	{named("aten::is_leaf", "aten::requires_grad_", "aten::_backward", "aten::is_inference", "aten::set_data"), "is_leaf, requires_grad_, _backward, is_inference, set_data", "hand-written: Tensor.IsLeaf, SetRequiresGrad, Backward, IsInference, SetData", false},
	{named("aten::item"), "item", "hand-written: torch.Item", false},
	{named("aten::is_contiguous", "aten::storage_offset"), "is_contiguous, storage_offset", "hand-written: Tensor.IsContiguous, StorageOffset, without a call to an operator", false},
	{pattern(`aten::to\..*`), "to", "hand-written: Tensor.To", false},
}

// words are the parts of PyTorch's names that are not spelled with one capital letter.
var words = map[string]string{
	"dtype":   "DType",
	"keepdim": "KeepDim",
	"matmul":  "MatMul",
	"intlist": "IntList",
	"IntList": "IntList",
}

// bareOverloads are the overloads that get the bare name, in this order of preference, where several
// functions share a name: add.Tensor is Add.
var bareOverloads = []string{"", "Tensor", "Tensor_Tensor", "int", "self", "input", "List", "Scalar"}

// dropped are the parts of an overload's name that say nothing to a reader.
var dropped = map[string]bool{"IntList": true, "int": true, "ScalarOpt": true}

// irregular are the overloads that the rules (see suffix) would name badly, with the reason: the suffix
// of an overload's Go name, "" for the bare name.
var irregular = []struct {
	why   string
	names map[string]string
}{
	{"a number is what one means here", map[string]string{
		"aten::fill.Scalar": "", "aten::fill.Tensor": "Tensor",
		"aten::masked_fill.Scalar": "", "aten::masked_fill.Tensor": "Tensor",
		"aten::index_fill.int_Scalar": "", "aten::index_fill.int_Tensor": "Tensor",
		"aten::repeat_interleave.self_int": "", "aten::repeat_interleave.self_Tensor": "Tensor", "aten::repeat_interleave.Tensor": "Indices",
		"aten::_foreach_addcdiv.Scalar": "", "aten::_foreach_addcdiv.Tensor": "Tensor",
		"aten::_foreach_addcmul.Scalar": "", "aten::_foreach_addcmul.Tensor": "Tensor",
		"aten::tensor_split.sections": "", "aten::tensor_split.tensor_indices_or_sections": "Tensor",
		"aten::histogram.bin_ct": "", "aten::histogram.bins_tensor": "Bins",
	}},
	{"a list is what one means here", map[string]string{
		"aten::_foreach_add.List": "", "aten::_foreach_add.Tensor": "Tensor",
		"aten::_foreach_mul.List": "", "aten::_foreach_mul.Tensor": "Tensor",
		"aten::_foreach_div.List": "", "aten::_foreach_div.Tensor": "Tensor",
	}},
	{"it is what Python calls by default", map[string]string{
		"aten::std.correction": "", "aten::std": "Unbiased", "aten::std.dim": "DimUnbiased",
		"aten::var.correction": "", "aten::var": "Unbiased", "aten::var.dim": "DimUnbiased",
		"aten::std_mean.correction": "", "aten::std_mean": "Unbiased", "aten::std_mean.dim": "DimUnbiased",
		"aten::var_mean.correction": "", "aten::var_mean": "Unbiased", "aten::var_mean.dim": "DimUnbiased",
		"aten::stft.center": "", "aten::stft": "NoCenter",
		"aten::linalg_pinv.atol_rtol_float": "", "aten::linalg_pinv": "Rcond", "aten::linalg_pinv.atol_rtol_tensor": "Tensor", "aten::linalg_pinv.rcond_tensor": "RcondTensor",
		"aten::linalg_matrix_rank.atol_rtol_float": "", "aten::linalg_matrix_rank": "Tol", "aten::linalg_matrix_rank.atol_rtol_tensor": "Tensor", "aten::linalg_matrix_rank.tol_tensor": "TolTensor",
		"aten::where.self": "", "aten::where": "Nonzero",
		"aten::trapezoid.x": "", "aten::trapz.x": "", "aten::cumulative_trapezoid.x": "",
	}},
	{"another operator has the name", map[string]string{
		"aten::scatter.src": "", "aten::scatter.reduce": "SrcReduce", // ScatterReduce is scatter_reduce
		"aten::normal.out": "Functional", // of normal_functional
	}},
	{"the overload's name says nothing to a reader", map[string]string{
		"aten::hsplit.array": "Indices", "aten::vsplit.array": "Indices", "aten::dsplit.array": "Indices",
		"aten::to_sparse.sparse_dim": "Dim", "aten::_to_sparse.sparse_dim": "Dim",
		"aten::sparse_coo_tensor.indices_size": "", "aten::sparse_coo_tensor.indices": "Infer", "aten::sparse_coo_tensor.size": "Empty",
		"aten::sparse_csr_tensor.crow_col_value_size": "", "aten::sparse_csr_tensor.crow_col_value": "Infer",
		"aten::sparse_csc_tensor.ccol_row_value_size": "", "aten::sparse_csc_tensor.ccol_row_value": "Infer",
		"aten::sparse_bsr_tensor.crow_col_value_size": "", "aten::sparse_bsr_tensor.crow_col_value": "Infer",
		"aten::sparse_bsc_tensor.ccol_row_value_size": "", "aten::sparse_bsc_tensor.ccol_row_value": "Infer",
		"aten::sparse_compressed_tensor.comp_plain_value_size": "", "aten::sparse_compressed_tensor.comp_plain_value": "Infer",
		"aten::gradient.scalarint": "", "aten::gradient.scalararray": "Dims", "aten::gradient.array": "AllDims",
		"aten::gradient.scalarrayint": "Spacings", "aten::gradient.scalarrayarray": "SpacingsDims",
		"aten::gradient.tensorarrayint": "Coords", "aten::gradient.tensorarray": "CoordsDims",
	}},
}

// suffixes has the names of all of irregular.
var suffixes = func() map[string]string {
	m := map[string]string{}
	for _, g := range irregular {
		maps.Copy(m, g.names)
	}
	return m
}()

// hidden are optional arguments that a caller never sets; they get no field.
var hidden = map[string]string{
	"aten::expand.implicit":      "only TorchScript's broadcasting sets it",
	"aten::expand_copy.implicit": "only TorchScript's broadcasting sets it",
}

// anyStrings are the arguments of type Any that take a string: a process group's and a reduction's name.
var anyStrings = map[string]bool{"group_name": true, "reduce_op": true}

// A namespace is a Go value whose methods are operators: torch.Quantized.Add.
type namespace struct{ Var, Doc string }

// namespaces by the operators' namespace; aten's operators with a leading underscore are "aten::_".
var namespaces = map[string]namespace{
	"aten::_":                   {"Internal", "has the operators of aten whose names start with an underscore: what PyTorch itself calls, subject to change. torch._foreach_add is torch.Internal.ForeachAdd."},
	"quantized":                 {"Quantized", "has the operators of torch.ops.quantized."},
	"_quantized":                {"QuantizedInternal", "has the operators of torch.ops._quantized."},
	"quantization":              {"Quantization", "has the operators of torch.ops.quantization."},
	"mkldnn":                    {"MKLDNN", "has the operators of torch.ops.mkldnn: oneDNN's fused convolutions and linear layers."},
	"mkldnn_prepacked":          {"MKLDNNPrepacked", "has the operators of torch.ops.mkldnn_prepacked."},
	"mkl":                       {"MKL", "has the operators of torch.ops.mkl."},
	"onednn":                    {"OneDNN", "has the operators of torch.ops.onednn: oneDNN's quantized layers."},
	"sparse":                    {"SparseQuantized", "has the operators of torch.ops.sparse: quantized layers with sparse weights."},
	"c10d":                      {"C10D", "has the operators of torch.ops.c10d."},
	"_c10d_functional":          {"C10DFunctional", "has the operators of torch.ops._c10d_functional: collectives that return new tensors."},
	"_c10d_functional_autograd": {"C10DFunctionalAutograd", "has the operators of torch.ops._c10d_functional_autograd."},
	"_dtensor":                  {"DTensor", "has the operators of torch.ops._dtensor."},
	"fsdp":                      {"FSDP", "has the operators of torch.ops.fsdp."},
	"symm_mem":                  {"SymmMem", "has the operators of torch.ops.symm_mem: collectives over symmetric memory."},
	"inductor":                  {"Inductor", "has the operators of torch.ops.inductor."},
	"profiler":                  {"Profiler", "has the operators of torch.ops.profiler."},
}

// scalarTypes are the numbers of c10::ScalarType that schemas use as defaults, in Go.
var scalarTypes = map[string]string{"4": "Int64"}

// memoryFormats are the numbers of c10::MemoryFormat that schemas use as defaults, in Go.
var memoryFormats = map[string]string{"0": "ContiguousFormat"}
