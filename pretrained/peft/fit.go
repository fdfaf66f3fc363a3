package peft

import (
	"fmt"
	"slices"

	"github.com/torchgo/torchgo/torch"
	"github.com/torchgo/torchgo/torch/nn"
)

// fits refuses tensors whose shapes are not those of an adapter, before it is made. A rank that no tensor of a layer
// bears out must not be more than its layer is wide: a config alone makes nothing large.
func (a *Adapters) fits(c *Config, targets *Targets, state map[string]*torch.Tensor) error {
	if c.PeftType != LoRA {
		return nil
	}
	for _, t := range targets.Layers {
		s, ok := siteOf(t.Module)
		if !ok {
			continue // which adding refuses
		}
		l := s.layer()
		if l == nil {
			l = s.over(true)
		}
		names := []string{"lora_A.weight", "lora_B.weight"}
		if _, ok := t.Module.(*nn.Embedding); ok {
			names = []string{"lora_embedding_A", "lora_embedding_B"}
		}
		first, second := l.shapes(t.R)
		var missing, width int
		for i, shape := range [][]int{first, second} {
			name := join(t.Path, names[i])
			from := state[name]
			if width = max(width, product(shape)/t.R); from == nil {
				missing++
			} else if !slices.Equal(from.Shape(), shape) {
				return shapeError(name, shape, from.Shape())
			}
		}
		if missing > 0 && t.R > width {
			return configError("r of "+t.Path, fmt.Sprintf("at most the %d features of this layer, of which tensors are missing", width), fmt.Sprint(t.R))
		}
	}
	return nil
}

func product(shape []int) int {
	n := 1
	for _, d := range shape {
		n *= d
	}
	return n
}

func shapeError(name string, want, got []int) error {
	return &Error{Class: ErrSizeMismatch, Tensor: name, Detail: "shape", Expected: fmt.Sprint(want), Actual: fmt.Sprint(got)}
}
