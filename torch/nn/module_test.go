package nn

import (
	"encoding/json"
	"maps"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/torchgo/torchgo/torch"
)

// block has one of each kind of field.
type block struct {
	Proj  *Linear       `torch:"proj"`
	Scale *torch.Tensor `torch:"scale"`
	Stat  *torch.Tensor `torch:"stat,buffer"`
	Ids   *torch.Tensor `torch:"ids,transient"`
	Gone  *LayerNorm    `torch:"gone"`
	Drop  *Dropout      `torch:"drop"`
}

type shared struct {
	Norm *LayerNorm `torch:"norm"`
}

type net struct {
	shared
	Layers []*block   `torch:"layers"`
	Emb    *Embedding `torch:"emb"`
	Head   *Linear    `torch:"head"`

	note *Linear // untagged: not part of the module
}

func newNet() *net {
	var b Builder
	n := &net{shared: shared{b.LayerNorm(3)}, Emb: b.Embedding(5, 3), note: b.Linear(1, 1)}
	n.Head = b.Linear(3, 5, LinearOptions{Bias: torch.Some(false)})
	n.Head.Weight.(*Dense).W.Close()
	n.Head.Weight.(*Dense).W = n.Emb.Weight.(*Table).W // tied
	for range 2 {
		n.Layers = append(n.Layers, &block{Proj: b.Linear(3, 3), Scale: b.Parameter(1),
			Stat: b.Empty(torch.Float32, 2), Ids: b.Empty(torch.Int64, 4), Drop: NewDropout(0.5)})
	}
	return n
}

func TestNamesFollowTagsAndPyTorchsOrder(t *testing.T) {
	n := newNet()
	defer Close(n)
	var names []string
	for name := range StateDict(n) {
		names = append(names, name)
	}
	require.Equal(t, []string{
		"norm.weight", "norm.bias",
		"layers.0.scale", "layers.0.stat", "layers.0.proj.weight", "layers.0.proj.bias",
		"layers.1.scale", "layers.1.stat", "layers.1.proj.weight", "layers.1.proj.bias",
		"emb.weight", "head.weight",
	}, names)

	names = nil
	for name := range NamedParameters(n) {
		names = append(names, name)
	}
	require.NotContains(t, names, "head.weight", "a tied parameter is listed once")
	require.NotContains(t, names, "layers.0.stat")
	require.Len(t, names, 9)

	names = nil
	for name := range NamedBuffers(n) {
		names = append(names, name)
	}
	require.Equal(t, []string{"layers.0.stat", "layers.0.ids", "layers.1.stat", "layers.1.ids"}, names)
}

func TestModulesAndMode(t *testing.T) {
	n := newNet()
	defer Close(n)
	var names []string
	for name := range NamedModules(n) {
		names = append(names, name)
	}
	require.Equal(t, []string{"", "norm", "layers.0", "layers.0.proj", "layers.0.drop", "layers.1", "layers.1.proj",
		"layers.1.drop", "emb", "head"}, names)
	require.Equal(t, 0.5, n.Layers[1].Drop.Rate(), "a new module is in training mode")
	Eval(n)
	require.Zero(t, n.Layers[1].Drop.Rate())
	Train(n)
	require.Equal(t, 0.5, n.Layers[1].Drop.Rate())
}

// adapted wraps another weight and adds an entry of its own: the shape of a LoRA layer.
type adapted struct {
	Base LinearWeight  `torch:",inline"`
	A    *torch.Tensor `torch:"lora_A.default.weight"`
}

func (a *adapted) Forward(x, bias *torch.Tensor) *torch.Tensor { return a.Base.Forward(x, bias) }
func (a *adapted) Features() (int, int)                        { return a.Base.Features() }

func TestWeightNamesItsOwnEntries(t *testing.T) {
	l := NewLinear(2, 3)
	l.Weight = &adapted{Base: l.Weight, A: Builder{}.Parameter(1, 2)}
	defer Close(l)
	var names []string
	for _, s := range Slots(l) {
		names = append(names, s.Name)
	}
	require.Equal(t, []string{"weight", "lora_A.default.weight", "bias"}, names)
	in, out := l.Weight.Features()
	require.Equal(t, []int{2, 3}, []int{in, out})
}

func TestBadTagsPanic(t *testing.T) {
	require.Panics(t, func() { Slots(nil) })
	require.Panics(t, func() { Slots(3) })
	require.Panics(t, func() { Slots(net{}) })
	require.Panics(t, func() {
		Slots(&struct {
			X *torch.Tensor `torch:"x,bufer"`
		}{})
	})
	require.Panics(t, func() {
		Slots(&struct {
			X int `torch:"x"`
		}{})
	})
	require.Panics(t, func() {
		Slots(&struct {
			x *torch.Tensor `torch:"x"` //nolint:unused // the point of the test
		}{})
	})
}

func TestParametersOutliveTheScopeTheyWereMadeIn(t *testing.T) {
	torch.Collect() // what other tests have left
	before := torch.LiveTensors()
	var l *Linear
	torch.Scope(func() { l = NewLinear(4, 2) })
	require.Equal(t, []int{2, 4}, l.Weight.(*Dense).W.Shape())
	require.EqualValues(t, 2, torch.LiveTensors()-before)
	Close(l)
	require.Equal(t, before, torch.LiveTensors())
}

func TestMetaDeviceAllocatesNothing(t *testing.T) {
	b := Builder{Device: torch.Meta, DType: torch.BFloat16}
	l := b.Linear(1<<20, 1<<20) // 2 TiB, were it real
	defer Close(l)
	w := l.Weight.(*Dense).W
	require.Equal(t, torch.Meta, w.Device())
	require.Equal(t, torch.BFloat16, w.DType())
	require.True(t, w.RequiresGrad())
}

func TestLoadStateDict(t *testing.T) {
	torch.ManualSeed(1)
	from, to := NewLinear(3, 2), NewLinear(3, 2)
	defer Close(from)
	defer Close(to)
	require.NoError(t, LoadStateDict(to, StateDict(from)))
	require.Equal(t, torch.ToSlice[float32](from.Weight.(*Dense).W), torch.ToSlice[float32](to.Weight.(*Dense).W))

	bare := NewLinear(3, 2, LinearOptions{Bias: torch.Some(false)})
	defer Close(bare)
	require.EqualError(t, LoadStateDict(bare, StateDict(from)), "Error(s) in loading state_dict for Linear:\n\tUnexpected key(s) in state_dict: \"bias\". ")
	require.NoError(t, LoadStateDict(bare, StateDict(from), LoadStateDictOptions{Strict: torch.Some(false)}))

	// A value that can't be had leaves all as it was.
	before := torch.ToSlice[float32](to.Weight.(*Dense).W)
	err := LoadStateDict(to, maps.All(map[string]*torch.Tensor{
		"weight": torch.Zeros([]int{2, 3}), "bias": torch.Zeros([]int{2}, torch.TensorOptions{Device: torch.Meta})}))
	require.ErrorContains(t, err, `While copying the parameter named "bias", whose dimensions in the model are torch.Size([2]) and whose dimensions in the checkpoint are torch.Size([2]), an exception occurred : (`)
	require.Equal(t, before, torch.ToSlice[float32](to.Weight.(*Dense).W))
}

// refNet is the Net of tools/nnref.
type refNet struct {
	Scale  *torch.Tensor `torch:"scale"`
	Count  *torch.Tensor `torch:"count,buffer"`
	Layers []any         `torch:"layers"`
	Head   *Sequential   `torch:"head"`
}

func (*refNet) ModuleName() string { return "Net" }

func newRefNet() *refNet {
	var b Builder
	return &refNet{Scale: b.Parameter(2), Count: b.Empty(torch.Float32), Layers: []any{b.Linear(2, 2), b.BatchNorm1d(2)},
		Head: NewSequential(b.Linear(2, 3), NewReLU())}
}

// The messages are Python's, and the names on one side only come in its order.
func TestLoadStateDictSaysWhatPythonSays(t *testing.T) {
	var ref struct {
		Errors map[string]struct {
			Strict              bool
			Error               *string
			State               [][2]json.RawMessage
			Missing, Unexpected []string
		}
	}
	readNNRef(t, &ref)
	require.Len(t, ref.Errors, 8)
	for name, c := range ref.Errors {
		torch.Scope(func() {
			n := newRefNet()
			defer Close(n)
			state := func(yield func(string, *torch.Tensor) bool) {
				for _, entry := range c.State {
					var name string
					var shape []int
					require.NoError(t, json.Unmarshal(entry[0], &name))
					require.NoError(t, json.Unmarshal(entry[1], &shape))
					if !yield(name, torch.Zeros(shape)) {
						return
					}
				}
			}
			var keys IncompatibleKeys
			err := LoadStateDict(n, state, LoadStateDictOptions{Strict: torch.Some(c.Strict), Incompatible: &keys})
			if c.Error != nil {
				require.EqualError(t, err, *c.Error, name)
				return
			}
			require.NoError(t, err, name)
			require.Equal(t, c.Missing, append([]string{}, keys.Missing...), name)
			require.Equal(t, c.Unexpected, append([]string{}, keys.Unexpected...), name)
		})
	}
}

func TestAssign(t *testing.T) {
	to := NewLinear(3, 2)
	old := to.Weight.(*Dense).W
	w, bias := torch.Ones([]int{2, 3}, torch.TensorOptions{DType: torch.Float64}), torch.Zeros([]int{2})
	require.NoError(t, LoadStateDict(to, maps.All(map[string]*torch.Tensor{"weight": w, "bias": bias}), LoadStateDictOptions{Assign: true}))
	require.Same(t, w, to.Weight.(*Dense).W)
	require.Same(t, bias, to.Bias)
	require.True(t, w.RequiresGrad(), "it is a parameter now")
	require.False(t, old.Closed(), "others may hold it")
	old.Close()
	Close(to)
}

func TestToKeepsTiesAndTraining(t *testing.T) {
	torch.Collect()
	before := torch.LiveTensors()
	n := newNet()
	live := torch.LiveTensors()
	w := n.Head.Weight.(*Dense).W
	w.Sum().Backward()
	To(n, torch.Device{}, torch.Float16)
	torch.Collect()
	require.Equal(t, live, torch.LiveTensors())
	require.Same(t, w, n.Head.Weight.(*Dense).W, "an optimizer's reference holds")
	require.Same(t, n.Emb.Weight.(*Table).W, w)
	require.True(t, w.RequiresGrad())
	require.True(t, w.IsLeaf())
	require.Equal(t, torch.Float16, w.DType())
	require.Equal(t, torch.Float16, w.Grad().DType())
	require.Equal(t, torch.Float16, n.Layers[0].Stat.DType())
	require.Equal(t, torch.Int64, n.Layers[0].Ids.DType())
	w.Sum().Backward()
	require.Equal(t, float32(2), slice(w.Grad().ToDType(torch.Float32))[0], "gradients go on accumulating")
	Close(n)
	Close(n.note)
	torch.Collect()
	require.Equal(t, before, torch.LiveTensors())
}

func TestMapTensorsKeepsTies(t *testing.T) {
	torch.Collect()
	n := newNet()
	live := torch.LiveTensors()
	MapTensors(n, func(_ string, _ Kind, t *torch.Tensor) *torch.Tensor { return t.Detach().Clone() })
	torch.Collect()
	require.Equal(t, live, torch.LiveTensors(), "the former tensors are freed")
	require.Same(t, n.Emb.Weight.(*Table).W, n.Head.Weight.(*Dense).W)
	Close(n)
	Close(n.note)
}

func TestFromMetaToADevice(t *testing.T) {
	l := Builder{Device: torch.Meta}.Linear(2, 3)
	defer Close(l)
	ToEmpty(l, torch.CPU)
	require.Equal(t, torch.CPU, l.Bias.Device())
	require.True(t, l.Bias.RequiresGrad())
	require.Equal(t, []int{3, 2}, l.Weight.(*Dense).W.Shape())
	require.Error(t, torch.TryDo(func() { To(Builder{Device: torch.Meta}.Linear(2, 3), torch.CPU, 0) }))
}

func TestModuleFunctions(t *testing.T) {
	n := newRefNet()
	defer Close(n)
	var order []string
	Apply(n, func(m any) { order = append(order, class(m)) })
	require.Equal(t, []string{"Linear", "BatchNorm1d", "Linear", "ReLU", "Sequential", "Net"}, order, "children come first")

	RequiresGrad_(n, false)
	require.False(t, n.Scale.RequiresGrad())
	RequiresGrad_(n, true)
	n.Scale.Sum().Backward()
	require.NotNil(t, n.Scale.Grad())
	ZeroGrad(n)
	require.Nil(t, n.Scale.Grad())

	m, err := GetSubmodule(n, "layers.1")
	require.NoError(t, err)
	require.Same(t, n.Layers[1], m)
	m, err = GetSubmodule(n, "")
	require.NoError(t, err)
	require.Same(t, n, m)
	_, err = GetSubmodule(n, "head.7.more")
	require.EqualError(t, err, "Sequential has no attribute `7`")
	_, err = GetSubmodule(n, "nope")
	require.EqualError(t, err, "Net has no attribute `nope`")
	p, err := GetParameter(n, "head.0.bias")
	require.NoError(t, err)
	require.Equal(t, []int{3}, p.Shape())
	_, err = GetParameter(n, "count")
	require.EqualError(t, err, "Net has no Parameter `count`")
	p, err = GetBuffer(n, "layers.1.running_var")
	require.NoError(t, err)
	require.Equal(t, []float32{1, 1}, slice(p))
}

func TestSetSubmodule(t *testing.T) {
	n := newNet()
	defer Close(n)
	drop := NewDropout(0.25)
	require.NoError(t, SetSubmodule(n, "layers.1.drop", drop))
	require.Same(t, drop, n.Layers[1].Drop)
	require.NoError(t, SetSubmodule(n, "layers.1", n.Layers[0]))
	require.Same(t, n.Layers[0], n.Layers[1])
	s := NewSequential(NewReLU(), NewReLU())
	require.NoError(t, SetSubmodule(s, "1", n.Head))
	require.Same(t, n.Head, s.Layers[1])
	d := NewModuleDict()
	d.Set("a", s)
	require.NoError(t, SetSubmodule(d, "a.0", drop))
	require.Same(t, drop, s.Layers[0])

	require.EqualError(t, SetSubmodule(n, "", n), "cannot set the submodule without a target name")
	require.ErrorContains(t, SetSubmodule(n, "layers.2", n.Layers[0]), "net has no attribute `2`")
	require.EqualError(t, SetSubmodule(n, "head", drop), "head is a *nn.Linear: a *nn.Dropout can't take its place")
}

// A move that fails leaves the module where it was: parameters can't change to the meta device in place.
func TestToFails(t *testing.T) {
	l := NewLinear(2, 3)
	defer Close(l)
	w := l.Weight.(*Dense).W
	want := slice(w.Detach())
	w.SetGrad(torch.Ones([]int{3, 2}))
	require.ErrorIs(t, torch.TryDo(func() { To(l, torch.Meta, 0) }), torch.ErrRuntime)
	require.Equal(t, torch.CPU, w.Device())
	require.Equal(t, want, slice(w.Detach()))
	require.Equal(t, []int{3, 2}, w.Grad().Shape())
	require.Equal(t, torch.CPU, w.Grad().Device())
	require.Equal(t, torch.CPU, l.Bias.Device())
}

func TestSharedModules(t *testing.T) {
	l := NewLinear(2, 2)
	defer Close(l)
	s := NewSequential(l, NewReLU(), l)
	var modules, state, params []string
	for name := range NamedModules(s) {
		modules = append(modules, name)
	}
	for name := range StateDict(s) {
		state = append(state, name)
	}
	for name := range NamedParameters(s) {
		params = append(params, name)
	}
	require.Equal(t, []string{"", "0", "1"}, modules)
	require.Equal(t, []string{"0.weight", "0.bias", "2.weight", "2.bias"}, state)
	require.Equal(t, []string{"0.weight", "0.bias"}, params)
	m, err := GetSubmodule(s, "2")
	require.NoError(t, err)
	require.Same(t, l, m)
	c := Clone(s)
	defer Close(c)
	require.Same(t, c.Layers[0], c.Layers[2], "shared in the copy, too")
	require.NotSame(t, l, c.Layers[0])
}

func TestCloneSharesNothing(t *testing.T) {
	n := newNet()
	n.Layers[0].Drop.SetTraining(false)
	c := Clone(n)
	require.NotSame(t, n.Layers[0], c.Layers[0])
	require.False(t, c.Layers[0].Drop.Training())
	require.Same(t, c.Emb.Weight.(*Table).W, c.Head.Weight.(*Dense).W, "ties are kept")
	want := map[string][]int{}
	for name, x := range StateDict(n) {
		want[name] = x.Shape()
	}
	for name, x := range StateDict(c) {
		require.Equal(t, want[name], x.Shape(), name)
		y, err := GetParameter(n, name)
		if err == nil {
			require.NotSame(t, y, x)
			require.Equal(t, y.RequiresGrad(), x.RequiresGrad())
		}
	}
	Close(c)
	require.False(t, n.Layers[0].Scale.Closed())

	lstm := NewLSTM(2, 3)
	d := Clone(lstm)
	torch.NoGrad(func() { d.Params.Get("bias_ih_l0").Zero_() })
	require.NotEqual(t, slice(d.Params.Get("bias_ih_l0")), slice(lstm.Params.Get("bias_ih_l0").Detach()))
	d.Params.Delete("bias_hh_l0")
	require.Equal(t, 4, lstm.Params.Len())
	for _, m := range []any{n, n.note, lstm, d} {
		Close(m)
	}
}

func TestContainers(t *testing.T) {
	d := NewModuleDict()
	d.Set("b", NewLinear(1, 1))
	d.Set("a", NewReLU())
	d.Set("b", NewTanh())
	require.Equal(t, []string{"b", "a"}, d.Keys())
	require.Equal(t, "Tanh", class(d.Get("b")))
	require.Nil(t, d.Get("c"))
	d.Delete("b")
	require.Equal(t, 1, d.Len())
	require.Panics(t, func() { d.Set("x.y", NewReLU()) })
	require.Panics(t, func() { d.Set("", NewReLU()) })
	require.Panics(t, func() { d.Set("x", 3) })

	holder := &struct {
		List *ParameterList `torch:"list"`
		Dict *ParameterDict `torch:"dict"`
	}{NewParameterList(torch.Ones([]int{1}), torch.Zeros([]int{2})), NewParameterDict()}
	holder.Dict.Set("w", torch.Ones([]int{3}))
	var names []string
	for _, s := range Slots(holder) {
		names = append(names, s.Name)
		s.Set(torch.Zeros([]int{1}))
	}
	require.Equal(t, []string{"list.0", "list.1", "dict.w"}, names)
	require.Equal(t, []int{1}, holder.Dict.Get("w").Shape(), "a slot can be set")
	Close(holder)
}

// embedder embeds a container and has a field of its own: both count.
type embedder struct {
	ParameterDict
	Extra *torch.Tensor `torch:"extra"`
}

func TestEmbeddedContainersCount(t *testing.T) {
	e := &embedder{Extra: torch.Ones([]int{1})}
	e.Set("w", torch.Ones([]int{2}))
	defer Close(e)
	var names []string
	for name := range StateDict(e) {
		names = append(names, name)
	}
	require.Equal(t, []string{"w", "extra"}, names)
}

// Ten thousand modules in each other neither overflow a stack nor take long.
func TestDeepNesting(t *testing.T) {
	const depth = 10_000
	deepest := NewLinear(1, 1)
	s := NewSequential(deepest)
	for range depth {
		s = NewSequential(s)
	}
	Eval(s)
	require.True(t, deepest.Bias.RequiresGrad())
	require.Len(t, Parameters(s), 2)
	n := 0
	Apply(s, func(any) { n++ })
	require.Equal(t, depth+2, n)
	To(s, torch.Device{}, torch.Float64)
	torch.Scope(func() {
		x := torch.Ones([]int{1, 1}, torch.TensorOptions{DType: torch.Float64}).SetRequiresGrad(true)
		y := s.Forward(x)
		y.Sum().Backward()
		require.NotNil(t, x.Grad())
	})
	c := Clone(s)
	require.NoError(t, LoadStateDict(c, StateDict(s)))
	Close(c)
	Close(s)
}

func TestParametersAreUnique(t *testing.T) {
	n := newNet()
	defer Close(n)
	ps := Parameters(n)
	require.Len(t, ps, 9)
	require.Len(t, slices.Compact(slices.Clone(ps)), 9)
}

func TestNotAModule(t *testing.T) {
	for _, m := range []any{nil, 3, struct{}{}, (*Linear)(nil)} {
		require.ErrorContains(t, torch.TryDo(func() { Parameters(m) }), "is not a module: expected a non-nil pointer to a struct")
	}
}
