package cuda

import (
	"runtime"
	"sync"

	"github.com/torchgo/torchgo/cgo"
	"github.com/torchgo/torchgo/torch"
	"github.com/torchgo/torchgo/torch/internal/bridge"
)

// Graph is recorded work of a GPU that is launched again as one (torch.cuda.CUDAGraph). Replaying runs the
// same kernels on the same memory: what should differ is copied into the tensors that were captured, and
// results are read from those that the capture made.
//
// A graph keeps its pool of memory, not the tensors: the results' memory stays theirs as long as the
// graph, but a tensor that was closed, or whose scope has ended, can't be read. [torch.Keep] those.
type Graph struct {
	mutex  sync.Mutex // libtorch's graphs are not for several threads
	handle cgo.Graph
}

// Pool is a pool of memory of graphs; the zero Pool is one of the graph's own. Graphs that share a pool
// must be replayed in the order of their capture, one at a time.
type Pool struct{ id [2]uint64 }

// CaptureErrorMode says which calls of other threads a capture forbids. Allocating memory from the
// device is one, so other goroutines that use the GPU meanwhile may fail, or spoil the capture, with the
// default.
type CaptureErrorMode int

// Modes of [CaptureOptions].
const (
	CaptureErrorGlobal      CaptureErrorMode = cgo.CaptureGlobal      // those of all threads
	CaptureErrorThreadLocal CaptureErrorMode = cgo.CaptureThreadLocal // those of the capturing thread
	CaptureErrorRelaxed     CaptureErrorMode = cgo.CaptureRelaxed     // none
)

// CaptureOptions are the options of [Graph.Capture].
type CaptureOptions struct {
	Pool      Pool
	Stream    torch.Opt[Stream] // default: one of the current device, made for this
	ErrorMode CaptureErrorMode
}

// NewGraph makes an empty graph. It is the collector's; see [Graph.Reset].
func NewGraph() *Graph {
	const op = "new_graph"
	bridge.Load(op)
	handle, err := cgo.GraphNew(c10CUDA)
	bridge.Must(op, err)
	g := &Graph{handle: handle}
	runtime.AddCleanup(g, func(h cgo.Graph) { _ = cgo.GraphFree(h) }, handle)
	return g
}

// GraphPool makes a pool for several graphs (torch.cuda.graph_pool_handle).
func GraphPool() Pool {
	const op = "graph_pool_handle"
	bridge.Load(op)
	id, err := cgo.GraphPool(0)
	bridge.Must(op, err)
	return Pool{id}
}

// Capture records what fn queues on the GPU; nothing of it runs. fn must not wait for the GPU, nor copy
// to or from memory that is not pinned, and has been run before on a side stream, so that libraries are
// initialised. A Backward belongs in it together with its forward pass. Autocast inside needs CacheEnabled
// off, or to begin inside.
//
// If fn panics, or the capture fails, the graph is empty again and Capture panics.
func (g *Graph) Capture(fn func(), opts ...CaptureOptions) {
	const op = "capture"
	var o CaptureOptions
	if len(opts) > 0 {
		o = opts[0]
	}
	side, given := o.Stream.Get()
	if !given {
		side = NewStream(torch.Device{})
	}
	Synchronize(side.Device())
	EmptyCache()
	g.do(op, func(h cgo.Graph) error {
		var err error
		WithStream(side, func() { err = capture(h, o, fn) })
		return err
	})
}

func capture(h cgo.Graph, o CaptureOptions, fn func()) (err error) {
	ended := false
	defer func() {
		if !ended { // fn panics
			_ = cgo.GraphEnd(h)
		}
		if !ended || err != nil {
			_ = cgo.GraphReset(h) // the first error is the one to tell
		}
	}()
	if err = cgo.GraphBegin(h, o.Pool.id, int(o.ErrorMode)); err == nil {
		fn()
		err = cgo.GraphEnd(h)
	}
	ended = true
	return err
}

// Replay queues the graph's work on the current stream.
func (g *Graph) Replay() { g.do("replay", cgo.GraphReplay) }

// Reset empties the graph and lets its memory go; it can capture again.
func (g *Graph) Reset() { g.do("reset", cgo.GraphReset) }

// Pool is the pool of the captured graph, for another one's [CaptureOptions].
func (g *Graph) Pool() (p Pool) {
	g.do("pool", func(h cgo.Graph) (err error) {
		p.id, err = cgo.GraphPool(h)
		return err
	})
	return p
}

func (g *Graph) do(op string, fn func(cgo.Graph) error) {
	g.mutex.Lock()
	defer g.mutex.Unlock()
	bridge.Must(op, fn(g.handle))
	runtime.KeepAlive(g)
}
