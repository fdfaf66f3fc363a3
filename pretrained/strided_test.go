package pretrained

import (
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"
)

// at lists the offsets of a view's elements in order.
func (v strided) at() []int {
	offsets := []int{v.offset}
	for _, d := range v.dims {
		for _, f := range d {
			var next []int
			for _, o := range offsets {
				for i := range f.size {
					next = append(next, o+i*f.stride)
				}
			}
			offsets = next
		}
	}
	return offsets
}

// pairs lists (from, to) of the elements that c copies.
func (c blockCopy) pairs() map[int]int {
	out := map[int]int{}
	var walk func(k, from, to int)
	walk = func(k, from, to int) {
		if k == len(c.sizes) {
			out[from] = to
			return
		}
		for i := range c.sizes[k] {
			walk(k+1, from+i*c.from.strides[k], to+i*c.to.strides[k])
		}
	}
	walk(0, c.from.offset, c.to.offset)
	return out
}

func TestBlockCopy(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 300 {
		shape := make([]int, 1+r.IntN(4))
		for i := range shape {
			shape[i] = 1 + r.IntN(5)
		}
		v := whole(shape)
		require.True(t, v.copyInto().run())
		if len(shape) > 1 { // transpose
			i, j := r.IntN(len(shape)), r.IntN(len(shape))
			v.dims[i], v.dims[j] = v.dims[j], v.dims[i]
		}
		i := r.IntN(len(v.dims))
		n := size(v.dims[i])
		start := r.IntN(n)
		v, err := v.narrow(i, start, 1+r.IntN(n-start))
		require.NoError(t, err)
		c := v.copyInto()
		want := map[int]int{}
		for from, to := range v.at() {
			want[from] = to
		}
		require.Equal(t, want, c.pairs())
		back := map[int]int{}
		for from, to := range c.reverse().pairs() {
			back[to] = from
		}
		require.Equal(t, want, back)
		for _, limit := range []int{1, 2, 3, 7, 1000} {
			for _, c := range []blockCopy{c, c.reverse()} {
				got := map[int]int{}
				require.NoError(t, c.each(limit, func(piece blockCopy) error {
					require.LessOrEqual(t, piece.span(), limit)
					for from, to := range piece.pairs() {
						require.NotContains(t, got, from)
						got[from] = to
					}
					return nil
				}))
				require.Equal(t, c.pairs(), got)
			}
		}
	}
}

func TestSplitFactors(t *testing.T) {
	d := []factor{{2, 100}, {6, 10}, {4, 1}}
	for _, n := range []int{1, 2, 4, 8, 12, 24, 48} {
		outer, inner, err := splitFactors(d, n)
		require.NoError(t, err, n)
		require.Equal(t, n, size(inner))
		require.Equal(t, strided{dims: [][]factor{d}}.at(), strided{dims: [][]factor{outer, inner}}.at(), n)
	}
	for _, n := range []int{3, 5, 16, 96} {
		_, _, err := splitFactors(d, n)
		require.Error(t, err, n)
	}
	v, err := strided{dims: [][]factor{d}}.narrow(0, 24, 24)
	require.NoError(t, err)
	require.Equal(t, 100, v.offset)
	require.Equal(t, []int{24}, v.shape())
	_, err = strided{dims: [][]factor{d}}.narrow(0, 2, 24)
	require.Error(t, err)
	require.Equal(t, 100+30+2, strided{dims: [][]factor{d}}.index(0, 24+3*4+2).offset)
}
