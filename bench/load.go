package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/torchgo/torchgo/pretrained"
	"github.com/torchgo/torchgo/torch"
	"github.com/torchgo/torchgo/torch/nn"
)

// The works of load.py, in Go: models are folders of checkpoints by the names of shapes.
func loadWorks(ctx context.Context, models string) map[string]work {
	load := func(name string, opts pretrained.Options) work {
		return func(n, _ int) (check float64) {
			for range n {
				m, err := loadModel(ctx, filepath.Join(models, name), opts)
				if err != nil {
					panic(err)
				}
				check += someOf(m)
				m.Close()
			}
			return check
		}
	}
	return map[string]work{
		"load-same":    load("llama", pretrained.Options{}),
		"load-cast":    load("llama", pretrained.Options{DType: torch.Float32}),
		"load-experts": load("mixtral", pretrained.Options{}),
		"pread":        func(n, _ int) float64 { return readFiles(models) },
		"copy":         copyWork(),
	}
}

func loadModel(ctx context.Context, dir string, opts pretrained.Options) (pretrained.Model, error) {
	m, r, err := pretrained.Load(ctx, dir, opts)
	if err == nil && len(r.MissingKeys)+len(r.UnexpectedKeys) > 0 {
		err = fmt.Errorf("not all keys match: %s", r)
	}
	return m, err
}

// someOf is a number that depends on each weight, of which it reads one element.
func someOf(m pretrained.Model) (sum float64) {
	torch.Inference(func() {
		for _, p := range nn.NamedParameters(m) {
			sum += torch.Item[float64](p.View(-1).Narrow(0, p.Numel()/2, 1).ToDType(torch.Float64))
		}
	})
	return sum
}

// readFiles reads the llama's files with two readers, 4 MiB at a time, into memory that is used again.
func readFiles(models string) (bytes float64) {
	files, err := filepath.Glob(filepath.Join(models, "llama", "*.safetensors"))
	if err != nil {
		panic(err)
	}
	var g errgroup.Group
	g.SetLimit(2)
	var mu sync.Mutex
	for _, name := range files {
		g.Go(func() error {
			f, err := os.Open(name)
			if err != nil {
				return err
			}
			defer f.Close()
			buf := make([]byte, 4<<20)
			for at := int64(0); ; {
				n, err := f.ReadAt(buf, at)
				if at += int64(n); n < len(buf) {
					mu.Lock()
					bytes += float64(at)
					mu.Unlock()
					return nil
				}
				if err != nil {
					return err
				}
			}
		})
	}
	if err := g.Wait(); err != nil {
		panic(err)
	}
	return bytes
}

const copyElements = 64 << 20

// loadBytes is the size of the llama's tensors.
var loadBytes = func() (bytes float64) {
	for _, dims := range shapes["llama"].dims() {
		n := 2.0
		for _, d := range dims {
			n *= float64(d)
		}
		bytes += n
	}
	return bytes
}()

// copyWork copies float32 tensors of 256 MiB with libtorch.
func copyWork() work {
	var from, to *torch.Tensor
	return func(n, _ int) float64 {
		if from == nil {
			from, to = torch.Ones([]int{copyElements}), torch.Ones([]int{copyElements})
		}
		for range n {
			to.Copy_(from)
		}
		return float64(n * copyElements * 4)
	}
}

// footprint is the memory of a process at one time, in MiB.
type footprint struct{ total, peak, anonymous float64 }

func readFootprint() (f footprint) {
	data, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return f
	}
	for line := range strings.Lines(string(data)) {
		name, rest, _ := strings.Cut(line, ":")
		kib, err := strconv.ParseFloat(strings.TrimSuffix(strings.TrimSpace(rest), " kB"), 64)
		if err != nil {
			continue
		}
		switch name {
		case "VmRSS":
			f.total = kib / 1024
		case "VmHWM":
			f.peak = kib / 1024
		case "RssAnon":
			f.anonymous = kib / 1024
		}
	}
	return f
}

// loadOnce loads a model, prints what the process took for it, and ends: the same in load.py.
func loadOnce(ctx context.Context, models, name, dtype string) error {
	var opts pretrained.Options
	if dtype == "float32" {
		opts.DType = torch.Float32
	}
	if err := torch.Load(); err != nil {
		return err
	}
	torch.Scope(func() { torch.Ones([]int{2, 2}).AddScalar(1) })
	before := readFootprint()
	anonymous, stop, done := 0.0, make(chan struct{}), make(chan struct{})
	go func() { // the most anonymous memory at any time
		defer close(done)
		for {
			anonymous = max(anonymous, readFootprint().anonymous)
			select {
			case <-stop:
				return
			case <-time.After(2 * time.Millisecond):
			}
		}
	}()
	m, err := loadModel(ctx, filepath.Join(models, name), opts)
	if err != nil {
		return err
	}
	close(stop)
	<-done
	after := readFootprint()
	model := float64(m.MemoryFootprint()) / (1 << 20)
	return json.NewEncoder(os.Stdout).Encode(map[string]any{"check": []float64{someOf(m)}, "model": model, "base": before.total,
		"peak": after.peak - before.total, "anonymous": anonymous - before.anonymous})
}
