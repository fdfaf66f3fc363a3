// Package placement decides which parts of a model go to which device: a pure function of the sizes of its
// modules and of a budget for each device, which needs no device at all.
//
// The rules are those of transformers 5.23 (infer_auto_device_map and get_balanced_memory of
// integrations/accelerate.py, after accelerate): modules in their order, each on the first device that still has
// room, and parts of a module that doesn't fit on their own. Room for the largest layer is kept free on the
// first GPU and on the CPU, so that what is offloaded can be brought in.
package placement

import (
	"cmp"
	"slices"
	"strings"
)

// Tensor is a parameter or buffer.
type Tensor struct {
	Name  string // within its module
	Bytes int64
}

// Module is a node of a model's tree.
type Module struct {
	Name       string   // within its parent; "" for the root
	NoSplit    bool     // all of it has to be on one device (_no_split_modules)
	Parameters []Tensor // its own
	Buffers    []Tensor // its own
	Children   []*Module
}

// Budget is the memory that a device may give.
type Budget struct {
	Device string // a GPU's name, "cpu" or "disk"; the disk has no limit
	Bytes  int64
}

// The devices that are no GPUs.
const (
	CPU  = "cpu"
	Disk = "disk"
)

// Map places the modules of a tree, and parameters of modules that had to be split, on the devices of the budgets,
// which are filled in their order; what fits nowhere goes to the disk. ties maps the names of tied parameters to
// those whose memory they share: they count once and are placed together. Modules all of whose parts are on one
// device are one entry; "" is the whole model. (infer_auto_device_map.)
func Map(root *Module, ties map[string]string, budgets []Budget) map[string]string {
	p := &planner{sizes: sizesOf(root, ties, true), budgets: slices.Clone(budgets), ties: groups(ties), placed: map[string]string{}}
	if len(p.budgets) == 0 || p.budgets[len(p.budgets)-1].Device != Disk {
		p.budgets = append(slices.DeleteFunc(p.budgets, func(b Budget) bool { return b.Device == Disk }), Budget{Device: Disk})
	}
	p.run(root)
	clean(p.placed, "")
	return p.placed
}

// item is a module that is still to be placed, or a single tensor.
type item struct {
	name   string
	module *Module // nil for a tensor
}

func (i item) splits() bool {
	return i.module != nil && len(i.module.Children) > 0 && !i.module.NoSplit
}

// parts are what a module is split into. Its own buffers go with whatever is first.
func (i item) parts() []item {
	var parts []item
	for _, t := range i.module.Parameters {
		parts = append(parts, item{name: join(i.name, t.Name)})
	}
	for _, c := range i.module.Children {
		parts = append(parts, item{join(i.name, c.Name), c})
	}
	return parts
}

func join(path, name string) string {
	if path == "" {
		return name
	}
	return path + "." + name
}

type planner struct {
	sizes   map[string]int64 // of modules and tensors, by name
	budgets []Budget
	ties    [][]string // groups of names
	queue   []item
	placed  map[string]string

	largest int64    // of the layers still to be placed
	layers  []string // those of that size
}

// run is the greedy filling.
func (p *planner) run(root *Module) {
	for _, t := range root.Parameters {
		p.queue = append(p.queue, item{name: t.Name})
	}
	for _, c := range root.Children {
		p.queue = append(p.queue, item{c.Name, c})
	}
	for _, t := range root.Buffers {
		p.queue = append(p.queue, item{name: t.Name})
	}
	main := CPU // it keeps room for a layer, and so does the CPU
	if len(p.budgets) > 0 && p.budgets[0].Device != CPU && p.budgets[0].Device != Disk {
		main = p.budgets[0].Device
	}
	p.measure(true)
	device, used := 0, int64(0)
	for len(p.queue) > 0 {
		at := p.queue[0]
		p.queue = p.queue[1:]
		p.layers = slices.DeleteFunc(p.layers, func(n string) bool { return n == at.name || strings.HasPrefix(n, at.name+".") })
		if len(p.layers) == 0 {
			p.measure(false)
		}
		b := p.budgets[device]
		room := b.Bytes - used
		if b.Device == main || b.Device == CPU {
			room -= p.largest
		}
		size := p.sizes[at.name]
		tied := p.tiedWith(at.name)
		all := size
		for _, i := range tied {
			all += p.sizes[p.queue[i].name]
		}
		switch {
		case b.Device == Disk || all <= room:
			used += all
			p.placed[at.name] = b.Device
			slices.Sort(tied)
			for _, i := range slices.Backward(tied) {
				p.placed[p.queue[i].name] = b.Device
				p.queue = slices.Delete(p.queue, i, i+1)
			}
		case size <= room && p.splitTied(at, tied):
		case at.splits():
			p.queue = slices.Concat(at.parts(), p.queue)
			p.measure(false)
		default:
			p.queue = slices.Insert(p.queue, 0, at)
			device, used = device+1, 0
		}
	}
}

// splitTied splits the first of the modules tied to one that would fit alone.
func (p *planner) splitTied(at item, tied []int) bool {
	for _, i := range tied {
		if p.queue[i].splits() {
			p.queue = slices.Concat([]item{at}, p.queue[:i], p.queue[i].parts(), p.queue[i+1:])
			p.measure(false)
			return true
		}
	}
	return false
}

// tiedWith finds the items of the queue that hold parameters tied to some in the named one, in the order of those
// parameters' names: that decides which item is split.
func (p *planner) tiedWith(name string) (tied []int) {
	// As in transformers the name may be in the midst of another one.
	inside := func(key string) bool { return strings.Contains(key+".", name+".") }
	for _, group := range p.ties {
		if !slices.ContainsFunc(group, inside) {
			continue
		}
		for _, key := range group {
			if inside(key) {
				continue
			}
			i := slices.IndexFunc(p.queue, func(i item) bool { return strings.HasPrefix(key, i.name+".") })
			if i >= 0 && !slices.Contains(tied, i) {
				tied = append(tied, i)
			}
		}
	}
	return tied
}

// measure finds the largest layers of the queue: modules that are not split, and with tensors, tensors.
func (p *planner) measure(tensors bool) {
	p.largest, p.layers = 0, nil
	var visit func(i item)
	visit = func(i item) {
		if i.splits() {
			for _, c := range i.module.Children {
				visit(item{join(i.name, c.Name), c})
			}
			return
		}
		switch size := p.sizes[i.name]; {
		case size > p.largest:
			p.largest, p.layers = size, []string{i.name}
		case size == p.largest:
			p.layers = append(p.layers, i.name)
		}
	}
	for _, i := range p.queue {
		if i.module != nil || tensors {
			visit(i)
		}
	}
}

// groups lists the names that share memory.
func groups(ties map[string]string) [][]string {
	by := map[string][]string{}
	for target, source := range ties {
		by[source] = append(by[source], target)
	}
	var all [][]string
	for source, group := range by {
		group = append(group, source)
		slices.Sort(group)
		all = append(all, group)
	}
	slices.SortFunc(all, func(a, b []string) int { return cmp.Compare(a[0], b[0]) })
	return all
}

// sizesOf sums up the bytes below each module; a tied parameter counts at its source. tensors adds those of each
// tensor.
func sizesOf(root *Module, ties map[string]string, tensors bool) map[string]int64 {
	sizes := map[string]int64{}
	var visit func(path string, m *Module) int64
	visit = func(path string, m *Module) (sum int64) {
		for _, t := range slices.Concat(m.Parameters, m.Buffers) {
			name := join(path, t.Name)
			if _, tied := ties[name]; tied {
				continue
			}
			sum += t.Bytes
			if tensors {
				sizes[name] = t.Bytes
			}
		}
		for _, c := range m.Children {
			sum += visit(join(path, c.Name), c)
		}
		sizes[path] = sum
		return sum
	}
	visit("", root)
	return sizes
}

// clean makes one entry of those below a name that have one device.
func clean(placed map[string]string, name string) {
	prefix := ""
	if name != "" {
		prefix = name + "."
	}
	var below []string
	same := true
	for k := range placed {
		if strings.HasPrefix(k, prefix) && k != name {
			below = append(below, k)
			same = same && placed[k] == placed[below[0]]
		}
	}
	if len(below) == 0 {
		return
	}
	if same && len(below) > 1 {
		device := placed[below[0]]
		for _, k := range below {
			delete(placed, k)
		}
		placed[name] = device
		return
	}
	done := map[string]bool{}
	for _, k := range below {
		child, _, _ := strings.Cut(k[len(prefix):], ".")
		if child = prefix + child; !done[child] {
			done[child] = true
			clean(placed, child)
		}
	}
}
