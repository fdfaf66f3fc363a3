package main

import (
	"errors"
	"io"
	"os"
	"runtime"
	"runtime/pprof"
	"slices"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"

	"github.com/torchgo/torchgo/torch"
	"github.com/torchgo/torchgo/torch/nn"
	"github.com/torchgo/torchgo/torch/optim"
)

var soaks = []soak{
	{"close", "mixed operators, each tensor closed by hand", func(r *run) { mixed(r, byHand) }},
	{"scopes", "mixed operators in scopes, nested, with results and kept tensors", func(r *run) { mixed(r, inScopes) }},
	{"collector", "mixed operators, everything left to the collector", collector},
	{"hooks", "forward and backward passes with hooks, some of which fail", hooks},
	{"functions", "functions in Go, checkpoints, saved-tensor hooks; some fail", functions},
	{"train", "training steps with AdamW", train},
	{"goroutines", "a goroutine for each request, modes handed on, some panic", goroutines},
	{"clients", "64 goroutines ask one model, and compare its answers", clients},
	{"profile", "the same under pprof's SIGPROF, beside file and process I/O", profile},
	{"throughput", "requests a second of 1 to 64 clients", throughput},
}

// mixed repeats a step, which returns how many operations it has done.
func mixed(r *run, step func(i int, w *torch.Tensor) int) {
	w := torch.Randn([]int{3, 4})
	defer w.Close()
	for i := 0; r.more(); i++ {
		r.did(step(i, w))
	}
}

var numbers = []float32{1, 2, 3, 4, 5, 6}

func byHand(i int, w *torch.Tensor) int {
	all := make([]*torch.Tensor, 0, 16)
	mine := func(t *torch.Tensor) *torch.Tensor {
		all = append(all, t)
		return t
	}
	defer func() {
		for _, t := range all {
			t.Close()
		}
	}()
	x := mine(torch.FromSlice(numbers, 2, 3))
	y := mine(mine(x.MatMul(w)).Relu())
	parts := y.Split(1)
	all = append(all, parts...)
	z := mine(mine(torch.Cat(append(parts, y))).Sum())
	_ = torch.Item[float32](z)
	v := mine(y.T())
	_ = torch.ToSlice[float32](v)
	x.Close() // twice: once more below
	switch i % 4 {
	case 0:
		y.Add_(y)
	case 1:
		mine(y.Softmax(-1))
	case 2:
		if i%64 == 2 { // unwinding takes longer than all the rest
			_ = torch.TryDo(func() { y.MatMul(y) })
		}
	case 3:
		mine(y.Contiguous())
	}
	return 10
}

func inScopes(i int, w *torch.Tensor) (operations int) {
	torch.Scope(func() {
		x := torch.FromSlice(numbers, 2, 3)
		y := x.MatMul(w).Relu()
		torch.Cat(append(y.Split(1), y)).Sum()
		_ = torch.ToSlice[float32](y.T())
		operations = 8
		switch i % 4 {
		case 0:
			torch.Inference(func() { y.Softmax(-1).Close(); y.Exp() })
		case 1:
			kept := torch.ScopeOf(func() []*torch.Tensor { return x.Split(1) })
			torch.Keep(kept[0])
			kept[0].Close()
		case 2:
			if i%64 == 2 {
				_ = torch.TryDo(func() { torch.Scope(func() { y.Exp().MatMul(y) }) })
			}
		case 3:
			b := make([]byte, 64)
			var pin runtime.Pinner
			pin.Pin(&b[0])
			torch.FromBlob(unsafe.Pointer(&b[0]), 64, []int{16}, torch.Float32, pin.Unpin).Add(y.Select(0, 0).Sum())
		}
		operations += 2
	})
	return operations
}

// collector looks at memory right after collections: before one it may be anything up to the bound.
func collector(r *run) {
	const most = 1 << 10 // MiB
	r.manual.Store(true)
	next := time.Now()
	mixed(r, func(_ int, w *torch.Tensor) int {
		x := torch.FromSlice(numbers, 2, 3)
		y := x.MatMul(w).Relu()
		torch.Cat(append(y.Split(1), y)).Sum()
		torch.Empty([]int{1 << 14}) // 64 KiB that Go does not see
		if now := time.Now(); now.After(next) {
			next = now.Add(r.length / 100)
			torch.Collect()
			r.sample()
		}
		return 8
	})
	if peak := status("VmHWM") >> 10; peak > most {
		r.failf("a peak of %d MiB, at most %d is promised", peak, most)
	}
}

var errHook = errors.New("no gradient today")

func hooks(r *run) {
	w := torch.Randn([]int{3, 4})
	defer w.Close()
	m := newModel()
	defer m.close()
	for i := 0; r.more(); i++ {
		calls := 0
		torch.Scope(func() {
			defer nn.RegisterForwardHook(m.Up, func(_ any, _, out []*torch.Tensor) []*torch.Tensor {
				calls++
				if i%64 == 2 {
					panic(errHook)
				}
				return []*torch.Tensor{out[0].MulScalar(2)}
			})()
			func() {
				defer func() {
					if p := recover(); (p != nil) != (i%64 == 2) {
						r.failf("a forward hook's panic: %v", p)
					}
				}()
				m.forward(torch.Ones([]int{2, 16}))
			}()
			p := w.Detach().SetRequiresGrad(true)
			remove := p.RegisterHook(func(g *torch.Tensor) *torch.Tensor {
				calls++
				if i%64 == 1 {
					panic(errHook)
				}
				return g.MulScalar(2)
			})
			loss := torch.FromSlice(numbers, 2, 3).MatMul(p).Tanh()
			loss.RegisterHook(func(*torch.Tensor) *torch.Tensor { calls++; return nil })
			err := torch.TryDo(func() { loss.Sum().Backward() })
			switch {
			case i%64 == 1 && !errors.Is(err, torch.ErrCallback):
				r.failf("a hook's panic became %v", err)
			case i%64 != 1 && err != nil:
				r.failf("backward: %v", err)
			case i%64 != 1 && p.Grad() == nil:
				r.failf("there is no gradient")
			}
			if i%8 == 0 { // second order, without a cycle
				x := torch.FromValue(float64(2)).SetRequiresGrad(true)
				g := torch.Grad([]*torch.Tensor{x.Mul(x).Mul(x)}, []*torch.Tensor{x}, torch.GradOptions{CreateGraph: true})[0]
				if h := torch.Item[float64](torch.Grad([]*torch.Tensor{g}, []*torch.Tensor{x})[0]); h != 12 {
					r.failf("second derivative is %v, expected 12", h)
				}
			}
			if i%2 == 0 {
				remove()
			}
		})
		if calls != 3 {
			r.failf("%d hooks ran, expected 3", calls)
		}
		r.did(17)
	}
}

// model is what the training and serving soaks use.
type model struct {
	Up   *nn.Linear `torch:"up"`   // (64, 16)
	Down *nn.Linear `torch:"down"` // (4, 64)
}

func newModel() *model {
	torch.ManualSeed(7)
	return &model{nn.NewLinear(16, 64), nn.NewLinear(64, 4)}
}

func (m *model) forward(x *torch.Tensor) *torch.Tensor { return m.Down.Forward(m.Up.Forward(x).Tanh()) } // (B, 16) -> (B, 4)

func (m *model) close() {
	for _, p := range nn.Parameters(m) {
		p.Close()
	}
}

func train(r *run) {
	m := newModel()
	defer m.close()
	input := torch.Randn([]int{32, 16})
	target := torch.Randn([]int{32, 4})
	defer input.Close()
	defer target.Close()
	var first, last float32
	opt := optim.NewAdamW(nn.Parameters(m))
	step := func() {
		opt.ZeroGrad()
		loss := m.forward(input).Sub(target).Square().Mean()
		loss.Backward()
		opt.Step()
		last = torch.Item[float32](loss)
	}
	for i := 0; r.more(); i++ {
		torch.Scope(step)
		if i == 0 {
			first = last
		}
		r.did(30)
	}
	if last >= first {
		r.failf("the loss went from %v to %v", first, last)
	}
	opt.ZeroGrad()
}

// goroutines starts one for each request, at most 32 at a time.
func goroutines(r *run) {
	m := newModel()
	defer m.close()
	slots := make(chan struct{}, 32)
	var wg sync.WaitGroup
	for i := 0; r.more(); i++ {
		slots <- struct{}{}
		wg.Add(1)
		go func() {
			defer func() { <-slots; wg.Done() }()
			defer func() {
				if p := recover(); p != nil && i%64 != 5 && i%64 != 6 {
					r.failf("panic: %v", p)
				}
			}()
			r.did(5)
			switch {
			case i%64 == 5:
				torch.Inference(func() { m.forward(torch.Randn([]int{8, 17})) })
			case i%64 == 6:
				torch.Inference(func() { m.forward(torch.Randn([]int{8, 16})); panic(errHook) })
			case i%64 == 7:
				torch.Inference(func() { m.forward(torch.Randn([]int{8, 16})); runtime.Goexit() })
			case i%4 == 0: // a mode handed on; waited for outside scopes and modes
				ended := make(chan bool, 1)
				torch.NoGrad(func() { torch.Go(func() { ended <- torch.GradEnabled() }) })
				if <-ended {
					r.failf("torch.Go has lost the mode")
				}
			default:
				torch.Inference(func() { m.forward(torch.Randn([]int{8, 16})) })
			}
			if !torch.GradEnabled() || torch.InferenceEnabled() {
				r.failf("a mode was left on the thread")
			}
		}()
	}
	wg.Wait()
}

const manyClients = 64

func clients(r *run) { ask(r, manyClients) }

// ask has n goroutines ask one model with inputs of their own and compares the answers with what it
// said at first.
func ask(r *run, n int) {
	m := newModel()
	defer m.close()
	type client struct {
		input []float32
		want  []float32
		asked int
	}
	answer := func(c *client) []float32 {
		return torch.InferenceOf(func() []float32 {
			return torch.ToSlice[float32](m.forward(torch.FromSlice(c.input, 8, 16)))
		})
	}
	all := make([]client, n)
	for g := range all {
		c := &all[g]
		c.input = make([]float32, 8*16)
		for i := range c.input {
			c.input[i] = float32((i*31+g*17)%101)/50 - 1
		}
		c.want = answer(c)
	}
	var wg sync.WaitGroup
	for g := range all {
		c := &all[g]
		wg.Go(func() {
			for r.more() {
				if !slices.Equal(answer(c), c.want) {
					r.failf("client %d got another answer", g)
				}
				c.asked++
				r.did(5)
			}
		})
	}
	wg.Wait()
	least := slices.MinFunc(all, func(a, b client) int { return a.asked - b.asked })
	r.note = plural(5*least.asked, "operation") + " of each client at least"
}

// profile has the kernel interrupt every thread that computes, 100 times a second, while others
// read files and start processes: calls that signals break off with EINTR would fail.
func profile(r *run) {
	stop := make(chan struct{})
	var wg sync.WaitGroup
	var bytes, programs atomic.Int64
	wg.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
			}
			if err := copyPipe(&bytes); err != nil {
				r.failf("reading: %v", err)
			}
		}
	})
	wg.Go(func() {
		for {
			select {
			case <-stop:
				return
			case <-time.After(20 * time.Millisecond):
			}
			if err := startProgram(); err != nil {
				r.failf("starting a program: %v", err)
			}
			programs.Add(1)
		}
	})
	var profiles int
	var size counter
	wg.Go(func() { // several, so that each is of a size that fits memory
		for r.more() {
			if err := pprof.StartCPUProfile(&size); err != nil {
				r.failf("pprof: %v", err)
				return
			}
			for end := time.Now().Add(10 * time.Second); r.more() && time.Now().Before(end); {
				time.Sleep(10 * time.Millisecond)
			}
			pprof.StopCPUProfile()
			profiles++
		}
	})
	ask(r, 8)
	close(stop)
	wg.Wait()
	if size.n == 0 {
		r.failf("the profiles are empty")
	}
	r.note = plural(profiles, "profile") + " of " + plural(int(size.n)>>10, "KiB") + ", " + plural(int(bytes.Load()>>20), "MiB") +
		" through pipes, " + plural(int(programs.Load()), "program") + " started"
}

// counter counts what is written to it.
type counter struct{ n int64 }

func (c *counter) Write(p []byte) (int, error) {
	c.n += int64(len(p))
	return len(p), nil
}

func copyPipe(bytes *atomic.Int64) error {
	in, out, err := os.Pipe()
	if err != nil {
		return err
	}
	defer in.Close()
	data := make([]byte, 1<<20)
	failed := make(chan error, 1)
	go func() {
		_, err := out.Write(data)
		failed <- errors.Join(err, out.Close())
	}()
	n, err := io.Copy(io.Discard, in)
	bytes.Add(n)
	return errors.Join(err, <-failed)
}
