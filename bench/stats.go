package main

import (
	"fmt"
	"slices"
	"strings"
)

// pair is one block of each side, next to each other in time.
type pair struct{ ours, python reply }

func median(v []float64) float64 {
	s := slices.Sorted(slices.Values(v))
	n := len(s)
	if n == 0 {
		return 0
	}
	return (s[(n-1)/2] + s[n/2]) / 2
}

// values picks a figure of each pair.
func values(pairs []pair, pick func(reply) float64) (ours, python []float64) {
	for _, p := range pairs {
		ours, python = append(ours, pick(p.ours)), append(python, pick(p.python))
	}
	return ours, python
}

// summarize makes the figures of a benchmark; figure turns a reply into its unit.
func summarize(b benchmark, pairs []pair, figure func(reply) float64) result {
	ours, python := values(pairs, figure)
	r := result{Name: b.name, Unit: b.unit, Target: b.target.String(), N: len(pairs), Ours: median(ours), Python: median(python)}
	r.Ratio = r.Ours / r.Python
	r.RatioMin, r.RatioMax = spread(ours, python)
	oursCPU, pythonCPU := values(pairs, func(r reply) float64 { return r.CPU })
	if spent := median(pythonCPU); spent > 0 {
		r.CPURatio = median(oursCPU) / spent
	}
	r.OK = b.target.met(r.Ratio) && (b.target.saves == 0 || r.Python-r.Ours >= b.target.saves) && (b.target.ours == 0 || r.Ours <= b.target.ours)
	return r
}

// target bounds a ratio and what is saved against Python; the zero value bounds nothing.
type target struct {
	atMost, atLeast float64
	saves           float64 // in the row's unit
	ours            float64 // at most this of the row's unit, whatever Python's figure
}

func (t target) String() string {
	var bounds []string
	if t.atMost > 0 {
		bounds = append(bounds, fmt.Sprintf("<= %.2f", t.atMost))
	}
	if t.atLeast > 0 {
		bounds = append(bounds, fmt.Sprintf(">= %.2f", t.atLeast))
	}
	if t.saves > 0 {
		bounds = append(bounds, fmt.Sprintf("saves %.2g", t.saves))
	}
	if t.ours > 0 {
		bounds = append(bounds, fmt.Sprintf("ours <= %.3g", t.ours))
	}
	return strings.Join(bounds, ", ")
}

func (t target) met(ratio float64) bool {
	return (t.atMost == 0 || ratio <= t.atMost) && (t.atLeast == 0 || ratio >= t.atLeast)
}

// spread is the least and the greatest ratio of medians among at most ten stretches of the run.
func spread(ours, python []float64) (low, high float64) {
	n := max(1, len(ours)/10)
	for i := 0; i+n <= len(ours); i += n {
		ratio := median(ours[i:i+n]) / median(python[i:i+n])
		if i == 0 || ratio < low {
			low = ratio
		}
		high = max(high, ratio)
	}
	return low, high
}
