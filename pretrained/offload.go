package pretrained

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/torchgo/torchgo/internal/weights"
	"github.com/torchgo/torchgo/pretrained/safetensors"
	"github.com/torchgo/torchgo/torch"
	"github.com/torchgo/torchgo/torch/nn"
)

// offloaded is a weight that is on its device only while a module needs it. In between, one on the meta device
// stands in its slots.
type offloaded struct {
	name        string
	slots       []nn.Slot // several: it is tied
	placeholder *torch.Tensor
	d           *dispatch
	device      torch.Device
	source      weightSource
	kept        *torch.Tensor // the source of a weight in CPU memory

	// The rest is guarded by dispatch.mu.
	users int
	ahead bool   // one of the users is the prefetch
	visit *visit // nil: nobody has asked
}

// weightSource begins to read a weight.
type weightSource func() (fetch, error)

// fetch is a weight that is being read. Operators need a permit where many goroutines compute (see torch.Scope), and
// those that wait for a weight hold theirs: so read, which has a goroutine of its own, calls none, and whoever wanted
// the weight does begin and finish.
type fetch struct {
	read    func() error
	finish  func() (*torch.Tensor, error) // on the CPU
	discard func()                        // in place of finish
	hold    *torch.Tensor                 // what is read into; nil: none
	forget  func()                        // gives memory back before what finish made is closed
}

// visit is one stay of a weight on its device.
type visit struct {
	fetch
	done  chan struct{} // closed when it is read, or err is set
	once  sync.Once     // finishes
	value *torch.Tensor
	err   error
}

// offload makes offloaded weights of what the map puts on disk, and beside a GPU on the CPU.
func (l *loader) offload(d *dispatch) {
	byTensor := map[*torch.Tensor]*offloaded{}
	for _, s := range nn.Slots(l.model) {
		p, t := l.places[s.Name], s.Tensor()
		if w := byTensor[t]; w != nil {
			w.slots = append(w.slots, s)
			continue
		}
		if !l.offloads(p) {
			continue
		}
		w := &offloaded{d: d, name: s.Name, slots: []nn.Slot{s}, device: l.device}
		if read := l.onDisk[s.Name]; read != nil {
			w.placeholder, w.source = t, read
		} else {
			w.kept = t
			w.source = func() (fetch, error) { return keep(t), nil }
			w.placeholder = torch.Empty(t.Shape(), torch.EmptyOptions{DType: t.DType(), Device: torch.Meta}).SetRequiresGrad(t.RequiresGrad())
			torch.Keep(w.placeholder)
			t.SetRequiresGrad(false)
		}
		byTensor[t] = w
		d.weights = append(d.weights, w)
	}
	for _, w := range d.weights {
		d.away[w.placeholder] = w
		for _, s := range w.slots {
			s.Set(w.placeholder)
		}
	}
}

// offloads reports whether what lies there is brought to the main device when it is needed.
func (l *loader) offloads(p place) bool {
	return p.disk || p.device == torch.CPU && l.device != torch.CPU
}

// inPlace reports whether a weight lies in one of the checkpoint's files as a whole.
func (w *PlannedWeight) inPlace() bool {
	return w.Action != InitAction && len(w.Parts) == 1 && w.Parts[0].file != nil && w.Parts[0].place.run() && w.Parts[0].place.numel() == w.slot.Tensor().Numel()
}

// source reads a weight that is in place.
func (w *PlannedWeight) source() weightSource {
	p, shape, dtype := w.Parts[0], w.Shape, w.slot.Tensor().DType()
	if w.Action == MapAction {
		return func() (fetch, error) { return p.fetchMapped(shape), nil }
	}
	return func() (fetch, error) { return p.fetchRead(shape, dtype) }
}

func (p *Part) fetchMapped(shape []int) fetch {
	var m *weights.Mapping
	var data []byte
	return fetch{
		read: func() (err error) {
			if err := p.file.Unchanged(); err != nil {
				return err
			}
			if m, data, err = p.bytes(); err == nil {
				touch(data)
			}
			return err
		},
		finish: func() (*torch.Tensor, error) { return p.blob(m, data, shape) },
		forget: func() { m.Forget(p.Source) },
		discard: func() {
			if m != nil {
				m.Forget(p.Source)
				_ = m.Release()
			}
		},
	}
}

func (p *Part) fetchRead(shape []int, dtype torch.DType) (fetch, error) {
	raw, err := torch.Try(func() *torch.Tensor { return torch.Empty(shape, torch.EmptyOptions{DType: p.dtype}) })
	if err != nil {
		return fetch{}, err
	}
	buf := raw.Bytes()
	return fetch{
		hold: raw,
		read: func() error {
			if err := p.file.Unchanged(); err != nil {
				return err
			}
			return p.file.ReadPart(p.Source, buf, p.place.from.offset*p.dtype.ItemSize())
		},
		finish: func() (*torch.Tensor, error) {
			if p.dtype == dtype {
				return raw, nil
			}
			defer raw.Close()
			return torch.Try(func() *torch.Tensor { return raw.ToDType(dtype) })
		},
		forget:  func() {},
		discard: raw.Close,
	}, nil
}

// keep gives a weight in CPU memory.
func keep(t *torch.Tensor) fetch {
	nothing := func() {}
	return fetch{
		read:    func() error { return nil },
		finish:  func() (*torch.Tensor, error) { return torch.Try(t.Detach) },
		forget:  nothing,
		discard: nothing,
	}
}

// touch brings the pages of a mapped file in.
func touch(data []byte) {
	var sum byte
	for i := 0; i < len(data); i += 4096 {
		sum += data[i]
	}
	touched.Store(uint32(sum))
}

var touched atomic.Uint32 // so that touch has a result

// now reads a weight at once: a tensor of the caller's, or of its scope, on the CPU.
func (s weightSource) now() (*torch.Tensor, error) {
	f, err := s()
	if err != nil {
		return nil, err
	}
	if err := f.read(); err != nil {
		f.discard()
		return nil, err
	}
	return f.finish()
}

// spill writes a weight that the checkpoint does not have as it is to the offload folder.
// t is closed.
func (l *loader) spill(ctx context.Context, name string, t *torch.Tensor) error {
	defer t.Close()
	path := filepath.Join(l.opts.OffloadFolder, name+".safetensors")
	if err := os.MkdirAll(l.opts.OffloadFolder, 0o777); err != nil {
		return &Error{File: l.opts.OffloadFolder, Err: pathCause(err)}
	}
	if err := SaveFile(ctx, path, map[string]*torch.Tensor{name: t}, nil); err != nil {
		return err
	}
	f, err := safetensors.Open(path)
	if err != nil {
		return err
	}
	info, _ := f.Tensor(name)
	w := PlannedWeight{Key: name, slot: l.slots[name], Shape: t.Shape()}
	w.Parts = []Part{newPart(source{file: f.File, TensorInfo: info}, whole(t.Shape()).copyInto())}
	w.Action = l.action(&w)
	l.mu.Lock()
	l.spilled = append(l.spilled, f)
	l.onDisk[name] = w.source()
	l.mu.Unlock()
	return nil
}

// spillRest does so with those that were initialised.
func (l *loader) spillRest(ctx context.Context) error {
	for _, s := range nn.Slots(l.model) {
		t := s.Tensor()
		if !l.places[s.Name].disk || t.Device() == torch.Meta {
			continue
		}
		empty := torch.Empty(t.Shape(), torch.EmptyOptions{DType: t.DType(), Device: torch.Meta}).SetRequiresGrad(t.RequiresGrad())
		if err := l.spill(ctx, s.Name, t); err != nil {
			return err
		}
		s.Set(empty)
	}
	return nil
}

// value is what a slot holds or stands for: a tensor of the caller's.
func (l *loader) value(s nn.Slot) *torch.Tensor {
	if read := l.onDisk[s.Name]; read != nil {
		t, err := read.now()
		if err != nil {
			panic(&torch.Error{Op: "read", Kind: err, Message: err.Error()})
		}
		return t
	}
	return s.Tensor().Detach()
}

// checkFolder refuses a plan that would have to write weights, and has no folder to.
func (l *loader) checkFolder() error {
	for i := range l.plan.Weights {
		w := &l.plan.Weights[i]
		if l.places[w.Key].disk && !w.inPlace() && l.opts.OffloadFolder == "" {
			return &Error{File: l.path(), Tensor: w.Key, Class: ErrArgument, Detail: "offloading to disk",
				Actual: "a weight that the checkpoint does not have as it is", Remedy: "give an offload folder (OffloadFolder) to write it to"}
		}
	}
	return nil
}

// enter brings in a module's weights, and has the next one's read meanwhile. The caller is in a scope. It panics with
// a *torch.Error whose kind is the error that tells the file.
func (u *module) enter() {
	d := u.d
	d.mu.Lock()
	if d.closed {
		d.mu.Unlock()
		panic(&torch.Error{Op: "forward", Kind: torch.ErrClosed, Message: "the model was closed"})
	}
	var begun []*visit
	visits := make([]*visit, len(u.weights))
	for i, w := range u.weights {
		if w.ahead {
			w.ahead = false
		} else {
			w.users++
		}
		if w.visit == nil {
			begun = append(begun, w.begin())
		}
		visits[i] = w.visit
	}
	d.read(begun)
	begun = nil
	if u.next != nil {
		for _, w := range u.next.weights {
			if w.visit == nil {
				begun, w.ahead = append(begun, w.begin()), true
				w.users++
			}
		}
	}
	d.read(begun)
	d.mu.Unlock()
	for _, v := range visits {
		<-v.done
	}
	for i, w := range u.weights {
		v := visits[i]
		v.once.Do(func() { w.finish(v) })
		if v.err != nil {
			u.leave()
			panic(&torch.Error{Op: "forward", Kind: v.err, Message: fmt.Sprintf("bringing in %s: %v", w.name, v.err)})
		}
	}
}

// begin starts a visit. The caller holds dispatch.mu.
func (w *offloaded) begin() *visit {
	v := &visit{done: make(chan struct{})}
	v.fetch, v.err = w.source()
	torch.Keep(v.hold)
	w.visit = v
	return v
}

// read reads weights in a goroutine of its own.
func (d *dispatch) read(visits []*visit) {
	if len(visits) == 0 {
		return
	}
	d.reads.Add(1)
	go func() {
		defer d.reads.Done()
		for _, v := range visits {
			if v.err == nil {
				if v.err = v.read(); v.err != nil {
					v.discard()
				}
			}
			close(v.done)
		}
	}()
}

// finish puts what was read on the device and in the slots.
func (w *offloaded) finish(v *visit) {
	if v.err != nil {
		return
	}
	t, err := v.fetch.finish()
	if err == nil && w.device != torch.CPU {
		host := t
		t, err = torch.Try(func() *torch.Tensor { return devices.move(host, w.device) })
		v.forget()
		host.Close()
	}
	if v.err = err; err != nil {
		return
	}
	torch.Keep(t)
	w.d.mu.Lock()
	defer w.d.mu.Unlock()
	v.value = t
	for _, s := range w.slots {
		s.Set(t)
	}
}

// begin and end count the passes. What was brought in ahead and not used is dropped after the last.
func (d *dispatch) begin() {
	d.mu.Lock()
	d.passes++
	d.mu.Unlock()
}

func (d *dispatch) end() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.passes--
	for _, w := range d.weights {
		if d.passes > 0 || !w.ahead || d.closed {
			continue
		}
		v := w.visit
		d.mu.Unlock()
		<-v.done
		d.mu.Lock()
		if d.passes == 0 && w.ahead {
			w.ahead = false
			if w.users--; w.users == 0 {
				w.drop()
			}
		}
	}
}

// leave lets weights go.
func (u *module) leave() {
	u.d.mu.Lock()
	defer u.d.mu.Unlock()
	for _, w := range u.weights {
		if w.users--; w.users == 0 {
			w.drop()
		}
	}
}

// drop ends a visit, which has been read, if there is one. The caller holds dispatch.mu.
func (w *offloaded) drop() {
	v := w.visit
	if v == nil {
		return // the model was closed meanwhile
	}
	w.visit = nil
	for _, s := range w.slots {
		s.Set(w.placeholder)
	}
	switch {
	case v.value != nil:
		if w.device == torch.CPU {
			v.forget()
		}
		v.value.Close()
	default: // not finished
		v.abandon()
	}
}

// abandon frees what was read and is not wanted any more. Two that both want it gone, a pass and Close, take turns.
func (v *visit) abandon() {
	v.once.Do(func() {
		if v.err == nil {
			v.discard()
			v.err = torch.ErrClosed
		}
	})
}

// detached are inputs that autograd does not follow from: the graph would hold on to the weights.
func detached(in []*torch.Tensor) []*torch.Tensor {
	if !torch.GradEnabled() {
		return in
	}
	out := slices.Clone(in)
	for i, t := range in {
		if t != nil && t.RequiresGrad() {
			out[i] = t.Detach()
		}
	}
	return out
}

// untrained has backward refuse to go through a module with offloaded weights, rather than leave out gradients
// silently.
func (u *module) untrained(in, out []*torch.Tensor) []*torch.Tensor {
	if !torch.GradEnabled() {
		return out
	}
	wanted := slices.ContainsFunc(u.weights, func(w *offloaded) bool { return w.placeholder.RequiresGrad() }) ||
		slices.ContainsFunc(in, func(t *torch.Tensor) bool { return t != nil && t.RequiresGrad() })
	if !wanted {
		return out
	}
	anchor := torch.Zeros([]int{0}).SetRequiresGrad(true)
	return torch.Apply(offloadedModule{u.name}, append([]*torch.Tensor{anchor}, out...)...)
}

type offloadedModule struct{ name string }

// Forward implements torch.Function.
func (offloadedModule) Forward(_ *torch.FunctionCtx, in ...*torch.Tensor) (out []*torch.Tensor) {
	for _, t := range in[1:] {
		if t != nil {
			t = t.Detach()
		}
		out = append(out, t)
	}
	return out
}

// Backward implements torch.Function.
func (f offloadedModule) Backward(*torch.FunctionCtx, ...*torch.Tensor) []*torch.Tensor {
	panic(&torch.Error{Op: "backward", Kind: torch.ErrNotImplemented,
		Message: f.name + " has weights that are offloaded to the CPU or to disk: such a model can't be trained"})
}

// Weight is a parameter or buffer by its name in the state dict, on the CPU if it is offloaded: a tensor of the
// caller's, which shares the data of one that is in the model.
func (p *PreTrainedModel) Weight(ctx context.Context, name string) (*torch.Tensor, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	unlock := p.lock()
	t, err := nn.GetParameter(p.self, name)
	if err != nil {
		t, err = nn.GetBuffer(p.self, name)
	}
	var w *offloaded
	if err == nil {
		w = p.offloaded(t)
	}
	unlock()
	switch {
	case err != nil:
		return nil, &Error{Tensor: shorten(name), Class: ErrMissingTensor, Err: err}
	case w != nil:
		t, err := w.source.now()
		if err != nil || w.kept != nil {
			return t, err
		}
		defer t.Close() // a view of the file would lose what is written to it when the pages are given back
		return torch.Try(func() *torch.Tensor { return t.Clone() })
	}
	return torch.Try(t.Detach)
}

// away is the offloaded weight that a tensor stands for; nil: it is none's placeholder.
func (p *PreTrainedModel) away(t *torch.Tensor) *offloaded {
	if p.dispatch == nil {
		return nil
	}
	return p.dispatch.away[t]
}

// offloaded is the weight that a tensor in the model is of, or stands for; nil: it is here for good. The caller
// holds the lock.
func (p *PreTrainedModel) offloaded(t *torch.Tensor) *offloaded {
	if w := p.away(t); w != nil || p.dispatch == nil {
		return w
	}
	for _, w := range p.dispatch.weights {
		if w.visit != nil && w.visit.value == t {
			return w
		}
	}
	return nil
}

// offloadedNames are those of the offloaded weights in the state dict.
func (p *PreTrainedModel) offloadedNames() map[string]bool {
	names := map[string]bool{}
	if p.dispatch != nil {
		for _, w := range p.dispatch.weights {
			for _, s := range w.slots {
				names[s.Name] = true
			}
		}
	}
	return names
}

// close frees everything. Passes that still run end with an error.
func (d *dispatch) close() {
	d.mu.Lock()
	d.closed = true
	var visits []*visit
	for _, w := range d.weights {
		if w.visit != nil {
			visits = append(visits, w.visit)
		}
	}
	d.mu.Unlock()
	d.reads.Wait()
	for _, v := range visits {
		v.abandon()
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, w := range d.weights {
		if w.visit != nil { // the slots keep what is closed, so that a pass which runs says so
			w.visit.value.Close()
			w.visit = nil
		}
		w.placeholder.Close()
		w.kept.Close()
	}
	for _, f := range d.folder {
		_ = f.Close() // read only: nothing can be lost
	}
	if d.checkpoint != nil {
		_ = d.checkpoint.Close()
	}
}
