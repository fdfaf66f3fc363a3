package hub

import (
	"context"
	"os"
	"path/filepath"
	"sync"
	"time"
)

// inProcess has a lock for each blob that this process is busy with.
var inProcess = struct {
	sync.Mutex
	held map[string]*waiters
}{held: map[string]*waiters{}}

type waiters struct {
	turn  chan struct{}
	users int
}

// lockHere makes the goroutines of this process that want the same file take turns.
func lockHere(ctx context.Context, key string) (unlock func(), err error) {
	inProcess.Lock()
	w := inProcess.held[key]
	if w == nil {
		w = &waiters{turn: make(chan struct{}, 1)}
		inProcess.held[key] = w
	}
	w.users++
	inProcess.Unlock()
	leave := func() {
		inProcess.Lock()
		defer inProcess.Unlock()
		if w.users--; w.users == 0 {
			delete(inProcess.held, key)
		}
	}
	select {
	case w.turn <- struct{}{}:
		return func() { <-w.turn; leave() }, nil
	case <-ctx.Done():
		leave()
		return nil, ctx.Err()
	}
}

// lockFile takes the lock of a file with other processes, Python's too. It saves work, no more: there are
// file systems on which every process gets it at once, or none can. reliable tells that it was seen to keep a
// second one out, so that who holds it is alone.
func lockFile(ctx context.Context, path string, broken bool) (unlock func(), reliable bool, err error) {
	none := func() {}
	if broken {
		return none, false, nil
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o777); err != nil {
		return nil, false, err
	}
	var f *os.File
	for wait := 5 * time.Millisecond; ; wait = min(2*wait, 200*time.Millisecond) {
		if f == nil {
			var err error
			if f, err = os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o664); err != nil {
				return nil, false, err
			}
		}
		ok, err := tryFlock(f)
		if err != nil {
			return none, false, f.Close()
		}
		if ok && isStill(f, path) {
			break
		}
		if ok { // somebody removed the file while we waited: its lock keeps nobody out
			_ = f.Close()
			f = nil
			continue
		}
		t := time.NewTimer(wait)
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			_ = f.Close()
			return nil, false, ctx.Err()
		}
	}
	if second, err := os.OpenFile(path, os.O_RDWR, 0); err == nil {
		ok, err := tryFlock(second)
		reliable = !ok && err == nil
		_ = second.Close()
	}
	return func() { _ = f.Close() }, reliable, nil
}

// isStill tells whether an open file is the one that has the name.
func isStill(f *os.File, path string) bool {
	a, err := f.Stat()
	if err != nil {
		return false
	}
	b, err := os.Stat(path)
	return err == nil && os.SameFile(a, b)
}
