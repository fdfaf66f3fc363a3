package torch

import (
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// Long and deep arguments and results, in a goroutine, whose thread has a small C stack. A C stack that
// overflows ends the process, so nothing below may recur on what it is given; see also
// TestShimDoesNotRecur of package cgo.
func TestDepth(t *testing.T) {
	if !inChild(t) {
		return
	}
	n := 1_000_000
	if testing.Short() || instrumented {
		n = 50_000
	}
	before := LiveTensors()
	done := make(chan struct{})
	go func() {
		defer close(done)
		Scope(func() { depth(t, n) })
	}()
	<-done
	require.Equal(t, before, LiveTensors())
}

func depth(t *testing.T, n int) {
	one := Ones([]int{1})
	many := slices.Repeat([]*Tensor{one}, n)
	require.Equal(t, []int{n}, Cat(many).Shape(), "a list of tensors")
	require.Equal(t, []int{n, 1}, Stack(many).Shape())
	require.Equal(t, []int{n}, Call("aten::cat", many, 0)[0].(*Tensor).Shape())

	rows := Zeros([]int{n / 10, 1}).Unbind()
	require.Len(t, rows, n/10, "a list of tensors as the result")
	Scope(func() {
		_ = ScopeOf(func() [][]*Tensor { return [][]*Tensor{rows, rows} })
	})

	// libtorch has no bound for the number of dimensions; some operators take the square of it.
	for _, dims := range []int{2000, n / 10} {
		shape := slices.Repeat([]int{1}, dims)
		x, err := Try(func() *Tensor { return Zeros(shape) })
		if err != nil {
			continue
		}
		require.Equal(t, dims, x.Dim())
		require.NotEmpty(t, x.String())
		if dims > 2000 {
			continue
		}
		_ = TryDo(func() { one.View(shape...) })
		_ = TryDo(func() { x.Sum() })
		_ = TryDo(func() { x.Add(one); ToSlice[float32](x.T()) })
		_ = TryDo(func() { x.At(slices.Repeat([]Index{0}, dims)...) })
		_ = TryDo(func() { x.MatMul(Ones([]int{2, 2})) })
		_ = TryDo(func() { x.Add(Ones([]int{2, 2})).Sub(Ones([]int{3})) })
	}
	require.Error(t, TryDo(func() { one.Permute(slices.Repeat([]int{0}, n)...) }))

	for _, text := range []string{
		strings.Repeat("(", n), strings.Repeat("a,", n), strings.Repeat("a", n) + "->", strings.Repeat("...", n), strings.Repeat("[", n),
	} {
		require.Error(t, TryDo(func() { Einsum(text, []*Tensor{one}) }), "an equation of %d characters", len(text))
		require.Error(t, TryDo(func() { Call("aten::gelu", one, text) }))
		require.ErrorIs(t, TryDo(func() { Call(text) }), ErrNoOperator)
		require.ErrorIs(t, TryDo(func() { Call("aten::add."+text, one, one) }), ErrNoOperator)
	}

	require.Equal(t, 501, one.At(slices.Repeat([]Index{NewAxis}, 500)...).Dim(), "an index expression")

	var nested any = one // a list in a list in a list …
	for range n {
		nested = []any{nested}
	}
	require.ErrorIs(t, TryDo(func() { Call("aten::cat", nested, 0) }), ErrArgument)
	type link struct {
		Next *link
		X    *Tensor
	}
	chain := ScopeOf(func() *link { // as a result, it is searched for tensors
		var l *link
		for range n / 10 {
			l = &link{l, one}
		}
		l.X = Ones([]int{2})
		return l
	})
	require.Equal(t, []int{2}, chain.X.Shape())

	x := Ones([]int{1}).SetRequiresGrad(true)
	roots := slices.Repeat([]*Tensor{x.MulScalar(2)}, n/10)
	Backward(roots)
	require.Equal(t, float32(2*len(roots)), Item[float32](x.Grad()))
}
