package pretrained

import (
	"maps"
	"slices"
	"sync"

	"github.com/torchgo/torchgo/pretrained/checkpoint"
	"github.com/torchgo/torchgo/pretrained/safetensors"
	"github.com/torchgo/torchgo/torch"
	"github.com/torchgo/torchgo/torch/nn"
)

// dispatch runs a model whose parts lie on several devices, or on disk. Its modules compute where their weights
// are, or are brought to: each moves its inputs there.
type dispatch struct {
	root  *PreTrainedModel
	main  torch.Device
	where map[string]string // hf_device_map

	modules map[any]*module // by block or layer
	rest    *module         // brings in the weights that no module does

	mu      sync.Mutex // guards the slots of offloaded weights, and what is in those
	weights []*offloaded
	away    map[*torch.Tensor]*offloaded // by what stands in the slots meanwhile
	passes  int                          // that are running
	reads   sync.WaitGroup
	closed  bool

	checkpoint *checkpoint.Checkpoint // that weights are read from; nil: none
	folder     []*safetensors.File    // and those of the offload folder
}

// module is a block or layer with its place.
type module struct {
	d       *dispatch
	name    string
	device  torch.Device
	weights []*offloaded
	next    *module // that has offloaded weights, in the model's order; nil: none
}

// dispatch takes the model apart as it was placed, unless it lies whole on one device.
func (l *loader) dispatch() {
	same := true
	for _, p := range l.places {
		same = same && p == place{device: l.device}
	}
	if same {
		return
	}
	p := l.model.base()
	d := &dispatch{root: p, main: l.device, where: l.plan.DeviceMap, modules: map[any]*module{}, away: map[*torch.Tensor]*offloaded{}}
	l.offload(d)
	d.divide(l.places)
	if len(l.onDisk) > 0 {
		d.checkpoint, l.checkpoint = l.checkpoint, nil
	}
	d.folder, l.spilled = l.spilled, nil
	for inner := range models(l.model) {
		inner.dispatch = d
	}
}

// divide makes the modules of the model's units.
func (d *dispatch) divide(places map[string]place) {
	d.rest = &module{d: d, device: d.main}
	byWeight := map[*torch.Tensor]*offloaded{}
	for _, w := range d.weights {
		byWeight[w.placeholder] = w
	}
	covered := map[*offloaded]bool{}
	var order []*module
	for _, part := range unitsOf(d.root, func(name string) torch.Device { return d.device(places[name]) }) {
		u := &module{d: d, name: part.name, device: d.device(places[part.slots[0].Name])}
		d.modules[part.module] = u
		order = append(order, u)
		if !part.block {
			nn.WrapForward(part.module, func(_ any, in []*torch.Tensor) ([]*torch.Tensor, func([]*torch.Tensor) []*torch.Tensor) {
				return u.around(in)
			})
		}
		for _, s := range part.slots {
			if w := byWeight[s.Tensor()]; w != nil && !slices.Contains(u.weights, w) {
				u.weights = append(u.weights, w)
				covered[w] = true
			}
		}
	}
	for _, w := range d.weights {
		if !covered[w] {
			d.rest.weights = append(d.rest.weights, w)
		}
	}
	var next *module
	for _, u := range slices.Backward(order) {
		u.next = next
		if len(u.weights) > 0 {
			next = u
		}
	}
}

// unit is a part of a model that runs in one place.
type unit struct {
	name   string
	module any
	block  bool // it runs through Block; else it is a layer that can be wrapped
	slots  []nn.Slot
}

// unitsOf finds the units of a model, in its order: blocks that lie in one place, and the layers outside them.
// device tells where the module of a tensor computes.
func unitsOf(p *PreTrainedModel, device func(name string) torch.Device) (units []*unit) {
	layers := layersOf(p.self)
	owner := map[string]any{} // of tensors
	names := map[any]string{}
	for path, m := range nn.NamedModules(p.self) {
		names[m] = path
		if !p.arch.isLayer(m) && !typeIn(p.arch.NoSplit, m) {
			continue
		}
		var all []string
		split := false
		for _, s := range nn.Slots(m) {
			name := path + "." + s.Name
			all = append(all, name)
			split = split || device(name) != device(all[0])
		}
		for _, name := range all {
			if !split {
				owner[name] = m
			}
		}
	}
	byModule := map[any]*unit{}
	for _, s := range nn.Slots(p.self) {
		m := owner[s.Name]
		block := m != nil
		if !block {
			m = layers[s.Name]
		}
		if m == nil {
			continue
		}
		u := byModule[m]
		if u == nil {
			u = &unit{name: names[m], module: m, block: block}
			byModule[m] = u
			units = append(units, u)
		}
		u.slots = append(u.slots, s)
	}
	return units
}

// device is where a module computes whose weights have a place: beside GPUs, none does on the CPU.
func (d *dispatch) device(p place) torch.Device {
	if p.device == torch.CPU {
		return d.main
	}
	return p.device
}

// module is that of a block; nil: it is not dispatched.
func (d *dispatch) module(block any) *module {
	if d == nil {
		return nil
	}
	return d.modules[block]
}

// offloaded reports whether weights are brought in for it.
func (u *module) offloaded() bool { return u != nil && len(u.weights) > 0 }

// around prepares a module's forward pass: the inputs and the weights come to its place. The caller is in a scope, and
// calls leave afterwards, with nil after a panic.
func (u *module) around(given []*torch.Tensor) (in []*torch.Tensor, leave func(out []*torch.Tensor) []*torch.Tensor) {
	if len(u.weights) == 0 {
		in = moved(given, u.device)
		return in, func(out []*torch.Tensor) []*torch.Tensor {
			devices.ran(u, given, in, out)
			return out
		}
	}
	u.enter()
	completed := false
	defer func() {
		if !completed {
			u.leave()
		}
	}()
	in = moved(detached(given), u.device)
	completed = true
	return in, func(out []*torch.Tensor) []*torch.Tensor {
		defer u.leave()
		if out != nil {
			out = u.untrained(given, out)
			devices.ran(u, given, in, out)
		}
		return out
	}
}

// run runs a module's forward pass in its place. The caller is in a scope.
func (u *module) run(in []*torch.Tensor, forward func([]*torch.Tensor) []*torch.Tensor) (out []*torch.Tensor) {
	in, leave := u.around(in)
	completed := false
	defer func() {
		if !completed {
			leave(nil)
		}
	}()
	out = forward(in)
	completed = true
	return leave(out)
}

// Dispatch is what the Forward of a model class does its work through: of a model on several devices, the inputs are
// moved to the main one, and what comes out to where the inputs were.
func (p *PreTrainedModel) Dispatch(in Inputs, forward func(Inputs) *Output) *Output {
	d := p.dispatch
	if d == nil || d.root != p {
		return forward(in)
	}
	home := d.main
	for _, f := range in.fields() {
		if t := *f; t != nil {
			home = devices.of(t)
			break
		}
	}
	for _, f := range in.fields() {
		*f = moved([]*torch.Tensor{*f}, d.main)[0]
	}
	d.begin()
	defer d.end()
	var out *Output
	if len(d.rest.weights) == 0 {
		out = forward(in)
	} else {
		out = torch.ScopeOf(func() *Output {
			d.rest.enter()
			defer d.rest.leave()
			return forward(in)
		})
	}
	for _, f := range out.fields() {
		*f = moved([]*torch.Tensor{*f}, home)[0]
	}
	return out
}

// HFDeviceMap is where the parts of the model lie, by module name (hf_device_map); nil: all on one device.
func (p *PreTrainedModel) HFDeviceMap() map[string]string {
	if p.dispatch == nil {
		return nil
	}
	return maps.Clone(p.dispatch.where)
}

// InputDevice is where inputs are needed first: the device of the model, or of one whose parts are placed, the main one.
func (p *PreTrainedModel) InputDevice() torch.Device {
	if p.dispatch == nil {
		return p.Device()
	}
	return p.dispatch.main
}

// lock keeps offloaded weights from coming and going while all weights are looked at.
func (p *PreTrainedModel) lock() (unlock func()) {
	if p.dispatch == nil {
		return func() {}
	}
	p.dispatch.mu.Lock()
	return p.dispatch.mu.Unlock
}
