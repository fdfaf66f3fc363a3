package main

import (
	"fmt"
	"io"
	"slices"
	"strings"
)

// A rule says how functions got their names.
type rule struct{ title, text string }

// nameRules are the rules by which a Go name follows from a schema; ruleOf tells which one applied. The
// page in docs/ prints them, TestNames holds every function to them.
var nameRules = []rule{
	{"bare", "the operator's name, each word with a capital: of several overloads, the one without an overload name, or else the first there is of those called Tensor, Tensor_Tensor, int, self, input, List, Scalar; or the only one"},
	{"overload", "an overload that is not the bare one adds its own name: SumDim, AddScalar, PowScalarTensor. Words that say nothing are left out: IntList, int and ScalarOpt beside other words, Tensor where the bare overload has Tensor arguments"},
	{"in place", "a variant that writes to t, or its first argument, is named after the overload with the same arguments, with _ behind: Add_, AddScalar_"},
	{"out", "a variant that writes its result to given tensors is named after the overload with the same arguments, with Out behind, and those tensors come first: AddOut(out, x, y), MaxDimOut(max, maxValues, x, dim)"},
	{"irregular", "an overload that these rules would name badly; the table below has all of them"},
}

// ruleOf is the title of the rule that named a function.
func ruleOf(f *Func) string {
	_, given := suffixes[f.Schema.Name()]
	switch {
	case given:
		return "irregular"
	case f.Kind == Out:
		return "out"
	case f.Kind == InPlace:
		return "in place"
	case f.suffix == "":
		return "bare"
	}
	return "overload"
}

// writeNames lists every Go name with its schema and the rule that made it.
func (api *API) writeNames(w io.Writer) error {
	for _, f := range api.Funcs {
		if _, err := fmt.Fprintf(w, "%s\t%s\t%s\n", f.FullName(), f.Schema.Name(), ruleOf(f)); err != nil {
			return err
		}
	}
	return nil
}

// goNames has the functions' Go names by their schemas' names.
func (api *API) goNames() map[string]string {
	m := map[string]string{}
	for _, f := range api.Funcs {
		m[f.Schema.Name()] = strings.TrimPrefix(f.FullName(), "torch.")
	}
	return m
}

// irregularRows are the rows of the page's table of irregular names.
func (api *API) irregularRows() (rows [][2]string) {
	names := api.goNames()
	for _, g := range irregular {
		var parts []string
		for schema := range g.names {
			if n := names[schema]; n != "" {
				parts = append(parts, "`"+strings.TrimPrefix(schema, "aten::")+"` "+n)
			}
		}
		slices.Sort(parts)
		rows = append(rows, [2]string{g.why, strings.Join(parts, ", ")})
	}
	return rows
}

// elsewhere is where to look for what Python offers and libtorch has no operator for by that name.
var elsewhere = [][2]string{
	{"torch.tensor, torch.from_numpy, x.numpy(), x.tolist()", "FromSlice, FromBlob; ToSlice, Data"},
	{"x.item()", "Item"},
	{"x.shape, x.size(d), x.stride(), x.numel(), x.dim()", "Tensor.Shape, Size, Stride, Numel, Dim, without a call to an operator"},
	{"x.to(...), x.cuda(), x.float(), x.half(), …", "Tensor.To"},
	{"x[1:, None, ..., i]", "Tensor.At, or Index, Narrow, Select, Unsqueeze one by one"},
	{"x[...] = v", "Tensor.SetAt, or IndexPut_, Fill_, Copy_"},
	{"x + y, x @ y, -x, x < y, x & y, ~x", "Tensor.Add, MatMul, Neg, Lt, BitwiseAnd, BitwiseNot"},
	{"torch.max(x, y)", "Tensor.Maximum"},
	{"torch.norm", "LinalgVectorNorm, LinalgMatrixNorm, Tensor.Norm"},
	{"torch.unique", "Tensor.Unique"},
	{"F.cross_entropy, F.nll_loss", "nn.CrossEntropy; CrossEntropyLoss, NllLossNd"},
	{"F.interpolate", "UpsampleNearest2d, UpsampleBilinear2d and their kin"},
	{"F.unfold, F.fold", "Im2col, Col2im"},
	{"F.grid_sample, F.affine_grid", "GridSampler, AffineGridGenerator"},
	{"F.logsigmoid, F.embedding_bag", "LogSigmoid, EmbeddingBag"},
}
