package main

import (
	"bytes"
	"fmt"
	"maps"
	"os"
	"runtime"
	"slices"
	"strings"
	"time"
)

const (
	tableBegin = "<!-- table: go run ./bench -markdown -->\n"
	tableEnd   = "<!-- end of table -->\n"
)

// writeMarkdown replaces what is between the two marks of a file.
func writeMarkdown(file string, results []result, a about) error {
	data, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	before, rest, ok := bytes.Cut(data, []byte(tableBegin))
	_, after, ok2 := bytes.Cut(rest, []byte(tableEnd))
	if !ok || !ok2 {
		return fmt.Errorf("%s: no %q and %q", file, strings.TrimSpace(tableBegin), strings.TrimSpace(tableEnd))
	}
	text := slices.Concat(before, []byte(tableBegin), []byte(table(results, a)), []byte(tableEnd), after)
	return os.WriteFile(file, text, 0o644)
}

func table(results []result, a about) string {
	var b strings.Builder
	fmt.Fprintf(&b, "\n%s, %s. %s; load average at the end %s.\n", time.Now().UTC().Format(time.DateOnly), hardware(), runtime.Version(), loadAverage())
	for _, k := range slices.Sorted(maps.Keys(a.versions)) {
		fmt.Fprintf(&b, "%s %s. ", k, a.versions[k])
	}
	b.WriteString("Intra-op threads:")
	for _, k := range slices.Sorted(maps.Keys(a.threads)) {
		fmt.Fprintf(&b, " %s %d.", k, a.threads[k])
	}
	b.WriteString("\n\n| | what | torchgo | Python | unit | ratio | of stretches | CPU time | pairs | target | |\n|---|---|---:|---:|---|---:|---|---:|---:|---|---|\n")
	for _, r := range results {
		cpu, met := "", ""
		if r.CPURatio > 0 {
			cpu = fmt.Sprintf("%.2f", r.CPURatio)
		}
		if r.Target != "" {
			met = map[bool]string{true: "met", false: "missed"}[r.OK]
		}
		fmt.Fprintf(&b, "| %s | %s | %.4g | %.4g | %s | **%.3g** | %.3g–%.3g | %s | %d | %s | %s |\n", r.Name, aboutOf(r.Name), r.Ours, r.Python, r.Unit,
			r.Ratio, r.RatioMin, r.RatioMax, cpu, r.N, r.Target, met)
	}
	b.WriteString("\n")
	return b.String()
}

func aboutOf(name string) string {
	for _, b := range benchmarks {
		if b.name == name {
			return b.about
		}
	}
	return ""
}

// hardware says what little Linux tells about the processor.
func hardware() string {
	model := runtime.GOARCH
	if data, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		for line := range strings.Lines(string(data)) {
			if k, v, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(k) == "model name" {
				model = strings.TrimSpace(v)
				break
			}
		}
	}
	return fmt.Sprintf("%s, %d CPUs, %s", model, runtime.NumCPU(), runtime.GOOS)
}

func loadAverage() string {
	data, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return "unknown"
	}
	return strings.Join(strings.Fields(string(data))[:1], "")
}
