// Command mixedprecision trains a small net to tell three spirals apart, in float32, in bfloat16 and in
// float16, on a GPU if there is one.
//
//	go run ./examples/mixedprecision [-steps N]
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
	"github.com/torchgo/torchgo/torch/nn"
	"github.com/torchgo/torchgo/torch/optim"
)

func main() {
	steps := flag.Int("steps", 300, "steps of training")
	flag.Parse()
	if err := torch.Load(); err != nil {
		fmt.Fprintln(os.Stderr, "mixedprecision:", err)
		os.Exit(1)
	}
	if err := torch.TryDo(func() { run(os.Stdout, *steps) }); err != nil {
		fmt.Fprintln(os.Stderr, "mixedprecision:", err)
		os.Exit(1)
	}
}

func run(w io.Writer, steps int) {
	device := torch.CPU
	if cuda.IsAvailable() {
		device = torch.CUDA(0)
	}
	fmt.Fprintf(w, "%d steps on %v\n", steps, device)
	fmt.Fprintln(w, "dtype     first loss  last loss  accuracy  last scale  ms/step")
	for _, dtype := range []torch.DType{torch.Float32, torch.BFloat16, torch.Float16} {
		r := torch.ScopeOf(func() result { return train(device, dtype, steps) })
		fmt.Fprintf(w, "%-8v  %10.4f  %9.4f  %7.1f%%  %10g  %7.2f\n", dtype, r.first, r.last, 100*r.accuracy, r.scale, r.perStep.Seconds()*1000)
	}
}

const (
	classes = 3
	hidden  = 64
)

// net tells the spirals apart.
type net struct {
	In  *nn.Linear `torch:"in"`  // (hidden, 2)
	Mid *nn.Linear `torch:"mid"` // (hidden, hidden)
	Out *nn.Linear `torch:"out"` // (classes, hidden)
}

func newNet() *net {
	return &net{nn.NewLinear(2, hidden), nn.NewLinear(hidden, hidden), nn.NewLinear(hidden, classes)}
}

// Forward maps points (N, 2) to logits (N, classes).
func (m *net) Forward(x *torch.Tensor) *torch.Tensor {
	return m.Out.Forward(m.Mid.Forward(m.In.Forward(x).Relu()).Relu())
}

type result struct {
	first, last float64 // losses
	accuracy    float64
	scale       float64 // of the loss at the end; 1 without a scaler
	perStep     time.Duration
}

// train trains in float32, or under Autocast in another dtype; float16 needs a scaled loss, because small
// gradients are zero in it.
func train(device torch.Device, dtype torch.DType, steps int) result {
	torch.ManualSeed(1)
	points, labels := spirals(200)
	x, y := points.To(device), labels.To(device)
	model := newNet()
	nn.To(model, device, torch.Float32)
	defer nn.Close(model)
	opt := optim.NewAdamW(nn.Parameters(model), optim.AdamWOptions{LR: 1e-2})
	defer opt.Close()
	scaler := optim.NewGradScaler(optim.GradScalerOptions{Enabled: torch.Some(dtype == torch.Float16), GrowthInterval: torch.Some(100)})
	defer scaler.Close()
	mixed := torch.AutocastOptions{DType: dtype, Enabled: torch.Some(dtype != torch.Float32)}

	var r result
	begin := time.Now()
	for i := range steps {
		torch.Scope(func() {
			opt.ZeroGrad()
			var loss *torch.Tensor
			torch.Autocast(device.Type, mixed, func() { loss = nn.CrossEntropy(model.Forward(x), y) })
			scaler.Scale(loss).Backward() // outside Autocast
			scaler.Step(opt)
			scaler.Update()
			if i == 0 || i == steps-1 { // reading the loss waits for the device
				r.last = float64(torch.Item[float32](loss.Detach()))
			}
			if i == 0 {
				r.first = r.last
			}
		})
	}
	r.perStep = time.Since(begin) / time.Duration(steps)
	r.scale = scaler.GetScale()
	r.accuracy = torch.InferenceOf(func() float64 {
		right := model.Forward(x).Argmax(torch.ArgmaxOptions{Dim: torch.Some(-1)}).Eq(y)
		return float64(torch.Item[int64](right.Sum())) / float64(y.Numel())
	})
	return r
}

// spirals are n points on each arm, (classes·n, 2), and their arms.
func spirals(n int) (x, y *torch.Tensor) {
	points := make([]float32, 0, 2*classes*n)
	labels := make([]int64, 0, classes*n)
	for c := range classes {
		for i := range n {
			r := float64(i+1) / float64(n)
			angle := 2*math.Pi*float64(c)/classes + 4*r
			points = append(points, float32(r*math.Cos(angle)), float32(r*math.Sin(angle)))
			labels = append(labels, int64(c))
		}
	}
	return torch.FromSlice(points, classes*n, 2), torch.FromSlice(labels)
}
