package pretrained

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/torchgo/torchgo/internal/pyjson"
	"github.com/torchgo/torchgo/pretrained/placement"
)

// DeviceMap says on which device the parameters below each module name go: a name of a device ("cpu",
// "cuda:0", "0") or "disk", or under the name "" alone a strategy ("auto", "balanced", "balanced_low_0",
// "sequential"). The name "" means all that other entries leave out. See docs/placement.md.
type DeviceMap map[string]string

// AutoDeviceMap spreads the model evenly over the GPUs; what they can't hold goes to the CPU, and then to disk.
var AutoDeviceMap = DeviceMap{"": "auto"}

// ParseDeviceMap reads a device, a strategy, or a JSON object from module names to devices.
func ParseDeviceMap(s string) (DeviceMap, error) {
	if !strings.HasPrefix(strings.TrimSpace(s), "{") {
		return DeviceMap{"": s}, nil
	}
	raw, err := pyjson.Parse([]byte(s))
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
	if m == nil {
		m = DeviceMap{"": l.opts.device().String()}
	}
	if len(m) == 1 && slices.Contains(strategies, m[""]) {
		var err error
		if m, err = l.strategyMap(m[""]); err != nil {
			return err
		}
		l.budgeted = true
	}
	err := l.carryOut(m)
	var e *Error
	if l.opts.DeviceMap == nil && errors.As(err, &e) {
		e.Detail = "device: " + l.opts.device().String()
	}
	return err
}

// checkMemory refuses a plan that needs more than a device has, or than the caller gives it. The budgets of a
// strategy's map are met as well as transformers does, and what they leave is for what was not foreseen.
func (l *loader) checkMemory() error {
	budgets, err := budgetsOf(l.opts.MaxMemory)
	if err != nil {
		return err
	}
	for _, b := range budgets {
		if l.budgeted || l.opts.MaxMemory == nil && b.Device == placement.CPU { // what the CPU can't hold may be mapped
			continue
		}
		if need := l.plan.BytesPerDevice[b.Device]; need > b.Bytes {
			return &Error{File: l.plan.Path, Class: ErrLimit, Detail: "max memory of " + b.Device, Expected: bytesText(b.Bytes),
				Actual: bytesText(need), Remedy: "the device map auto spreads the model over the devices and the disk"}
		}
	}
	return nil
}
