package pretrained

import (
	"github.com/torchgo/torchgo/torch"
	"github.com/torchgo/torchgo/torch/cuda"
	"github.com/torchgo/torchgo/torch/nn"
)

// warmUp has each GPU's allocator take at once what the weights will need there, for it keeps what it has. One
// by one they would wait for the driver.
func (l *loader) warmUp() {
	need := map[torch.Device]int{}
	for _, s := range nn.Slots(l.model) {
		at := l.places[s.Name].device
		if _, tied := l.plan.TiedKeys[s.Name]; at.Type == torch.DeviceCUDA && !tied && s.Kind != nn.Transient {
			need[at] += s.Tensor().Numel() * s.Tensor().DType().ItemSize()
		}
	}
	for device, bytes := range need {
		devices.reserve(device, bytes)
	}
}

// reserve leaves it to the weights to find that there isn't enough memory.
func (realDevices) reserve(d torch.Device, need int) {
	_ = torch.TryDo(func() {
		free, total := cuda.MemGetInfo(d)
		unused := cuda.MemoryReserved(d) - cuda.MemoryAllocated(d)
		if n := warmUpBytes(need, unused, free, total); n > 0 {
			torch.Empty([]int{n}, torch.EmptyOptions{DType: torch.Uint8, Device: d}).Close()
		}
	})
}

// warmUpBytes is what to allocate where an allocator has some unused memory already. A block of no more than
// that would be found there and bring nothing new. The rule and its figures are those of transformers
// (caching_allocator_warmup): of the device's memory 1.2 GiB are left, for a tensor that fits in no gap.
func warmUpBytes(need, unused, free, total int) int {
	const gib = 1 << 30
	switch more := need - unused; {
	case more > unused:
		need = more
	case more > 3*gib/2 && unused < free:
		need = unused + 1
	default:
		return 0
	}
	return max(0, min(need, total-(6*gib+4)/5)) &^ 1
}
