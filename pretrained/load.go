package pretrained

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"runtime"
	"slices"
	"sync"
	"time"
	"unsafe"

	"golang.org/x/sync/errgroup"

	"github.com/torchgo/torchgo/torch"
	"github.com/torchgo/torchgo/torch/nn"
)

// stagingBytes is what a reader that converts holds at once.
const stagingBytes = 4 << 20

// FromPretrained loads a model by its config's model_type and the Auto class.
func (a *AutoClass) FromPretrained(ctx context.Context, path string, opts Options) (Model, error) {
	opts.Class = a.Name
	m, _, err := Load(ctx, path, opts)
	return m, err
}

// Load loads a model from a directory, or from one checkpoint file with config.json beside it, and reports
// what it did. The model is in evaluation mode and belongs to the caller: Close frees it.
func Load(ctx context.Context, path string, opts Options) (Model, *Report, error) {
	start := time.Now()
	l, err := prepare(ctx, path, opts)
	if err != nil {
		return nil, nil, err
	}
	defer l.close()
	warnings, err := l.fill(ctx)
	if err != nil {
		l.model.Close()
		return nil, nil, err
	}
	p := l.plan
	r := &Report{Path: p.Path, Class: p.Class, DType: p.DType, DTypeSource: p.DTypeSource, DeviceMap: p.DeviceMap,
		MissingKeys: p.MissingKeys, UnexpectedKeys: p.UnexpectedKeys, MismatchedKeys: p.MismatchedKeys,
		TiedKeys: l.model.base().ties, Warnings: append(slices.Clone(p.Warnings), warnings...),
		NumParameters: l.model.NumParameters(), MemoryFootprint: l.model.MemoryFootprint(), PeakRSSBytes: peakRSS()}
	for _, w := range p.Weights {
		if w.Action != InitAction {
			r.BytesRead += w.FileBytes
		}
	}
	r.Seconds = time.Since(start).Seconds()
	return l.model, r, nil
}

// fill runs the pipeline from the plan on: stream, initialise, tie, check.
func (l *loader) fill(ctx context.Context) (warnings []string, err error) {
	if err := l.stream(ctx); err != nil {
		return nil, err
	}
	err = torch.TryDo(func() {
		l.initialise()
		warnings = l.tie()
		nn.Eval(l.model)
	})
	if err != nil {
		return nil, &Error{File: l.checkpoint.Path(), Detail: "initialising", Err: err}
	}
	return warnings, errors.Join(l.checkComplete(), ctx.Err())
}

func (l *loader) workers() int {
	if l.opts.Threads > 0 {
		return l.opts.Threads
	}
	return min(4, runtime.GOMAXPROCS(0))
}

// stream gives every weight that the checkpoint has its value.
func (l *loader) stream(ctx context.Context) error {
	g, running := errgroup.WithContext(ctx)
	g.SetLimit(l.workers())
	progress := l.newProgress()
	for i := range l.plan.Weights {
		w := &l.plan.Weights[i]
		if w.Action == InitAction {
			continue
		}
		if running.Err() != nil {
			break
		}
		g.Go(func() error {
			if err := running.Err(); err != nil {
				return err
			}
			t, err := l.read(running, w, progress)
			if err != nil {
				var te *torch.Error
				if errors.As(err, &te) {
					err = &Error{File: w.file.Path(), Tensor: w.Source, Err: te}
				}
				return err
			}
			replace(w.slot, t)
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	for _, f := range l.checkpoint.Files() {
		if err := f.Unchanged(); err != nil {
			return err
		}
	}
	return ctx.Err()
}

// replace puts t in a slot in place of a tensor on the meta device.
func replace(s nn.Slot, t *torch.Tensor) {
	old := s.Tensor()
	t.SetRequiresGrad(old.RequiresGrad())
	s.Set(t)
	old.Close()
}

// read makes the tensor of a weight on the device of the model.
func (l *loader) read(ctx context.Context, w *PlannedWeight, progress func(int64)) (t *torch.Tensor, err error) {
	switch w.Action {
	case MapAction:
		t, err = w.view()
		progress(w.FileBytes)
	case ReadAction:
		t, err = w.readAll(ctx, progress)
	default:
		t, err = w.cast(ctx, progress)
	}
	if err != nil || l.device == torch.CPU {
		return t, err
	}
	return torch.Try(func() *torch.Tensor {
		defer t.Close()
		return t.To(l.device)
	})
}

// view is the tensor in the mapped file.
func (w *PlannedWeight) view() (*torch.Tensor, error) {
	m, err := w.file.Map()
	if err != nil {
		return nil, err
	}
	data, err := m.Tensor(w.Source)
	if err != nil {
		return nil, errors.Join(err, m.Release())
	}
	return torch.Try(func() *torch.Tensor {
		return torch.FromBlob(unsafe.Pointer(unsafe.SliceData(data)), len(data), w.Shape, w.dtype, func() { _ = m.Release() })
	})
}

func (w *PlannedWeight) readAll(ctx context.Context, progress func(int64)) (*torch.Tensor, error) {
	t, err := w.empty()
	if err != nil {
		return nil, err
	}
	dst := t.Bytes()
	for off := 0; off < len(dst); off += stagingBytes {
		if err = ctx.Err(); err == nil {
			err = w.file.ReadPart(w.Source, dst[off:min(off+stagingBytes, len(dst))], off)
		}
		if err != nil {
			t.Close()
			return nil, err
		}
		progress(int64(min(stagingBytes, len(dst)-off)))
	}
	return t, nil
}

// cast reads pieces into a staging buffer and converts them into place.
func (w *PlannedWeight) cast(ctx context.Context, progress func(int64)) (*torch.Tensor, error) {
	t, err := w.empty()
	if err != nil {
		return nil, err
	}
	size, n := w.dtype.ItemSize(), t.Numel()
	step := min(stagingBytes/size, n)
	if step == 0 {
		return t, nil
	}
	tryErr := torch.TryDo(func() {
		torch.Scope(func() {
			torch.NoGrad(func() {
				stage := torch.Empty([]int{step}, torch.EmptyOptions{DType: w.dtype})
				buf, flat := stage.Bytes(), t.View(-1)
				for at := 0; at < n && err == nil; at += step {
					k := min(step, n-at)
					if err = ctx.Err(); err == nil {
						err = w.file.ReadPart(w.Source, buf[:k*size], at*size)
					}
					if err != nil {
						return
					}
					flat.Narrow(0, at, k).Copy_(stage.Narrow(0, 0, k))
					progress(int64(k * size))
				}
			})
		})
	})
	if err = errors.Join(err, tryErr); err != nil {
		t.Close()
		return nil, err
	}
	return t, nil
}

func (w *PlannedWeight) empty() (*torch.Tensor, error) {
	return torch.Try(func() *torch.Tensor {
		return torch.Empty(w.Shape, torch.EmptyOptions{DType: w.slot.Tensor().DType()})
	})
}

// newProgress adds up what the readers report for the caller's callback.
func (l *loader) newProgress() func(int64) {
	if l.opts.Progress == nil {
		return func(int64) {}
	}
	var mu sync.Mutex
	var done, total int64
	for _, w := range l.plan.Weights {
		if w.Action != InitAction {
			total += w.FileBytes
		}
	}
	return func(n int64) {
		mu.Lock()
		defer mu.Unlock()
		done += n
		l.opts.Progress(done, total)
	}
}

// initialise gives what the checkpoint lacks, and buffers that are not saved, their first values.
func (l *loader) initialise() {
	in := &Init{Std: 0.02, fresh: map[*torch.Tensor]bool{}}
	if f, ok := configFields(l.config)["initializer_range"]; ok && f.Float() != 0 {
		in.Std = math.Abs(f.Float())
	}
	for _, s := range nn.Slots(l.model) {
		if old := s.Tensor(); old.Device() == torch.Meta {
			if _, tied := l.plan.TiedKeys[s.Name]; tied {
				continue // takes its source's
			}
			replace(s, torch.Empty(old.Shape(), torch.EmptyOptions{DType: old.DType(), Device: l.device}))
			in.fresh[s.Tensor()] = true
		}
	}
	in.initialise(l.model)
	for _, s := range nn.Slots(l.model) {
		if in.Fresh(s.Tensor()) {
			panic(&torch.Error{Op: "init", Kind: torch.ErrArgument, Message: fmt.Sprintf("%s has no rule for the first value of %s", l.class.Name, s.Name)})
		}
	}
}

// tie makes tied names one tensor. Two that are both in the checkpoint and differ stay apart.
func (l *loader) tie() (warnings []string) {
	ties := l.plan.TiedKeys
	slots := map[string]nn.Slot{}
	for _, s := range nn.Slots(l.model) {
		slots[s.Name] = s
	}
	for _, target := range slices.Sorted(maps.Keys(ties)) {
		source := ties[target]
		t, s := slots[target], slots[source]
		if l.compare[target] != "" {
			if !t.Tensor().Equal(s.Tensor()) {
				delete(ties, target)
				warnings = append(warnings, fmt.Sprintf("%s and %s should be tied, but differ in the checkpoint: they are not tied "+
					"(set tie_word_embeddings to false in config.json)", target, source))
				continue
			}
		}
		old := t.Tensor()
		t.Set(s.Tensor())
		old.Close()
	}
	l.model.base().ties = ties
	return warnings
}

// checkComplete makes sure that no tensor without data escapes.
func (l *loader) checkComplete() error {
	for _, s := range nn.Slots(l.model) {
		if s.Tensor().Device() == torch.Meta {
			return &Error{File: l.checkpoint.Path(), Tensor: s.Name, Class: ErrMissingTensor, Detail: "left without data"}
		}
	}
	return nil
}
