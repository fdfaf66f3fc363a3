package hub

import (
	"sync"
)

// meter adds up the progress of all files.
type meter struct {
	mu          sync.Mutex
	report      func(Progress)
	done, total int64
	planned     int64 // of total, of files that have not begun
}

// plan announces bytes of files that will begin.
func (m *meter) plan(n int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.total += n
	m.planned += n
}

// skip takes back what was announced for a file that needs no transfer after all.
func (m *meter) skip(name string, n int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if n <= 0 || m.planned < n {
		return
	}
	m.planned -= n
	m.total -= n
	if m.report != nil {
		m.report(Progress{File: name, Done: n, Total: n, AllDone: m.done, AllTotal: m.total})
	}
}

// fileMeter is the progress of one file, known to have total bytes (-1: unknown).
type fileMeter struct {
	m           *meter
	name        string
	done, total int64
}

func (m *meter) file(name string, total int64) *fileMeter {
	m.mu.Lock()
	defer m.mu.Unlock()
	switch {
	case total < 0:
	case m.planned >= total:
		m.planned -= total
	default:
		m.total += total
	}
	return &fileMeter{m: m, name: name, total: total}
}

// add reports n more bytes, or fewer.
func (f *fileMeter) add(n int64) {
	f.m.mu.Lock()
	defer f.m.mu.Unlock()
	f.done += n
	f.m.done += n
	if f.total < 0 {
		f.m.total += n
	}
	if f.m.report != nil {
		f.m.report(Progress{File: f.name, Done: f.done, Total: max(f.total, f.done), AllDone: f.m.done, AllTotal: f.m.total})
	}
}
