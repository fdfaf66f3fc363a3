package torch

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
)

// block is a residual layer with dropout.
type block struct{ W1, W2 *Tensor }

func (b block) forward(x *Tensor) *Tensor {
	h := Dropout(Gelu(x.MatMul(b.W1)), 0.3, true)
	return x.Add(h.MatMul(b.W2).Tanh())
}

func newBlocks(n, width int) (blocks []block, parameters []*Tensor) {
	for range n {
		b := block{Randn([]int{width, 4 * width}).MulScalar(0.1).Detach(), Randn([]int{4 * width, width}).MulScalar(0.1).Detach()}
		blocks = append(blocks, b)
		parameters = append(parameters, b.W1.SetRequiresGrad(true), b.W2.SetRequiresGrad(true))
	}
	return blocks, parameters
}

// gradients runs a model forward and backward from one seed and returns its loss and gradients, and
// takes the gradients away.
func gradients(x *Tensor, parameters []*Tensor, forward func(*Tensor) *Tensor) (all [][]float32) {
	ManualSeed(3)
	loss := forward(x).Square().Mean()
	loss.Backward()
	after := Rand([]int{1}) // the generator is where it was without checkpoints
	all = append(all, ToSlice[float32](loss.Detach()), ToSlice[float32](after))
	for _, p := range append(append([]*Tensor{}, parameters...), x) {
		all = append(all, ToSlice[float32](p.Grad()))
		p.SetGrad(nil)
	}
	return all
}

func TestCheckpointIsExact(t *testing.T) {
	ManualSeed(1)
	leakFree(t, func() {
		blocks, parameters := newBlocks(4, 16)
		x := Randn([]int{8, 16}).SetRequiresGrad(true)
		plain := func(x *Tensor) *Tensor {
			for _, b := range blocks {
				x = b.forward(x)
			}
			return x
		}
		want := gradients(x, parameters, plain)
		for name, forward := range map[string]func(*Tensor) *Tensor{
			"each": func(x *Tensor) *Tensor {
				for _, b := range blocks {
					x = Checkpoint(b.forward, x)
				}
				return x
			},
			"all": func(x *Tensor) *Tensor { return Checkpoint(plain, x) },
			"nested": func(x *Tensor) *Tensor {
				pair := func(i int) func(*Tensor) *Tensor {
					return func(x *Tensor) *Tensor {
						return Checkpoint(blocks[i+1].forward, Checkpoint(blocks[i].forward, x))
					}
				}
				return Checkpoint(func(x *Tensor) *Tensor { return Checkpoint(pair(2), Checkpoint(pair(0), x)) }, x)
			},
			"offloaded": func(x *Tensor) (y *Tensor) {
				SaveOnCPU(func() { y = Checkpoint(plain, x) })
				return y
			},
			"in a scope": func(x *Tensor) *Tensor {
				for _, b := range blocks { // what was between has been freed when backward comes
					x = ScopeOf(func() *Tensor { return Checkpoint(b.forward, x.MulScalar(1)) })
				}
				return x
			},
		} {
			t.Run(name, func(t *testing.T) {
				leakFree(t, func() { require.Equal(t, want, gradients(x, parameters, forward)) })
			})
		}
		other := gradients(x, parameters, func(x *Tensor) *Tensor {
			return Checkpoint(plain, x, CheckpointOptions{PreserveRNGState: Some(false)})
		})
		require.Equal(t, want[0], other[0])
		require.NotEqual(t, want[2], other[2], "another dropout in the second run")
	})
}

// memorySaved is the bytes that the graph of y keeps, by its saved tensors' storages.
func TestCheckpointSavesMemory(t *testing.T) {
	const n, width = 8, 64
	leakFree(t, func() {
		blocks, _ := newBlocks(n, width)
		x := Randn([]int{32, width}).SetRequiresGrad(true)
		kept := func(forward func(b block, x *Tensor) *Tensor) (bytes int) {
			// What hooks see is what the graph keeps; those of checkpoints take theirs away.
			storages := map[uintptr]int{}
			SavedTensorHooks(
				func(s *Tensor) *Tensor { storages[s.StorageID()] = s.StorageBytes(); return s },
				func(s *Tensor) *Tensor { return s },
				func() {
					y := x
					for _, b := range blocks {
						y = forward(b, y)
					}
				})
			for _, b := range blocks { // parameters are there anyway
				delete(storages, b.W1.StorageID())
				delete(storages, b.W2.StorageID())
			}
			for _, b := range storages {
				bytes += b
			}
			return bytes
		}
		all := kept(func(b block, x *Tensor) *Tensor { return b.forward(x) })
		checkpointed := kept(func(b block, x *Tensor) *Tensor { return Checkpoint(b.forward, x) })
		t.Logf("kept for backward: %d KiB, with checkpoints %d KiB", all>>10, checkpointed>>10)
		require.Equal(t, n*32*width*4, checkpointed, "the input of each block")
		require.Greater(t, all, 8*checkpointed)
	})
}

func TestCheckpointTwiceAndInGrad(t *testing.T) {
	leakFree(t, func() {
		x := param(0.5, 2)
		runs := 0
		cube := func(x *Tensor) *Tensor { runs++; return x.Mul(x).Mul(x) }
		y := Checkpoint(cube, x)
		require.Equal(t, 1, runs)
		g := func(o GradOptions) *Tensor { return Grad([]*Tensor{y.Sum()}, []*Tensor{x}, o)[0] }
		require.Equal(t, []float64{0.75, 12}, values(g(GradOptions{RetainGraph: true})))
		require.Equal(t, 2, runs)
		require.Equal(t, []float64{0.75, 12}, values(g(GradOptions{RetainGraph: true})), "the graph was retained")
		require.Equal(t, 3, runs)
		first := g(GradOptions{CreateGraph: true})
		second := Grad([]*Tensor{first.Sum()}, []*Tensor{x})[0]
		require.Equal(t, []float64{3, 12}, values(second))

		NoGrad(func() { require.Equal(t, []float64{0.125, 8}, values(Checkpoint(cube, x))) })
		Checkpoint(cube, x).Close() // never run backward
		linear := Checkpoint(func(x *Tensor) *Tensor { return x.Neg() }, x)
		linear.Sum().Backward() // saves nothing
		require.Equal(t, []float64{-1, -1}, values(x.Grad()))
	})
}

// The second run is in the first one's precision, wherever backward is called.
func TestCheckpointInMixedPrecision(t *testing.T) {
	ManualSeed(1)
	leakFree(t, func() {
		blocks, parameters := newBlocks(2, 16)
		x := Randn([]int{8, 16}).SetRequiresGrad(true)
		run := func(forward func(b block, x *Tensor) *Tensor, backward func(func())) (all [][]float32) {
			ManualSeed(3)
			var y *Tensor
			Autocast(DeviceCPU, AutocastOptions{}, func() { y = forward(blocks[1], forward(blocks[0], x)) })
			backward(func() { y.Square().Sum().Backward() })
			for _, p := range append(parameters, x) {
				all = append(all, ToSlice[float32](p.Grad()))
				p.SetGrad(nil)
			}
			return all
		}
		plain := func(fn func()) { fn() }
		float16 := func(fn func()) { Autocast(DeviceCPU, AutocastOptions{DType: Float16}, fn) }
		for _, backward := range []func(func()){plain, float16} {
			want := run(func(b block, x *Tensor) *Tensor { return b.forward(x) }, backward)
			require.Equal(t, want, run(func(b block, x *Tensor) *Tensor { return Checkpoint(b.forward, x) }, backward))
		}
	})
}

func TestCheckpointAll(t *testing.T) {
	leakFree(t, func() {
		a, b := param(2), param(3)
		out := CheckpointAll(func(in []*Tensor) []*Tensor {
			require.Nil(t, in[2])
			return []*Tensor{in[0].Mul(in[1]), in[0].Exp(), nil}
		}, []*Tensor{a, b, nil})
		require.Nil(t, out[2])
		out[0].Add(out[1]).Backward()
		require.Equal(t, []float64{3 + values(a.Exp())[0]}, values(a.Grad()))
		require.Equal(t, []float64{2}, values(b.Grad()))
	})
}

func TestCheckpointErrors(t *testing.T) {
	leakFree(t, func() {
		x := param(1, 2)
		runs := 0
		changing := func(second func(x *Tensor) *Tensor) *Tensor {
			runs = 0
			return Checkpoint(func(x *Tensor) *Tensor {
				if runs++; runs == 1 {
					return x.Mul(x).Exp()
				}
				return second(x)
			}, x)
		}
		for says, second := range map[string]func(*Tensor) *Tensor{
			"trying to save more tensors during recomputation":    func(x *Tensor) *Tensor { return x.Mul(x).Exp().Exp() },
			"A different number of tensors was saved":             func(x *Tensor) *Tensor { return x.Mul(x) },
			"have different metadata than during the forward":     func(x *Tensor) *Tensor { return x.ToDType(Float32).Mul(x.ToDType(Float32)).Exp() },
			"shapes cannot be multiplied":                         func(x *Tensor) *Tensor { return x.View(1, 2).Mm(x.View(1, 2)) },
			"in the unpack hook of a saved tensor: a second time": func(x *Tensor) *Tensor { panic(fmt.Errorf("a second time")) },
		} {
			y := changing(second)
			require.ErrorContains(t, TryDo(func() { y.Sum().Backward() }), says)
		}
		y := x.Exp()
		z := Checkpoint(func(x *Tensor) *Tensor { return x.Mul(x) }, y)
		y.Add_(y.Detach())
		require.ErrorContains(t, TryDo(func() { z.Sum().Backward() }), "modified by an inplace operation")
		require.ErrorContains(t, TryDo(func() { Checkpoint(func(*Tensor) *Tensor { panic(&Error{Message: "at once"}) }, x) }), "at once")
		require.Zero(t, openCalls.Load())
	})
}
