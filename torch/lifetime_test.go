package torch

import (
	"errors"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// Each goroutine uses tensors that nothing refers to after the call, in operators that take a
// millisecond, while the collector runs all the time. What it frees is unmapped at once, so an operator
// whose argument is freed under it ends the process. That each call keeps what it uses alive is checked
// statically, too: TestHandlesOutliveTheirCalls of internal/house.
func TestArgumentsOutliveTheirCall(t *testing.T) {
	if !inChild(t, "GOGC=1", "GODEBUG=clobberfree=1", "MALLOC_MMAP_THRESHOLD_=65536", "MALLOC_PERTURB_=165", "OMP_NUM_THREADS=1") {
		return
	}
	rounds := 96
	if testing.Short() || instrumented {
		rounds = 48
	}
	stop := make(chan struct{})
	var collector, wg sync.WaitGroup
	collector.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
				runtime.GC()
			}
		}
	})
	full := func(x float32) *Tensor { return Full([]int{384, 384}, x) } // left to the collector
	for g := range 4 {
		wg.Go(func() {
			for i := range rounds {
				v := float32(1 + (g+i)%7)
				check := func(what string, got, want float32) {
					if got != want {
						t.Errorf("%s: %v, expected %v", what, got, want)
					}
				}
				switch i % 6 {
				case 0:
					check("matmul", Item[float32](full(v).MatMul(full(1)).Amax()), 384*v)
				case 1:
					check("addmm", Item[float32](full(v).Addmm(full(1), full(2)).Amax()), v+768)
				case 2:
					check("call", Item[float32](Call("aten::mm", full(v), full(2))[0].(*Tensor).Amax()), 768*v)
				case 3:
					check("cat", Item[float32](Cat([]*Tensor{full(v), full(1), full(v), full(v)}).Erfinv().Isnan().Sum()), float32(384*384*3)*min(1, v-1))
				case 4:
					x := full(v).SetRequiresGrad(true)
					x.RegisterHook(func(grad *Tensor) *Tensor { return grad.MatMul(full(1)) })
					x.MatMul(full(3)).Sum().Backward()
					check("grad", Item[float32](x.Grad().Amax()), 384*3*384)
				case 5:
					random := func() float32 { return Item[float32](RandGenerator([]int{200_000}, NewGenerator(CPU, 7)).Amin()) }
					check("generator", random(), random())
				}
			}
		})
	}
	wait(t, &wg)
	close(stop)
	collector.Wait()
}

// Close may run at any moment beside any use: the use finishes, or is refused with its name.
func TestCloseRacesEverything(t *testing.T) {
	rounds := 300
	if testing.Short() {
		rounds = 60
	}
	before := LiveTensors()
	uses := map[string]func(x *Tensor){
		"add":            func(x *Tensor) { x.Add(x).Close() },
		"cat":            func(x *Tensor) { Cat([]*Tensor{x, x, x}).Close() },
		"to_slice":       func(x *Tensor) { ToSlice[float32](x) },
		"shape":          func(x *Tensor) { x.Shape() },
		"split":          func(x *Tensor) { Scope(func() { x.Split(16) }) },
		"grad":           func(x *Tensor) { x.Grad() },
		"backward":       func(x *Tensor) { Scope(func() { x.Detach().SetRequiresGrad(true).Sum().Backward() }) },
		"set_grad":       func(x *Tensor) { x.SetGrad(nil) },
		"close":          func(x *Tensor) { x.Close(); x.Close() },
		"closed":         func(x *Tensor) { x.Closed() },
		"keep":           func(x *Tensor) { Keep(x) },
		"print":          func(x *Tensor) { _ = x.String() },
		"alias":          func(x *Tensor) { x.Detach().Close() },
		"scoped results": func(x *Tensor) { ScopeOf(func() *Tensor { return x.View(-1) }).Close() },
	}
	for range rounds {
		x := Ones([]int{64})
		var wg sync.WaitGroup
		start := make(chan struct{})
		for name, use := range uses {
			wg.Go(func() {
				<-start
				for range 3 {
					if err := TryDo(func() { use(x) }); err != nil && !errors.Is(err, ErrClosed) {
						t.Errorf("%s: %v", name, err)
					}
				}
			})
		}
		close(start)
		time.Sleep(20 * time.Microsecond)
		x.Close()
		wait(t, &wg)
		require.True(t, x.Closed())
	}
	require.Equal(t, before, LiveTensors())
}
