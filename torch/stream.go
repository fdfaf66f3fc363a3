package torch

import (
	"runtime"
	"sync"
	"time"

	"github.com/torchgo/torchgo/cgo"
)

// Stream is a queue of a device's work: what is on one runs in order, what is on two may run at once
// (torch.Stream). Operators go to the current stream of their tensors' device. Streams are values; == tells
// whether two are the same.
//
// The CPU has one stream, and each operator is done when it returns: waiting for it is nothing, so that
// one code serves both.
type Stream struct {
	device Device
	id     int
}

// StreamOptions are the options of [NewStream].
type StreamOptions struct {
	Priority int // lower numbers go first; 0 is normal, -1 high
}

// NewStream makes a stream of a device. libtorch has 32 a priority and device and gives them in turn.
func NewStream(device Device, opts ...StreamOptions) Stream {
	return streamOf("new_stream", device, cgo.StreamNew, one(opts).Priority)
}

// CurrentStream is the stream that operators of a device go to here.
func CurrentStream(device Device) Stream {
	return streamOf("current_stream", device, cgo.StreamCurrent, 0)
}

// DefaultStream is the stream that is current where none is set.
func DefaultStream(device Device) Stream {
	return streamOf("default_stream", device, cgo.StreamDefault, 0)
}

func streamOf(op string, device Device, which, priority int) Stream {
	load(op)
	if device.isCPU() {
		return Stream{device: CPU}
	}
	kind, index := device.c10(op)
	s, err := cgo.StreamGet(kind, index, which, priority)
	must(op, err)
	return Stream{device: deviceFromC10(s.Device, s.Index), id: s.ID}
}

func (s Stream) c10(op string) cgo.Stream {
	load(op)
	kind, index := s.device.c10(op)
	return cgo.Stream{Device: kind, Index: index, ID: s.id}
}

// Device is where the stream's work runs.
func (s Stream) Device() Device {
	if s.device.isCPU() {
		return CPU
	}
	return s.device
}

// String names the stream.
func (s Stream) String() string {
	if s == DefaultStream(s.device) {
		return "default stream of " + s.Device().String()
	}
	return "stream of " + s.Device().String()
}

// WithStream runs fn with s as the current stream, and its device as the current device. Like every mode
// it keeps the goroutine on its thread, belongs to it alone ([Go] hands it on), and frees nothing. What fn
// queues may still run when WithStream returns.
func WithStream(s Stream, fn func()) {
	if s.device.isCPU() {
		fn()
		return
	}
	const op = "stream"
	at := s.c10(op)
	inMode(op, func() (cgo.Guard, error) { return cgo.StreamEnter(at) }, fn)
}

// WithDevice runs fn with a device as the current one (torch.cuda.device).
func WithDevice(device Device, fn func()) {
	if device.isCPU() {
		fn()
		return
	}
	const op = "device"
	kind, index := device.c10(op)
	inMode(op, func() (cgo.Guard, error) { return cgo.DeviceEnter(kind, index) }, fn)
}

// Synchronize waits for all work of a device; on the CPU there is none to wait for.
func Synchronize(device Device) {
	if device.isCPU() {
		return
	}
	const op = "synchronize"
	load(op)
	kind, index := device.c10(op)
	must(op, cgo.DeviceSynchronize(kind, index))
}

// Record marks the place the stream has come to by a new event.
func (s Stream) Record() *Event {
	e := NewEvent(s.device)
	e.Record(s)
	return e
}

// Wait makes later work of the stream wait for an event. The caller does not wait.
func (s Stream) Wait(e *Event) {
	const op = "wait_event"
	e.read(op, func(h cgo.Event) error { return cgo.EventBlock(h, s.c10(op)) })
}

// WaitStream makes later work of the stream wait for what is on another one.
func (s Stream) WaitStream(other Stream) { s.Wait(other.Record()) }

// Query tells whether all work on the stream is done.
func (s Stream) Query() bool {
	const op = "stream_query"
	if s.device.isCPU() {
		return true
	}
	done, err := cgo.StreamQuery(s.c10(op))
	must(op, err)
	return done
}

// Synchronize waits for all work on the stream.
func (s Stream) Synchronize() {
	const op = "stream_synchronize"
	if !s.device.isCPU() {
		must(op, cgo.StreamSynchronize(s.c10(op)))
	}
}

// Event is a place in a stream (torch.Event). On the CPU it is the moment of its recording.
type Event struct {
	device DeviceType
	timing bool
	handle cgo.Event // 0 on the CPU
	mutex  sync.RWMutex
	at     time.Time // of the recording, on the CPU
}

// EventOptions are the options of [NewEvent].
type EventOptions struct {
	Timing bool // for [Event.ElapsedTime]
}

// NewEvent makes an event for devices of the kind of device. It is the collector's.
func NewEvent(device Device, opts ...EventOptions) *Event {
	const op = "new_event"
	load(op)
	e := &Event{device: device.Type, timing: one(opts).Timing}
	if device.isCPU() {
		e.device = DeviceCPU
		return e
	}
	kind, _ := device.c10(op)
	handle, err := cgo.EventNew(kind, e.timing)
	must(op, err)
	e.handle = handle
	runtime.AddCleanup(e, func(h cgo.Event) { _ = cgo.EventFree(h) }, handle)
	return e
}

// Record marks the place s has come to; an earlier recording is forgotten.
func (e *Event) Record(s Stream) {
	const op = "record_event"
	e.check(op)
	if s.Device().Type != e.device {
		invalid(op, "the event is of a %s device, the stream of %v", deviceTypes[e.device].name, s.Device())
	}
	e.mutex.Lock()
	defer e.mutex.Unlock()
	if e.handle == 0 {
		e.at = time.Now()
		return
	}
	must(op, cgo.EventRecord(e.handle, s.c10(op)))
	runtime.KeepAlive(e)
}

// Wait makes later work of s wait for the event; the caller does not wait.
func (e *Event) Wait(s Stream) { s.Wait(e) }

// Query tells whether the work before the event is done; true where it was never recorded.
func (e *Event) Query() (done bool) {
	done = true
	e.read("event_query", func(h cgo.Event) (err error) {
		done, err = cgo.EventQuery(h)
		return err
	})
	return done
}

// Synchronize waits for the work before the event.
func (e *Event) Synchronize() {
	e.read("event_synchronize", cgo.EventSynchronize)
}

// ElapsedTime is the time from e to end. Both were made with Timing, were recorded, and are reached. On
// the CPU it is the time between the recordings.
func (e *Event) ElapsedTime(end *Event) time.Duration {
	const op = "elapsed_time"
	e.check(op)
	end.check(op)
	switch {
	case e.device != end.device:
		invalid(op, "expected two events of one kind of device, got %s and %s", deviceTypes[e.device].name, deviceTypes[end.device].name)
	case !e.timing || !end.timing:
		panic(&Error{Op: op, Kind: ErrValue, Message: "both events must be made with Timing"})
	}
	e.mutex.RLock()
	defer e.mutex.RUnlock()
	if end != e {
		end.mutex.RLock()
		defer end.mutex.RUnlock()
	}
	if e.handle == 0 {
		if e.at.IsZero() || end.at.IsZero() {
			panic(&Error{Op: op, Kind: ErrValue, Message: "both events must be recorded before"})
		}
		return end.at.Sub(e.at)
	}
	ms, err := cgo.EventElapsed(e.handle, end.handle)
	runtime.KeepAlive(e)
	runtime.KeepAlive(end)
	must(op, err)
	return time.Duration(ms * float64(time.Millisecond))
}

func (e *Event) check(op string) {
	if e == nil {
		invalid(op, "event is nil")
	}
}

// read runs fn, which only reads the event, unless there is nothing to it on the CPU.
func (e *Event) read(op string, fn func(cgo.Event) error) {
	e.check(op)
	if e.handle == 0 {
		return
	}
	e.mutex.RLock()
	defer e.mutex.RUnlock()
	must(op, fn(e.handle))
	runtime.KeepAlive(e)
}

// RecordStream tells the allocator that s uses the tensor, which was made on another stream: once the
// tensor is freed, its memory is not used again before the work that is on s by then is done. On the CPU
// there is nothing to it.
func (t *Tensor) RecordStream(s Stream) {
	const op = "record_stream"
	if s.device.isCPU() {
		t.borrow(op, func(cgo.Tensor) error { return nil })
		return
	}
	at := s.c10(op)
	t.borrow(op, func(h cgo.Tensor) error { return cgo.RecordStream(h, at) })
}
