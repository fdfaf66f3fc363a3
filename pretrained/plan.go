package pretrained

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/torchgo/torchgo/internal/weights"
	"github.com/torchgo/torchgo/torch"
	"github.com/torchgo/torchgo/torch/nn"
)

// Action is how a planned weight gets its value.
type Action string

// The actions.
const (
	MapAction  Action = "map"  // a view of the mapped file
	ReadAction Action = "read" // read as it is, each part to its place
	CastAction Action = "cast" // read and converted
	InitAction Action = "init" // initialised: the checkpoint does not have it
)

// PlannedWeight is one tensor of the model and where its value comes from.
type PlannedWeight struct {
	Key    string `json:"key"`
	Action Action `json:"action"`
	DType  string `json:"dtype"`
	Shape  []int  `json:"shape"`
	Bytes  int64  `json:"bytes"`           // in the model
	Device string `json:"device"`          // where it lies; "disk" too
	Parts  []Part `json:"parts,omitempty"` // in the order of the files; none to be initialised

	slot nn.Slot
}

// Part is a tensor of the checkpoint, or a piece of one, that gives all elements of a weight or some: those
// of one expert, say.
type Part struct {
	Source    string `json:"source"`
	File      string `json:"file"`
	FileDType string `json:"file_dtype"` // in GGUF files ggml's name, else safetensors'
	FileBytes int64  `json:"file_bytes"` // of the elements that are taken, as they are read

	file   *weights.File // nil: tensor
	tensor *torch.Tensor
	dtype  torch.DType // of the file
	place  blockCopy   // from the source to the weight
}

// FileBytes is what is read or mapped for a weight.
func (w *PlannedWeight) FileBytes() int64 {
	var n int64
	for _, p := range w.Parts {
		n += p.FileBytes
	}
	return n
}

// LoadPlan is what a load would do, made from headers alone.
type LoadPlan struct {
	Path           string            `json:"path"`
	Class          string            `json:"class"`
	DType          string            `json:"dtype"`
	DTypeSource    string            `json:"dtype_source"`
	DeviceMap      map[string]string `json:"device_map"`
	Weights        []PlannedWeight   `json:"weights"` // in the model's order; tied ones under their source
	TiedKeys       map[string]string `json:"tied_keys"`
	MissingKeys    []string          `json:"missing_keys"`
	UnexpectedKeys []string          `json:"unexpected_keys"`
	MismatchedKeys []Mismatch        `json:"mismatched_keys"`
	Warnings       []string          `json:"warnings"`
	Adapter        *AdapterReport    `json:"adapter,omitempty"` // over the model

	NumParameters   int64            `json:"num_parameters"`
	MemoryFootprint int64            `json:"memory_footprint"`
	BytesPerDevice  map[string]int64 `json:"bytes_per_device"` // that lie there, "disk" too
	PeakPerDevice   map[string]int64 `json:"peak_per_device"`  // with what is brought in for a layer, while the model runs
	BytesMapped     int64            `json:"bytes_mapped"`     // of the files; pages that the system can drop
	BytesAllocated  int64            `json:"bytes_allocated"`  // of the process's own
	BytesStaging    int64            `json:"bytes_staging"`    // for conversions, at most
	PeakBytes       int64            `json:"peak_bytes"`       // mapped, allocated and staging
}

// Plan makes the plan of a load: nothing but headers is read, of a hub id's files too.
func Plan(ctx context.Context, path string, opts Options) (*LoadPlan, error) {
	opts.headersOnly = true
	adapter := opts.Adapter
	l, err := prepare(ctx, path, opts, true)
	if adapter == "" && errors.Is(err, errOnlyAdapter) {
		adapter = path
		var base string
		if base, opts, err = baseOf(ctx, path, opts); err != nil {
			return nil, err
		}
		if l, err = prepare(ctx, base, opts, true); err != nil {
			return nil, inBase(err, path)
		}
	}
	if err != nil {
		return nil, err
	}
	defer l.close()
	defer l.model.Close()
	if adapter == "" && l.files.adapter {
		adapter = path
		if l.files.commit != "" {
			opts.Revision = l.files.commit
		}
	}
	if adapter != "" {
		if l.plan.Adapter, err = l.model.LoadAdapter(ctx, adapter, opts.forAdapter()); err != nil {
			return nil, err
		}
	}
	return l.plan, nil
}

// JSON is the plan as one JSON document.
func (p *LoadPlan) JSON() []byte {
	out := *p
	out.Adapter = p.Adapter.complete()
	out.Weights, out.Warnings = nonNil(p.Weights), nonNil(p.Warnings)
	out.MissingKeys, out.UnexpectedKeys, out.MismatchedKeys = nonNil(p.MissingKeys), nonNil(p.UnexpectedKeys), nonNil(p.MismatchedKeys)
	data, err := json.Marshal(out)
	if err != nil {
		panic(err) // no value of the struct can fail
	}
	return data
}

// String is the plan as a table for people.
func (p *LoadPlan) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s from %s: %s parameters, %s as %s (from %s)\n", p.Class, p.Path, thousands(p.NumParameters),
		bytesText(p.MemoryFootprint), p.DType, p.DTypeSource)
	for _, device := range slices.Sorted(maps.Keys(p.BytesPerDevice)) {
		fmt.Fprintf(&b, "  %s: %s", device, bytesText(p.BytesPerDevice[device]))
		if peak := p.PeakPerDevice[device]; peak > p.BytesPerDevice[device] {
			fmt.Fprintf(&b, ", with offloaded layers up to %s", bytesText(peak))
		}
		b.WriteString("\n")
	}
	if len(p.DeviceMap) > 1 {
		for _, name := range slices.Sorted(maps.Keys(p.DeviceMap)) {
			fmt.Fprintf(&b, "  map  %q on %s\n", name, p.DeviceMap[name])
		}
	}
	fmt.Fprintf(&b, "  mapped %s, allocated %s, staging up to %s: peak %s\n", bytesText(p.BytesMapped),
		bytesText(p.BytesAllocated), bytesText(p.BytesStaging), bytesText(p.PeakBytes))
	t := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	for _, w := range p.Weights {
		from := ""
		if len(w.Parts) > 0 {
			p := w.Parts[0]
			from = p.FileDType + " in " + p.File
			if p.Source != w.Key {
				from += " as " + p.Source
			}
			if n := len(w.Parts) - 1; n > 0 {
				from += fmt.Sprintf(" and %d more", n)
			}
		}
		fmt.Fprintf(t, "  %s\t%s\t%s\t%v\t%s\t%s\n", w.Action, w.Key, w.DType, torch.Shape(w.Shape), bytesText(w.Bytes), from)
	}
	_ = t.Flush() // a strings.Builder takes everything
	for _, target := range slices.Sorted(maps.Keys(p.TiedKeys)) {
		fmt.Fprintf(&b, "  tie  %s = %s\n", target, p.TiedKeys[target])
	}
	for _, m := range p.MismatchedKeys {
		fmt.Fprintf(&b, "  mismatched %s: %v in the checkpoint, %v in the model\n", m.Key, torch.Shape(m.Checkpoint), torch.Shape(m.Model))
	}
	for _, k := range p.UnexpectedKeys {
		fmt.Fprintf(&b, "  unexpected %s\n", k)
	}
	p.Adapter.write(&b)
	for _, w := range p.Warnings {
		fmt.Fprintf(&b, "  note %s\n", w)
	}
	return b.String()
}
