package torch

import (
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/torchgo/torchgo/cgo"
)

// AnomalyOptions are the options of [DetectAnomaly].
type AnomalyOptions struct {
	CheckNaN Opt[bool] // fail where a node's gradient is NaN; default true
}

// anomaly has the settings of the calls of DetectAnomaly that run; the newest is in force.
var anomaly struct {
	mutex    sync.Mutex
	settings []*bool
	on       atomic.Bool
}

// DetectAnomaly runs fn in anomaly mode (torch.autograd.detect_anomaly): an error in a backward pass names
// the line of the program whose forward call made the failing node, and a node whose gradient is NaN is an
// error. Forward and backward both belong inside. As in Python, the mode is the whole process's while fn
// runs, and slow; without it nothing is recorded.
func DetectAnomaly(fn func(), opts ...AnomalyOptions) {
	load("detect_anomaly")
	setting := new(bool)
	*setting = one(opts).CheckNaN.Or(true)
	change := func(edit func()) {
		anomaly.mutex.Lock()
		defer anomaly.mutex.Unlock()
		edit()
		n := len(anomaly.settings)
		anomaly.on.Store(n > 0)
		must("detect_anomaly", cgo.AnomalySet(n > 0, n == 0 || *anomaly.settings[n-1]))
	}
	change(func() { anomaly.settings = append(anomaly.settings, setting) })
	openCalls.Add(1)
	defer func() {
		openCalls.Add(-1)
		change(func() {
			at := slices.Index(anomaly.settings, setting)
			anomaly.settings = slices.Delete(anomaly.settings, at, at+1)
		})
	}()
	fn()
}

// module is the import path that all of torchgo is below.
const module = "github.com/torchgo/torchgo/"

// site is where in the program an operator is called: the innermost line outside this package and its
// subpackages, and where that is torchgo's own, too (a model), the first line that is not. It is empty
// outside anomaly mode.
func site() string {
	if !anomaly.on.Load() {
		return ""
	}
	var pcs [64]uintptr
	frames := runtime.CallersFrames(pcs[:runtime.Callers(2, pcs[:])])
	text := ""
	for more := true; more; {
		var f runtime.Frame
		f, more = frames.Next()
		within, ours := strings.CutPrefix(f.Function, module)
		ours = ours && !strings.HasSuffix(f.File, "_test.go")
		if ours && (text != "" || strings.HasPrefix(within, "torch.") || strings.HasPrefix(within, "torch/") || strings.HasPrefix(within, "cgo.")) ||
			strings.HasPrefix(f.Function, "runtime.") {
			continue
		}
		if text != "" {
			text += ", called from "
		}
		text += fmt.Sprintf("%s:%d (%s)", f.File, f.Line, f.Function[strings.LastIndexByte(f.Function, '/')+1:])
		if !ours {
			break
		}
	}
	return text
}
