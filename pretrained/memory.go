package pretrained

import (
	"maps"

	"github.com/torchgo/torchgo/torch"
	"github.com/torchgo/torchgo/torch/nn"
)

// count sums up memory.
func (l *loader) count() {
	p := l.plan
	p.BytesPerDevice = map[string]int64{}
	for i := range p.Weights {
		w := &p.Weights[i]
		w.Device = l.places[w.Key].String()
		if _, tied := p.TiedKeys[w.Key]; !tied {
			p.MemoryFootprint += w.Bytes
			p.BytesPerDevice[l.places[w.Key].String()] += w.Bytes
			if w.slot.Kind == nn.Parameter {
				p.NumParameters += w.Bytes / int64(w.slot.Tensor().DType().ItemSize())
			}
		}
		readers := int64(l.workers())
		switch at := l.places[w.Key]; {
		case at.disk && w.inPlace():
		case at != place{device: torch.CPU}: // whole in CPU memory on its way to a GPU or the offload folder
			p.BytesStaging = max(p.BytesStaging, readers*w.Bytes)
		case w.Action == MapAction:
			p.BytesMapped += w.Bytes
		default:
			if w.Action == CastAction {
				p.BytesStaging = max(p.BytesStaging, readers*min(stagingBytes, w.FileBytes()))
			}
			p.BytesAllocated += w.Bytes
		}
	}
	for _, s := range l.slots {
		if s.Kind == nn.Transient {
			n := int64(s.Tensor().Numel()) * int64(s.Tensor().DType().ItemSize())
			p.MemoryFootprint += n
			p.BytesPerDevice[l.places[s.Name].String()] += n
			if l.places[s.Name].device == torch.CPU {
				p.BytesAllocated += n
			}
		}
	}
	p.PeakBytes = p.BytesMapped + p.BytesAllocated + p.BytesStaging
	l.countVisits()
}

// stay is the memory, in bytes, that the offloaded weights of a unit take while it runs.
type stay struct {
	device int64 // on the main device
	read   int64 // as they are read from disk, in CPU memory
	twice  int64 // the largest that is there in both forms while it is converted
}

// countVisits plans the memory of one pass of an offloaded model, at most: on the main device, what a layer needs is
// added to what lies there; in CPU memory, what is read from disk for that layer and for the next.
func (l *loader) countVisits() {
	p := l.plan
	p.PeakPerDevice = maps.Clone(p.BytesPerDevice)
	delete(p.PeakPerDevice, "disk")
	main, cpu := l.device.String(), torch.CPU.String()
	planned := map[string]*PlannedWeight{}
	for i := range p.Weights {
		planned[p.Weights[i].Key] = &p.Weights[i]
	}
	free := map[string]bool{} // offloaded, and in no unit yet
	for name := range l.slots {
		if l.offloads(l.places[name]) {
			free[l.storedAs(name)] = true
		}
	}
	stayOf := func(names []string) (s stay) {
		seen := map[string]bool{}
		for _, name := range names {
			name = l.storedAs(name)
			at, t := l.places[name], l.slots[name].Tensor()
			if seen[name] || !l.offloads(at) {
				continue
			}
			seen[name] = true
			delete(free, name)
			bytes := int64(t.Numel()) * int64(t.DType().ItemSize())
			s.device += bytes
			if !at.disk {
				continue
			}
			read := bytes
			if w := planned[name]; w != nil && w.inPlace() {
				read = w.FileBytes()
			}
			s.read += read
			if read != bytes {
				s.twice = max(s.twice, min(read, bytes))
			}
		}
		return s
	}
	var stays []stay
	computes := func(name string) torch.Device {
		if at := l.places[name]; at.device != torch.CPU {
			return at.device
		}
		return l.device
	}
	for _, u := range unitsOf(l.model.base(), computes) {
		var names []string
		for _, s := range u.slots {
			names = append(names, s.Name)
		}
		if s := stayOf(names); s.device > 0 {
			stays = append(stays, s)
		}
	}
	var rest []string // comes for the whole pass
	for name := range free {
		rest = append(rest, name)
	}
	whole := stayOf(rest)
	var onMain, onCPU int64
	for i, s := range stays {
		var ahead int64
		if i+1 < len(stays) {
			ahead = stays[i+1].read
		}
		onMain = max(onMain, s.device)
		if main == cpu {
			s.read = max(s.read, s.device)
		}
		onCPU = max(onCPU, s.read+s.twice+ahead)
	}
	if main != cpu {
		p.PeakPerDevice[main] += whole.device + onMain
	} else {
		onCPU += whole.device
	}
	if onCPU > 0 {
		p.PeakPerDevice[cpu] += onCPU
	}
}

// storedAs is the name under which the tensor of a name is planned.
func (l *loader) storedAs(name string) string {
	if source, tied := l.plan.TiedKeys[name]; tied && l.compare[name] == "" {
		return source
	}
	return name
}
