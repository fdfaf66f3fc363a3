// Package glogbridge sends xlog's records to glog. Only programs import it, never a library
// package: importing glog registers its flags in the global flag set.
package glogbridge

import (
	"context"
	"flag"
	"fmt"
	"log/slog"
	"runtime"
	"strconv"
	"strings"

	"github.com/golang/glog"
	"github.com/torchgo/torchgo/internal/xlog"
)

// Install makes glog the backend of xlog and has glog write to stderr instead of files in the
// temporary folder, unless the program's flags say otherwise. Call it before parsing flags.
func Install() {
	if f := flag.Lookup("logtostderr"); f != nil {
		if f.Value.Set("true") == nil {
			f.DefValue = "true"
		}
	}
	xlog.SetHandler(NewHandler())
}

// Flags returns glog's own flags, for a program that parses its command line with another package.
func Flags() []*flag.Flag {
	var flags []*flag.Flag
	for _, name := range []string{
		"v", "vmodule", "logtostderr", "alsologtostderr", "stderrthreshold",
		"log_dir", "log_link", "logbuflevel", "log_backtrace_at",
	} {
		if f := flag.Lookup(name); f != nil {
			flags = append(flags, f)
		}
	}
	return flags
}

// NewHandler returns the slog.Handler over glog: debug records show from -v=1 (trace from -v=2),
// the others under glog's I, W and E with the file and line of the call that logged them.
func NewHandler() slog.Handler { return handler{} }

type handler struct {
	prefix string // the open groups, each followed by a dot
	attrs  string // those of WithAttrs, formatted, each preceded by a space
}

func (h handler) Enabled(_ context.Context, level slog.Level) bool {
	if level >= slog.LevelInfo {
		return true
	}
	// With -vmodule the answer depends on the caller's file, which Handle knows.
	f := flag.Lookup("vmodule")
	return bool(glog.V(verbosity(level))) || f != nil && f.Value.String() != ""
}

func (h handler) Handle(_ context.Context, r slog.Record) error {
	depth := depthOf(r.PC)
	var b strings.Builder
	b.WriteString(r.Message)
	b.WriteString(h.attrs)
	r.Attrs(func(a slog.Attr) bool {
		writeAttr(&b, h.prefix, a)
		return true
	})
	switch {
	case r.Level >= slog.LevelError:
		glog.ErrorDepth(depth, b.String())
	case r.Level >= slog.LevelWarn:
		glog.WarningDepth(depth, b.String())
	case r.Level >= slog.LevelInfo:
		glog.InfoDepth(depth, b.String())
	default:
		glog.VDepth(depth, verbosity(r.Level)).InfoDepth(depth, b.String())
	}
	return nil
}

func (h handler) WithAttrs(attrs []slog.Attr) slog.Handler {
	var b strings.Builder
	b.WriteString(h.attrs)
	for _, a := range attrs {
		writeAttr(&b, h.prefix, a)
	}
	h.attrs = b.String()
	return h
}

func (h handler) WithGroup(name string) slog.Handler {
	if name != "" {
		h.prefix += name + "."
	}
	return h
}

func verbosity(level slog.Level) glog.Level {
	if level <= xlog.LevelTrace {
		return 2
	}
	return 1
}

// depthOf returns how many frames above its caller the call at pc is, 0 when it is none of them
// (a record that another goroutine made).
func depthOf(pc uintptr) int {
	if pc == 0 {
		return 0
	}
	want, _ := runtime.CallersFrames([]uintptr{pc}).Next()
	var pcs [64]uintptr
	frames := runtime.CallersFrames(pcs[:runtime.Callers(2, pcs[:])])
	for depth := 0; ; depth++ {
		f, more := frames.Next()
		if f.Function == want.Function && f.File == want.File && f.Line == want.Line {
			return depth
		}
		if !more {
			return 0
		}
	}
}

func writeAttr(b *strings.Builder, prefix string, a slog.Attr) {
	v := a.Value.Resolve()
	if v.Kind() == slog.KindGroup {
		if a.Key != "" {
			prefix += a.Key + "."
		}
		for _, g := range v.Group() {
			writeAttr(b, prefix, g)
		}
		return
	}
	if a.Equal(slog.Attr{}) {
		return
	}
	b.WriteByte(' ')
	b.WriteString(prefix)
	b.WriteString(a.Key)
	b.WriteByte('=')
	s := v.String()
	if v.Kind() == slog.KindAny {
		s = fmt.Sprint(v.Any())
	}
	if s == "" || strings.ContainsAny(s, " \t\r\n\"=") {
		s = strconv.Quote(s)
	}
	b.WriteString(s)
}
