package glogbridge_test

import (
	"errors"
	"flag"
	"io"
	"log/slog"
	"os"
	"runtime"
	"strconv"
	"strings"
	"testing"

	"github.com/golang/glog"
	"github.com/stretchr/testify/require"
	"github.com/torchgo/torchgo/internal/xlog"
	"github.com/torchgo/torchgo/internal/xlog/glogbridge"
)

// capture returns what fn makes glog write to stderr.
func capture(t *testing.T, fn func()) string {
	t.Helper()
	r, w, err := os.Pipe()
	require.NoError(t, err)
	old := os.Stderr
	os.Stderr = w
	done := make(chan string)
	go func() {
		data, _ := io.ReadAll(r)
		done <- string(data)
	}()
	fn()
	glog.Flush()
	os.Stderr = old
	require.NoError(t, w.Close())
	return <-done
}

func setFlag(t *testing.T, name, value string) {
	t.Helper()
	f := flag.Lookup(name)
	old := f.Value.String()
	require.NoError(t, f.Value.Set(value))
	t.Cleanup(func() { _ = f.Value.Set(old) })
}

func here() string {
	_, _, line, _ := runtime.Caller(1)
	return "glogbridge_test.go:" + strconv.Itoa(line)
}

func TestInstall(t *testing.T) {
	glogbridge.Install()
	t.Cleanup(func() { xlog.SetHandler(nil) })
	require.Equal(t, "true", flag.Lookup("logtostderr").Value.String())
	l := xlog.Logger()

	var at []string
	out := capture(t, func() {
		l.Info("info", "n", 1)
		at = append(at, here())
		l.With("file", "a b").WithGroup("g").Warn("warn", "err", errors.New("x=y"), slog.Group("h", "k", true))
		at = append(at, here())
		l.Error("error", "empty", "")
		at = append(at, here())
		l.Debug("debug off")
	})
	lines := strings.Split(strings.TrimSpace(out), "\n")
	require.Len(t, lines, 3, out)
	want := []struct{ level, text string }{
		{"I", `info n=1`},
		{"W", `warn file="a b" g.err="x=y" g.h.k=true`},
		{"E", `error empty=""`},
	}
	for i, w := range want {
		require.Equal(t, w.level, lines[i][:1], lines[i])
		_, text, found := strings.Cut(lines[i], "] ")
		require.True(t, found)
		require.Equal(t, w.text, text)
		file, line, _ := strings.Cut(at[i], ":")
		n, _ := strconv.Atoi(line)
		require.Contains(t, lines[i], " "+file+":"+strconv.Itoa(n-1)+"]")
	}
}

func TestVerbosity(t *testing.T) {
	glogbridge.Install()
	t.Cleanup(func() { xlog.SetHandler(nil) })
	log := func() {
		xlog.Logger().Debug("one")
		xlog.Logger().Log(t.Context(), xlog.LevelTrace, "two")
	}
	setFlag(t, "v", "1")
	out := capture(t, log)
	require.Contains(t, out, "] one")
	require.NotContains(t, out, "] two")
	setFlag(t, "v", "2")
	require.Contains(t, capture(t, log), "] two")
	setFlag(t, "v", "0")
	require.Empty(t, capture(t, log))
	setFlag(t, "vmodule", "glogbridge_test=1")
	out = capture(t, log)
	require.Contains(t, out, "] one")
	require.NotContains(t, out, "] two")
	require.NotEmpty(t, glogbridge.Flags())
}
