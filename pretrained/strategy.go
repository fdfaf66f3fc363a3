package pretrained

import (
	"bufio"
	"fmt"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/torchgo/torchgo/pretrained/placement"
	"github.com/torchgo/torchgo/torch"
	"github.com/torchgo/torchgo/torch/cuda"
	"github.com/torchgo/torchgo/torch/nn"
)

// strategies are the names that stand for a map made from the sizes of modules: balanced, which auto is, spreads
// the model over the GPUs, balanced_low_0 leaves most of the first one free, sequential fills one after the other.
var strategies = []string{"auto", "balanced", "balanced_low_0", "sequential"}

// strategyMap makes the device map of a strategy. (transformers' _get_device_map)
func (l *loader) strategyMap(strategy string) (DeviceMap, error) {
	budgets, err := budgetsOf(l.opts.MaxMemory)
	if err != nil {
		return nil, err
	}
	tree, ties := moduleTree(l.model, l.arch.NoSplit), wantedTies(l.model)
	if strategy != "sequential" {
		if gpus := countGPUs(budgets); gpus == 1 && l.opts.MaxMemory == nil {
			budgets[0].Bytes = budgets[0].Bytes / 10 * 9 // the rest is for what the passes need
		}
		budgets = placement.Balance(tree, ties, budgets, strategy == "balanced_low_0")
	}
	return placement.Map(tree, ties, budgets), nil
}

// imagined reports whether a plan takes a device as given because the caller says what memory it has.
func (l *loader) imagined(d torch.Device) bool {
	_, byName := l.opts.MaxMemory[d.String()]
	_, byIndex := l.opts.MaxMemory[strconv.Itoa(d.Index)]
	return l.dry && (byName || byIndex)
}

func countGPUs(budgets []placement.Budget) (n int) {
	for _, b := range budgets {
		if b.Device != placement.CPU && b.Device != placement.Disk {
			n++
		}
	}
	return n
}

// budgetsOf orders what the caller gives: GPUs by index, then the CPU, then the disk. By default it is what is
// free: of GPUs all, of the CPU's memory nine tenths.
func budgetsOf(limits map[string]int64) ([]placement.Budget, error) {
	if limits == nil {
		var free []placement.Budget
		for i := range torch.CUDADeviceCount() {
			d := torch.CUDA(i)
			bytes, _ := cuda.MemGetInfo(d)
			bytes += cuda.MemoryReserved(d) - cuda.MemoryAllocated(d) // the allocator's own, unused
			free = append(free, placement.Budget{Device: d.String(), Bytes: int64(bytes)})
		}
		return append(free, placement.Budget{Device: placement.CPU, Bytes: availableMemory() / 10 * 9}), nil
	}
	byRank := map[int]placement.Budget{}
	const cpuRank = 1 << 30
	for _, name := range slices.Sorted(maps.Keys(limits)) {
		rank, bytes := cpuRank, limits[name]
		switch p, err := parsePlace(name); {
		case err != nil || p.device == torch.Meta:
			return nil, &Error{Class: ErrArgument, Detail: "max memory", Expected: "a device name (cpu, cuda:0, disk)", Actual: fmt.Sprintf("%q", shorten(name))}
		case p.disk:
			continue // it has no limit
		case p.device.Type == torch.DeviceCUDA:
			rank = p.device.Index
			name = p.device.String()
		}
		if bytes < 0 {
			return nil, &Error{Class: ErrArgument, Detail: "max memory of " + name, Expected: "0 or more bytes", Actual: fmt.Sprint(bytes)}
		}
		if _, twice := byRank[rank]; twice {
			return nil, &Error{Class: ErrArgument, Detail: "max memory: two entries for " + name}
		}
		byRank[rank] = placement.Budget{Device: name, Bytes: bytes}
	}
	var budgets []placement.Budget
	for _, rank := range slices.Sorted(maps.Keys(byRank)) {
		budgets = append(budgets, byRank[rank])
	}
	return budgets, nil
}

// moduleTree is the tree of m's modules with the sizes of their tensors.
func moduleTree(m Model, noSplit []any) *placement.Module {
	nodes := map[string]*placement.Module{"": {}}
	var at func(path string) *placement.Module
	at = func(path string) *placement.Module {
		if n := nodes[path]; n != nil {
			return n
		}
		cut := strings.LastIndexByte(path, '.')
		parent, n := at(path[:max(cut, 0)]), &placement.Module{Name: path[cut+1:]}
		parent.Children = append(parent.Children, n)
		nodes[path] = n
		return n
	}
	for path, module := range nn.NamedModules(m) {
		at(path).NoSplit = typeIn(noSplit, module)
	}
	for _, s := range nn.Slots(m) {
		cut := strings.LastIndexByte(s.Name, '.')
		owner, t := at(s.Name[:max(cut, 0)]), s.Tensor()
		tensor := placement.Tensor{Name: s.Name[cut+1:], Bytes: int64(t.Numel()) * int64(t.DType().ItemSize())}
		if s.Kind == nn.Parameter {
			owner.Parameters = append(owner.Parameters, tensor)
		} else {
			owner.Buffers = append(owner.Buffers, tensor)
		}
	}
	return nodes[""]
}

// availableMemory is what the system can give without swapping, in bytes.
func availableMemory() int64 {
	f, err := os.Open("/proc/meminfo")
	if err != nil {
		return physicalMemory()
	}
	defer f.Close()
	for s := bufio.NewScanner(f); s.Scan(); {
		if rest, ok := strings.CutPrefix(s.Text(), "MemAvailable:"); ok {
			if kib, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(rest), " kB"), 10, 64); err == nil {
				return kib << 10
			}
		}
	}
	return physicalMemory()
}
