package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/torchgo/torchgo/torch"
)

// work does something n times and returns a number that depends on the result.
type work func(n int) float64

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

// warm is how many repetitions bring the caches back that others used meanwhile.
func warm(n int) int { return (n + 9) / 10 }

func timed(works map[string]work, c command) (r reply) {
	w, ok := works[c.Work]
	if !ok {
		return reply{Error: fmt.Sprintf("unknown work %q", c.Work)}
	}
	_, err := torch.Try(func() any {
		w(warm(c.N))
		cpu, start := processorSeconds(), time.Now()
		r.Check = w(c.N)
		r.Seconds = time.Since(start).Seconds()
		r.CPU = processorSeconds() - cpu
		return nil
	})
	if err != nil {
		r.Error = err.Error()
	}
	return r
}
