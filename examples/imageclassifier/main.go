// Command imageclassifier writes shards of labelled images, reads them back, trains a convolutional
// network on them, saves its weights, and evaluates what it loads again.
//
//	go run ./examples/imageclassifier [-dir DIR] [-epochs N]
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"time"

	"github.com/torchgo/torchgo/pretrained"
	"github.com/torchgo/torchgo/torch"
	"github.com/torchgo/torchgo/torch/data"
	"github.com/torchgo/torchgo/torch/nn"
	"github.com/torchgo/torchgo/torch/optim"
)

// config is what the flags set, and the tests.
type config struct {
	dir    string // of shards and weights
	shards int    // of training images
	images int    // in a shard
	epochs int
	batch  int
	width  int // channels of the first layer
	seed   uint64
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	runtime.LockOSThread() // the goroutine that computes keeps its thread: libgomp has a pool for each
	cfg := config{shards: 4, images: 500, batch: 50, width: 16}
	flag.StringVar(&cfg.dir, "dir", "build/imageclassifier", "folder of the shards and the weights")
	flag.IntVar(&cfg.epochs, "epochs", 8, "passes over the training images")
	flag.Uint64Var(&cfg.seed, "seed", 1, "of images, weights and order")
	flag.Parse()
	if err := run(ctx, os.Stdout, cfg); err != nil {
		fmt.Fprintln(os.Stderr, "imageclassifier:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, w io.Writer, cfg config) error {
	if err := writeShards(cfg); err != nil {
		return err
	}
	training, err := readShards(ctx, filepath.Join(cfg.dir, "train-*.tar.gz"))
	if err != nil {
		return err
	}
	defer torch.CloseAll(training)
	test, err := readShards(ctx, filepath.Join(cfg.dir, "test-*.tar.gz"))
	if err != nil {
		return err
	}
	defer torch.CloseAll(test)
	fmt.Fprintf(w, "%d training and %d test images of %d×%d in %s\n\n", training.Len(), test.Len(), side, side, cfg.dir)

	torch.ManualSeed(cfg.seed)
	model := newConvNet(cfg.width)
	defer nn.Close(model)
	if err := train(ctx, w, model, training, test, cfg); err != nil {
		return err
	}

	file := filepath.Join(cfg.dir, "convnet.safetensors")
	if err := pretrained.SaveFile(ctx, file, maps.Collect(nn.StateDict(model)), nil); err != nil {
		return err
	}
	loaded := newConvNet(cfg.width)
	defer nn.Close(loaded)
	if err := load(ctx, loaded, file); err != nil {
		return err
	}
	correct, err := evaluate(ctx, loaded, test)
	if err != nil {
		return err
	}
	fmt.Fprintf(w, "\n%s, loaded again: %.1f %% of the test images\n", file, 100*correct)
	return nil
}

func writeShards(cfg config) error {
	if err := os.MkdirAll(cfg.dir, 0o755); err != nil {
		return err
	}
	random := rand.New(rand.NewPCG(cfg.seed, 0))
	for i := range cfg.shards + 1 {
		name := fmt.Sprintf("train-%02d.tar.gz", i)
		if i == cfg.shards {
			name = "test-00.tar.gz"
		}
		if err := writeShard(filepath.Join(cfg.dir, name), cfg.images, random); err != nil {
			return err
		}
	}
	return nil
}

// ConvNet has three convolutions, each followed by a norm, ReLU and pooling.
type ConvNet struct {
	Features *nn.Sequential `torch:"features"` // (B, 3, 32, 32) → (B, 4·width)
	Head     *nn.Linear     `torch:"head"`     // (classes, 4·width)
}

func newConvNet(width int) *ConvNet {
	features := nn.NewSequential()
	in := 3
	for _, out := range []int{width, 2 * width, 4 * width} {
		features.Append(
			nn.NewConv2d(in, out, 3, nn.ConvOptions{Padding: 1, Bias: torch.Some(false)}),
			nn.NewBatchNorm2d(out),
			nn.NewReLU(),
			nn.NewMaxPool2d(2))
		in = out
	}
	features.Append(nn.NewAdaptiveAvgPool2d(1), nn.NewFlatten())
	return &ConvNet{Features: features, Head: nn.NewLinear(in, len(shapes))}
}

// Forward maps images (B, 3, 32, 32) of bytes to logits (B, classes).
func (m *ConvNet) Forward(images *torch.Tensor) *torch.Tensor {
	x := images.ToDType(torch.Float32).DivScalar(127.5).SubScalar(1)
	return m.Head.Forward(m.Features.Forward(x))
}

func train(ctx context.Context, w io.Writer, model *ConvNet, training, test data.Tensors, cfg config) error {
	opt := optim.NewAdamW(nn.Parameters(model), optim.AdamWOptions{LR: 3e-3})
	defer opt.Close()
	loader := data.NewLoader(training, data.LoaderOptions{BatchSize: cfg.batch, Shuffle: true, Seed: cfg.seed, Prefetch: 2})
	fmt.Fprintln(w, "epoch    loss   correct   seconds")
	for epoch := range cfg.epochs {
		start, sum := time.Now(), 0.0
		nn.Train(model)
		for batch, err := range loader.Batches(ctx) {
			if err != nil {
				return err
			}
			torch.Scope(func() {
				opt.ZeroGrad()
				loss := nn.CrossEntropy(model.Forward(batch.X), batch.Y)
				loss.Backward()
				opt.Step()
				sum += float64(torch.Item[float32](loss))
			})
		}
		correct, err := evaluate(ctx, model, test)
		if err != nil {
			return err
		}
		fmt.Fprintf(w, "%5d  %6.3f  %6.1f %%  %8.1f\n", epoch+1, sum/float64(loader.Len()), 100*correct, time.Since(start).Seconds())
	}
	return nil
}

// evaluate is the share of images that the model gets right.
func evaluate(ctx context.Context, model *ConvNet, test data.Tensors) (float64, error) {
	nn.Eval(model)
	correct := 0
	for batch, err := range data.NewLoader(test, data.LoaderOptions{BatchSize: 100}).Batches(ctx) {
		if err != nil {
			return 0, err
		}
		torch.Inference(func() {
			best := model.Forward(batch.X).Argmax(torch.ArgmaxOptions{Dim: torch.Some(1)})
			correct += int(torch.Item[int64](best.Eq(batch.Y).Sum()))
		})
	}
	return float64(correct) / float64(test.Len()), nil
}

func load(ctx context.Context, model *ConvNet, file string) error {
	tensors, err := pretrained.LoadFile(ctx, file)
	if err != nil {
		return err
	}
	defer torch.CloseAll(tensors)
	return nn.LoadStateDict(model, maps.All(tensors))
}
