package pickle

import (
	"fmt"
	"slices"
	"strings"

	"github.com/torchgo/torchgo/internal/weights"
)

// wrappers are the keys under which training scripts and frameworks save a model's state dict beside other things: Lightning,
// torch's tutorials, timm and fairseq, DeepSpeed.
var wrappers = []string{"state_dict", "model_state_dict", "model", "module"}

// parallel is the prefix that DataParallel and DistributedDataParallel give to all names.
const parallel = "module."

// extraState is the last part of the name under which a module keeps what is not a tensor.
const extraState = "_extra_state"

// StateDict is the weights of a model: the tensors of the state dict, which is the object itself or lies under state_dict,
// model_state_dict, model or module, also in each other. The prefix "module." that DataParallel gives to all names is taken off.
// What there is beside the state dict (an optimizer's state, numbers) is left out. It is an error, ErrBadPickle, if the file
// doesn't say which dict it is.
//
// The file that it returns reads from f: closing one closes the other.
func (f *File) StateDict() (*weights.File, error) {
	d, err := stateDict(f.root)
	if err != nil {
		return nil, inFile(err, f.Path())
	}
	var entries []entry
	prefixed := 0
	for k, v := range d.Items() {
		t, ok := v.(*Tensor)
		if !ok {
			continue
		}
		name, ok := k.(string)
		if !ok {
			return nil, inFile(&Error{Class: ErrBadPickle, Detail: "state dict", Expected: "names of tensors that are strings", Actual: fmt.Sprintf("%s %.40q", kindOf(k), keyName(k))}, f.Path())
		}
		if strings.HasPrefix(name, parallel) {
			prefixed++
		}
		entries = append(entries, entry{name, t})
	}
	if prefixed > 0 && prefixed == len(entries) {
		for i := range entries {
			entries[i].name = strings.TrimPrefix(entries[i].name, parallel)
		}
	}
	infos, makes, err := tensorList(entries)
	if err != nil {
		return nil, inFile(err, f.Path())
	}
	return f.View(infos, makes), nil
}

// stateDict finds the state dict in an object.
func stateDict(root Value) (*Dict, error) {
	w := &weigher{seen: map[any]weight{}}
	path := ""
	for v := root; ; {
		d, ok := v.(*Dict)
		if !ok {
			return nil, &Error{Class: ErrBadPickle, Expected: "a state dict", Actual: kindOf(v) + at(path)}
		}
		tensors, inner := d.contents(w)
		var found []string
		for _, name := range wrappers {
			if next, _ := d.Get(name); isDict(next) && slices.Contains(inner, name) {
				found = append(found, name)
			}
		}
		switch {
		case len(found) > 1:
			return nil, &Error{Class: ErrBadPickle, Expected: "one state dict", Actual: strings.Join(found, " and ") + at(path)}
		case len(found) == 1:
		case tensors > 0 && len(inner) > 0:
			return nil, &Error{Class: ErrBadPickle, Expected: "a state dict", Actual: fmt.Sprintf("tensors%s beside %.100q, which has some too", at(path), inner[0])}
		case tensors > 0, d.Len() == 0:
			return d, nil
		default:
			return nil, &Error{Class: ErrBadPickle, Expected: "a state dict, or one under " + strings.Join(wrappers, ", "), Actual: keys(d) + at(path),
				Remedy: "save the model's state_dict() alone"}
		}
		v, _ = d.Get(found[0])
		path = join(path, found[0])
	}
}

func at(path string) string {
	if path == "" {
		return ""
	}
	return fmt.Sprintf(" under %.100q", path)
}

func isDict(v Value) bool {
	_, ok := v.(*Dict)
	return ok
}

// contents counts a dict's tensors, and names the other entries that have tensors in them. Those of modules' extra state don't count.
func (d *Dict) contents(w *weigher) (tensors int, inner []string) {
	for k, v := range d.Items() {
		name := keyName(k)
		if _, ok := v.(*Tensor); ok {
			tensors++
		} else if sum, err := w.weigh(v, 0); (err != nil || sum.tensors > 0) && name != extraState && !strings.HasSuffix(name, "."+extraState) {
			inner = append(inner, name)
		}
	}
	return tensors, inner
}

// keys lists the first keys of a dict.
func keys(d *Dict) string {
	var names []string
	for k := range d.Items() {
		if len(names) == 5 {
			names = append(names, "…")
			break
		}
		names = append(names, fmt.Sprintf("%.40q", keyName(k)))
	}
	return "keys " + strings.Join(names, ", ")
}
