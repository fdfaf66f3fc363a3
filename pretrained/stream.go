package pretrained

import (
	"context"
	"errors"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sync/errgroup"

	"github.com/torchgo/torchgo/internal/weights"
	"github.com/torchgo/torchgo/torch"
	"github.com/torchgo/torchgo/torch/nn"
)

// stagingBytes is what a reader that converts holds at once.
const stagingBytes = 4 << 20

// workers is the number of readers. HF_DEACTIVATE_ASYNC_LOAD is Python's switch for one.
func (l *loader) workers() int {
	if v := strings.ToUpper(os.Getenv("HF_DEACTIVATE_ASYNC_LOAD")); slices.Contains([]string{"1", "ON", "YES", "TRUE"}, v) {
		return 1
	}
	if l.opts.Threads > 0 {
		return l.opts.Threads
	}
	return min(4, runtime.GOMAXPROCS(0))
}

// stream gives every weight that the checkpoint has its value. Parts arrive in any order, each in its place.
func (l *loader) stream(ctx context.Context) error {
	g, running := errgroup.WithContext(ctx)
	g.SetLimit(l.workers())
	progress := l.newProgress()
	l.warmUp()
	var arrivals []*arrival
	for i := range l.plan.Weights {
		w := &l.plan.Weights[i]
		if w.Action == InitAction {
			continue
		}
		if l.places[w.Key].disk && w.inPlace() {
			l.mu.Lock()
			l.onDisk[w.Key] = w.source()
			l.mu.Unlock()
			continue
		}
		a := &arrival{PlannedWeight: w, l: l}
		a.missing.Store(int64(len(w.Parts)))
		arrivals = append(arrivals, a)
		for k := range w.Parts {
			p := &w.Parts[k]
			g.Go(func() error {
				if err := running.Err(); err != nil {
					return err
				}
				err := a.take(running, p, progress)
				var te *torch.Error
				if errors.As(err, &te) {
					err = &Error{File: p.path(), Tensor: p.Source, Err: te}
				}
				return err
			})
		}
	}
	err := g.Wait()
	l.stages.close()
	if slices.ContainsFunc(arrivals, func(a *arrival) bool { return a.Action != MapAction }) {
		hasMadeWeights.Store(true)
	}
	for _, a := range arrivals {
		if a.t != nil { // it lacks a part
			a.t.Close()
		}
	}
	if err != nil {
		return err
	}
	if l.checkpoint != nil {
		for _, f := range l.checkpoint.Files() {
			if err := f.Unchanged(); err != nil {
				return err
			}
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

// arrival is a weight whose parts are being read.
type arrival struct {
	*PlannedWeight
	l       *loader
	missing atomic.Int64 // parts
	once    sync.Once
	t       *torch.Tensor // on the CPU; nil before the first part and after the last
	err     error         // of making t
}

// take brings in one part. After the last, the weight is in the model.
func (a *arrival) take(ctx context.Context, p *Part, progress func(int64)) error {
	a.once.Do(func() {
		if a.Action == MapAction {
			a.t, a.err = p.view(a.Shape)
			return
		}
		a.t, a.err = torch.Try(func() *torch.Tensor {
			t := torch.Empty(a.Shape, torch.EmptyOptions{DType: a.slot.Tensor().DType()})
			useHugePages(t.Bytes(), hasMadeWeights.Load())
			return t
		})
	})
	if a.err != nil {
		return a.err
	}
	if a.Action == MapAction {
		progress(p.FileBytes)
	} else if err := p.read(ctx, a.t, &a.l.stages, progress); err != nil {
		return err
	}
	if a.missing.Add(-1) > 0 {
		return nil
	}
	t, at := a.t, a.l.places[a.Key]
	if at.disk {
		a.t = nil
		return a.l.spill(ctx, a.Key, t)
	}
	if at.device != torch.CPU {
		var err error
		if t, err = torch.Try(func() *torch.Tensor { return devices.move(a.t, at.device) }); err != nil {
			return err
		}
		a.t.Close()
	}
	a.t = nil
	replace(a.slot, t)
	return nil
}

// hasMadeWeights: an earlier load of this process has filled fresh memory.
var hasMadeWeights atomic.Bool

// stages are the buffers of readers that convert. They are used again: fresh memory costs page faults.
type stages struct {
	mu   sync.Mutex
	free map[torch.DType][]*torch.Tensor
}

// take gives a buffer of n elements, or of more.
func (s *stages) take(d torch.DType, n int) (t *torch.Tensor, err error) {
	s.mu.Lock()
	if list := s.free[d]; len(list) > 0 {
		t, s.free[d] = list[len(list)-1], list[:len(list)-1]
	}
	s.mu.Unlock()
	if t != nil && t.Numel() >= n {
		return t, nil
	}
	if t != nil {
		t.Close()
	}
	return torch.Try(func() *torch.Tensor { return torch.Empty([]int{n}, torch.EmptyOptions{DType: d}) })
}

func (s *stages) put(t *torch.Tensor) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.free == nil {
		s.free = map[torch.DType][]*torch.Tensor{}
	}
	s.free[t.DType()] = append(s.free[t.DType()], t)
}

func (s *stages) close() {
	for _, list := range s.free {
		for _, t := range list {
			t.Close()
		}
	}
	s.free = nil
}

// view is a part that is all of its weight, in the mapped file.
func (p *Part) view(shape []int) (*torch.Tensor, error) {
	m, data, err := p.bytes()
	if err != nil {
		return nil, err
	}
	return p.blob(m, data, shape)
}

// bytes are a part's in the mapped file.
func (p *Part) bytes() (*weights.Mapping, []byte, error) {
	m, err := p.file.Map()
	if err != nil {
		return nil, nil, err
	}
	data, err := m.Tensor(p.Source)
	if err != nil {
		return nil, nil, errors.Join(err, m.Release())
	}
	at := p.place.from.offset * p.dtype.ItemSize()
	return m, data[at : at+int(p.FileBytes)], nil
}

// blob makes a tensor of such bytes. It takes over the mapping.
func (p *Part) blob(m *weights.Mapping, data []byte, shape []int) (*torch.Tensor, error) {
	t, err := torch.Try(func() *torch.Tensor {
		return torch.FromBlob(unsafe.Pointer(unsafe.SliceData(data)), len(data), shape, p.dtype, func() { _ = m.Release() })
	})
	if err != nil {
		_ = m.Release()
	}
	return t, err
}

// read reads a part into its place in t: straight, or where elements change their order or dtype by way of a
// buffer.
func (p *Part) read(ctx context.Context, t *torch.Tensor, buffers *stages, progress func(int64)) error {
	if p.tensor != nil {
		return p.copyTensor(t, progress)
	}
	size := p.dtype.ItemSize()
	if p.dtype == t.DType() && p.place.run() {
		at := p.place.to.offset * size
		dst := t.Bytes()[at : at+int(p.FileBytes)]
		from := p.place.from.offset * size
		for off := 0; off < len(dst); off += stagingBytes {
			if err := ctx.Err(); err != nil {
				return err
			}
			if err := p.file.ReadPart(p.Source, dst[off:min(off+stagingBytes, len(dst))], from+off); err != nil {
				return err
			}
			progress(int64(min(stagingBytes, len(dst)-off)))
		}
		return nil
	}
	limit := stagingBytes / size
	stage, err := buffers.take(p.dtype, min(limit, p.place.span()))
	if err != nil {
		return err
	}
	defer buffers.put(stage)
	buf := stage.Bytes()
	return p.place.each(limit, func(c blockCopy) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := p.file.ReadPart(p.Source, buf[:c.span()*size], c.from.offset*size); err != nil {
			return err
		}
		c.from.offset = 0
		err := torch.TryDo(func() { // the file was read without a permit to compute
			torch.Scope(func() {
				torch.NoGrad(func() { c.to.view(t, c.sizes).Copy_(c.from.view(stage, c.sizes)) })
			})
		})
		if err != nil {
			return err
		}
		progress(int64(c.numel() * size))
		return nil
	})
}

// newProgress adds up what the readers report for the caller's callback.
func (l *loader) newProgress() func(int64) {
	if l.opts.Progress == nil {
		return func(int64) {}
	}
	var mu sync.Mutex
	var done, total int64
	for i := range l.plan.Weights {
		if w := &l.plan.Weights[i]; w.Action != InitAction && !(l.places[w.Key].disk && w.inPlace()) {
			total += w.FileBytes()
		}
	}
	return func(n int64) {
		mu.Lock()
		defer mu.Unlock()
		done += n
		l.opts.Progress(done, total)
	}
}
