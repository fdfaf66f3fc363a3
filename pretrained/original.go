package pretrained

import (
	"fmt"
	"slices"
	"strings"

	"github.com/torchgo/torchgo/torch"
)

// original is a tensor in the form of a checkpoint's file: one of the model's, or a part of one, or made of
// several.
type original struct {
	name   string
	shape  []int
	dtype  torch.DType
	pieces []piece
}

// piece is elements of a tensor of the model and their place in an original.
type piece struct {
	tensor *torch.Tensor
	place  blockCopy
}

// originals turns tensors of the state dict of a model into those that its checkpoint had: the converters and
// renamings that were used when it was loaded, backwards. For a model that was not loaded (nil) they are all that its
// type has. With inOrder they come in the order of transformers' files of safetensors: sorted, unless there was nothing to turn
// back or parts of the model are on the CPU or on disk, when it turns back shard by shard.
func (p *PreTrainedModel) originals(state []entry, file *fileRules, inOrder bool) ([]original, error) {
	back := file
	if back == nil {
		k := &keyMap{prefix: p.class.prefix(p.arch)}
		if err := k.addModels(p.self); err != nil {
			return nil, err
		}
		all := k.reverse(true)
		back = &all
	}
	var out []original
	if inOrder && (file != nil || len(back.rules)+len(back.converters) > 0) && !p.partlyAway() {
		state = slices.SortedStableFunc(slices.Values(state), func(a, b entry) int { return compareNatural(a.name, b.name) })
	}
	type taken struct {
		by     *converter
		at     match
		tensor []group[*torch.Tensor] // by source
		names  []string               // of the model
	}
	var order []*taken
	byKey := map[conversionKey]*taken{}
	for _, e := range state {
		by, m := back.converter(e.name)
		if by == nil {
			order = append(order, &taken{tensor: []group[*torch.Tensor]{{e.name, []*torch.Tensor{e.tensor}}}})
			continue
		}
		k := conversionKey{by, m.name(by.Targets[0], "0")}
		if byKey[k] == nil {
			byKey[k] = &taken{by: by, at: m, tensor: make([]group[*torch.Tensor], len(by.Sources))}
			order = append(order, byKey[k])
		}
		t := byKey[k]
		t.tensor[m.source].items = append(t.tensor[m.source].items, e.tensor)
		t.names = append(t.names, e.name)
	}
	for _, t := range order {
		if t.by == nil {
			x := t.tensor[0].items[0]
			out = append(out, newOriginal(back.rename(t.tensor[0].name), x.Shape(), piece{x, whole(x.Shape()).copyInto()}))
			continue
		}
		made, err := p.convertBack(t.by, t.tensor, func(pattern, index string) string { return back.rename(t.at.name(pattern, index)) })
		if err != nil {
			return nil, &Error{Class: ErrSizeMismatch, Detail: "saving " + listKeys(t.names), Err: err}
		}
		out = append(out, made...)
	}
	return out, nil
}

func newOriginal(name string, shape []int, pieces ...piece) original {
	return original{name, shape, pieces[0].tensor.DType(), pieces}
}

// identity is the same for originals that are one tensor of the model, as a whole and in a row, under two names.
func (o original) identity() any {
	t := o.pieces[0].tensor
	switch whole := o.pieces[0].place; {
	case len(o.pieces) > 1 || !whole.run() || whole.numel() != t.Numel() || t.Numel() == 0:
		return new(byte)
	case t.Device() == torch.Meta: // a placeholder is one of its own
		return t
	case !t.IsContiguous():
		return new(byte)
	}
	return [2]any{t.StorageID(), t.DataPtr()}
}

func (f *fileRules) converter(name string) (*converter, match) {
	for _, c := range f.converters {
		if m, ok := c.match(name); ok {
			return c, m
		}
	}
	return nil, match{}
}

// convertBack applies a reversed converter to tensors, grouped by its sources.
func (p *PreTrainedModel) convertBack(by *converter, tensors []group[*torch.Tensor], name func(pattern, index string) string) (out []original, err error) {
	if by.divides() { // each original is a view of the model's tensor
		t := tensors[0].items[0]
		views, err := by.divide(p.config, t.Shape(), by.Targets, nil)
		if err != nil {
			return nil, err
		}
		for _, g := range views {
			for i, v := range g.items {
				out = append(out, newOriginal(name(g.name, fmt.Sprint(i)), v.shape(), piece{t, v.copyInto().reverse()}))
			}
		}
		return out, nil
	}
	way := by.Reverse()
	shapes := make([]group[[]int], len(tensors))
	var sources []*torch.Tensor
	for i, g := range tensors {
		if len(g.items) == 0 {
			return nil, fmt.Errorf("%w: there is no %s", errShapes, strings.TrimPrefix(by.Sources[i], "^"))
		}
		shapes[i].name = by.Sources[i]
		for _, t := range g.items {
			shapes[i].items = append(shapes[i].items, t.Shape())
		}
		sources = append(sources, g.items...)
	}
	shape, err := way.joined(shapes)
	if err != nil {
		return nil, err
	}
	views, err := way.divide(p.config, shape, way.Targets, shapes)
	if err != nil {
		return nil, err
	}
	var pieces []piece
	for _, g := range views {
		for _, v := range g.items {
			pieces = append(pieces, piece{sources[len(pieces)], v.copyInto()})
		}
	}
	return []original{newOriginal(name(by.Targets[0], "0"), shape, pieces...)}, nil
}

// tensor is the original: contiguous, a view of the model's tensor where that has its elements in a row. The
// caller is in a scope.
func (o original) tensor() *torch.Tensor {
	first := o.pieces[0]
	if len(o.pieces) == 1 && first.place.run() {
		t := first.tensor.Contiguous()
		if t.Numel() == first.place.numel() {
			return t.View(o.shape...)
		}
		return t.View(-1).Narrow(0, first.place.from.offset, first.place.numel()).View(o.shape...)
	}
	t := torch.Empty(o.shape, torch.EmptyOptions{DType: o.dtype, Device: first.tensor.Device()})
	for _, p := range o.pieces {
		p.place.to.view(t, p.place.sizes).Copy_(p.place.from.view(p.tensor.Contiguous(), p.place.sizes))
	}
	return t
}
