package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// benchmark is a row of the table.
type benchmark struct {
	name   string
	about  string // for the table
	unit   string
	target target
	worker string // "ops" or "model"
	work   string
	block  float64 // seconds that a block should take, roughly
	fixed  int     // if not 0: the size of a block
	pairs  int
	figure func(seconds float64, n int) float64
	agree  float64 // how far the two sides' checks may be apart, relatively
}

func microseconds(seconds float64, n int) float64 { return seconds / float64(n) * 1e6 }
func rate(seconds float64, n int) float64         { return float64(n) / seconds }

var benchmarks = []benchmark{
	{name: "add", about: "2×2 add, freed by the scope around 100", unit: "us/op", target: target{atMost: 0.9},
		worker: "ops", work: "add", block: 0.002, pairs: 1001, figure: microseconds, agree: 1e-6},
	{name: "chain", about: "30 operators on small tensors, freed by their scope", unit: "us/chain", target: target{atMost: 0.9},
		worker: "ops", work: "chain", block: 0.002, pairs: 1001, figure: microseconds, agree: 1e-4},
}

// about is what the figures depend on.
type about struct {
	versions map[string]string
	threads  map[string]int
}

// session has the workers that are alive.
type session struct {
	options
	self     string
	interp   string // the Python interpreter
	scratch  string
	workers  map[string][2]*worker
	about    about
	warnings []string
}

func measure(ctx context.Context, o options) ([]result, about, error) {
	s := session{options: o, workers: map[string][2]*worker{}, about: about{map[string]string{}, map[string]int{}}}
	var err error
	if s.self, err = os.Executable(); err != nil {
		return nil, s.about, err
	}
	if s.interp, err = checkPython(ctx, o.python); err != nil {
		return nil, s.about, err
	}
	if s.scratch, err = os.MkdirTemp("", "torchgo-bench-"); err != nil {
		return nil, s.about, err
	}
	defer os.RemoveAll(s.scratch)
	defer s.close()
	var results []result
	for _, b := range benchmarks {
		if !o.only.MatchString(b.name) {
			continue
		}
		r, err := s.paired(ctx, b)
		if err != nil {
			return results, s.about, fmt.Errorf("%s: %w", b.name, err)
		}
		if err := r.print(); err != nil {
			return results, s.about, err
		}
		results = append(results, r)
	}
	return results, s.about, nil
}

func (s *session) close() {
	for _, pair := range s.workers {
		for _, w := range pair {
			if w != nil {
				w.stop()
			}
		}
	}
}

// checkPython finds the interpreter and what the benchmarks import.
func checkPython(ctx context.Context, python string) (string, error) {
	path, err := exec.LookPath(python)
	if err != nil {
		return "", fmt.Errorf("no Python interpreter %q: set TORCHGO_BENCH_PYTHON to one that has torch and transformers", python)
	}
	const script = `
import importlib.util as u, json
print(json.dumps([m for m in ("torch", "transformers") if u.find_spec(m) is None]))`
	out, err := exec.CommandContext(ctx, path, "-c", script).Output()
	if err != nil {
		return "", fmt.Errorf("%s: %w", path, err)
	}
	var missing []string
	if err := json.Unmarshal(bytes.TrimSpace(out), &missing); err != nil {
		return "", fmt.Errorf("%s: %w", path, err)
	}
	if len(missing) > 0 {
		return "", fmt.Errorf("%s lacks %s: install them, or set TORCHGO_BENCH_PYTHON to an interpreter that has torch and transformers",
			path, strings.Join(missing, " and "))
	}
	return path, nil
}

// pair gives the two workers of a kind, and starts them if they aren't alive.
func (s *session) pair(ctx context.Context, kind string) ([2]*worker, error) {
	if p, ok := s.workers[kind]; ok {
		return p, nil
	}
	var p [2]*worker
	argv := [2][]string{{s.self, "-worker", kind}, {s.interp, filepath.Join(s.dir, kind+".py")}}
	for i, name := range []string{"torchgo", "Python"} {
		w, err := startWorker(ctx, name, argv[i])
		if err != nil {
			return p, err
		}
		p[i] = w
		for k, v := range w.hello.Versions {
			s.about.versions[k] = v
		}
		s.about.threads[kind+" "+name] = w.hello.Threads
		s.workers[kind] = p
	}
	return p, nil
}

// paired measures a benchmark with workers.
func (s *session) paired(ctx context.Context, b benchmark) (result, error) {
	workers, err := s.pair(ctx, b.worker)
	if err != nil {
		return result{}, err
	}
	n, err := blockSize(workers[0], b)
	if err != nil {
		return result{}, err
	}
	if _, err := workers[1].run(b.work, n); err != nil { // warm
		return result{}, err
	}
	count := b.pairs
	if s.pairs > 0 {
		count = s.pairs
	}
	var pairs []pair
	for i := range count {
		// A B, B A, A B, ...: what drifts hits both.
		var r [2]reply
		for j := range 2 {
			side := (i + j) % 2
			if r[side], err = workers[side].run(b.work, n); err != nil {
				return result{}, err
			}
		}
		if a, b, tol := r[0].Check, r[1].Check, b.agree; math.Abs(a-b) > tol*math.Max(1, math.Abs(b)) {
			return result{}, fmt.Errorf("the two sides computed different things: torchgo %g, Python %g", a, b)
		}
		pairs = append(pairs, pair{r[0], r[1]})
	}
	return summarize(b, pairs, func(r reply) float64 { return b.figure(r.Seconds, n) }), nil
}

// blockSize finds how many repetitions take about as long as a block should.
func blockSize(w *worker, b benchmark) (int, error) {
	if b.fixed > 0 {
		_, err := w.run(b.work, b.fixed) // warm
		return b.fixed, err
	}
	for n := 10; ; n *= 4 {
		r, err := w.run(b.work, n)
		if err != nil {
			return 0, err
		}
		if r.Seconds >= b.block/4 {
			return max(1, int(float64(n)*b.block/r.Seconds)), nil
		}
	}
}
