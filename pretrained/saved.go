package pretrained

import (
	"cmp"
	"fmt"
	"io"
	"iter"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/torchgo/torchgo/pretrained/safetensors"
	"github.com/torchgo/torchgo/torch"
	"github.com/torchgo/torchgo/torch/nn"
)

// entry is a tensor of the state dict that is to be saved.
type entry struct {
	name   string
	tensor *torch.Tensor
}

// savedTensors are what is written of m, in the order that shards are filled in, and what tells which of them are one tensor.
// A file of safetensors has none twice.
func savedTensors(m Model, opts SaveOptions) (out []safetensors.Source, same []any, err error) {
	p := m.base()
	safe := opts.SafeSerialization.Or(true)
	entries, err := p.savedEntries(opts.StateDict)
	if err != nil {
		return nil, nil, err
	}
	if safe {
		if entries, err = withoutTies(entries, p.classTies()); err != nil {
			return nil, nil, err
		}
	}
	var originals []original
	if opts.SaveOriginalFormat.Or(true) {
		if originals, err = p.originals(entries, p.file, safe); err != nil {
			return nil, nil, err
		}
	} else {
		for _, e := range entries {
			shape := e.tensor.Shape()
			originals = append(originals, newOriginal(e.name, shape, piece{e.tensor, whole(shape).copyInto()}))
		}
	}
	for _, o := range originals {
		d, ok := codeOf(o.dtype)
		if d == 0 || safe && !ok {
			return nil, nil, &Error{Tensor: o.name, Class: ErrBadDType, Expected: "a dtype of the safetensors format", Actual: o.dtype.String()}
		}
		if err := p.hasData(o); err != nil {
			return nil, nil, err
		}
		out = append(out, safetensors.Source{Name: o.name, DType: d, Shape: o.shape,
			Write: func(w io.Writer) error { return write(w, func() (*torch.Tensor, error) { return p.made(o) }) }})
		same = append(same, o.identity())
	}
	return out, same, nil
}

// hasData is an error for a tensor of the meta device, unless it stands for an offloaded one.
func (p *PreTrainedModel) hasData(o original) error {
	for _, piece := range o.pieces {
		if piece.tensor.Device() == torch.Meta && p.away(piece.tensor) == nil {
			return &Error{Tensor: o.name, Class: ErrMissingTensor, Detail: "it has no data (device meta)"}
		}
	}
	return nil
}

// savedEntries are the entries of a state dict, the model's own if there is no other, that are written. What
// is offloaded is its placeholder, whether or not it is on its device just now.
func (p *PreTrainedModel) savedEntries(state iter.Seq2[string, *torch.Tensor]) (entries []entry, err error) {
	if state == nil {
		defer p.lock()()
		state = func(yield func(string, *torch.Tensor) bool) {
			own := nn.StateDict(p.self)
			if p.Adapters != nil {
				own = p.Adapters.ModelState()
			}
			for name, t := range own {
				if w := p.offloaded(t); w != nil {
					t = w.placeholder
				}
				if !yield(name, t) {
					return
				}
			}
		}
	}
	for name, t := range state {
		if t == nil {
			return nil, &Error{Tensor: name, Class: ErrMissingTensor, Detail: "nil"}
		}
		if !slices.Contains(p.class.IgnoreOnSave, name) {
			entries = append(entries, entry{name, t})
		}
	}
	return entries, nil
}

// made is an original, of weights that are read now if they are offloaded. The caller is in a scope.
func (p *PreTrainedModel) made(o original) (*torch.Tensor, error) {
	pieces := slices.Clone(o.pieces)
	for i := range pieces {
		if w := p.away(pieces[i].tensor); w != nil {
			var err error
			if pieces[i].tensor, err = w.source.now(); err != nil {
				return nil, err
			}
			defer pieces[i].tensor.Close()
		}
	}
	o.pieces = pieces
	return o.tensor(), nil
}

// withoutTies drops the targets of ties from those entries that share their memory, as a safetensors file
// holds each tensor for itself. Views of one storage that don't overlap become tensors of their own; that
// others share memory is an error, since a reader would not know that they do.
func withoutTies(entries []entry, ties map[string]string) ([]entry, error) {
	storages := map[any][]memory{} // a placeholder is one of its own
	for _, e := range entries {
		if e.tensor.Device() == torch.Meta {
			storages[e.tensor] = append(storages[e.tensor], memory{e.name, 0, 1})
		} else if id := e.tensor.StorageID(); id != 0 {
			storages[id] = append(storages[id], memoryOf(e))
		}
	}
	drop := map[string]bool{}
	var wrong []string
	for _, shared := range storages {
		slices.SortFunc(shared, func(a, b memory) int {
			return cmp.Or(cmp.Compare(a.start, b.start), cmp.Compare(a.end, b.end), strings.Compare(a.name, b.name))
		})
		for len(shared) > 0 {
			n, end := 1, shared[0].end
			for n < len(shared) && shared[n].start < end {
				end = max(end, shared[n].end)
				n++
			}
			if names := unresolved(shared[:n], ties, drop); len(names) > 1 {
				slices.Sort(names)
				wrong = append(wrong, strings.Join(names, ", "))
			}
			shared = shared[n:]
		}
	}
	if len(wrong) > 0 {
		slices.Sort(wrong)
		return nil, &Error{Class: ErrConflict, Detail: fmt.Sprintf("shared tensors [%s] are not declared as tied; those that may be are: %s",
			strings.Join(wrong, "], ["), strings.Join(slices.Sorted(maps.Keys(ties)), ", "))}
	}
	return slices.DeleteFunc(entries, func(e entry) bool { return drop[e.name] }), nil
}

// unresolved decides about tensors that overlap: targets of ties that are the very tensor of another one
// are dropped. It gives the names that are left.
func unresolved(overlap []memory, ties map[string]string, drop map[string]bool) (names []string) {
	same := true
	for _, m := range overlap {
		same = same && m.start == overlap[0].start && m.end == overlap[0].end
	}
	var targets int
	for _, m := range overlap { // sorted by name where they are the same
		_, target := ties[m.name]
		if target && same && targets+1 < len(overlap) {
			targets++
			drop[m.name] = true
			continue
		}
		names = append(names, m.name)
	}
	return names
}

// memory is where a tensor lies.
type memory struct {
	name       string
	start, end uintptr
}

func memoryOf(e entry) memory {
	t := e.tensor
	m := memory{name: e.name, start: uintptr(t.DataPtr())}
	m.end = m.start
	if t.Numel() > 0 {
		last := 1
		for i, stride := range t.Stride() {
			last += (t.Size(i) - 1) * stride
		}
		m.end += uintptr(last * t.DType().ItemSize())
	}
	return m
}

// write writes the elements of the tensor that make gives in order.
func write(w io.Writer, make func() (*torch.Tensor, error)) (err error) {
	tryErr := torch.TryDo(func() {
		torch.Scope(func() {
			torch.NoGrad(func() {
				var t *torch.Tensor
				if t, err = make(); err == nil {
					_, err = w.Write(t.To(torch.CPU).Contiguous().Bytes())
				}
			})
		})
	})
	if err == nil && tryErr != nil {
		err = tryErr
	}
	return err
}

// reportWrites has the writing of each tensor reported.
func reportWrites(tensors []safetensors.Source, report func(done, total int64)) {
	var done, total int64
	for i := range tensors {
		size := int64(dtypeOf(tensors[i].DType).ItemSize())
		for _, n := range tensors[i].Shape {
			size *= int64(n)
		}
		total += size
		inner := tensors[i].Write
		tensors[i].Write = func(w io.Writer) error {
			err := inner(w)
			if err == nil {
				done += size
				report(done, total)
			}
			return err
		}
	}
}

// compareNatural orders names part by part, numbers before words, and numbers at the end of a word as
// numbers: the order in which transformers goes over the tensors of a checkpoint.
func compareNatural(a, b string) int {
	for {
		pa, restA, moreA := strings.Cut(a, ".")
		pb, restB, moreB := strings.Cut(b, ".")
		if c := compareParts(pa, pb); c != 0 {
			return c
		}
		switch {
		case moreA && moreB:
			a, b = restA, restB
		case moreA:
			return 1
		case moreB:
			return -1
		default:
			return 0
		}
	}
}

func compareParts(a, b string) int {
	wordA, numberA := cutNumber(a)
	wordB, numberB := cutNumber(b)
	return cmp.Or(strings.Compare(wordA, wordB), cmp.Compare(numberA, numberB))
}

// cutNumber cuts the digits off the end of a part of a name; without any the number is -1.
func cutNumber(part string) (word string, number int) {
	word = strings.TrimRight(part, "0123456789")
	n, err := strconv.Atoi(part[len(word):])
	if err != nil {
		return part, -1
	}
	return word, n
}

// partlyAway reports whether the model has several devices, of which the CPU or the disk is one.
func (p *PreTrainedModel) partlyAway() bool {
	for _, where := range p.HFDeviceMap() {
		if where == "cpu" || where == "disk" {
			return true
		}
	}
	return false
}
