// Command streams overlaps copying with computing: while one batch is multiplied, the next one is on its
// way to the device, on a stream of its own. On a machine without a GPU the same code runs on the CPU, where
// nothing overlaps. With a GPU it then records the computation as a graph and launches that.
//
//	go run ./examples/streams [-size N] [-batches N]
package main

import (
	"flag"
	"fmt"
	"io"
	"math"
	"os"
	"time"

	"github.com/torchgo/torchgo/torch"
	"github.com/torchgo/torchgo/torch/cuda"
)

func main() {
	size := flag.Int("size", 512, "rows and columns of a batch")
	batches := flag.Int("batches", 32, "number of batches")
	flag.Parse()
	if err := torch.Load(); err != nil {
		fmt.Fprintln(os.Stderr, "streams:", err)
		os.Exit(1)
	}
	if err := torch.TryDo(func() { run(os.Stdout, *size, *batches) }); err != nil {
		fmt.Fprintln(os.Stderr, "streams:", err)
		os.Exit(1)
	}
}

func run(w io.Writer, size, batches int) {
	device := torch.CPU
	if cuda.IsAvailable() {
		device = torch.CUDA(0)
		fmt.Fprintf(w, "on %s\n", cuda.DeviceProperties(device).Name)
	} else {
		fmt.Fprintln(w, "there is no GPU: the same code runs on the CPU, where copies and kernels don't overlap")
	}
	torch.Scope(func() {
		j := newJob(device, size, batches)
		inTurn(j) // once, for libraries to initialise
		first, turn := timed(j, inTurn)
		second, over := timed(j, overlapped)
		fmt.Fprintf(w, "one after the other: %v\n", turn.Round(time.Microsecond))
		fmt.Fprintf(w, "overlapped:          %v\n", over.Round(time.Microsecond))
		compare(w, first, second)
		if device.Type == torch.DeviceCUDA {
			graphed(w, j)
		}
	})
}

// job is batches on the host, and a weight on the device that they are multiplied by.
type job struct {
	device torch.Device
	weight *torch.Tensor   // (N, N)
	host   []*torch.Tensor // (N, N) each; pinned for a GPU
}

func newJob(device torch.Device, size, batches int) *job {
	torch.ManualSeed(0)
	gpu := device.Type == torch.DeviceCUDA
	j := &job{device: device, weight: torch.Randn([]int{size, size}).DivScalar(size).To(device)}
	for range batches {
		j.host = append(j.host, torch.Randn([]int{size, size}, torch.TensorOptions{PinMemory: gpu}))
	}
	return j
}

// compute is what is done with a batch x (N, N).
func (j *job) compute(x *torch.Tensor) *torch.Tensor {
	for range 4 {
		x = x.MatMul(j.weight).Tanh()
	}
	return x.Sum()
}

// inTurn copies a batch and computes with it, then the next.
func inTurn(j *job) []*torch.Tensor {
	sums := make([]*torch.Tensor, len(j.host))
	for i, h := range j.host {
		sums[i] = torch.ScopeOf(func() *torch.Tensor { return j.compute(h.To(j.device)) })
	}
	return sums
}

// overlapped copies the next batch on a side stream while it computes with this one.
func overlapped(j *job) []*torch.Tensor {
	side := torch.NewStream(j.device)
	main := torch.CurrentStream(j.device)
	side.WaitStream(main) // whatever made the tensors is done
	fetch := func(i int) (x *torch.Tensor, ready *torch.Event) {
		torch.WithStream(side, func() { x = j.host[i].To(j.device, torch.NonBlocking()) })
		return x, side.Record()
	}
	sums := make([]*torch.Tensor, len(j.host))
	next, ready := fetch(0)
	for i := range j.host {
		x := next
		main.Wait(ready)
		x.RecordStream(main) // the allocator must not reuse it too early
		if i+1 < len(j.host) {
			next, ready = fetch(i + 1)
		}
		sums[i] = torch.ScopeOf(func() *torch.Tensor { return j.compute(x) })
		if x != j.host[i] { // on the CPU there is no copy
			x.Close()
		}
	}
	return sums
}

// timed measures fn by events, on either device.
func timed(j *job, fn func(*job) []*torch.Tensor) (values []float64, took time.Duration) {
	stream := torch.CurrentStream(j.device)
	start := torch.NewEvent(j.device, torch.EventOptions{Timing: true})
	end := torch.NewEvent(j.device, torch.EventOptions{Timing: true})
	torch.Synchronize(j.device)
	start.Record(stream)
	sums := fn(j)
	end.Record(stream)
	end.Synchronize()
	for _, s := range sums {
		values = append(values, float64(torch.Item[float32](s)))
	}
	return values, start.ElapsedTime(end)
}

func compare(w io.Writer, a, b []float64) {
	worst := 0.0
	for i := range a {
		worst = max(worst, math.Abs(a[i]-b[i]))
	}
	fmt.Fprintf(w, "%d results, the largest difference is %g\n", len(a), worst)
}

// graphed records the computation on one batch and launches it for all.
func graphed(w io.Writer, j *job) {
	side := cuda.NewStream(j.device)
	x := j.host[0].To(j.device) // what the graph reads
	cuda.Synchronize(j.device)
	cuda.WithStream(side, func() { torch.Scope(func() { j.compute(x) }) })
	g := cuda.NewGraph()
	var sum *torch.Tensor // what it writes
	g.Capture(func() { sum = j.compute(x) }, cuda.CaptureOptions{Stream: torch.Some(side)})
	replay := func(j *job) []*torch.Tensor {
		sums := make([]*torch.Tensor, len(j.host))
		for i, h := range j.host {
			x.Copy_(h, torch.CopyOptions{NonBlocking: true})
			g.Replay()
			sums[i] = sum.Clone()
		}
		return sums
	}
	eager, _ := timed(j, inTurn)
	values, took := timed(j, replay)
	fmt.Fprintf(w, "as a graph:          %v\n", took.Round(time.Microsecond))
	compare(w, eager, values)
}
