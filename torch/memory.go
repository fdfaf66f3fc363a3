package torch

import (
	"os"
	"runtime"
	"strconv"
	"strings"
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
	_ = cgo.TensorsFree([]uint64{uint64(c.handle)}) // alive: c is no tensor, but what is left of one. Fails for a bad list only.
	live.Add(-1)
	pressure.sub(c.bytes) // relieve waits for this
	drainReleased()
}

// minBudget is how many bytes may be allocated outside scopes before the collector is started.
const minBudget = 256 << 20

// meter starts Go's collector when libtorch's memory, which it doesn't see, has grown enough.
type meter struct {
	total atomic.Int64 // bytes of tensors left to the collector
	since atomic.Int64 // of these, allocated since the last collection
	left  atomic.Int64 // total after the last collection
	mutex sync.Mutex
	// Below: under mutex.
	trimmed int64 // resident bytes when memory was last given back to the system
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
func (m *meter) budget() int64 { return max(minBudget, m.left.Load()/2) }

// relieve collects, and waits for the cleanups that this leads to: they run in goroutines of the
// runtime, in no order, and the caller would else allocate faster than they free.
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
	still, pause := 0, 200*time.Microsecond
	if always { // memory is short: to unmap a large tensor takes a while
		pause = 10 * time.Millisecond
	}
	for deadline := time.Now().Add(time.Second); still < 3 && time.Now().Before(deadline); {
		before := m.total.Load()
		time.Sleep(pause)
		if still++; m.total.Load() < before {
			still = 0
		}
	}
	m.left.Store(m.total.Load())
	// What is freed stays with the C allocator, up to the budget for each of its arenas. To give it
	// all back each time would cost page faults.
	if rss := residentBytes(); always || rss == 0 || rss > m.trimmed+minBudget*3/2 {
		cgo.Trim()
		m.trimmed = residentBytes()
	}
}

// residentBytes is the process's resident memory; 0 where the system doesn't tell.
func residentBytes() int64 {
	data, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		return 0
	}
	fields := strings.Fields(string(data))
	if len(fields) < 2 {
		return 0
	}
	pages, _ := strconv.ParseInt(fields[1], 10, 64)
	return pages * int64(os.Getpagesize())
}

// Collect frees what the collector finds unreachable now, and gives the accelerator's cached
// memory back.
func Collect() {
	pressure.relieve(true)
	if loaded.Load() {
		must("empty_cache", cgo.EmptyCache())
	}
}

// holds are the Go values that libtorch refers to by number: callbacks, their failures, and what to do
// when borrowed memory is released. libtorch's destructors only note the number (they run where Go can't be
// called), so it is asked for them now and then.
var holds = struct {
	values sync.Map // uint64 -> func(), callback or *failure
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
		switch v := v.(type) {
		case func():
			v()
		case interface{ release() }:
			v.release()
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
