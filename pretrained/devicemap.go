package pretrained

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/torchgo/torchgo/torch"
)

// DeviceMap says on which device the parameters below each module name go: a name of a device ("cpu",
// "cuda:0", "0") or "disk", or under the name "" alone a strategy ("auto", "balanced", "balanced_low_0",
// "sequential"). The name "" means all that other entries leave out. See docs/placement.md.
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

// place settles where each tensor of the model goes, and checks that it may and can go there.
func (l *loader) place() error {
	m := l.opts.DeviceMap
	switch {
	case m == nil:
		m = DeviceMap{"": l.opts.device().String()}
	case l.opts.Device != torch.Device{}:
		return badMap("both a device map and a device are given", Error{})
	}
	if len(m) == 1 && slices.Contains(strategies, m[""]) {
		m = DeviceMap{"": "cpu"}
		if devices.count() > 0 {
			m = DeviceMap{"": "cuda:0"}
		}
	}
	err := l.carryOut(m)
	var e *Error
	if l.opts.DeviceMap == nil && errors.As(err, &e) {
		e.Detail = "device: " + l.opts.device().String()
	}
	return err
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
