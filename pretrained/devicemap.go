package pretrained

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/torchgo/torchgo/torch"
)

// DeviceMap says on which device the parameters below each module name go: a name of a device ("cpu",
// "cuda:0"), or under the name "" alone a strategy ("auto", "balanced", "balanced_low_0", "sequential").
// The name "" means the whole model. For now all entries must come out at one device.
type DeviceMap map[string]string

// AutoDeviceMap lets the plan decide: the first GPU if there is one, else the CPU.
var AutoDeviceMap = DeviceMap{"": "auto"}

var strategies = []string{"auto", "balanced", "balanced_low_0", "sequential"}

// ParseDeviceMap reads a device, a strategy, or a JSON object from module names to devices.
func ParseDeviceMap(s string) (DeviceMap, error) {
	if !strings.HasPrefix(strings.TrimSpace(s), "{") {
		return DeviceMap{"": s}, nil
	}
	raw, err := parseObject([]byte(s))
	if err != nil {
		return nil, &Error{Class: ErrArgument, Detail: "device map", Err: err}
	}
	m := DeviceMap{}
	for name, v := range raw {
		switch v := v.(type) {
		case string:
			m[name] = v
		case int64: // transformers takes the index of a GPU
			m[name] = fmt.Sprintf("cuda:%d", v)
		default:
			return nil, &Error{Class: ErrArgument, Detail: "device map: " + shorten(name), Expected: "a device", Actual: Describe(v)}
		}
	}
	return m, nil
}

// ParseMemory reads a size as "10GiB" or "40KB"; a bare number is bytes.
func ParseMemory(s string) (int64, error) {
	units := []struct {
		suffix string
		scale  float64
	}{{"GIB", 1 << 30}, {"MIB", 1 << 20}, {"KIB", 1 << 10}, {"TIB", 1 << 40}, {"TB", 1e12}, {"GB", 1e9}, {"MB", 1e6}, {"KB", 1e3}, {"", 1}}
	text := strings.ToUpper(strings.TrimSpace(s))
	for _, u := range units {
		number, ok := strings.CutSuffix(text, u.suffix)
		if !ok {
			continue
		}
		if v, err := strconv.ParseFloat(strings.TrimSpace(number), 64); err == nil && v >= 0 && v*u.scale < math.MaxInt64 {
			return int64(v * u.scale), nil
		}
		break
	}
	return 0, &Error{Class: ErrArgument, Detail: "memory", Expected: "a size like 10GiB or 40KB", Actual: fmt.Sprintf("%q", shorten(s))}
}

// place settles the device of the model and checks that all of it may and can go there.
func (l *loader) place(keys []string) error {
	option := "device map"
	bad := func(detail string, e Error) error {
		e.Detail = option
		if detail != "" {
			e.Detail += ": " + detail
		}
		if e.Class == nil {
			e.Class = ErrArgument
		}
		return &e
	}
	m := l.opts.DeviceMap
	if m == nil {
		m, option = DeviceMap{"": l.opts.device().String()}, "device"
	} else if (l.opts.Device != torch.Device{}) {
		return bad("both a device map and a device are given", Error{})
	}
	placed := map[torch.Device]string{}
	for _, name := range slices.Sorted(maps.Keys(m)) {
		where := m[name]
		var device torch.Device
		switch {
		case slices.Contains(strategies, where) && name == "" && len(m) == 1:
			device = torch.CPU
			if torch.CUDADeviceCount() > 0 {
				device = torch.CUDA(0)
			}
		case where == "disk":
			return bad("offloading to disk", Error{Class: ErrUnsupported})
		default:
			var err error
			if device, err = torch.ParseDevice(where); device == torch.Meta {
				return bad(shorten(name), Error{Actual: "meta", Remedy: "weights have no place there; a plan shows what a load would do"})
			}
			if err != nil {
				return bad(shorten(name), Error{Expected: "a device name (cpu, cuda:0) or one of " + strings.Join(strategies, ", "), Actual: fmt.Sprintf("%q", shorten(where))})
			}
		}
		placed[device] = name
	}
	if len(placed) > 1 {
		return bad("several devices", Error{Class: ErrUnsupported, Remedy: "put the whole model on one"})
	}
	for d := range placed {
		l.device = d
	}
	for _, key := range keys {
		if !slices.ContainsFunc(slices.Collect(maps.Keys(m)), func(name string) bool {
			return name == "" || key == name || strings.HasPrefix(key, name+".")
		}) {
			return bad("no entry for the parameter "+key, Error{})
		}
	}
	if n := torch.CUDADeviceCount(); l.device.Type == torch.DeviceCUDA && l.device.Index >= n {
		return bad(l.device.String(), Error{Expected: fmt.Sprintf("one of the %d GPUs that libtorch sees", n)})
	}
	return nil
}

// checkMemory refuses a plan that needs more than the caller gives its device.
func (l *loader) checkMemory() error {
	for name := range l.opts.MaxMemory {
		if _, err := torch.ParseDevice(name); err != nil {
			return &Error{Class: ErrArgument, Detail: "max memory", Expected: "a device name", Actual: fmt.Sprintf("%q", shorten(name))}
		}
	}
	limit, ok := l.opts.MaxMemory[l.device.String()]
	if ok && l.plan.MemoryFootprint > limit {
		return &Error{File: l.plan.Path, Class: ErrLimit, Detail: "max memory of " + l.device.String(), Expected: bytesText(limit),
			Actual: bytesText(l.plan.MemoryFootprint), Remedy: "offloading to another device or to disk can't be done yet"}
	}
	return nil
}
