package main

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/torchgo/torchgo/pretrained"
	"github.com/torchgo/torchgo/pretrained/gguf"
	"github.com/torchgo/torchgo/torch"
	"github.com/torchgo/torchgo/torch/nn"
)

// The works of load.py, in Go: models are folders of checkpoints by the names of shapes.
func loadWorks(ctx context.Context, models string) map[string]work {
	load := func(name string, dtype torch.DType) work {
		return func(n, _ int) (check float64) {
			for range n {
				m, err := loadModel(ctx, models, name, dtype)
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
		"load-same":    load("llama", torch.BFloat16),
		"load-cast":    load("llama", torch.Float32),
		"load-experts": load("mixtral", torch.BFloat16),
		"load-bin":     load("llama-bin", torch.BFloat16),
		"load-gguf":    load("gguf", torch.BFloat16),
		"dequantize":   func(int, int) float64 { return dequantizeFile(filepath.Join(models, "gguf", ggufFile)) },
		"pread":        func(n, _ int) float64 { return readFiles(models) },
		"copy":         copyWork(),
	}
}

func loadModel(ctx context.Context, models, name string, dtype torch.DType) (pretrained.Model, error) {
	opts := pretrained.Options{DType: dtype}
	if name == "gguf" {
		opts.GGUFFile = ggufFile
	}
	m, r, err := pretrained.Load(ctx, filepath.Join(models, name), opts)
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

// ggufFile is SmolLM2's file in its folder, smolFloats how many bytes of float32 its tensors are.
const (
	ggufFile   = "model.gguf"
	smolFloats = 538060032
)

// dequantizeFile reads the tensors of a GGUF file, 4 MiB at a time, and adds one element of each.
func dequantizeFile(path string) (sum float64) {
	f, err := gguf.Open(path)
	if err != nil {
		panic(err)
	}
	defer f.Close()
	buf, read := make([]byte, 4<<20), 0
	for _, t := range f.Tensors() {
		middle := t.Bytes / 8 * 4
		for off := 0; off < t.Bytes; off += len(buf) {
			part := buf[:min(len(buf), t.Bytes-off)]
			if err := f.ReadPart(t.Name, part, off); err != nil {
				panic(err)
			}
			if read += len(part); middle >= off && middle < off+len(part) {
				sum += float64(math.Float32frombits(binary.LittleEndian.Uint32(part[middle-off:])))
			}
		}
	}
	if read != smolFloats {
		panic(fmt.Sprintf("%d bytes of float32, not %d", read, smolFloats))
	}
	return sum
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
	m, err := loadModel(ctx, models, name, map[string]torch.DType{"bfloat16": torch.BFloat16, "float32": torch.Float32}[dtype])
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
