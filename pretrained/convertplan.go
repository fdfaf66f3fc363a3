package pretrained

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/torchgo/torchgo/torch"
)

// conversion is the tensors of a checkpoint that one converter takes together.
type conversion struct {
	by     *converter
	at     match                // of the first; its before and after are those of all
	key    string               // of the first target
	found  []map[string]*source // by source of the converter and index
	placed map[string]int       // order of arrival
}

// conversions are grouped by converter and the key of its first target.
type conversions struct {
	list []*conversion
	at   map[conversionKey]*conversion
}

type conversionKey struct {
	by  *converter
	key string
}

// add collects a tensor.
func (cs *conversions) add(t translated, from source) error {
	k := conversionKey{t.by, t.key}
	c := cs.at[k]
	if c == nil {
		c = &conversion{by: t.by, at: t.match, key: t.key, placed: map[string]int{}}
		for range t.by.Sources {
			c.found = append(c.found, map[string]*source{})
		}
		if cs.at == nil {
			cs.at = map[conversionKey]*conversion{}
		}
		cs.at[k], cs.list = c, append(cs.list, c)
	}
	if other := c.found[t.source][t.index]; other != nil {
		return &Error{File: from.path(), Tensor: from.Name, Class: ErrConflict, Detail: fmt.Sprintf("%q is the same parameter %q", other.Name, t.key)}
	}
	c.found[t.source][t.index] = &from
	c.placed[from.Name] = len(c.placed)
	return nil
}

// targets are the names of the model that a converted name stands for, as far as they have no index.
func (t translated) targets() (keys []string) {
	for _, pattern := range t.by.Targets {
		keys = append(keys, t.target(pattern, "0"))
	}
	return keys
}

// target is the name of one of the converter's targets: the base model's prefix is what it is in the first's.
func (t translated) target(pattern, index string) string {
	first, name := t.name(t.by.Targets[0], "0"), t.name(pattern, index)
	if prefix, ok := strings.CutSuffix(t.key, first); ok {
		return prefix + name
	}
	return strings.TrimPrefix(name, strings.TrimSuffix(first, t.key))
}

// indices are those of a source of the converter, in order.
func (c *conversion) indices(source int) []string {
	return slices.SortedFunc(maps.Keys(c.found[source]), compareNatural)
}

// planConversion plans the weights that a converter makes.
func (l *loader) planConversion(found foundWeights, c *conversion) error {
	if c.by.divides() {
		return l.planDivision(found, c)
	}
	return l.planJoin(found, c)
}

// planJoin plans the weight that several tensors make: each is read straight to its place.
func (l *loader) planJoin(found foundWeights, c *conversion) error {
	w := PlannedWeight{Key: c.key, slot: l.slots[c.key]}
	shape := w.slot.Tensor().Shape()
	way := c.by.Reverse()
	var shapes []group[[]int]
	var sources []source // in the order of the views
	for i, pattern := range way.Targets {
		g := group[[]int]{name: pattern}
		for _, index := range c.indices(i) {
			s := c.found[i][index]
			g.items = append(g.items, s.Shape)
			sources = append(sources, *s)
		}
		shapes = append(shapes, g)
	}
	lacks := l.lacks(c, way, shape)
	joined, err := way.joined(shapes)
	switch {
	case err != nil && lacks != nil:
		l.broken = append(l.broken, &Error{File: sources[0].path(), Tensor: c.key, Class: ErrMissingTensor, Detail: "it is made of several, and absent are " + listKeys(lacks)})
		return nil
	case err != nil:
		odd, usual := oddShape(sources)
		l.broken = append(l.broken, &Error{File: odd.path(), Tensor: odd.Name, Class: ErrSizeMismatch, Detail: "one of those that make " + c.key,
			Expected: torch.Shape(usual).String(), Actual: torch.Shape(odd.Shape).String(), Err: err})
		return nil
	}
	places := make([]blockCopy, len(sources)) // empty where nothing is read
	if slices.Equal(joined, shape) {
		views, err := way.divide(l.config, shape, way.Targets, shapes)
		if err != nil {
			return &Error{File: sources[0].path(), Tensor: c.key, Class: ErrSizeMismatch, Detail: "converting", Err: err}
		}
		i := 0
		for _, g := range views {
			for _, v := range g.items {
				places[i] = v.copyInto()
				i++
			}
		}
	}
	for i, s := range sources {
		w.Parts = append(w.Parts, newPart(s, places[i]))
	}
	if !slices.Equal(joined, shape) {
		l.mismatch(&w, joined)
		if lacks != nil {
			if l.absent == nil {
				l.absent = map[string]string{}
			}
			l.absent[c.key] = "absent are " + listKeys(lacks)
			l.plan.Warnings = append(l.plan.Warnings, fmt.Sprintf("%s is made of tensors that are absent: %s", c.key, listKeys(lacks)))
		}
	} else if lacks != nil { // other indices than usual, but as many
		l.plan.Warnings = append(l.plan.Warnings, fmt.Sprintf("%s has other tensors in the place of %s", c.key, listKeys(lacks)))
	}
	slices.SortStableFunc(w.Parts, func(a, b Part) int { return c.placed[a.Source] - c.placed[b.Source] })
	return l.take(found, w)
}

// lacks are the tensors by their names in the file that a weight of this shape would be made of, and that the
// checkpoint does not have.
func (l *loader) lacks(c *conversion, way Converter, shape []int) (names []string) {
	views, err := way.divide(l.config, shape, way.Targets, nil)
	back := l.names.reverse(false)
	for i, pattern := range way.Targets {
		if !strings.Contains(pattern, "*") {
			if len(c.found[i]) == 0 {
				names = append(names, back.rename(c.at.name(pattern, "")))
			}
			continue
		}
		n := 0
		for k := range way.Targets {
			n = max(n, len(c.found[k]))
		}
		if err == nil {
			n = len(views[i].items)
		}
		have := map[string]bool{}
		for index := range c.found[i] {
			have[strings.TrimLeft(index[:len(index)-1], "0")+index[len(index)-1:]] = true // 03 is 3
		}
		for index := range n {
			if !have[fmt.Sprint(index)] {
				names = append(names, back.rename(c.at.name(pattern, fmt.Sprint(index))))
			}
		}
	}
	return names
}

// oddShape finds the first tensor whose shape is not the one that most have of those with as many dimensions.
func oddShape(sources []source) (odd source, usual []int) {
	counts := map[string]int{}
	for _, s := range sources {
		counts[fmt.Sprint(s.Shape)]++
	}
	for _, s := range sources {
		if usual == nil || counts[fmt.Sprint(s.Shape)] > counts[fmt.Sprint(usual)] {
			usual = s.Shape
		}
	}
	for _, s := range sources {
		if !slices.Equal(s.Shape, usual) {
			return s, usual
		}
	}
	return sources[0], usual
}

// planDivision plans the weights that one tensor gives.
func (l *loader) planDivision(found foundWeights, c *conversion) error {
	var from source
	for _, s := range c.found[0] {
		from = *s
	}
	t := translated{c.key, c.by, c.at}
	var want []group[[]int]
	keys := map[string][]string{}
	for _, pattern := range c.by.Targets {
		g := group[[]int]{name: pattern}
		for i := 0; ; i++ {
			key := t.target(pattern, fmt.Sprint(i))
			slot, ok := l.slots[key]
			if !ok || i > 0 && !strings.Contains(pattern, "*") {
				break
			}
			keys[pattern] = append(keys[pattern], key)
			g.items = append(g.items, slot.Tensor().Shape())
		}
		if len(g.items) == 0 {
			return &Error{File: from.path(), Tensor: from.Name, Class: ErrUnexpected, Detail: fmt.Sprintf("the model has no %s to take a part of it", t.target(pattern, "0"))}
		}
		want = append(want, g)
	}
	views, err := c.by.divide(l.config, from.Shape, c.by.Targets, want)
	if err != nil {
		l.broken = append(l.broken, &Error{File: from.path(), Tensor: from.Name, Class: ErrSizeMismatch, Detail: "converting to " + c.key, Err: err})
		return nil
	}
	for _, g := range views {
		for i, key := range keys[g.name] {
			w := PlannedWeight{Key: key, slot: l.slots[key]}
			shape := w.slot.Tensor().Shape()
			switch {
			case i >= len(g.items):
				continue // missing
			case slices.Equal(g.items[i].shape(), shape):
				w.Parts = []Part{newPart(from, g.items[i].copyInto().reverse())}
			default:
				w.Parts = []Part{newPart(from, whole(shape).copyInto())}
				l.mismatch(&w, g.items[i].shape())
			}
			if err := l.take(found, w); err != nil {
				return err
			}
		}
	}
	return nil
}
