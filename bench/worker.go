package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"runtime"
	"strings"
	"time"

	"github.com/torchgo/torchgo/torch"
)

// work does something n times, on the input from at on, and returns a number that depends on the result.
type work func(n, at int) float64

// runWorker is this program as a worker.
func runWorker(ctx context.Context, kind, model, texts string) error {
	runtime.LockOSThread() // as docs/benchmarks.md advises: one thread computes, so libgomp has one pool
	switch kind {
	case "ops":
		return serve(opWorks())
	case "embed":
		works, err := embedWorks(ctx, model, texts)
		if err != nil {
			return err
		}
		return serve(works)
	case "train":
		return serve(trainWorks())
	case "first":
		return first(ctx, model)
	case "load":
		registerMixtral()
		return serve(loadWorks(ctx, model))
	}
	if words := strings.Fields(kind); len(words) == 3 && words[0] == "load" {
		return loadOnce(ctx, model, words[1], words[2])
	}
	return fmt.Errorf("unknown worker %q", kind)
}

// serve is the worker's end of the protocol.
func serve(works map[string]work) error {
	out := json.NewEncoder(os.Stdout)
	versions := map[string]string{"torchgo's libtorch": torch.Version()}
	if err := out.Encode(hello{Versions: versions, Threads: torch.NumThreads()}); err != nil {
		return err
	}
	in := json.NewDecoder(os.Stdin)
	for {
		var c command
		if err := in.Decode(&c); err == io.EOF {
			return nil
		} else if err != nil {
			return err
		}
		if err := out.Encode(timed(works, c)); err != nil {
			return err
		}
	}
}

func timed(works map[string]work, c command) (r reply) {
	w, ok := works[c.Work]
	if !ok {
		return reply{Error: fmt.Sprintf("unknown work %q", c.Work)}
	}
	_, err := torch.Try(func() any {
		if c.Warm > 0 {
			w(c.Warm, c.At)
		}
		cpu, start := processorSeconds(), time.Now()
		r.Check = w(c.N, c.At)
		r.Seconds = time.Since(start).Seconds()
		r.CPU = processorSeconds() - cpu
		return nil
	})
	if err != nil {
		r.Error = err.Error()
	}
	return r
}
