package pretrained

import (
	"cmp"
	"fmt"
	"maps"
	"os"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"github.com/torchgo/torchgo/torch"
	"github.com/torchgo/torchgo/torch/nn"
)

// place is where a weight lies: in the memory of a device, or on disk until it is needed.
type place struct {
	device torch.Device // torch.CPU for disk
	disk   bool
}

func (p place) String() string {
	if p.disk {
		return "disk"
	}
	return p.device.String()
}

// parsePlace reads an entry of a device map: "cpu", "cuda:1", "1", "disk"; "cuda" is the GPU of LOCAL_RANK.
func parsePlace(name string) (place, error) {
	if name == "disk" {
		return place{torch.CPU, true}, nil
	}
	if n, err := strconv.Atoi(name); err == nil {
		name = fmt.Sprintf("cuda:%d", n)
	}
	if rank := os.Getenv("LOCAL_RANK"); name == "cuda" && rank != "" {
		name = "cuda:" + rank
	}
	device, err := torch.ParseDevice(name)
	return place{device: device}, err
}

// badMap is an error about the device map, or about an entry of it.
func badMap(entry string, e Error) error {
	e.Detail = "device map"
	if entry != "" {
		e.Detail += ": " + shorten(entry)
	}
	if e.Class == nil {
		e.Class = ErrArgument
	}
	return &e
}

// carryOut gives every tensor of the model its place by a map from names of modules or parameters to places. Of
// the entries that a name begins with, part by part, the longest counts.
func (l *loader) carryOut(m DeviceMap) error {
	entries, err := l.entries(m)
	if err != nil {
		return err
	}
	l.places = map[string]place{}
	l.device = torch.CPU
	var unplaced []string
	slots := nn.Slots(l.model)
	for _, s := range slots {
		p, ok := longest(entries, s.Name)
		switch {
		case ok:
			l.places[s.Name] = p
		case s.Kind == nn.Parameter:
			return badMap("no entry for the parameter "+s.Name, Error{Remedy: `add one for it, or "" for all that the others leave out`})
		default:
			unplaced = append(unplaced, s.Name)
		}
		if l.device == torch.CPU && p.device.Type == torch.DeviceCUDA {
			l.device = p.device
		}
	}
	for _, name := range unplaced {
		l.places[name] = place{device: l.device}
	}
	if err := l.checkNoSplit(); err != nil {
		return err
	}
	l.placeTies(slots)
	for _, s := range slots {
		switch p := l.places[s.Name]; {
		case s.Kind == nn.Parameter || !l.offloads(p):
		case !l.opts.OffloadBuffers:
			l.places[s.Name] = place{device: l.device}
		case s.Kind == nn.Transient: // no file has it
			l.places[s.Name] = place{device: torch.CPU}
		}
	}
	l.plan.DeviceMap = map[string]string{}
	same := map[place]bool{}
	for _, p := range l.places {
		same[p] = true
	}
	for name, p := range entries {
		l.plan.DeviceMap[name] = p.String()
	}
	if len(same) == 1 {
		for p := range same {
			l.plan.DeviceMap = map[string]string{"": p.String()}
		}
	}
	return nil
}

// checkPlace reads an entry of a map that weights can go to on some machine.
func checkPlace(entry, name string) (place, error) {
	p, err := parsePlace(name)
	if err != nil {
		return p, badMap(entry, Error{Expected: "a device name (cpu, cuda:0), disk, or one of " + strings.Join(strategies, ", "), Actual: fmt.Sprintf("%q", shorten(name))})
	}
	if p.device == torch.Meta {
		return p, badMap(entry, Error{Actual: "meta", Remedy: "weights have no place there; a plan shows what a load would do"})
	}
	return p, nil
}

// check tells what is wrong with a map by itself, whatever the model and the machine.
func (m DeviceMap) check() error {
	if len(m) == 1 && slices.Contains(strategies, m[""]) {
		return nil
	}
	for _, entry := range slices.Sorted(maps.Keys(m)) {
		if _, err := checkPlace(entry, m[entry]); err != nil {
			return err
		}
	}
	return nil
}

// entries reads a map.
func (l *loader) entries(m DeviceMap) (map[string]place, error) {
	entries := map[string]place{}
	for _, name := range slices.Sorted(maps.Keys(m)) {
		p, err := checkPlace(name, m[name])
		switch {
		case err != nil:
			return nil, err
		case p.device.Type == torch.DeviceCUDA && p.device.Index >= devices.count() && !l.imagined(p.device):
			return nil, badMap(p.String(), Error{Expected: fmt.Sprintf("one of the %d GPUs that libtorch sees", devices.count())})
		}
		entries[name] = p
	}
	return entries, nil
}

func longest(entries map[string]place, name string) (place, bool) {
	for prefix := name; ; {
		if p, ok := entries[prefix]; ok || prefix == "" {
			return p, ok
		}
		prefix = prefix[:max(strings.LastIndexByte(prefix, '.'), 0)]
	}
}

// checkNoSplit refuses a map that divides a module which computes with its parts together.
func (l *loader) checkNoSplit() error {
	for path, module := range nn.NamedModules(l.model) {
		if !typeIn(l.arch.NoSplit, module) {
			continue
		}
		var first nn.Slot
		for _, s := range nn.Slots(module) {
			if s.Kind == nn.Transient {
				continue
			}
			if first.Name == "" {
				first = s
				continue
			}
			if a, b := l.places[path+"."+first.Name], l.places[path+"."+s.Name]; a != b {
				return badMap("the parts of "+path+" must stay together", Error{Expected: fmt.Sprintf("%s on %s, as %s", s.Name, a, first.Name), Actual: b.String(),
					Remedy: "give the whole of " + path + " one place"})
			}
		}
	}
	return nil
}

func typeIn(types []any, module any) bool {
	return slices.ContainsFunc(types, func(t any) bool { return reflect.TypeOf(t) == reflect.TypeOf(module) })
}

// placeTies puts layers that share a tensor where the tensor lies: a layer runs in one place, and a copy of the
// tensor would go its own way in training.
func (l *loader) placeTies(slots []nn.Slot) {
	ties := wantedTies(l.model)
	if len(ties) == 0 {
		return
	}
	layer := layersOf(l.model)
	groups := map[string]string{} // union-find over names
	var root func(name string) string
	root = func(name string) string {
		if up, ok := groups[name]; ok {
			return root(up)
		}
		return name
	}
	union := func(a, b string) {
		if a, b = root(a), root(b); a != b {
			groups[a] = b
		}
	}
	for target, source := range ties {
		union(target, source)
		for _, s := range slots {
			if owner := layer[target]; owner != nil && layer[s.Name] == owner {
				union(target, s.Name)
			}
		}
	}
	largest := map[string]nn.Slot{} // source of a tie, by root
	for _, source := range slices.SortedFunc(maps.Values(ties), cmp.Compare) {
		r := root(source)
		s := l.slots[source]
		if old, ok := largest[r]; s.Name != "" && (!ok || s.Tensor().Numel() > old.Tensor().Numel()) {
			largest[r] = s
		}
	}
	for _, s := range slots {
		if source, ok := largest[root(s.Name)]; ok {
			l.places[s.Name] = l.places[source.Name]
		}
	}
}

// layersOf gives for the name of each tensor the innermost module around it whose forward pass can be wrapped.
func layersOf(m any) map[string]any {
	modules := map[string]any{}
	for path, module := range nn.NamedModules(m) {
		modules[path] = module
	}
	layers := map[string]any{}
	for _, s := range nn.Slots(m) {
		for path := s.Name; path != ""; {
			path = path[:max(strings.LastIndexByte(path, '.'), 0)]
			if module := modules[path]; module != nil && nn.Wrappable(module) {
				layers[s.Name] = module
				break
			}
		}
	}
	return layers
}
