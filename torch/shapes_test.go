package torch

import (
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// The shapes that the documentation states are run: inputs are made as the left side says, with a size
// for each letter, and the results must be as the right side says.

// letters are the sizes that the test gives to the letters of shapes.
var letters = map[string]int{
	"A": 2, "B": 2, "C": 4, "D": 5, "E": 3, "H": 6, "K": 3, "L": 9, "M": 4, "N": 3, "O": 6, "S": 2, "T": 7, "V": 10, "W": 8,
}

// shapeValues are the arguments that a shape doesn't say, by schema and argument.
var shapeValues = map[string]map[string]any{
	"aten::view": {"size": []int{12}}, "aten::reshape": {"shape": []int{12}}, "aten::view.dtype": {"dtype": Int32},
	"aten::expand": {"size": []int{2, 4}}, "aten::broadcast_to": {"size": []int{2, 4}},
	"aten::repeat": {"repeats": []int{2, 3}}, "aten::tile": {"dims": []int{2, 3}},
	"aten::permute": {"dims": []int{2, 0, 1}}, "aten::transpose.int": {"dim0": 0, "dim1": 1}, "aten::swapaxes": {"axis0": 0, "axis1": 1},
	"aten::movedim.int": {"source": 0, "destination": 2}, "aten::unflatten.int": {"dim": 1, "sizes": []int{3, 4}},
	"aten::as_strided": {"size": []int{2, 1}, "stride": []int{1, 1}}, "aten::unfold": {"dimension": 1, "size": 2, "step": 1},
	"aten::split_with_sizes": {"split_sizes": []int{2, 3}, "dim": 0}, "aten::split.sizes": {"split_size": []int{2, 3}, "dim": 0},
	"aten::diff": {"dim": -1}, "aten::tensordot": {"dims_self": []int{1}, "dims_other": []int{0}},
	"aten::einsum": {"equation": "ik,kj->ij"}, "aten::meshgrid.indexing": {"indexing": "ij"}, "aten::cross": {"dim": -1},
	"aten::linalg_matrix_norm": {"dim": []int{-2, -1}}, "aten::kthvalue": {"k": 2}, "aten::bincount": {"self": Int64},
	"aten::gather": {"dim": 1}, "aten::scatter.src": {"dim": 1}, "aten::scatter.value": {"dim": 1}, "aten::scatter_add": {"dim": 1}, "aten::scatter_reduce.two": {"dim": 1, "reduce": "sum"},
	"aten::select_scatter": {"index": 0}, "aten::slice_scatter": {"dim": 0}, "aten::repeat_interleave.self_Tensor": {"repeats": Int64},
	"aten::masked_select": {"mask": Bool}, "aten::masked_scatter": {"mask": Bool}, "aten::masked_fill.Scalar": {"mask": Bool}, "aten::masked_fill.Tensor": {"mask": Bool},
	"aten::gcd": {"*": Int64}, "aten::lcm": {"*": Int64}, "aten::one_hot": {"self": Int64, "num_classes": 4},
	"aten::bitwise_and.Tensor": {"*": Int64}, "aten::bitwise_or.Tensor": {"*": Int64}, "aten::bitwise_xor.Tensor": {"*": Int64}, "aten::bitwise_not": {"*": Int64},
	"aten::imag": {"*": Complex64}, "aten::view_as_real": {"*": Complex64}, "aten::float_power.Tensor_Scalar": {"exponent": 2.0},
	"aten::cross_entropy_loss": {"target": Int64}, "aten::nll_loss": {"target": Int64}, "aten::multi_margin_loss": {"target": Int64},
	"aten::multilabel_margin_loss": {"target": Int64}, "aten::ctc_loss.Tensor": {"targets": Int64, "input_lengths": Int64, "target_lengths": Int64},
	"aten::layer_norm": {"normalized_shape": []int{4}}, "aten::rms_norm": {"normalized_shape": []int{4}}, "aten::group_norm": {"num_groups": 2},
	"aten::batch_norm": {"training": true, "momentum": 0.1, "eps": 1e-5, "cudnn_enabled": false}, "aten::instance_norm": {"use_input_stats": true, "momentum": 0.1, "eps": 1e-5, "cudnn_enabled": false},
	"aten::max_unpool2d": {"output_size": []int{7, 9}, "indices": Int64}, "aten::adaptive_avg_pool2d": {"output_size": []int{2, 3}}, "aten::adaptive_avg_pool3d": {"output_size": []int{2, 3, 2}},
	"aten::adaptive_max_pool2d": {"output_size": []int{2, 3}}, "aten::upsample_nearest2d": {"output_size": []int{7, 9}}, "aten::upsample_bilinear2d": {"output_size": []int{7, 9}},
	"aten::upsample_bicubic2d": {"output_size": []int{7, 9}}, "aten::upsample_trilinear3d": {"output_size": []int{7, 9, 5}},
	"aten::pad": {"pad": []int{1, 2}}, "aten::constant_pad_nd": {"pad": []int{1, 2}}, "aten::reflection_pad1d": {"padding": []int{1, 2}}, "aten::replication_pad1d": {"padding": []int{1, 2}},
	"aten::reflection_pad2d": {"padding": []int{1, 2, 1, 2}}, "aten::replication_pad2d": {"padding": []int{1, 2, 1, 2}},
	"aten::pixel_shuffle": {"upscale_factor": 2}, "aten::pixel_unshuffle": {"downscale_factor": 2}, "aten::channel_shuffle": {"groups": 2},
	"aten::im2col":                {"kernel_size": []int{3, 3}, "dilation": []int{1, 1}, "padding": []int{0, 0}, "stride": []int{1, 1}},
	"aten::col2im":                {"kernel_size": []int{3, 3}, "dilation": []int{1, 1}, "padding": []int{0, 0}, "stride": []int{1, 1}, "output_size": []int{5, 5}},
	"aten::affine_grid_generator": {"size": []int{2, 4, 5, 6}},
	"aten::lstm.input":            {"params": "lstm"}, "aten::gru.input": {"params": "gru"}, "aten::rnn_tanh.input": {"params": "rnn"}, "aten::rnn_relu.input": {"params": "rnn"},
	"aten::stft.center": {"n_fft": 4, "return_complex": true}, "aten::clamp": {"min": 0.1}, "aten::poisson_nll_loss": {"reduction": 1, "eps": 1e-8},
	"aten::uniform_": {"from": 0.0, "to": 1.0}, "aten::random_.from": {"to": 5}, "aten::embedding_bag": {"offsets": Int64}, "aten::normal.float_float": {"mean": 0.0},
	"aten::cholesky_solve": {"input2": "eye"}, "aten::multinomial": {"num_samples": 3}, "aten::div.Tensor_mode": {"rounding_mode": "floor"},
	"aten::conv1d.padding": {"padding": "same"}, "aten::conv2d.padding": {"padding": "same"}, "aten::quantile": {"q": []float64{0.5}}, "aten::bucketize.Tensor": {"*": Float32},
	"aten::mvlgamma": {"p": 2}, "aten::amax": {"dim": []int{1}}, "aten::amin": {"dim": []int{1}}, "aten::unsqueeze": {"dim": 1},
	"aten::unique_consecutive": {"return_inverse": true, "return_counts": true}, "aten::unique_dim": {"dim": 0, "return_inverse": true, "return_counts": true}, "aten::rot90": {"dims": []int{0, 1}}, "aten::view_as_complex": {"*": Float32}, "aten::hardtanh": {"min_val": -1}, "aten::roll": {"shifts": []int{1}}, "aten::flip": {"dims": []int{1}},
	"aten::tril_indices": {"row": 3, "col": 3}, "aten::triu_indices": {"row": 3, "col": 3}, "aten::nanmean": {"dim": nil}, "aten::linalg_vector_norm": {"dim": nil},
}

// byName are values of arguments that mean the same everywhere.
var byName = map[string]any{
	"size": []int{2, 3}, "other": 2, "value": 1.5, "exponent": 2, "weight": 0.5, "decimals": 1, "min": 0.2, "max": 0.5, "p": 0.5, "train": true,
	"threshold": 0.5, "n": 3, "k": 2, "chunks": 2, "sections": 2, "split_size": 2, "start": 0, "end": 3, "step": 1, "length": 2, "index": 0,
	"repeats": 2, "fill_value": 1, "steps": 4, "high": 9, "low": 1, "window_length": 5, "mean": 0.0, "std": 1.0, "s": 1, "from": 0, "upper": false, "ord": 1, "q": 0.5,
	"kernel_size": nil, "output_size": nil, "align_corners": false, "interpolation_mode": 0, "padding_mode": 0, "has_biases": true, "num_layers": 1,
	"dropout": 0.0, "bidirectional": false, "batch_first": false, "log_input": true, "full": false, "normalized_shape": nil, "num_samples": 2, "self": 2,
}

// A shapeLine is a line of shapes, read.
type shapeLine struct {
	inputs  []shapeInput
	outputs [][]string // dimensions of each result that is a tensor
	list    bool       // of tensors
	other   bool       // "-> bool"
}

type shapeInput struct {
	name   string
	shapes [][]string // several of a list
}

// dims reads "(..., N, K)" off the front of s.
func dims(s string) (d []string, rest string, ok bool) {
	if !strings.HasPrefix(s, "(") {
		return nil, s, false
	}
	depth, start := 0, 1
	for i, r := range s {
		switch r {
		case '(':
			depth++
		case ')':
			depth--
			if depth == 0 {
				if last := strings.TrimSpace(s[start:i]); last != "" {
					d = append(d, last)
				}
				return d, s[i+1:], true
			}
		case ',':
			if depth == 1 {
				d = append(d, strings.TrimSpace(s[start:i]))
				start = i + 1
			}
		}
	}
	return nil, s, false
}

var (
	inputName = regexp.MustCompile(`^(\w+) `)
	times     = regexp.MustCompile(`^([\w⌈⌉/]+) × `)
)

func readShapeLine(t *testing.T, line string) (l shapeLine) {
	left, right, ok := strings.Cut(line, "-> ")
	require.True(t, ok, line)
	left = strings.TrimSpace(left)
	for left != "" {
		var in shapeInput
		if m := inputName.FindStringSubmatch(left); m != nil && !strings.HasPrefix(left[len(m[0]):], "× ") {
			in.name, left = m[1], left[len(m[0]):]
		}
		count := 1
		if m := times.FindStringSubmatch(left); m != nil {
			count, left = 2, left[len(m[0]):]
		}
		d, rest, ok := dims(left)
		require.True(t, ok, "%s: a shape is expected at %q", line, left)
		for range count {
			in.shapes = append(in.shapes, d)
		}
		left = strings.TrimPrefix(rest, ", ")
		if in.name == "" {
			last := &l.inputs[len(l.inputs)-1]
			last.shapes = append(last.shapes, in.shapes...)
			continue
		}
		l.inputs = append(l.inputs, in)
	}
	if m := times.FindStringSubmatch(right); m != nil {
		l.list, right = true, right[len(m[0]):]
	}
	for {
		d, rest, ok := dims(right)
		if !ok {
			l.other = len(l.outputs) == 0
			return l
		}
		l.outputs = append(l.outputs, d)
		right = strings.TrimPrefix(rest, ", ")
		if rest == right || !strings.HasPrefix(right, "(") {
			return l
		}
	}
}

// sizeOf is what a dimension comes to: a letter, a number, a product or a sum of these.
func sizeOf(dim string) (int, bool) {
	dim = strings.TrimSuffix(dim, "/Groups")
	if n, ok := letters[dim]; ok {
		return n, true
	}
	if n, err := strconv.Atoi(dim); err == nil {
		return n, true
	}
	if x, ok := strings.CutSuffix(dim, "²"); ok {
		if n, ok := letters[x]; ok {
			return n * n, true
		}
	}
	for _, op := range []string{"+", "·"} {
		if a, b, ok := strings.Cut(dim, op); ok {
			x, okX := sizeOf(a)
			y, okY := sizeOf(b)
			if op == "+" {
				return x + y, okX && okY
			}
			return x * y, okX && okY
		}
	}
	return 0, false
}

// sizesOf are the sizes of a shape, -1 for what it doesn't say; ... is one dimension, of 2 in front and of
// 3 behind.
func sizesOf(shape []string) (sizes []int) {
	for i, d := range shape {
		n, ok := sizeOf(d)
		switch {
		case d == "..." && i == 0:
			n = 2
		case d == "...":
			n = 3
		case !ok:
			n = -1
		}
		sizes = append(sizes, n)
	}
	return sizes
}

// resultSizes are the sizes that a result has to have; letters that no input has stand for any size.
func (l *shapeLine) resultSizes(shape []string) []int {
	used := map[string]bool{}
	rest := map[bool]bool{} // is there ... in front, behind
	for _, in := range l.inputs {
		for _, s := range in.shapes {
			for i, d := range s {
				if d == "..." {
					rest[i == 0] = true
				}
				for _, r := range d {
					used[string(r)] = true
				}
			}
		}
	}
	sizes := sizesOf(shape)
	for i, d := range shape {
		switch {
		case d == "..." && len(rest) == 1 && rest[true]:
			sizes[i] = 2
		case d == "..." && len(rest) == 1:
			sizes[i] = 3
		}
		for _, r := range d {
			if letters[string(r)] != 0 && !used[string(r)] {
				sizes[i] = -1
			}
		}
	}
	return sizes
}

func squash(name string) string { return strings.ToLower(strings.ReplaceAll(name, "_", "")) }

// documented are the lines of shapes of generated functions, by schema.
func documented(t *testing.T) (schemas []string, lines map[string]string) {
	lines = map[string]string{}
	paths, err := filepath.Glob("zz_*_gen.go")
	require.NoError(t, err)
	for _, path := range paths {
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ParseComments)
		require.NoError(t, err)
		for _, d := range file.Decls {
			fn, ok := d.(*ast.FuncDecl)
			if !ok {
				continue
			}
			var shapes, schema string
			for _, line := range strings.Split(fn.Doc.Text(), "\n") {
				switch line = strings.TrimPrefix(line, "\t"); {
				case strings.HasPrefix(line, "aten::"):
					schema = line
				case strings.Contains(line, "-> ") && !strings.Contains(line, "::"):
					shapes = line
				}
			}
			if shapes != "" {
				schemas = append(schemas, schema)
				lines[schema] = shapes
			}
		}
	}
	return schemas, lines
}

// sampleTensor is a tensor with values of (0, 1), on which every function has a value.
func sampleTensor(name string, sizes []int, dtype DType) *Tensor {
	switch n := len(sizes); {
	case name == "offsets":
		return Zeros(sizes, TensorOptions{DType: Int64})
	case dtype == Bool:
		return Ones(sizes, TensorOptions{DType: Bool})
	case dtype == Complex64:
		return Rand(sizes, TensorOptions{DType: Complex64})
	case dtype == Int64, strings.Contains(name, "index") || strings.Contains(name, "indices"):
		return Ones(sizes, TensorOptions{DType: Int64})
	case name == "condition":
		return Ones(sizes, TensorOptions{DType: Bool})
	case n >= 2 && sizes[n-1] == sizes[n-2] && !strings.Contains(name, "weight"):
		return Eye(sizes[n-1]).MulScalar(2).AddScalar(0.1).ExpandAs(Zeros(sizes)).Contiguous()
	}
	return Rand(sizes).MulScalar(0.8).AddScalar(0.1)
}

// recurrentParams are the weights of one layer.
func recurrentParams(gates int) []*Tensor {
	c, h := letters["C"], letters["H"]
	return []*Tensor{Rand([]int{gates * h, c}), Rand([]int{gates * h, h}), Rand([]int{gates * h}), Rand([]int{gates * h})}
}

// shapeArgs are the arguments of a call whose tensors have the shapes that the line says.
func shapeArgs(t *testing.T, name, schema string, l shapeLine) (args []any) {
	given := map[string]shapeInput{}
	var first []string
	for i, in := range l.inputs {
		if in.name == "t" || in.name == "input" && !regexp.MustCompile(` input[,)]`).MatchString(schema) {
			in.name = "self"
		}
		given[squash(in.name)] = in
		if i == 0 {
			first = in.shapes[0]
		}
	}
	along := max(slices.Index(first, "D"), slices.Index(first, "1"), 0)
	rank := 0
	for _, d := range first[min(2, len(first)):] {
		if d != "..." {
			rank++
		}
	}
	special := shapeValues[name]
	for _, a := range schemaArgs(t, schema) {
		in, has := given[squash(a.name)]
		value, set := special[a.name]
		dtype, _ := value.(DType)
		if all, ok := special["*"].(DType); ok {
			dtype = all
		}
		switch {
		case has && a.list:
			var list []*Tensor
			for _, s := range in.shapes {
				list = append(list, sampleTensor(a.name, sizesOf(s), dtype))
			}
			args = append(args, list)
		case has:
			args = append(args, sampleTensor(a.name, sizesOf(in.shapes[0]), dtype))
		case set && value == "lstm":
			args = append(args, recurrentParams(4))
		case set && value == "gru":
			args = append(args, recurrentParams(3))
		case set && value == "rnn":
			args = append(args, recurrentParams(1))
		case set:
			args = append(args, value)
		case a.def != "" && !strings.Contains(name, "squeeze"):
			args = append(args, a.value(t))
		case a.name == "dim" && a.list:
			args = append(args, []int{along})
		case a.name == "dim":
			args = append(args, along)
		case (a.name == "kernel_size" || a.name == "output_size") && a.list:
			args = append(args, slices.Repeat([]int{2}, max(rank, 1)))
		case a.optional:
			args = append(args, nil)
		default:
			v, ok := byName[a.name]
			require.True(t, ok, "%s: no value for %s %s", schema, a.base, a.name)
			args = append(args, v)
		}
	}
	return args
}

func TestDocumentedShapes(t *testing.T) {
	require.NoError(t, Load())
	schemas, lines := documented(t)
	require.Greater(t, len(schemas), 300)
	for _, schema := range schemas {
		name := schema[:strings.IndexByte(schema, '(')]
		t.Run(name, func(t *testing.T) {
			l := readShapeLine(t, lines[schema])
			results, err := Try(func() []any {
				var out []any
				Scope(func() {
					for _, r := range flatten(Call(name, shapeArgs(t, name, schema, l)...)) {
						if x, ok := r.(*Tensor); ok && x != nil {
							r = x.Shape()
						}
						out = append(out, r)
					}
				})
				return out
			})
			require.NoError(t, err, lines[schema])
			if l.other {
				require.IsType(t, true, results[0])
				return
			}
			want := l.outputs
			if l.list {
				want = slices.Repeat(want, len(results))
			}
			for i, w := range want {
				got := results[i].([]int)
				if len(w) == 1 && (w[0] == "size" || w[0] == "shape") {
					continue
				}
				sizes := l.resultSizes(w)
				require.Len(t, got, len(sizes), "%s: %v", lines[schema], got)
				for k, n := range sizes {
					if n >= 0 {
						require.Equal(t, n, got[k], "%s: result %d is %v", lines[schema], i, got)
					}
				}
			}
		})
	}
}

// flatten takes the lists among results apart.
func flatten(results []any) (flat []any) {
	for _, r := range results {
		if list, ok := r.([]*Tensor); ok {
			for _, x := range list {
				flat = append(flat, x)
			}
			continue
		}
		flat = append(flat, r)
	}
	return flat
}
