// Package cli is what all of torchgo's commands share: flags, exit statuses, the one line that a
// failure prints, interruption. A command is a file of package main that calls cli.Register.
package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"syscall"
	"time"
	"unicode"

	"github.com/golang/glog"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"github.com/torchgo/torchgo/cmd/torchgo/internal/ui"
	"github.com/torchgo/torchgo/internal/xlog"
	"github.com/torchgo/torchgo/internal/xlog/glogbridge"
)

// Exit statuses; there are no others.
const (
	OK          = 0
	Failed      = 1
	WrongUsage  = 2
	Interrupted = 130
)

// grace is how long an interrupted command may take to clean up.
const grace = 5 * time.Second

// App is what a command gets.
type App struct {
	Stdin  io.Reader
	Stdout io.Writer // results
	Stderr io.Writer // messages to people; logs go to the process's own stderr

	JSON       bool // --json: print one JSON document
	NoProgress bool // --no-progress
}

// Progress returns the bars to report to: nil when they are off or stderr is no terminal.
func (a *App) Progress() *ui.Bars {
	if a.NoProgress {
		return nil
	}
	return ui.NewBars(a.Stderr)
}

// PrintJSON writes v as one indented document.
func (a *App) PrintJSON(v any) error {
	e := json.NewEncoder(a.Stdout)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	return e.Encode(v)
}

var commands []func(*App) *cobra.Command

// Register adds a command. Its RunE returns an error for a failed run (exit status 1) or a
// UsageError (2), without the command's name, and uses cmd.Context(), which ends at Ctrl-C.
func Register(make func(*App) *cobra.Command) { commands = append(commands, make) }

// UsageError is wrong usage that only the command itself can see.
type UsageError struct{ Message string }

func (e UsageError) Error() string { return e.Message }

// Usagef makes a UsageError.
func Usagef(format string, args ...any) error { return UsageError{fmt.Sprintf(format, args...)} }

// backtracer is an error that can tell more than its message, *torch.Error with its C++ stack.
type backtracer interface{ Backtrace() string }

// runError marks what a command's RunE returned, to tell it from cobra's own errors, which are
// about usage.
type runError struct{ error }

func (e runError) Unwrap() error { return e.error }

// Main runs the command line and returns the exit status.
func Main() int {
	glogbridge.Install()
	defer glog.Flush()
	signal.Ignore(syscall.SIGPIPE) // a closed stdout is a write error like any other
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop) // a second Ctrl-C kills at once
	app := &App{Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr}
	status := make(chan int, 1)
	go func() {
		// The command computes on this goroutine, and libgomp keeps a pool of threads for each thread
		// that does.
		runtime.LockOSThread()
		status <- Run(ctx, app, os.Args[1:])
	}()
	select {
	case s := <-status:
		return s
	case <-ctx.Done():
	}
	select {
	case s := <-status:
		return s
	case <-time.After(grace): // inside a long kernel, which can't be stopped
		report(app, "", errInterrupted)
		return Interrupted
	}
}

var errInterrupted = errors.New("interrupted")

// Run parses and runs one command line.
func Run(ctx context.Context, app *App, args []string) (status int) {
	defer func() {
		if p := recover(); p != nil {
			xlog.Logger().Log(ctx, xlog.LevelTrace, "panic", "stack", string(debug.Stack()))
			report(app, "", fmt.Errorf("internal error: %v", p))
			status = Failed
		}
	}()
	root := newRoot(app)
	root.SetArgs(args)
	cmd, err := root.ExecuteContextC(ctx)
	if err == nil {
		return OK
	}
	name := strings.TrimPrefix(cmd.CommandPath(), root.Name())
	name = strings.TrimSpace(name)
	var usage UsageError
	var ran runError
	switch {
	case errors.As(err, &usage), !errors.As(err, &ran):
		help := strings.TrimSpace(root.Name()+" "+name) + " --help"
		report(app, name, fmt.Errorf("%w (see `%s`)", err, help))
		return WrongUsage
	case ctx.Err() != nil:
		report(app, name, errInterrupted)
		return Interrupted
	}
	var b backtracer
	if errors.As(err, &b) {
		xlog.Logger().LogAttrs(ctx, xlog.LevelTrace, "backtrace", slog.String("stack", b.Backtrace()))
	}
	report(app, name, err)
	return Failed
}

// Version is the module's version, or the commit for a build from a clone.
func Version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	version := info.Main.Version
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" && (version == "" || version == "(devel)") {
			return s.Value
		}
	}
	return version
}

func newRoot(app *App) *cobra.Command {
	root := &cobra.Command{
		Use:           "torchgo",
		Short:         "PyTorch checkpoints in Go",
		Version:       Version(),
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          cobra.NoArgs,
		RunE:          func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
		PersistentPreRunE: func(cmd *cobra.Command, _ []string) error {
			if !xlog.Logger().Enabled(cmd.Context(), xlog.LevelTrace) {
				return nil
			}
			// libtorch names the frames of its backtraces only then.
			return os.Setenv("TORCH_SHOW_CPP_STACKTRACES", "1")
		},
	}
	root.SetIn(app.Stdin)
	root.SetOut(app.Stdout)
	root.SetErr(app.Stderr)
	root.CompletionOptions.HiddenDefaultCmd = true
	flags := root.PersistentFlags()
	flags.BoolVar(&app.JSON, "json", false, "print one JSON document")
	flags.BoolVar(&app.NoProgress, "no-progress", false, "no progress bars")
	for _, f := range glogbridge.Flags() {
		p := pflag.PFlagFromGoFlag(f)
		p.Hidden = f.Name != "v"
		flags.AddFlag(p)
	}
	for _, make := range commands {
		cmd := make(app)
		markErrors(cmd)
		root.AddCommand(cmd)
	}
	return root
}

// markErrors makes what a command and those below it return a runError, and an empty argument, which as a rule is
// a variable that a script didn't set, wrong usage.
func markErrors(cmd *cobra.Command) {
	if check := cmd.Args; check != nil {
		cmd.Args = func(cmd *cobra.Command, args []string) error {
			if i := slices.Index(args, ""); i >= 0 {
				return fmt.Errorf("argument %d is empty", i+1)
			}
			return check(cmd, args)
		}
	}
	if run := cmd.RunE; run != nil {
		cmd.RunE = func(cmd *cobra.Command, args []string) error {
			if err := run(cmd, args); err != nil {
				return runError{err}
			}
			return nil
		}
	}
	for _, below := range cmd.Commands() {
		markErrors(below)
	}
}

// report prints the one line of a failure of a command.
func report(app *App, command string, err error) {
	glog.Flush()
	if command != "" {
		command += ": "
	}
	fmt.Fprintf(app.Stderr, "torchgo: %s%s\n", command, OneLine(err.Error()))
}

// OneLine folds a text of several lines into one and drops control characters.
func OneLine(text string) string {
	var lines []string
	for line := range strings.FieldsFuncSeq(text, func(r rune) bool { return r == '\n' || r == '\r' || r == '\v' || r == '\f' }) {
		line = strings.Map(func(r rune) rune {
			if unicode.IsControl(r) {
				return ' '
			}
			return r
		}, line)
		if line = strings.TrimSpace(line); line != "" {
			lines = append(lines, line)
		}
	}
	return strings.Join(lines, "; ")
}
