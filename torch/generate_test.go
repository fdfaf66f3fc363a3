package torch

import (
	"go/ast"
	"go/parser"
	"go/token"
	"math"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/torchgo/torchgo/cgo"
)

// generatedOps reads the operators out of the generated files.
func generatedOps(t *testing.T) []*op {
	paths, err := filepath.Glob("zz_*_gen.go")
	require.NoError(t, err)
	var ops []*op
	for _, path := range paths {
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, 0)
		require.NoError(t, err)
		ast.Inspect(file, func(n ast.Node) bool {
			lit, ok := n.(*ast.CompositeLit)
			if !ok {
				return true
			}
			if id, ok := lit.Type.(*ast.Ident); !ok || id.Name != "op" {
				return true
			}
			var fields [3]string
			for i, e := range lit.Elts {
				fields[i], err = strconv.Unquote(e.(*ast.KeyValueExpr).Value.(*ast.BasicLit).Value)
				require.NoError(t, err)
			}
			ops = append(ops, &op{name: fields[0], overload: fields[1], schema: fields[2]})
			return false
		})
	}
	return ops
}

// Each generated function finds its operator in the libtorch that is loaded, with the schema it was
// written for; in another version, where it doesn't, the error says so.
func TestGeneratedOperatorsExist(t *testing.T) {
	require.NoError(t, Load())
	ops := generatedOps(t)
	require.Greater(t, len(ops), 3000)
	missing := 0
	for _, o := range ops {
		_, err := Try(func() cgo.Op { return o.find() })
		if err == nil {
			continue
		}
		missing++
		if cgo.Version() == "2.15.0" {
			require.NoError(t, err, o.schema)
		}
		var e *Error
		require.ErrorAs(t, err, &e)
		require.Contains(t, []error{ErrNoOperator, ErrSchema}, e.Kind)
	}
	require.Less(t, missing, len(ops)/10, "libtorch %s", cgo.Version())
}

func TestGeneratedCalls(t *testing.T) {
	values := func(x *Tensor) []float32 { return ToSlice[float32](x) }
	Scope(func() {
		x := FromSlice([]float32{1, 2, 3, 4}, 2, 2)
		y := FromSlice([]float32{1, 0, 0, 1}, 2, 2)

		// Defaults and options.
		require.Equal(t, []float32{2, 2, 3, 5}, values(x.Add(y)))
		require.Equal(t, []float32{3, 2, 3, 6}, values(x.Add(y, AddOptions{Alpha: 2})))
		require.Equal(t, []float32{1.5, 2, 3, 4.5}, values(x.Add(y, AddOptions{Alpha: float32(0.5)})))
		require.Equal(t, []float32{0, 1, 2, 3}, values(x.SubScalar(1)))
		require.Equal(t, []float32{2, 3}, values(x.MeanDim([]int{0})))
		require.Equal(t, []int{1, 2}, x.SumDim([]int{0}, SumDimOptions{KeepDim: true}).Shape())
		require.Equal(t, float32(10), Item[float32](x.SumDim(nil)))
		require.InDelta(t, math.Sqrt(5.0/3), Item[float32](x.Std()), 1e-6)
		require.InDelta(t, math.Sqrt(5.0/4), Item[float32](x.Std(StdOptions{Correction: 0})), 1e-6, "zero is zero")
		require.Equal(t, []float32{1, 3, 2, 4}, values(x.T().Contiguous()))
		require.Equal(t, []int{4, 1}, x.View(4, 1).Shape())
		require.Equal(t, []float32{2, 1}, values(FromSlice([]float32{1, 2}, 2).Flip(0)))
		require.Equal(t, []float32{4, 3}, values(first(FromSlice([]float32{3, 1, 4}, 3).Topk(2))))
		require.Equal(t, []float32{1, 3}, values(first(FromSlice([]float32{3, 1, 4}, 3).Topk(2, TopkOptions{Largest: Some(false)}))))
		require.Equal(t, []float32{2, 3}, values(FromSlice([]float32{1, 2, 3, 4}, 4).Slice(SliceOptions{Start: Some(1), End: Some(3)})))

		// Several results, in the schema's order.
		top, at := x.MaxDim(1)
		require.Equal(t, []float32{2, 4}, values(top))
		require.Equal(t, []int64{1, 1}, ToSlice[int64](at))

		// Lists, with None among them.
		require.Equal(t, []float32{2, 4}, values(x.Index([]*Tensor{nil, FromSlice([]int64{1}, 1)}).Flatten()))
		require.Equal(t, []int{2, 4}, Cat([]*Tensor{x, y}, CatOptions{Dim: 1}).Shape())
		parts := x.Split(1)
		require.Len(t, parts, 2)
		require.Equal(t, []float32{3, 4}, values(parts[1].Flatten()))
		sums := Internal.ForeachAdd([]*Tensor{x, y}, []*Tensor{y, y})
		require.Equal(t, []float32{2, 0, 0, 2}, values(sums[1]))

		// In place and out: the tensor itself comes back.
		z := x.Clone()
		require.Same(t, z, z.Add_(y))
		require.Equal(t, []float32{2, 2, 3, 5}, values(z))
		require.Same(t, z, AddOut(z, x, x))
		require.Equal(t, []float32{2, 4, 6, 8}, values(z))
		hi, ix := Empty([]int{2}), Empty([]int{2}, EmptyOptions{DType: Int64})
		top, at = MaxDimOut(hi, ix, x, 1)
		require.Same(t, hi, top)
		require.Same(t, ix, at)
		require.Equal(t, []float32{2, 4}, values(hi))

		// Factories, dtypes, devices, formats.
		require.Equal(t, Float64, Zeros([]int{2}, TensorOptions{DType: Float64}).DType())
		require.Equal(t, Meta, Ones([]int{2}, TensorOptions{Device: Meta}).Device())
		require.Equal(t, Int64, Randint(10, []int{3}).DType(), "PyTorch's default")
		require.Equal(t, Float32, Randint(10, []int{3}, TensorOptions{DType: Float32}).DType())
		require.Equal(t, []int64{0, 1, 1, 0, 0, 1}, ToSlice[int64](TrilIndices(2, 2)), "rows, columns")
		image := Zeros([]int{1, 2, 3, 3}).Contiguous(ContiguousOptions{MemoryFormat: ChannelsLast})
		require.Equal(t, []int{18, 1, 6, 2}, image.Stride())
		require.Equal(t, Float64, ResultType(x, Zeros(nil, TensorOptions{DType: Float64}).Unsqueeze(0)))

		// Strings, scalars, bools as results.
		require.InDelta(t, 0.841192, Item[float32](Gelu(Ones(nil), GeluOptions{Approximate: Some("tanh")})), 1e-6)
		require.InDelta(t, 0.8413447, Item[float32](Gelu(Ones(nil))), 1e-6)
		require.True(t, x.Equal(x.Clone()))
		require.True(t, CanCast(Int32, Float32))
		require.Equal(t, []float32{1, 0, 0, 1}, values(Einsum("ij,jk->ik", []*Tensor{y, y})))

		// Layers.
		require.Equal(t, []int{1, 3, 4, 4}, Conv2d(Ones([]int{1, 2, 4, 4}), Ones([]int{3, 2, 3, 3}), Conv2dOptions{Padding: []int{1}}).Shape())
		require.Equal(t, []int{1, 3, 4, 4}, Conv2dPadding(Ones([]int{1, 2, 4, 4}), Ones([]int{3, 2, 3, 3}), Conv2dPaddingOptions{Padding: Some("same")}).Shape())
		require.Equal(t, []int{1, 2, 2, 2}, MaxPool2d(Ones([]int{1, 2, 4, 4}), []int{2}).Shape())
		require.Equal(t, []int{1, 2, 1, 1}, AdaptiveAvgPool2d(Ones([]int{1, 2, 4, 4}), 1, 1).Shape())
		require.Equal(t, []int{1, 1, 3, 4}, ScaledDotProductAttention(Ones([]int{1, 1, 3, 4}), Ones([]int{1, 1, 5, 4}), Ones([]int{1, 1, 5, 4})).Shape())
		require.Equal(t, float32(2), Item[float32](MseLoss(y.MulScalar(2), y, MseLossOptions{Reduction: Some(2)})))

		// Misuse.
		_, err := Try(func() *Tensor { return x.Add(y, AddOptions{}, AddOptions{}) })
		require.ErrorIs(t, err, ErrArgument)
		_, err = Try(func() *Tensor { return x.Add(nil) })
		require.ErrorIs(t, err, ErrArgument)
	})
}

func first(a, _ *Tensor) *Tensor { return a }
