// Command finetune teaches a pretrained BERT new words: it adds rows to the embeddings, freezes the encoder, trains
// the rest with activation checkpointing, saves and loads again.
//
//	go run ./examples/finetune [-model DIR] [-steps N]
//
// Without -model it makes a tiny model of its own, so that nothing is downloaded.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/torchgo/torchgo/pretrained"
	_ "github.com/torchgo/torchgo/pretrained/models/bert"
	"github.com/torchgo/torchgo/torch"
	"github.com/torchgo/torchgo/torch/nn"
	"github.com/torchgo/torchgo/torch/optim"
)

func main() {
	dir := flag.String("model", "", "folder of a BertForMaskedLM whose words are those of this program; default: a tiny one")
	steps := flag.Int("steps", 80, "steps of training")
	flag.Parse()
	if err := run(context.Background(), os.Stdout, *dir, *steps); err != nil {
		fmt.Fprintln(os.Stderr, "finetune:", err)
		os.Exit(1)
	}
}

// The words that the model knows, by id, and those that it learns.
var (
	oldWords = strings.Fields("[PAD] [MASK] paris rome cairo lima france italy egypt peru is in the capital of")
	newWords = strings.Fields("tokyo japan quito ecuador")
)

// facts are sentences whose last word is asked for.
var facts = []string{
	"paris is in france", "rome is in italy", "cairo is in egypt", "lima is in peru", "tokyo is in japan", "quito is in ecuador",
}

func run(ctx context.Context, w io.Writer, dir string, steps int) error {
	if err := torch.Load(); err != nil {
		return err
	}
	torch.ManualSeed(1)
	work, err := os.MkdirTemp("", "finetune-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(work)
	if dir == "" {
		dir = filepath.Join(work, "tiny")
		if err := makeTiny(ctx, dir); err != nil {
			return err
		}
	}
	m, err := pretrained.AutoModelForMaskedLM.FromPretrained(ctx, dir, pretrained.Options{})
	if err != nil {
		return err
	}
	defer m.Close()
	words := slices.Concat(oldWords, newWords)
	had, _ := m.InputEmbeddings().Weight.Rows()
	// The default, rows near the mean of the old ones, suits a language model that goes on as before. Here new words
	// must differ from each other, to be learnt as different ones.
	table, err := m.ResizeTokenEmbeddings(len(words), pretrained.ResizeOptions{PadToMultipleOf: 8, MeanResizing: torch.Some(false)})
	if err != nil {
		return err
	}
	rows, _ := table.Weight.Rows()
	fmt.Fprintf(w, "%s: %d words become %d, in %d rows\n", m.Class(), had, len(words), rows)

	nn.RequiresGrad_(m.GetEncoder(), false)
	fmt.Fprintf(w, "training %d of %d parameters\n", m.NumParameters(pretrained.NumParametersOptions{OnlyTrainable: true}), m.NumParameters())
	in := ask(facts, words)
	m.Train()
	all := saved(m, in)
	if err := m.ActivationCheckpointingEnable(); err != nil {
		return err
	}
	fmt.Fprintf(w, "a step keeps %d tensors for backward, %d with activation checkpointing\n", all, saved(m, in))
	if err := torch.TryDo(func() { train(w, m, in, steps) }); err != nil {
		return err
	}

	m.Eval()
	before := answers(m, facts, words)
	out := filepath.Join(work, "tuned")
	if err := pretrained.SavePretrained(ctx, m, out, pretrained.SaveOptions{}); err != nil {
		return err
	}
	tuned, err := pretrained.AutoModelForMaskedLM.FromPretrained(ctx, out, pretrained.Options{Strict: true})
	if err != nil {
		return err
	}
	defer tuned.Close()
	after := answers(tuned, facts, words)
	for i, fact := range facts {
		fmt.Fprintf(w, "%-22s %s\n", question(fact), after[i])
	}
	if !slices.Equal(before, after) {
		return errors.New("the saved model answers otherwise")
	}
	return nil
}

// train changes what is not frozen. The embeddings, which are tied to the head, get the sum of both gradients.
func train(w io.Writer, m pretrained.Model, in pretrained.Inputs, steps int) {
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
			loss := m.Forward(in).Loss
			loss.Backward()
			opt.Step()
			if i == 0 || (i+1)%40 == 0 {
				fmt.Fprintf(w, "step %3d  loss %.4f\n", i+1, torch.Item[float32](loss.Detach()))
			}
		})
	}
}

// question is a fact with its last word hidden.
func question(fact string) string {
	return fact[:strings.LastIndexByte(fact, ' ')] + " [MASK]"
}

// ask makes a batch of the questions with the facts as labels.
func ask(facts, words []string) pretrained.Inputs {
	var ids, labels []int64
	for _, fact := range facts {
		for _, word := range strings.Fields(question(fact)) {
			ids = append(ids, int64(slices.Index(words, word)))
		}
		answer := strings.Fields(fact)
		labels = append(labels, -100, -100, -100, int64(slices.Index(words, answer[len(answer)-1]))) // -100 asks for nothing
	}
	shape := []int{len(facts), len(ids) / len(facts)}
	return pretrained.Inputs{InputIDs: torch.FromSlice(ids, shape...), Labels: torch.FromSlice(labels, shape...)}
}

// answers are the words that the model puts in place of [MASK].
func answers(m pretrained.Model, facts, words []string) []string {
	var best []int64
	torch.Inference(func() {
		in := ask(facts, words)
		logits := m.Forward(pretrained.Inputs{InputIDs: in.InputIDs}).Logits // (facts, 4, rows)
		best = torch.ToSlice[int64](logits.Select(1, -1).Narrow(-1, 0, len(words)).Argmax(torch.ArgmaxOptions{Dim: torch.Some(-1)}))
	})
	found := make([]string, len(best))
	for i, id := range best {
		found[i] = words[id]
	}
	return found
}

// saved counts the tensors that a forward pass keeps.
func saved(m pretrained.Model, in pretrained.Inputs) (n int) {
	torch.Scope(func() {
		torch.SavedTensorHooks(func(t *torch.Tensor) *torch.Tensor { n++; return t }, func(t *torch.Tensor) *torch.Tensor { return t },
			func() { m.Forward(in) })
	})
	return n
}

// makeTiny writes a small model: a config, and weights of which only the embeddings are there. What is missing gets
// first values when it is loaded.
func makeTiny(ctx context.Context, dir string) error {
	config := map[string]any{
		"model_type": "bert", "architectures": []string{"BertForMaskedLM"}, "vocab_size": len(oldWords), "hidden_size": 32,
		"num_hidden_layers": 4, "num_attention_heads": 4, "intermediate_size": 64, "max_position_embeddings": 16,
		"initializer_range": 0.2, "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0, "pad_token_id": 0,
	}
	data, err := json.MarshalIndent(config, "", "  ")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o777); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, "config.json"), data, 0o666); err != nil {
		return err
	}
	weights := map[string]*torch.Tensor{"bert.embeddings.word_embeddings.weight": torch.Randn([]int{len(oldWords), 32})}
	defer torch.CloseAll(slices.Collect(maps.Values(weights)))
	return pretrained.SaveFile(ctx, filepath.Join(dir, "model.safetensors"), weights, map[string]string{"format": "pt"})
}
