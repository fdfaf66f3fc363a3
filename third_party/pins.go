// Package thirdparty is the table of what `torchgo setup` may download: wheels of the package
// registry, by name, size and SHA-256.
package thirdparty

import (
	_ "embed"
	"encoding/json"
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/torchgo/torchgo/internal/wheel"
)

//go:embed pins.json
var pinsJSON []byte

// Pins is pins.json, which pins.py writes.
type Pins struct {
	Default  string                         `json:"default"` // the version that setup takes when none is named
	Python   wheel.Python                   `json:"python"`
	Unpack   map[string]map[string][]string `json:"unpack"` // device → project → patterns
	Versions []Version                      `json:"versions"`
	Wheels   map[string]wheel.Wheel         `json:"wheels"` // by file name
}

// Version is one pinned libtorch.
type Version struct {
	Version string              `json:"version"` // "2.15.0"
	CUDA    string              `json:"cuda"`    // "cu132"
	Devices map[string]WheelSet `json:"devices"` // "cpu", "cuda"
}

// WheelSet is what one device needs of a version.
type WheelSet struct {
	Unpacked int64    `json:"unpacked"` // bytes on disk
	Wheels   []string `json:"wheels"`
}

// Load returns the pins that torchgo was built with.
func Load() (*Pins, error) { return Parse(pinsJSON) }

// Parse reads a pins.json.
func Parse(data []byte) (*Pins, error) {
	var p Pins
	if err := json.Unmarshal(data, &p); err != nil {
		return nil, fmt.Errorf("pins.json: %w", err)
	}
	for file, w := range p.Wheels {
		w.File = file
		p.Wheels[file] = w
	}
	for _, v := range p.Versions {
		for device, set := range v.Devices {
			for _, file := range set.Wheels {
				if _, ok := p.Wheels[file]; !ok {
					return nil, fmt.Errorf("pins.json: %s %s: wheel %s is not in the table", v.Version, device, file)
				}
			}
		}
	}
	return &p, nil
}

// Find returns the pinned version that "2.15.0", or "2.15" for its pinned patch release, names.
func (p *Pins) Find(version string) (Version, bool) {
	i := slices.IndexFunc(p.Versions, func(v Version) bool {
		return v.Version == version || minor(v.Version) == version
	})
	if i < 0 {
		return Version{}, false
	}
	return p.Versions[i], true
}

// Supports reports whether a libtorch that is already there may be used: any patch release of a
// pinned minor version.
func (p *Pins) Supports(version string) bool {
	return slices.ContainsFunc(p.Versions, func(v Version) bool { return minor(v.Version) == minor(version) })
}

// Names lists the pinned versions, oldest first.
func (p *Pins) Names() []string {
	names := make([]string, len(p.Versions))
	for i, v := range p.Versions {
		names[i] = v.Version
	}
	return names
}

// Wanted reports whether setup for the device unpacks the member of a project's wheel.
func (p *Pins) Wanted(device, project, member string) bool {
	patterns, ok := p.Unpack[device][project]
	for rule, list := range p.Unpack[device] {
		if ok {
			break
		}
		if match, _ := path.Match(rule, project); match {
			patterns, ok = list, true
		}
	}
	return slices.ContainsFunc(patterns, func(pattern string) bool { return takes(pattern, member) })
}

// takes matches segment by segment; a pattern that ends in "/" takes all below.
func takes(pattern, name string) bool {
	want, below := strings.CutSuffix(pattern, "/")
	parts, wants := strings.Split(name, "/"), strings.Split(want, "/")
	if len(parts) < len(wants) || !below && len(parts) != len(wants) || below && len(parts) == len(wants) {
		return false
	}
	for i, w := range wants {
		if match, _ := path.Match(w, parts[i]); !match {
			return false
		}
	}
	return true
}

func minor(version string) string {
	parts := strings.SplitN(version, ".", 3)
	return strings.Join(parts[:min(2, len(parts))], ".")
}
