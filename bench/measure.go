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
	pairs  int
	agree  float64 // how far the two sides' checks may be apart

	// Of rows that workers measure; the others are of whole processes.
	worker string // "ops", "embed", "train", "load" or "formats"
	work   string
	beside string  // a work of torchgo's that takes Python's place
	block  float64 // seconds that a block takes, roughly; if 0: it is n
	n      int
	inputs int // how many there are: each pair takes the next n
	figure func(seconds float64, n int) float64

	// Of rows of whole processes.
	whole   string // which: "first", or "load", a model and a dtype
	process func(processRun) float64
}

func microseconds(seconds float64, n int) float64 { return seconds / float64(n) * 1e6 }
func milliseconds(seconds float64, n int) float64 { return seconds / float64(n) * 1e3 }
func secondsEach(seconds float64, n int) float64  { return seconds / float64(n) }
func rate(seconds float64, n int) float64         { return float64(n) / seconds }

// operator is a row of one operator on small operands.
func operator(name, about string, t target) benchmark {
	return benchmark{name: name, about: about, unit: "us/op", target: t, pairs: 1000, agree: 1e-5,
		worker: "ops", work: name, block: 0.002, figure: microseconds}
}

// Blocks of operators are a fraction of the scheduler's time slice, so that most of them are not
// interrupted on a busy machine.
var benchmarks = []benchmark{
	operator("add", "2×2 add, freed by the scope around 25 of them", target{atMost: 0.9, saves: 0.2}),
	operator("mm", "64×64 matrix product", target{saves: 0.2}),
	operator("layer_norm", "layer norm of (16, 64) with weight and bias", target{atMost: 0.9, saves: 0.2}),
	operator("cat", "cat of two 2×2 tensors", target{atMost: 0.9, saves: 0.2}),
	operator("view", "view of (16, 64) as (64, 16)", target{atMost: 0.9, saves: 0.2}),
	operator("select", "h[3] of (16, 64)", target{atMost: 0.9, saves: 0.2}),
	operator("index", "h[rows] of (16, 64), three rows", target{atMost: 0.9, saves: 0.2}),
	{name: "collected", about: "the addition left to the collector, beside the scoped one of torchgo", unit: "us/op", target: target{atMost: 2.5}, pairs: 500, agree: 1e-6,
		worker: "ops", work: "collected", beside: "add", block: 0.002, figure: microseconds},
	{name: "scope", about: "an empty scope; Python: an empty with torch.no_grad()", unit: "us", pairs: 500, agree: 0,
		worker: "ops", work: "scope", block: 0.002, figure: microseconds},
	{name: "backward", about: "20 multiplications of 2×2 and their backward", unit: "us", pairs: 500, agree: 1e-5,
		worker: "ops", work: "backward", block: 0.002, figure: microseconds},
	{name: "hooks", about: "the same with a hook on each product", unit: "us", pairs: 500, agree: 1e-5,
		worker: "ops", work: "hooks", block: 0.002, figure: microseconds},
	{name: "chain", about: "30 operators on small tensors, in a scope", unit: "us/chain", target: target{atMost: 0.9}, pairs: 1000, agree: 1e-5,
		worker: "ops", work: "chain", block: 0.002, figure: microseconds},
	{name: "first", about: "process start to first MiniLM embedding, whole process", unit: "s", target: target{atMost: 0.15}, pairs: 7, agree: 1e-5,
		whole: "first", process: func(r processRun) float64 { return r.seconds }},
	{name: "first-rss", about: "peak memory of the same", unit: "MiB", pairs: 7, agree: 1e-5,
		whole: "first", process: func(r processRun) float64 { return r.peakMiB }},
	{name: "batches", about: "512 sentences of one length, batches of 32", unit: "sentences/s", target: target{atLeast: 1.0}, pairs: 48, agree: 1e-3,
		worker: "embed", work: "batches", n: 32, inputs: sentences, figure: rate},
	{name: "single", about: "the same one by one", unit: "sentences/s", target: target{atLeast: 1.2}, pairs: 64, agree: 1e-3,
		worker: "embed", work: "single", n: 16, inputs: sentences, figure: rate},
	{name: "mixed", about: "512 sentences of mixed lengths: ours in the order that embed chooses, Python's as given, batches of 32", unit: "sentences/s",
		target: target{atLeast: 1.3}, pairs: 5, agree: 1e-3,
		worker: "embed", work: "mixed", n: sentences, inputs: sentences, figure: rate},
	{name: "gpt", about: "a training step of a 4-layer GPT, hidden size 32, batch 2 × 16, AdamW, one thread", unit: "ms/step", target: target{atMost: 0.8}, pairs: 60, agree: 1e-4,
		worker: "train", work: "gpt", n: 10, figure: milliseconds},
	{name: "smollm2", about: "a training step of SmolLM2-135M's shape, batch 2 × 256, float32, AdamW", unit: "tokens/s", target: target{atLeast: 1.0}, pairs: 8, agree: 1e-4,
		worker: "train", work: "smollm2", n: 1, figure: func(seconds float64, n int) float64 { return rate(seconds, n*smolTokens) }},
	{name: "load", about: "loading the 90 MB model, files cached", unit: "ms", pairs: 15,
		worker: "embed", work: "load", n: 1, figure: milliseconds},
	{name: "load-start", about: "process start to a Llama of 1.1 billion parameters in 5 bfloat16 shards, whole process", unit: "s", target: target{atMost: 0.1}, pairs: 5, agree: 1e-9,
		whole: "load llama bfloat16", process: func(r processRun) float64 { return r.seconds }},
	{name: "load-start-anon", about: "anonymous memory that loading it took, of the model's size", unit: "x model", target: target{ours: 0.1}, pairs: 5, agree: 1e-9,
		whole: "load llama bfloat16", process: func(r processRun) float64 { return r.Anonymous / r.Model }},
	{name: "load-same", about: "the same load in a warm process", unit: "s", target: target{atMost: 1.0}, pairs: 11, agree: 1e-9,
		worker: "load", work: "load-same", n: 1, figure: secondsEach},
	{name: "load-cast", about: "the same as float32", unit: "s", target: target{atMost: 0.6}, pairs: 5, agree: 1e-9,
		worker: "load", work: "load-cast", n: 1, figure: secondsEach},
	{name: "load-cast-rss", about: "peak memory of the latter less 64 MiB, of the model's size", unit: "x model", target: target{ours: 1.05}, pairs: 2, agree: 1e-9,
		whole: "load llama float32", process: func(r processRun) float64 { return (r.Peak - 64) / r.Model }},
	{name: "load-experts", about: "a 0.6 GB Mixtral of 12 layers, whose 8 experts are stacked", unit: "s", target: target{atMost: 0.2}, pairs: 7, agree: 1e-9,
		worker: "load", work: "load-experts", n: 1, figure: secondsEach},
	{name: "load-bin", about: "the Llama of load-same from 5 .bin files; Python: torch.load and load_state_dict into a model that is there", unit: "s",
		target: target{atMost: 0.3}, pairs: 7, agree: 1e-9, worker: "formats", work: "load-bin", n: 1, figure: secondsEach},
	{name: "load-bin-rss", about: "peak memory of such a load less 64 MiB, of the model's size", unit: "x model", target: target{ours: 1.05}, pairs: 2, agree: 1e-9,
		whole: "load llama-bin bfloat16", process: func(r processRun) float64 { return max(0, r.Peak-64) / r.Model }},
	{name: "load-gguf", about: "SmolLM2-135M from a GGUF file of Q4_1 as bfloat16", unit: "s", target: target{atMost: 0.1}, pairs: 7, agree: 1e-9,
		worker: "formats", work: "load-gguf", n: 1, figure: secondsEach},
	{name: "load-gguf-rss", about: "peak memory of such a load less 64 MiB, of the model's size", unit: "x model", target: target{ours: 1.05}, pairs: 2, agree: 1e-9,
		whole: "load gguf bfloat16", process: func(r processRun) float64 { return (r.Peak - 64) / r.Model }},
	{name: "dequantize", about: "its tensors as float32, by one thread; Python: the package gguf", unit: "s/GB", target: target{ours: 1}, pairs: 7, agree: 1e-9,
		worker: "formats", work: "dequantize", n: 1, figure: func(seconds float64, _ int) float64 { return seconds / smolFloats * 1e9 }},
	{name: "pread", about: "for comparison: reading the Llama's files from the page cache, two readers", unit: "GB/s", pairs: 5, agree: 0,
		worker: "load", work: "pread", n: 1, figure: func(seconds float64, n int) float64 { return loadBytes / seconds / 1e9 }},
	{name: "copy", about: "for comparison: copying 256 MiB of float32", unit: "GB/s", pairs: 5, agree: 0,
		worker: "load", work: "copy", n: 4, figure: func(seconds float64, n int) float64 { return float64(n) * copyElements * 4 / seconds / 1e9 }},
}

// about is what the figures depend on.
type about struct {
	versions map[string]string
	threads  map[string]int
}

// session has the workers that are alive.
type session struct {
	options
	self    string
	interp  string // the Python interpreter
	scratch string
	workers map[string][2]*worker
	about   about
	runs    map[string][]processPair // of whole processes
}

func measure(ctx context.Context, o options) ([]result, about, error) {
	s := session{options: o, workers: map[string][2]*worker{}, runs: map[string][]processPair{}, about: about{map[string]string{}, map[string]int{}}}
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
	if err := writeTexts(s.textsFile()); err != nil {
		return nil, s.about, err
	}
	var results []result
	for _, b := range benchmarks {
		if !o.only.MatchString(b.name) {
			continue
		}
		measure := s.paired
		if b.process != nil {
			measure = s.processes
		}
		r, err := measure(ctx, b)
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
	if kind == "embed" {
		model, err := s.findModel(ctx)
		if err != nil {
			return p, err
		}
		argv[0] = append(argv[0], "-model", model, "-texts", s.textsFile())
		argv[1] = append(argv[1], model, s.textsFile())
	}
	if names, ok := map[string][]string{"load": {"llama", "mixtral"}, "formats": {"llama-bin", "gguf"}}[kind]; ok {
		models, err := s.makeModels(ctx, names...)
		if err != nil {
			return p, err
		}
		argv = [2][]string{{s.self, "-worker", "load", "-model", models}, {s.interp, filepath.Join(s.dir, "load.py"), models}}
	}
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
	works := [2]string{b.work, b.work}
	if b.beside != "" {
		workers[1], works[1] = workers[0], b.beside
	}
	c := command{Work: b.work, N: b.n}
	if b.block > 0 {
		if c.N, err = blockSize(workers[0], b); err != nil {
			return result{}, err
		}
		c.Warm = (c.N + 9) / 10
	}
	for side, w := range workers { // once unmeasured
		c.Work = works[side]
		if _, err := w.run(c); err != nil {
			return result{}, err
		}
	}
	var pairs []pair
	for i := range s.count(b) {
		if b.inputs > 0 {
			c.At = i * c.N % b.inputs
		}
		var r [2]reply
		for _, side := range inTurn(i) {
			c.Work = works[side]
			if r[side], err = workers[side].run(c); err != nil {
				return result{}, err
			}
		}
		if err := agree(r[0].Check, r[1].Check, b.agree); err != nil {
			return result{}, err
		}
		pairs = append(pairs, pair{r[0], r[1]})
	}
	return summarize(b, pairs, func(r reply) float64 { return b.figure(r.Seconds, c.N) }), nil
}

func (s *session) count(b benchmark) int {
	if s.pairs > 0 {
		return s.pairs
	}
	return b.pairs
}

// inTurn is the order of the sides in pair i: A B, B A, A B, ..., so that what drifts hits both.
func inTurn(i int) [2]int { return [2]int{i % 2, 1 - i%2} }

// agree compares what the two sides have computed.
func agree(ours, python, tolerance float64) error {
	if math.Abs(ours-python) > tolerance*math.Max(1, math.Abs(python)) {
		return fmt.Errorf("the two sides computed different things: torchgo %g, Python %g", ours, python)
	}
	return nil
}

// blockSize finds how many repetitions take about as long as a block should.
func blockSize(w *worker, b benchmark) (int, error) {
	for n := 10; ; n *= 4 {
		r, err := w.run(command{Work: b.work, N: n})
		if err != nil {
			return 0, err
		}
		if r.Seconds >= b.block/4 {
			return max(1, int(float64(n)*b.block/r.Seconds)), nil
		}
	}
}

func (s *session) textsFile() string { return filepath.Join(s.scratch, "texts.json") }
