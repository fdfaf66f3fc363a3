// Package ui draws progress bars.
package ui

import (
	"io"
	"os"
	"sync"

	"github.com/schollz/progressbar/v3"
	"golang.org/x/term"
)

// Bars shows one bar at a time on a terminal. A nil *Bars shows nothing, so that code that
// reports progress need not ask.
type Bars struct {
	w    io.Writer
	mu   sync.Mutex
	bar  *progressbar.ProgressBar
	what string
}

// NewBars returns bars on w, nil unless w is a terminal.
func NewBars(w io.Writer) *Bars {
	f, ok := w.(*os.File)
	if !ok || !term.IsTerminal(int(f.Fd())) {
		return nil
	}
	return &Bars{w: w}
}

// Bytes reports that done of total bytes of a step are through. A step's first report draws its
// bar, done == total or another step's report ends it.
func (b *Bars) Bytes(what string, done, total int64) { b.set(what, done, total, true) }

// Count is Bytes for things that are counted.
func (b *Bars) Count(what string, done, total int64) { b.set(what, done, total, false) }

// Clear wipes an unfinished bar, before other output.
func (b *Bars) Clear() {
	if b == nil {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.end()
}

func (b *Bars) set(what string, done, total int64, bytes bool) {
	if b == nil || total <= 0 {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.bar != nil && b.what != what {
		b.end()
	}
	if b.bar == nil {
		b.what = what
		b.bar = progressbar.NewOptions64(total,
			progressbar.OptionSetWriter(b.w),
			progressbar.OptionSetDescription(what),
			progressbar.OptionShowBytes(bytes),
			progressbar.OptionShowCount(),
			progressbar.OptionSetPredictTime(bytes),
			progressbar.OptionFullWidth(),
			progressbar.OptionThrottle(100e6),
			progressbar.OptionClearOnFinish(),
		)
	}
	// What a bar can't draw (a terminal that went away) must not fail the work.
	_ = b.bar.Set64(min(done, total))
	if done >= total {
		b.end()
	}
}

func (b *Bars) end() {
	if b.bar != nil {
		_ = b.bar.Clear()
		b.bar = nil
	}
}
