package torch

import (
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/torchgo/torchgo/cgo"
)

// collected is what the collector's net needs to free a tensor.
type collected struct {
	handle cgo.Tensor
	bytes  int
}

// collect frees a tensor that the collector found unreachable.
func collect(c collected) {
	live.Add(-1)
	pressure.sub(c.bytes)
	_ = cgo.TensorsFree([]uint64{uint64(c.handle)}) // fails for a bad list only
	drainReleased()
}

// minBudget is how many bytes may be allocated outside scopes before the collector is started.
const minBudget = 256 << 20

// meter starts Go's collector when libtorch's memory, which it doesn't see, has grown enough.
type meter struct {
	total atomic.Int64 // bytes of tensors left to the collector
	since atomic.Int64 // of these, allocated since the last collection
	mutex sync.Mutex
}

var pressure meter

func (m *meter) add(bytes int) {
	if bytes == 0 {
		return
	}
	m.total.Add(int64(bytes))
	if m.since.Add(int64(bytes)) > m.budget() {
		m.relieve(false)
	}
}

func (m *meter) sub(bytes int) {
	if bytes != 0 {
		m.total.Add(-int64(bytes))
	}
}

// budget grows with what is in use, so that a large live set is not scanned for each small growth.
func (m *meter) budget() int64 { return max(minBudget, m.total.Load()/2) }

// relieve collects, and waits for the cleanups that this leads to.
func (m *meter) relieve(always bool) {
	m.mutex.Lock()
	defer m.mutex.Unlock()
	if !always && m.since.Load() <= m.budget() {
		return // another goroutine has just done it
	}
	m.since.Store(0)
	done := make(chan struct{})
	sentinel := new([16]byte) // large enough not to share an allocation
	runtime.AddCleanup(sentinel, func(c chan struct{}) { close(c) }, done)
	runtime.GC()
	select {
	case <-done:
	case <-time.After(100 * time.Millisecond):
	}
}

// Collect frees what the collector finds unreachable now, and gives the accelerator's cached
// memory back.
func Collect() {
	pressure.relieve(true)
	if loaded.Load() {
		must("empty_cache", cgo.EmptyCache())
	}
}

// holds are the Go values that libtorch refers to by number: hooks, and what to do when borrowed
// memory is released. libtorch's destructors only note the number (they run where Go can't be
// called), so it is asked for them now and then.
var holds = struct {
	values sync.Map // uint64 -> func() or hook
	next   atomic.Uint64
	count  atomic.Int64
}{}

func hold(v any) uint64 {
	id := holds.next.Add(1)
	holds.values.Store(id, v)
	holds.count.Add(1)
	return id
}

func unhold(id uint64) {
	if v, ok := holds.values.LoadAndDelete(id); ok {
		holds.count.Add(-1)
		if release, ok := v.(func()); ok {
			release()
		}
	}
}

// drainReleased lets go of what libtorch has let go of.
func drainReleased() {
	for holds.count.Load() > 0 {
		var ids [16]uint64
		n, err := cgo.Released(ids[:])
		if err != nil || n == 0 {
			return
		}
		for _, id := range ids[:n] {
			unhold(id)
		}
	}
}
