package main

import (
	"github.com/torchgo/torchgo/bench/models"
	"github.com/torchgo/torchgo/torch"
	"github.com/torchgo/torchgo/torch/nn"
	"github.com/torchgo/torchgo/torch/optim"
)

// The works of train.py, in Go.

// smolTokens is how many tokens a step of smollm2 has.
const smolTokens = 2 * 256

func trainWorks() map[string]work {
	threads := torch.NumThreads()
	return map[string]work{
		"gpt":     training(func() nn.Layer { return models.NewGPT(64, 16, 32, 2, 4) }, 1, 20, 64, 2, 16),
		"smollm2": training(func() nn.Layer { return models.NewLlama(models.SmolLM2) }, threads, 2, 49152, 2, 256),
	}
}

// training is steps of a model that goes on learning from one call to the next. All calls return the loss
// after the first steps, which nobody measures.
func training(build func() nn.Layer, threads, first, vocabulary, batch, length int) work {
	var model nn.Layer
	var opt *optim.AdamW
	var check float64
	var batches [8][2]*torch.Tensor
	step := func(i int) float64 { b := batches[i%len(batches)]; return models.Step(model, opt, b[0], b[1]) }
	return func(n, _ int) float64 {
		torch.SetNumThreads(threads)
		if model == nil {
			model = build()
			models.Fill(model)
			opt = optim.NewAdamW(nn.Parameters(model), optim.AdamWOptions{LR: 1e-4})
			for i := range batches {
				batches[i][0], batches[i][1] = models.Sequences(i, vocabulary, batch, length)
			}
			for i := range first {
				check = step(i)
			}
		}
		for i := range n {
			step(i)
		}
		return check
	}
}
