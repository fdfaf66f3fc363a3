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
	"github.com/torchgo/torchgo/torch"
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
