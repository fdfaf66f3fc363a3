package main

import (
	"bytes"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

const root = "../.."

func operators(t *testing.T, v string) []*Schema {
	t.Helper()
	list, err := ReadListFile(filepath.Join(root, "third_party", "operators-"+v+".txt"))
	require.NoError(t, err)
	return list
}

func build(t *testing.T) *API {
	t.Helper()
	api, err := Build(version, operators(t, version))
	require.NoError(t, err)
	return api
}

func TestEveryOperatorIsGeneratedOrExcluded(t *testing.T) {
	list := operators(t, version)
	api := build(t)
	require.Len(t, list, 3483) // what the dispatcher of libtorch 2.15.0 lists
	require.Equal(t, len(list), len(api.Funcs)+len(api.Excluded))
	seen := map[string]bool{}
	for _, f := range api.Funcs {
		seen[f.Schema.Name()] = true
	}
	for _, e := range api.Excluded {
		seen[e.Schema.Name()] = true
		require.NotEmpty(t, e.Rule.reason, e.Schema.Name())
	}
	require.Len(t, seen, len(list))
	for _, c := range api.reasons() {
		require.NotZero(t, c.n, "the exclusion of %s excludes nothing", c.rule.what)
	}
}

// The names that a program can use follow the rules of names.go: no two alike, variants named after the
// overload with the same arguments, options after the function.
func TestNames(t *testing.T) {
	api := build(t)
	form := regexp.MustCompile(`^[A-Z][A-Za-z0-9]*_?$`)
	names, types := map[string]string{}, map[string]bool{}
	leads := map[string]*Func{} // functional overloads by namespace, operator and arguments
	arguments := func(f *Func) string {
		return f.Schema.Namespace + "::" + groupBase(f.Schema, f.Kind) + "(" + signature(f.Schema)
	}
	for _, f := range api.Funcs {
		if f.Kind == Functional {
			leads[arguments(f)] = f
		}
	}
	rules := map[string]int{}
	for _, f := range api.Funcs {
		rules[ruleOf(f)]++
		require.Regexp(t, form, f.Name)
		key := f.Receiver + "." + f.Name
		require.Empty(t, names[key], "%s is also %s", key, f.Schema.Text)
		names[key] = f.Schema.Text

		// Where it is.
		switch {
		case f.Schema.Namespace != "aten":
			require.Equal(t, namespaces[f.Schema.Namespace].Var+"Ops", f.Receiver, f.Schema.Text)
		case strings.HasPrefix(f.Schema.Base, "_"):
			require.Equal(t, "InternalOps", f.Receiver, f.Schema.Text)
		case f.Schema.hasVariant("method"):
			require.Equal(t, "Tensor", f.Receiver, f.Schema.Text)
		default:
			require.Empty(t, f.Receiver, f.Schema.Text)
		}

		// What it is called.
		want := camel(groupBase(f.Schema, f.Kind)) + f.suffix
		if lead := leads[arguments(f)]; lead != nil {
			want = lead.Name
		}
		switch f.Kind {
		case InPlace:
			want += "_"
		case Out:
			want += "Out"
			require.True(t, isOut(f.Schema, f.Params[0].Arg), f.Schema.Text)
		}
		require.Equal(t, want, f.Name, f.Schema.Text)
		require.Equal(t, f.Kind == InPlace, strings.HasSuffix(f.Name, "_"), f.Schema.Text)
		require.Equal(t, f.Kind == Out, strings.HasSuffix(f.Name, "Out"), f.Schema.Text)
		if _, given := suffixes[f.Schema.Name()]; f.Kind == Functional && !given {
			s := f.Schema.Overload
			for _, word := range strings.FieldsFunc(s, func(r rune) bool { return r == '_' }) {
				if f.suffix != "" && !dropped[word] && word != "Tensor" {
					require.Contains(t, f.suffix, camel(word), f.Schema.Text)
				}
			}
		}

		// What its options are called.
		o := f.Options
		if o == nil || o.Name == tensorOptions {
			continue
		}
		require.Equal(t, f.base+f.suffix, o.Owner.base+o.Owner.suffix, f.Schema.Text)
		base := strings.TrimPrefix(o.Name, strings.TrimSuffix(strings.TrimSuffix(f.Receiver, "Ops"), "Tensor"))
		require.Contains(t, []string{f.base + f.suffix + "Options", f.base + f.suffix + "InPlaceOptions", f.base + f.suffix + "OutOptions"}, base, f.Schema.Text)
		if o.Owner == f {
			require.False(t, types[o.Name], "two structs %s", o.Name)
			types[o.Name] = true
		}
	}
	for name := range types {
		require.Empty(t, names["."+name], "%s is a function and a struct", name)
	}
	for _, r := range nameRules {
		require.NotZero(t, rules[r.title], "the rule %q names nothing", r.title)
	}
	t.Logf("names by rule: %v", rules)
	require.Less(t, rules["irregular"], 80)
}

// Out variants without a functional overload of the same arguments, and in-place ones: a name for each of
// the others says which function it is a variant of.
func TestVariantsBelongToAFunction(t *testing.T) {
	alone := map[string]bool{}
	names := map[string]bool{}
	api := build(t)
	for _, f := range api.Funcs {
		names[f.Schema.Namespace+" "+f.Name] = true
	}
	for _, f := range api.Funcs {
		stem := strings.TrimSuffix(strings.TrimSuffix(f.Name, "_"), "Out")
		if f.Kind != Functional && !names[f.Schema.Namespace+" "+stem] {
			alone[f.Schema.Name()] = true
		}
	}
	require.Equal(t, set(`aten::_fill_mem_eff_dropout_mask_ aten::_slow_conv2d_backward.grad_input aten::_sobol_engine_ff_
		aten::_sobol_engine_initialize_state_ aten::_sobol_engine_scramble_ aten::fill_diagonal_ aten::set_.source_Tensor_storage_offset
		aten::shallow_copy_data_ fsdp::chunk_cat_mixed_dtype symm_mem::memcpy_to_multicast_ symm_mem::memset32_
		symm_mem::multimem_all_gather_out symm_mem::multimem_all_reduce_ symm_mem::multimem_one_shot_reduce_out
		symm_mem::reduce_scatter_out symm_mem::stream_write_value32_ symm_mem::two_shot_all_reduce_ symm_mem::two_shot_all_reduce_out`), alone)
}

// An option that isn't set has PyTorch's default. So a field of a plain type must have its zero value as
// default; everything else is an Opt, or has a nil.
func TestOptionDefaults(t *testing.T) {
	zero := map[string][]string{
		"int": {"0"}, "float64": {"0.", "0"}, "bool": {"False"}, "string": {`""`},
	}
	fields := 0
	for _, f := range build(t).Funcs {
		if f.Options == nil {
			continue
		}
		for _, field := range f.Options.Fields {
			fields++
			where := f.Schema.Text + ": " + field.Name + " " + field.Type
			require.True(t, field.Arg.HasDefault, where)
			if zeros, plain := zero[field.Type]; plain && field.Arg.Name != "pin_memory" {
				require.Contains(t, zeros, field.Arg.Default, where)
			}
			switch {
			case field.Arg.Type.Base == "int" && !field.Arg.Type.List && field.Arg.Default != "0":
				require.Equal(t, "Opt[int]", field.Type, where)
			case field.Arg.Type.Base == "float" && !field.Arg.Type.List && field.Arg.Default == "None":
				require.Equal(t, "Opt[float64]", field.Type, where)
			case field.Arg.Type.Base == "bool" && field.Arg.Default == "True":
				require.Equal(t, "Opt[bool]", field.Type, where)
			}
		}
	}
	require.Greater(t, fields, 1000)
}

// golden has what a PyTorch user would expect, written by hand from the schemas.
var golden = []struct{ schema, python, code string }{
	{
		"aten::add.Tensor(Tensor self, Tensor other, *, Scalar alpha=1) -> Tensor", "function,method", `
type AddOptions struct {
	Alpha Scalar // default 1
}
func (t *Tensor) Add(other *Tensor, opts ...AddOptions) *Tensor {
	o := one(opts)
	var cc call
	cc.start(&tensorOpAdd)
	cc.tensor(t)
	cc.tensor(other)
	cc.scalar(orScalar(o.Alpha, 1))
	cc.run()
	return cc.retTensor()
}`,
	},
	{
		"aten::add_.Scalar(Tensor(a!) self, Scalar other, Scalar alpha=1) -> Tensor(a!)", "method", `
func (t *Tensor) AddScalar_(other Scalar, opts ...AddScalarOptions) *Tensor {
	o := one(opts)
	var cc call
	cc.start(&tensorOpAddScalar_)
	cc.tensor(t)
	cc.scalar(other)
	cc.scalar(orScalar(o.Alpha, 1))
	cc.run()
	return cc.retTensor()
}`,
	},
	{
		"aten::add.out(Tensor self, Tensor other, *, Scalar alpha=1, Tensor(a!) out) -> Tensor(a!)", "function", `
func AddOut(out, input, other *Tensor, opts ...AddOptions) *Tensor {
	o := one(opts)
	var cc call
	cc.start(&torchOpAddOut)
	cc.tensor(input)
	cc.tensor(other)
	cc.scalar(orScalar(o.Alpha, 1))
	cc.tensor(out)
	cc.run()
	return cc.retTensor()
}`,
	},
	{
		"aten::max.dim(Tensor self, int dim, bool keepdim=False) -> (Tensor values, Tensor indices)", "function,method", `
type MaxDimOptions struct {
	KeepDim bool
}
func (t *Tensor) MaxDim(dim int, opts ...MaxDimOptions) (values, indices *Tensor) {
	o := one(opts)
	var cc call
	cc.start(&tensorOpMaxDim)
	cc.tensor(t)
	cc.int(dim)
	cc.bool(o.KeepDim)
	cc.run()
	return cc.retTensor(), cc.retTensor()
}`,
	},
	{
		"aten::conv2d(Tensor input, Tensor weight, Tensor? bias=None, SymInt[2] stride=[1, 1], SymInt[2] padding=[0, 0], SymInt[2] dilation=[1, 1], SymInt groups=1) -> Tensor", "function", `
type Conv2dOptions struct {
	Bias     *Tensor
	Stride   []int    // default [1, 1]
	Padding  []int    // default [0, 0]
	Dilation []int    // default [1, 1]
	Groups   Opt[int] // default 1
}
func Conv2d(input, weight *Tensor, opts ...Conv2dOptions) *Tensor {
	o := one(opts)
	var cc call
	cc.start(&torchOpConv2d)
	cc.tensor(input)
	cc.tensor(weight)
	cc.optTensor(o.Bias)
	cc.ints(orInts(o.Stride, 1, 1))
	cc.ints(orInts(o.Padding, 0, 0))
	cc.ints(orInts(o.Dilation, 1, 1))
	cc.int(o.Groups.Or(1))
	cc.run()
	return cc.retTensor()
}`,
	},
	{
		"aten::view(Tensor(a) self, SymInt[] size) -> Tensor(a)", "method", `
func (t *Tensor) View(size ...int) *Tensor {
	var cc call
	cc.start(&tensorOpView)
	cc.tensor(t)
	cc.ints(size)
	cc.run()
	return cc.retTensor()
}`,
	},
	{
		"aten::zeros(SymInt[] size, *, ScalarType? dtype=None, Layout? layout=None, Device? device=None, bool? pin_memory=None) -> Tensor", "function", `
func Zeros(size []int, opts ...TensorOptions) *Tensor {
	o := one(opts)
	var cc call
	cc.start(&torchOpZeros)
	cc.ints(size)
	cc.optDType(o.DType)
	cc.optLayout(o.Layout)
	cc.optDevice(o.Device)
	cc.pinMemory(o.PinMemory)
	cc.run()
	return cc.retTensor()
}`,
	},
	{
		"aten::randint.low(SymInt low, SymInt high, SymInt[] size, *, ScalarType? dtype=4, Layout? layout=None, Device? device=None, bool? pin_memory=None) -> Tensor", "function", `
func RandintLow(low, high int, size []int, opts ...TensorOptions) *Tensor {
	o := one(opts)
	var cc call
	cc.start(&torchOpRandintLow)
	cc.int(low)
	cc.int(high)
	cc.ints(size)
	cc.dtype(orDType(o.DType, Int64))
	cc.optLayout(o.Layout)
	cc.optDevice(o.Device)
	cc.pinMemory(o.PinMemory)
	cc.run()
	return cc.retTensor()
}`,
	},
	{
		"aten::where.self(Tensor condition, Tensor self, Tensor other) -> Tensor", "function,method", `
func (t *Tensor) Where(condition, other *Tensor) *Tensor {
	var cc call
	cc.start(&tensorOpWhere)
	cc.tensor(condition)
	cc.tensor(t)
	cc.tensor(other)
	cc.run()
	return cc.retTensor()
}`,
	},
	{
		"aten::topk(Tensor self, SymInt k, int dim=-1, bool largest=True, bool sorted=True) -> (Tensor values, Tensor indices)", "function,method", `
type TopkOptions struct {
	Dim     Opt[int]  // default -1
	Largest Opt[bool] // default true
	Sorted  Opt[bool] // default true
}
func (t *Tensor) Topk(k int, opts ...TopkOptions) (values, indices *Tensor) {
	o := one(opts)
	var cc call
	cc.start(&tensorOpTopk)
	cc.tensor(t)
	cc.int(k)
	cc.int(o.Dim.Or(-1))
	cc.bool(o.Largest.Or(true))
	cc.bool(o.Sorted.Or(true))
	cc.run()
	return cc.retTensor(), cc.retTensor()
}`,
	},
	{
		"aten::_foreach_add_.Scalar(Tensor(a!)[] self, Scalar scalar) -> ()", "function", `
func (InternalOps) ForeachAddScalar_(input []*Tensor, scalar Scalar) {
	var cc call
	cc.start(&internalOpForeachAddScalar_)
	cc.tensors(input)
	cc.scalar(scalar)
	cc.run()
}`,
	},
	{
		"_c10d_functional::all_reduce(Tensor input, Any reduce_op, Any group_name) -> Tensor", "", `
func (C10DFunctionalOps) AllReduce(input *Tensor, reduceOp, groupName string) *Tensor {
	var cc call
	cc.start(&c10dfunctionalOpAllReduce)
	cc.tensor(input)
	cc.str(reduceOp)
	cc.str(groupName)
	cc.run()
	return cc.retTensor()
}`,
	},
}

func TestGolden(t *testing.T) {
	api := build(t)
	files, err := api.Files()
	require.NoError(t, err)
	comments := regexp.MustCompile(`(?m)^//.*\n`)
	for _, g := range golden {
		var found *Func
		for _, f := range api.Funcs {
			if f.Schema.Text == g.schema {
				found = f
			}
		}
		require.NotNil(t, found, g.schema)
		require.Equal(t, g.python, strings.Join(found.Schema.Variants, ","), g.schema)
		src := comments.ReplaceAllString(string(files["torch/"+found.file()]), "")
		for _, part := range strings.SplitAfter(g.code, "\n}\n") {
			require.Contains(t, src, "\n"+strings.TrimSpace(part)+"\n", g.schema)
		}
	}
}

func TestParseSchema(t *testing.T) {
	s, err := ParseSchema(`ns::op_.out(Tensor(a!)[] self, Scalar?[] s, int[2]? n=None, str m="a, (\"b\")", *, SymInt[1] d=[-2, -1], Tensor(b!) out) -> (Tensor(a!)[], Tensor? x)`)
	require.NoError(t, err)
	require.Equal(t, "ns::op_.out", s.Name())
	require.Equal(t, []Arg{
		{Name: "self", Type: Type{Base: "Tensor", List: true, Mutable: true}},
		{Name: "s", Type: Type{Base: "Scalar", List: true, ElemOpt: true}},
		{Name: "n", Type: Type{Base: "int", List: true, N: "2", Optional: true}, HasDefault: true, Default: "None"},
		{Name: "m", Type: Type{Base: "str"}, HasDefault: true, Default: `"a, (\"b\")"`},
		{Name: "d", Type: Type{Base: "int", List: true, N: "1"}, HasDefault: true, Default: "[-2, -1]", KwOnly: true},
		{Name: "out", Type: Type{Base: "Tensor", Mutable: true}, KwOnly: true},
	}, s.Args)
	require.Equal(t, []Arg{
		{Type: Type{Base: "Tensor", List: true, Mutable: true}},
		{Name: "x", Type: Type{Base: "Tensor", Optional: true}},
	}, s.Returns)
	for _, bad := range []string{"", "aten::", "aten::x", "aten::x(Tensor self", "aten::x(Tensor self) Tensor", "aten::x() -> Tensor y z", "x() -> Tensor"} {
		_, err := ParseSchema(bad)
		require.Error(t, err, bad)
	}
}

// Each operator of the lists prints again as what was read: nothing is overlooked.
func TestReadsAllOfEachSchema(t *testing.T) {
	for _, v := range []string{version, "2.11.0"} {
		for _, s := range operators(t, v) {
			n := strings.Count(s.Text, "*, ")
			require.LessOrEqual(t, n, 1, s.Text)
			for _, a := range s.Args {
				require.Contains(t, s.Text, " "+a.Name, s.Text)
				if a.HasDefault {
					require.Contains(t, s.Text, " "+a.Name+"="+a.Default, s.Text)
				}
			}
		}
	}
}

// Every documented operator has a sentence, an equation and shapes in the form that docs.go describes.
// TestDocumentedShapes and TestEquations in package torch hold them against the operators themselves.
func TestDocsTable(t *testing.T) {
	known := map[string]*Func{}
	for _, f := range build(t).Funcs {
		known[f.Schema.Name()] = f
	}
	sentence := regexp.MustCompile(`^[a-z][^\n]*[^.\s]$`)
	shape := `\((?:[^()]|\([^()]*\))*\)`
	shapes := regexp.MustCompile(`^(?:\w+ (?:n × |2 × )?` + shape + `(?:, (?:\w+ )?` + shape + `)* )?-> (?:bool|[^ ]+ × ` + shape + `|` + shape + `).*$`)
	for name, d := range docs {
		f := known[name]
		require.NotNil(t, f, "docs of %s, which is no function", name)
		require.NotEqual(t, Out, f.Kind, name)
		require.Regexp(t, sentence, d.summary, name)
		_, lines, _ := f.docEntry()
		require.GreaterOrEqual(t, len(lines), 2, "%s: an equation and shapes are expected", name)
		nShapes := 0
		for i, l := range lines {
			require.Equal(t, strings.TrimSpace(l), l, name)
			require.NotEmpty(t, l, name)
			if strings.Contains(l, "-> ") && !strings.Contains(l, "\"") {
				require.NotZero(t, i, "%s: the equation comes first", name)
				require.Regexp(t, shapes, l, name)
				nShapes++
			}
		}
		require.Equal(t, 1, nShapes, "%s: one line of shapes is expected", name)
		// The parameters that the shapes name exist.
		words := map[string]bool{"t": f.Receiver == "Tensor"}
		for _, p := range f.Params {
			words[p.Name] = true
		}
		if f.Options != nil {
			for _, field := range f.Options.Fields {
				words[field.Name] = true
			}
		}
		for _, l := range lines {
			if left, _, ok := strings.Cut(l, "-> "); ok && shapes.MatchString(l) {
				for _, m := range regexp.MustCompile(`(?:^|, )(\w+) (?:\(|n ×|2 ×)`).FindAllStringSubmatch(left, -1) {
					require.True(t, words[m[1]], "%s: no parameter %s", name, m[1])
				}
			}
		}
	}
	require.GreaterOrEqual(t, len(docs), 300)
	for _, base := range strings.Fields(`add sub mul div matmul bmm linear conv1d conv2d conv_transpose2d embedding layer_norm batch_norm group_norm
		softmax log_softmax gelu silu relu sigmoid tanh dropout scaled_dot_product_attention cross_entropy_loss mse_loss sum mean max argmax topk sort
		cumsum cat stack split chunk view reshape permute transpose index_select gather scatter_add where masked_fill arange zeros ones rand randn
		einsum pad max_pool2d upsample_bilinear2d lstm gru linalg_svd fft_rfft copy_ uniform_ normal_`) {
		found := false
		for name := range docs {
			found = found || name == "aten::"+base || strings.HasPrefix(name, "aten::"+base+".")
		}
		require.True(t, found, "%s is not documented", base)
	}
}

func TestTablesAreUsed(t *testing.T) {
	names := map[string]bool{}
	args := map[string]bool{}
	for _, s := range operators(t, version) {
		names[s.Name()] = true
		for _, a := range s.Args {
			args[s.Namespace+"::"+s.Base+"."+a.Name] = true
		}
	}
	for name := range suffixes {
		require.True(t, names[name], "suffix of %s, which is no operator", name)
	}
	for name := range hidden {
		require.True(t, args[name], "hidden argument %s does not exist", name)
	}
}

// The files in the repository are what the generator writes now.
func TestGeneratedFilesAreCurrent(t *testing.T) {
	files, err := build(t).Files()
	require.NoError(t, err)
	for path, want := range files {
		have, err := os.ReadFile(filepath.Join(root, path))
		require.NoError(t, err)
		require.True(t, bytes.Equal(want, have), "%s is stale: make generate", path)
	}
	have, err := filepath.Glob(filepath.Join(root, "torch", "zz_*_gen.go"))
	require.NoError(t, err)
	require.Len(t, have, len(files)-1, "a file that is no longer generated")
}

func TestDiff(t *testing.T) {
	parse := func(lines ...string) []*Schema {
		list, err := ReadList(strings.NewReader(strings.Join(lines, "\n")))
		require.NoError(t, err)
		return list
	}
	var b bytes.Buffer
	writeDiff(&b, parse("a::x(int n) -> ()", "a::y() -> ()", "a::z() -> ()"), parse("a::x(int n=1) -> ()", "a::z() -> ()", "a::w() -> ()"))
	require.Equal(t, `3 operators before, 3 after: 1 added, 1 removed, 1 changed

added (1)
    a::w() -> ()

removed (1)
    a::y() -> ()

changed (1)
    a::x(int n) -> ()
      -> a::x(int n=1) -> ()
`, b.String())
}

func TestWriteList(t *testing.T) {
	yaml := `# comment
- func: add.Tensor(Tensor self, Tensor other, *, Scalar alpha=1) -> Tensor
  structured_delegate: add.out
  variants: function, method
- func: gelu(Tensor self, *, str approximate='none') -> Tensor
  python_module: nn
- func: t(Tensor(a) self) -> Tensor(a)
  variants: method  # as before
`
	var b bytes.Buffer
	require.NoError(t, writeList(&b, "9.9.9", []string{
		"x::y() -> ()", "aten::t(Tensor(a) self) -> Tensor(a)", "aten::gelu(Tensor self) -> Tensor", "aten::add.Tensor(Tensor self) -> Tensor",
	}, strings.NewReader(yaml)))
	lines := strings.Split(b.String(), "\n")[2:]
	require.Equal(t, []string{
		"aten::add.Tensor(Tensor self) -> Tensor\tfunction,method",
		"aten::gelu(Tensor self) -> Tensor\tfunction module=nn",
		"aten::t(Tensor(a) self) -> Tensor(a)\tmethod",
		"x::y() -> ()", "",
	}, lines)
}
