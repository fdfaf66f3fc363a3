// Command lora teaches one frozen BERT two tasks, each with a LoRA adapter of its own: it trains and saves them, loads
// both over a fresh copy of the model, switches between them, and merges one into the weights.
//
//	go run ./examples/lora [-steps N] [-out DIR]
//
// It makes a tiny model of its own, so that nothing is downloaded.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/torchgo/torchgo/pretrained"
	_ "github.com/torchgo/torchgo/pretrained/models/bert"
	"github.com/torchgo/torchgo/pretrained/peft"
	"github.com/torchgo/torchgo/torch"
	"github.com/torchgo/torchgo/torch/nn"
	"github.com/torchgo/torchgo/torch/optim"
)

func main() {
	steps := flag.Int("steps", 60, "steps of training of each adapter")
	out := flag.String("out", "", "folder for the model and its adapters; default: a temporary one")
	flag.Parse()
	if err := run(context.Background(), os.Stdout, *out, *steps); err != nil {
		fmt.Fprintln(os.Stderr, "lora:", err)
		os.Exit(1)
	}
}

var words = strings.Fields("[PAD] [MASK] in they speak is the country paris rome cairo lima france italy egypt peru french italian arabic spanish")

// tasks are what the adapters learn: to answer with a word in place of [MASK].
var tasks = []struct {
	name     string
	question string // %s is a city
	answers  map[string]string
}{
	{"country", "%s is in [MASK]", map[string]string{"paris": "france", "rome": "italy", "cairo": "egypt", "lima": "peru"}},
	{"language", "in %s they speak [MASK]", map[string]string{"paris": "french", "rome": "italian", "cairo": "arabic", "lima": "spanish"}},
}

var cities = []string{"paris", "rome", "cairo", "lima"}

func run(ctx context.Context, w io.Writer, dir string, steps int) error {
	if err := torch.Load(); err != nil {
		return err
	}
	torch.ManualSeed(1)
	if dir == "" {
		work, err := os.MkdirTemp("", "lora-")
		if err != nil {
			return err
		}
		defer os.RemoveAll(work)
		dir = work
	}
	base := filepath.Join(dir, "base")
	if err := makeTiny(ctx, base); err != nil {
		return err
	}

	m, err := pretrained.AutoModelForMaskedLM.FromPretrained(ctx, base, pretrained.Options{})
	if err != nil {
		return err
	}
	defer m.Close()
	for i, task := range tasks {
		// rank 8 on every linear layer but the head; the model's own weights are not trained from now on
		config := peft.Config{PeftType: peft.LoRA, R: torch.Some(8), LoraAlpha: torch.Some(16.0), TargetModules: peft.Names{Pattern: "all-linear"}}
		if err := m.AddAdapter(&config, task.name); err != nil {
			return err
		}
		fmt.Fprintf(w, "%s: training %d of %d parameters\n", task.name, m.NumParameters(pretrained.NumParametersOptions{OnlyTrainable: true}), m.NumParameters())
		m.Train()
		if err := torch.TryDo(func() { train(w, m, i, steps) }); err != nil {
			return err
		}
		// The active adapter is saved, in the format of Python's peft.
		if err := pretrained.SavePretrained(ctx, m, filepath.Join(dir, task.name), pretrained.SaveOptions{}); err != nil {
			return err
		}
	}

	fresh, err := pretrained.AutoModelForMaskedLM.FromPretrained(ctx, base, pretrained.Options{})
	if err != nil {
		return err
	}
	defer fresh.Close()
	for _, task := range tasks {
		if _, err := fresh.LoadAdapter(ctx, filepath.Join(dir, task.name), pretrained.LoadAdapterOptions{Name: task.name, Strict: true}); err != nil {
			return err
		}
	}
	for i, task := range tasks {
		if err := fresh.SetAdapter(task.name); err != nil {
			return err
		}
		for j, city := range cities {
			fmt.Fprintf(w, "%-32s %s\n", fmt.Sprintf(task.question, city), answers(fresh, i)[j])
		}
	}

	before := answers(fresh, len(tasks)-1)
	if err := fresh.MergeAndUnload(); err != nil { // the active one
		return err
	}
	merged := filepath.Join(dir, "merged")
	if err := pretrained.SavePretrained(ctx, fresh, merged, pretrained.SaveOptions{}); err != nil {
		return err
	}
	plain, err := pretrained.AutoModelForMaskedLM.FromPretrained(ctx, merged, pretrained.Options{Strict: true})
	if err != nil {
		return err
	}
	defer plain.Close()
	if !slices.Equal(before, answers(plain, len(tasks)-1)) {
		return errors.New("the merged model answers otherwise")
	}
	fmt.Fprintf(w, "merged: %d parameters, the same answers\n", plain.NumParameters())
	return nil
}

func train(w io.Writer, m pretrained.Model, task, steps int) {
	var trained []*torch.Tensor
	for _, p := range nn.Parameters(m) {
		if p.RequiresGrad() {
			trained = append(trained, p)
		}
	}
	opt := optim.NewAdamW(trained, optim.AdamWOptions{LR: 1e-2})
	defer opt.Close()
	for i := range steps {
		torch.Scope(func() {
			opt.ZeroGrad()
			loss := m.Forward(ask(task)).Loss
			loss.Backward()
			opt.Step()
			if i == 0 || i == steps-1 {
				fmt.Fprintf(w, "step %3d  loss %.4f\n", i+1, torch.Item[float32](loss.Detach()))
			}
		})
	}
}

// ask makes a batch of a task's questions, with the answers as labels: (cities, words) both.
func ask(task int) pretrained.Inputs {
	var ids, labels []int64
	for _, city := range cities {
		for _, word := range strings.Fields(fmt.Sprintf(tasks[task].question, city)) {
			ids = append(ids, int64(slices.Index(words, word)))
			label := int64(-100) // nothing is asked here
			if word == "[MASK]" {
				label = int64(slices.Index(words, tasks[task].answers[city]))
			}
			labels = append(labels, label)
		}
	}
	shape := []int{len(cities), len(ids) / len(cities)}
	return pretrained.Inputs{InputIDs: torch.FromSlice(ids, shape...), Labels: torch.FromSlice(labels, shape...)}
}

// answers are the words that the model puts in place of [MASK], which is the last word.
func answers(m pretrained.Model, task int) []string {
	m.Eval()
	var best []int64
	torch.Inference(func() {
		logits := m.Forward(pretrained.Inputs{InputIDs: ask(task).InputIDs}).Logits // (cities, words of the question, vocabulary)
		best = torch.ToSlice[int64](logits.Select(1, -1).Argmax(torch.ArgmaxOptions{Dim: torch.Some(-1)}))
	})
	found := make([]string, len(best))
	for i, id := range best {
		found[i] = words[id]
	}
	return found
}

// makeTiny writes a small model that knows nothing.
func makeTiny(ctx context.Context, dir string) error {
	config, err := pretrained.NewConfig("bert", map[string]any{
		"vocab_size": len(words), "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64,
		"max_position_embeddings": 16, "initializer_range": 0.2, "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0,
	})
	if err != nil {
		return err
	}
	m, err := pretrained.AutoModelForMaskedLM.FromConfig(config, pretrained.Options{})
	if err != nil {
		return err
	}
	defer m.Close()
	return pretrained.SavePretrained(ctx, m, dir, pretrained.SaveOptions{})
}
