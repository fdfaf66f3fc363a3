package pretrained

import (
	"sync"

	"github.com/torchgo/torchgo/internal/xlog"
	"github.com/torchgo/torchgo/torch"
)

// Recorder collects hidden states and attention weights while a model runs, if the call or the config asks for
// them.
type Recorder struct {
	Attentions bool // layers shall hand out their weights

	hidden, last bool
	out          *Output
}

var noWeights sync.Once

// Record starts a forward pass of a model with this config. Weights are recorded in eager attention only, as in
// transformers: SDPA's kernels have none to give.
func (in *Inputs) Record(c *ConfigBase) *Recorder {
	tied, _ := c.Extra("tie_last_hidden_states")
	r := &Recorder{Attentions: in.OutputAttentions || c.OutputAttentions, hidden: in.OutputHiddenStates || c.OutputHiddenStates,
		last: tied != false, out: &Output{}}
	if r.Attentions && c.Attn != "eager" {
		r.Attentions = false
		noWeights.Do(func() {
			xlog.Logger().Warn("attentions are not recorded: sdpa attention has no weights to give; load the model with eager attention")
		})
	}
	return r
}

// Keep is what a block returns: its hidden state, and its weights if they are recorded.
func (r *Recorder) Keep(x, weights *torch.Tensor) []*torch.Tensor {
	if r.Attentions && weights != nil {
		return []*torch.Tensor{x, weights}
	}
	return []*torch.Tensor{x}
}

// Block takes what a block of the model returned: which Keep made, and hands on the hidden state.
func (r *Recorder) Block(result []*torch.Tensor) *torch.Tensor {
	r.out.Attentions = append(r.out.Attentions, result[1:]...)
	r.HiddenState(result[0])
	return result[0]
}

// HiddenState takes a hidden state: the embeddings, before the first block.
func (r *Recorder) HiddenState(x *torch.Tensor) {
	if r.hidden {
		r.out.HiddenStates = append(r.out.HiddenStates, x)
	}
}

// Output ends the pass with the last hidden state, which takes the place of the last block's in HiddenStates (a
// final norm is between them), unless the config has tie_last_hidden_states false.
func (r *Recorder) Output(last *torch.Tensor) *Output {
	if n := len(r.out.HiddenStates); n > 0 && r.last {
		r.out.HiddenStates[n-1] = last
	}
	r.out.LastHiddenState = last
	return r.out
}
