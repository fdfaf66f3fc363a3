package pretrained

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
)

// A Converter declares that several tensors of a checkpoint are one of the model, or one of a checkpoint is
// several of the model, or that one lies there in another order. It is a value: loading follows it forwards,
// saving backwards. All operations only move elements, so each tensor of the one side is a view of the other's.
//
//	Converter{
//		Sources: []string{"mlp.experts.*.gate_proj.weight", "mlp.experts.*.up_proj.weight"}, // (I, C) each
//		Targets: []string{"mlp.experts.gate_up_proj"},                                       // (E, 2I, C)
//		Ops:     []Op{Stack{}, Concatenate{Dim: 1}},
//	}
//
// Sources and targets are whole parts of names, at any place in a name or behind "^" at its start; * is an
// index. Indices order the tensors as numbers: 2 before 10. (transformers' WeightConverter.)
type Converter struct {
	Sources []string // in the file
	Targets []string // in the model; one unless there is one source
	Ops     []Op     // from sources to targets
}

// Op is a step of a Converter: Stack, Concatenate, Chunk, Split, Unstack, Transpose, Interleave or
// PermuteForRope. Stack and Concatenate make one tensor of several, Chunk, Split and Unstack several of one; a
// converter has but one of the two kinds.
type Op interface {
	Reverse() Op // what undoes it
}

// divider is an operation that leaves as many tensors as there were, or makes more.
type divider interface {
	Op
	// divide is the operation on views. want, if known, are the shapes that it should make, by name.
	divide(c Config, in []group[strided], names []string, want []group[[]int]) ([]group[strided], error)
	// join gives the shapes that divide makes the given ones of.
	join(in []group[[]int]) ([]group[[]int], error)
}

// group is the tensors of one name, of several if the name has an index.
type group[T any] struct {
	name  string
	items []T
}

// Stack makes one tensor of those that differ in their index, along a new dimension (MergeModulelist).
type Stack struct{ Dim int }

// Unstack makes a tensor of each index of a dimension, which goes (SplitModulelist).
type Unstack struct{ Dim int }

// Concatenate joins the tensors of all sources along a dimension, those of an index in its order. Backwards
// they are of equal sizes, which are Count's where a name has an index.
type Concatenate struct {
	Dim   int
	Count string // key of config.json
}

// Chunk divides a tensor along a dimension into equal parts, one a target, or as many as the model's config
// says under Count if the target has an index.
type Chunk struct {
	Dim   int
	Count string // key of config.json
}

// Split divides a tensor along a dimension into parts of the sizes that the model's parameters have. Its reverse
// joins them again, and does not know the sizes.
type Split struct{ Dim int }

// Transpose swaps two dimensions.
type Transpose struct {
	Dim0, Dim1 int
	IfNeeded   bool // only a tensor that does not have the model's shape; it is saved with the model's

	back bool // the way back of IfNeeded
}

// Interleave turns the order x₀ x₁ x₂ … of the 2n elements of a dimension into x₀ x₂ … x₁ x₃ …; Inverse back.
type Interleave struct {
	Dim     int
	Inverse bool
}

// PermuteForRope turns the order of rotary position embeddings in which the two elements of a pair are
// neighbours into the one in which they are half a head apart, along dimension 0; Inverse back.
type PermuteForRope struct {
	Heads   string   // key of config.json; default: num_attention_heads. A dot leads into an object.
	Only    []string // if set, the names that it applies to contain one of these
	Inverse bool
}

// Reverse implements Op.
func (o Stack) Reverse() Op { return Unstack(o) }

// Reverse implements Op.
func (o Unstack) Reverse() Op { return Stack(o) }

// Reverse implements Op.
func (o Concatenate) Reverse() Op { return Chunk(o) }

// Reverse implements Op.
func (o Chunk) Reverse() Op { return Concatenate(o) }

// Reverse implements Op.
func (o Split) Reverse() Op { return Concatenate{Dim: o.Dim} }

// Reverse implements Op.
func (o Transpose) Reverse() Op { return Transpose{o.Dim1, o.Dim0, o.IfNeeded, o.IfNeeded && !o.back} }

// Reverse implements Op.
func (o Interleave) Reverse() Op { o.Inverse = !o.Inverse; return o }

// Reverse implements Op.
func (o PermuteForRope) Reverse() Op { o.Inverse = !o.Inverse; return o }

// Reverse swaps the two sides.
func (c Converter) Reverse() Converter {
	r := Converter{Sources: c.Targets, Targets: c.Sources}
	for _, op := range slices.Backward(c.Ops) {
		r.Ops = append(r.Ops, op.Reverse())
	}
	return r
}

// divides reports whether c makes several of one, or one of one.
func (c Converter) divides() bool {
	return !slices.ContainsFunc(c.Ops, func(op Op) bool { _, ok := op.(divider); return !ok })
}

// validate tells what is wrong with c as it is declared.
func (c Converter) validate() error {
	bad := func(text string) error {
		return fmt.Errorf("converter from %v to %v: %s", c.Sources, c.Targets, text)
	}
	d := c
	if !c.divides() {
		if d = c.Reverse(); !d.divides() {
			return bad("operations that merge and such that divide")
		}
	}
	switch {
	case len(c.Ops) == 0:
		return bad("no operation")
	case len(d.Sources) != 1 || len(d.Targets) == 0:
		return bad("several sources and several targets, or none")
	case strings.Contains(d.Sources[0], "*"):
		return bad("an index on both sides")
	}
	for _, name := range slices.Concat(c.Sources, c.Targets) {
		if strings.Count(name, "*") > 1 {
			return bad("two indices in a name")
		}
	}
	return nil
}

// errShapes means that tensors don't fit together.
var errShapes = errors.New("shapes don't fit together")

// divide shows each of the tensors that a converter which divides makes of one as a view of that. want, if
// known, are the shapes that they should have, whole is the shape that these come from: if it is not of the
// one's, want can't be had.
func (c Converter) divide(config Config, shape []int, names []string, want []group[[]int]) (parts []group[strided], err error) {
	wants := make([][]group[[]int], len(c.Ops))
	for i, op := range slices.Backward(c.Ops) {
		wants[i] = want
		if want, err = op.(divider).join(want); err != nil {
			return nil, err
		}
	}
	if want != nil && !slices.Equal(want[0].items[0], shape) {
		clear(wants)
	}
	parts = []group[strided]{{c.Sources[0], []strided{whole(shape)}}}
	for i, op := range c.Ops {
		if parts, err = op.(divider).divide(config, parts, names, wants[i]); err != nil {
			return nil, err
		}
	}
	for i := range parts { // without an operation that names them
		if len(parts) == len(names) {
			parts[i].name = names[i]
		}
	}
	return parts, nil
}

// joined is the shape of the tensor that a converter which divides makes these of.
func (c Converter) joined(shapes []group[[]int]) (shape []int, err error) {
	for _, op := range slices.Backward(c.Ops) {
		if shapes, err = op.(divider).join(shapes); err != nil {
			return nil, err
		}
	}
	return shapes[0].items[0], nil
}

func checkDim(dim, n int) error {
	if dim < 0 || dim >= n {
		return fmt.Errorf("%w: no dimension %d among %d", errShapes, dim, n)
	}
	return nil
}

func (o Unstack) divide(_ Config, in []group[strided], _ []string, _ []group[[]int]) (out []group[strided], err error) {
	for _, g := range in {
		next := group[strided]{name: g.name}
		for _, v := range g.items {
			if err := checkDim(o.Dim, len(v.dims)); err != nil {
				return nil, err
			}
			for i := range size(v.dims[o.Dim]) {
				next.items = append(next.items, v.index(o.Dim, i))
			}
		}
		out = append(out, next)
	}
	return out, nil
}

func (o Unstack) join(in []group[[]int]) (out []group[[]int], err error) {
	for _, g := range in {
		if len(g.items) == 0 {
			return nil, fmt.Errorf("%w: none of %s", errShapes, g.name)
		}
		shape := g.items[0]
		for _, s := range g.items {
			if !slices.Equal(s, shape) {
				return nil, fmt.Errorf("%w: %v and %v can't be stacked", errShapes, shape, s)
			}
		}
		if err := checkDim(o.Dim, len(shape)+1); err != nil {
			return nil, err
		}
		out = append(out, group[[]int]{g.name, [][]int{slices.Insert(slices.Clone(shape), o.Dim, len(g.items))}})
	}
	return out, nil
}

func (o Chunk) divide(c Config, in []group[strided], names []string, want []group[[]int]) ([]group[strided], error) {
	if len(in) != 1 || len(in[0].items) != 1 {
		return nil, fmt.Errorf("%w: %d tensors to divide", errShapes, len(in))
	}
	v := in[0].items[0]
	if err := checkDim(o.Dim, len(v.dims)); err != nil {
		return nil, err
	}
	counts := make([]int, len(names))
	for i, name := range names {
		counts[i] = 1
		if o.Count == "" || !strings.Contains(name, "*") || want != nil {
			continue // an index is of another operation
		}
		n, ok := configInt(c, o.Count)
		if !ok || n < 1 {
			return nil, fmt.Errorf("%s of the config does not say into how many parts", o.Count)
		}
		counts[i] = n
	}
	total := 0
	for i := range want {
		counts[i] = len(want[i].items)
	}
	for _, n := range counts {
		total += n
	}
	length := size(v.dims[o.Dim])
	each := (length + total - 1) / max(total, 1)
	var out []group[strided]
	at := 0
	for i, name := range names {
		g := group[strided]{name: name}
		for k := range counts[i] {
			n := min(each, length-at)
			if want != nil {
				n = want[i].items[k][o.Dim]
			}
			if n < 0 || n == 0 && length > 0 {
				return nil, fmt.Errorf("%w: %d elements can't be divided by %d", errShapes, length, total)
			}
			part, err := v.narrow(o.Dim, at, n)
			if err != nil {
				return nil, err
			}
			at += n
			g.items = append(g.items, part)
		}
		out = append(out, g)
	}
	return out, nil
}

func (o Chunk) join(in []group[[]int]) ([]group[[]int], error) {
	var shape []int
	for _, g := range in {
		for _, s := range g.items {
			if err := checkDim(o.Dim, len(s)); err != nil {
				return nil, err
			}
			if shape == nil {
				shape = slices.Clone(s)
				continue
			}
			rest := slices.Clone(s)
			rest[o.Dim] = shape[o.Dim]
			if !slices.Equal(rest, shape) {
				return nil, fmt.Errorf("%w: %v and %v can't be joined along dimension %d", errShapes, shape, s, o.Dim)
			}
			shape[o.Dim] += s[o.Dim]
		}
	}
	if in == nil {
		return nil, nil
	}
	return []group[[]int]{{items: [][]int{shape}}}, nil
}

func (o Split) divide(c Config, in []group[strided], names []string, want []group[[]int]) ([]group[strided], error) {
	if want == nil {
		return nil, fmt.Errorf("%w: the parts' sizes don't add up", errShapes)
	}
	return Chunk{Dim: o.Dim}.divide(c, in, names, want)
}

func (o Split) join(in []group[[]int]) ([]group[[]int], error) { return Chunk{Dim: o.Dim}.join(in) }

func (o Transpose) divide(_ Config, in []group[strided], _ []string, want []group[[]int]) ([]group[strided], error) {
	if o.back || o.IfNeeded && want != nil { // where they fit as they are, want is known
		return in, nil
	}
	return reorder(in, func(v strided) (strided, error) {
		if err := errors.Join(checkDim(o.Dim0, len(v.dims)), checkDim(o.Dim1, len(v.dims))); err != nil {
			return v, err
		}
		v.dims = slices.Clone(v.dims)
		v.dims[o.Dim0], v.dims[o.Dim1] = v.dims[o.Dim1], v.dims[o.Dim0]
		return v, nil
	})
}

func (o Transpose) join(in []group[[]int]) ([]group[[]int], error) {
	if o.IfNeeded {
		return in, nil
	}
	return reorder(in, func(s []int) ([]int, error) {
		if err := errors.Join(checkDim(o.Dim0, len(s)), checkDim(o.Dim1, len(s))); err != nil {
			return s, err
		}
		s = slices.Clone(s)
		s[o.Dim0], s[o.Dim1] = s[o.Dim1], s[o.Dim0]
		return s, nil
	})
}

func reorder[T any](in []group[T], fn func(T) (T, error)) (out []group[T], err error) {
	for _, g := range in {
		items := slices.Clone(g.items)
		for i := range items {
			if items[i], err = fn(items[i]); err != nil {
				return nil, err
			}
		}
		out = append(out, group[T]{g.name, items})
	}
	return out, nil
}

func (o Interleave) divide(_ Config, in []group[strided], _ []string, _ []group[[]int]) ([]group[strided], error) {
	return reorder(in, func(v strided) (strided, error) {
		if err := checkDim(o.Dim, len(v.dims)); err != nil {
			return v, err
		}
		n := 2
		if o.Inverse {
			n = size(v.dims[o.Dim]) / 2
		}
		outer, inner, err := splitFactors(v.dims[o.Dim], n)
		return v.with(o.Dim, v.offset, append(slices.Clone(inner), outer...)), err
	})
}

func (o Interleave) join(in []group[[]int]) ([]group[[]int], error) { return in, nil }

func (o PermuteForRope) divide(c Config, in []group[strided], names []string, _ []group[[]int]) ([]group[strided], error) {
	key := o.Heads
	if key == "" {
		key = "num_attention_heads"
	}
	heads, ok := configInt(c, key)
	if !ok || heads < 1 {
		return nil, fmt.Errorf("config.json has no %s", key)
	}
	out := slices.Clone(in)
	for i, g := range in {
		name := g.name
		if len(in) == 1 && len(names) == 1 {
			name += names[0] // whichever side the pattern is on
		}
		if len(o.Only) > 0 && !slices.ContainsFunc(o.Only, func(part string) bool { return strings.Contains(name, part) }) {
			continue
		}
		moved, err := reorder([]group[strided]{g}, func(v strided) (strided, error) {
			if err := checkDim(0, len(v.dims)); err != nil {
				return v, err
			}
			n := size(v.dims[0])
			if n%(2*heads) != 0 {
				return v, fmt.Errorf("%w: %d elements for %d heads", errShapes, n, heads)
			}
			head, inner, err := splitFactors(v.dims[0], n/heads)
			if err != nil {
				return v, err
			}
			k := 2
			if o.Inverse {
				k = n / heads / 2
			}
			outer, inner, err := splitFactors(inner, k)
			return v.with(0, v.offset, slices.Concat(head, inner, outer)), err
		})
		if err != nil {
			return nil, err
		}
		out[i] = moved[0]
	}
	return out, nil
}

func (o PermuteForRope) join(in []group[[]int]) ([]group[[]int], error) { return in, nil }

// configInt is an integer of a config by its key in config.json; a dot leads into an object.
func configInt(c Config, key string) (int, bool) {
	head, rest, nested := strings.Cut(key, ".")
	if f, ok := configFields(c)[head]; ok && !nested {
		switch v := f.Interface().(type) {
		case int:
			return v, true
		case *int:
			if v != nil {
				return *v, true
			}
		}
		return 0, false
	}
	v, _ := c.Base().Extra(head)
	for nested {
		m, _ := v.(map[string]any)
		head, rest, nested = strings.Cut(rest, ".")
		v = m[head]
	}
	n, ok := asInt(v)
	return n, ok && n <= math.MaxInt32
}
