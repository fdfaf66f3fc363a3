package torch

import (
	"errors"
	"fmt"
	"math"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/torchgo/torchgo/cgo"
)

// inChild runs the test again in a process of its own, so that one that libtorch kills is a failure
// of this test alone; its last line on standard error says what it was doing. It is true in the child.
func inChild(t *testing.T, env ...string) bool {
	t.Helper()
	if os.Getenv("TORCHGO_TEST_CHILD") == t.Name() {
		return true
	}
	args := []string{"-test.run=^" + t.Name() + "$", "-test.v", "-test.timeout=5m"}
	if testing.Short() {
		args = append(args, "-test.short")
	}
	child := exec.Command(os.Args[0], args...)
	child.Env = append(append(os.Environ(), "TORCHGO_TEST_CHILD="+t.Name()), env...)
	out, err := child.CombinedOutput()
	if err != nil {
		last := ""
		if i := strings.LastIndex(string(out), "abuse: "); i >= 0 {
			last, _, _ = strings.Cut(string(out[i:]), "\n")
		}
		t.Fatalf("%v; last %q\n%s", err, last, out[max(0, len(out)-8<<10):])
	}
	for line := range strings.Lines(string(out)) {
		if _, text, ok := strings.Cut(line, "_test.go:"); ok {
			t.Log(strings.TrimSpace(text))
		}
	}
	return false
}

// made stands for a tensor of ones, made anew for each call.
type made struct {
	dtype DType
	shape []int
	zeros bool
}

func ten(shape ...int) made            { return made{dtype: Float32, shape: shape} }
func tenOf(d DType, shape ...int) made { return made{dtype: d, shape: shape} }
func (m made) tensor() *Tensor {
	name := "aten::ones"
	if m.zeros {
		name = "aten::zeros"
	}
	return Call(name, append([]int{}, m.shape...), m.dtype, nil, nil, nil)[0].(*Tensor)
}
func args(a ...any) []any                  { return a }
func replaced(a []any, i int, v any) []any { b := append([]any{}, a...); b[i] = v; return b }

func materialize(in []any) []any {
	out := make([]any, len(in))
	for i, a := range in {
		switch v := a.(type) {
		case made:
			out[i] = v.tensor()
		case []made:
			ts := make([]*Tensor, len(v))
			for k, m := range v {
				ts[k] = m.tensor()
			}
			out[i] = ts
		default:
			out[i] = a
		}
	}
	return out
}

// abused are operators with arguments that are right, and some that are wrong.
var abused = []struct {
	name string
	good []any
	bad  [][]any
}{
	{"aten::add.Tensor", args(ten(2, 3), ten(3), 1), [][]any{args(ten(2, 3), ten(2), 1), args(tenOf(Int64, 2), tenOf(Int64, 2), 1.5)}},
	{"aten::sub.Tensor", args(ten(2), ten(2), 1), [][]any{args(tenOf(Bool, 2), tenOf(Bool, 2), 1)}},
	{"aten::mul.Tensor", args(ten(2, 3), ten(2, 3)), [][]any{args(ten(2, 3), ten(4))}},
	{"aten::div.Tensor", args(ten(2), ten(2)), [][]any{args(ten(2), ten(3))}},
	{"aten::add_.Tensor", args(ten(2), ten(2), 1), [][]any{args(ten(2), ten(3, 2), 1), args(tenOf(Int64, 2), ten(2), 1)}},
	{"aten::pow.Tensor_Scalar", args(ten(2), 2), [][]any{args(tenOf(Int64, 2), -1)}},
	{"aten::lt.Tensor", args(ten(2), ten(2)), [][]any{args(ten(2), ten(3)), args(tenOf(Complex64, 2), ten(2))}},
	{"aten::clamp", args(ten(2), 0, 1), [][]any{args(ten(2), nil, nil), args(tenOf(Complex64, 2), 0, 1)}},
	{"aten::where.self", args(tenOf(Bool, 2), ten(2), ten(2)), [][]any{args(ten(2), ten(2), ten(2)), args(tenOf(Bool, 2), ten(3), ten(2))}},
	{"aten::matmul", args(ten(2, 3), ten(3, 4)), [][]any{args(ten(2, 3), ten(4, 5)), args(ten(2, 3), tenOf(Int64, 3, 4)), args(ten(), ten(2))}},
	{"aten::mm", args(ten(2, 3), ten(3, 4)), [][]any{args(ten(2), ten(3, 4)), args(ten(1, 2, 3), ten(3, 4))}},
	{"aten::bmm", args(ten(1, 2, 3), ten(1, 3, 4)), [][]any{args(ten(2, 2, 3), ten(1, 3, 4)), args(ten(2, 3), ten(3, 4))}},
	{"aten::addmm", args(ten(4), ten(2, 3), ten(3, 4), 1, 1), [][]any{args(ten(5), ten(2, 3), ten(3, 4), 1, 1)}},
	{"aten::baddbmm", args(ten(4), ten(1, 2, 3), ten(1, 3, 4), 1, 1), [][]any{args(ten(4), ten(1, 2, 3), ten(1, 2, 4), 1, 1)}},
	{"aten::linear", args(ten(2, 3), ten(4, 3), ten(4)), [][]any{args(ten(2, 3), ten(3, 4), nil), args(ten(2, 3), ten(4, 3), ten(5))}},
	{"aten::dot", args(ten(3), ten(3)), [][]any{args(ten(3), ten(4)), args(ten(1, 3), ten(3))}},
	{"aten::mv", args(ten(2, 3), ten(3)), [][]any{args(ten(2, 3), ten(2))}},
	{"aten::outer", args(ten(2), ten(3)), [][]any{args(ten(2, 2), ten(3))}},
	{"aten::kron", args(ten(2, 2), ten(2, 2)), nil},
	{"aten::einsum", args("ij,jk->ik", []made{ten(2, 3), ten(3, 4)}, nil), [][]any{args("ij,jk->ik", []made{ten(2, 3)}, nil), args("ij->>", []made{ten(2, 3)}, nil), args("i", []made{ten(2, 3)}, nil)}},
	{"aten::cat", args([]made{ten(2), ten(3)}, 0), [][]any{args([]made{}, 0), args([]made{ten(2, 2), ten(3, 3)}, 0), args([]made{ten(2)}, 5)}},
	{"aten::stack", args([]made{ten(2), ten(2)}, 0), [][]any{args([]made{ten(2), ten(3)}, 0), args([]made{}, 0)}},
	{"aten::split.Tensor", args(ten(4), 2, 0), [][]any{args(ten(4), -1, 0), args(ten(4), 0, 0), args(ten(4), 2, 3)}},
	{"aten::chunk", args(ten(4), 2, 0), [][]any{args(ten(4), 0, 0)}},
	{"aten::tensor_split.sections", args(ten(4), 2, 0), [][]any{args(ten(4), 0, 0)}},
	{"aten::unbind.int", args(ten(2, 2), 0), [][]any{args(ten(2, 2), 2)}},
	{"aten::meshgrid", args([]made{ten(2), ten(3)}), [][]any{args([]made{ten(2, 2)}), args([]made{})}},
	{"aten::view", args(ten(2, 3), []int{6}), [][]any{args(ten(2, 3), []int{5}), args(ten(2, 3), []int{-1, -1}), args(ten(2, 3), []int{1 << 50})}},
	{"aten::reshape", args(ten(2, 3), []int{3, -1}), [][]any{args(ten(2, 3), []int{4, -1}), args(ten(2, 3), []int{-2})}},
	{"aten::expand", args(ten(1, 3), []int{2, 3}, false), [][]any{args(ten(2, 3), []int{3, 3}, false), args(ten(2, 3), []int{3}, false)}},
	{"aten::broadcast_to", args(ten(1), []int{3}), [][]any{args(ten(2), []int{3})}},
	{"aten::permute", args(ten(2, 3), []int{1, 0}), [][]any{args(ten(2, 3), []int{0, 0}), args(ten(2, 3), []int{0})}},
	{"aten::transpose.int", args(ten(2, 3), 0, 1), [][]any{args(ten(2, 3), 0, 2)}},
	{"aten::movedim.int", args(ten(2, 3), 0, 1), [][]any{args(ten(2, 3), 0, 7)}},
	{"aten::select.int", args(ten(2, 3), 0, 1), [][]any{args(ten(2, 3), 0, 2), args(ten(), 0, 0)}},
	{"aten::slice.Tensor", args(ten(4), 0, 1, 3, 1), [][]any{args(ten(4), 0, 1, 3, 0), args(ten(), 0, 0, 1, 1)}},
	{"aten::squeeze.dim", args(ten(1, 2), 0), [][]any{args(ten(1, 2), 2)}},
	{"aten::unsqueeze", args(ten(2), 0), [][]any{args(ten(2), 3)}},
	{"aten::unfold", args(ten(4), 0, 2, 1), [][]any{args(ten(4), 0, 5, 1), args(ten(4), 0, 2, 0)}},
	{"aten::as_strided", args(ten(4), []int{2, 2}, []int{2, 1}, 0), [][]any{args(ten(4), []int{5}, []int{1}, 0), args(ten(4), []int{2}, []int{1, 1}, 0), args(ten(4), []int{2}, []int{-1}, 0), args(ten(4), []int{2}, []int{1 << 50}, 0)}},
	{"aten::flip", args(ten(2, 3), []int{0}), [][]any{args(ten(2, 3), []int{0, 0})}},
	{"aten::roll", args(ten(4), []int{1}, []int{0}), [][]any{args(ten(4), []int{1}, []int{0, 1})}},
	{"aten::repeat", args(ten(2), []int{2}), [][]any{args(ten(2, 2), []int{2}), args(ten(2), []int{-1}), args(ten(2), []int{1 << 50})}},
	{"aten::tile", args(ten(2), []int{2}), [][]any{args(ten(2), []int{1 << 50})}},
	{"aten::tril", args(ten(2, 2), 0), [][]any{args(ten(2), 0)}},
	{"aten::gather", args(ten(2, 2), 0, tenOf(Int64, 1, 2), false), [][]any{args(ten(2, 2), 0, ten(1, 2), false), args(ten(1, 2), 0, tenOf(Int64, 1, 2), false)}},
	{"aten::scatter.src", args(ten(2, 2), 0, tenOf(Int64, 1, 2), ten(1, 2)), [][]any{args(ten(1, 2), 0, tenOf(Int64, 1, 2), ten(1, 2)), args(ten(2, 2), 0, tenOf(Int64, 1, 2), tenOf(Int64, 1, 2))}},
	{"aten::index_select", args(ten(2, 2), 0, tenOf(Int64, 1)), [][]any{args(ten(1, 2), 0, tenOf(Int64, 1)), args(ten(2, 2), 0, tenOf(Int64, 1, 1)), args(ten(2, 2), 0, ten(1))}},
	{"aten::index.Tensor", args(ten(2, 2), []made{tenOf(Int64, 1)}), [][]any{args(ten(1, 2), []made{tenOf(Int64, 1)}), args(ten(2), []made{ten(1)}), args(ten(2), []made{tenOf(Int64, 1), tenOf(Int64, 1)}), args(ten(2), []made{tenOf(Bool, 3)})}},
	{"aten::index_put_", args(ten(2, 2), []made{tenOf(Int64, 1)}, ten(2), false), [][]any{args(ten(1, 2), []made{tenOf(Int64, 1)}, ten(2), false), args(ten(2, 2), []made{tenOf(Int64, 1)}, tenOf(Int64, 2), false)}},
	{"aten::masked_fill.Scalar", args(ten(2), tenOf(Bool, 2), 0), [][]any{args(ten(2), ten(2), 0), args(ten(2), tenOf(Bool, 3), 0)}},
	{"aten::embedding", args(ten(3, 2), tenOf(Int64, 2), -1, false, false), [][]any{args(ten(1, 2), tenOf(Int64, 2), -1, false, false), args(ten(3), tenOf(Int64, 2), -1, false, false), args(ten(3, 2), ten(2), -1, false, false)}},
	{"aten::embedding_bag", args(ten(3, 2), tenOf(Int64, 2), made{Int64, []int{1}, true}, false, 0, false, nil, false), [][]any{args(ten(3, 2), tenOf(Int64, 2), tenOf(Int64, 1), false, 0, false, nil, false), args(ten(3, 2), ten(2), tenOf(Int64, 1), false, 0, false, nil, false)}},
	{"aten::one_hot", args(tenOf(Int64, 2), 2), [][]any{args(ten(2), 2), args(tenOf(Int64, 2), 1), args(tenOf(Int64, 2), 1<<50)}},
	{"aten::searchsorted.Tensor", args(ten(3), ten(2), false, false, nil, nil), [][]any{args(ten(3), ten(2), false, false, "middle", nil), args(ten(2, 3), ten(3, 2), false, false, nil, nil)}},
	{"aten::sum.dim_IntList", args(ten(2, 3), []int{0}, false, nil), [][]any{args(ten(2, 3), []int{2}, false, nil), args(ten(2, 3), []int{0, 0}, false, nil)}},
	{"aten::mean", args(ten(2), nil), [][]any{args(tenOf(Int64, 2), nil)}},
	{"aten::std.correction", args(ten(3), []int{0}, 1, false), [][]any{args(tenOf(Int64, 3), []int{0}, 1, false)}},
	{"aten::norm.ScalarOpt_dim", args(ten(3), 2, []int{0}, false), [][]any{args(ten(3), 2, []int{4}, false)}},
	{"aten::cumsum", args(ten(3), 0, nil), [][]any{args(ten(3), 1, nil)}},
	{"aten::argmax", args(ten(3), 0, false), [][]any{args(ten(0), nil, false), args(tenOf(Complex64, 3), 0, false)}},
	{"aten::topk", args(ten(3), 2, -1, true, true), [][]any{args(ten(3), 4, -1, true, true), args(ten(3), -1, -1, true, true)}},
	{"aten::sort", args(ten(3), -1, false), [][]any{args(ten(3), 2, false), args(tenOf(Complex64, 3), -1, false)}},
	{"aten::cdist", args(ten(2, 3), ten(2, 3), 2.0, nil), [][]any{args(ten(2, 3), ten(2, 4), 2.0, nil), args(ten(3), ten(3), 2.0, nil), args(ten(2, 3), ten(2, 3), -1.0, nil)}},
	{"aten::histc", args(ten(3), 4, 0, 2), [][]any{args(ten(3), 0, 0, 2), args(ten(3), 4, 2, 0)}},
	{"aten::bincount", args(tenOf(Int64, 3), nil, 0), [][]any{args(ten(3), nil, 0), args(tenOf(Int64, 3), nil, -1), args(tenOf(Int64, 1, 3), nil, 0)}},
	{"aten::multinomial", args(ten(3), 2, false, nil), [][]any{args(ten(3), 4, false, nil), args(ten(3), 0, false, nil), args(tenOf(Int64, 3), 1, false, nil)}},
	{"aten::softmax.int", args(ten(2, 3), -1, nil), [][]any{args(ten(2, 3), 2, nil), args(tenOf(Int64, 2), 0, nil)}},
	{"aten::gelu", args(ten(3), "tanh"), [][]any{args(ten(3), "sigmoid"), args(tenOf(Int64, 3), "none")}},
	{"aten::dropout", args(ten(3), 0.5, true), [][]any{args(ten(3), 1.5, true), args(ten(3), math.NaN(), true)}},
	{"aten::layer_norm", args(ten(2, 3), []int{3}, nil, nil, 1e-5, false), [][]any{args(ten(2, 3), []int{2}, nil, nil, 1e-5, false), args(ten(2, 3), []int{}, nil, nil, 1e-5, false), args(ten(2, 3), []int{3}, ten(2), nil, 1e-5, false)}},
	{"aten::group_norm", args(ten(2, 4), 2, nil, nil, 1e-5, false), [][]any{args(ten(2, 4), 3, nil, nil, 1e-5, false), args(ten(2, 4), 0, nil, nil, 1e-5, false)}},
	{"aten::batch_norm", args(ten(2, 3), nil, nil, ten(3), ten(3), false, 0.1, 1e-5, false), [][]any{args(ten(2, 3), nil, nil, ten(2), ten(3), false, 0.1, 1e-5, false), args(ten(2, 3), nil, nil, nil, nil, false, 0.1, 1e-5, false)}},
	{"aten::conv2d", args(ten(1, 2, 4, 4), ten(3, 2, 3, 3), ten(3), []int{1, 1}, []int{0, 0}, []int{1, 1}, 1), [][]any{args(ten(1, 3, 4, 4), ten(3, 2, 3, 3), nil, []int{1, 1}, []int{0, 0}, []int{1, 1}, 1), args(ten(1, 2, 4, 4), ten(3, 2, 3, 3), nil, []int{0, 0}, []int{0, 0}, []int{1, 1}, 1), args(ten(1, 2, 4, 4), ten(3, 2, 3, 3), nil, []int{1, 1}, []int{-1, 0}, []int{1, 1}, 1), args(ten(1, 2, 4, 4), ten(3, 2, 3, 3), nil, []int{1, 1}, []int{0, 0}, []int{1, 1}, 0)}},
	{"aten::conv_transpose2d.input", args(ten(1, 2, 4, 4), ten(2, 3, 3, 3), nil, []int{1, 1}, []int{0, 0}, []int{0, 0}, 1, []int{1, 1}), [][]any{args(ten(1, 3, 4, 4), ten(2, 3, 3, 3), nil, []int{1, 1}, []int{0, 0}, []int{0, 0}, 1, []int{1, 1})}},
	{"aten::max_pool2d", args(ten(1, 4, 4), []int{2, 2}, []int{}, []int{0, 0}, []int{1, 1}, false), [][]any{args(ten(1, 4, 4), []int{0, 2}, []int{}, []int{0, 0}, []int{1, 1}, false), args(ten(1, 4, 4), []int{2, 2}, []int{}, []int{3, 3}, []int{1, 1}, false), args(ten(4), []int{2, 2}, []int{}, []int{0, 0}, []int{1, 1}, false)}},
	{"aten::avg_pool2d", args(ten(1, 4, 4), []int{2, 2}, []int{}, []int{0, 0}, false, true, nil), [][]any{args(ten(1, 4, 4), []int{2, 2}, []int{}, []int{0, 0}, false, true, 0)}},
	{"aten::max_unpool2d", args(ten(1, 2, 2), tenOf(Int64, 1, 2, 2), []int{4, 4}), [][]any{args(ten(1, 2, 2), ten(1, 2, 2), []int{4, 4}), args(ten(1, 2, 2), tenOf(Int64, 1, 2, 2), []int{1, 1}), args(ten(1, 2, 2), tenOf(Int64, 1, 2, 3), []int{4, 4})}},
	{"aten::upsample_bilinear2d", args(ten(1, 1, 2, 2), []int{4, 4}, false, nil, nil), [][]any{args(ten(1, 1, 2, 2), []int{0, 4}, false, nil, nil), args(ten(2, 2), []int{4, 4}, false, nil, nil)}},
	{"aten::grid_sampler", args(ten(1, 1, 2, 2), ten(1, 3, 3, 2), 0, 0, false), [][]any{args(ten(1, 1, 2, 2), ten(1, 3, 3, 3), 0, 0, false), args(ten(1, 1, 2, 2), ten(2, 3, 3, 2), 0, 0, false)}},
	{"aten::pixel_shuffle", args(ten(4, 2, 2), 2), [][]any{args(ten(3, 2, 2), 2), args(ten(4, 2, 2), 0)}},
	{"aten::im2col", args(ten(1, 4, 4), []int{2, 2}, []int{1, 1}, []int{0, 0}, []int{1, 1}), [][]any{args(ten(1, 4, 4), []int{5, 5}, []int{1, 1}, []int{0, 0}, []int{1, 1}), args(ten(1, 4, 4), []int{2, 2}, []int{1, 1}, []int{0, 0}, []int{0, 1})}},
	{"aten::pad", args(ten(2), []int{1, 1}, "constant", 0.0), [][]any{args(ten(2), []int{1}, "constant", 0.0), args(ten(2), []int{-3, 0}, "constant", 0.0), args(ten(2), []int{1, 1}, "sideways", nil)}},
	{"aten::reflection_pad1d", args(ten(1, 4), []int{1, 1}), [][]any{args(ten(1, 4), []int{4, 4}), args(ten(4), []int{1, 1})}},
	{"aten::scaled_dot_product_attention", args(ten(1, 2, 3, 4), ten(1, 2, 3, 4), ten(1, 2, 3, 4), nil, 0.0, false, nil, false), [][]any{args(ten(1, 2, 3, 4), ten(1, 2, 3, 5), ten(1, 2, 3, 4), nil, 0.0, false, nil, false), args(ten(1, 2, 3, 4), tenOf(Float64, 1, 2, 3, 4), ten(1, 2, 3, 4), nil, 0.0, false, nil, false), args(ten(4), ten(4), ten(4), nil, 0.0, false, nil, false)}},
	{"aten::nll_loss", args(ten(2, 3), tenOf(Int64, 2), nil, 1, -100), [][]any{args(ten(2, 1), tenOf(Int64, 2), nil, 1, -100), args(ten(2, 3), tenOf(Int64, 3), nil, 1, -100), args(ten(2, 3), ten(2), nil, 1, -100)}},
	{"aten::cross_entropy_loss", args(ten(2, 3), tenOf(Int64, 2), nil, 1, -100, 0.0), [][]any{args(ten(2, 1), tenOf(Int64, 2), nil, 1, -100, 0.0), args(ten(2, 3), tenOf(Int64, 2), ten(2), 1, -100, 0.0), args(ten(2, 3), tenOf(Int64, 2), nil, 1, -100, 2.0)}},
	{"aten::ctc_loss.IntList", args(ten(4, 1, 3), tenOf(Int64, 1, 2), []int{4}, []int{2}, 0, 1, false), [][]any{args(ten(4, 1, 3), tenOf(Int64, 1, 2), []int{5}, []int{2}, 0, 1, false), args(ten(4, 1, 3), tenOf(Int64, 1, 2), []int{4, 4}, []int{2}, 0, 1, false), args(ten(4, 1, 3), tenOf(Int64, 1, 2), []int{4}, []int{2}, 9, 1, false)}},
	{"aten::lstm.input", args(ten(3, 1, 2), []made{ten(1, 1, 4), ten(1, 1, 4)}, []made{ten(16, 2), ten(16, 4)}, false, 1, 0.0, false, false, false), [][]any{args(ten(3, 1, 2), []made{ten(1, 1, 4)}, []made{ten(16, 2), ten(16, 4)}, false, 1, 0.0, false, false, false), args(ten(3, 1, 2), []made{ten(1, 1, 4), ten(1, 1, 4)}, []made{ten(16, 2)}, false, 1, 0.0, false, false, false), args(ten(3, 1, 2), []made{ten(1, 1, 4), ten(1, 1, 4)}, []made{ten(16, 2), ten(16, 4)}, true, 1, 0.0, false, false, false)}},
	{"aten::gru.input", args(ten(3, 1, 2), ten(1, 1, 4), []made{ten(12, 2), ten(12, 4)}, false, 1, 0.0, false, false, false), [][]any{args(ten(3, 1, 2), ten(1, 1, 4), []made{ten(13, 2), ten(12, 4)}, false, 1, 0.0, false, false, false)}},
	{"aten::linalg_inv", args(tenOf(Float32, 1, 1)), [][]any{args(ten(2, 2)), args(ten(2, 3)), args(tenOf(Int64, 2, 2))}},
	{"aten::linalg_solve", args(ten(1, 1), ten(1), true), [][]any{args(ten(2, 2), ten(2), true), args(ten(2, 3), ten(2), true)}},
	{"aten::linalg_svd", args(ten(2, 2), true, nil), [][]any{args(ten(2), true, nil), args(ten(2, 2), true, "magic")}},
	{"aten::linalg_cholesky", args(ten(1, 1), false), [][]any{args(ten(2, 2), false)}},
	{"aten::fft_fft", args(ten(4), 4, -1, nil), [][]any{args(ten(4), 0, -1, nil), args(ten(4), 4, 3, nil), args(ten(4), 4, -1, "loud")}},
	{"aten::quantize_per_tensor", args(ten(4), 0.1, 0, QUint8), [][]any{args(tenOf(Int64, 4), 0.1, 0, QUint8), args(ten(4), 0.1, 0, Float32), args(ten(4), 0.1, 1000, QUint8)}},
	{"aten::to.dtype", args(ten(2), Float64, false, false, nil), [][]any{args(ten(2), 99, false, false, nil), args(ten(2), -1, false, false, nil)}},
	{"aten::copy_", args(ten(2), ten(2), false), [][]any{args(ten(2), ten(3), false)}},
	{"aten::fill_.Scalar", args(ten(2), 1), [][]any{args(ten(2), 1i)}},
	{"aten::normal_", args(ten(2), 0.0, 1.0, nil), [][]any{args(ten(2), 0.0, -1.0, nil), args(tenOf(Int64, 2), 0.0, 1.0, nil)}},
	{"aten::random_.from", args(ten(2), 0, 5, nil), [][]any{args(ten(2), 5, 0, nil)}},
	{"aten::arange", args(3, nil, nil, nil, nil), [][]any{args(-1, nil, nil, nil, nil), args(math.Inf(1), nil, nil, nil, nil), args(1<<50, nil, nil, nil, nil)}},
	{"aten::full", args([]int{2}, 1, nil, nil, nil, nil), [][]any{args([]int{-2}, 1, nil, nil, nil, nil), args([]int{1 << 50}, 1, nil, nil, nil, nil)}},
	{"aten::eye", args(2, nil, nil, nil, nil), [][]any{args(-1, nil, nil, nil, nil), args(1<<50, nil, nil, nil, nil)}},
	{"aten::empty.memory_format", args([]int{2}, nil, nil, nil, nil, nil), [][]any{args([]int{1 << 50}, nil, nil, nil, nil, nil), args([]int{1 << 62, 1 << 62}, nil, nil, nil, nil, nil), args([]int{-1}, nil, nil, nil, nil, nil), args([]int{1}, 99, nil, nil, nil, nil), args([]int{1}, nil, 99, nil, nil, nil), args([]int{1}, nil, nil, nil, nil, 99), args([]int{1}, nil, nil, CUDA(77), nil, nil)}},
	{"aten::randint", args(5, []int{2}, nil, nil, nil, nil), [][]any{args(0, []int{2}, nil, nil, nil, nil), args(5, []int{1 << 50}, nil, nil, nil, nil)}},
}

// crashes are the beginnings of calls that end the process inside libtorch, from Python too, so
// that the tests leave them out.
var crashes = map[string]string{
	"aten::lstm.input argument 0: shape": "the operator trusts the input's shape; Python's nn.LSTM checks it before the call",
}

// parameters are the types of an operator's arguments, "Tensor?", "int[]".
func parameters(t *testing.T, name string) []string {
	base, overload, _ := strings.Cut(name, ".")
	handle, err := cgo.OpFind(base, overload, "")
	require.NoError(t, err)
	schema, err := cgo.OpSchema(handle)
	require.NoError(t, err)
	return schemaTypes(schema)
}

func schemaTypes(schema string) (types []string) {
	_, list, _ := strings.Cut(schema, "(")
	depth, start := 1, 0
	for i, r := range list {
		switch {
		case r == '(' || r == '[':
			depth++
		case r == ')' || r == ']':
			depth--
		}
		if depth == 0 || depth == 1 && r == ',' {
			if arg := strings.TrimSpace(list[start:i]); arg != "" && arg != "*" && arg != "..." {
				if i := strings.LastIndex(arg, " "); i >= 0 {
					arg = arg[:i] // the name
				}
				types = append(types, arg)
			}
			start = i + 1
		}
		if depth == 0 {
			break
		}
	}
	return types
}

// tryCall calls an operator on materialized arguments in a scope of its own.
func tryCall(name string, in []any) error {
	return TryDo(func() { Scope(func() { Call(name, materialize(in)...) }) })
}

func TestOperatorsWithBadArguments(t *testing.T) {
	if !inChild(t) {
		return
	}
	require.NoError(t, Load())
	before := LiveTensors()
	calls, failed := 0, 0
	note := func(name, what string) { fmt.Fprintln(os.Stderr, "abuse:", name, what) }
	// may: an error or a result, but an *Error and a living process.
	may := func(name, what string, in []any) {
		if instrumented && strings.Contains(what, fmt.Sprint(1<<50)) {
			return // asan's operator new ends the process where the real one throws
		}
		for call := range crashes {
			if strings.HasPrefix(name+" "+what, call) {
				return
			}
		}
		note(name, what)
		calls++
		if err := tryCall(name, in); err != nil {
			failed++
			var e *Error
			require.ErrorAs(t, err, &e)
			require.NotEmpty(t, e.Message, name)
			require.NotEqual(t, ErrInternal, e.Kind, "%s %s: %v", name, what, err)
		}
	}
	must := func(kind error, name, what string, in []any) {
		note(name, what)
		calls++
		failed++
		err := tryCall(name, in)
		require.Error(t, err, "%s %s", name, what)
		if kind != nil {
			require.ErrorIs(t, err, kind, "%s %s", name, what)
		}
	}
	many := make([]int, 65)
	for i := range many {
		many[i] = 1
	}
	for _, row := range abused {
		require.NoError(t, tryCall(row.name, row.good), row.name)
		for i, bad := range row.bad {
			must(nil, row.name, fmt.Sprintf("bad case %d", i), bad)
		}
		types := parameters(t, row.name)
		require.Len(t, row.good, len(types), row.name)
		must(ErrArgument, row.name, "without arguments", nil)
		must(ErrArgument, row.name, "with one too few", row.good[:len(types)-1])
		must(ErrArgument, row.name, "with one too many", append(append([]any{}, row.good...), nil))
		for i, want := range types {
			with := func(v any) []any { return replaced(row.good, i, v) }
			where := fmt.Sprintf("argument %d: ", i)
			if !strings.HasSuffix(want, "?") {
				must(ErrArgument, row.name, where+"nil", with(nil))
			}
			if !strings.HasPrefix(want, "str") {
				must(ErrArgument, row.name, where+"text", with("text"))
			} else {
				may(row.name, where+"odd text", with("\xff\x00nonsense"))
			}
			must(ErrArgument, row.name, where+"struct", with(struct{}{}))
			switch row.good[i].(type) {
			case made:
				must(ErrArgument, row.name, where+"int for tensor", with(7))
				note(row.name, where+"closed")
				Scope(func() {
					in := materialize(row.good)
					in[i].(*Tensor).Close()
					err := TryDo(func() { Call(row.name, in...) })
					require.ErrorIs(t, err, ErrClosed)
				})
				for _, d := range []DType{Bool, Int64, Float64, Complex64, BFloat16, Float8E4M3FN, Uint16} {
					may(row.name, where+d.String(), with(tenOf(d, row.good[i].(made).shape...)))
				}
				for _, shape := range [][]int{{}, {0}, {5}, {3, 0, 2}, {1, 2, 1, 2, 1, 2, 1}, many[:64]} {
					may(row.name, fmt.Sprint(where, "shape ", len(shape), shape[:min(len(shape), 7)]), with(ten(shape...)))
				}
				note(row.name, where+"meta")
				calls++
				_ = TryDo(func() {
					Scope(func() {
						in := materialize(row.good)
						in[i] = in[i].(*Tensor).To(Meta)
						Call(row.name, in...)
					})
				})
			case []made:
				may(row.name, where+"no tensors", with([]made{}))
				if !strings.Contains(want, "?") {
					must(ErrArgument, row.name, where+"nil in a list", with([]*Tensor{nil, nil}))
				} else {
					may(row.name, where+"nil in a list", with([]*Tensor{nil, nil}))
				}
				must(ErrArgument, row.name, where+"a tensor for a list", with(ten(2)))
			case int:
				for _, n := range []int{-1, 1 << 50, -1 << 60, math.MinInt64, math.MaxInt64} {
					may(row.name, fmt.Sprint(where, n), with(n))
				}
				may(row.name, where+"NaN", with(math.NaN()))
				may(row.name, where+"uint64", with(uint64(math.MaxUint64)))
			case float64:
				for _, x := range []float64{math.NaN(), math.Inf(-1), -1, 1e300} {
					may(row.name, fmt.Sprint(where, x), with(x))
				}
			case []int:
				for _, ns := range [][]int{{}, {0, 0}, {-1, -1}, {1 << 50, 1 << 50}, {math.MinInt64, math.MinInt64}, many} {
					may(row.name, fmt.Sprint(where, len(ns), ns[:min(len(ns), 2)]), with(ns))
				}
			}
		}
	}
	require.Equal(t, before, LiveTensors(), "an operator that fails keeps nothing")
	require.NoError(t, tryCall(abused[0].name, abused[0].good))
	t.Logf("%d operators, %d calls, %d of them errors", len(abused), calls, failed)
}

// idle are operators without arguments that do something to the process, or wait.
var idle = map[string]string{}

// Every operator of the dispatcher refuses the wrong number of arguments and arguments that are
// not there, or copes with them.
func TestEveryOperatorWithFewArguments(t *testing.T) {
	if !inChild(t) {
		return
	}
	require.NoError(t, Load())
	list, err := cgo.OpList()
	require.NoError(t, err)
	before := LiveTensors()
	start := time.Now()
	operators, calls, failed := 0, 0, 0
	for line := range strings.Lines(list) {
		name, _, _ := strings.Cut(line, "(")
		if _, skip := idle[name]; skip {
			continue
		}
		operators++
		n := len(schemaTypes(line))
		for what, in := range map[string][]any{
			"no arguments": nil, "one undefined tensor": {(*Tensor)(nil)}, "all undefined": make([]any, n),
			"too many": make([]any, n+1), "far too many": make([]any, 200),
		} {
			fmt.Fprintln(os.Stderr, "abuse:", name, what)
			calls++
			err := tryCall(name, in)
			if len(in) != n && !strings.Contains(line, "...") {
				require.ErrorIs(t, err, ErrArgument, "%s with %s", name, what)
			}
			if err != nil {
				failed++
				var e *Error
				require.True(t, errors.As(err, &e) && e.Message != "", "%s with %s: %v", name, what, err)
			}
		}
	}
	require.Greater(t, operators, 3000)
	require.Equal(t, before, LiveTensors())
	t.Logf("%d operators, %d calls, %d of them errors, %.1f s", operators, calls, failed, time.Since(start).Seconds())
}
