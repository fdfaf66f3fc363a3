package nn

import (
	"errors"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/torchgo/torchgo/torch"
)

// doubler is a module of a user's: it embeds Hooks and has Call run its work.
type doubler struct {
	Hooks
	Mode

	broken bool
}

func (d *doubler) Forward(x *torch.Tensor) *torch.Tensor { return d.Call(x, d.forward) }

func (d *doubler) forward(x *torch.Tensor) *torch.Tensor {
	if d.broken {
		panic(errors.New("broken"))
	}
	return x.MulScalar(2)
}

func TestForwardHooks(t *testing.T) {
	d := &doubler{}
	x := torch.FromSlice([]float32{1})
	var order []string
	note := func(name string) { order = append(order, name) }
	removePre := RegisterForwardPreHook(d, func(m any, in []*torch.Tensor) []*torch.Tensor {
		require.Same(t, d, m)
		note("pre 1")
		return []*torch.Tensor{in[0].AddScalar(1)}
	})
	RegisterForwardPreHook(d, func(m any, in []*torch.Tensor) []*torch.Tensor { note("pre 0"); return nil }, HookOptions{Prepend: true})
	remove := RegisterForwardHook(d, func(m any, in, out []*torch.Tensor) []*torch.Tensor {
		require.Same(t, d, m)
		require.Equal(t, []float32{2}, slice(in[0]), "what the pre-hook made")
		require.Equal(t, []float32{4}, slice(out[0]))
		note("post 1")
		return []*torch.Tensor{out[0].AddScalar(10)}
	})
	removeLast := RegisterForwardHook(d, func(m any, in, out []*torch.Tensor) []*torch.Tensor {
		require.Equal(t, []float32{14}, slice(out[0]), "what the hook before made")
		note("post 2")
		return nil
	})
	require.Equal(t, []float32{14}, slice(d.Forward(x)))
	require.Equal(t, []string{"pre 0", "pre 1", "post 1", "post 2"}, order)
	removePre()
	remove()
	removeLast()
	remove() // again: nothing
	require.Equal(t, []float32{2}, slice(d.Forward(x)))

	err := torch.TryDo(func() {
		RegisterForwardHook(d, func(any, []*torch.Tensor, []*torch.Tensor) []*torch.Tensor {
			torch.Ones([]int{2}).MatMul(x)
			return nil
		})
		d.Forward(x)
	})
	require.Error(t, err, "a hook's panic is Forward's")
	require.PanicsWithValue(t, "nn: a *int takes no hooks: embed nn.Hooks in it", func() { RegisterForwardHook(new(int), nil) })
}

func TestAlwaysCalledHooksSeeAPanic(t *testing.T) {
	d := &doubler{broken: true}
	calls := 0
	RegisterForwardHook(d, func(any, []*torch.Tensor, []*torch.Tensor) []*torch.Tensor { t.Error("not always"); return nil })
	RegisterForwardHook(d, func(m any, in, out []*torch.Tensor) []*torch.Tensor {
		calls++
		require.Nil(t, out)
		panic("dropped")
	}, HookOptions{AlwaysCall: true})
	require.PanicsWithError(t, "broken", func() { d.Forward(torch.FromSlice([]float32{1})) })
	require.Equal(t, 1, calls)
}

// Every layer of the package runs hooks.
func TestLayersTakeHooks(t *testing.T) {
	for expression, construct := range refModules {
		m := construct()
		if _, ok := m.(hooked); !ok {
			t.Errorf("%s takes no hooks", expression)
		}
		Close(m)
	}
	torch.Scope(func() {
		lstm := NewLSTM(2, 3)
		RegisterForwardHook(lstm, func(m any, in, out []*torch.Tensor) []*torch.Tensor {
			require.Same(t, lstm, m)
			require.Len(t, in, 3)
			require.Nil(t, in[1])
			return []*torch.Tensor{out[0].Neg(), out[1], nil}
		})
		y, h, c := lstm.Forward(torch.Ones([]int{1, 1, 2}), nil, nil)
		require.Equal(t, slice(h), slice(y.Neg()))
		require.Nil(t, c)
		sum := &MSELoss{Reduction: ReductionSum}
		RegisterForwardPreHook(sum, func(_ any, in []*torch.Tensor) []*torch.Tensor {
			return []*torch.Tensor{in[0], in[1].AddScalar(3)}
		})
		require.Equal(t, []float32{9}, slice(sum.Forward(torch.Ones([]int{1}), torch.Ones([]int{1}))))
		Close(lstm)
	})
}

func TestNoHooksNoAllocation(t *testing.T) {
	d, x := &doubler{}, torch.FromSlice([]float32{1})
	same := func(x *torch.Tensor) *torch.Tensor { return x }
	require.Zero(t, testing.AllocsPerRun(100, func() { d.Call(x, same) }))
	bare := NewSequential()
	require.Zero(t, testing.AllocsPerRun(100, func() { bare.Forward(x) }), "a method value does not escape")
}

func BenchmarkCallWithoutHooks(b *testing.B) {
	bare, x := NewSequential(), torch.FromSlice([]float32{1})
	for b.Loop() {
		bare.Forward(x)
	}
}

// The hooks of a copied module are called with the copy, and those of the original are its own.
func TestHooksOfACopy(t *testing.T) {
	l := NewLinear(2, 2)
	s := NewSequential(l)
	defer Close(s)
	var called []any
	remove := RegisterForwardHook(l, func(m any, _, _ []*torch.Tensor) []*torch.Tensor { called = append(called, m); return nil })
	RegisterForwardPreHook(s, func(m any, _ []*torch.Tensor) []*torch.Tensor { called = append(called, m); return nil })
	c := Clone(s)
	defer Close(c)
	x := torch.Ones([]int{1, 2})
	c.Forward(x)
	require.Len(t, called, 2)
	require.Same(t, c, called[0])
	require.Same(t, c.Layers[0], called[1])
	s.Forward(x)
	require.Same(t, s, called[2])
	require.Same(t, l, called[3])
	remove()
	s.Forward(x)
	require.Len(t, called, 5)
	c.Forward(x)
	require.Len(t, called, 7)
}

func TestWrapForward(t *testing.T) {
	torch.Scope(func() {
		l := &Linear{Weight: &Dense{torch.FromSlice([]float32{2}, 1, 1)}}
		var order []string
		wrap := func(name string, by float64) (remove func()) {
			return WrapForward(l, func(m any, in []*torch.Tensor) ([]*torch.Tensor, func([]*torch.Tensor) []*torch.Tensor) {
				require.Same(t, l, m)
				order = append(order, name)
				return []*torch.Tensor{in[0].AddScalar(by)}, func(out []*torch.Tensor) []*torch.Tensor {
					order = append(order, "after "+name)
					if out == nil {
						return nil
					}
					return []*torch.Tensor{out[0].MulScalar(by)}
				}
			})
		}
		removeInner := wrap("inner", 10)
		removeOuter := wrap("outer", 100)
		RegisterForwardPreHook(l, func(_ any, in []*torch.Tensor) []*torch.Tensor {
			order = append(order, "hook")
			return nil
		})
		x := torch.FromSlice([]float32{1}, 1, 1)
		require.Equal(t, float32((1+100+10)*2*10*100), torch.Item[float32](l.Forward(x)))
		require.Equal(t, []string{"hook", "outer", "inner", "after inner", "after outer"}, order)

		order = nil
		require.Error(t, torch.TryDo(func() { l.Forward(torch.FromSlice([]float32{1, 2}, 1, 2)) }))
		require.Equal(t, []string{"hook", "outer", "inner", "after inner", "after outer"}, order)

		removeInner()
		removeOuter()
		require.Equal(t, float32(2), torch.Item[float32](l.Forward(x)))
		require.True(t, Wrappable(l))
		require.False(t, Wrappable(&Dense{}))
	})
}
