package nn

import (
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

	other := NewLinear(3, 4)
	defer Close(other)
	err := LoadStateDict(other, StateDict(from))
	require.EqualError(t, err, "load state dict: wrong shape bias (2,), want (4,), weight (2, 3), want (4, 3)")
	err = LoadStateDict(NewLayerNorm(2), StateDict(from), LoadStateDictOptions{AllowPartial: true})
	require.ErrorContains(t, err, "weight (2, 3), want (2,)")
	bare := NewLinear(3, 2, LinearOptions{Bias: torch.Some(false)})
	require.EqualError(t, LoadStateDict(bare, StateDict(from)), "load state dict: unexpected bias")
	require.EqualError(t, LoadStateDict(from, StateDict(bare)), "load state dict: missing bias")
	require.NoError(t, LoadStateDict(bare, StateDict(from), LoadStateDictOptions{AllowPartial: true}))

	// A value that can't be had leaves all as it was.
	before := torch.ToSlice[float32](to.Weight.(*Dense).W)
	err = LoadStateDict(to, maps.All(map[string]*torch.Tensor{
		"weight": torch.Zeros([]int{2, 3}), "bias": torch.Zeros([]int{2}, torch.TensorOptions{Device: torch.Meta})}))
	require.ErrorContains(t, err, "load state dict: ")
	require.Equal(t, before, torch.ToSlice[float32](to.Weight.(*Dense).W))
}

func TestToKeepsTiesAndTraining(t *testing.T) {
	before := torch.LiveTensors()
	n := newNet()
	live := torch.LiveTensors()
	To(n, torch.Device{}, torch.Float16)
	require.Equal(t, live, torch.LiveTensors(), "the former tensors are freed")
	require.Same(t, n.Emb.Weight.(*Table).W, n.Head.Weight.(*Dense).W)
	require.True(t, n.Head.Weight.(*Dense).W.RequiresGrad())
	require.Equal(t, torch.Float16, n.Layers[0].Stat.DType())
	require.Equal(t, torch.Int64, n.Layers[0].Ids.DType())
	Close(n)
	Close(n.note)
	require.Equal(t, before, torch.LiveTensors())
}

func TestParametersAreUnique(t *testing.T) {
	n := newNet()
	defer Close(n)
	ps := Parameters(n)
	require.Len(t, ps, 9)
	require.Len(t, slices.Compact(slices.Clone(ps)), 9)
}
