package pretrained

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/torchgo/torchgo/torch"
)

// Report says what a load did. Apart from Seconds and PeakRSSBytes it is the same on each run, and so are
// its text and JSON.
type Report struct {
	Path           string            `json:"path"`
	Folder         string            `json:"-"` // the local directory that config.json is in
	Class          string            `json:"class"`
	DType          string            `json:"dtype"`
	DTypeSource    string            `json:"dtype_source"` // where the dtype comes from
	DeviceMap      map[string]string `json:"device_map"`
	MissingKeys    []string          `json:"missing_keys"`    // initialised anew, sorted
	UnexpectedKeys []string          `json:"unexpected_keys"` // in the checkpoint only, sorted
	MismatchedKeys []Mismatch        `json:"mismatched_keys"` // of another shape, initialised anew, sorted
	ErrorMsgs      []string          `json:"error_msgs"`
	TiedKeys       map[string]string `json:"tied_keys"` // target: source
	Warnings       []string          `json:"warnings"`
	Adapter        *AdapterReport    `json:"adapter,omitempty"` // over the model

	NumParameters   int64   `json:"num_parameters"`   // tied ones once
	MemoryFootprint int64   `json:"memory_footprint"` // bytes of parameters and buffers, tied ones once
	BytesRead       int64   `json:"bytes_read"`       // bytes of tensors read or mapped; of blocks of GGUF as float32
	Seconds         float64 `json:"seconds"`
	PeakRSSBytes    int64   `json:"peak_rss_bytes"` // of the process so far
}

// Mismatch is a tensor whose shape in the checkpoint is not the model's. In JSON it is
// [key, checkpoint shape, model shape].
type Mismatch struct {
	Key        string
	Checkpoint []int
	Model      []int
}

// MarshalJSON implements json.Marshaler.
func (m Mismatch) MarshalJSON() ([]byte, error) {
	return json.Marshal([]any{m.Key, nonNil(m.Checkpoint), nonNil(m.Model)})
}

// JSON is the report as one JSON document.
func (r *Report) JSON() []byte {
	data, err := json.Marshal(r.Complete())
	if err != nil {
		panic(err) // no value of the struct can fail
	}
	return data
}

// Complete is the report with empty lists in place of nil ones, as JSON shows it.
func (r *Report) Complete() *Report {
	out := *r
	out.MissingKeys, out.UnexpectedKeys = nonNil(r.MissingKeys), nonNil(r.UnexpectedKeys)
	out.MismatchedKeys, out.ErrorMsgs, out.Warnings = nonNil(r.MismatchedKeys), nonNil(r.ErrorMsgs), nonNil(r.Warnings)
	out.Adapter = r.Adapter.complete()
	if out.TiedKeys == nil {
		out.TiedKeys = map[string]string{}
	}
	return &out
}

// String is the report for people: what was loaded, then one line for each key that did not match.
func (r *Report) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s from %s: %s parameters, %s as %s (from %s)\n", r.Class, r.Path, thousands(r.NumParameters),
		bytesText(r.MemoryFootprint), r.DType, r.DTypeSource)
	for _, where := range placesOf(r.DeviceMap) {
		fmt.Fprintf(&b, "  on %-8s %s\n", where[0], strings.Join(foldLayers(where[1:]), ", "))
	}
	for _, target := range slices.Sorted(maps.Keys(r.TiedKeys)) {
		fmt.Fprintf(&b, "  tied        %s = %s\n", target, r.TiedKeys[target])
	}
	for _, m := range r.MismatchedKeys {
		fmt.Fprintf(&b, "  mismatched  %s: %v in the checkpoint, %v in the model; initialised anew\n", m.Key, torch.Shape(m.Checkpoint), torch.Shape(m.Model))
	}
	for _, k := range foldLayers(r.MissingKeys) {
		fmt.Fprintf(&b, "  missing     %s: initialised anew\n", k)
	}
	for _, k := range foldLayers(r.UnexpectedKeys) {
		fmt.Fprintf(&b, "  unexpected  %s: in the checkpoint only\n", k)
	}
	for _, w := range slices.Concat(r.ErrorMsgs, r.Warnings) {
		fmt.Fprintf(&b, "  note        %s\n", w)
	}
	r.Adapter.write(&b)
	if len(r.MissingKeys)+len(r.MismatchedKeys) > 0 {
		b.WriteString("  train the weights that were initialised anew before you rely on the model\n")
	}
	fmt.Fprintf(&b, "  %s read in %s, peak memory %s\n", bytesText(r.BytesRead),
		time.Duration(r.Seconds*float64(time.Second)).Round(time.Millisecond), bytesText(r.PeakRSSBytes))
	return b.String()
}

// placesOf lists the places of a map, each with the modules there; none if all are in one that is a device.
func placesOf(m map[string]string) (places [][]string) {
	if len(m) == 1 && m[""] != "disk" {
		return nil
	}
	by := map[string][]string{}
	for _, name := range slices.SortedFunc(maps.Keys(m), compareNatural) {
		where := m[name]
		if name == "" {
			name = "all the rest"
		}
		by[where] = append(by[where], name)
	}
	for _, where := range slices.Sorted(maps.Keys(by)) {
		places = append(places, append([]string{where}, by[where]...))
	}
	return places
}

// foldLayers writes keys that differ in one number as one: layer.{0,1,2}.weight.
func foldLayers(keys []string) []string {
	type group struct {
		at      int // the part that differs
		indices []string
	}
	var order []string
	groups := map[string]*group{}
	for _, k := range keys {
		parts := strings.Split(k, ".")
		pattern, g := k, &group{at: -1}
		for i, p := range parts {
			if p != "" && strings.Trim(p, "0123456789") == "" {
				parts[i] = "\x00"
				pattern, g = strings.Join(parts, "."), &group{at: i, indices: []string{p}}
				break
			}
		}
		if old := groups[pattern]; old != nil {
			old.indices = append(old.indices, g.indices...)
		} else {
			groups[pattern] = g
			order = append(order, pattern)
		}
	}
	for i, pattern := range order {
		if g := groups[pattern]; g.at >= 0 {
			slices.SortFunc(g.indices, compareNatural)
			all := strings.Join(g.indices, ",")
			if len(g.indices) > 1 {
				all = "{" + all + "}"
			}
			order[i] = strings.Replace(pattern, "\x00", all, 1)
		}
	}
	return order
}

func thousands(n int64) string {
	s := fmt.Sprint(n)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

// bytesText is a size in the unit that suits it: 86.7 MB.
func bytesText(n int64) string {
	units := []string{"bytes", "kB", "MB", "GB", "TB", "PB"}
	x, i := float64(n), 0
	for x >= 1000 && i < len(units)-1 {
		x, i = x/1000, i+1
	}
	if i == 0 {
		return fmt.Sprintf("%d bytes", n)
	}
	return fmt.Sprintf("%.1f %s", x, units[i])
}

func nonNil[T any](s []T) []T {
	if s == nil {
		return []T{}
	}
	return s
}
