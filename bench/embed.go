package main

import (
	"context"
	"encoding/json"
	"os"

	_ "github.com/torchgo/torchgo/pretrained/models"
	"github.com/torchgo/torchgo/pretrained/sentence"
)

// The works of embed.py, in Go.
func embedWorks(ctx context.Context, model, textsFile string) (map[string]work, error) {
	texts, err := readTexts(textsFile)
	if err != nil {
		return nil, err
	}
	enc, err := sentence.Load(ctx, model, sentence.Options{})
	if err != nil {
		return nil, err
	}
	embed := func(texts []string, size int) float64 {
		vectors, err := enc.Encode(ctx, texts, sentence.EncodeOptions{BatchSize: size})
		if err != nil {
			panic(err)
		}
		return digest(vectors)
	}
	return map[string]work{
		"batches": func(n, at int) float64 { return embed(texts.Same[at:at+n], 32) },
		"single": func(n, at int) (check float64) {
			for _, text := range texts.Same[at : at+n] {
				check += embed([]string{text}, 1)
			}
			return check
		},
		"mixed": func(n, at int) float64 { return embed(texts.Mixed[at:at+n], 32) },
		"load": func(n, _ int) float64 {
			for range n {
				enc, err := sentence.Load(ctx, model, sentence.Options{})
				if err != nil {
					panic(err)
				}
				enc.Close()
			}
			return 0
		},
	}, nil
}

// digest is a number that depends on every vector.
func digest(vectors [][]float32) (sum float64) {
	for i, v := range vectors {
		sum += float64(v[i%len(v)])
	}
	return sum
}

// first loads the model, embeds one sentence, prints it and ends: first.py, in Go.
func first(ctx context.Context, model string) error {
	enc, err := sentence.Load(ctx, model, sentence.Options{})
	if err != nil {
		return err
	}
	vectors, err := enc.Encode(ctx, []string{"The first sentence."})
	if err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(map[string]any{"check": vectors[0]})
}
