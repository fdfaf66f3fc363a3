package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/torchgo/torchgo/torch"
)

// A soak does something over and over. Its function loops while r.more(), says what it did with
// r.did, and what went wrong with r.failf.
type soak struct {
	name, what string
	run        func(r *run)
}

func find(name string) (soak, bool) {
	for _, s := range soaks {
		if s.name == name {
			return s, true
		}
	}
	return soak{}, false
}

// Bounds of a verdict.
const (
	maxSlope = 1.0 // KiB of resident memory per 1,000 operations
	enough   = 1_000_000
	warmup   = 15 * time.Second // shorter runs show how caches fill
	samples  = 500              // at most
)

// settling is how long to wait for the collector at the end.
var settling = 20 * time.Second

// run is a soak under way.
type run struct {
	name     string
	ctx      context.Context
	length   time.Duration
	deadline time.Time
	slopeMin int64 // operations, and time, before the slope counts
	timeMin  time.Duration
	note     string

	manual     atomic.Bool // the soak itself calls sample
	operations atomic.Int64
	threads    atomic.Int64 // most seen

	mutex    sync.Mutex
	failures []string
	at, rss  []float64 // operations in thousands, resident KiB
}

// more tells whether to go on.
func (r *run) more() bool { return r.ctx.Err() == nil && time.Now().Before(r.deadline) }

// did counts operations.
func (r *run) did(n int) { r.operations.Add(int64(n)) }

func (r *run) failf(format string, args ...any) {
	r.mutex.Lock()
	defer r.mutex.Unlock()
	if len(r.failures) < 5 {
		r.failures = append(r.failures, fmt.Sprintf(format, args...))
	}
}

// sample notes how much memory there is now.
func (r *run) sample() {
	r.mutex.Lock()
	defer r.mutex.Unlock()
	r.at = append(r.at, float64(r.operations.Load())/1000)
	r.rss = append(r.rss, float64(status("VmRSS")))
}

// watch samples memory and threads until stop is closed.
func (r *run) watch(length time.Duration, stop <-chan struct{}) {
	tick := time.NewTicker(max(length/samples, time.Millisecond))
	defer tick.Stop()
	for {
		select {
		case <-stop:
			return
		case <-tick.C:
		}
		if !r.manual.Load() {
			r.sample()
		}
		r.threads.Store(max(r.threads.Load(), int64(status("Threads"))))
	}
}

// result is what a soak has shown.
type result struct {
	name, note string
	operations int64
	elapsed    time.Duration
	slope      float64 // KiB per 1,000 operations, over the last 80 % of the run
	judged     bool    // long enough for the slope to count
	rss, peak  int     // MiB, at the end and at most
	threads    int64
	failures   []string
}

// start runs a soak and gives its verdict.
func (s soak) start(ctx context.Context, length time.Duration) result {
	r := &run{name: s.name, ctx: ctx, length: length, slopeMin: enough, timeMin: warmup}
	if err := torch.Load(); err != nil {
		return result{name: s.name, failures: []string{err.Error()}}
	}
	live, goroutines, files := torch.LiveTensors(), runtime.NumGoroutine(), openFiles()
	begin := time.Now()
	r.deadline = begin.Add(length)
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		r.watch(length, stop)
	}()
	if err := torch.TryDo(func() { s.run(r) }); err != nil {
		r.failf("%v", err)
	}
	elapsed := time.Since(begin)
	close(stop)
	<-done

	// Everything has to come back: tensors that the collector frees, goroutines that have ended.
	for end := time.Now().Add(settling); time.Now().Before(end); {
		torch.Collect()
		if torch.LiveTensors() <= live && runtime.NumGoroutine() <= goroutines {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	if n := torch.LiveTensors(); n != live {
		r.failf("%d tensors are alive, %d were before", n, live)
	}
	if n := runtime.NumGoroutine(); n > goroutines {
		r.failf("%d goroutines, %d before", n, goroutines)
	}
	if n := openFiles(); n > files {
		r.failf("%d open descriptors, %d before", n, files)
	}
	res := result{
		name: s.name, note: r.note, operations: r.operations.Load(), elapsed: elapsed,
		rss: status("VmRSS") >> 10, peak: status("VmHWM") >> 10, threads: r.threads.Load(),
	}
	warm := len(r.at) / 5
	res.slope = slope(r.at[warm:], r.rss[warm:])
	res.judged = res.operations >= r.slopeMin && elapsed >= r.timeMin && len(r.at)-warm >= 50
	if res.judged && res.slope > maxSlope {
		r.failf("memory grows by %.3f KiB per 1,000 operations, at most %.0f is allowed", res.slope, maxSlope)
	}
	if ctx.Err() != nil {
		r.failf("interrupted")
	}
	res.failures = r.failures
	return res
}

// print writes the result and tells whether it is good.
func (r result) print(w io.Writer) bool {
	verdict, growth := "ok", fmt.Sprintf("%+.3f KiB per 1,000", r.slope)
	if !r.judged {
		growth += " (too short to judge)"
	}
	if len(r.failures) > 0 {
		verdict = "FAILED: " + strings.Join(r.failures, "; ")
	}
	fmt.Fprintf(w, "%-11s %6.1f min %12d operations, %.0f/s; memory %d MiB (peak %d), slope %s; %d threads", r.name, r.elapsed.Minutes(),
		r.operations, float64(r.operations)/r.elapsed.Seconds(), r.rss, r.peak, growth, r.threads)
	if r.note != "" {
		fmt.Fprint(w, "; ", r.note)
	}
	fmt.Fprintln(w, ": "+verdict)
	return len(r.failures) == 0
}

// slope is the slope of the line through the points (least squares); 0 for fewer than two.
func slope(x, y []float64) float64 {
	var mx, my, sxy, sxx float64
	for i := range x {
		mx += x[i] / float64(len(x))
		my += y[i] / float64(len(x))
	}
	for i := range x {
		sxy += (x[i] - mx) * (y[i] - my)
		sxx += (x[i] - mx) * (x[i] - mx)
	}
	if sxx == 0 {
		return 0
	}
	return sxy / sxx
}

// status is a figure of /proc/self/status, "VmRSS" in KiB; 0 where there is none.
func status(name string) int {
	data, _ := os.ReadFile("/proc/self/status")
	for line := range strings.Lines(string(data)) {
		if rest, ok := strings.CutPrefix(line, name+":"); ok {
			n, _ := strconv.Atoi(strings.Fields(rest)[0])
			return n
		}
	}
	return 0
}

func openFiles() int {
	entries, _ := os.ReadDir("/proc/self/fd")
	return len(entries)
}
