package pretrained

import "github.com/torchgo/torchgo/torch"

// Block runs one block of a model, such as a transformer layer: the unit that stays on one device. What
// forward computes on the way is freed with it, so that the next block finds that memory in the caches. Of a model
// that is dispatched, the inputs are moved to the block's device, and offloaded weights are there while it runs.
// All tensors that forward takes from outside the block are passed in (nil for one that is absent), and
// handed on to forward as in.
func (p *PreTrainedModel) Block(block any, forward func(in []*torch.Tensor) []*torch.Tensor, in ...*torch.Tensor) []*torch.Tensor {
	m := p.dispatch.module(block)
	run := func(in []*torch.Tensor) []*torch.Tensor {
		return torch.ScopeOf(func() []*torch.Tensor {
			if m != nil {
				return m.run(in, forward)
			}
			return forward(in)
		})
	}
	if p.checkpointing.covers(block) && p.Training() && !m.offloaded() {
		return p.checkpointing.run(run, in) // run must do all that the block needs: backward calls it again
	}
	return run(in)
}
