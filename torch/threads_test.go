package torch

import (
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"runtime/pprof"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// watch ends the process with a dump of all goroutines if what it watches over takes too long.
func watch(t *testing.T, limit time.Duration) (stop func()) {
	timer := time.AfterFunc(limit, func() {
		fmt.Fprintf(os.Stderr, "%s: deadlock after %v\n", t.Name(), limit)
		_ = pprof.Lookup("goroutine").WriteTo(os.Stderr, 2)
		os.Exit(3)
	})
	return func() { timer.Stop() }
}

func wait(t *testing.T, wg *sync.WaitGroup) {
	defer watch(t, time.Minute)()
	wg.Wait()
}

// mlp is a small model, shared by goroutines that only read it.
type mlp struct{ W1, B1, W2, B2 *Tensor }

func newMLP() mlp {
	ManualSeed(7)
	return mlp{Randn([]int{256, 64}), Randn([]int{256}), Randn([]int{8, 256}), Randn([]int{8})}
}

func (m mlp) forward(x *Tensor) *Tensor {
	h := Linear(x, m.W1, LinearOptions{Bias: m.B1}).Relu()
	return Linear(h, m.W2, LinearOptions{Bias: m.B2}).Softmax(-1)
}

func (m mlp) close() {
	for _, t := range []*Tensor{m.W1, m.B1, m.W2, m.B2} {
		t.Close()
	}
}

// input of client g; the same each time.
func input(g int) *Tensor {
	x := make([]float32, 512*64) // enough that a call outlasts the time after which Go gives its thread away
	for i := range x {
		x[i] = float32((i*31+g*17)%101)/50 - 1
	}
	return FromSlice(x, 512, 64)
}

// manyClients has 64 goroutines ask one model, compares their answers with one's alone, and returns
// the largest number of threads.
func manyClients(t *testing.T, rounds int) (threads int) {
	before := LiveTensors()
	m := newMLP()
	const clients = 64
	want := make([][]float32, clients)
	for g := range want {
		want[g] = InferenceOf(func() []float32 { return ToSlice[float32](m.forward(input(g))) })
	}
	var wrong atomic.Int32
	var peak atomic.Int64
	var wg sync.WaitGroup
	for g := range clients {
		wg.Add(1)
		go func() {
			defer wg.Done()
			for i := range rounds {
				got := InferenceOf(func() []float32 { return ToSlice[float32](m.forward(input(g))) })
				for k := range got {
					if got[k] != want[g][k] {
						wrong.Add(1)
						break
					}
				}
				if i%4 == 0 {
					n := int64(status(t, "Threads"))
					for old := peak.Load(); n > old && !peak.CompareAndSwap(old, n); old = peak.Load() {
					}
				}
			}
		}()
	}
	wait(t, &wg)
	require.Zero(t, wrong.Load())
	m.close()
	require.Equal(t, before, LiveTensors())
	return int(peak.Load())
}

func TestManyClientsOneThread(t *testing.T) {
	if !inChild(t, "OMP_NUM_THREADS=1") {
		return
	}
	require.NoError(t, Load())
	require.Equal(t, 1, NumThreads())
	threads, bound := manyClients(t, 40), 2*runtime.NumCPU()+12
	t.Logf("64 clients, 1 thread within an operator: %d OS threads, bound %d", threads, bound)
	require.LessOrEqual(t, threads, bound)
}

func TestManyClientsDefault(t *testing.T) {
	if !inChild(t) {
		return
	}
	// Each of Go's threads may have a pool of libgomp's: docs/reliability.md, row T1.
	threads, bound := manyClients(t, 40), (2*runtime.NumCPU()+12)*NumThreads()
	t.Logf("64 clients, %d threads within an operator (the default): %d OS threads, bound %d", NumThreads(), threads, bound)
	require.LessOrEqual(t, threads, bound)
}

func TestManyClientsOneProcessor(t *testing.T) {
	if !inChild(t, "GOMAXPROCS=1") {
		return
	}
	require.Equal(t, 1, NumThreads(), "libtorch follows GOMAXPROCS")
	t.Logf("64 clients, GOMAXPROCS=1: %d OS threads", manyClients(t, 10))
	trainBesideClients(t)
}

// Backward passes that call back into Go, beside goroutines that keep all permits busy.
func TestHooksRunBesideClients(t *testing.T) { trainBesideClients(t) }

func trainBesideClients(t *testing.T) {
	before := LiveTensors()
	m := newMLP()
	var stop atomic.Bool
	var clients, trainers sync.WaitGroup
	for g := range 16 {
		clients.Add(1)
		go func() {
			defer clients.Done()
			for !stop.Load() {
				Inference(func() { m.forward(input(g)) })
			}
		}()
	}
	var calls atomic.Int32
	for g := range 8 {
		trainers.Add(1)
		go func() {
			defer trainers.Done()
			step := func(i int) {
				w := m.W1.Detach().Clone().SetRequiresGrad(true)
				remove := w.RegisterHook(func(grad *Tensor) *Tensor {
					calls.Add(1)
					inner := ScopeOf(func() *Tensor {
						NoGrad(func() { grad.Mul(grad) })
						return grad.MulScalar(2)
					})
					if i%4 == 0 { // a backward pass within a hook
						x := FromSlice([]float32{3}).SetRequiresGrad(true)
						EnableGrad(func() { x.Mul(x).Sum().Backward() }) // off in hooks, as in Python
						if Item[float32](x.Grad()) != 6 {
							t.Error("gradient within a hook is wrong")
						}
					}
					return inner
				})
				loss := Linear(input(g), w).Sum()
				want := ScopeOf(func() float32 { return Item[float32](input(g).Sum()) * 2 * 256 })
				loss.Backward()
				if got := Item[float32](w.Grad().Sum()); got < want-1 || got > want+1 {
					t.Errorf("gradient: sum %v, expected %v", got, want)
				}
				remove()
				if g%2 == 1 { // without a scope, it is the caller's to close
					w.Close()
					loss.Close()
				}
			}
			for i := range 10 {
				if g%2 == 0 {
					Scope(func() { step(i) })
				} else {
					step(i)
				}
			}
		}()
	}
	wait(t, &trainers)
	stop.Store(true)
	wait(t, &clients)
	require.EqualValues(t, 80, calls.Load())
	m.close()
	for deadline := time.Now().Add(20 * time.Second); LiveTensors() > before && time.Now().Before(deadline); {
		Collect()
	}
	require.LessOrEqual(t, LiveTensors(), before)
	require.Zero(t, holds.count.Load())
}

// Modes stay with the function that set them, whatever the scheduler does.
func TestModesNeverLeak(t *testing.T) {
	checks := 20_000
	if testing.Short() {
		checks = 2_000
	}
	var bad atomic.Int32
	expectCast := func(grad, inference, cast bool, dtype DType) {
		if GradEnabled() != grad || InferenceEnabled() != inference || AutocastEnabled(DeviceCPU) != cast ||
			AutocastDType(DeviceCPU) != dtype || AutocastCacheEnabled() == cast {
			bad.Add(1)
		}
	}
	expect := func(grad, inference bool) { expectCast(grad, inference, false, BFloat16) }
	var wg sync.WaitGroup
	for g := range 16 {
		wg.Add(1)
		go func() {
			defer wg.Done()
			if g%4 == 3 {
				runtime.LockOSThread() // ended with the goroutine: the thread goes, too
			}
			for i := 0; i < checks; i += 10 {
				failing := i%1000 == 0 // unwinding takes longer than all the rest
				expect(true, false)
				switch (g + i/10) % 6 {
				case 0:
					NoGrad(func() {
						expect(false, false)
						runtime.Gosched()
						EnableGrad(func() { expect(true, false) })
						expect(false, false)
					})
				case 1:
					Inference(func() {
						expect(false, true)
						runtime.Gosched()
						if failing {
							_ = TryDo(func() { NoGrad(func() { ones(1).MatMul(ones(2)) }) })
						}
						expect(false, true)
					})
				case 2:
					_ = TryDo(func() {
						Inference(func() {
							if failing {
								ones(1).MatMul(ones(2))
							}
							panic(&Error{})
						})
					})
				case 3:
					Scope(func() { runtime.Gosched(); expect(true, false) })
				case 4:
					Autocast(DeviceCPU, AutocastOptions{DType: Float16, CacheEnabled: Some(false)}, func() {
						runtime.Gosched()
						NoGrad(func() { expectCast(false, false, true, Float16) })
						if failing {
							_ = TryDo(func() { ones(1).MatMul(ones(2)) })
						}
						expectCast(true, false, true, Float16)
					})
				case 5:
					_ = TryDo(func() {
						Inference(func() {
							Autocast(DeviceCPU, AutocastOptions{CacheEnabled: Some(false)}, func() {
								runtime.Gosched()
								expectCast(false, true, true, BFloat16)
								panic(&Error{})
							})
						})
					})
				}
				runtime.Gosched()
				expect(true, false)
			}
		}()
	}
	wait(t, &wg)
	require.Zero(t, bad.Load())
}

// Go hands on what is in force, and nothing of it stays on the threads.
func TestGoHandsOnModes(t *testing.T) {
	type modes struct {
		grad, inference, cpu, cuda, cache bool
		dtype                             DType
	}
	look := func() modes {
		return modes{GradEnabled(), InferenceEnabled(), AutocastEnabled(DeviceCPU), AutocastEnabled(DeviceCUDA), AutocastCacheEnabled(), AutocastDType(DeviceCPU)}
	}
	defaults := look()
	require.Equal(t, modes{grad: true, cache: true, dtype: BFloat16}, defaults)
	ways := map[string]func(func()){
		"nothing":   func(fn func()) { fn() },
		"scope":     Scope,
		"no grad":   NoGrad,
		"inference": Inference,
		"autocast": func(fn func()) {
			Autocast(DeviceCPU, AutocastOptions{DType: Float16, CacheEnabled: Some(false)}, fn)
		},
		"both": func(fn func()) {
			NoGrad(func() { Autocast(DeviceCUDA, AutocastOptions{}, func() { Autocast(DeviceCPU, AutocastOptions{}, fn) }) })
		},
		"off again": func(fn func()) {
			NoGrad(func() {
				Autocast(DeviceCPU, AutocastOptions{}, func() {
					Autocast(DeviceCPU, AutocastOptions{Enabled: Some(false)}, func() { EnableGrad(fn) })
				})
			})
		},
	}
	for name, within := range ways {
		for range 50 {
			var want modes
			got := make(chan modes, 2)
			within(func() {
				want = look()
				Go(func() {
					got <- look()
					_ = TryDo(func() { NoGrad(func() { panic(&Error{}) }) })
					got <- look()
				})
			})
			require.Equal(t, want, <-got, name)
			require.Equal(t, want, <-got, name)
			require.Equal(t, defaults, look(), name)
		}
	}
	var wg sync.WaitGroup
	for range 64 {
		wg.Go(func() {
			if look() != defaults {
				t.Error("a mode was left on a thread")
			}
		})
	}
	wait(t, &wg)
}

// A goroutine that ends, or panics, inside frees what it made, gives its permit back and leaves the
// thread as it was.
func TestScopeEndsWithItsGoroutine(t *testing.T) {
	before := LiveTensors()
	var wg sync.WaitGroup
	for i := range 8 * cap(permits) {
		wg.Add(1)
		go func() {
			defer wg.Done()
			defer func() { _ = recover() }()
			Inference(func() {
				ones(3)
				Scope(func() {
					ones(3)
					if i%2 == 0 {
						runtime.Goexit()
					}
					panic("stop")
				})
			})
		}()
	}
	wait(t, &wg)
	require.Equal(t, before, LiveTensors())
	// A release function that the collector runs just now, of another test, may have one for a moment.
	require.Eventually(t, func() bool { return len(permits) == 0 }, 5*time.Second, time.Millisecond, "all permits are back")
	for range 64 {
		wg.Add(1)
		go func() {
			defer wg.Done()
			if !GradEnabled() || InferenceEnabled() {
				t.Error("a mode was left on a thread")
			}
		}()
	}
	wait(t, &wg)
}

// The runtime handles signals while libtorch computes, within 50 ms. The kernel is finished first: a
// program ends after it.
func TestSignalDuringALongKernel(t *testing.T) {
	if !inChild(t) {
		return
	}
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT)
	defer signal.Stop(signals)
	quickest := time.Hour
	var all []string
	for i := range 6 { // a busy machine may be late now and then
		running := make(chan struct{})
		finished := make(chan time.Time, 1)
		go Inference(func() {
			x := Ones([]int{1600, 1600}, TensorOptions{DType: Float64})
			close(running)
			x.MatMul(x)
			finished <- time.Now()
		})
		<-running
		time.Sleep(20 * time.Millisecond)
		sent := time.Now()
		require.NoError(t, syscall.Kill(os.Getpid(), []syscall.Signal{syscall.SIGTERM, syscall.SIGINT}[i%2]))
		select {
		case <-signals:
		case <-time.After(10 * time.Second):
			t.Fatal("the signal was not noticed")
		}
		noticed := time.Now()
		if end := <-finished; end.Before(noticed) {
			continue // too late, or the kernel too short, to show anything
		}
		quickest = min(quickest, noticed.Sub(sent))
		all = append(all, fmt.Sprintf("%.2f", float64(noticed.Sub(sent).Microseconds())/1000))
	}
	t.Logf("signals noticed during a kernel after %s ms", strings.Join(all, ", "))
	require.NotEmpty(t, all, "the kernels were too short to show anything")
	require.Less(t, quickest, 50*time.Millisecond)
}
