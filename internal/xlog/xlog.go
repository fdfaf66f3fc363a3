// Package xlog is where all of torchgo logs: a log/slog logger whose backend the program chooses.
//
// A library user's program gets torchgo's records through its own slog.Default(). The torchgo
// command sends them to glog by calling glogbridge.Install. The two are apart because importing
// glog registers ten flags (-v among them) in the global flag set, which would make a program that
// has a -v flag of its own panic at its start.
package xlog

import (
	"context"
	"log/slog"
	"sync/atomic"
)

// LevelTrace is one step below slog.LevelDebug: backtraces and other long texts (glog's -v=2).
const LevelTrace = slog.LevelDebug - 4

var (
	backend atomic.Pointer[slog.Handler]
	logger  = slog.New(seam{})
)

// Logger returns torchgo's logger. It may be kept: it follows a later SetHandler.
func Logger() *slog.Logger { return logger }

// SetHandler makes h the backend; nil restores slog.Default().
func SetHandler(h slog.Handler) {
	if h == nil {
		backend.Store(nil)
		return
	}
	backend.Store(&h)
}

// seam passes each record to the backend of the moment. ops are the WithAttrs and WithGroup calls
// that led to it, in order.
type seam struct {
	ops []func(slog.Handler) slog.Handler
}

func (s seam) handler() slog.Handler {
	h := slog.Default().Handler()
	if p := backend.Load(); p != nil {
		h = *p
	}
	for _, op := range s.ops {
		h = op(h)
	}
	return h
}

func (s seam) Enabled(ctx context.Context, level slog.Level) bool {
	return s.handler().Enabled(ctx, level)
}

func (s seam) Handle(ctx context.Context, r slog.Record) error {
	return s.handler().Handle(ctx, r)
}

func (s seam) WithAttrs(attrs []slog.Attr) slog.Handler {
	if len(attrs) == 0 {
		return s
	}
	return s.with(func(h slog.Handler) slog.Handler { return h.WithAttrs(attrs) })
}

func (s seam) WithGroup(name string) slog.Handler {
	if name == "" {
		return s
	}
	return s.with(func(h slog.Handler) slog.Handler { return h.WithGroup(name) })
}

func (s seam) with(op func(slog.Handler) slog.Handler) seam {
	ops := make([]func(slog.Handler) slog.Handler, len(s.ops), len(s.ops)+1)
	copy(ops, s.ops)
	return seam{append(ops, op)}
}
