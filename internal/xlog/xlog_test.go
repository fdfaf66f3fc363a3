package xlog_test

import (
	"bytes"
	"log/slog"
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/torchgo/torchgo/internal/xlog"
)

func textHandler(w *bytes.Buffer, level slog.Level) slog.Handler {
	return slog.NewTextHandler(w, &slog.HandlerOptions{Level: level, ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
		if a.Key == slog.TimeKey {
			return slog.Attr{}
		}
		return a
	}})
}

func TestLoggerFollowsDefaultThenHandler(t *testing.T) {
	var own, app bytes.Buffer
	old := slog.Default()
	t.Cleanup(func() { xlog.SetHandler(nil); slog.SetDefault(old) })
	slog.SetDefault(slog.New(textHandler(&app, slog.LevelInfo)))

	l := xlog.Logger().With("a", 1).WithGroup("g").With("b", 2)
	l.Warn("first", "c", 3)
	l.Debug("never")
	xlog.SetHandler(textHandler(&own, slog.LevelDebug))
	l.Debug("second")

	require.Equal(t, "level=WARN msg=first a=1 g.b=2 g.c=3\n", app.String())
	require.Equal(t, "level=DEBUG msg=second a=1 g.b=2\n", own.String())
}
