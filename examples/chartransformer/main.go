// Command chartransformer trains a transformer, character by character and from scratch, on a text,
// draws its loss curve, and lets it write.
//
//	go run ./examples/chartransformer [-text FILE] [-steps N] [-chart FILE]
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"time"

	"github.com/torchgo/torchgo/torch"
	"github.com/torchgo/torchgo/torch/data"
	"github.com/torchgo/torchgo/torch/nn"
	"github.com/torchgo/torchgo/torch/optim"
)

// config is what the flags set, and the tests.
type config struct {
	text, chart                    string // files
	steps, batch                   int
	context, hidden, heads, layers int
	prompt                         string
	length                         int // of the sample
	seed                           uint64
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	runtime.LockOSThread() // the goroutine that computes keeps its thread: libgomp has a pool for each
	cfg := config{batch: 16, context: 64, hidden: 64, heads: 4, layers: 4, length: 400}
	flag.StringVar(&cfg.text, "text", "LICENSE", "what to learn")
	flag.StringVar(&cfg.chart, "chart", "build/chartransformer/loss.png", "where the loss curve goes")
	flag.IntVar(&cfg.steps, "steps", 1000, "training steps")
	flag.StringVar(&cfg.prompt, "prompt", "You may ", "how the sample begins")
	flag.Uint64Var(&cfg.seed, "seed", 1, "of weights, batches and sample")
	flag.Parse()
	if _, err := run(ctx, os.Stdout, cfg); err != nil {
		fmt.Fprintln(os.Stderr, "chartransformer:", err)
		os.Exit(1)
	}
}

// run trains, draws and samples; it returns the loss of each step.
func run(ctx context.Context, w io.Writer, cfg config) ([]float64, error) {
	text, err := readText(cfg.text)
	if err != nil {
		return nil, err
	}
	prompt, err := text.encode(cfg.prompt)
	if err != nil {
		return nil, err
	}
	torch.ManualSeed(cfg.seed)
	model := newTransformer(len(text.alphabet), cfg)
	defer nn.Close(model)
	parameters := 0
	for _, p := range nn.Parameters(model) {
		parameters += p.Numel()
	}
	fmt.Fprintf(w, "%s: %d characters, %d different ones; %d parameters\n\n", cfg.text, len(text.characters), len(text.alphabet), parameters)

	losses, err := train(ctx, w, model, text, cfg)
	if err != nil {
		return nil, err
	}
	if err := saveChart(cfg.chart, losses); err != nil {
		return nil, err
	}
	fmt.Fprintf(w, "\nloss curve: %s\n\n%s", cfg.chart, cfg.prompt)
	if err := sample(ctx, w, model, text, prompt, cfg); err != nil {
		return nil, err
	}
	fmt.Fprintln(w)
	return losses, nil
}

// text is a file as numbers: each character's place in the alphabet.
type text struct {
	alphabet   []rune // sorted
	characters []int64
}

func readText(file string) (*text, error) {
	content, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	runes := []rune(string(content))
	t := &text{alphabet: slices.Compact(slices.Sorted(slices.Values(runes)))}
	t.characters, err = t.encode(string(content))
	return t, err
}

func (t *text) encode(s string) (at []int64, err error) {
	for _, r := range s {
		i, ok := slices.BinarySearch(t.alphabet, r)
		if !ok {
			return nil, fmt.Errorf("%q is not in the text that was learned", r)
		}
		at = append(at, int64(i))
	}
	return at, nil
}

// windows is a dataset of every stretch of the text: X are length characters, Y those that follow each.
func (t *text) windows(length int) data.Dataset[data.Batch] {
	return data.Func(max(0, len(t.characters)-length), func(_ context.Context, starts []int) (b data.Batch, err error) {
		var x, y []int64
		for _, at := range starts {
			x = append(x, t.characters[at:at+length]...)
			y = append(y, t.characters[at+1:at+1+length]...)
		}
		return data.Batch{X: torch.FromSlice(x, len(starts), length), Y: torch.FromSlice(y, len(starts), length)}, nil
	})
}

func train(ctx context.Context, w io.Writer, model *Transformer, text *text, cfg config) (losses []float64, err error) {
	opt := optim.NewAdamW(nn.Parameters(model), optim.AdamWOptions{LR: 3e-3})
	defer opt.Close()
	nn.Train(model)
	loader := data.NewLoader(text.windows(cfg.context), data.LoaderOptions{BatchSize: cfg.batch, Shuffle: true, Seed: cfg.seed, DropLast: true})
	if loader.Len() == 0 {
		return nil, fmt.Errorf("the text is too short: %d characters", len(text.characters))
	}
	start := time.Now()
	for len(losses) < cfg.steps {
		for batch, err := range loader.Batches(ctx) {
			if err != nil {
				return nil, err
			}
			torch.Scope(func() {
				opt.ZeroGrad()
				logits := model.Forward(batch.X)
				loss := nn.CrossEntropy(logits.Flatten(torch.FlattenOptions{EndDim: torch.Some(1)}), batch.Y.Flatten())
				loss.Backward()
				opt.Step()
				losses = append(losses, float64(torch.Item[float32](loss)))
			})
			if n := len(losses); n%100 == 0 || n == cfg.steps {
				fmt.Fprintf(w, "step %4d  loss %.3f  %5.1f s\n", n, losses[n-1], time.Since(start).Seconds())
			}
			if len(losses) == cfg.steps {
				break
			}
		}
	}
	return losses, nil
}

// sample writes characters, each drawn from what the model makes of those before it.
func sample(ctx context.Context, w io.Writer, model *Transformer, text *text, characters []int64, cfg config) error {
	nn.Eval(model)
	for range cfg.length {
		if err := ctx.Err(); err != nil {
			return err
		}
		torch.Inference(func() {
			last := characters[max(0, len(characters)-cfg.context):]
			logits := model.Forward(torch.FromSlice(last, 1, len(last))).At(0, -1) // (V)
			next := torch.Item[int64](logits.DivScalar(0.5).Softmax(-1).Multinomial(1))
			characters = append(characters, next)
			fmt.Fprint(w, string(text.alphabet[next]))
		})
	}
	return nil
}

func saveChart(file string, losses []float64) error {
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		return err
	}
	f, err := os.Create(file)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := writeChart(f, losses); err != nil {
		return err
	}
	return f.Close()
}
