package pretrained_test

import (
	"context"
	"fmt"
	"log"
	"os"
	"path/filepath"

	"github.com/torchgo/torchgo/pretrained"
	_ "github.com/torchgo/torchgo/pretrained/models" // every architecture
	"github.com/torchgo/torchgo/pretrained/models/bert"
	"github.com/torchgo/torchgo/pretrained/peft"
	"github.com/torchgo/torchgo/torch"
	"github.com/torchgo/torchgo/torch/nn"
	"github.com/torchgo/torchgo/torch/optim"
)

// A model is built, saved as save_pretrained does, loaded again in another dtype, and run.
func Example() {
	ctx := context.Background()
	dir, err := os.MkdirTemp("", "example")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	config := bert.NewConfig()
	config.VocabSize, config.HiddenSize, config.NumHiddenLayers, config.NumAttentionHeads, config.IntermediateSize = 100, 16, 2, 2, 32
	made, err := pretrained.AutoModelForMaskedLM.FromConfig(config, pretrained.Options{})
	if err != nil {
		log.Fatal(err)
	}
	path := filepath.Join(dir, "tiny")
	err = pretrained.SavePretrained(ctx, made, path, pretrained.SaveOptions{MaxShardSize: "20KB"})
	made.Close()
	if err != nil {
		log.Fatal(err)
	}

	model, report, err := pretrained.Load(ctx, path, pretrained.Options{Class: "AutoModelForMaskedLM", DType: torch.BFloat16})
	if err != nil {
		log.Fatal(err)
	}
	defer model.Close()
	fmt.Println(report.Class, report.DType, report.MissingKeys, report.TiedKeys["cls.predictions.decoder.weight"])
	torch.Inference(func() { // what is made inside is freed at its end
		out := model.Forward(pretrained.Inputs{InputIDs: torch.FromSlice([]int64{1, 2, 3}, 1, 3)})
		fmt.Println(out.Logits.Shape(), out.Logits.DType())
	})
	// Output:
	// BertForMaskedLM bfloat16 [] bert.embeddings.word_embeddings.weight
	// [1 3 100] bfloat16
}

// LoRA: train a few values beside a frozen model, keep them in peft's format, fold them in.
func Example_adapter() {
	ctx := context.Background()
	dir, err := os.MkdirTemp("", "adapter")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	config := bert.NewConfig()
	config.VocabSize, config.HiddenSize, config.NumHiddenLayers, config.NumAttentionHeads, config.IntermediateSize = 100, 16, 2, 2, 32
	model, err := pretrained.AutoModelForMaskedLM.FromConfig(config, pretrained.Options{})
	if err != nil {
		log.Fatal(err)
	}
	defer model.Close()

	lora := &peft.Config{PeftType: peft.LoRA, R: torch.Some(4), TargetModules: peft.Names{List: []string{"query", "value"}}}
	if err := model.AddAdapter(lora, "mine"); err != nil {
		log.Fatal(err)
	}
	fmt.Println(model.NumParameters(pretrained.NumParametersOptions{OnlyTrainable: true}), "trained")
	step := optim.NewAdamW(nn.Parameters(model), optim.AdamWOptions{LR: 0.01})
	ids := torch.FromSlice([]int64{1, 2, 3}, 1, 3)
	for range 3 {
		torch.Scope(func() {
			step.ZeroGrad()
			model.Forward(pretrained.Inputs{InputIDs: ids, Labels: ids}).Loss.Backward()
			step.Step()
		})
	}

	// Two files; LoadAdapter, or Options.Adapter, puts them over the model again.
	if err := pretrained.SavePretrained(ctx, model, dir, pretrained.SaveOptions{}); err != nil {
		log.Fatal(err)
	}
	if _, err := model.LoadAdapter(ctx, dir, pretrained.LoadAdapterOptions{Name: "again"}); err != nil {
		log.Fatal(err)
	}
	fmt.Println(len(model.PeftConfig()), "adapters, active:", model.ActiveAdapters())
	if err := model.MergeAndUnload(); err != nil { // the active one
		log.Fatal(err)
	}
	fmt.Println(len(model.PeftConfig()), "adapters")
	// Output:
	// 512 trained
	// 2 adapters, active: [mine]
	// 0 adapters
}
