package pretrained

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/torchgo/torchgo/torch"
)

type headsConfig struct {
	ConfigBase
	NumAttentionHeads int `json:"num_attention_heads"`
}

func (*headsConfig) Validate() error { return nil }

// onTensors is an operation that moves elements of one tensor, by torch's own functions.
func onTensors(op Op, x *torch.Tensor, heads int) *torch.Tensor {
	interleave := func(dim, k int) *torch.Tensor { // (…, n/k, k, …) → (…, k, n/k, …)
		shape := slices.Clone(x.Shape())
		apart := slices.Replace(slices.Clone(shape), dim, dim+1, shape[dim]/k, k)
		return x.Reshape(apart...).Transpose(dim, dim+1).Reshape(shape...)
	}
	switch op := op.(type) {
	case Transpose:
		return x.Transpose(op.Dim0, op.Dim1).Contiguous()
	case Interleave:
		if op.Inverse {
			return interleave(op.Dim, x.Size(op.Dim)/2)
		}
		return interleave(op.Dim, 2)
	case PermuteForRope:
		shape := slices.Clone(x.Shape())
		half := shape[0] / heads / 2
		apart := append([]int{heads, half, 2}, shape[1:]...)
		if op.Inverse {
			apart[1], apart[2] = 2, half
		}
		return x.Reshape(apart...).Transpose(1, 2).Reshape(shape...)
	}
	panic(op)
}

// Random chains of operations give what torch makes of them one after the other, whatever the size of the buffer,
// and their reverses lead back.
func TestRandomConverters(t *testing.T) {
	r := rand.New(rand.NewPCG(8, 5))
	const heads = 2
	config := &headsConfig{NumAttentionHeads: heads}
	neutral := func(dims int) Op {
		switch r.IntN(4) {
		case 0:
			return Transpose{Dim0: r.IntN(dims), Dim1: r.IntN(dims)}
		case 1:
			return Interleave{r.IntN(dims), r.IntN(2) == 0}
		default:
			return PermuteForRope{Inverse: r.IntN(2) == 0}
		}
	}
	done, impossible := 0, 0
	for done < 1500 {
		c := Converter{Targets: []string{"target"}}
		dims := 1 + r.IntN(3)
		shape := make([]int, dims)
		for i := range shape {
			shape[i] = 4 * (1 + r.IntN(3))
		}
		experts, sources := 0, 1+r.IntN(3)
		if r.IntN(2) == 0 {
			experts = 1 + r.IntN(12)
		}
		torch.Scope(func() {
			var file [][]*torch.Tensor // by source and expert
			start := 0
			for s := range sources {
				name := fmt.Sprintf("s%d", s)
				if experts > 0 {
					name += ".*"
				}
				c.Sources = append(c.Sources, name)
				var list []*torch.Tensor
				for range max(experts, 1) {
					n := 1
					for _, d := range shape {
						n *= d
					}
					list = append(list, torch.Arange(n).AddScalar(start).ToDType(torch.Float32).Reshape(shape...))
					start += n
				}
				file = append(file, list)
			}
			now := make([][]*torch.Tensor, sources)
			for s := range file {
				now[s] = slices.Clone(file[s])
			}
			moves := func(most int) {
				for range r.IntN(most + 1) {
					op := neutral(now[0][0].Dim())
					c.Ops = append(c.Ops, op)
					for _, list := range now {
						for i := range list {
							list[i] = onTensors(op, list[i], heads)
						}
					}
				}
			}
			moves(2)
			if experts > 0 {
				dim := r.IntN(now[0][0].Dim() + 1)
				c.Ops = append(c.Ops, Stack{dim})
				for s := range now {
					now[s] = []*torch.Tensor{torch.Stack(now[s], torch.StackOptions{Dim: dim})}
				}
				if now[0][0].Size(0)%(2*heads) == 0 && now[0][0].Size(dim)%2 == 0 {
					moves(1)
				}
			}
			if sources > 1 {
				dim := r.IntN(now[0][0].Dim())
				c.Ops = append(c.Ops, Concatenate{Dim: dim})
				var all []*torch.Tensor
				for _, list := range now {
					all = append(all, list...)
				}
				now = [][]*torch.Tensor{{torch.Cat(all, torch.CatOptions{Dim: dim})}}
			}
			if len(c.Ops) == 0 {
				return
			}
			want := now[0][0].Contiguous()
			require.NoError(t, c.validate())

			// Loading: each tensor of the file goes to its place.
			way := c.Reverse()
			var shapes []group[[]int]
			for s, list := range file {
				g := group[[]int]{name: c.Sources[s]}
				for _, x := range list {
					g.items = append(g.items, x.Shape())
				}
				shapes = append(shapes, g)
			}
			joined, err := way.joined(shapes)
			require.NoError(t, err)
			require.Equal(t, want.Shape(), joined)
			views, err := way.divide(config, joined, way.Targets, shapes)
			if err != nil { // no view can show it
				impossible++
				return
			}
			got, limit := torch.Zeros(joined), 1+r.IntN(40)
			for s, g := range views {
				require.Len(t, g.items, len(file[s]))
				for i, v := range g.items {
					require.Equal(t, shape, v.shape(), "%v", c)
					require.NoError(t, v.copyInto().each(limit, func(b blockCopy) error {
						b.to.view(got, b.sizes).Copy_(b.from.view(file[s][i], b.sizes))
						return nil
					}))
				}
			}
			require.True(t, want.Equal(got), "%v", c)

			// Saving: the same, turned around.
			for s, g := range views {
				for i, v := range g.items {
					back := newOriginal("x", shape, piece{want, v.copyInto().reverse()}).tensor()
					require.True(t, file[s][i].Equal(back), "%v", c)
				}
			}
			done++
		})
	}
	require.Less(t, impossible, done/4)
	t.Logf("%d chains, and %d that are no views", done, impossible)
}
