package cli_test

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/stretchr/testify/require"
	"github.com/torchgo/torchgo/cmd/torchgo/internal/cli"
)

var behaviour func(cmd *cobra.Command, app *cli.App) error

func init() {
	cli.Register(func(app *cli.App) *cobra.Command {
		return &cobra.Command{
			Use:  "act FILE",
			Args: cobra.ExactArgs(1),
			RunE: func(cmd *cobra.Command, _ []string) error { return behaviour(cmd, app) },
		}
	})
}

func run(ctx context.Context, do func(*cobra.Command, *cli.App) error, args ...string) (status int, stdout, stderr string) {
	behaviour = do
	var out, err bytes.Buffer
	status = cli.Run(ctx, &cli.App{Stdin: strings.NewReader(""), Stdout: &out, Stderr: &err}, args)
	return status, out.String(), err.String()
}

func fine(*cobra.Command, *cli.App) error { return nil }

func TestStatuses(t *testing.T) {
	status, stdout, stderr := run(t.Context(), func(_ *cobra.Command, app *cli.App) error {
		require.True(t, app.JSON)
		require.True(t, app.NoProgress)
		require.Nil(t, app.Progress())
		return app.PrintJSON(map[string]string{"a": "<b>"})
	}, "act", "file", "--json", "--no-progress", "-v=1")
	require.Equal(t, 0, status)
	require.Equal(t, "{\n  \"a\": \"<b>\"\n}\n", stdout)
	require.Empty(t, stderr)

	status, _, stderr = run(t.Context(), func(*cobra.Command, *cli.App) error {
		return errors.New("x.safetensors: header: bad\n\n  line two\r\n\tline\x1b[31m three\n")
	}, "act", "file")
	require.Equal(t, 1, status)
	require.Equal(t, "torchgo: act: x.safetensors: header: bad; line two; line [31m three\n", stderr)

	status, _, stderr = run(t.Context(), func(*cobra.Command, *cli.App) error { panic("boom\nat once") }, "act", "file")
	require.Equal(t, 1, status)
	require.Equal(t, "torchgo: internal error: boom; at once\n", stderr)
}

func TestWrongUsage(t *testing.T) {
	for _, args := range [][]string{
		{"nonsense"}, {"act"}, {"act", "a", "b"}, {"act", "--nonsense", "a"}, {"--nonsense"}, {"act", "a", "-v=x"}, {"act", "a", "-v"},
		{"act", "a", "--json=maybe"}, {"act", ""},
	} {
		status, stdout, stderr := run(t.Context(), fine, args...)
		require.Equal(t, 2, status, args)
		require.Empty(t, stdout, args)
		require.True(t, strings.HasPrefix(stderr, "torchgo: "), stderr)
		require.Equal(t, 1, strings.Count(stderr, "\n"), stderr)
	}
	status, _, stderr := run(t.Context(), func(*cobra.Command, *cli.App) error { return cli.Usagef("--dtype %q: no such dtype", "x") }, "act", "a")
	require.Equal(t, 2, status)
	require.Equal(t, "torchgo: act: --dtype \"x\": no such dtype (see `torchgo act --help`)\n", stderr)
}

func TestInterrupted(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	status, _, stderr := run(ctx, func(cmd *cobra.Command, _ *cli.App) error {
		cancel()
		<-cmd.Context().Done()
		return cmd.Context().Err()
	}, "act", "a")
	require.Equal(t, 130, status)
	require.Equal(t, "torchgo: act: interrupted\n", stderr)
}

func TestHelp(t *testing.T) {
	status, stdout, stderr := run(t.Context(), fine, "--help")
	require.Equal(t, 0, status)
	require.Contains(t, stdout, "act")
	require.NotContains(t, stdout, "logtostderr")
	require.Empty(t, stderr)
	status, stdout, stderr = run(t.Context(), fine, "--version")
	require.Equal(t, 0, status)
	require.Equal(t, "torchgo version "+cli.Version()+"\n", stdout)
	require.Empty(t, stderr)
	status, stdout, _ = run(t.Context(), fine)
	require.Equal(t, 0, status)
	require.Contains(t, stdout, "Usage:")
}
